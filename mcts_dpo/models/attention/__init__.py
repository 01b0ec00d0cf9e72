"""Attention within a packed tree of sequences."""
