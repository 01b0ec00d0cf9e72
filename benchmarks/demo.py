"""Does `mcts-dpo solve` answer the demonstration's problems better than its policies do greedily, at 256 tokens?

    python -m benchmarks.demo --json FILE [--run runs/demo] [--problems 300] [--budget 256] [--temperature 0.8]

Runs the demonstration in the folder `--run`, or continues it. Then the start and the policy of each round answer the
first test problems: greedily, and by the strategies that share a budget (questions of the judge counted). `mcts` is
what `mcts-dpo solve` does. Prints a Markdown table and writes the keys `solve_gain_start` and `solve_gain_last`:
accuracy of `mcts` minus greedy accuracy, paired, with 95 % intervals.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mcts_dpo.common.files import write_json
from mcts_dpo.common.statistics import compare_paired
from mcts_dpo.data import load_problems
from mcts_dpo.engines import load_engine
from mcts_dpo.evaluation import evaluate_strategies
from mcts_dpo.solve import Strategy
from mcts_dpo.toy.demo import ROUNDS, demo, demo_config

STRATEGIES: tuple[Strategy, ...] = ("greedy", "majority", "weighted", "mcts")


def measure(run: Path, policy: Path, problems: int, budget: int, temperature: float = 0.8) -> dict[str, Any]:
    """Accuracy by strategy, and what search adds to the greedy answer."""
    config = demo_config(run / "start", run / "problems", seed=0)
    engine = load_engine(policy, settings=config.engine)
    chosen = load_problems(config.test)[:problems]
    search = config.search.model_copy(update={"temperature": temperature})
    found = evaluate_strategies(chosen, engine, STRATEGIES, [budget], prompt=config.prompt, search=search)
    by_name = {one.strategy: one for one in found.results}
    gain = compare_paired(by_name["greedy"].correct, by_name["mcts"].correct).as_dict()
    return {"accuracy": {name: one.accuracy.value for name, one in by_name.items()}, "gain": gain}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=Path("runs/demo"))
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--budget", type=int, default=256)
    parser.add_argument("--temperature", type=float, default=0.8, help="of the samples; 0.8 is that of the training")
    arguments = parser.parse_args()
    demo(arguments.run)
    policies = {"start": arguments.run / "start"}
    policies |= {f"round {n + 1}": arguments.run / f"round-{n:03d}" / "policy" for n in range(ROUNDS)}
    found = {
        name: measure(arguments.run, policy, arguments.problems, arguments.budget, arguments.temperature)
        for name, policy in policies.items()
    }
    first, *_, last = found.values()
    result = {"solve_gain_start": first["gain"], "solve_gain_last": last["gain"], "policies": found}
    write_json(arguments.json, result)
    print(f"| policy | {' | '.join(STRATEGIES)} | mcts − greedy |")
    print("|---" * (len(STRATEGIES) + 2) + "|")
    for name, one in found.items():
        cells = " | ".join(f"{one['accuracy'][strategy]:.3f}" for strategy in STRATEGIES)
        gain = one["gain"]["difference"]
        print(f"| {name} | {cells} | {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] |")


if __name__ == "__main__":
    main()
