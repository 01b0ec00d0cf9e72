"""Who judges solutions: the policy, a value model, or both, by the same weights in every strategy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mcts_dpo.engines import load_engine
from mcts_dpo.engines.base import Request, Sample
from mcts_dpo.engines.coroutine import Coroutine, completions
from mcts_dpo.models.loading import load_model, load_tokenizer, tokenizer_digest, weights_digest
from mcts_dpo.models.value_head import ValueModel, save
from mcts_dpo.rewards import OutcomeSettings, RewardSettings, SelfEvaluationSettings, ValueModelSettings
from mcts_dpo.search import SearchSettings
from mcts_dpo.search.runner import run
from mcts_dpo.solve import Strategy, budget_to_settings, solve_problems
from mcts_dpo.solve.budgets import judging
from mcts_dpo.solve.question import Question, judgements, make_question
from tests.conftest import ToyWorld

BUDGET = 160


@pytest.fixture(scope="module")
def value(toy_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head that was never taught anything: what it says is arbitrary, but its own."""
    folder = tmp_path_factory.mktemp("value")
    model: Any = load_model(toy_world.policy, "float32")
    digests = {"weights": weights_digest(model), "tokenizer": tokenizer_digest(load_tokenizer(toy_world.policy))}
    weight = torch.randn(model.config.hidden_size, generator=torch.Generator().manual_seed(3)) / 20
    save(folder, weight, torch.tensor(0.0), policy=str(toy_world.policy), about={}, **digests)
    return folder


def settings_of(value: Path, of_self: float, of_values: float) -> SearchSettings:
    return SearchSettings(
        max_tokens=64,
        temperature=1.5,
        rewards=(
            OutcomeSettings(),
            SelfEvaluationSettings(weight=of_self),
            ValueModelSettings(path=value, weight=of_values),
        ),
    )


@pytest.mark.parametrize(("of_self", "of_values"), [(0.0, 1.0), (1.0, 0.0), (0.5, 1.5)])
def test_a_judgement_is_the_weighted_mean_of_those_who_judge(
    toy_world: ToyWorld, value: Path, of_self: float, of_values: float
) -> None:
    engine = load_engine(str(toy_world.policy), settings=toy_world.config.engine)
    question = make_question(toy_world.test[0], engine, toy_world.config.prompt, settings_of(value, of_self, of_values))
    (drawn,) = run([_draw(question)], engine)
    paths = [
        question.path(sample.tokens, sample.text, terminal=True, closed=sample.finish == "end") for sample in drawn
    ]
    (found,) = run([judgements(question, paths)], engine)
    alone = make_question(toy_world.test[0], engine, toy_world.config.prompt, SearchSettings(max_tokens=64))
    (asked,) = run([judgements(alone, paths)], engine)
    model = ValueModel.load(value)
    believed = model.confidences([(*question.prefix, *path.tokens) for path in paths])
    assert np.ptp(asked) > 0, "the policy does not think the same of all"
    assert np.ptp(believed) > 0
    assert np.allclose(found, (of_self * np.array(asked) + of_values * believed) / (of_self + of_values), atol=1e-12)


def _draw(question: Question) -> Coroutine[tuple[Sample, ...]]:
    (completion,) = yield from completions([question.sample((), 8, 64, "test", stop=question.prompt.stop)])
    return completion.samples


def weights(rewards: Sequence[RewardSettings]) -> dict[str, float]:
    return {reward.kind: reward.weight for reward in rewards}


def test_without_weights_the_policy_judges() -> None:
    assert judging(SearchSettings().rewards) == (SelfEvaluationSettings(at="all"),)
    silent = settings_of(Path("value"), 0.0, 0.0)
    assert weights(judging(silent.rewards)) == {"self_evaluation": 1.0}
    believed = settings_of(Path("value"), 0.0, 2.0)
    assert weights(judging(believed.rewards)) == {"value_model": 2.0}
    asked = {"outcome": 1.0, "self_evaluation": 1.0}
    assert weights(budget_to_settings(BUDGET, SearchSettings()).search.rewards) == asked
    assert weights(budget_to_settings(BUDGET, silent).search.rewards) == asked | {"value_model": 0.0}
    assert budget_to_settings(BUDGET, believed).search.rewards == believed.rewards


@pytest.mark.parametrize("strategy", ["best-of-n", "weighted", "beam", "dvts", "mcts"])
def test_where_the_value_model_judges_alone_no_question_is_asked_or_paid(
    strategy: Strategy, toy_world: ToyWorld, value: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load_engine(str(toy_world.policy), settings=toy_world.config.engine)
    requests: list[Request] = []
    submit = engine.submit

    def kept(request: Request) -> None:
        requests.append(request)
        submit(request)

    monkeypatch.setattr(engine, "submit", kept)
    problems = toy_world.test[:3]
    prompt = toy_world.config.prompt
    found = {}
    for name, search in (("values", settings_of(value, 0.0, 1.0)), ("policy", settings_of(value, 1.0, 0.0))):
        requests.clear()
        (attempts,) = solve_problems(problems, engine, [(strategy, BUDGET)], prompt=prompt, search=search).values()
        questions = sum(request.choices is not None for request in requests)
        assert (questions == 0) == (name == "values")
        assert all(attempt.error is None and 0 < attempt.tokens <= BUDGET for attempt in attempts)
        found[name] = [attempt.text for attempt in attempts]
    assert found["values"] != found["policy"], "another judge prefers other solutions"
