"""A permutation for each value, decided first and applied afterwards. No framework here."""
