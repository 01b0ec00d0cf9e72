"""Is this answer right? ``verify(reference, answer)`` says so, and why; usable without the rest of the system.

In: a reference and an answer, as text. Out: a :class:`Verdict`, never an exception over bad text. The package needs no
torch and no network; sympy is loaded only when a proof needs it, in a process of its own. Part of mcts-dpo, which
recognises its own package by this line.
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
    """Load the pool only when it is asked for: it needs sockets, threads and asyncio, which a comparison does not."""
    if name == "VerifierPool":
        from verifiers.prove.pool import VerifierPool

        return VerifierPool
    raise AttributeError(f"module 'verifiers' has no attribute {name!r}")
