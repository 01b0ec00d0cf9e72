"""A policy and its tokenizer: loading, prompts, encoding and decoding, step ends, the value head."""
