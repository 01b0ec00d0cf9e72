"""Numbers and units as people write them, read into exact values."""
