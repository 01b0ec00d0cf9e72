from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mcts_dpo.common.errors import InputError
from mcts_dpo.training import TrainingSettings
from mcts_dpo.training.data.batches import forward_passes, make_batch
from mcts_dpo.training.data.collate import TrainingData, collate
from mcts_dpo.training.logprobs import score
from mcts_dpo.training.loss import loss_of, names, totals
from mcts_dpo.training.objectives.kto import kto, sibling_kl
from mcts_dpo.training.objectives.lipo import lambda_loss
from mcts_dpo.training.objectives.registry import BUILT_IN, objective_named
from mcts_dpo.training.objectives.sibling_distillation import sibling_distillation
from mcts_dpo.training.objectives.tree_policy_gradient import tree_policy_gradient
from mcts_dpo.training.tasks import PolicyTrainingTask
from tests.training.world import naive_logprobs, pairs_of, random_rows, siblings_of, solutions_of, tiny_model

LISTS = [name for name in BUILT_IN if objective_named(name).table == "siblings"]
PAIRS = [name for name in BUILT_IN if objective_named(name).table == "pairs"]
ROWS = random_rows(7, seed=2)
WEIGHTS = [1.0, 0.5, 3.0, 1.0, 0.25, 2.0, 1.5]
SMOOTHING = [0.0, 0.1, 0.49, 0.3, 0.0, 0.2, 0.05]


def needs_reference(name: str) -> bool:
    return objective_named(name).needs_reference


def own(kind: str, **values: Any) -> dict[str, Any]:
    """The objective's settings: those of `values` that it has."""
    fields = objective_named(kind).settings.model_fields
    return {"kind": kind} | {name: value for name, value in values.items() if name in fields}


def update(
    model: Any, training_data: TrainingData, settings: TrainingSettings, reference: torch.Tensor | None
) -> dict[str, float]:
    """One update's loss accumulated into the model's gradients, pass by pass; its figures."""
    rows = np.arange(training_data.sequences.rows)
    total, sums = totals(training_data, rows), torch.zeros(len(names(settings.objective)))
    for one in forward_passes(training_data.sequences, rows, settings.data.max_batch_tokens):
        which = training_data.sequences.of_rows(one)
        batch = make_batch(training_data.sequences, which)
        loss, figures = loss_of(
            score(model, batch, means=objective_named(settings.objective.kind).wants_means),
            batch,
            training_data.targets(one),
            None if reference is None else reference[torch.from_numpy(which)],
            total,
            settings.objective,
        )
        torch.autograd.backward(loss)
        sums = sums + figures
    return dict(zip(names(settings.objective), sums.tolist(), strict=True))


def naive_solutions(model: Any) -> list[torch.Tensor]:
    """Per pair, the log-probabilities of the solution's tokens up to and with the chosen step."""
    return [naive_logprobs(model, prompt, [*prefix, *step]) for prompt, prefix, step, _ in ROWS]


def naive_steps(model: Any, solutions: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    # The chosen step is taken from the solution's own pass: Llama's norms round to float32 on their way back, even in
    # a float64 model, so that two passes' gradients add up to something else than one pass's.
    chosen = [one[len(prefix) :].sum() for one, (_, prefix, _, _) in zip(solutions, ROWS, strict=True)]
    rejected = [naive_logprobs(model, [*prompt, *prefix], step).sum() for prompt, prefix, _, step in ROWS]
    return torch.stack(chosen), torch.stack(rejected)


def naive_step_dpo(model: Any, before: Any, settings: TrainingSettings) -> torch.Tensor:
    """algorithm.md, Step-DPO, written out one pair at a time."""
    weight, alpha = torch.tensor([WEIGHTS, SMOOTHING], dtype=torch.float64)
    solutions = naive_solutions(model)
    chosen, rejected = naive_steps(model, solutions)
    with torch.no_grad():
        ref_chosen, ref_rejected = naive_steps(before, naive_solutions(before))
    z = settings.objective.beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    losses = -(1 - alpha) * torch.sigmoid(z).log() - alpha * torch.sigmoid(-z).log()
    token_weights = torch.cat([w * torch.ones_like(one) for w, one in zip(weight, solutions, strict=True)])
    nll = -(token_weights * torch.cat(solutions)).sum() / token_weights.sum()
    preference = (weight * losses).sum() / weight.sum()
    total: torch.Tensor = settings.objective.nll_weight * nll + settings.objective.preference_weight * preference
    return total


@pytest.mark.parametrize("nll_weight", [1.0, 0.0])
@pytest.mark.parametrize("budget", [1, 60, 4096])
def test_step_dpo_equals_its_formula_whatever_the_forward_passes(nll_weight: float, budget: int) -> None:
    settings = TrainingSettings(
        objective={"beta": 0.7, "nll_weight": nll_weight, "preference_weight": 0.3}, data={"max_batch_tokens": budget}
    )
    model = tiny_model(dtype=torch.float64)
    before = tiny_model(dtype=torch.float64, seed=1)
    training_data = collate(pairs_of(ROWS, weight=WEIGHTS, smoothing=SMOOTHING), settings.objective)
    everything = make_batch(training_data.sequences, np.arange(len(training_data.sequences)))
    with torch.no_grad():
        reference = score(before, everything).steps
    figures = update(model, training_data, settings, reference)
    found = {name: one.grad.clone() for name, one in model.named_parameters()}
    model.zero_grad()
    naive = naive_step_dpo(model, before, settings)
    torch.autograd.backward(naive)
    assert figures["loss"] == pytest.approx(naive.item(), abs=1e-10)
    for name, one in model.named_parameters():
        assert (found[name] - one.grad).abs().max() < 1e-10, name
    with torch.no_grad():
        chosen, rejected = naive_steps(model, naive_solutions(model))
        ref_chosen, ref_rejected = naive_steps(before, naive_solutions(before))
    rise, fall = chosen - ref_chosen, rejected - ref_rejected
    tokens = sum(len(row[2]) + len(row[3]) for row in ROWS)
    expected = {
        "chosen_logprob": chosen.mean(),
        "rejected_logprob": rejected.mean(),
        "chosen_displacement": rise.mean(),
        "rejected_displacement": fall.mean(),
        "accuracy": (rise > fall).double().mean(),
        "margin": 0.7 * (rise - fall).mean(),
        "kl": -(rise + fall).sum() / tokens,
    }
    for name, value in expected.items():
        assert figures[name] == pytest.approx(float(value), abs=1e-9), name


PAIR_OBJECTIVES = [name for name in PAIRS if name != "step_rft"]
GAPS = [2.0, 0.3, 1.1, 0.0, 0.7, 1.9, 0.5]


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("objective", PAIR_OBJECTIVES)
def test_a_pair_objective_is_its_loss_on_each_pair_by_itself(objective: str, normalised: bool) -> None:
    """Every formula written out, with every setting away from its default."""
    b, e, delta, scale = 0.7, 0.2, 0.6, 1.4
    settings = TrainingSettings(
        objective=own(
            objective, beta=b, flip_rate=e, target_margin=delta, margin_scale=scale, length_normalised=normalised
        )
    )
    model, before = tiny_model(dtype=torch.float64), tiny_model(dtype=torch.float64, seed=1)
    training_data = collate(pairs_of(ROWS, weight=WEIGHTS, smoothing=SMOOTHING, margin=GAPS), settings.objective)
    everything = make_batch(training_data.sequences, np.arange(len(training_data.sequences)))
    with torch.no_grad():
        reference = score(before, everything).steps if needs_reference(objective) else None
    figures = update(model, training_data, settings, reference)

    def lost(z: float) -> float:
        return float(np.logaddexp(0, -z))

    found = []
    for (prompt, prefix, *steps), a, gap in zip(ROWS, SMOOTHING, GAPS, strict=True):
        with torch.no_grad():
            c, r, c0, r0 = (
                float(naive_logprobs(one, [*prompt, *prefix], step).sum())
                / (len(step) if normalised or objective in ("simpo", "orpo") else 1)
                for one in (model, before)
                for step in steps
            )
        h = (c - c0) - (r - r0)
        p = 1 / (1 + np.exp(-scale * gap))
        odds = [mean - np.log(1 - np.exp(mean)) for mean in (c, r)]
        formulas = {
            "step_dpo": (1 - a) * lost(b * h) + a * lost(-b * h),
            "robust_dpo": ((1 - e) * lost(b * h) - e * lost(-b * h)) / (1 - 2 * e),
            "ipo": (h - 1 / (2 * b)) ** 2,
            "hinge": max(0.0, delta - b * h),
            "odpo": lost(b * h - scale * gap),
            "mmpo": p * lost(b * h) + (1 - p) * lost(-b * h),
            "simpo": lost(b * c - b * r - delta),
            "orpo": lost(odds[0] - odds[1]),
        }
        found.append(formulas[objective])
    assert figures["preference_loss"] == pytest.approx(np.average(found, weights=WEIGHTS), abs=1e-9)


def hugging_face_loss(model: Any, rows: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    """The library's own label loss on right-padded rows whose prefix is masked out."""
    width = max(len(prefix) + len(target) for prefix, target in rows)
    ids, labels, mask = torch.zeros(3, len(rows), width, dtype=torch.int64)
    labels -= 100
    for row, (prefix, target) in enumerate(rows):
        size = len(prefix) + len(target)
        ids[row, :size] = torch.tensor([*prefix, *target])
        labels[row, len(prefix) : size] = torch.tensor(target)
        mask[row, :size] = 1
    loss: torch.Tensor = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    return loss


@pytest.mark.parametrize("objective", ["rft", "step_rft"])
def test_imitation_equals_the_label_loss_of_transformers(objective: Any) -> None:
    settings = TrainingSettings(data={"max_batch_tokens": 40}, objective=objective)
    if objective == "rft":
        rows = [(prompt, [*prefix, *step]) for prompt, prefix, step, _ in ROWS]
        training_data = collate(solutions_of(rows), settings.objective)
    else:
        rows = [([*prompt, *prefix], step) for prompt, prefix, step, _ in ROWS]
        training_data = collate(pairs_of(ROWS), settings.objective)
    # The label loss of transformers is computed in float32 whatever the model, so this compares there.
    model = tiny_model()
    figures = update(model, training_data, settings, None)
    found = {name: one.grad.clone() for name, one in model.named_parameters()}
    model.zero_grad()
    expected = hugging_face_loss(model, rows)
    torch.autograd.backward(expected)
    assert figures["loss"] == pytest.approx(expected.item(), rel=1e-6)
    for name, one in model.named_parameters():
        torch.testing.assert_close(found[name], one.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_a_weight_of_two_is_as_good_as_the_row_twice() -> None:
    rows = [(prompt, step) for prompt, _, step, _ in ROWS[:3]]
    settings = TrainingSettings(objective="rft")
    gradients = []
    for table in (solutions_of(rows, weight=[1, 2, 1]), solutions_of([*rows, rows[1]])):
        model = tiny_model(dtype=torch.float64)
        update(model, collate(table, settings.objective), settings, None)
        gradients.append(torch.cat([one.grad.ravel() for one in model.parameters()]))
    assert (gradients[0] - gradients[1]).abs().max() < 1e-12


def test_without_nll_only_steps_are_scored() -> None:
    table = pairs_of(ROWS)
    training_data = collate(table, TrainingSettings(objective={"nll_weight": 0.0}).objective)
    assert (training_data.sequences.scored_from == training_data.sequences.step_from).all()
    both = collate(table, TrainingSettings().objective)
    assert (both.sequences.scored_from[::2] == table.tokens("prompt_tokens").lengths).all()
    assert (both.sequences.scored_from[1::2] == both.sequences.step_from[1::2]).all()


@pytest.mark.parametrize("objective", ["odpo", "mmpo"])
def test_margins_that_say_nothing_or_the_contrary_are_refused(objective: str) -> None:
    settings = TrainingSettings(objective=objective)
    against = pairs_of(ROWS, margin=[0.0, 1.0, -1.5, 1.0, -2.0, 0.0, 0.0])
    with pytest.raises(InputError, match=r"^data\.jsonl: row 2: margin is -1.5, .* \(accepted by '...o': 0 or more\)"):
        collate(against, settings.objective, source="data.jsonl")
    with pytest.raises(InputError, match=r"learns from margins, and all of them are 0 \(accepted: a field margin"):
        collate(pairs_of(ROWS, margin=[0.0] * 7), settings.objective)
    collate(pairs_of(ROWS, margin=[0.0] * 7), TrainingSettings().objective)


def test_weights_that_leave_nothing_to_learn_are_refused() -> None:
    with pytest.raises(ValueError, match="nll_weight and preference_weight are both 0"):
        TrainingSettings(objective={"nll_weight": 0.0, "preference_weight": 0.0})
    with pytest.raises(ValueError, match="regression_weight and ranking_weight are both 0"):
        TrainingSettings(value={"regression_weight": 0.0, "ranking_weight": 0.0})


def test_a_table_of_the_wrong_kind_or_without_rows_is_refused(tmp_path: Path) -> None:
    pairs, solutions = pairs_of(ROWS), solutions_of([(row[0], row[2]) for row in ROWS])
    with pytest.raises(InputError, match="'rft' learns from solutions, not pairs"):
        collate(pairs, TrainingSettings(objective="rft").objective)
    with pytest.raises(InputError, match="'step_rft' learns from pairs, not solutions"):
        collate(solutions, TrainingSettings(objective="step_rft").objective)
    pairs.take([]).save(tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match=r"pairs\.parquet: no rows"):
        collate(tmp_path / "pairs.parquet", TrainingSettings().objective)
    solutions.save(tmp_path / "solutions.parquet")
    with pytest.raises(InputError, match=r"solutions\.parquet: .* 'step_dpo' learns from pairs, not solutions"):
        collate(tmp_path / "solutions.parquet", TrainingSettings().objective)


def test_step_dpo_without_a_reference_is_a_programming_error() -> None:
    settings = TrainingSettings()
    training_data = collate(pairs_of(ROWS[:1]), settings.objective)
    with pytest.raises(ValueError, match="reference"):
        update(tiny_model(), training_data, settings, None)


LIST_ROWS = [
    (prompt, prefix, [chosen, rejected, *([[3, 4], [5]] if number % 2 else [])])
    for number, (prompt, prefix, chosen, rejected) in enumerate(random_rows(5, seed=4))
]
LIST_Q = [[0.9, 0.2, 0.0, -0.8] if len(steps) == 4 else [1.0, -0.5] for _, _, steps in LIST_ROWS]
LIST_SAMPLES = [[1, 3, 2, 2] if len(steps) == 4 else [2, 1] for _, _, steps in LIST_ROWS]
LIST_WEIGHTS = [1.0, 0.5, 2.0, 1.0, 0.25]


def shrunk(row: int) -> list[float]:
    """Q' of a list's steps; no two are as far apart as their Q."""
    return [0.5 * q + 0.1 * q**2 - 0.2 for q in LIST_Q[row]]


def table_for(objective: str) -> Any:
    if objective == "rft":
        return solutions_of([(prompt, [*prefix, *step]) for prompt, prefix, step, _ in ROWS], weight=WEIGHTS)
    if objective in LISTS:
        values = [shrunk(row) for row in range(len(LIST_ROWS))]
        return siblings_of(LIST_ROWS, q=LIST_Q, value=values, samples=LIST_SAMPLES, weight=LIST_WEIGHTS)
    return pairs_of(ROWS, weight=WEIGHTS, smoothing=SMOOTHING)


@pytest.mark.parametrize("objective", BUILT_IN)
def test_every_objective_is_the_same_whatever_the_forward_passes(objective: str) -> None:
    before = tiny_model(dtype=torch.float64, seed=1)
    found = []
    for budget in (1, 80, 4096):
        settings = TrainingSettings(objective=own(objective, preference_weight=0.5), data={"max_batch_tokens": budget})
        training_data = collate(table_for(objective), settings.objective)
        reference = None
        if needs_reference(objective):
            with torch.no_grad():
                reference = score(
                    before, make_batch(training_data.sequences, np.arange(len(training_data.sequences)))
                ).steps
        model = tiny_model(dtype=torch.float64)
        figures = update(model, training_data, settings, reference)
        gradient = torch.cat([one.grad.ravel() for one in model.parameters()])
        assert gradient.isfinite().all()
        assert gradient.any()
        found.append((figures, gradient))
    for figures, gradient in found[1:]:
        assert figures == pytest.approx(found[0][0], abs=1e-10)
        assert (gradient - found[0][1]).abs().max() < 1e-10


def likelihoods(model: Any) -> list[list[float]]:
    """Per list, the siblings' log-probabilities, one unpadded sequence at a time."""
    with torch.no_grad():
        return [
            [float(naive_logprobs(model, [*prompt, *prefix], step).sum()) for step in steps]
            for prompt, prefix, steps in LIST_ROWS
        ]


def likenesses(model: Any, prompt: Any, prefix: Any, steps: Any) -> torch.Tensor:
    """Cosines of the steps' mean last states to the first step's, one unpadded sequence at a time."""
    means = []
    for step in steps:
        with torch.no_grad():
            found = model(input_ids=torch.tensor([[*prompt, *prefix, *step]]), output_hidden_states=True)
        means.append(found.hidden_states[-1][0, -len(step) :].mean(0).numpy())
    return torch.tensor([m @ means[0] / np.sqrt((m @ m) * (means[0] @ means[0])) for m in means])


@pytest.mark.parametrize("objective", LISTS)
@pytest.mark.parametrize("normalised", [False, True])
def test_a_list_objective_is_its_loss_on_each_list_by_itself(objective: str, normalised: bool) -> None:
    weights_of_kind = {"desirable_weight": 1.2, "undesirable_weight": 0.8}
    clips = {"advantage_clip": 0.6, "ratio_clip": 0.3}
    settings = TrainingSettings(
        objective=own(
            objective,
            beta=0.7,
            temperature=0.4,
            renormalise=normalised,
            length_normalised=normalised,
            **weights_of_kind,
            **clips,
        )
    )
    model, before = tiny_model(dtype=torch.float64), tiny_model(dtype=torch.float64, seed=1)
    training_data = collate(table_for(objective), settings.objective)
    with torch.no_grad():
        reference = score(before, make_batch(training_data.sequences, np.arange(len(training_data.sequences)))).steps
    figures = update(model, training_data, settings, reference if needs_reference(objective) else None)
    found = []
    for row, (policy, start) in enumerate(zip(likelihoods(model), likelihoods(before), strict=True)):
        q, counts, value = torch.tensor([[LIST_Q[row]], [LIST_SAMPLES[row]], [shrunk(row)]], dtype=torch.float64)
        tokens = torch.tensor([[len(step) for step in LIST_ROWS[row][2]]])
        parent = (q * counts).sum() / counts.sum()
        present = torch.ones_like(q, dtype=torch.bool)
        pi, ref = torch.tensor([[policy], [start]], dtype=torch.float64)
        if normalised and objective in ("kto", "lipo", "tpo"):
            pi, ref = pi / tokens, ref / tokens
        if objective == "kto":
            drift = sibling_kl(pi, ref, counts, present)
            each = kto(pi, ref, q > parent, drift, beta=0.7, **weights_of_kind)
            found.append(float((counts / counts.sum() * each).sum()))
        elif objective == "sibling_distillation":
            options: Any = {"tau": 0.4, "renormalise": normalised}
            found.append(float(sibling_distillation(pi, value, counts, present, **options)))
        elif objective == "tree_policy_gradient":
            found.append(float(tree_policy_gradient(pi, ref, q - parent, counts, present, **clips)))
        else:
            weights = 1 + likenesses(model, *LIST_ROWS[row])[None] if objective == "tpo" else None
            found.append(float(lambda_loss(pi, ref, value, present, beta=0.7, step_weights=weights)))
    assert figures["preference_loss"] == pytest.approx(np.average(found, weights=LIST_WEIGHTS), abs=1e-9)
    solutions = [
        naive_logprobs(model, prompt, [*prefix, *steps[0]]).detach().numpy() for prompt, prefix, steps in LIST_ROWS
    ]
    weights_of = np.concatenate([w * np.ones(len(one)) for w, one in zip(LIST_WEIGHTS, solutions, strict=True)])
    assert figures["nll"] == pytest.approx(-np.average(np.concatenate(solutions), weights=weights_of), abs=1e-9)
    assert figures["loss"] == pytest.approx(
        figures["nll"] + settings.objective.preference_weight * figures["preference_loss"]
    )


def test_displacement_without_a_reference_is_measured_from_the_table() -> None:
    model = tiny_model()
    for objective in ("step_rft", "orpo", "simpo"):
        settings = TrainingSettings(objective=objective)
        figures = update(model, collate(pairs_of(ROWS), settings.objective), settings, None)
        # `pairs_of` says that every chosen step was sampled at −3 nats and every rejected one at −4.
        assert figures["chosen_displacement"] == pytest.approx(figures["chosen_logprob"] + 3, rel=1e-5)
        assert figures["rejected_displacement"] == pytest.approx(figures["rejected_logprob"] + 4, rel=1e-5)


def test_every_objective_has_a_weight_and_a_beta_of_its_own() -> None:
    found = {name: objective_named(name).settings() for name in BUILT_IN}
    weights = {
        name: one.preference_weight for name, one in found.items() if "preference_weight" in type(one).model_fields
    }
    assert weights == {
        **dict.fromkeys(("step_dpo", "robust_dpo", "odpo", "mmpo", "lipo", "tpo"), 0.02),
        **dict.fromkeys(("simpo", "orpo", "sibling_distillation"), 0.1),
        "ipo": 0.0025,
        "hinge": 0.01,
        "kto": 0.04,
        "tree_policy_gradient": 0.05,
    }
    assert set(BUILT_IN) - set(weights) == {"rft", "step_rft"}
    betas = {name: one.beta for name, one in found.items() if "beta" in type(one).model_fields}
    with_beta = set(weights) - {"orpo", "sibling_distillation", "tree_policy_gradient"}
    assert betas == dict.fromkeys(with_beta, 1.0) | {"ipo": 0.25}


def test_a_sibling_at_its_parents_value_is_neither_desirable_nor_undesirable() -> None:
    rows = [([5, 6], [], [[7], [8], [9]])]
    settings = TrainingSettings(objective={"kind": "kto", "nll_weight": 0.0})
    model = tiny_model(dtype=torch.float64)
    training_data = collate(siblings_of(rows, q=[[1.0, 0.0, -1.0]]), settings.objective)
    scores = score(model, make_batch(training_data.sequences, np.arange(3)))
    steps = scores.steps.detach().requires_grad_(True)
    everything = np.arange(1)
    loss, _ = loss_of(
        type(scores)(scores.tokens.detach(), steps),
        make_batch(training_data.sequences, np.arange(3)),
        training_data.targets(everything),
        scores.steps.detach(),
        totals(training_data, everything),
        settings.objective,
    )
    torch.autograd.backward(loss)
    assert steps.grad is not None
    assert steps.grad[1] == 0
    assert steps.grad[0] < 0 < steps.grad[2]


def test_only_what_was_imitated_is_scored_before_the_step() -> None:
    training_data = collate(table_for("lipo"), TrainingSettings(objective="lipo").objective)
    first = training_data.sequences.row_offsets[:-1]
    later = np.setdiff1d(np.arange(len(training_data.sequences)), first)
    assert (training_data.sequences.imitation[first] == LIST_WEIGHTS).all()
    assert not training_data.sequences.imitation[later].any()
    assert (training_data.sequences.scored_from[later] == training_data.sequences.step_from[later]).all()
    assert training_data.sequences.scored_from[first].tolist() == [len(prompt) for prompt, _, _ in LIST_ROWS]


@pytest.mark.parametrize("objective", ["step_dpo", "lipo", "rft"])
def test_no_loss_contains_an_environment_token(objective: Any) -> None:
    """What a tool said is read but not learned: the loss is that of the other tokens, given all of them."""
    prompt, prefix, chosen, rejected = [5, 6], [7, 8, 9], [10, 11, 12], [13, 14]
    settings = TrainingSettings(objective=own(objective, preference_weight=0.5))
    if objective == "rft":
        plain: Any = solutions_of([(prompt, [*prefix, *chosen])])
        seen = {"completion_environment": [[1, 2, 4]]}
    elif objective == "lipo":
        plain = siblings_of([(prompt, prefix, [chosen, rejected])])
        seen = {"prefix_environment": [[1, 2], [1, 2]], "step_environment": [[1], [0]]}
    else:
        plain = pairs_of([(prompt, prefix, chosen, rejected)])
        seen = {"prefix_environment": [[1, 2]], "chosen_environment": [[1]], "rejected_environment": [[0]]}
    content = {name: plain.table.column(name).to_pylist() for name in plain.schema.names}
    training_data = collate(type(plain).from_columns(content | seen, "digest"), settings.objective)
    model, before = tiny_model(dtype=torch.float64), tiny_model(dtype=torch.float64, seed=1)
    with torch.no_grad():
        reference = score(before, make_batch(training_data.sequences, np.arange(len(training_data.sequences)))).steps
    figures = update(model, training_data, settings, reference if needs_reference(objective) else None)
    with torch.no_grad():
        solution = naive_logprobs(model, prompt, [*prefix, *chosen])[[0, 3, 5]]
        assert figures["nll"] == pytest.approx(-float(solution.mean()))
        if objective != "rft":
            w, ref_w = (naive_logprobs(m, [*prompt, *prefix], chosen)[[0, 2]].sum() for m in (model, before))
            r, ref_r = (naive_logprobs(m, [*prompt, *prefix], rejected)[1:].sum() for m in (model, before))
            assert figures["margin"] == pytest.approx(float((w - ref_w) - (r - ref_r)))
            expected = np.logaddexp(0, -float((w - ref_w) - (r - ref_r)))
            assert figures["preference_loss"] == pytest.approx(expected)


@pytest.mark.parametrize("objective", [*LISTS, "orpo", "step_rft"])
def test_packed_trees_give_every_objective_the_same_figures(objective: str) -> None:
    found = []
    for packing in (True, False):
        settings = TrainingSettings(data={"packing": packing}, objective=objective)
        training_data = collate(table_for(objective), settings.objective)
        task = PolicyTrainingTask(training_data, settings, torch.device("cpu"))
        rows, model = np.arange(task.rows), tiny_model(dtype=torch.float64)
        reference = None
        if task.needs_reference:
            before = tiny_model(dtype=torch.float64, seed=1)
            with torch.no_grad():
                where, steps, _ = task.reference(before, rows=rows)
            reference = torch.zeros(task.sequences, dtype=torch.float64).index_copy(0, where, steps)
        part = task.micro_batch_loss(model, rows=rows, update=rows, reference=reference)
        torch.autograd.backward(part.loss)
        gradient = torch.cat([one.grad.ravel() for one in model.parameters()])
        found.append((part.figures, gradient))
    # Llama's norms round to float32 on their way, even in a float64 model.
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)
