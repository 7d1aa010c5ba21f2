"""Image data for both frameworks from one source, as numpy arrays. No framework here."""
