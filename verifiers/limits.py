"""Fixed bounds: the verifiers refuse larger input before they evaluate anything.

In: nothing. Out: the bounds as numbers, and the two exceptions that a reader raises when it gives up on a text.
"""

from __future__ import annotations

MAX_TEXT = 200_000  #: characters of a whole solution text that is searched for its conclusion
MAX_ANSWER = 4_000  #: characters of one answer
MAX_TOKENS = 1_500  #: tokens of one answer
MAX_DEPTH = 60  #: nesting of brackets, fractions, roots
MAX_DIGITS = 1_000  #: decimal digits of one written number
MAX_BITS = 20_000  #: bits of one exact intermediate number
MAX_EXPONENT_BITS = 256  #: bits before the point of an exponent that is evaluated numerically, whatever the base
MAX_POWER_BITS = 2**24  #: bits before or after the point of a power that is evaluated numerically
MAX_FACTORIAL = 1_000  #: argument of a factorial that is multiplied out
MAX_STEPS = 2_000  #: nodes visited while an expression is brought to its canonical form
MAX_VISITS = 20_000  #: nodes visited while two expressions are evaluated numerically
MAX_TERMS = 400  #: terms of one expanded polynomial


class TooLarge(Exception):
    """A text or a number is beyond the fixed bounds."""


class Unparsed(Exception):
    """A text is not an answer in the grammar; the message says where reading stopped."""
