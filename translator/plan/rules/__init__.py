"""One rule for each ONNX operator, by kind."""
