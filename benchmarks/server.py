"""Two hundred clients at once, half of whom leave in the middle, against the same work without a server.

    python -m benchmarks.server --json FILE [--model DIR | --tiny] [--config FILE] [--requests 200] [--budget TOKENS]

DIR: any causal language model (default: SmolLM2-135M-Instruct as the tests fetch it; `--tiny`: the built-in policy,
made on the spot, whose steps are so cheap that a server's own work weighs most, and which stands in where the default
cannot be fetched). FILE: a stage file with its prompt, search and engine settings. Two processes hold the model, one
thread each: `mcts-dpo serve --strategy mcts`, and one that gives the problems to the engine directly
(`strategies.solve`, all of them in one call). In each round both get the same problems, in turns: direct, the server
with clients that all stay, the server with clients half of whom leave after a random time. Compared are tokens that the
engine has computed, prompts and samples, per CPU second of the process; clients are a third process and not counted.
Writes `requests`, `lost` (clients who stayed and got no whole answer; requests that ended in any other way than with an
answer or without a client), `leaked` (whatever requests still hold in server and engine when all is over),
`share_of_direct` (with clients that leave) and `share_undisturbed`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from mcts_dpo.common.files import write_json
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import Problem
from mcts_dpo.engines import load_engine
from mcts_dpo.pipeline.config import StageConfig
from mcts_dpo.solve import solve_problems
from mcts_dpo.toy.policy import WarmStartSettings, toy_prompt, warm_start
from mcts_dpo.toy.world import make_problems
from tests.real_model import fetch

BARS = {"lost": 0, "leaked": 0, "share_of_direct": 0.9}
SLOTS = 64
WARM = 24
"""Requests of the loads that warm up."""
PATIENCE = (0.05, 0.9)
"""Clients that leave do so after this part of the time that the last load without them took, at least and at most."""


def direct(model: Path, config: Path, budget: int) -> None:
    """The process without a server: for each line, a file of questions, one line of what it took."""
    stage = load_settings(StageConfig, config)
    engine = load_engine(model, settings=stage.engine)
    search = stage.search.model_copy(update={"schedule": "asynchronous", "alive": 2 * SLOTS})
    for line in sys.stdin:
        questions = json.loads(Path(line.strip()).read_text())
        problems = [Problem(str(index), question) for index, question in enumerate(questions)]
        begun, before = time.process_time(), engine.usage.copy()
        solve_problems(problems, engine, [("mcts", budget)], prompt=stage.prompt, search=search)
        seconds = time.process_time() - begun
        sampled = engine.usage.sampled_tokens - before.sampled_tokens
        computed = sampled + engine.usage.prefill_tokens - before.prefill_tokens
        print(json.dumps({"cpu": seconds, "sampled": sampled, "computed": computed}), flush=True)


class Direct:
    """The other end of `direct`."""

    def __init__(self, model: Path, config: Path, budget: int, folder: Path) -> None:
        options = ("--direct", "--model", str(model), "--config", str(config), "--budget", str(budget))
        self._file = folder / "questions.json"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.server", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=one_thread(),
        )

    def run(self, questions: Sequence[str]) -> dict[str, float]:
        self._file.write_text(json.dumps(questions))
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._file}\n")
        self._process.stdin.flush()
        found: dict[str, float] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


class Server:
    """`mcts-dpo serve`, and two hundred clients."""

    def __init__(self, model: Path, config: Path, budget: int) -> None:
        options = ("--strategy", "mcts", "--budget", str(budget), "--name", "model", "--port", "0", "--queue", "100000")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mcts_dpo", "serve", "-m", str(model), "-c", str(config), *options],
            stdout=subprocess.PIPE,
            text=True,
            env=one_thread(),
        )
        assert self._process.stdout is not None
        address = re.search(r"http://\S+(?=/v1)", self._process.stdout.readline())
        assert address is not None
        self.url = address.group()

    def run(self, questions: Sequence[str], patience: Sequence[float | None]) -> dict[str, Any]:
        """A load: question i from a client that leaves after patience[i] seconds (None: stays)."""
        before = self._figures()
        begun = time.perf_counter()
        ended = asyncio.run(self._load(questions, patience))
        held = self._settled()
        after = self._figures()
        ended_so = {name: after[name] - before.get(name, 0.0) for name in after if "requests_total" in name}
        other = sum(
            count for name, count in ended_so.items() if not any(status in name for status in ('"200"', '"499"'))
        )
        stayed = [end for end in ended if end != "left"]
        return {
            "cpu": after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"],
            "sampled": after[SAMPLED] - before[SAMPLED],
            "computed": sum(after[name] - before[name] for name in (SAMPLED, PREFILL)),
            "seconds": time.perf_counter() - begun,
            "requests": len(questions),
            "left": len(questions) - len(stayed),
            "lost": sum(end != "answered" for end in stayed) + int(other),
            "leaked": int(held),
        }

    def close(self) -> int:
        self._process.terminate()
        return self._process.wait(60)

    async def _load(self, questions: Sequence[str], patience: Sequence[float | None]) -> list[str]:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        async with httpx.AsyncClient(base_url=self.url, limits=limits, timeout=3600) as client:
            asking = [
                self._ask(client, index, question, waits)
                for index, (question, waits) in enumerate(zip(questions, patience, strict=True))
            ]
            return list(await asyncio.gather(*asking))

    async def _ask(self, client: httpx.AsyncClient, index: int, question: str, patience: float | None) -> str:
        """ "answered", "left", or what went wrong. Every other client wants a stream."""
        stream = bool(index % 2)
        body = {"model": "model", "messages": [{"role": "user", "content": question}], "seed": index, "stream": stream}

        async def answered() -> str:
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                text = "".join([part async for part in answer.aiter_text()])
            whole = text.endswith("data: [DONE]\n\n") if stream else "finish_reason" in text
            return "answered" if answer.status_code == 200 and whole else f"{answer.status_code}: {text[-200:]}"

        try:
            return await asyncio.wait_for(answered(), patience)
        except TimeoutError:
            return "left"
        except httpx.HTTPError as error:
            return repr(error)

    def _figures(self) -> dict[str, float]:
        lines = httpx.get(f"{self.url}/metrics", timeout=60).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def _settled(self) -> float:
        """What is held once nothing changes any more: at once, or after ten seconds at most."""
        for _ in range(200):
            found = self._figures()
            held = sum(value for name, value in found.items() if name.startswith(HELD))
            if not held:
                break
            time.sleep(0.05)
        return held


SAMPLED = 'mcts_dpo_engine_tokens_total{kind="sampled"}'
PREFILL = 'mcts_dpo_engine_tokens_total{kind="prefill"}'
HELD = ("mcts_dpo_engine_held", "mcts_dpo_searches", "mcts_dpo_requests_in_flight")


def one_thread() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def real_policy(folder: Path) -> tuple[Path, Path]:
    """SmolLM2-135M-Instruct with the default prompt."""
    config = folder / "config.yaml"
    search = {"max_tokens": 96, "max_depth": 6}
    config.write_text(yaml.safe_dump({"search": search, "engine": {"slots": SLOTS, "threads": 1, "context": 1024}}))
    return fetch(Path(__file__).parents[1] / ".cache" / "models" / "smollm2"), config


def tiny_policy(folder: Path) -> tuple[Path, Path]:
    """The built-in policy as the tests have it, and its settings."""
    warm_start(folder / "policy", seed=0, settings=WarmStartSettings(demonstrations=1500, steps=500, events=(1,)))
    config = folder / "config.yaml"
    search = {"max_tokens": 64, "max_depth": 6, "temperature": 1.0}
    engine = {"slots": SLOTS, "threads": 1}
    config.write_text(
        yaml.safe_dump({"prompt": toy_prompt().model_dump(mode="json"), "search": search, "engine": engine})
    )
    return folder / "policy", config


def policy_of(a: argparse.Namespace, folder: Path) -> tuple[str, Path, Path]:
    """What is measured: its name, its directory, its stage file. Where SmolLM2 cannot be fetched, the built-in policy,
    and it says so."""
    name = "built-in" if a.tiny else "SmolLM2-135M-Instruct"
    if a.model:
        config = folder / "config.yaml"
        config.write_text(yaml.safe_dump({"engine": {"slots": SLOTS, "threads": 1}}))
        return a.model.name, a.model, a.config or config
    try:
        model, config = tiny_policy(folder) if a.tiny else real_policy(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        name = "built-in"
        print(f"SmolLM2 cannot be fetched ({error}); measured is the built-in policy, as with --tiny", file=sys.stderr)
        model, config = tiny_policy(folder)
    return name, model, a.config or config


def compare(a: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All rounds, and the figures that follow from them."""
    name, model, config = policy_of(a, folder)
    alone, server = Direct(model, config, a.budget, folder), Server(model, config, a.budget)
    chance = random.Random(0)
    rounds = []
    for turn in range(a.rounds + 1):  # the first, a small one, warms up and is not counted
        count = a.requests if turn else min(a.requests, WARM)
        # New questions for every load: none finds its prompts computed already.
        first, second = (
            [problem.question for problem in make_problems(count, seed=100 + 2 * turn + half, events=(2, 3))]
            for half in range(2)
        )
        found = {"direct": alone.run(first), "stayed": server.run(first, [None] * count)}
        low, high = (found["stayed"]["seconds"] * part for part in PATIENCE)
        patience = [chance.uniform(low, high) if chance.random() < 0.5 else None for _ in second]
        found |= {"left": server.run(second, patience), "direct again": alone.run(second)}
        rounds.append(found)
        print(json.dumps(found), file=sys.stderr)
    alone.close()
    code = server.close()
    kept = rounds[1:]

    def pace(*kinds: str) -> dict[str, float]:
        loads = [one[kind] for one in kept for kind in kinds]
        seconds = sum(load["cpu"] for load in loads)
        return {what: sum(load[what] for load in loads) / seconds for what in ("sampled", "computed")}

    paces = {"direct": pace("direct", "direct again"), "stayed": pace("stayed"), "left": pace("left")}
    loads = [one[kind] for one in rounds for kind in ("stayed", "left")]
    return {
        "model": name,
        "requests": a.requests,
        "lost": sum(load["lost"] for load in loads),
        "leaked": sum(load["leaked"] for load in loads),
        "left": sum(one["left"]["left"] for one in kept),
        "share_of_direct": paces["left"]["computed"] / paces["direct"]["computed"],
        "share_undisturbed": paces["stayed"]["computed"] / paces["direct"]["computed"],
        "tokens_per_cpu_second": paces,
        "exit_code": code,
        "budget": a.budget,
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--model", type=Path, help="a model's directory; default: SmolLM2-135M-Instruct")
    parser.add_argument("--tiny", action="store_true", help="the built-in policy")
    parser.add_argument("--config", type=Path, help="its stage file (prompt, search, engine)")
    parser.add_argument("--requests", type=int, default=200, help="clients at once")
    parser.add_argument(
        "--budget", type=int, help="generated tokens per request; default: 96, of the built-in policy 512"
    )
    parser.add_argument("--rounds", type=int, default=1, help="beside one that warms up")
    parser.add_argument("--direct", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    a.budget = a.budget or (512 if a.tiny else 96)
    if a.direct:
        direct(a.model, a.config, a.budget)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(a, Path(folder))
    paces = figures["tokens_per_cpu_second"]
    print(f"{figures['model']}, {figures['requests']} clients, budget {figures['budget']}\n")
    print("| load | computed tokens / CPU-s | share of direct | of them sampled |\n|---|---|---|---|")
    for kind, name in (("direct", "direct"), ("stayed", "server, all stay"), ("left", "server, half leave")):
        share = paces[kind]["computed"] / paces["direct"]["computed"]
        print(f"| {name} | {paces[kind]['computed']:,.0f} | {share:.3f} | {paces[kind]['sampled']:,.0f} |")
    for name, bar in BARS.items():
        met = figures[name] >= bar if name == "share_of_direct" else figures[name] <= bar
        print(f"{name}: {figures[name]:.3g} (bar: {bar:g}) {'met' if met else 'MISSED'}")
    if a.json:
        write_json(a.json, figures)


if __name__ == "__main__":
    main()
