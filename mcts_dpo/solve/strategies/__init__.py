"""The strategies, one file each; registry.py names them."""
