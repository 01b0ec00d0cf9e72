r"""Problems with reference answers, from files or the Hugging Face hub.

In: a path or the name of a data set on the hub. A path is a file (.jsonl, .json, .csv, each also with .gz, or .parquet)
or a folder of such files. `formats/` has one reader per layout: GSM8K, MATH, MAWPS, multiple choice, plain columns.
Out: a list of `Problem`. `checks` finds reference answers that cannot be read, and training problems that are also test
problems.

A reference answer is text. A number becomes its shortest decimal. A list of one becomes its item. A list of several, or
several boxes in a MATH solution, becomes one answer of several parts: "part, part". Null, NaN and an empty list are no
answer. Anything else is refused by name.
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
