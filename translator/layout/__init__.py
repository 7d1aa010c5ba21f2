"""Decide how every tensor lies on the Keras side."""
