"""Faults to plant in right translations, each in one place, to see whether an audit finds it and names the layer."""
