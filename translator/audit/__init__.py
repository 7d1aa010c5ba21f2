"""Any PyTorch model against any Keras model: align, explain every gap, transfer the weights."""
