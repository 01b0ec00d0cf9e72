"""Reads which answer a text states, as text.

In: the text of a solution or of one step, and the name of a style. Out: the answer that it states, or None.
"""

from verifiers.read.marks import register_mark
from verifiers.read.options import named_option
from verifiers.read.states import states_answer
from verifiers.read.styles import STYLES, conclusion, extract_answer
from verifiers.read.thoughts import register_thought

__all__ = [
    "STYLES",
    "conclusion",
    "extract_answer",
    "named_option",
    "register_mark",
    "register_thought",
    "states_answer",
]
