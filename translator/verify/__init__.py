"""The judge: it imports nothing that made what it judges, and takes its subjects from the module."""
