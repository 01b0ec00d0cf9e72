"""Every loss on the built-in world: equal training tokens, shared starts and trees, paired per problem.

    python -m benchmarks.losses --seeds 3 --json FILE [--out DIR] [--jobs 2] [--arms "step_dpo; rft"]

Every seed has its own warm start, problems and test set; its arms share all of them, and one round of trees grown by
the start. From these, pairs, lists and solutions are taken once, and every objective trains from the start with its
default settings (the arms that change any say so in their names) until the tokens it has read are those of four epochs
of step-DPO. rft and step_rft are the controls; the arms without NLL show what a loss does by itself. step_dpo carries
the visit-count smoothing of the pairs (conservative DPO); "no smoothing" is plain DPO. An arm is a folder that appears
whole, so an interrupted benchmark continues.

Prints one Markdown table: greedy accuracy and the mean over samples, the difference to rft paired per problem, how far
the log-probabilities of the chosen and rejected steps of all pairs have moved (nats), tokens read, and CPU seconds of
training. A difference has two 95 % intervals: the bootstrap over problems (within these seeds) and Student's t over
seeds. It is "better" or "worse" if both exclude zero, "better here" or "worse here" if only that over problems does
(so few seeds do not settle it for others), and a tie otherwise.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json, seed_from, whole, write_json
from mcts_dpo.common.settings import changed
from mcts_dpo.common.statistics import Floats, bootstrap_mean, mean_t
from mcts_dpo.data import Problem, load_problems
from mcts_dpo.engines import load_engine
from mcts_dpo.evaluation import Evaluation, evaluate
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.preferences import Pairs, extract_pairs, extract_siblings, extract_solutions
from mcts_dpo.search import Forest, search_problems
from mcts_dpo.toy.demo import demo_config, prepare
from mcts_dpo.training import TrainingSettings, objective_settings, table_of, train
from mcts_dpo.training.data.batches import forward_passes, make_batch
from mcts_dpo.training.data.collate import collate
from mcts_dpo.training.logprobs import score
from mcts_dpo.training.objectives.registry import BUILT_IN

TRAIN_PROBLEMS = 400
TEST_PROBLEMS = 1000
EPOCHS = 4
"""Of step-DPO; what it reads in them is what every arm reads."""
CONTROLS = ("rft", "step_rft")


@dataclass(frozen=True, slots=True)
class Arm:
    """One row of the table: an objective, the settings in which it differs from the defaults, and another table."""

    objective: str
    changes: Mapping[str, Any]
    table: str | None = None


OBJECTIVES = tuple(name for name in BUILT_IN if name not in CONTROLS)
WITHOUT_NLL = {"nll_weight": 0.0, "preference_weight": 1.0}
ARMS: dict[str, Arm] = {
    **{name: Arm(name, {}) for name in (*CONTROLS, *OBJECTIVES)},
    "step_dpo, no smoothing": Arm("step_dpo", {}, "plain"),
    "step_dpo, length-normalised": Arm("step_dpo", {"length_normalised": True}),
    "ipo, β 1": Arm("ipo", {"beta": 1.0, "preference_weight": 0.01}),
    "sibling_distillation, renormalised": Arm("sibling_distillation", {"renormalise": True}),
    **{f"{name}, no NLL": Arm(name, WITHOUT_NLL) for name in OBJECTIVES},
    "step_dpo, no smoothing, no NLL": Arm("step_dpo", WITHOUT_NLL, "plain"),
    "step_dpo, no NLL, β 0.1": Arm("step_dpo", WITHOUT_NLL | {"beta": 0.1}),
}


def settings_of(base: TrainingSettings, arm: Arm, seed: int) -> TrainingSettings:
    """The arm's training: the benchmark's optimiser, the objective's own defaults, the arm's changes."""
    objective = {"kind": arm.objective, **arm.changes}
    return changed(base, {"objective": objective, "seed": seed_from("losses", seed) % 2**32})


def grow(folder: Path, config: RunConfig, test: Sequence[Problem], seed: int) -> None:
    """What a seed's arms share: the start's trees and evaluation, and the three tables."""
    if (folder / "shared").exists():
        return
    problems = load_problems(config.train)
    engine = load_engine(config.model, settings=config.engine)
    settings = config.search.model_copy(update={"seed": seed_from("search", seed)})
    forest: Forest = search_problems(problems, engine, prompt=config.prompt, settings=settings)
    with whole(folder / "shared") as scratch:
        scratch.mkdir()
        forest.save(scratch / "trees.parquet")
        for extract in (extract_pairs, extract_siblings, extract_solutions):
            table = extract([forest], config.preferences)
            table.save(scratch / f"{table.what}.parquet")
        unsmoothed = config.preferences.model_copy(update={"smoothing": "none"})
        extract_pairs([forest], unsmoothed).save(scratch / "plain.parquet")
        engine.reset()
        evaluate(test, engine, prompt=config.prompt, settings=config.evaluation).save(scratch / "evaluation.parquet")


def tokens_per_update(data: Path, settings: TrainingSettings) -> float:
    """Tokens of all sequences that one update reads, on average."""
    sequences = collate(data, settings.objective).sequences
    return float(sequences.lengths.sum()) / -(-sequences.rows // settings.data.batch_size)


def run_arm(folder: Path, config: RunConfig, test: Sequence[Problem], name: str, seed: int) -> None:
    """Train and evaluate one arm, unless it is there with the same settings."""
    shared, target = folder / "shared", folder / "arms" / name.replace(" ", "_")
    settings = settings_of(config.training, ARMS[name], seed)
    yardstick = settings_of(config.training, ARMS["step_dpo"], seed)
    pairs = shared / f"{Pairs.what}.parquet"
    budget = tokens_per_update(pairs, yardstick) * EPOCHS * -(-len(Pairs.load(pairs)) // yardstick.data.batch_size)
    data = shared / f"{ARMS[name].table or table_of(settings.objective.kind).what}.parquet"
    updates = max(1, round(budget / tokens_per_update(data, settings)))
    settings = changed(settings, {"data.max_updates": updates, "data.epochs": updates})
    described = settings.model_dump(mode="json")
    if target.exists():
        if read_json(target / "arm.json")["settings"] != described:
            raise InputError(f"{target}: holds an arm of other settings; give another --out, or delete it")
        return
    with whole(target) as scratch:
        scratch.mkdir()
        began = time.process_time()
        summary = train(config.model, data, scratch / "policy", settings)
        seconds = time.process_time() - began
        engine = load_engine(str(scratch / "policy"), settings=config.engine)
        evaluation = evaluate(test, engine, prompt=config.prompt, settings=config.evaluation)
        evaluation.save(scratch / "evaluation.parquet")
        record = {"settings": described, "summary": summary.as_dict(), "cpu_seconds": seconds}
        write_json(scratch / "arm.json", record)


def run_seed(folder: Path, seed: int, arms: Sequence[str]) -> None:
    """All arms of one seed, one after the other."""
    start, problems = prepare(folder, seed=seed, train_problems=TRAIN_PROBLEMS, test_problems=TEST_PROBLEMS)
    demo = demo_config(start, problems, seed=seed, rounds=1, problems_per_round=TRAIN_PROBLEMS)
    changes = {"samples": 4, "confidence": False, "seed": seed_from("evaluation", seed)}
    config = demo.model_copy(
        update={
            # Without packing every sequence is read whole, so that equal tokens mean the same for pairs and for lists.
            "training": TrainingSettings(
                optimiser={"lr": 2e-4, "schedule": "linear"},
                data={"packing": False, "batch_size": 32},
                dtype="float32",
                threads=1,
            ),
            "evaluation": demo.evaluation.model_copy(update=changes),
        }
    )
    test = load_problems(config.test)
    grow(folder, config, test, seed)
    for name in arms:
        run_arm(folder, config, test, name, seed)


def collect(folder: Path, seeds: Sequence[int], arms: Sequence[str]) -> dict[str, Any]:
    """The finished arms of all seeds, summed up."""
    controls = {seed: _evaluation(folder, seed, "rft") for seed in seeds}
    starts = {seed: Evaluation.load(folder / f"seed-{seed}" / "shared" / "evaluation.parquet") for seed in seeds}
    return {
        "seeds": list(seeds),
        "problems": {"train": TRAIN_PROBLEMS, "test": TEST_PROBLEMS},
        "start": {
            "greedy": [float(greedy(starts[seed]).mean()) for seed in seeds],
            "sampled": [float(sampled(starts[seed]).mean()) for seed in seeds],
        },
        "arms": {name: _arm(folder, seeds, name, controls) for name in arms},
    }


def _arm(folder: Path, seeds: Sequence[int], name: str, controls: Mapping[int, Evaluation]) -> dict[str, Any]:
    found = {seed: _evaluation(folder, seed, name) for seed in seeds}
    places = [folder / f"seed-{seed}" / "arms" / name.replace(" ", "_") for seed in seeds]
    records = [read_json(place / "arm.json") for place in places]
    moved = [displacement(place / "policy", place.parents[1] / "shared" / "pairs.parquet") for place in places]
    gaps = {
        measure: difference([of(found[seed]) - of(controls[seed]) for seed in seeds])
        for measure, of in (("greedy", greedy), ("sampled", sampled))
    }
    last = [record["summary"]["last"] for record in records]
    return {
        "greedy": [float(greedy(found[seed]).mean()) for seed in seeds],
        "sampled": [float(sampled(found[seed]).mean()) for seed in seeds],
        "difference_to_rft": gaps if name != "rft" else None,
        "chosen_displacement": [chosen for chosen, _ in moved],
        "rejected_displacement": [rejected for _, rejected in moved],
        "nll": [one["nll"] for one in last],
        "updates": [record["summary"]["updates"] for record in records],
        "tokens": [record["summary"]["tokens"] for record in records],
        "cpu_seconds": [record["cpu_seconds"] for record in records],
        "alarms": [record["summary"]["alarms"] for record in records],
    }


def displacement(policy: Path, pairs: Path) -> tuple[float, float]:
    """Nats by which the policy's log-probability of the chosen and of the rejected steps is above the start's, means
    over all pairs: the same pairs for every arm, whatever it was trained on.
    """
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    training_data = collate(pairs, objective_settings("step_dpo", nll_weight=0.0))
    data, start = training_data.sequences, training_data.step_columns["start"]
    rises = np.empty(len(data))
    with torch.no_grad():
        for rows in forward_passes(data, np.arange(data.rows), 8192):
            which = data.of_rows(rows)
            rises[which] = score(model, make_batch(data, which)).steps.numpy() - start[which]
    return float(rises[::2].mean()), float(rises[1::2].mean())


def difference(per_seed: Sequence[Floats]) -> dict[str, Any]:
    """Mean of paired differences ([problems] in [−1, 1] per seed), both intervals, and the verdict in words."""
    means = [float(one.mean()) for one in per_seed]
    problems = bootstrap_mean(np.concatenate(per_seed))
    result: dict[str, Any] = {"per_seed": means, "mean": float(np.mean(means)), "over_problems": problems.as_dict()}
    seeds = mean_t(means) if len(means) > 1 else None
    if problems.low <= 0 <= problems.high:
        verdict = "a tie"
    else:
        verdict = "better" if problems.value > 0 else "worse"
        if seeds is None or seeds.low <= 0 <= seeds.high:
            verdict += " here"
    return result | {"over_seeds": seeds and seeds.as_dict(), "verdict": verdict}


def table(results: Mapping[str, Any]) -> str:
    """The results as a Markdown table, then how to read it."""
    seeds, start = results["seeds"], results["start"]
    lines = [
        "| objective | greedy | greedy − rft [problems] [seeds] | | mean sample | sample − rft [problems] [seeds] | "
        "| chosen, nats | rejected, nats | tokens | updates | CPU s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        f"| start | {np.mean(start['greedy']):.3f} | | | {np.mean(start['sampled']):.3f} | | | | | | | |",
    ]
    for name, arm in results["arms"].items():
        cells = [name]
        for measure in ("greedy", "sampled"):
            gaps = arm["difference_to_rft"]
            cells += [f"{np.mean(arm[measure]):.3f}", *(_gap(gaps[measure]) if gaps else ("", "control"))]
        cells += [f"{np.mean(arm[f'{kind}_displacement']):+.2f}" for kind in ("chosen", "rejected")]
        cells += [f"{np.mean(arm['tokens']):,.0f}", f"{np.mean(arm['updates']):.0f}"]
        cells.append(f"{np.mean(arm['cpu_seconds']):.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    problems = results["problems"]
    lines.append(
        f"\n{len(seeds)} seeds, one round of {problems['train']} training problems, {problems['test']} test problems "
        "each; means over seeds; intervals at 95 %, over problems and over seeds. Chosen, rejected: nats above the "
        "start's log-probability, over the same pairs for every arm."
    )
    return "\n".join(lines)


def _gap(gap: Mapping[str, Any]) -> tuple[str, str]:
    intervals = [gap[kind] for kind in ("over_problems", "over_seeds") if gap[kind]]
    spread = " ".join(f"[{one['low']:+.3f}, {one['high']:+.3f}]" for one in intervals)
    return f"{gap['mean']:+.4f} {spread}", str(gap["verdict"])


def _evaluation(folder: Path, seed: int, name: str) -> Evaluation:
    return Evaluation.load(folder / f"seed-{seed}" / "arms" / name.replace(" ", "_") / "evaluation.parquet")


def greedy(evaluation: Evaluation) -> Floats:
    """[problems] 1 where the greedy solution is right, else 0."""
    return np.array(evaluation.correct, dtype=np.float64)


def sampled(evaluation: Evaluation) -> Floats:
    """[problems] share of the samples that are right."""
    return np.array([np.mean(outcome.sample_correct) for outcome in evaluation.outcomes])


def main() -> None:
    """Run what is missing, seeds in parallel; print and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 … N-1")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--out", type=Path, default=Path("runs/losses"), help="folder of the arms")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time, each a process with one thread")
    parser.add_argument("--arms", help="separated by semicolons (default: all); rft is always among them")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    wanted = [name.strip() for name in arguments.arms.split(";")] if arguments.arms else list(ARMS)
    unknown = [name for name in wanted if name not in ARMS]
    if unknown:
        parser.error(f"--arms: no arm {unknown[0]!r} (there are: {'; '.join(ARMS)})")
    arms = ["rft", *(name for name in wanted if name != "rft")]
    if arguments.only is not None:
        run_seed(arguments.out / f"seed-{arguments.only}", arguments.only, arms)
        return

    def one(seed: int) -> None:
        command = [sys.executable, "-m", "benchmarks.losses", "--only", str(seed), "--out", str(arguments.out)]
        subprocess.run([*command, "--arms", ";".join(arms)], check=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(one, range(arguments.seeds)))
    results = collect(arguments.out, range(arguments.seeds), arms)
    print(table(results))
    if arguments.json:
        write_json(arguments.json, results)


if __name__ == "__main__":
    main()
