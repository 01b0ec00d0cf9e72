"""Search on many machines: Ray actors, each with its own engine, search a round's shards; Ray tasks read shards.

In: the address of a Ray cluster. Out: `stages.Executors`. Every machine must have this package, and must see the run
directory and the policy under the same path (shared storage). A shard's file appears by rename, as without Ray. If a
worker dies, Ray starts another, which continues the shard from its journal. With `schedule: synchronous` (a run's
default) a shard's bytes depend on its problems alone, so that the machine changes nothing if the machines compute alike
(set `engine.threads`). The actors end with the round's search, so that training has all memory. Training and evaluation
run where `mcts-dpo run` was started.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.progress import Progress
from mcts_dpo.data import Problem
from mcts_dpo.engines import EngineSettings, load_engine
from mcts_dpo.engines.base import Engine
from mcts_dpo.engines.registry import engine_kind
from mcts_dpo.engines.retry import EngineDiedError
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.stages import Executors, Result
from mcts_dpo.search import SearchSettings, policy_fingerprint
from mcts_dpo.search.shards import Shard, missing_shards, search_some, shards_of

RETRIES = 3
"""Times that a shard is searched again after its worker died, before the run fails."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage reports
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no warning about a variable that is not used here
    "RAY_worker_niceness": "0",  # the workers do the main work
}
"""Environment variables that are set before Ray is imported, unless they are set already."""
PATIENCE = 5.0
"""Seconds within which a server must answer at the address."""


@contextmanager
def ray_executors(address: str) -> Iterator[Executors]:
    """The executors of the Ray cluster at `address` while the block runs.

    address: "HOST:PORT" or "ray://HOST:PORT" of a running cluster; "auto": the one on this machine; "local": a new one
    that ends with the block; "local:N": likewise, with N workers of one thread.

    Raises InputError, before anything is written, if Ray is not installed or no Ray answers.
    """
    try:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        _bring_token()
        import ray
    except ImportError:
        raise InputError("--ray: Ray is not installed (accepted after: pip install 'mcts-dpo[ray]')") from None
    _connect(ray, address)
    try:
        yield Executors(search_by_actors, each_by_tasks)
    finally:
        ray.shutdown()


def _bring_token() -> None:
    """Let Ray send its token, if there is one. A started Ray (from 2.5x) requires it by default, and a client sends it
    only if `RAY_AUTH_MODE` is set. A Ray without tokens ignores it."""
    given = any(name in os.environ for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if given or (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _connect(ray: Any, address: str) -> None:
    accepted = "accepted: HOST:PORT of a running Ray, auto, or local[:WORKERS]"
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    local = re.fullmatch(r"local(?::([1-9]\d*))?", address)
    if local:
        ray.init(num_cpus=int(local.group(1)) if local.group(1) else None, include_dashboard=False, **quiet)
        return
    place = re.fullmatch(r"(?:ray://)?([^:/]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", address)
    if place is None and address != "auto":
        raise InputError(f"--ray {address}: not an address ({accepted})")
    try:
        if place is not None:
            _require_answer(place.group(1).strip("[]"), int(place.group(2)))
        ray.init(address=address, **quiet)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        # For a missing or wrong token, Ray reports that it failed to connect.
        token = "" if place is None else " (or it needs another token: ray get-auth-token)"
        raise InputError(f"--ray {address}: no Ray answers there{token} ({reason}; {accepted})") from None


def _require_answer(host: str, port: int) -> None:
    """Raise OSError unless an HTTP/2 server answers there, as every Ray (gRPC) does. Ray itself tries for minutes."""
    with socket.create_connection((host, port), PATIENCE) as connection:
        if os.environ.get("RAY_USE_TLS", "0") != "0":
            return  # it does not answer plain text
        # The client's preface and empty settings; the server's first frame must be its settings, of type 4 (RFC 9113).
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        frame = b""
        while len(frame) < 9 and (more := connection.recv(9 - len(frame))):
            frame += more
        if len(frame) < 9 or frame[3] != 4:
            raise OSError("the server there is not Ray")


def search_by_actors(
    problems: Sequence[Problem],
    policy: str,
    engine: Callable[[], Engine],
    folder: Path,
    config: RunConfig,
    settings: SearchSettings,
    progress: Progress,
) -> None:
    """Search a round's trees with actors of the cluster that this process is connected to. See `ShardSearch`.

    Raises InputError or EngineDiedError if a worker does, and InputError for a shard whose worker died every time.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    shards = shards_of(problems, folder.absolute(), config.shard_size)
    waiting = missing_shards(shards)
    done = len(problems) - sum(len(shard.problems) for shard in waiting)
    if not waiting:
        return
    folder.mkdir(parents=True, exist_ok=True)
    shared = str(Path(policy).absolute()) if Path(policy).exists() else policy
    work = (config.engine, config.prompt, settings, policy_fingerprint(policy))
    actors = _actors(ray, len(waiting), config.engine, shared)
    try:
        busy = {
            actor.search.remote(shard, *work): (actor, shard) for actor, shard in zip(actors, waiting, strict=False)
        }
        waiting = waiting[len(busy) :]
        while busy:
            (ready, *_), _ = ray.wait(list(busy), num_returns=1)
            actor, shard = busy.pop(ready)
            try:
                ray.get(ready)
            except RayTaskError as error:
                if isinstance(error.cause, InputError | EngineDiedError):
                    raise error.cause from None
                raise
            except RayActorError as error:
                reason = str(error).strip().splitlines()[0]
                raise InputError(
                    f"{shard.path}: its worker died {RETRIES + 1} times ({reason}); finished shards are kept; rerun "
                    "the same command to resume"
                ) from None
            done += len(shard.problems)
            progress("search", done, len(problems))
            if waiting:
                following = waiting.pop(0)
                busy[actor.search.remote(following, *work)] = (actor, following)
    finally:
        for actor in actors:
            ray.kill(actor)


def each_by_tasks(function: Callable[[Path], Result], shards: Iterable[Path], /) -> Iterator[Result]:
    """`function(shard)` of each shard, in order, each as a task on one core. See `stages.ShardMap`.

    Ray repeats a task whose worker died. Raises as the function.
    """
    import ray
    from ray.exceptions import RayTaskError

    task: Any = ray.remote(num_cpus=1)(_call)
    under_way = [task.remote(function, shard.absolute()) for shard in shards]
    while under_way:
        try:
            yield ray.get(under_way.pop(0))
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, InputError) else error from None


def _call(function: Callable[[Path], Result], shard: Path) -> Result:
    return function(shard)


def _actors(ray: Any, shards: int, settings: EngineSettings, policy: str) -> list[Any]:
    """Actors, as many as the cluster has room for and at most one per shard; each has a GPU if the cluster has any."""
    there = ray.cluster_resources()
    cpus = settings.threads or 1
    gpus = 1 if there.get("GPU", 0) >= 1 and engine_kind(settings.kind).local else 0
    room = there.get("GPU", 0) // gpus if gpus else there.get("CPU", 1) // cpus
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": RETRIES}
    actor = ray.remote(Searcher).options(**options)
    module = engine_kind(settings.kind).load.__module__
    return [actor.remote(policy, module) for _ in range(max(1, min(shards, int(room))))]


class Searcher:
    """One worker: an engine with a policy's weights, loaded for the first shard.

    module: the one that registers the engine; it is imported here.
    """

    def __init__(self, policy: str, module: str) -> None:
        import_module(module)
        self.policy = policy
        self.engine: Engine | None = None

    def search(
        self, shard: Shard, engine: EngineSettings, prompt: PromptSettings, settings: SearchSettings, fingerprint: str
    ) -> None:
        """Search one shard, or the part that its journal does not have, unless its file exists."""
        if self.engine is None:
            self.engine = load_engine(self.policy, settings=engine)
        for missing in missing_shards([shard]):
            total = len(missing.problems)
            search_some([missing], self.engine, total=total, prompt=prompt, settings=settings, policy=fingerprint)
