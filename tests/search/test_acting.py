"""Environments in a search: what replies to a step stands in the tree, costs nothing, and is nobody's loss."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem
from mcts_dpo.environments import Environment, EnvironmentSettings, Reply, Turn, register_environment, registry
from mcts_dpo.evaluation import EvaluationSettings, evaluate
from mcts_dpo.models.prompts import PromptSettings, reply_tokens
from mcts_dpo.preferences import PreferenceSettings, extract_pairs, extract_siblings, extract_solutions
from mcts_dpo.preferences.steps import extract_steps
from mcts_dpo.search import Forest, SearchSettings, search_problems
from mcts_dpo.solve import Solution, Strategy, solve_problems
from tests.models.test_prompts import CHATML, byte_level, ids
from tests.reference.engine import AutomatonEngine
from tests.reference.invariants import violations
from tests.reference.scripted import ScriptedEngine
from tests.search.test_journal import JUDGED, DyingEngine, Killed, shards
from tests.search.test_runner import ShuffledEngine

TOKENIZER = byte_level(CHATML)
QUESTION = "What about 2 + 3?"
PROBLEM = Problem("1", QUESTION, "5")


class CountingSettings(EnvironmentSettings):
    """Replies "= n" to a step that ends with "?", where n is the number of such steps so far.

    trouble: what happens at "!". role: of the replies. last: the reply of this number ends the solution.
    """

    kind: Literal["counting"] = "counting"
    trouble: Literal["raise", "hang", "long"] = "raise"
    role: Literal["inline", "user", "tool"] = "inline"
    last: int = 99
    instruction: str = "Ask."


def _make(settings: CountingSettings) -> Environment:
    def reply(problem: Problem, path: Sequence[Turn]) -> Reply | None:
        assert problem.question == QUESTION
        step = path[-1].step.rstrip("\n")
        if step.endswith("!"):
            if settings.trouble == "hang":
                time.sleep(30)
            if settings.trouble == "long":
                return Reply("so " * 4000)
            raise ValueError("no\nway")
        if not step.endswith("?"):
            return None
        count = sum(turn.step.rstrip("\n").endswith("?") for turn in path)
        assert [turn.reply is not None for turn in path[:-1]] == [
            turn.step.rstrip("\n").endswith("?") for turn in path[:-1]
        ]
        return Reply(f"= {count}\n", done=count == settings.last, reward=0.25, role=settings.role)

    return Environment(settings, reply, stops=("?\n", "!\n"), unfinished=lambda step: step.count("[") > step.count("]"))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments of these tests alone."""
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    register_environment(CountingSettings, _make)


def engine(*scripts: Sequence[str], role: Any = "inline") -> ScriptedEngine:
    """A policy that writes scripts: its own text and the environment's replies by turns, beginning with its own."""
    scripted = ScriptedEngine(TOKENIZER, {QUESTION: []}, yes=0.7)
    for parts in scripts:
        tokens: tuple[int, ...] = ()
        for own, part in zip(itertools.cycle([True, False]), parts, strict=False):
            tokens += (
                tuple(ids(TOKENIZER, part))
                if own
                else reply_tokens(TOKENIZER, PromptSettings(), part, role, tokens[-1])
            )
        scripted._scripts[QUESTION].append((*tokens, TOKENIZER.eos_token_id))
    return scripted


RIGHT = ("First?\n", "= 1\n", "Then 4.\nAgain?\n", "= 2\n", "The answer is 5.")
WRONG = ("First?\n", "= 1\n", "The answer is 4?\n", "= 2\n", "The answer is 6.")


def settings(**given: Any) -> SearchSettings:
    known: dict[str, Any] = {"environment": {"kind": "counting"}, "simulations": 12, "max_depth": 8, "children": 2}
    return SearchSettings.model_validate(known | {"allocation": "fixed", "temperature": 1.0} | given)


def grown(policy: ScriptedEngine, **given: Any) -> Forest:
    return search_problems([PROBLEM], policy, prompt=PromptSettings(), settings=settings(**given))


def solved(policy: ScriptedEngine, strategy: Strategy, prompt: PromptSettings | None = None, **given: Any) -> Solution:
    """With a budget of 90 tokens."""
    search = settings(**{"allocation": "auto", "expand": "step"} | given)
    found = solve_problems([PROBLEM], policy, [(strategy, 90)], prompt=prompt or PromptSettings(), search=search)
    return found[strategy, 90][0]


def leaf(forest: Forest, answer: str | None) -> int:
    (found,) = [node for node, stated in enumerate(forest.answers) if stated == answer and forest.terminal[node]]
    return found


@pytest.mark.parametrize("expand", ["step", "rollout"])
def test_replies_stand_in_the_tree_and_cost_nothing(expand: str) -> None:
    policy = engine(RIGHT, WRONG)
    forest = grown(policy, expand=expand)
    right, wrong = leaf(forest, "5"), leaf(forest, "6")
    assert forest.solution_text(right) == "".join(RIGHT)
    assert [forest.texts[node] for node in forest.path(right)[1:]] == [
        "First?\n= 1\n",
        "Then 4.\n",
        "Again?\n= 2\n",
        "The answer is 5.",
    ]
    assert [forest.replies[node] for node in forest.path(wrong)[1:]] == ["= 1\n", "= 2\n", ""]
    assert (forest.outcome[right], forest.outcome[wrong]) == (1, -1), "a stated answer with a reply was not the end"
    assert forest.trees[0].generated == policy.usage.sampled_tokens
    assert forest.trees[0].status == "exhausted"
    for node in range(1, len(forest)):
        own = int(forest.length[node] - forest.reply_length[node])
        assert own >= 1
        if forest.replies[node]:
            reply = tuple(forest.step_tokens(node)[own:])
            assert reply == tuple(ids(TOKENIZER, forest.replies[node]))
            assert set(forest.step_logprobs(node)[own:]) == {0.0}
            assert forest.reply_reward[node] == 0.25
        expected = forest.samples[node] * 2.718281828459045 ** (forest.logprob[node] / own**1.25)
        assert forest.mass[node] == pytest.approx(expected), "replies are no part of the prior"
    assert "\n\nAsk." in forest.trees[0].prompt_text


@pytest.mark.parametrize("role", ["user", "tool"])
@pytest.mark.parametrize("expand", ["step", "rollout"])
def test_a_reply_may_be_a_turn_of_the_chat(expand: str, role: str) -> None:
    policy = engine(RIGHT, role=role)
    forest = grown(policy, expand=expand, environment={"kind": "counting", "role": role})
    right = leaf(forest, "5")
    assert forest.solution_text(right) == "First?\n\n= 1\nThen 4.\nAgain?\n\n= 2\nThe answer is 5."
    first = forest.path(right)[1]
    assert TOKENIZER.decode(forest.step_tokens(first)) == (
        f"First?\n<|im_end|>\n<|im_start|>{role}\n= 1\n<|im_end|>\n<|im_start|>assistant\n"
    )


def test_an_environment_ends_a_solution() -> None:
    for expand in ("step", "rollout"):
        forest = grown(engine(RIGHT), expand=expand, environment={"kind": "counting", "last": 1})
        (end,) = [node for node in range(len(forest)) if forest.terminal[node]]
        assert forest.solution_text(end) == "First?\n= 1\n"


def test_an_answer_in_a_reply_does_not_count() -> None:
    forest = grown(engine(("So?\n", "= 1\n", "Done")), expand="step")
    (end,) = [node for node in range(len(forest)) if forest.terminal[node]]
    assert forest.answers[end] is None
    last_number = PromptSettings(answer_style="last_number")
    solution = solved(engine(("So?\n", "= 1\n", "Done")), "greedy", last_number)
    assert solution.answer is None
    assert solution.text == "So?\n= 1\nDone"


def test_a_step_goes_on_while_it_is_open() -> None:
    script = ("Look [\nat\nthis] now?\n", "= 1\n", "The answer is 5.")
    for expand in ("step", "rollout"):
        forest = grown(engine(script), expand=expand)
        assert [forest.texts[node] for node in forest.path(leaf(forest, "5"))[1:]] == [
            "Look [\nat\nthis] now?\n= 1\n",
            "The answer is 5.",
        ]
    forest = grown(engine(("Look [\nat\nthis\nfor ever",)), expand="step", max_step_tokens=6)
    assert forest.trees[0].notes == ["a solution was cut inside a block that it had not closed"]


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        ("raise", "the environment counting failed: ValueError: no way"),
        ("hang", "the environment counting failed: no reply within 0.2 seconds"),
        ("long", "a reply of 12000 tokens does not fit into the 24 that are left"),
    ],
)
@pytest.mark.parametrize("expand", ["step", "rollout"])
def test_a_failure_is_the_end_of_its_path_only(trouble: str, told: str, expand: str) -> None:
    policy = engine(("Oh no!\n", "", "The answer is 5."), RIGHT)
    begun = time.monotonic()
    forest = grown(policy, expand=expand, environment={"kind": "counting", "trouble": trouble, "seconds": 0.2})
    assert time.monotonic() - begun < 20
    failed = next(node for node in range(len(forest)) if forest.texts[node] == "Oh no!\n")
    assert (forest.terminal[failed], forest.outcome[failed], forest.answers[failed]) == (True, -1, None)
    assert forest.outcome[leaf(forest, "5")] == 1
    assert [note.split(" tokens")[0] for note in forest.trees[0].notes] == [told.split(" tokens")[0]]
    assert forest.trees[0].status == "exhausted"


def test_a_slow_reply_holds_up_no_other_tree() -> None:
    """Of two problems one waits for ever; the other is solved in the meantime."""
    released = threading.Event()

    class Waiting(CountingSettings):
        kind: Literal["waiting"] = "waiting"  # type: ignore[assignment]

    def make(settings: Waiting) -> Environment:
        def reply(problem: Problem, path: Sequence[Turn]) -> Reply | None:
            if problem.id == "slow":
                assert released.wait(30)
            return None

        return Environment(settings, reply)

    register_environment(Waiting, make)
    policy = engine(("The answer is 5.",))
    seen: list[int] = []

    def progress(stage: str, done: int, total: int, **figures: float) -> None:
        seen.append(done)
        if done == 1:
            released.set()

    forest = search_problems(
        [replace(PROBLEM, id="slow"), PROBLEM],
        policy,
        prompt=PromptSettings(),
        settings=settings(environment="waiting", schedule="asynchronous"),
        progress=progress,
    )
    assert [info.status for info in forest.trees] == ["exhausted", "exhausted"]
    assert 1 in seen


def test_replies_are_marked_in_every_table(tmp_path: Path) -> None:
    forest = grown(engine(RIGHT, WRONG), expand="step")
    forest.save(tmp_path / "trees.parquet")
    assert Forest.load(tmp_path / "trees.parquet") == forest
    wide = PreferenceSettings(select="all", min_gap=0.0)
    pairs, siblings = extract_pairs([forest], wide), extract_siblings([forest], wide)
    solutions, steps = extract_solutions([forest], wide), extract_steps([forest])

    def marked(table: Any, tokens: str, mask: str) -> list[str]:
        rows = zip(table.tokens(tokens), table.environment_mask(mask), strict=False)
        return ["".join(TOKENIZER.decode(ids_[given])) if given.any() else "" for ids_, given in rows]

    assert "= 2\n" in marked(pairs, "rejected_tokens", "rejected")
    assert set(marked(pairs, "prefix_tokens", "prefix")) <= {"= 1\n", ""}
    assert "= 2\n" in marked(siblings, "step_tokens", "step")
    assert marked(solutions, "completion_tokens", "completion") == ["= 1\n= 2\n"]
    assert marked(steps, "completion_tokens", "completion") == ["= 1\n= 2\n", "= 1\n= 2\n"]


@pytest.mark.parametrize("strategy", ["greedy", "majority", "best-of-n", "weighted", "beam", "dvts", "mcts"])
def test_every_strategy_hears_the_replies(strategy: Any) -> None:
    policy = engine(RIGHT)
    solution = solved(policy, strategy)
    assert solution.answer == "5"
    assert solution.text == "".join(RIGHT)
    assert policy.usage.sampled_tokens + solution.judge_tokens == solution.tokens <= 90


def test_an_evaluation_hears_the_replies() -> None:
    found = evaluate(
        [PROBLEM],
        engine(RIGHT, ("Or?\n", "= 1\n", "The answer is 6.")),
        prompt=PromptSettings(),
        settings=EvaluationSettings(samples=2, k=(1, 2)),
        environment=CountingSettings(),
    )
    (outcome,) = found.outcomes
    assert (outcome.answer, outcome.text, outcome.correct) == ("5", "".join(RIGHT), True)
    assert outcome.sample_answers == ("5", "6")


def test_the_environment_s_own_reward_is_a_reward() -> None:
    forest = grown(engine(RIGHT), expand="step", rewards=["outcome", {"kind": "environment", "weight": 2.0}])
    path = forest.path(leaf(forest, "5"))
    assert forest.scores["environment"][path[1:]].tolist() == [0.25, 0.25, 0.5, 0.5]


def test_rules_that_cut_inside_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"entropy cuts inside steps, which environment counting replies to"):
        settings(allocation="entropy", expand="rollout", merge="none")
    with pytest.raises(InputError, match="no chat template"):
        reply_tokens(byte_level(None), PromptSettings(), "x", "user")


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
@pytest.mark.parametrize("expand", ["step", "rollout"])
def test_killed_in_the_middle_it_ends_in_the_same_bytes(tmp_path: Path, schedule: str, expand: str) -> None:
    """And no reply that was given is asked for again."""
    asked: list[tuple[str, Sequence[Turn]]] = []

    class EvenSettings(EnvironmentSettings):
        kind: Literal["even"] = "even"

    def reply(problem: Problem, path: Sequence[Turn]) -> Reply | None:
        asked.append((problem.id, path))
        return Reply("ab", reward=0.5) if len(path[-1].step) % 2 == 0 else None

    register_environment(EvenSettings, lambda settings: Environment(settings, reply))
    searched = JUDGED.model_copy(
        update={"schedule": schedule, "expand": expand, "environment": EvenSettings(), "max_tokens": 40}
    )
    whole = shards(AutomatonEngine(6), tmp_path / "whole", searched)
    assert sum(int(forest.reply_length.sum()) for forest in whole) > 100
    assert all(violations(forest, searched) == [] for forest in whole)
    once, asked[:] = len(asked), []
    for life in (7, 23):
        with pytest.raises(Killed):
            shards(DyingEngine(0, 6, life), tmp_path / "killed", searched)
    assert shards(ShuffledEngine(1, 6), tmp_path / "killed", searched) == whole
    assert len(asked) <= once + 36, "only those that were out at two deaths: six trees, three samples"
    for left, right in zip(
        sorted((tmp_path / "whole").glob("*")), sorted((tmp_path / "killed").glob("*")), strict=True
    ):
        assert left.read_bytes() == right.read_bytes()
