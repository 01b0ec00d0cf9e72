"""The engine that runs a Hugging Face model in this process, by continuous batching over a radix cache."""
