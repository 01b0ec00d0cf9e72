"""A run whose shards are searched by Ray's workers, one of which is killed: the same bytes as without Ray."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from mcts_dpo.cli.app import main
from mcts_dpo.common.settings import dump_settings
from mcts_dpo.integrations import ray
from mcts_dpo.pipeline.rounds import run
from tests.conftest import ToyWorld
from tests.pipeline.test_rounds import fingerprints

FIGURES = {"accuracy.png", "training.png", "report.html"}  # the command's, not the loop's


def searchers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The Ray workers of a command that hold a shard's journal open at this moment."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if any(file.path.endswith(".journal") for file in child.open_files()):
                found.append(child)
        except psutil.Error:  # gone meanwhile
            continue
    return found


def test_a_worker_killed_in_the_middle_of_a_shard_changes_no_byte(toy_world: ToyWorld, tmp_path: Path) -> None:
    config = toy_world.config.model_copy(update={"rounds": 1, "baseline": False, "shard_size": 5})
    run(config, tmp_path / "alone")
    (tmp_path / "run.yaml").write_text(dump_settings(config), encoding="utf-8")
    arguments = ["run", "--config", tmp_path / "run.yaml", "--out", tmp_path / "ray", "--ray", "local:2"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "mcts_dpo", *map(str, arguments)], stdout=said, stderr=said, text=True
        )
        try:
            deadline = time.monotonic() + 400
            busy: list[psutil.Process] = []
            while not busy:
                assert process.poll() is None, (tmp_path / "said").read_text()
                assert time.monotonic() < deadline, (tmp_path / "said").read_text()
                busy = searchers(process)
                time.sleep(0.002)
            (victim, *_) = busy
            (shard,) = [Path(file.path) for file in victim.open_files() if file.path.endswith(".journal")]
            os.kill(victim.pid, signal.SIGKILL)
            assert not shard.with_suffix(".parquet").exists(), "it was in the middle of it"
            assert process.wait(400) == 0, (tmp_path / "said").read_text()
        finally:
            if process.poll() is None:
                for left in [*psutil.Process(process.pid).children(recursive=True), process]:
                    left.kill()
    assert not psutil.pid_exists(victim.pid)
    found = {name: digest for name, digest in fingerprints(tmp_path / "ray").items() if name not in FIGURES}
    assert found == fingerprints(tmp_path / "alone"), "and no journal is left"
    assert len(list((tmp_path / "ray" / "round-000" / "trees").glob("*.parquet"))) == 4


BY_HAND = """
import sys
from operator import attrgetter
from pathlib import Path
from mcts_dpo.integrations.ray import ray_executors

with ray_executors(sys.argv[1]) as workers:
    print(*workers.each(attrgetter("name"), [Path("one"), Path("two")]))
"""


def test_a_ray_that_was_started_by_itself_and_asks_for_a_token(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"HOME": str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    command = Path(sys.executable).with_name("ray")
    subprocess.run([command, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    options = ["--head", "--block", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"]
    with TemporaryDirectory(prefix="ray") as short, (tmp_path / "said").open("w") as said:
        options += ["--node-ip-address=127.0.0.1", f"--temp-dir={short}"]  # a socket's path is 107 bytes at most
        head = subprocess.Popen([command, "start", *options], env=environment, stdout=said, stderr=said)
        try:
            deadline = time.monotonic() + 200
            while "Ray runtime started" not in (tmp_path / "said").read_text():
                assert head.poll() is None, (tmp_path / "said").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
            asked = [sys.executable, "-c", BY_HAND, f"127.0.0.1:{port}"]
            done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=200, check=False)
            assert done.stdout == "one two\n", done.stderr + (tmp_path / "said").read_text()
        finally:
            if head.poll() is None:
                for left in [*psutil.Process(head.pid).children(recursive=True), head]:
                    left.kill()
                head.wait(60)


class Web(BaseHTTPRequestHandler):
    """Answers in HTTP/1, and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Ports at which something else than a Ray listens: one says nothing, one speaks HTTP/1."""
    monkeypatch.setattr(ray, "PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent, HTTPServer(("127.0.0.1", 0), Web) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield {"SILENT": silent.getsockname()[1], "WEB": web.server_port}
        web.shutdown()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", "host:99999", "127.0.0.1:SILENT", "127.0.0.1:WEB"],
)
def test_an_address_without_a_ray_is_one_line_and_writes_nothing(
    address: str,
    listeners: dict[str, int],
    toy_world: ToyWorld,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run.yaml").write_text(dump_settings(toy_world.config), encoding="utf-8")
    for name, port in listeners.items():
        address = address.replace(name, str(port))
    arguments = ["run", "--config", tmp_path / "run.yaml", "--out", tmp_path / "out", "--ray", address]
    monkeypatch.setattr(sys, "argv", ["mcts-dpo", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"mcts-dpo: --ray {address}: ")
    assert "accepted: HOST:PORT of a running Ray, auto, or local[:WORKERS]" in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]
