"""Proofs that may take long: worker processes with deadlines, sympy, and math-verify as a fallback."""
