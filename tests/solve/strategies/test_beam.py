"""Beam search and diverse verifier tree search, level by level, against what the engine says about each candidate."""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks.driving import complete
from mcts_dpo.common.files import seed_from
from mcts_dpo.engines.base import Request
from mcts_dpo.models.prompts import prompt_tokens, self_evaluation
from mcts_dpo.rewards import SelfEvaluationSettings
from mcts_dpo.search import SearchSettings, search_problems, tree_answer
from mcts_dpo.solve import StrategySettings, budget_to_settings, solve_problems
from tests.reference.engine import EOS, AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT
from verifiers import states_answer

SETTINGS = SearchSettings(max_tokens=60, max_step_tokens=8, max_depth=8, temperature=1.0)
WIDTH, CHILDREN = 9, 3
PLAIN = PROMPT.model_copy(update={"stop": ()})


def belief(engine: AutomatonEngine, prefix: tuple[int, ...], solution: tuple[int, ...]) -> float:
    suffix, choices = self_evaluation(engine.tokenizer, PLAIN)
    said = tuple(token for token in solution if token != EOS)
    (answer,) = complete(engine, [Request(0, (*prefix, *said, *suffix), choices=choices)])
    return answer.probabilities[0]


@pytest.mark.parametrize("strategy", ["beam", "dvts"])
@pytest.mark.parametrize("model_seed", [0, 1, 2, 3, 4, 6])
def test_each_level_keeps_what_the_policy_believes_in_most(strategy: str, model_seed: int) -> None:
    engine, problem = AutomatonEngine(model_seed), PROBLEMS[0]
    chosen = StrategySettings(width=WIDTH, children=CHILDREN)
    solve_problems([problem], engine, [(strategy, 5000)], prompt=PLAIN, search=SETTINGS, settings=chosen)
    prefix = prompt_tokens(problem, engine.tokenizer, PLAIN)
    levels: list[list[Request]] = [[]]
    for request in engine.requests:
        if request.choices is not None and levels[-1]:
            levels.append([])  # a level's questions follow its samples
        elif request.choices is None:
            levels[-1].append(request)
    fresh = AutomatonEngine(model_seed)
    compared = finished = 0
    ancestors = {request.seed: group for group, request in enumerate(levels[0])}
    assert len(ancestors) == WIDTH // CHILDREN
    for depth, (level, following) in enumerate(pairwise(levels), start=1):
        if not following or following[0].prefix == prefix:
            break  # all solutions are finished: the next search begins at the root
        candidates: dict[tuple[str, int, bool], tuple[float, tuple[int, ...]]] = {}
        for request in level:
            group = ancestors[request.seed] if strategy == "dvts" else 0
            before = tuple(request.prefix[len(prefix) :])
            for sample in complete(fresh, [request])[0].samples:
                tokens = (*before, *sample.tokens)
                text = engine.tokenizer.decode(tokens, skip_special_tokens=True)
                goes_on = sample.finish == "stop" and not states_answer(sample.text, "gsm8k")
                finished += sample.finish == "end"
                if sample.finish != "length":
                    key = (" ".join(text.split()), group, goes_on)
                    candidates.setdefault(key, (belief(fresh, prefix, tokens), tokens))
        ranked = [(score, group, tokens, goes_on) for (_, group, goes_on), (score, tokens) in candidates.items()]
        best = sorted(ranked, key=lambda candidate: -candidate[0])
        if strategy == "beam":
            expected = [tokens for _, _, tokens, goes_on in best if goes_on][: WIDTH // CHILDREN]
        else:
            first = {group: (tokens, goes_on) for _, group, tokens, goes_on in reversed(best)}
            expected = [tokens for tokens, goes_on in first.values() if goes_on]
        kept = [tuple(request.prefix[len(prefix) :]) for request in following]
        assert sorted(kept) == sorted(expected)
        if strategy == "dvts":
            # Two groups may hold the same prefix; their draws, and so their seeds, are different.
            for request, tokens in zip(following, kept, strict=True):
                text = engine.tokenizer.decode(tokens, skip_special_tokens=True)
                seeds = [seed_from(0, problem.id, "beam", 0, depth, group, text) for group in range(WIDTH)]
                ancestors[request.seed] = seeds.index(request.seed)
        compared += len(kept)
    assert compared > 0 or finished > 0


def test_groups_of_dvts_do_not_compete() -> None:
    """With one child per prefix nothing is ever weeded out: both are the same independent samples."""
    settings = StrategySettings(width=4, children=1)
    found = solve_problems(
        PROBLEMS, AutomatonEngine(2), [("dvts", 400)], prompt=PLAIN, search=SETTINGS, settings=settings
    )
    assert all(attempt.solutions >= 2 for attempt in found["dvts", 400])


def test_mcts_is_the_tree_search_in_solve_mode_with_self_evaluation() -> None:
    found = solve_problems(PROBLEMS, AutomatonEngine(3), [("mcts", 200)], prompt=PROMPT, search=SETTINGS)["mcts", 200]
    chosen = budget_to_settings(200, SETTINGS).search
    assert (chosen.budget, chosen.rewards[1]) == (200, SelfEvaluationSettings(at="all"))
    forest = search_problems(PROBLEMS, AutomatonEngine(3), prompt=PROMPT, settings=chosen, mode="solve")
    for tree, attempt in enumerate(found):
        assert attempt.answer == tree_answer(forest, tree).answer
        assert attempt.tokens == forest.trees[tree].generated <= 200
    assert (forest.scores["self_evaluation"][forest.terminal & (forest.outcome == 0)] > 0).all()
