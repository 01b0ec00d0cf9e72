"""Check whether an answer is right: ``verify(reference, answer)`` returns the verdict and the reason.

In: a reference and an answer, as text. Out: a :class:`Verdict`. Bad text never raises an exception. The package works
without the rest of the system. It needs no torch and no network. It loads sympy only when a proof needs it, in a
separate process. This package is part of mcts-dpo, which recognises its own package by this line.
"""

from typing import TYPE_CHECKING, Any

from verifiers.api import verify
from verifiers.choice import verify_choice
from verifiers.policy import DEFAULT_POLICY, Policy
from verifiers.read import STYLES, extract_answer, register_mark, register_thought, states_answer
from verifiers.registry import get_verifier, register, verifier_names
from verifiers.verdict import Verdict
from verifiers.voting import Grouping, equivalence_classes, grouped

if TYPE_CHECKING:
    from verifiers.prove.pool import VerifierPool

__all__ = [
    "DEFAULT_POLICY",
    "STYLES",
    "Grouping",
    "Policy",
    "Verdict",
    "VerifierPool",
    "equivalence_classes",
    "extract_answer",
    "get_verifier",
    "grouped",
    "register",
    "register_mark",
    "register_thought",
    "states_answer",
    "verifier_names",
    "verify",
    "verify_choice",
]


def __getattr__(name: str) -> Any:
    """Load the pool on first use: it needs sockets, threads and asyncio, and a comparison does not."""
    if name == "VerifierPool":
        from verifiers.prove.pool import VerifierPool

        return VerifierPool
    raise AttributeError(f"module 'verifiers' has no attribute {name!r}")
