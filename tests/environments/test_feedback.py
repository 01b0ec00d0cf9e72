"""Self-correction: the critique comes at a stated answer, so often and no oftener; a correction has its worth."""

from __future__ import annotations

from typing import Any

import pytest

from mcts_dpo.data import Problem
from mcts_dpo.engines.coroutine import Call
from mcts_dpo.environments import Turn, environment_of
from mcts_dpo.environments.feedback import FeedbackSettings
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards import RewardContext, SolutionPath
from mcts_dpo.rewards.correction import CorrectionSettings, attempts
from mcts_dpo.rewards.registry import make_rewards
from mcts_dpo.search import search_problems
from tests.models.test_prompts import CHATML, byte_level
from tests.search.test_acting import PROBLEM, engine, leaf, settings, solved

CRITIQUE = "Check the solution; if there is a mistake, correct it."


def test_the_critique_comes_at_an_answer() -> None:
    environment = environment_of(FeedbackSettings(rounds=2))
    assert environment is not None

    def reply(*turns: Turn) -> bool:
        found = environment.reply(PROBLEM, turns)
        return found is not None and (found.text, found.role, found.done) == (CRITIQUE, "user", False)

    first = Turn("The answer is 4.\n", CRITIQUE)
    assert not reply(Turn("First 2 + 3 = 4.\n"))
    assert not reply(Turn("Is the answer 4?\n"))
    assert reply(Turn("The answer is 4.\n"))
    assert reply(first, Turn("The answer is 5.\n"))
    assert not reply(first, Turn("So 5."))
    assert not reply(first, first, Turn("The answer is 5.\n"))
    boxed = environment_of(FeedbackSettings(answer_style="gsm8k"))
    assert boxed is not None
    assert boxed.reply(PROBLEM, [Turn("#### 4")]) is not None
    assert boxed.reply(PROBLEM, [Turn(r"\boxed{4}")]) is None


@pytest.mark.parametrize("expand", ["step", "rollout"])
def test_the_last_answer_counts(expand: str) -> None:
    policy = engine(
        ("The answer is 4.", CRITIQUE, "I was wrong.\nThe answer is 5."),
        ("The answer is 5.", CRITIQUE, "The answer is 6."),
        role="user",
    )
    forest = search_problems(
        [PROBLEM],
        policy,
        prompt=PromptSettings(),
        settings=settings(environment="feedback", expand=expand, rewards=["outcome", "correction"]),
    )
    corrected, spoilt = leaf(forest, "5"), leaf(forest, "6")
    assert (forest.outcome[corrected], forest.scores["correction"][corrected]) == (1, 1.5)
    assert (forest.outcome[spoilt], forest.scores["correction"][spoilt]) == (-1, -1.5)
    assert len(forest.answers) - forest.answers.count(None) == 2, "an answer that was doubted is no end"


def path(*steps: tuple[str, str], outcome: int) -> SolutionPath:
    texts, replies = zip(*((step + reply, reply) for step, reply in steps), strict=True)
    return SolutionPath((), (), "".join(texts), texts, (), True, True, outcome, "?", replies)


@pytest.mark.parametrize(
    ("first", "last", "worth"), [("4", "5", 1.25), ("5", "5", 1.0), ("4", "4", -1.0), ("5", "4", -2.0)]
)
def test_what_a_correction_is_worth(first: str, last: str, worth: float) -> None:
    entry = CorrectionSettings(bonus=0.25, malus=1.0)
    context = RewardContext(Problem("1", "?", "5"), byte_level(CHATML), PromptSettings())
    (reward,) = make_rewards([entry], context)
    shown = path(
        ("Hm.\n", ""),
        (f"The answer is {first}.\n", CRITIQUE),
        (f"The answer is {last}.", ""),
        outcome=1 if last == "5" else -1,
    )
    assert attempts(shown) == [f"Hm.\nThe answer is {first}.\n", f"The answer is {last}."]
    coroutine = reward.scores([shown])
    (work,) = next(coroutine)
    assert isinstance(work, Call)
    assert list(work.function(work.items)) == [worth]
    assert entry.bounds == (-2.0, 2.0)


def test_solving_asks_for_a_check_too() -> None:
    policy = engine(("The answer is 4.", CRITIQUE, "The answer is 5."), role="user")
    found: Any = solved(policy, "greedy", environment="feedback")
    assert found.answer == "5"
    assert CRITIQUE in found.text
