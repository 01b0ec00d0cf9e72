"""Runs blocks of Python along the paths of a search, in a sandbox: what a block prints is the reply to its step.

A block is fenced: a line "```python", code, a line "```". `interpreter` keeps the states of paths, `blocks` finds the
code in a step, `limits` holds the settings. Below it: `sandbox` runs the processes, `process` talks to one,
`bubblewrap` and `seccomp` say what the kernel enforces, and `inside` is the program that runs there.
"""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from typing import Literal

from mcts_dpo.data import Problem
from mcts_dpo.environments.base import Environment, EnvironmentSettings, Reply, Role, Turn
from mcts_dpo.environments.python.blocks import block_of, open_block
from mcts_dpo.environments.python.bubblewrap import SandboxKind
from mcts_dpo.environments.python.interpreter import Interpreter
from mcts_dpo.environments.python.limits import PythonLimits
from mcts_dpo.environments.python.process import Result
from mcts_dpo.environments.registry import register_environment

__all__ = ["Interpreter", "PythonLimits", "PythonSettings", "Result", "SandboxKind", "block_of", "open_block"]

INSTRUCTION = (
    "You may run Python: write a block that begins with a line ```python and ends with a line ```. What it prints "
    "follows it."
)


class PythonSettings(EnvironmentSettings):
    """A fenced block of Python in a step is run in a sandbox; what it prints, or its error, is the reply.

    sandbox: "bubblewrap" is enforced by the kernel, and refused where it cannot be. "none" runs code as this user,
             with limits that code can undo.
    limits:  of the code.
    role:    where a reply stands (see `Reply`).
    """

    kind: Literal["python"] = "python"
    instruction: str = INSTRUCTION
    sandbox: SandboxKind = "bubblewrap"
    limits: PythonLimits = PythonLimits()
    role: Role = "inline"


def shown_result(result: Result) -> str:
    """A result as the policy reads it: a fenced block of output, with the error at its end."""
    lines = [result.output.rstrip("\n")] if result.output else []
    lines += ["… (the output was cut)"] if result.cut else []
    lines += [result.error] if result.error is not None else []
    return "\n".join(["```output", *lines, "```", ""])


def _make(settings: PythonSettings) -> Environment:
    interpreter = Interpreter(settings.limits, settings.sandbox)
    atexit.register(interpreter.close)

    def reply(problem: Problem, path: Sequence[Turn]) -> Reply | None:
        blocks = [block for turn in path if (block := block_of(turn.step)) is not None]
        if block_of(path[-1].step) is None:
            return None
        before = "" if path[-1].step.endswith("\n") or settings.role != "inline" else "\n"
        return Reply(before + shown_result(interpreter.run(blocks)), role=settings.role)

    return Environment(settings, reply, stops=("```\n",), unfinished=open_block, close=interpreter.close)


register_environment(PythonSettings, _make)
