"""From the text of an answer to a small typed tree, within bounds."""
