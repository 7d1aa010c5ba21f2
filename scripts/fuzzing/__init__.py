"""Random networks for `scripts/fuzz.py`."""
