"""From rows to batches: reading, rendering, collating and packing of what a policy learns from."""
