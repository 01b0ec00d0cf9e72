"""What the search must show, in one table and one run: the engine's ceiling, public loops, kernels, memory.

    python -m benchmarks.search --model DIR --problems FILE --json FILE [--engine transformers] [--python PYTHON]

DIR: SmolLM2-135M-Instruct (any causal language model will do); FILE: problems, GSM8K for the figures in
results/search.md. Each part is a process of its own, one after the other, one thread, its own CPU seconds:
`benchmarks.search_engine` (the search, and the ceiling of its engine), `benchmarks.search_peers` (llm-reasoners' own
MCTS; a stand-in for MCTS-DPO's loop), `benchmarks.search_kernels` (selections and backups against a Python tree and
mctx; bytes per node; the curve from 1 to 4,096 trees), `benchmarks.search_driver` (the search on an engine that answers
at once). PYTHON is the interpreter of the parts, with `mcts-dpo[bench]`
installed; the default is the one that runs this. Writes `ceiling_share`, `bookkeeping_share`,
`speedup_vs_llm_reasoners`, `speedup_vs_mcts_dpo_loop`, `kernel_speedup_vs_python`, `kernel_speedup_vs_mctx`,
`driver_tokens_per_s`, `driver_expansions_per_s` and `bytes_per_node`, with all parts beside them; prints which bars
are met.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mcts_dpo.common.files import read_json, write_json

BARS = {
    "ceiling_share": 0.95,
    "bookkeeping_share": 0.02,
    "speedup_vs_mcts_dpo_loop": 15.0,
    "speedup_vs_llm_reasoners": 10.0,
    "kernel_speedup_vs_python": 20.0,
    "driver_tokens_per_s": 100_000.0,
    "driver_expansions_per_s": 1_000.0,
}
"""What each figure should at least be; bookkeeping at most."""


def part(python: str, module: str, *arguments: str | Path | int) -> dict[str, Any]:
    """Run one part as a process of its own, one thread, and return what it wrote."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "TOKENIZERS_PARALLELISM": "false"}
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "part.json"
        command = [python, "-m", f"benchmarks.{module}", *map(str, arguments), "--json", str(target)]
        subprocess.run(command, check=True, env=environment)
        found: dict[str, Any] = read_json(target)
        return found


def summarise(
    ours: dict[str, Any], peers: dict[str, dict[str, Any]], kernels: dict[str, Any], driver: dict[str, Any]
) -> dict[str, Any]:
    """The figures that the bars are about."""
    pace = ours["expansions"] / ours["seconds"]
    speedups = {name: pace / (peer["expansions"] / peer["seconds"]) for name, peer in peers.items()}
    return {
        "ceiling_share": ours["ceiling_share"],
        "bookkeeping_share": ours["bookkeeping_share"],
        "speedup_vs_llm_reasoners": speedups["llm-reasoners"],
        "speedup_vs_mcts_dpo_loop": speedups["mcts-dpo-loop"],
        "kernel_speedup_vs_python": kernels["kernel_speedup_vs_python"],
        "kernel_speedup_vs_mctx": kernels["kernel_speedup_vs_mctx"],
        "driver_tokens_per_s": driver["driver_tokens_per_s"],
        "driver_expansions_per_s": driver["driver_expansions_per_s"],
        "bytes_per_node": kernels["bytes_per_node"],
    }


def tables(figures: dict[str, Any], parts: dict[str, Any]) -> str:
    """Markdown: the loops, the kernels, the curve, and the bars."""
    ours, kernels = parts["search"], parts["kernels"]
    lines = ["| loop | expansions / CPU-s | tokens per expansion | generated tokens / CPU-s | share of the ceiling |"]
    lines += ["|---|---|---|---|---|"]
    for loop in (ours, *parts["peers"].values()):
        e, t, s = loop["expansions"], loop["tokens"], loop["seconds"]
        share = f"{loop['ceiling_share']:.3f}" if "ceiling_share" in loop else ""
        lines.append(f"| {loop['name']} | {e / s:.3f} | {t / e:.0f} | {t / s:.1f} | {share} |")
    kinds = {"selection": "selections", "backup": "backups, running means", "backup_paper": "backups, the paper's rule"}
    heading = f"{kernels['trees']:,} trees × {kernels['nodes_per_tree']} nodes, per second"
    lines += ["", f"| {heading} | {' | '.join(kinds.values())} |", "|---|---|---|---|"]
    for name, seconds in kernels["seconds_per"].items():
        paces = [f"{1 / seconds[kind]:,.0f}" if kind in seconds else "" for kind in kinds]
        lines.append(f"| {name} | {' | '.join(paces)} |")
    lines += ["", "| trees | µs per selection | per backup, running means | per backup, the paper's rule |"]
    lines += ["|---|---|---|---|"]
    for trees, seconds in sorted(kernels["curve"].items(), key=lambda item: int(item[0])):
        lines.append(f"| {int(trees):,} | {' | '.join(f'{1e6 * seconds[kind]:.2f}' for kind in kinds)} |")
    lines += ["", "| figure | value | bar | met |", "|---|---|---|---|"]
    for name, value in figures.items():
        bar = BARS.get(name)
        most = name == "bookkeeping_share"
        met = "" if bar is None else "yes" if (value <= bar if most else value >= bar) else "**no**"
        shown = "" if bar is None else f"{'≤' if most else '≥'} {bar:,g}"
        figure = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
        lines.append(f"| {name} | {figure} | {shown} | {met} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--problems", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--engine", default="transformers", help="of the search: transformers, vllm")
    parser.add_argument("--count", type=int, default=64, help="problems searched, all in flight together")
    parser.add_argument("--slots", type=int, default=32, help="sequences that the engine runs together")
    parser.add_argument("--expansions", type=int, default=12, help="of each peer")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the parts")
    a = parser.parse_args()
    work = ("--model", a.model, "--problems", a.problems)
    kernels, driver = part(a.python, "search_kernels"), part(a.python, "search_driver")
    peers = {
        name: part(a.python, "search_peers", name, *work, "--expansions", a.expansions)
        for name in ("llm-reasoners", "mcts-dpo-loop")
    }
    ours = part(a.python, "search_engine", *work, "--engine", a.engine, "--count", a.count, "--slots", a.slots)
    figures = summarise(ours, peers, kernels, driver)
    parts = {"search": ours, "peers": peers, "kernels": kernels, "driver": driver}
    print(tables(figures, parts))
    if a.json:
        write_json(a.json, {**figures, **parts})


if __name__ == "__main__":
    main()
