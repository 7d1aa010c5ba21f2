"""PyTorch models to native Keras 3 models, with a proof that both are the same function."""
