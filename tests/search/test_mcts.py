from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Request, Sample
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import (
    FINISHES,
    LENGTH,
    Forest,
    SearchSettings,
    search_problems,
    search_shards,
)
from mcts_dpo.search.expansion import merge_key
from tests.reference.engine import EOS, PIECES, TOKENIZER, AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT, assert_sound, every_rule
from tests.search.support import settings as any_settings
from verifiers import verify

WIDE = SearchSettings(simulations=12, children=4, max_tokens=24, max_step_tokens=8, max_depth=5)
JUDGED = WIDE.model_copy(
    update={"rewards": (OutcomeSettings(), SelfEvaluationSettings(weight=0.5, at="all", hint=True))}
)
STEPS = WIDE.model_copy(update={"expand": "step"})


def grow(
    settings: SearchSettings = WIDE, problems: list[Problem] = PROBLEMS, seed: int = 6, **options: object
) -> Forest:
    return search_problems(problems, AutomatonEngine(seed), prompt=PROMPT, settings=settings, **options)  # type: ignore[arg-type]


def tree_rows(forest: Forest, tree: int) -> list[tuple[object, ...]]:
    """Everything about one tree, with node ids relative to their order in the tree."""
    nodes = forest.nodes(tree).tolist()
    place = {node: index for index, node in enumerate(nodes)} | {-1: -1}
    numbers = (
        "visits",
        "samples",
        "q",
        "v",
        "prior",
        "reward",
        "outcome",
        "finish",
        "closed",
        "expanded",
    )
    return [
        (
            place[int(forest.parent[node])],
            forest.children(node) and [place[child] for child in forest.children(node)],
            forest.texts[node],
            forest.answers[node],
            forest.step_tokens(node),
            [repr(getattr(forest, name)[node]) for name in numbers],
            {kind: repr(scores[node]) for kind, scores in forest.scores.items()},
        )
        for node in nodes
    ]


@pytest.mark.parametrize("settings", [WIDE, JUDGED, STEPS])
def test_the_same_search_gives_the_same_bytes(settings: SearchSettings, tmp_path: Path) -> None:
    for name in ("a", "b"):
        grow(settings).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert grow(settings) != grow(settings.model_copy(update={"seed": 1}))


@pytest.mark.parametrize("settings", [WIDE, JUDGED, STEPS])
def test_a_tree_does_not_depend_on_the_other_problems(settings: SearchSettings) -> None:
    together = grow(settings)
    backwards = grow(settings, PROBLEMS[::-1])
    for index, problem in enumerate(PROBLEMS):
        alone = grow(settings, [problem])
        assert tree_rows(together, index) == tree_rows(alone, 0) == tree_rows(backwards, 2 - index)


@hypothesis_settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(any_settings | every_rule, st.integers(0, 1000), st.sampled_from(["1", "2", "3", "77", "", "not a number"]))
def test_solving_never_sees_the_hidden_answer(settings: SearchSettings, seed: int, hidden: str) -> None:
    if settings.reference_child:
        with pytest.raises(InputError, match="reference_child: true, but a solving search cannot see a reference"):
            grow(settings, seed=seed, mode="solve")
        settings = settings.model_copy(update={"reference_child": False})
    other = [replace(problem, answer=hidden, solution=hidden) for problem in PROBLEMS]
    forest = grow(settings, seed=seed, mode="solve")
    assert grow(settings, other, seed=seed, mode="solve") == forest
    assert_sound(forest, settings)
    assert not (forest.outcome > 0).any()
    answered = np.array([answer is not None for answer in forest.answers])
    assert (forest.outcome[answered] == 0).all()
    assert (forest.outcome[forest.terminal & ~answered] == -1).all()


def test_training_does_see_it() -> None:
    forest = grow()
    met = set()
    for node in np.flatnonzero(forest.terminal):
        problem = PROBLEMS[forest.tree[node]]
        answer = forest.answers[node]
        assert forest.outcome[node] == (1 if verify(problem.answer, answer) else -1)
        met.add((answer is None, int(forest.outcome[node])))
    assert met == {(True, -1), (False, -1), (False, 1)}


def test_requests_are_seeded_by_problem_and_simulation() -> None:
    engine = AutomatonEngine(6)
    search_problems(PROBLEMS, engine, prompt=PROMPT, settings=WIDE)
    seeds = [request.seed for request in engine.requests]
    assert len(set(seeds)) == len(seeds)
    assert len({request.id for request in engine.requests}) == len(seeds)
    assert all(request.n == 4 and request.stop == PROMPT.stop for request in engine.requests)


def test_every_step_that_goes_on_has_visible_text() -> None:
    prompt = PROMPT.model_copy(update={"stop": (";",)})
    led = 0
    for seed in range(6):
        forest = search_problems(PROBLEMS, AutomatonEngine(seed), prompt=prompt, settings=STEPS)
        for node in np.flatnonzero((forest.depth > 0) & ~forest.terminal):
            text = forest.texts[node]
            assert text.strip()
            assert text.lstrip().count("\n") == 1
            led += text.startswith("\n")
    assert led
    # Where a stop string of white space ends solutions, a blank line keeps that meaning.
    assert all(not request.visible for request in _requests(PROMPT))
    assert {request.visible for request in _requests(prompt)} == {True, False}


def _requests(prompt: PromptSettings) -> list[Request]:
    engine = AutomatonEngine(0)
    search_problems(PROBLEMS, engine, prompt=prompt, settings=STEPS)
    return engine.requests


def test_steps_end_at_the_step_end_and_the_last_goes_to_the_end() -> None:
    engine = AutomatonEngine(6)
    forest = search_problems(PROBLEMS, engine, prompt=PROMPT, settings=STEPS)
    assert {request.stop for request in engine.requests} == {("\n", *PROMPT.stop), PROMPT.stop}
    going_on = (forest.depth > 0) & ~forest.terminal
    assert all(forest.texts[node].endswith("\n") for node in np.flatnonzero(going_on))
    assert forest.terminal[forest.depth == STEPS.max_depth].all()
    assert (forest.depth == STEPS.max_depth).any()
    stated = np.flatnonzero(forest.finish == FINISHES.index("answer"))
    assert len(stated)
    assert all(forest.answers[node] in ("1", "2", "3") or "####" in forest.texts[node] for node in stated)


def test_a_solution_cut_by_a_limit_is_wrong_whatever_it_says() -> None:
    forest = grow(WIDE.model_copy(update={"max_tokens": 5}))
    cut = np.flatnonzero(forest.finish == FINISHES.index("length"))
    assert any("####1" in forest.solution_text(node).replace(" ", "") for node in cut) or len(cut) > 5
    assert (forest.outcome[cut] == -1).all()
    assert all(forest.answers[node] is None for node in cut)
    unanswered = sum(forest.answers[node] is None for node in np.flatnonzero(forest.terminal))
    assert sum(tree.unanswered for tree in forest.trees) == unanswered


def test_equal_steps_are_one_child_that_counts_them() -> None:
    greedy = grow(WIDE.model_copy(update={"temperature": 0.0, "simulations": 1}))
    first = greedy.first_child[0]
    assert greedy.children(0) == [first]
    assert greedy.samples[first] == greedy.visits[first] == WIDE.children
    assert greedy.mass[first] == pytest.approx(4 * math.exp(greedy.logprob[first] / greedy.length[first] ** 1.25))
    forest = grow()
    assert (forest.samples > 1).any()
    for node in range(len(forest)):
        children = forest.children(node)
        keys = {
            (merge_key(forest.texts[c], (), "whitespace"), bool(forest.terminal[c]), forest.finish[c] == LENGTH)
            for c in children
        }
        assert len(keys) == len(children)


def test_children_of_one_expansion_are_contiguous() -> None:
    forest = grow(WIDE.model_copy(update={"simulations": 1, "children": 12}))
    assert len(forest) > 40
    for node in range(len(forest)):
        children = forest.children(node)
        assert children == list(range(children[0], children[0] + len(children))) if children else True


def test_the_budget_ends_a_tree() -> None:
    budgeted = grow(WIDE.model_copy(update={"budget": 100, "simulations": 100}))
    free = grow(WIDE.model_copy(update={"simulations": 100}))
    assert {tree.status for tree in budgeted.trees} <= {"budget", "exhausted"}
    for short, long in zip(budgeted.trees, free.trees, strict=True):
        assert short.generated < 100 + WIDE.children * WIDE.max_tokens
        assert short.generated <= long.generated
    assert any(tree.status == "budget" for tree in budgeted.trees)


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_solving_stays_within_its_budget_with_several_leaves_out(schedule: str) -> None:
    settings = STEPS.model_copy(
        update={
            "simulations": 100,
            "parallel_leaves": 4,
            "schedule": schedule,
            "rewards": (OutcomeSettings(), SelfEvaluationSettings(weight=1.0, at="all")),
        }
    )
    for budget in range(1, 60):
        forest = grow(settings.model_copy(update={"budget": budget}), seed=budget, mode="solve")
        assert max(tree.generated for tree in forest.trees) <= budget


def test_self_evaluation_asks_in_context_and_counts_its_tokens() -> None:
    engine = AutomatonEngine(6)
    forest = search_problems(PROBLEMS, engine, prompt=PROMPT, settings=JUDGED)
    questions = [request for request in engine.requests if request.choices is not None]
    assert len(questions) == (forest.depth > 0).sum()
    assert all(EOS not in request.prefix for request in questions)
    assert all(PIECES[request.prefix[-1]] == "\n" and PIECES[request.prefix[-2]] == "?" for request in questions)
    assert sum(tree.generated for tree in forest.trees) == engine.usage.sampled_tokens + len(questions)
    steps = forest.depth > 0
    assert not np.isnan(forest.scores["self_evaluation"][steps]).any()
    worth = forest.outcome[steps] + 0.5 * forest.scores["self_evaluation"][steps]
    assert forest.state_reward[steps] == pytest.approx(worth)
    assert forest.reward[steps] == pytest.approx(worth - forest.state_reward[forest.parent[steps]])
    hinted = {len(request.prefix) for request in questions}
    engine = AutomatonEngine(6)
    search_problems(PROBLEMS, engine, prompt=PROMPT, settings=JUDGED, mode="solve")
    assert max(hinted) > max(len(request.prefix) for request in engine.requests if request.choices is not None)


def test_only_ends_are_judged_if_so_set() -> None:
    settings = WIDE.model_copy(update={"rewards": (OutcomeSettings(), SelfEvaluationSettings(weight=1.0))})
    forest = grow(settings)
    assert (np.isnan(forest.scores["self_evaluation"]) == ~forest.terminal).all()


def test_a_refused_problem_fails_and_the_others_go_on() -> None:
    problems = [PROBLEMS[0], Problem("bad", "a;b", "1"), PROBLEMS[2]]
    settings = WIDE.model_copy(update={"parallel_leaves": 2})
    engine = AutomatonEngine(6, refused=PIECES.index(";"))
    forest = search_problems(problems, engine, prompt=PROMPT, settings=settings)
    assert [tree.status for tree in forest.trees][1] == "failed"
    assert forest.trees[1].reason == f"refused: token {PIECES.index(';')}"
    assert len(forest.nodes(1)) == 1
    assert (forest.virtual == 0).all()
    healthy = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=settings)
    assert tree_rows(forest, 0) == tree_rows(healthy, 0)
    assert tree_rows(forest, 2) == tree_rows(healthy, 2)


def test_a_tree_that_fails_half_way_keeps_what_it_has() -> None:
    engine = AutomatonEngine(6, refused=PIECES.index("3"))
    settings = JUDGED.model_copy(update={"parallel_leaves": 3})
    forest = search_problems(PROBLEMS, engine, prompt=PROMPT, settings=settings)
    assert {tree.status for tree in forest.trees} == {"failed"}
    assert all(tree.reason.startswith("refused") and tree.simulations for tree in forest.trees)
    assert len(forest) > 10
    assert (forest.virtual == 0).all()
    assert (forest.closed != 1).all()
    assert forest.visits[[tree.root for tree in forest.trees]].tolist() == [
        4 * tree.simulations for tree in forest.trees
    ]


class MuteEngine(AutomatonEngine):
    """Every sample whose turn comes up in `mute` has no token, as servers give them for an immediate stop."""

    def __init__(self, mute: set[int]) -> None:
        super().__init__(6)
        self._mute = mute

    def _sample(self, request: Request, index: int) -> Sample:
        return Sample((), "", (), "stop") if index in self._mute else super()._sample(request, index)


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_samples_without_a_token_are_dropped(schedule: str) -> None:
    settings = STEPS.model_copy(update={"schedule": schedule})
    forest = search_problems(PROBLEMS, MuteEngine({1, 2}), prompt=PROMPT, settings=settings)
    assert {tree.status for tree in forest.trees} <= {"simulations", "exhausted"}
    assert all(tree.notes == ["samples without a token were dropped"] for tree in forest.trees)
    assert (forest.length[forest.depth > 0] >= 1).all()
    assert forest.visits[forest.trees[0].root] == 2 * forest.trees[0].simulations
    nothing = search_problems(PROBLEMS, MuteEngine({0, 1, 2, 3}), prompt=PROMPT, settings=settings)
    assert {(tree.status, tree.reason) for tree in nothing.trees} == {
        ("failed", "the engine gave no sample that has a token")
    }
    assert (nothing.virtual == 0).all()


def test_a_model_that_never_ends_is_cut_and_wrong() -> None:
    class Endless(AutomatonEngine):
        def log_probabilities(self, prefix: Sequence[int]) -> np.ndarray:
            return np.where(np.arange(len(PIECES)) == PIECES.index("a"), 0.0, -60.0)

    for expand in ("step", "rollout"):
        forest = search_problems(
            PROBLEMS, Endless(6), prompt=PROMPT, settings=WIDE.model_copy(update={"expand": expand})
        )
        assert {tree.status for tree in forest.trees} == {"exhausted"}, "nothing is generated twice for nothing"
        ends = forest.terminal
        assert (forest.outcome[ends] == -1).all()
        assert (forest.finish[ends] == FINISHES.index("length")).all()


def test_a_prompt_that_leaves_no_room_fails() -> None:
    problems = [Problem("long", "a" * 40, "1"), PROBLEMS[0]]
    forest = search_problems(problems, AutomatonEngine(6, context=30), prompt=PROMPT, settings=WIDE)
    assert forest.trees[0].status == "failed"
    assert forest.trees[0].reason == "a prompt of 41 tokens leaves no room in a context of 30"
    assert forest.trees[1].status != "failed"


def test_a_short_context_shortens_solutions_and_nothing_is_refused() -> None:
    engine = AutomatonEngine(6, context=16)
    forest = search_problems(
        PROBLEMS,
        engine,
        prompt=PROMPT,
        settings=WIDE.model_copy(update={"rewards": (OutcomeSettings(), SelfEvaluationSettings(weight=1.0, at="all"))}),
    )
    assert {tree.status for tree in forest.trees} <= {"simulations", "exhausted"}
    assert max(len(request.prefix) + (0 if request.choices is None else 1) for request in engine.requests) <= 16
    assert (forest.finish == FINISHES.index("length")).any()


def test_the_prefill_belongs_to_the_solution_when_its_answer_is_read() -> None:
    prompt = PROMPT.model_copy(update={"prefill": "####"})
    forest = search_problems(PROBLEMS, AutomatonEngine(6), prompt=prompt, settings=WIDE)
    answered = [
        node for node in range(len(forest)) if forest.answers[node] and "####" not in forest.solution_text(node)
    ]
    assert answered
    assert all(forest.solution_text(node).lstrip().startswith(str(forest.answers[node])[:1]) for node in answered)


def test_reference_answers_that_say_nothing_are_noted() -> None:
    problems = [Problem("none", "ab"), Problem("empty", "ab", ""), Problem("good", "ab", "1")]
    forest = grow(problems=problems)
    assert forest.trees[0].notes == ["no reference answer: outcomes are not known"]
    assert forest.trees[1].notes == ["the reference answer '' cannot be parsed: outcomes are not known"]
    assert forest.trees[2].notes == []
    for tree in (0, 1):
        assert {int(o) for o in forest.outcome[forest.nodes(tree)]} == {-1, 0}


def test_ids_are_unique() -> None:
    with pytest.raises(InputError, match="the id 'one' occurs twice"):
        grow(problems=[PROBLEMS[0], PROBLEMS[0]])


def test_progress_counts_problems_and_ends_complete() -> None:
    told: list[tuple[str, int, int, dict[str, float]]] = []

    def watch(stage: str, done: int, total: int, **figures: float) -> None:
        told.append((stage, done, total, figures))

    forest = grow(progress=watch)
    assert [one[1] for one in told] == sorted(one[1] for one in told)
    assert told[-1][:3] == ("search", 3, 3)
    assert told[-1][3]["tokens"] == sum(tree.generated for tree in forest.trees)
    assert told[-1][3]["solved"] == len(set(forest.tree[forest.outcome > 0])) / 3
    told.clear()
    grow(problems=[], progress=watch)
    assert told == [("search", 0, 0, {"tokens": 0.0, "solved": 0.0})]


def test_shards_are_the_trees_of_their_problems_and_are_not_repeated(tmp_path: Path) -> None:
    engines: list[AutomatonEngine] = []

    def engine() -> AutomatonEngine:
        engines.append(AutomatonEngine(6))
        return engines[-1]

    shards = search_shards(PROBLEMS, engine, tmp_path, shard_size=2, prompt=PROMPT, settings=WIDE)
    whole = grow()
    forests = [Forest.load(shard) for shard in shards]
    assert [len(forest.trees) for forest in forests] == [2, 1]
    assert tree_rows(forests[1], 0) == tree_rows(whole, 2)
    assert search_shards(PROBLEMS, engine, tmp_path, shard_size=2, prompt=PROMPT, settings=WIDE) == shards
    assert len(engines) == 1


def test_texts_decode_what_was_sampled() -> None:
    for forest in (grow(), grow(STEPS)):
        for node in range(len(forest)):
            tokens = forest.solution_tokens(node)
            assert forest.solution_text(node) == TOKENIZER.decode(tokens, skip_special_tokens=True)
