"""A search that dies loses nothing that the engine gave: what is resumed equals what was never disturbed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.base import Completion, Engine, Request, Sample
from mcts_dpo.engines.coroutine import Call
from mcts_dpo.environments.tools import ToolsSettings
from mcts_dpo.environments.tools.lookup import LookupSettings
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import Forest, SearchSettings, kernels, search_problems, search_shards
from mcts_dpo.search.journal import Journal, differing, identity, policy_fingerprint
from mcts_dpo.search.mcts import admit
from mcts_dpo.search.runner import Runner
from mcts_dpo.search.state import begin
from tests.reference.engine import PIECES, AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT, assert_sound, every_rule
from tests.search.support import settings as any_settings
from tests.search.test_runner import MANY, ShuffledEngine, grow

WIDE = SearchSettings(resume="journal", simulations=8, children=3, max_tokens=24, max_step_tokens=8, max_depth=5)
JUDGED = WIDE.model_copy(update={"rewards": (OutcomeSettings(), SelfEvaluationSettings(weight=0.5, at="all"))})


class Killed(BaseException):
    """As SIGKILL, but within one process."""


class DyingEngine(ShuffledEngine):
    """Gives `life` completions and dies."""

    def __init__(self, order: int, seed: int, life: int) -> None:
        super().__init__(order, seed)
        self.life = life
        self.given: list[Completion] = []

    def poll(self, patience: float | None = None) -> list[Completion]:
        done = super().poll()[: self.life]
        self.life -= len(done)
        self.given += done
        if not done:
            raise Killed
        return done


def shards(engine: Engine, folder: Path, settings: SearchSettings, **options: object) -> list[Forest]:
    paths = search_shards(
        MANY,
        lambda: engine,
        folder,
        shard_size=3,
        prompt=PROMPT,
        settings=settings,
        **options,  # type: ignore[arg-type]
    )
    assert not list(folder.glob("*.journal"))
    return [Forest.load(path) for path in paths]


@hypothesis_settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    every_rule,
    st.integers(0, 1000),
    st.sampled_from(["synchronous", "asynchronous"]),
    st.lists(st.integers(0, 60), min_size=1, max_size=3),
)
def test_killed_anywhere_and_resumed_it_is_the_undisturbed_search(
    tmp_path_factory: pytest.TempPathFactory, settings: SearchSettings, seed: int, schedule: str, lives: list[int]
) -> None:
    settings = settings.model_copy(update={"schedule": schedule, "alive": 4})
    if schedule == "asynchronous":
        settings = settings.model_copy(update={"parallel_leaves": 1})
    folder = tmp_path_factory.mktemp("shards")
    undisturbed = tmp_path_factory.mktemp("whole")
    whole = shards(AutomatonEngine(seed), undisturbed, settings)
    for order, life in enumerate(lives):
        with suppress(Killed):
            shards(DyingEngine(order, seed, life), folder, settings)
    assert shards(ShuffledEngine(9, seed), folder, settings) == whole
    for left, right in zip(sorted(folder.glob("*")), sorted(undisturbed.glob("*")), strict=True):
        assert left.read_bytes() == right.read_bytes()


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_nothing_that_was_given_is_asked_for_again(schedule: str, tmp_path: Path) -> None:
    settings = JUDGED.model_copy(update={"schedule": schedule})
    undisturbed = AutomatonEngine(6)
    shards(undisturbed, tmp_path / "whole", settings)
    dying, last = DyingEngine(0, 6, 60), AutomatonEngine(6)
    with pytest.raises(Killed):
        shards(dying, tmp_path / "shards", settings)
    shards(last, tmp_path / "shards", settings)
    seeds = {request.id: request.seed for request in dying.requests if request.choices is None}
    sampled = {seeds[completion.id] for completion in dying.given if completion.samples}
    again = {request.seed for request in last.requests if request.choices is None}
    assert len(sampled) > 5
    assert not sampled & again
    assert sampled | again == {request.seed for request in undisturbed.requests if request.choices is None}


@hypothesis_settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(any_settings, st.integers(0, 1000), st.integers(0, 60))
def test_with_several_leaves_out_a_resumed_search_is_sound_and_complete(
    tmp_path_factory: pytest.TempPathFactory, settings: SearchSettings, seed: int, life: int
) -> None:
    settings = settings.model_copy(update={"schedule": "asynchronous", "alive": 9, "budget": None})
    folder = tmp_path_factory.mktemp("shards")
    with suppress(Killed):
        shards(DyingEngine(1, seed, life), folder, settings)
    for forest in shards(ShuffledEngine(2, seed), folder, settings):
        assert_sound(forest, settings)
        for tree in forest.trees:
            assert tree.status == "exhausted" or tree.simulations == settings.simulations


def test_replay_rebuilds_the_forest_row_by_row(tmp_path: Path) -> None:
    """Not only the trees: every row of the forest that was in memory, in the order in which it grew."""
    settings = JUDGED.model_copy(update={"schedule": "asynchronous", "parallel_leaves": 3, "alive": 9})
    forests = []
    for engine in (ShuffledEngine(5), DyingEngine(0, 6, 0)):
        state = begin(PROBLEMS, engine, PROMPT, settings, "train")
        journal = Journal(tmp_path / "journal", identity(settings, PROMPT, PROBLEMS, "train", ""))
        grow(engine, state, journal)
        journal.close()
        forests.append(state.forest)
    assert forests[0] == forests[1], "the second engine gave nothing: everything came from the journal"
    assert len(forests[0]) > 50


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_a_torn_tail_is_dropped(schedule: str, tmp_path: Path) -> None:
    settings = JUDGED.model_copy(update={"schedule": schedule})
    whole = shards(AutomatonEngine(6), tmp_path / "whole", settings)
    folder = tmp_path / "shards"
    with pytest.raises(Killed):
        shards(DyingEngine(0, 6, 40), folder, settings)
    journals = {path: path.read_bytes() for path in folder.glob("*.journal")}
    rng = random.Random(0)
    for _ in range(8):
        for path, data in journals.items():
            cut = rng.randrange(len(data))
            torn = data[:cut] + bytes(rng.randrange(256) for _ in range(rng.choice([0, 5, 40])))
            path.write_bytes(torn)
        for shard in folder.glob("*.parquet"):
            if shard.with_suffix(".journal") in journals:
                shard.unlink()
        assert shards(ShuffledEngine(1), folder, settings) == whole


def test_a_journal_of_another_search_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        shards(DyingEngine(0, 6, 10), tmp_path, WIDE, policy="a")
    other = WIDE.model_copy(update={"seed": 1})
    for settings, policy, what in (
        (other, "a", "search settings"),
        (WIDE, "b", "policy"),
        (other, "b", "search settings, policy"),
    ):
        with pytest.raises(
            InputError, match=rf"shard-0000.journal: the journal of another search \({what} differ\); give"
        ) as caught:
            shards(AutomatonEngine(6), tmp_path, settings, policy=policy)
        assert "\n" not in str(caught.value)
    shards(AutomatonEngine(6), tmp_path, WIDE, policy="a")


def test_a_file_of_the_environment_counts(tmp_path: Path) -> None:
    corpus = tmp_path / "facts.txt"
    tools = ToolsSettings(tools=(LookupSettings(corpus=corpus),))
    acting = WIDE.model_copy(update={"environment": tools})
    corpus.write_text("A dozen is twelve.")
    known = identity(acting, PROMPT, PROBLEMS, "train", "policy")
    corpus.write_text("A dozen is ten.")
    assert differing(known, identity(acting, PROMPT, PROBLEMS, "train", "policy")) == [f"tools at {corpus}"]


def test_every_weight_of_a_policy_counts(tmp_path: Path) -> None:
    """A change in the middle of a large file, of an adapter's base, of a name; an equal copy is the same policy."""
    base, adapter, copy = tmp_path / "base", tmp_path / "adapter", tmp_path / "copy"
    (base / "deep").mkdir(parents=True)
    adapter.mkdir()
    (base / "model.safetensors").write_bytes(bytes(1_000_000))
    (base / "deep" / "tokenizer.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    shutil.copytree(base, copy)
    known = {policy_fingerprint(str(base)), policy_fingerprint(str(adapter)), policy_fingerprint("org/name")}
    assert len(known) == 3
    assert policy_fingerprint(str(copy)) in known
    with (base / "model.safetensors").open("r+b") as handle:
        handle.seek(500_000)
        handle.write(b"!")
    changed = {policy_fingerprint(str(base)), policy_fingerprint(str(adapter))}
    assert len(changed | known) == 5
    (copy / "deep" / "tokenizer.json").rename(copy / "tokenizer.json")
    assert policy_fingerprint(str(copy)) not in changed | known
    (base / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "."}))
    assert policy_fingerprint(str(base)) not in changed | known, "an adapter of itself has an end"


def test_shards_of_another_search_are_refused_in_one_line(tmp_path: Path) -> None:
    for schedule in ("synchronous", "asynchronous"):
        folder, mine = tmp_path / schedule, WIDE.model_copy(update={"schedule": schedule})
        forests = shards(AutomatonEngine(6), folder, mine, policy="a")
        assert shards(DyingEngine(0, 6, 0), folder, mine, policy="a") == forests
        other = mine.model_copy(update={"children": 2})
        for settings, policy, what in ((other, "a", "search settings"), (mine, "b", "policy")):
            message = rf"shard-0000.parquet: trees of another search \({what} differ\); give another folder, or"
            with pytest.raises(InputError, match=message):
                shards(AutomatonEngine(6), folder, settings, policy=policy)
        with pytest.raises(InputError, match=r"trees of another search \(problems differ\)"):
            search_shards(
                MANY[1:], lambda: AutomatonEngine(6), folder, shard_size=3, prompt=PROMPT, settings=mine, policy="a"
            )
        forests[0].save(folder / "shard-0000.parquet")  # as an earlier version wrote it: it does not say whose it is
        assert shards(AutomatonEngine(6), folder, mine, policy="a") == forests


def test_a_file_that_is_no_journal_is_set_aside_and_one_of_a_later_format_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "shard-0000.journal"
    path.write_bytes(b"notes of mine, which are no journal")
    assert shards(AutomatonEngine(6), tmp_path, WIDE) == shards(AutomatonEngine(6), tmp_path / "whole", WIDE)
    aside = tmp_path / "shard-0000.journal.damaged"
    assert aside.read_bytes() == b"notes of mine, which are no journal"
    assert caplog.messages == [
        f"{path}: byte 0 on cannot be used (its beginning is not that of a journal); set aside as {aside}, "
        "and asked for again"
    ]
    (tmp_path / "shard-0000.parquet").unlink()
    path.write_bytes(framed([b'\x30\0\0\0{"kind":"journal","format":4,"owner":{}}        ']))
    with pytest.raises(InputError, match=r"a journal of format 4 \(accepted: 3\); delete it"):
        shards(AutomatonEngine(6), tmp_path, WIDE)


class Patient(ShuffledEngine):
    """One that a search which never ends would tire out."""

    polls = 0

    def poll(self, patience: float | None = None) -> list[Completion]:
        self.polls += 1
        assert self.polls < 3000, "a hang"
        return super().poll()


def payloads(data: bytes) -> list[bytes]:
    """What the records of a journal hold."""
    found, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        found.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return found


def framed(parts: list[bytes]) -> bytes:
    """Records of these payloads, with the right checksums."""
    data, checksum = b"", 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
        data += struct.pack("<II", len(part), checksum) + part
    return data


def mutated(data: bytes, other: bytes, how: str, rng: random.Random) -> bytes:
    """A journal in which something is not as it was written. other: a journal of another shard."""
    records, at = [], 0
    for part in payloads(data):
        records.append(data[at : at + 8 + len(part)])
        at += 8 + len(part)
    count = len(records)
    one = rng.randrange(1, count)
    if how == "duplicate":
        records.insert(rng.randrange(one + 1, count + 1), records[one])
    elif how == "repeat":
        records.insert(one, records[one])
    elif how == "swap":
        following = rng.randrange(1, count)
        records[one], records[following] = records[following], records[one]
    elif how == "drop":
        del records[rng.randrange(1, count - 1)]  # without its last, a journal is what an earlier kill leaves
    elif how == "begin":
        del records[0]
    elif how == "splice":
        foreign = payloads(other)[1:]
        at = sum(map(len, records[:one]))
        return data[:at] + framed(foreign[: rng.randrange(1, 5)]) + data[at:]
    elif how == "truncate":
        return data[: rng.randrange(len(data))]
    elif how == "flip":
        place = rng.randrange(len(data))
        return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    return b"".join(records)


MUTATIONS = ("duplicate", "repeat", "swap", "drop", "begin", "splice", "truncate", "flip")


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
@pytest.mark.parametrize("parallel", [1, 3])
def test_a_journal_that_is_not_as_it_was_written(
    schedule: str, parallel: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Repeated, lost, moved, foreign, cut and flipped records, the search ends, and equals one that nobody disturbed
    (with several leaves out and no schedule, it is sound). What is not used is said."""
    settings = JUDGED.model_copy(update={"schedule": schedule, "parallel_leaves": parallel, "alive": 9})
    whole = shards(AutomatonEngine(6), tmp_path / "whole", settings)
    killed, folder, rng = tmp_path / "killed", tmp_path / "shards", random.Random(schedule)
    with pytest.raises(Killed):
        shards(DyingEngine(0, 6, 200), killed, settings)
    path = max(killed.glob("*.journal"), key=lambda path: path.stat().st_size)
    parts = payloads(path.read_bytes())
    assert len(parts) > 10
    data = framed(parts)
    foreign = Journal(tmp_path / "foreign", {})
    foreign.record(0, 0, Request(0, (4,)), Completion(0, samples=(Sample((4,), "a", (-1.0,), "end"),)))
    foreign.record(0, 1, Call(len, ["b"]), [[1, "1", True]])
    foreign.close()
    used = 0
    for turn in range(2 * len(MUTATIONS)):
        how = MUTATIONS[turn % len(MUTATIONS)]
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(killed, folder)
        bad = mutated(data, (tmp_path / "foreign").read_bytes(), how, rng)
        (folder / path.name).write_bytes(bad)
        caplog.clear()
        engine = Patient(turn, 6)
        found = shards(engine, folder, settings)
        if schedule == "asynchronous" and parallel > 1:
            for forest in found:
                assert_sound(forest, settings)
        else:
            assert found == whole, how
        if how != "truncate" and bad != data:
            aside = (folder / path.name).with_suffix(".journal.damaged")
            assert len(caplog.messages) == 1, how
            assert caplog.messages[0].startswith(f"{folder / path.name}: ")
            assert aside.exists() == (", and asked for again" in caplog.messages[0])
        used += sum(request.choices is None for request in engine.requests)
    anew = Patient(0, 6)
    shards(anew, tmp_path / "anew", settings)
    assert used < 40 * sum(request.choices is None for request in anew.requests), "nothing of the journals was used"


def test_a_search_with_nothing_under_way_and_trees_that_are_not_done_is_an_error() -> None:
    state = begin(PROBLEMS, AutomatonEngine(6), PROMPT, WIDE, "train")
    kernels.select(state.forest, np.array([1]), np.array([1]), kernels.PUCT, 1.0)  # nobody will give it back
    runner: Runner[None] = Runner(AutomatonEngine(6), "synchronous")
    admit(runner, 0, state)
    with pytest.raises(RuntimeError, match="tree 1 has not ended, but it waits for no result"):
        runner.step()


@pytest.mark.parametrize("version", [1, 2])
def test_a_journal_of_an_older_format_is_refused_in_one_line(version: int, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        shards(DyingEngine(0, 6, 3), tmp_path, WIDE)
    path = next(tmp_path.glob("*.journal"))
    first = payloads(path.read_bytes())[0].replace(b'"format":3', f'"format":{version}'.encode())
    path.write_bytes(framed([first]))
    with pytest.raises(InputError, match=rf"a journal of format {version} \(accepted: 3\); delete it to search"):
        shards(AutomatonEngine(6), tmp_path, WIDE)


def test_two_searches_do_not_share_a_shard(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "shard-0000.journal", {})
    with pytest.raises(InputError, match="another process is searching this shard"):
        shards(AutomatonEngine(6), tmp_path, WIDE)
    journal.close()


def test_a_refused_request_is_remembered_as_refused(tmp_path: Path) -> None:
    class Refusing(DyingEngine):
        def __init__(self, life: int) -> None:
            super().__init__(0, 6, life)
            self._refused = PIECES.index("b")

    for schedule in ("synchronous", "asynchronous"):
        settings = JUDGED.model_copy(update={"schedule": schedule})
        whole = shards(Refusing(10_000), tmp_path / schedule / "whole", settings)
        with pytest.raises(Killed):
            shards(Refusing(12), tmp_path / schedule / "shards", settings)
        assert shards(Refusing(10_000), tmp_path / schedule / "shards", settings) == whole
        assert any(tree.status == "failed" for forest in whole for tree in forest.trees)


class SlowEngine(ShuffledEngine):
    def poll(self, patience: float | None = None) -> list[Completion]:
        time.sleep(0.002)
        return super().poll()


def search_in_a_child(folder: Path, settings: SearchSettings) -> int:
    """Fork a process that searches into `folder` and ends; returns its id."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            search_shards(MANY, lambda: SlowEngine(0), folder, shard_size=4, prompt=PROMPT, settings=settings)
            code = 0
        finally:
            os._exit(code)
    return child


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_kill_9_at_random_moments(schedule: str, tmp_path: Path) -> None:
    """A real process, really killed, again and again; the last one gets through."""
    settings = JUDGED.model_copy(update={"schedule": schedule, "simulations": 16})
    search_shards(MANY, lambda: AutomatonEngine(6), tmp_path / "whole", shard_size=4, prompt=PROMPT, settings=settings)
    folder, rng, kills = tmp_path / "shards", random.Random(schedule), 0

    def written() -> int:
        return sum(path.stat().st_size for path in folder.glob("shard-*")) if folder.exists() else 0

    for _ in range(60):
        last = kills == 4
        child = search_in_a_child(folder, settings)
        target, ended = written() + rng.randrange(1, 12_000), 0
        while not ended and (last or written() < target):
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.0005)
        if not ended:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            kills += 1
            continue
        assert os.WEXITSTATUS(status) == 0
        if last:
            break
        shutil.rmtree(folder)  # it came to its end before it was killed: from the beginning
    else:
        pytest.fail("no kill meets a search")
    assert {path.name for path in folder.iterdir()} == {"shard-0000.parquet", "shard-0001.parquet"}
    for path in (tmp_path / "whole").iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_search_itself_keeps_no_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=WIDE)
    assert not list(tmp_path.iterdir())
