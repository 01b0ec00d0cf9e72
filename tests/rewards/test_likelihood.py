"""The likelihood of the reference answer: the model's own probabilities, and nothing without a reference."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.models.prompts import prompt_tokens
from mcts_dpo.rewards import OutcomeSettings
from mcts_dpo.rewards.likelihood import LikelihoodSettings
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.solve.budgets import judging
from tests.reference.engine import TOKENIZER, AutomatonEngine
from tests.rewards.support import made, path_of, scored
from tests.search.support import PROBLEMS, PROMPT

PROBLEM = PROBLEMS[1]
SETTINGS = LikelihoodSettings(text="\n#### {answer}\n")


def by_hand(engine: AutomatonEngine, said: str) -> float:
    """exp of the mean log-probability of "2" and of the line break after it."""
    tokens = [*prompt_tokens(PROBLEM, TOKENIZER, PROMPT), *TOKENIZER(said)["input_ids"]]
    logprobs = []
    for token in TOKENIZER("2\n")["input_ids"]:
        logprobs.append(engine.log_probabilities(tokens)[token])
        tokens.append(token)
    return float(np.exp(np.mean(logprobs)))


def test_the_model_says_how_likely_the_answer_is() -> None:
    engine = AutomatonEngine(2, states=60)
    reward = made(SETTINGS, PROBLEM)
    paths = [path_of(PROBLEM, "a"), path_of(PROBLEM, "b\n"), path_of(PROBLEM, "ab", closed=True)]
    expected = [by_hand(engine, said) for said in ("a\n#### ", "b\n#### ", "ab\n#### ")]
    found = scored(reward, paths, engine)
    assert found == pytest.approx(expected)
    assert len(set(found)) == 3
    assert all(0 < score < 1 for score in found)
    assert engine.usage.sampled_tokens == 0
    assert (reward.cost, reward.room) == (2, 5)


def test_the_answer_is_stated_as_the_style_does() -> None:
    def found(text: str | None) -> list[float]:
        return scored(made(LikelihoodSettings(text=text), PROBLEM), [path_of(PROBLEM, "a")], AutomatonEngine(2))

    assert found(None) == found("\n#### {answer}") != found("{answer}")


def test_training_uses_it_and_solving_does_not() -> None:
    searched = SearchSettings(max_tokens=24, max_depth=5, expand="step", rewards=(OutcomeSettings(), SETTINGS))
    forest = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=searched)
    below = forest.depth > 0
    assert (forest.scores["likelihood"][below] > 0).all()
    assert np.allclose(
        forest.state_reward[below], forest.outcome[below] * forest.terminal[below] + forest.scores["likelihood"][below]
    )
    engine = AutomatonEngine(6)
    hidden = search_problems(PROBLEMS, engine, prompt=PROMPT, settings=searched, mode="solve")
    assert np.isnan(hidden.scores["likelihood"]).all()
    assert not any(request.given for request in engine.requests)
    assert all(tree.unscored == {} for tree in hidden.trees)


def test_it_cannot_judge_without_the_answer() -> None:
    assert [entry.kind for entry in judging((OutcomeSettings(), SETTINGS))] == ["self_evaluation"]
    reward = made(SETTINGS, PROBLEM.without_answer())
    assert scored(reward, [path_of(PROBLEM, "a")], AutomatonEngine()) == pytest.approx([math.nan], nan_ok=True)
    assert (reward.cost, reward.room) == (0, 0)


def test_a_text_without_the_place_of_the_answer() -> None:
    with pytest.raises(InputError, match=r"'The answer:' does not contain '\{answer\}', the place of the answer"):
        load_settings(SearchSettings, None, ["rewards.likelihood.text='The answer:'"])
