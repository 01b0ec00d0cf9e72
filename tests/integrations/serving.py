"""Servers for the tests: a real process, as a user starts it, or the same server in a thread of the test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from openai import OpenAI

from mcts_dpo.engines import Engine
from mcts_dpo.integrations.server.running import _bound, _Server, make_service
from mcts_dpo.integrations.server.settings import ServerSettings
from mcts_dpo.pipeline.config import StageConfig
from mcts_dpo.search import SearchSettings
from mcts_dpo.toy.policy import toy_prompt

ROOT = Path(__file__).parents[2]
LONG: dict[str, Any] = {"n": 64, "temperature": 2.0, "extra_body": {"budget": 800}}
"""What keeps the toy policy busy for many seconds."""


def stage(**search: Any) -> StageConfig:
    """The sections that suit the toy policy."""
    settings = SearchSettings(max_tokens=64, max_depth=6, temperature=1.0).model_copy(update=search)
    return StageConfig(prompt=toy_prompt(), search=settings)


@dataclass(frozen=True)
class Served:
    """A server that runs. process: None if it is a thread."""

    url: str
    process: subprocess.Popen[str] | None = None
    service: Any = None

    def client(self, **options: Any) -> OpenAI:
        return OpenAI(**({"base_url": f"{self.url}/v1", "max_retries": 0, "api_key": "none"} | options))

    def metrics(self, key: str | None = None) -> dict[str, float]:
        """Every figure of /metrics by its name and labels."""
        request = urllib.request.Request(f"{self.url}/metrics")
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        with urllib.request.urlopen(request, timeout=600) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")}

    def held(self) -> dict[str, float]:
        """What requests hold in the server and the engine; all 0 when none is in flight."""
        found = self.metrics()
        return {
            name: value
            for name, value in found.items()
            if name.startswith(("mcts_dpo_engine_held", "mcts_dpo_searches", "mcts_dpo_requests_in_flight"))
        }

    def wait_until_idle(self, seconds: float = 900.0) -> None:
        """Return once nothing is held any more; fail if something still is after so many seconds."""
        deadline = time.monotonic() + seconds
        while any((held := self.held()).values()):
            assert time.monotonic() < deadline, held
            time.sleep(0.05)

    def wait_until(self, name: str, value: float, seconds: float = 900.0) -> None:
        """Return once a figure is at least `value`."""
        deadline = time.monotonic() + seconds
        while self.metrics().get(name, 0.0) < value:
            assert time.monotonic() < deadline, self.metrics()
            time.sleep(0.02)


def command(policy: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "mcts_dpo", "serve", "-m", str(policy), *arguments]


@contextmanager
def process(policy: Path, folder: Path, *arguments: str) -> Iterator[Served]:
    """`mcts-dpo serve` with the toy policy on a free port."""
    config = folder / "serve.yaml"
    sections = stage().model_dump(mode="json", include={"prompt", "search"}) | {"engine": {"threads": 1}}
    config.write_text(yaml.safe_dump(sections), encoding="utf-8")
    options = ("--config", str(config), "--name", "toy", "--port", "0", *arguments)
    with running(command(policy, *options), folder) as served:
        yield served


@contextmanager
def running(line: list[str], folder: Path) -> Iterator[Served]:
    """A server's command line, run in `folder` until the block ends; what it complains of is in the file `log`."""
    with (folder / "log").open("w") as log:
        started = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
    try:
        assert started.stdout is not None
        address = re.search(r"http://\S+(?=/v1)", started.stdout.readline())
        assert address, (folder / "log").read_text()
        yield Served(address.group(), started)
    finally:
        started.terminate()
        started.wait(timeout=600)
        if started.stdout is not None:
            started.stdout.close()


@contextmanager
def thread(engine: Engine, settings: ServerSettings, config: StageConfig) -> Iterator[Served]:
    """The same server over an engine of this process, in a thread."""
    service = make_service("toy", engine, settings, config)
    started = threading.Event()
    server = _Server(service, settings.model_copy(update={"grace": 1.0}), started.set)
    with _bound("127.0.0.1", 0) as listening:
        serving = threading.Thread(target=server.run, args=([listening],))
        serving.start()
        assert started.wait(600)
        try:
            yield Served(f"http://127.0.0.1:{listening.getsockname()[1]}", service=service)
        finally:
            service.thread.drain(0.0)
            server.should_exit = True
            serving.join(600)
            assert not serving.is_alive()
