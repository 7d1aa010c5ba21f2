"""From the plan to a Functional Keras model. No PyTorch here."""
