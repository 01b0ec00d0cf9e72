"""Whether this machine can enforce the sandbox: some containers forbid user namespaces."""

from __future__ import annotations

from functools import cache

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.environments.python import Interpreter, PythonLimits


@cache
def lacks() -> str:
    """Why the sandbox cannot be enforced here; "" if it can."""
    try:
        Interpreter(PythonLimits(preload=()), "bubblewrap").close()
    except InputError as error:
        return str(error)
    return ""


needs_bubblewrap = pytest.mark.skipif(bool(lacks()), reason=lacks() or "the sandbox can be enforced")
