"""Reading: what a text states, as text. It does not know what an answer means.

In: the text of a solution or of one step, and the name of a style. Out: the answer that it states, or None.
"""

from verifiers.read.legacy import STYLES, conclusion, extract_answer
from verifiers.read.states import states_answer

__all__ = ["STYLES", "conclusion", "extract_answer", "states_answer"]
