"""Whole runs: the configuration, the rounds, the run directory, the recipes."""
