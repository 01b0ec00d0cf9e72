"""One question in, one answer out: a search in mode "solve" over a single problem.

In: a question (or a `Problem`, whose answer is taken away), an engine, settings. Out: a `SolvedQuestion`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mcts_dpo.engines.base import Engine
from mcts_dpo.files import InputError
from mcts_dpo.problems import Problem
from mcts_dpo.progress import Progress, silent
from mcts_dpo.prompts import PromptSettings
from mcts_dpo.search.answers import Rule, TreeAnswer, tree_answer
from mcts_dpo.search.forest import Forest
from mcts_dpo.search.mcts import search
from mcts_dpo.search.settings import SearchSettings


@dataclass(frozen=True, slots=True)
class SolvedQuestion:
    """The outcome of one solving search.

    answer: None if no solution stated one. text: the returned solution. found: how it was chosen.
    forest: the one tree.
    """

    answer: str | None
    text: str
    found: TreeAnswer
    forest: Forest

    def as_dict(self) -> dict[str, Any]:
        """All but the tree, for JSON."""
        info = self.forest.trees[0]
        return {
            "answer": self.answer,
            "weight": self.found.weight,
            "solution": self.text,
            "steps": [self.forest.texts[node] for node in self.found.path[1:]],
            "simulations": info.simulations,
            "sampled_tokens": info.generated,
            "nodes": len(self.forest),
            "status": info.status,
            "undecided": self.found.undecided,
        }


def solve_question(
    question: str | Problem,
    engine: Engine,
    *,
    prompt: PromptSettings,
    settings: SearchSettings,
    rule: Rule = "weighted",
    progress: Progress = silent,
) -> SolvedQuestion:
    """Answer one question by tree search, without any reference answer.

    Raises InputError if the question is empty, or cannot be searched (it does not fit the context, the engine
    refuses it).
    """
    problem = Problem("question", question) if isinstance(question, str) else question
    if not problem.question.strip():
        raise InputError("question: is empty; accepted: a problem in words")
    forest = search([problem], engine, prompt=prompt, settings=settings, mode="solve", progress=progress)
    if forest.trees[0].status == "failed":
        raise InputError(f"question: {forest.trees[0].reason}")
    found = tree_answer(forest, 0, rule)
    text = forest.solution_text(found.leaf) if found.leaf >= 0 else ""
    return SolvedQuestion(found.answer, text, found, forest)
