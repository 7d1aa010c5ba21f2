"""Networks to translate, written as their users write them: plain PyTorch and plain Keras files."""
