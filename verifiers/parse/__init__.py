"""Parses the text of an answer into a small typed tree, within bounds."""
