"""A value model learns from some trees to rank the steps of others, and a search listens to it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import changed
from mcts_dpo.engines import load_engine
from mcts_dpo.models.value_head import ValueModel
from mcts_dpo.preferences import Pairs, Siblings, extract_pairs, extract_siblings
from mcts_dpo.rewards import OutcomeSettings, ValueModelSettings
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.solve import solve_question
from mcts_dpo.toy.world import make_problems
from mcts_dpo.training import LoraSettings, TrainingSettings, train_value
from mcts_dpo.training.heads import HeadModel, HeadTask
from mcts_dpo.training.value_model import NAMES, collate_values, value_loss
from tests.conftest import ToyWorld
from tests.training.world import digest_of, pairs_of, random_rows, solutions_of, tiny_model, tiny_policy

HEAD = TrainingSettings(optimiser={"lr": 0.03, "schedule": "linear"}, data={"epochs": 20, "batch_size": 8}, threads=1)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy") / "tiny")


def training_data(policy: Path) -> Pairs:
    """A step that ends with token 5 is worth 0.8, one with token 6 -0.6, whatever came before."""
    rows = [(prompt, prefix, [*a, 5], [*b, 6]) for prompt, prefix, a, b in random_rows(32)]
    return pairs_of(rows, digest_of(policy), chosen_q=[0.8] * 32, rejected_q=[-0.6] * 32)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["head alone", "with adapters"])
def test_it_learns_q_and_what_is_saved_says_the_same(policy: Path, tmp_path: Path, lora: LoraSettings | None) -> None:
    settings = changed(HEAD, {"lora": lora, "optimiser.lr": 0.03 if lora is None else 5e-3})
    summary = train_value(policy, training_data(policy), tmp_path / "value", settings)
    assert summary.objective == "value"
    assert summary.first["regression"] == pytest.approx((0.8**2 + 0.6**2) / 2, rel=1e-5)
    assert summary.first["accuracy"] == pytest.approx(0.5)
    assert summary.last["regression"] < 0.6 * summary.first["regression"]
    assert summary.last["accuracy"] > 0.95
    found = ValueModel.load(tmp_path / "value")
    good, bad = found.values([[9, 8, 7, 5], [9, 8, 7, 6]])
    assert good > bad
    assert np.all((found.confidences([[9], [5], [6]]) >= 0) & (found.confidences([[9], [5], [6]]) <= 1))
    # A prefix has one value, whatever else is in the pack.
    assert found.values([[9, 8, 7, 5]])[0] == good
    assert (tmp_path / "value" / "adapter").exists() == (lora is not None)


@pytest.mark.parametrize("ranking", ["margin", "logistic"])
def test_a_pack_gives_the_loss_that_its_definition_gives(policy: Path, ranking: Any) -> None:
    """Against one unpadded sequence at a time, and sums written out, for pairs of different weights; in one forward
    pass, and in two.
    """
    rng = np.random.default_rng(0)
    rows = random_rows(6)
    table = pairs_of(
        rows, digest_of(policy), weight=[1.0, 2.0, 0.5, 1.0, 3.0, 1.0], chosen_q=rng.normal(size=6).tolist(),
        rejected_q=rng.normal(size=6).tolist(),
    )  # fmt: skip
    known = collate_values(table, "test")
    values = known.step_columns["q"]
    trunk = tiny_model()
    head = torch.nn.Linear(16, 1)
    model = HeadModel(trunk, head)
    losses = []
    for packing in (True, False):
        weights = {"regression_weight": 0.7, "ranking_weight": 1.3}
        settings = TrainingSettings(
            data={"packing": packing}, value={"ranking": ranking, "ranking_margin": 0.3, **weights}
        )
        loss = partial(value_loss, known, settings.value)
        task = HeadTask(known.sequences, loss, NAMES, settings, torch.device("cpu"))
        for passes in ([np.arange(6)], [np.arange(2), np.arange(2, 6)]):
            parts = [
                task.micro_batch_loss(model, rows=rows_of, update=np.arange(6), reference=None) for rows_of in passes
            ]
            losses.append(torch.stack([part.figures for part in parts]).sum(0))
    expected = np.zeros(4)
    for row, (prompt, prefix, chosen, rejected) in enumerate(rows):
        v = []
        for step in (chosen, rejected):
            states = trunk.base_model(input_ids=torch.tensor([[*prompt, *prefix, *step]])).last_hidden_state
            v.append(float(head(states[0, -1])))
        q = values[2 * row : 2 * row + 2]
        regression = ((v[0] - q[0]) ** 2 + (v[1] - q[1]) ** 2) / 2
        gap = (v[0] - v[1]) * np.sign(q[0] - q[1])
        ordered = np.log1p(np.exp(-gap)) if ranking == "logistic" else max(0.0, 0.3 - gap)
        share = known.weight[row] / known.weight.sum()
        expected += share * np.array([0.7 * regression + 1.3 * ordered, regression, ordered, float(gap > 0)])
    for found in losses:
        assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-5)


def test_on_held_out_trees_it_ranks_better_than_chance_and_a_search_uses_it(
    toy_world: ToyWorld, tmp_path: Path
) -> None:
    config = toy_world.config
    engine = load_engine(toy_world.policy, settings=config.engine)
    forests = [
        search_problems(problems, engine, prompt=config.prompt, settings=config.search)
        for problems in (make_problems(80, seed=7, events=(1,)), make_problems(60, seed=8, events=(1,)))
    ]
    preferences = config.preferences.model_copy(update={"min_gap": 0.2})
    train, test = (extract_pairs([forest], preferences) for forest in forests)
    extract_siblings(forests[:1], preferences).save(tmp_path / "siblings.parquet")
    settings = TrainingSettings(optimiser={"lr": 0.02}, data={"epochs": 15, "batch_size": 16}, threads=1)
    train_value(toy_world.policy, train, tmp_path / "value", settings)
    found = ValueModel.load(tmp_path / "value")
    prompt, prefix = test.tokens("prompt_tokens"), test.tokens("prefix_tokens")
    better = [
        np.subtract(*found.values([[*prompt[row], *prefix[row], *test.tokens(side)[row]] for side in _SIDES])) > 0
        for row in range(len(test))
    ]
    print(f"right about {np.mean(better):.3f} of {len(better)} held-out pairs, trained on {len(train)}")
    assert len(better) >= 20
    # Chance would be right in half of them; this is 2.3 standard deviations of chance above it.
    assert np.mean(better) > 0.5 + 2.3 * 0.5 / np.sqrt(len(better))

    reward = ValueModelSettings(path=tmp_path / "value", weight=0.5)
    solving = SearchSettings(simulations=3, children=3, max_tokens=64, rewards=(OutcomeSettings(), reward))
    solved = solve_question(toy_world.test[0].question, engine, prompt=config.prompt, search=solving)
    forest = solved.forest
    assert forest is not None
    ends = [node for node in range(len(forest)) if forest.terminal[node]]
    expected = found.confidences([(*forest.trees[0].prompt_tokens, *forest.solution_tokens(node)) for node in ends])
    assert forest.state_reward[ends] - forest.outcome[ends] == pytest.approx(0.5 * expected, abs=1e-9)
    assert any(forest.state_reward[ends] != forest.outcome[ends])
    inner = [node for node in range(len(forest)) if not forest.terminal[node]]
    assert not forest.state_reward[inner].any()
    everywhere = solving.model_copy(update={"rewards": (OutcomeSettings(), reward.model_copy(update={"at": "all"}))})
    again = solve_question(toy_world.test[0].question, engine, prompt=config.prompt, search=everywhere).forest
    assert again is not None
    steps = [node for node in range(len(again)) if again.parent[node] >= 0]
    assert all(again.state_reward[steps] - again.outcome[steps] > 0)
    # The same from lists of siblings.
    lists = train_value(toy_world.policy, tmp_path / "siblings.parquet", tmp_path / "lists", settings)
    assert lists.rows == len(Siblings.load(tmp_path / "siblings.parquet").offsets) - 1
    assert lists.first["accuracy"] == pytest.approx(0.5)
    assert lists.last["accuracy"] > 0.6


_SIDES = ("chosen_tokens", "rejected_tokens")


def test_bad_input_is_one_line(policy: Path, tmp_path: Path) -> None:
    quick = changed(HEAD, {"data.epochs": 1})
    train_value(policy, training_data(policy), tmp_path / "value", quick)
    about = json.loads((tmp_path / "value" / "value.json").read_text())
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=r"value\.json: no such file"):
        ValueModel.load(tmp_path / "bare")
    (tmp_path / "bare" / "value.json").write_text("{}")
    with pytest.raises(InputError, match="not a value model"):
        ValueModel.load(tmp_path / "bare")
    (tmp_path / "bare" / "value.json").write_text(json.dumps({**about, "policy": str(policy)}))
    with pytest.raises(InputError, match="not the head of a value model"):
        ValueModel.load(tmp_path / "bare")
    other = tiny_policy(tmp_path / "other", seed=1)
    (tmp_path / "bare" / "value.json").write_text(json.dumps({**about, "policy": str(other)}))
    with pytest.raises(InputError, match=r"was trained on other weights than .*; train it again"):
        ValueModel.load(tmp_path / "bare")
    with pytest.raises(InputError, match="made with another tokenizer"):
        train_value(policy, pairs_of(random_rows(2), "another"), tmp_path / "x", quick)
    with pytest.raises(InputError, match="no such table"):
        train_value(policy, tmp_path / "absent.parquet", tmp_path / "x", quick)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"broken\.parquet: not a readable Parquet file"):
        train_value(policy, tmp_path / "broken.parquet", tmp_path / "x", quick)
    solutions_of([([3], [4, 5])], digest_of(policy)).save(tmp_path / "solutions.parquet")
    with pytest.raises(InputError, match=r"solutions\.parquet: a value model does not learn from solutions"):
        train_value(policy, tmp_path / "solutions.parquet", tmp_path / "x", quick)
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "x.unfinished").exists()
