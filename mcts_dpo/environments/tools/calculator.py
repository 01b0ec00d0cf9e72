"""A calculator: the exact value of an expression of numbers (`verifiers.calculate`)."""

from __future__ import annotations

from typing import Literal

from mcts_dpo.environments.tools.tool import Tool, ToolSettings, register_tool
from verifiers.calculate import calculate


class CalculatorSettings(ToolSettings):
    """The exact value of an expression of numbers."""

    kind: Literal["calculator"] = "calculator"


def _make(settings: CalculatorSettings) -> Tool:
    expression = {"type": "string", "description": "an expression of numbers, such as (12 + 3) * 7 / 2"}
    return Tool(
        "calculator",
        "The exact value of an expression of numbers.",
        {"type": "object", "properties": {"expression": expression}, "required": ["expression"]},
        lambda arguments: calculate(arguments["expression"]),
    )


register_tool(CalculatorSettings, _make)
