from __future__ import annotations

import hashlib
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import changed
from mcts_dpo.models.loading import load_model
from mcts_dpo.training import LoraSettings, OptimiserSettings, TrainingSettings, train
from mcts_dpo.training.distributed import SINGLE_PROCESS
from mcts_dpo.training.optimisation import clip, make_optimizer, schedule
from tests.training.world import (
    VOCABULARY,
    digest_of,
    naive_logprobs,
    pairs_of,
    random_rows,
    solutions_of,
    tiny_policy,
)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy") / "tiny")


def training_rows(n: int = 24) -> list[Any]:
    """After any prompt, the step `5 6` is right and `5 7` is wrong."""
    return [(prompt, prefix, [5, 6], [5, 7]) for prompt, prefix, _, _ in random_rows(n, seed=3)]


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def step_logprob(model: Any, row: Any, step: list[int]) -> float:
    with torch.no_grad():
        return float(naive_logprobs(model, [*row[0], *row[1]], step).sum())


LEARNING = TrainingSettings(
    objective={"preference_weight": 1.0}, optimiser={"lr": 3e-3}, data={"epochs": 8, "batch_size": 8}
)


def test_training_raises_the_chosen_and_lowers_the_rejected_step(policy: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def watch(stage: str, done: int, total: int, **figures: float) -> None:
        seen.append((stage, done, total))

    table = pairs_of(training_rows(), digest_of(policy))
    table.save(tmp_path / "pairs.parquet")
    log = tmp_path / "logs" / "log.jsonl"
    summary = train(policy, tmp_path / "pairs.parquet", tmp_path / "out", LEARNING, log=log, progress=watch)
    before, after = load_model(policy, "float32"), load_model(tmp_path / "out", "float32")
    for row in training_rows()[:6]:
        assert step_logprob(after, row, [5, 6]) > step_logprob(before, row, [5, 6]) + 1
        assert step_logprob(after, row, [5, 6]) > step_logprob(after, row, [5, 7])
    assert summary.last["accuracy"] > 0.95
    assert summary.last["chosen_displacement"] > 1 > summary.last["rejected_displacement"]
    assert summary.last["nll"] < summary.first["nll"]
    assert (summary.rows, summary.updates, summary.epochs) == (24, 24, 8.0)
    # What is written beside the policy, and update by update.
    record = json.loads((tmp_path / "out" / "training.json").read_text())
    assert record["summary"] == summary.as_dict()
    assert record["settings"]["optimiser"]["lr"] == 3e-3
    updates = lines(log)
    assert [line["update"] for line in updates] == list(range(1, 25))
    assert sum(line["clipped"] for line in updates) / 24 == summary.clipped
    assert sum(line["tokens"] for line in updates) == summary.tokens
    assert updates[0]["chosen_logprob"] == summary.first["chosen_logprob"]
    assert seen[-1] == ("train", 24, 24)
    assert {stage for stage, _, _ in seen} == {"reference", "train"}
    reported = sum(step_logprob(before, row, [5, 6]) for row in training_rows()) / 24
    assert sum(line["chosen_logprob"] - line["chosen_displacement"] for line in updates[:3]) / 3 == pytest.approx(
        reported, abs=1e-4
    )


def test_the_first_update_starts_at_ln_2_and_zero_margin(policy: Path, tmp_path: Path) -> None:
    table = pairs_of(random_rows(40), digest_of(policy), smoothing=[0.2] * 40)
    settings = TrainingSettings(data={"batch_size": 16, "max_batch_tokens": 100, "max_updates": 1})
    first = train(policy, table, tmp_path / "out", settings).first
    assert first["preference_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert (first["margin"], first["chosen_displacement"], first["kl"]) == (0.0, 0.0, 0.0)
    assert first["accuracy"] == 0.5
    assert first["loss"] == pytest.approx(first["nll"] + 0.02 * math.log(2), rel=1e-6)


@pytest.mark.parametrize("objective", ["rft", "step_rft"])
def test_imitation_objectives_learn_their_targets(policy: Path, tmp_path: Path, objective: Any) -> None:
    rows, digest = training_rows(), digest_of(policy)
    table = solutions_of([(row[0], row[2]) for row in rows], digest) if objective == "rft" else pairs_of(rows, digest)
    settings = changed(LEARNING, {"objective": objective})
    summary = train(policy, table, tmp_path / "out", settings)
    assert summary.last["nll"] < 0.6 * summary.first["nll"]
    assert summary.reference_tokens == 0
    assert ("margin" in summary.first) == (objective == "step_rft")  # whose pairs are watched too
    assert ("chosen_logprob" in summary.first) == (objective == "step_rft")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(policy: Path, tmp_path: Path) -> None:
    table = pairs_of(random_rows(20), digest_of(policy))
    settings = TrainingSettings(
        optimiser={"lr": 1e-3}, data={"batch_size": 8, "epochs": 2}, lora=LoraSettings(rank=2), threads=1
    )
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        # Whatever the global generator does in between must not matter.
        torch.rand(3)
        train(
            policy, table, tmp_path / name, settings.model_copy(update={"seed": seed}), log=tmp_path / f"{name}.jsonl"
        )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert contents(tmp_path / "a")["model.safetensors"] != contents(tmp_path / "c")["model.safetensors"]


def test_the_forward_budget_changes_nothing_but_rounding(policy: Path, tmp_path: Path) -> None:
    table = pairs_of(random_rows(24), digest_of(policy))
    logs = []
    for budget in (60, 4096):
        log = tmp_path / f"{budget}.jsonl"
        settings = TrainingSettings(
            optimiser={"lr": 1e-3}, data={"batch_size": 12, "epochs": 3, "max_batch_tokens": budget}
        )
        train(policy, table, tmp_path / "out", settings, log=log)
        logs.append(lines(log))
    for few, many in zip(*logs, strict=True):
        assert few["loss"] == pytest.approx(many["loss"], rel=1e-4)
        assert few["gradient_norm"] == pytest.approx(many["gradient_norm"], rel=1e-3)


def test_packing_changes_nothing_but_the_tokens_computed(policy: Path, tmp_path: Path) -> None:
    rows = [([3, 4, 5, prompt], [6, 7], [8, prompt], [9, step]) for prompt in (10, 11, 12) for step in (4, 5, 6)]
    table = pairs_of(rows, digest_of(policy), smoothing=[0.1] * 9, weight=[1, 2, 3] * 3)
    summaries = []
    for packing in (False, True):
        settings = TrainingSettings(optimiser={"lr": 1e-3}, data={"batch_size": 9, "epochs": 4, "packing": packing})
        summaries.append(train(policy, table, tmp_path / str(packing), settings))
    plain, packed = summaries
    assert packed.first == pytest.approx(plain.first, rel=1e-4, abs=1e-6)
    assert packed.last == pytest.approx(plain.last, rel=1e-3, abs=1e-5)
    assert plain.tokens == 4 * 9 * (8 + 8)
    # 3 tokens of all prompts; under each its own token, the prefix, the chosen step, 9 and what follows it.
    assert packed.tokens == 4 * (3 + 3 * (1 + 2 + 2 + 1 + 3))
    assert packed.reference_tokens == packed.tokens // 4
    assert packed.padding == 0


def test_gradient_checkpointing_changes_nothing(policy: Path, tmp_path: Path) -> None:
    table = pairs_of(random_rows(12), digest_of(policy))
    results = []
    for recompute in (False, True):
        settings = TrainingSettings(optimiser={"lr": 1e-3}, data={"batch_size": 4}, gradient_checkpointing=recompute)
        results.append(train(policy, table, tmp_path / str(recompute), settings).last)
    assert results[0] == pytest.approx(results[1], rel=1e-5, abs=1e-6)


def test_displacement_sets_off_alarms(policy: Path, tmp_path: Path) -> None:
    """The preference loss alone, at a rate far too high, drags chosen and rejected steps down together."""
    table = pairs_of(random_rows(24, seed=5), digest_of(policy))
    settings = TrainingSettings(
        objective={"nll_weight": 0.0, "preference_weight": 1.0},
        optimiser={"lr": 0.1},
        data={"epochs": 10, "batch_size": 8},
    )
    log = tmp_path / "log.jsonl"
    summary = train(policy, table, tmp_path / "out", settings, log=log)
    window = {
        kind: [sum(line[f"{kind}_displacement"] for line in lines(log)[end - 10 : end]) / 10 for end in range(10, 31)]
        for kind in ("chosen", "rejected")
    }
    for kind, bound in (("chosen", -0.1), ("rejected", -4.0)):
        assert min(window[kind]) < bound
        crossed = next(place for place, value in enumerate(window[kind]) if value < bound)
        (alarm,) = [one for one in summary.alarms if f"the {kind} steps'" in one]
        assert f"by update {crossed + 10} " in alarm
        assert f"{-window[kind][crossed]:.2f} nats" in alarm
    quiet = settings.model_copy(update={"chosen_alarm": 1e9, "rejected_alarm": 1e9})
    assert train(policy, table, tmp_path / "out", quiet).alarms == ()


def test_clipping_bounds_the_step_and_is_reported(policy: Path, tmp_path: Path) -> None:
    table = pairs_of(random_rows(16), digest_of(policy))
    shares = {}
    for bound in (1e-3, 1e3, None):
        settings = TrainingSettings(optimiser={"max_grad_norm": bound}, data={"batch_size": 8})
        shares[bound] = train(policy, table, tmp_path / "out", settings).clipped
    assert shares == {1e-3: 1.0, 1e3: 0.0, None: 0.0}


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_the_schedule_rises_to_the_peak_and_falls_without_reaching_zero(kind: Any) -> None:
    settings = TrainingSettings(optimiser={"schedule": kind, "warmup": 0.2})
    rates = [schedule(update, 20, settings.optimiser) for update in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    falling = rates[4:]
    if kind == "constant":
        assert set(falling) == {1.0}
    else:
        assert all(later < earlier for earlier, later in pairwise(falling))
        assert rates[12] == pytest.approx(0.5)
        assert 0 < rates[-1] < 0.1


@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_the_schedule_of_a_single_update_is_the_peak(warmup: float) -> None:
    assert schedule(0, 1, OptimiserSettings(warmup=warmup)) == 1.0


def test_a_part_of_an_update_of_warm_up_is_a_whole_one() -> None:
    rates = [schedule(update, 10, OptimiserSettings(schedule="constant", warmup=0.25)) for update in range(4)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1])


def test_a_gradient_is_scaled_down_to_the_bound_and_left_alone_without_one() -> None:
    master = torch.ones(4, requires_grad=True)
    for bound, scaled in ((None, 3.0), (7.0, 3.0), (3.0, 1.5)):
        master.grad = torch.full((4,), 3.0)
        assert clip([master], bound, SINGLE_PROCESS, False) == 6.0
        assert master.grad.tolist() == pytest.approx([scaled] * 4, rel=1e-5)


def test_weight_decay_is_on_matrices_alone() -> None:
    matrix, vector = (torch.ones(shape, requires_grad=True) for shape in ((2, 3), (3,)))
    optimizer = make_optimizer([matrix, vector], OptimiserSettings(lr=0.1, weight_decay=0.5))
    matrix.grad, vector.grad = torch.zeros(2, 3), torch.zeros(3)
    optimizer.step()
    assert matrix.tolist() == [[pytest.approx(1 - 0.1 * 0.5)] * 3] * 2
    assert vector.tolist() == [1.0] * 3


def test_threads_are_as_before_afterwards(policy: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    table = pairs_of(random_rows(2), digest_of(policy))
    train(policy, table, tmp_path / "out", TrainingSettings(threads=before + 1))
    assert torch.get_num_threads() == before


def test_bad_input_is_one_line_and_leaves_nothing(policy: Path, tmp_path: Path) -> None:
    rows, digest, out = random_rows(4), digest_of(policy), tmp_path / "out"
    settings = TrainingSettings()
    with pytest.raises(InputError, match="pairs: made with another tokenizer"):
        train(policy, pairs_of(rows, "another"), out, settings)
    strange = pairs_of([*rows[:2], ([3], [4, VOCABULARY], [5], [6])], digest)
    with pytest.raises(InputError, match=rf"row 2: token id {VOCABULARY} \(accepted: below {VOCABULARY}"):
        train(policy, strange, out, settings)
    long = pairs_of([rows[0], ([3] * 100, [], [4, 4, 4], [4, 4]), rows[2]], digest)
    with pytest.raises(InputError, match=r"row 1: 103 tokens \(accepted: up to 64"):
        train(policy, long, out, settings)
    with pytest.raises(InputError, match="no such model"):
        train(tmp_path / "nowhere", pairs_of(rows, digest), out, settings)
    with pytest.raises(InputError, match=r"training\.lora\.targets: 'q_prj': .*q_proj"):
        train(policy, pairs_of(rows, digest), out, TrainingSettings(lora=LoraSettings(targets=("q_prj",))))
    with pytest.raises(InputError, match=r"training\.optimiser\.lr: 1e\+30: the gradient of update \d+ is not finite"):
        train(policy, pairs_of(rows, digest), out, TrainingSettings(optimiser={"lr": 1e30}, data={"epochs": 30}))
    assert not any(tmp_path.iterdir())


def test_an_earlier_policy_is_replaced_only_by_a_whole_one(policy: Path, tmp_path: Path) -> None:
    table = pairs_of(random_rows(4), digest_of(policy))
    train(policy, table, tmp_path / "out", TrainingSettings(optimiser={"lr": 1e-3}))
    first = contents(tmp_path / "out")
    with pytest.raises(InputError):
        train(policy, table, tmp_path / "out", TrainingSettings(optimiser={"lr": 1e30}, data={"epochs": 30}))
    assert contents(tmp_path / "out") == first
    train(policy, table, tmp_path / "out", TrainingSettings(optimiser={"lr": 1e-2}))
    assert contents(tmp_path / "out").keys() == first.keys()
    assert contents(tmp_path / "out") != first


def test_an_alarm_stops_the_training_where_asked_and_a_warning_goes_on_from_there(policy: Path, tmp_path: Path) -> None:
    table = pairs_of(random_rows(24, seed=5), digest_of(policy))
    settings = TrainingSettings(
        objective={"nll_weight": 0.0, "preference_weight": 1.0},
        optimiser={"lr": 0.1},
        data={"epochs": 10, "batch_size": 8},
        on_alarm="stop",
        rejected_alarm=1e9,
    )
    for _ in range(2):  # the same command again stops again, at once
        with pytest.raises(InputError, match=r"training\.on_alarm: stopped after update \d+: displacement: .*on_alarm"):
            train(policy, table, tmp_path / "out", settings)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["out.unfinished"]
    train(policy, table, tmp_path / "out", settings.model_copy(update={"on_alarm": "warn"}), log=tmp_path / "log")
    undisturbed = settings.model_copy(update={"on_alarm": "warn"})
    train(policy, table, tmp_path / "plain", undisturbed, log=tmp_path / "plain.log")
    assert (tmp_path / "log").read_bytes() == (tmp_path / "plain.log").read_bytes()


@pytest.mark.parametrize("objective", ["ipo", "odpo"])
def test_preference_objectives_without_likelihood_are_watched_too(policy: Path, tmp_path: Path, objective: Any) -> None:
    rows, start = random_rows(24, seed=5), load_model(policy, "float32")
    logprobs = [[step_logprob(start, row, list(row[side])) for row in rows] for side in (2, 3)]
    table = pairs_of(rows, digest_of(policy), chosen_logprob=logprobs[0], rejected_logprob=logprobs[1])
    settings = TrainingSettings(
        objective={"kind": objective, "nll_weight": 0.0, "preference_weight": 1.0},
        optimiser={"lr": 0.1},
        data={"epochs": 10, "batch_size": 8},
    )
    alarms = train(policy, table, tmp_path / "out", settings).alarms
    assert any("the chosen steps'" in alarm for alarm in alarms)


def test_an_evaluation_is_called_and_its_figures_are_kept(policy: Path, tmp_path: Path) -> None:
    table = pairs_of(training_rows(), digest_of(policy))
    called: list[int] = []

    def evaluate(update: int, model: Any) -> dict[str, float]:
        called.append(update)
        assert not model.training
        return {"held_out": step_logprob(model, ([9, 8], [7]), [5, 6])}

    settings = LEARNING.model_copy(update={"evaluate_every": 10})
    summary = train(policy, table, tmp_path / "out", settings, log=tmp_path / "log", evaluate=evaluate)
    assert called == [10, 20, 24]
    found = {line["update"]: line["eval_held_out"] for line in lines(tmp_path / "log") if "eval_held_out" in line}
    assert list(found) == called
    assert found[24] > found[10]
    after = load_model(tmp_path / "out", "float32")
    assert found[24] == pytest.approx(step_logprob(after, ([9, 8], [7]), [5, 6]), abs=1e-4)
    assert "eval_held_out" not in summary.last
    plain = train(policy, table, tmp_path / "plain", LEARNING)
    assert plain == summary, "looking changes nothing"


def test_progress_shows_what_a_person_wants_to_see(policy: Path, tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []

    def watch(stage: str, done: int, total: int, **figures: float) -> None:
        if stage == "train":
            seen.append(figures)

    train(policy, pairs_of(training_rows(), digest_of(policy)), tmp_path / "out", LEARNING, progress=watch)
    assert list(seen[0]) == ["loss", "margin", "accuracy", "chosen", "rejected", "tok/s"]
    assert all(figures["tok/s"] > 0 for figures in seen)
