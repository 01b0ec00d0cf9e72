"""Who can tell a sound step from a lucky one, and what is that worth? Judges on the built-in long-horizon world.

    python -m benchmarks.judges --json FILE [--work DIR] [--seeds 5] [--problems 100] [--budget 1300]

Every seed has a policy of its own with habits (one sample in ten is right), and that policy after a judge school. Its
judges: nobody; its own self-evaluation, untaught and taught; a process head trained on one round of the policy's trees;
a simulated judge with given error rates; the oracle, which has the truth of every line. Two questions:

1. How well does a judge know the step? All judges score every step of the same held-out samples: AUC over final
   solutions, AUC over steps given that everything before is right, false alarms and misses at first errors.
2. What does it buy? Strategies at equal tokens per problem, questions to the policy counted: right solutions per 1,000
   tokens, problems with a solution whose every line is right, accuracy of the answer.

Everything is kept under DIR, part by part, so that a second call continues. Prints Markdown tables. Intervals are t
intervals over seeds. CPU seconds are those of this process, with one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.judges_packing import process_speedup
from mcts_dpo.common.files import digest, read_json, write_json
from mcts_dpo.common.statistics import Estimate, mean_t
from mcts_dpo.data import Problem
from mcts_dpo.engines import Engine, EngineSettings, load_engine
from mcts_dpo.engines.coroutine import Coroutine
from mcts_dpo.evaluation.judges import JudgedSolution, judge_metrics
from mcts_dpo.preferences.steps import extract_steps
from mcts_dpo.rewards import Reward, RewardContext, RewardSettings, pure, register_reward
from mcts_dpo.search import Forest, SearchSettings, search_problems
from mcts_dpo.search.runner import run
from mcts_dpo.solve import Solution, Strategy, StrategySettings, solve_problems
from mcts_dpo.solve.question import Question, make_question
from mcts_dpo.solve.strategies.sampling import draw
from mcts_dpo.toy import oracle  # noqa: F401  registers the reward
from mcts_dpo.toy.horizon import SOLUTION_TOKENS, horizon_problems, lines_right, truly_right
from mcts_dpo.toy.policy import horizon_policy, toy_prompt, warm_start
from mcts_dpo.toy.school import JudgeSchoolSettings, judge_school
from mcts_dpo.training import TrainingSettings, train_process_reward
from verifiers import verify

PolicyName = Literal["untaught", "taught"]
JUDGED_PROBLEMS, TREE_PROBLEMS = 150, 300
SAMPLES = 500
"""Tokens of samples per problem that the judges are measured on."""
SCHOOL = JudgeSchoolSettings()
THRESHOLD = 0.5
FIGURES = ("auc_final", "auc_conditional", "auc_same_depth", "false_alarm", "miss", "error_accuracy", "f1", "brier")
ARMS: dict[str, tuple[PolicyName, str, tuple[Strategy, ...]]] = {
    "independent samples": ("untaught", "nobody", ("majority", "beam", "mcts")),
    "untaught self-evaluation": ("untaught", "self", ("best-of-n", "weighted", "beam", "mcts")),
    "process head": ("untaught", "process", ("best-of-n", "weighted", "beam", "mcts")),
    "simulated judge": ("untaught", "simulated", ("best-of-n", "weighted", "beam", "mcts")),
    "oracle": ("untaught", "oracle", ("best-of-n", "weighted", "beam", "mcts")),
    "independent samples, taught policy": ("taught", "nobody", ("majority",)),
    "taught self-evaluation": ("taught", "self", ("best-of-n", "weighted", "beam", "mcts")),
}
TRAINED = ("process head", "taught self-evaluation")
HEAD_TRAINING = TrainingSettings.model_validate(
    {
        "process_reward": {"target": "first_error", "trunk": "trained"},
        "optimiser": {"lr": 2e-3, "schedule": "cosine"},
        "data": {"batch_size": 32, "epochs": 12},
        "checkpoint": {"minutes": None},
        "dtype": "float32",
        "threads": 1,
        "trackers": (),
    }
)
PLAIN = {"untaught": "independent samples", "taught": "independent samples, taught policy"}
SEARCH = SearchSettings(
    expand="step",
    allocation="fixed",
    temperature=0.8,
    max_tokens=SOLUTION_TOKENS,
    max_step_tokens=32,
    max_depth=20,
)
LENGTH = 100
"""Tokens of a typical solution."""


class SilentSettings(RewardSettings):
    """A judge that says the same of every path: a search without a judge."""

    kind: Literal["silent"] = "silent"


def _silent(settings: SilentSettings, context: RewardContext) -> Reward:
    return Reward(settings, pure(lambda paths: [0.5] * len(paths)))


register_reward(SilentSettings, _silent)


# --- what a seed is made of -------------------------------------------------------------------------------


def prepare(folder: Path, seed: int) -> None:
    """The policies of a seed, its trees and its process head."""
    untaught, taught, head, trees = (folder / name for name in ("untaught", "taught", "process", "trees.parquet"))
    if not untaught.exists():
        warm_start(untaught, seed=seed, settings=horizon_policy())
    if not taught.exists():
        judge_school(untaught, taught, settings=SCHOOL)
    if not trees.exists():
        problems = horizon_problems(TREE_PROBLEMS, 3 * seed + 1)
        settings = SearchSettings(simulations=8, children=4, max_tokens=SOLUTION_TOKENS, max_depth=20, seed=seed)
        search_problems(problems, engine_of(untaught), prompt=toy_prompt(), settings=settings).save(trees)
    if not head.exists():
        train_process_reward(untaught, extract_steps([Forest.load(trees)]), head, HEAD_TRAINING)


@cache
def engine_of(policy: Path) -> Engine:
    """The engine of a policy, loaded once."""
    return load_engine(policy, EngineSettings(slots=256, dtype="float32", threads=1))


def judge_of(name: str, folder: Path) -> list[dict[str, Any]]:
    """`search.rewards` with one judge that scores every step."""
    entries: dict[str, dict[str, Any]] = {
        "nobody": {"kind": "silent"},
        "self": {"kind": "self_evaluation"},
        "process": {"kind": "process", "model": str(folder / "process")},
        "simulated": {"kind": "oracle", "false_alarm": 0.02, "miss": 0.1},
        "worse simulated": {"kind": "oracle", "false_alarm": 0.05, "miss": 0.2},
        "oracle": {"kind": "oracle"},
    }
    return [{**entries[name], "at": "all"}]


def search_with(name: str, folder: Path, seed: int, **more: Any) -> SearchSettings:
    """The settings of a search with one judge. more: settings that differ from SEARCH."""
    given = {"allocation": SEARCH.allocation, "rewards": judge_of(name, folder), "seed": seed, **more}
    return SearchSettings.model_validate(SEARCH.model_dump(exclude_defaults=True) | given)


# --- how well a judge knows the step ----------------------------------------------------------------------


def judged(question: Question, texts: Sequence[str]) -> Coroutine[list[list[float]]]:
    """The scores of every prefix of some solutions, one list per solution."""
    (judge,) = question.judges
    found = []
    for text in texts:
        tokens = question.tokenizer(text, add_special_tokens=False)["input_ids"]
        ends = question.path(tokens, text, terminal=True, closed=False).ends
        lines = text.splitlines(keepends=True)
        paths = [
            question.path(tokens[:end], "".join(lines[:place]), terminal=place == len(ends), closed=False)
            for place, end in enumerate(ends, 1)
        ]
        found.append((yield from judge.scores(paths)))
    return found


@cache
def held_out(folder: Path, seed: int) -> tuple[list[Problem], list[list[str]]]:
    """Problems of their own, and whole solutions of each, sampled from the untaught policy."""
    problems, writer = horizon_problems(JUDGED_PROBLEMS, 3 * seed + 2), engine_of(folder / "untaught")
    silent = search_with("nobody", folder, seed)
    questions = [make_question(problem, writer, toy_prompt(), silent) for problem in problems]
    streams = run([draw(question, SAMPLES, 0) for question in questions], writer)
    assert not any(isinstance(stream, Exception) for stream in streams)
    return problems, [[one.text for one in stream if not one.cut] for stream in streams if isinstance(stream, list)]


def measure(folder: Path, seed: int, policy: PolicyName, judge: str) -> dict[str, Any]:
    """The metrics of one judge over held-out samples of the untaught policy."""
    problems, texts = held_out(folder, seed)
    truth = {problem.id: problem for problem in problems}
    settings, reader = search_with(judge, folder, seed), engine_of(folder / policy)
    asked = [make_question(problem, reader, toy_prompt(), settings) for problem in problems]
    began = time.process_time()
    scores = run([judged(question, some) for question, some in zip(asked, texts, strict=True)], reader)
    seconds = time.process_time() - began
    solutions = []
    for question, some, found in zip(asked, texts, scores, strict=True):
        assert not isinstance(found, Exception), found
        for text, step_scores in zip(some, found, strict=True):
            problem = truth[question.problem.id]
            right = lines_right(problem, text)[: len(step_scores)]
            solutions.append(JudgedSolution(step_scores, right, truly_right(problem, text), problem.id))
    found = judge_metrics(solutions, threshold=THRESHOLD)
    figures = {name: one.value for name in FIGURES if (one := getattr(found, name)) is not None}
    truly = float(np.mean([bool(one.final_right) for one in solutions]))
    return {**figures, "solutions": len(solutions), "truly right": truly, "cpu_seconds": seconds}


# --- what a judge buys --------------------------------------------------------------------------------------


def outcomes(problem: Problem, solution: Solution) -> dict[str, float]:
    """What one solved problem came to. Right solutions are counted as often as they were sampled."""
    if solution.forest is None:
        ends = [(one.text, one.answer, 1) for one in solution.finished if one.answer is not None]
    else:
        forest = solution.forest
        ends = [
            (forest.solution_text(node), forest.answers[node], int(forest.samples[node]))
            for node in np.flatnonzero(forest.terminal).tolist()
            if forest.answers[node] is not None
        ]
    number = sum(count for _, answer, count in ends if answer is not None and verify(problem.answer or "", answer))
    true = sum(count for text, _, count in ends if truly_right(problem, text))
    return {
        "tokens": solution.tokens,
        "right": number,
        "true": true,
        "covered": number > 0,
        "truly covered": true > 0,
        "answer": solution.answer is not None and bool(verify(problem.answer or "", solution.answer)),
    }


def solve(
    folder: Path, seed: int, policy: PolicyName, search: SearchSettings, strategy: Strategy, count: int, budget: int
) -> dict[str, Any]:
    """One strategy over the test problems of a seed. search: with one judge (see `search_with`)."""
    problems = horizon_problems(count, 3 * seed + 3)
    began = time.process_time()
    found = solve_problems(
        problems,
        engine_of(folder / policy),
        [(strategy, budget)],
        prompt=toy_prompt(),
        search=search,
        settings=StrategySettings(solution_tokens=LENGTH),
    )
    seconds = time.process_time() - began
    rows = [outcomes(problem, one) for problem, one in zip(problems, found[strategy, budget], strict=True)]
    totals = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    per_1000 = {f"{name} per 1,000 tokens": 1000 * totals[name] / totals["tokens"] for name in ("right", "true")}
    return {**totals, **per_1000, "cpu_seconds": seconds}


# --- all parts ----------------------------------------------------------------------------------------------


def part(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result in `file`, which is made first if it is not there."""
    if not file.exists():
        write_json(file, make())
    found: dict[str, Any] = read_json(file)
    return found


JUDGES: dict[str, tuple[PolicyName, str]] = {
    "untaught self-evaluation": ("untaught", "self"),
    "taught self-evaluation": ("taught", "self"),
    "process head": ("untaught", "process"),
    "simulated judge": ("untaught", "simulated"),
}


def one_seed(work: Path, seed: int, count: int, budget: int) -> dict[str, Any]:
    """All results of one seed."""
    folder = work / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    prepare(folder, seed)
    cells = folder / digest([count, budget, JUDGED_PROBLEMS, SAMPLES, THRESHOLD])[:12]
    cells.mkdir(exist_ok=True)
    judges = {
        name: part(cells / f"judge-{name}.json", partial(measure, folder, seed, policy, judge))
        for name, (policy, judge) in JUDGES.items()
    }
    arms = {
        f"{arm}, {strategy}": part(
            cells / f"{arm}-{strategy}.json",
            partial(solve, folder, seed, policy, search_with(judge, folder, seed), strategy, count, budget),
        )
        for arm, (policy, judge, strategies) in ARMS.items()
        for strategy in strategies
    }
    return {"judges": judges, "arms": arms}


def over_seeds(found: Sequence[Mapping[str, Any]], group: str, name: str, figure: str) -> Estimate:
    """The mean and its interval of one figure."""
    return mean_t([float(one[group][name][figure]) for one in found])


def gains(found: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    """Accuracy of every strategy with a trained judge minus that of majority with the same policy, paired by seed."""
    return {
        f"{arm}, {strategy}": mean_t(
            [
                one["arms"][f"{arm}, {strategy}"]["answer"] - one["arms"][f"{PLAIN[ARMS[arm][0]]}, majority"]["answer"]
                for one in found
            ]
        )
        for arm in TRAINED
        for strategy in ARMS[arm][2]
    }


def summary(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys of the benchmark."""
    gained = gains(found)
    best = max(gained, key=lambda name: gained[name].value)
    keys = {
        "auc_self": over_seeds(found, "judges", "untaught self-evaluation", "auc_conditional"),
        "auc_taught": over_seeds(found, "judges", "taught self-evaluation", "auc_conditional"),
        "auc_process": over_seeds(found, "judges", "process head", "auc_conditional"),
        "solve_gain_taught": gained[best],
        "false_alarm": over_seeds(found, "judges", "taught self-evaluation", "false_alarm"),
        "miss": over_seeds(found, "judges", "taught self-evaluation", "miss"),
    }
    values = {name: one.value for name, one in keys.items()}
    intervals = {f"{name}_interval": [one.low, one.high] for name, one in keys.items()}
    return {**values, **intervals, "solve_gain_taught_arm": best}


def tables(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: the judges, then what they buy."""

    def cell(group: str, name: str, figure: str) -> str:
        one = over_seeds(found, group, name, figure)
        return f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"

    lines = [f"| judge | {' | '.join(FIGURES)} |", "|---" * (len(FIGURES) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cell('judges', name, figure) for figure in FIGURES)} |" for name in JUDGES]
    figures = ("answer", "truly covered", "covered", "true per 1,000 tokens", "right per 1,000 tokens")
    heading = "answer right | a truly right solution | a right number | truly right per 1,000 tokens | right per 1,000"
    lines += ["", f"| judge | strategy | {heading} | tokens | CPU-s |", "|---" * (len(figures) + 4) + "|"]
    for arm, (_, _, strategies) in ARMS.items():
        for strategy in strategies:
            name = f"{arm}, {strategy}"
            cells = [cell("arms", name, figure) for figure in figures]
            tokens, seconds = (over_seeds(found, "arms", name, figure).value for figure in ("tokens", "cpu_seconds"))
            lines.append(f"| {arm} | {strategy} | {' | '.join(cells)} | {tokens:,.0f} | {seconds:.0f} |")
    return "\n".join(lines)


@contextmanager
def command(
    about: str, default: str, *, seeds: int = 5, budget: int = 1300
) -> Iterator[tuple[argparse.Namespace, Path]]:
    """The command line of a comparison over seeds, and the folder that keeps its parts.

    about: the module's text. default: how a folder is called that is thrown away. seeds, budget: the defaults.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="keeps every part; a second call continues (default: thrown away)")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--budget", type=int, default=budget, help="generated tokens per problem")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with ExitStack() as stack:
        yield arguments, arguments.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=default)))


def main() -> None:
    """See the module."""
    with command(str(__doc__), "judges-") as (arguments, work):
        found = [one_seed(work, seed, arguments.problems, arguments.budget) for seed in range(arguments.seeds)]
        speed = part(work / "packing.json", lambda: process_speedup(0))
    result = {**summary(found), **speed}
    write_json(arguments.json, {**result, "seeds": found})
    print(tables(found))
    print(result)


if __name__ == "__main__":
    main()
