r"""Problems with reference answers, from files or the Hugging Face hub.

In: a path (.jsonl, .json, .csv, .parquet, each but the last also .gz; or a folder of such files) or the
name of a data set on the hub, in the layout of GSM8K, MATH, MAWPS, ARC, or any columns. Out: a list of
`Problem`. Also here: which reference answers cannot be read, and which training problems are test problems. Knows no
models, prompts or tokens.

A reference answer is text: numbers as their shortest decimal, a list of one as its item, a list of several (and several
boxes in a MATH solution) as one answer of several parts, "part, part". Null, NaN and an empty list
are no answer. Anything else is refused by name.
"""

from mcts_dpo.data.checks import overlap, require_answers, unparsable_answers, without_any_answer
from mcts_dpo.data.formats import Row, register_format
from mcts_dpo.data.formats.math import last_boxed
from mcts_dpo.data.loading import load_problems, save_problems
from mcts_dpo.data.problem import Problem, Role
from mcts_dpo.data.settings import ProblemSettings

__all__ = [
    "Problem",
    "ProblemSettings",
    "Role",
    "Row",
    "last_boxed",
    "load_problems",
    "overlap",
    "register_format",
    "require_answers",
    "save_problems",
    "unparsable_answers",
    "without_any_answer",
]
