"""The question about a solution: its tokens, its hint, and what it costs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.driving import complete
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Request
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings, SolutionPath
from mcts_dpo.rewards.self_evaluation import self_evaluation_prompt
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.solve import solve_problems
from tests.reference.engine import EOS, TOKENIZER, AutomatonEngine
from tests.rewards.support import made, path_of, scored
from tests.search.support import PROBLEMS, PROMPT


def test_the_question_shows_the_hint_if_so_set() -> None:
    problem = Problem("p", "ab", "1", "b\nb")
    plain = self_evaluation_prompt(problem, TOKENIZER, PROMPT)
    hinted = self_evaluation_prompt(problem, TOKENIZER, PROMPT, hint=True)
    assert plain == self_evaluation_prompt(problem.without_answer(), TOKENIZER, PROMPT, hint=True)
    assert len(hinted.suffix) > len(plain.suffix)
    assert plain.cost == 1
    assert plain.room == len(plain.suffix) + 1


def test_the_question_closes_the_turn_itself() -> None:
    asked = self_evaluation_prompt(Problem("p", "ab"), TOKENIZER, PROMPT)
    open_, closed = (asked.request(SolutionPath((1, 2), (3, 4), "", closed=closed)) for closed in (False, True))
    assert open_.prefix == (1, 2, 3, 4, *asked.suffix)
    assert closed.prefix == (1, 2, 3, *asked.suffix)
    assert open_.choices == asked.choices


THINKING = SelfEvaluationSettings(think=6, samples=3, verdict=";?", temperature=1.0)


def test_a_thought_comes_between_the_question_and_the_verdict() -> None:
    engine, problem = AutomatonEngine(2, states=60), PROBLEMS[0]
    paths = [path_of(problem, "a\n"), path_of(problem, "b\nab", closed=True)]
    reward = made(THINKING, problem)
    found = scored(reward, paths, engine)
    asked = self_evaluation_prompt(problem, TOKENIZER, PROMPT)
    yes, no = (TOKENIZER(word)["input_ids"][0] for word in "yn")
    for path, score in zip(paths, found, strict=True):
        prefix = asked.request(path).prefix
        seed = seed_from(0, "self_evaluation", problem.id, path.text)
        (thoughts,) = complete(engine, [Request(0, prefix, n=3, max_tokens=6, temperature=1.0, seed=seed)])
        believed = []
        for thought in thoughts.samples:
            written = [token for token in thought.tokens if token != EOS]
            log_p = engine.log_probabilities([*prefix, *written, *TOKENIZER(";?")["input_ids"]])
            believed.append(1 / (1 + np.exp(log_p[no] - log_p[yes])))
        assert score == pytest.approx(np.mean(believed))
        assert np.ptp(believed) > 0
    assert scored(reward, paths[1:], engine) == found[1:]
    assert (reward.cost, reward.room) == (3 * (6 + 1), len(asked.suffix) + 6 + 2 + 1)


def test_thoughts_count_in_every_budget() -> None:
    settings = SearchSettings(max_tokens=24, max_depth=5, rewards=(OutcomeSettings(), THINKING))
    for strategy in ("best-of-n", "beam", "mcts"):
        engine = AutomatonEngine(3)
        found = solve_problems(PROBLEMS, engine, [(strategy, 400)], prompt=PROMPT, search=settings)[strategy, 400]
        verdicts = sum(request.choices is not None for request in engine.requests)
        assert verdicts > 0
        assert engine.usage.sampled_tokens + verdicts <= sum(one.tokens for one in found) <= 400 * len(PROBLEMS)
        drawn = sum(request.choices is None and not request.judging for request in engine.requests)
        assert strategy == "best-of-n" or sum(one.expansions for one in found) == drawn, "thoughts draw no solution"
    engine = AutomatonEngine(6)
    forest = search_problems(PROBLEMS, engine, prompt=PROMPT, settings=settings)
    ends = int(forest.terminal.sum())
    drawn = sum(len(step) for step in map(forest.step_tokens, range(len(forest))))
    assert sum(tree.generated for tree in forest.trees) >= drawn + ends * made(THINKING, PROBLEMS[0]).cost
    assert (forest.scores["self_evaluation"][forest.terminal] > 0).all()


@pytest.mark.parametrize("given", ["samples=2", "samples=2,think=8,temperature=0"])
def test_samples_that_could_not_differ(given: str) -> None:
    overrides = [f"rewards.self_evaluation.{one}" for one in given.split(",")]
    with pytest.raises(InputError, match="samples: 2 of them are the same without thoughts that differ; accepted: "):
        load_settings(SearchSettings, None, overrides)
