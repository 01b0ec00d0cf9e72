"""The rules beside PUCT from the root: Gumbel, stepwise advance, early stop, the reference solution as a child."""

from __future__ import annotations

import copy
import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import Problem
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.pipeline.config import StageConfig
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import Forest, SearchSettings, search_problems
from mcts_dpo.search.gumbel import considered_visits, gumbel_noise
from mcts_dpo.search.mcts import admit
from mcts_dpo.search.reference_steps import reference_steps
from mcts_dpo.search.runner import Runner
from mcts_dpo.search.state import begin
from mcts_dpo.search.stopping import advance_or_end, is_decided
from tests.reference.engine import TOKENIZER, AutomatonEngine
from tests.reference.invariants import violations
from tests.search.support import PROBLEMS, PROMPT
from tests.search.test_runner import ShuffledEngine

WIDE = SearchSettings(simulations=24, children=4, max_tokens=40, max_step_tokens=10, max_depth=6, expand="step")


def grow(seed: int = 6, **changes: object) -> Forest:
    settings = WIDE.model_copy(update=changes)
    forest = search_problems(PROBLEMS, AutomatonEngine(seed), prompt=PROMPT, settings=settings)
    assert violations(forest, settings) == []
    return forest


@pytest.mark.parametrize(
    ("considered", "simulations", "expected"),
    [
        # 16 among 4: 2 phases, 2 rounds of 4, then the rest between two (Danihelka et al. 2022, figure 1).
        (4, 16, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (2, 5, [0, 0, 1, 1, 2]),
        (1, 3, [0, 1, 2]),
        (8, 8, [0, 0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_sequential_halving(considered: int, simulations: int, expected: list[int]) -> None:
    assert [considered_visits(done, considered, simulations) for done in range(simulations)] == expected


def test_the_noise_is_gumbel() -> None:
    draws = np.array([gumbel_noise(7, place) for place in range(20_000)])
    assert draws.mean() == pytest.approx(0.5772, abs=0.03)
    assert draws.std() == pytest.approx(math.pi / math.sqrt(6), abs=0.03)
    assert gumbel_noise(7, 3) != gumbel_noise(8, 3)


def test_gumbel_shares_the_budget_out_among_a_few_children_and_then_fewer() -> None:
    gumbel = WIDE.gumbel.model_copy(update={"considered": 3})
    seen = 0
    for seed in range(40):
        forest = grow(seed, selection="gumbel", gumbel=gumbel, children=5)
        for tree in forest.trees:
            children = forest.children(tree.root)
            counts = sorted((int(forest.expansions[child]) for child in children), reverse=True)
            if len(counts) > 3 and not (forest.closed[children] == 2).any():
                assert sum(counts) == WIDE.simulations - 1
                assert counts[3] == 0
                assert counts[0] - counts[1] <= 1
                assert counts[2] == 3
                seen += 1
    assert seen


def test_advance_goes_step_by_step_to_the_end_of_a_solution() -> None:
    forest = grow(advance="step", simulations=4)
    for tree in forest.trees:
        assert tree.status == "advanced"
        path = [tree.root, *tree.moves]
        assert all(forest.parent[child] == parent for parent, child in pairwise(path))
        assert forest.terminal[tree.moves[-1]]
        for parent, child in pairwise(path):
            assert forest.visits[child] == max(forest.visits[forest.children(parent)])
    assert any(tree.simulations > 4 for tree in forest.trees), "each step has a budget of its own"


def test_a_decided_search_ends_early_with_the_choice_of_the_whole_one() -> None:
    early = 0
    for seed in range(12):
        whole, short = grow(seed), grow(seed, stop="decided")
        for one, other in zip(whole.trees, short.trees, strict=True):
            assert other.simulations <= one.simulations
            early += other.status == "decided"
            leaders = []
            for forest, tree in ((whole, one), (short, other)):
                children = forest.children(tree.root)
                leaders.append(forest.texts[max(children, key=lambda node: int(forest.visits[node]))])
            assert leaders[0] == leaders[1]
    assert early > 5


def test_what_is_under_way_holds_decisions_and_moves_back() -> None:
    settings = WIDE.model_copy(update={"stop": "decided", "advance": "step"})
    state = begin(PROBLEMS[:1], AutomatonEngine(6), PROMPT, settings, "train")
    tree, forest = state.trees[0], state.forest
    for visits in (6, 3):
        child = forest.add_child(0, [4], [-1.0], f"{visits}\n")
        forest.visits[child] = visits
    forest.expanded[0] = True
    tree.started, tree.in_flight = WIDE.simulations, 1
    assert not is_decided(state, tree), "the simulation under way may bring 4 visits"
    advance_or_end(state, tree)
    assert (tree.draining, tree.info.moves) == (True, [])
    tree.in_flight = 0
    assert is_decided(state, tree)
    advance_or_end(state, tree)
    assert (tree.draining, tree.info.moves) == (False, [1])


def test_gumbel_keeps_to_the_root() -> None:
    for override in ("advance=step", "stop=decided"):
        with pytest.raises(InputError, match="selection: gumbel shares its budget out at the root"):
            load_settings(SearchSettings, None, ["selection=gumbel", override])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("search.faithful.reference_child=true", "faithful.reference_child is search.reference_child now"),
        ("search.faithful.root_twice=true", r"faithful.root_twice was removed; docs/xie2024\.md"),
        ("search.faithful=null", r"faithful.\* was removed; docs/xie2024\.md"),
    ],
)
def test_switches_of_the_first_edition_are_answered(override: str, said: str) -> None:
    with pytest.raises(InputError, match=f"override '{re.escape(override)}': search: {said}"):
        load_settings(StageConfig, None, [override])
    assert Path("docs/xie2024.md").is_file()


@pytest.mark.parametrize("expand", ["step", "rollout"])
def test_the_reference_solution_stands_among_the_children(expand: str) -> None:
    judged = (OutcomeSettings(), SelfEvaluationSettings(weight=0.5, at="all"))
    forest = grow(expand=expand, reference_child=True, rewards=judged, simulations=6)
    for tree, problem in zip(forest.trees, PROBLEMS, strict=True):
        first = reference_steps(problem, TOKENIZER, PROMPT)[0]
        children = forest.children(tree.root)
        (child,) = [
            node for node in children if forest.texts[node] == TOKENIZER.decode(first, skip_special_tokens=True)
        ]
        assert not math.isnan(forest.scores["self_evaluation"][child])
        if forest.samples[child] == 0 and forest.visits[child] == 0:
            assert math.isnan(forest.logprob[child])
            others = [node for node in children if node != child]
            assert forest.mass[child] == pytest.approx(np.mean([forest.mass[node] for node in others]))
            assert forest.q[child] == forest.reward[child]
    given = np.flatnonzero((forest.samples == 0) & (forest.depth > 0))
    assert len(given)
    if expand == "rollout":
        ends = [node for node in given if forest.terminal[node]]
        assert ends
        assert all(forest.outcome[node] == 1 for node in ends)


def test_a_solution_that_states_no_answer_is_told_it() -> None:
    steps = reference_steps(Problem("p", "?", "3", "a\nb"), TOKENIZER, PROMPT)
    assert len(steps) == 3
    assert reference_steps(Problem("p", "?", "3"), TOKENIZER, PROMPT) == []


def test_a_reference_solution_ends_as_the_chat_template_ends_an_answer() -> None:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<turn>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<turn>\n{% endfor %}"
    problem, turn = Problem("p", "?", "3", "a\n#### 3"), tokenizer.convert_tokens_to_ids("<turn>")
    chat, plain = (reference_steps(problem, tokenizer, PromptSettings(style=style)) for style in ("chat", "plain"))
    assert (chat[-1][-1], plain[-1][-1]) == (turn, tokenizer.eos_token_id)
    assert [step[:-1] for step in chat[-1:]] == [step[:-1] for step in plain[-1:]]


def test_the_invariants_notice_what_is_broken() -> None:
    for name, value, what in (
        ("visits", 10_000, "more visits below|fewer visits|V is not"),
        ("q", 7.0, "Q out of range"),
        ("virtual", 1, "a virtual loss remains"),
        ("virtual", -1, "below zero"),
        ("parent", 999, "a parent comes after"),
        ("closed", 1, "still in flight"),
        ("length", 0, "without tokens"),
        ("outcome", 1, "an outcome where no solution ends"),
        ("prior", 0.9, "priors do not sum"),
        ("reward", 0.9, "Q is not R"),
        ("samples", 0, "nobody sampled"),
        ("terminal", True, "terminal without a reason"),
    ):
        forest = grow()
        node = int(np.flatnonzero((forest.depth == 1) & ~forest.terminal & forest.expanded)[0])
        getattr(forest, name)[node] = value
        found = violations(forest, WIDE)
        assert any(re.search(what, line) for line in found), (name, found)


@pytest.mark.parametrize(
    ("expand", "rule"),
    [
        ("step", "fixed"),
        ("rollout", "fixed"),
        ("step", "path"),
        ("rollout", "progressive"),
        ("rollout", "adaptive"),
        ("rollout", "entropy"),
    ],
)
def test_the_invariants_hold_at_any_moment(expand: str, rule: str) -> None:
    changes = {
        "allocation": rule,
        "merge": "none" if rule == "entropy" else "whitespace",
        "expand": expand,
        "rewards": ["outcome", {"kind": "self_evaluation", "weight": 0.5, "at": "all"}],
        "parallel_leaves": 3,
        "schedule": "asynchronous",
    }
    settings = SearchSettings.model_validate(WIDE.model_dump() | changes)
    moments = in_flight = 0

    engine = ShuffledEngine(4)
    runner: Runner[None] = Runner(engine, alive=9)
    state = begin(PROBLEMS, engine, PROMPT, settings, "train")
    admit(runner, 0, state)
    while runner.busy:
        runner.step()
        moments += 1
        in_flight += bool((state.forest.virtual > 0).any())
        assert violations(state.forest, settings, finished=False) == []
    runner.close()
    assert moments > 20
    assert in_flight > 10
