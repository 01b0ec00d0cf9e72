"""The engine that runs a policy with vLLM inside this process."""
