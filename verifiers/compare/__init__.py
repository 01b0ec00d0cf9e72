"""Decides which trees count as the same answer, from identity to numeric refutation."""
