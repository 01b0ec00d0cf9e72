"""The built-in strategies, one per file. registry.py lists them by name."""
