"""ONNX graph passes, each with what holds before and after. No framework here."""
