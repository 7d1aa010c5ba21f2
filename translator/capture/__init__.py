"""From what the user names to clean ONNX: source, checkpoint, trace, export. No Keras here."""
