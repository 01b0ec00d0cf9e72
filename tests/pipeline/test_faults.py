"""What can go wrong around a run, done for real: the message that says what to do, and that doing it fixes the run."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json, read_json_lines, write_json
from mcts_dpo.common.settings import changed
from mcts_dpo.pipeline.config import RunConfig
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.search import policy_fingerprint
from mcts_dpo.search.tree_io import made_with
from tests.conftest import ToyWorld
from tests.pipeline.test_rounds import fingerprints


@pytest.fixture(scope="module")
def config(toy_world: ToyWorld) -> RunConfig:
    """One small round, without the baseline."""
    return toy_world.config.model_copy(update={"rounds": 1, "baseline": False, "problems_per_round": 16})


@pytest.fixture(scope="module")
def undisturbed(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("undisturbed")
    run(config, directory)
    return directory


@pytest.fixture
def refused(config: RunConfig) -> Callable[..., str]:
    """Run and be refused in one line, which is returned."""

    def attempt(directory: Path, **changes: Any) -> str:
        with pytest.raises(InputError) as caught:
            run(config.model_copy(update=changes), directory)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return attempt


def left_over(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("*") if ".partial-" in path.name]


@contextmanager
def room_for_files_of(size: int) -> Iterator[None]:
    """A limit on the size of files: the system refuses to write more, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk(config: RunConfig, undisturbed: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    """In the search, and in the training; then there is room."""
    for size, kept in ((8_000, "finished stages are kept"), (200_000, "nothing was kept")):
        with room_for_files_of(size):
            said = refused(tmp_path)
        assert said.startswith(str(tmp_path)), said
        assert "the file would be too large; nothing half-written is left and " in said
        assert f"{kept}; make room and give the same command again" in said
        assert not left_over(tmp_path)
    run(config, tmp_path)
    assert fingerprints(tmp_path) == fingerprints(undisturbed)


def test_a_directory_that_nobody_may_write_into(config: RunConfig, refused: Callable[..., str]) -> None:
    folder = Path(tempfile.mkdtemp())  # one that others may enter, and read the policy and the problems in
    try:
        (folder / "runs").mkdir(mode=0o555)
        folder.chmod(0o755)
        readable: dict[str, Any] = {"model": str(shutil.copytree(config.model, folder / "policy"))}
        for name in ("train", "test"):
            settings = getattr(config, name)
            source = Path(shutil.copyfile(settings.source, folder / f"{name}.jsonl"))
            source.chmod(0o644)
            readable[name] = settings.model_copy(update={"source": str(source)})
        with nobody():
            for place in (folder / "runs", folder / "runs" / "mine"):
                said = refused(place, **readable)
                assert "permission is denied; nothing half-written is left and finished stages are kept; permit" in said
                assert said.startswith(str(place))
        assert not list((folder / "runs").iterdir())
    finally:
        shutil.rmtree(folder)


@contextmanager
def nobody() -> Iterator[None]:
    """Root may write anywhere; so it stops being root for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_damaged_files_of_finished_stages(
    config: RunConfig, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Set aside, said, and made again: trees (damaged in the middle, of the right size) and pairs before the training;
    of a round that is finished its evaluation."""
    directory = tmp_path / "run"
    shutil.copytree(undisturbed, directory)
    place = directory / "round-000"
    shard, pairs, evaluation = place / "trees" / "shard-0001.parquet", place / "pairs.parquet", "evaluation.parquet"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    shard.write_bytes(data)
    pairs.write_bytes(pairs.read_bytes()[:1000])
    for name in ("train", "evaluate"):
        (place / "stages" / f"{name}.json").unlink()
    run(config, directory)
    (place / evaluation).write_bytes((place / evaluation).read_bytes()[:1000])
    run(config, directory)
    aside = place / "damaged"
    assert caplog.messages == [
        f"{path}: is not as its stage wrote it; set aside as {aside / path.relative_to(place)}; "
        f"the stage {stage} of round-000 is done again"
        for path, stage in ((shard, "search"), (pairs, "pairs"), (place / evaluation, "evaluate"))
    ]
    assert (aside / "trees" / shard.name).read_bytes() == data
    shutil.rmtree(aside)
    assert fingerprints(directory) == fingerprints(undisturbed)


def flip_a_bit(path: Path) -> bytes:
    """In the middle of a file, whose size and times stay. Returns what it holds then."""
    about, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    return bytes(data)


@pytest.fixture(scope="module")
def two_rounds(config: RunConfig, undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("two") / "run"
    shutil.copytree(undisturbed, directory)
    run(config.model_copy(update={"rounds": 2}), directory)
    return directory


def test_a_flipped_bit_in_a_finished_round_is_noticed_before_the_next(
    config: RunConfig, undisturbed: Path, two_rounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights, tokenizer, pairs: set aside, said, and made again; the next round is what it would have been."""
    directory = tmp_path / "run"
    shutil.copytree(undisturbed, directory)
    place = directory / "round-000"
    bad = {
        place / name: flip_a_bit(place / name)
        for name in ("policy/model.safetensors", "policy/tokenizer.json", "pairs.parquet", "siblings.parquet")
    }
    run(config.model_copy(update={"rounds": 2}), directory)
    for path, data in bad.items():
        aside = place / "damaged" / path.relative_to(place)
        assert aside.read_bytes() == data
        assert sum(f"{path}: is not as its stage wrote it; set aside as {aside}" in m for m in caplog.messages) == 1
    assert len(caplog.messages) == len(bad)
    shutil.rmtree(place / "damaged")
    assert fingerprints(directory) == fingerprints(two_rounds)


def test_what_comes_out_different_is_not_mixed_with_what_was_made_from_it(
    config: RunConfig, two_rounds: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As on a device that does not repeat itself: the manifest tells of other weights than a training gives."""
    directory = tmp_path / "run"
    shutil.copytree(two_rounds, directory)
    longer = config.model_copy(update={"rounds": 2})

    def pretend(round_: str) -> None:
        manifest = directory / round_ / "stages" / "train.json"
        content = read_json(manifest)
        content["files"]["policy/model.safetensors"]["sha256"] = "0" * 64
        write_json(manifest, content)

    pretend("round-000")
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            run(longer, directory)
        assert str(caught.value) == (
            f"{directory / 'round-000'}: the damaged files of the stage train came out different when they were made "
            f"again, and round-001 is made from them; put the files in {directory / 'round-000' / 'damaged'} back as "
            "they were, or delete round-001"
        )
    shutil.rmtree(directory / "round-001")
    caplog.clear()
    run(longer, directory)
    assert "the stage train came out different from before" in caplog.messages[-1]
    assert caplog.messages[-1].endswith("; done again, too: evaluate")
    shutil.rmtree(directory / "round-000" / "damaged")
    assert fingerprints(directory) == fingerprints(two_rounds)
    pretend("round-001")
    run(longer, directory)
    shutil.rmtree(directory / "round-001" / "damaged")
    assert fingerprints(directory) == fingerprints(two_rounds)


def test_a_starting_policy_that_has_changed_is_refused_and_its_trees_are_not_mixed(
    config: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    policy = shutil.copytree(config.model, tmp_path / "policy")
    mine = config.model_copy(update={"model": str(policy)})
    directory = tmp_path / "run"
    run(mine, directory)
    place = directory / "round-000"
    for name in ("search", "pairs", "train", "evaluate"):
        (place / "stages" / f"{name}.json").unlink()
    (place / "trees" / "shard-0001.parquet").write_bytes(b"no Parquet")
    weights = policy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # the sign or the last digit of the last weight
    weights.write_bytes(data)
    with pytest.raises(InputError) as caught:
        run(mine, directory)
    assert str(caught.value) == (
        f"{directory}: holds a run of another config (model: the files in {policy} are not those that the run began "
        "with); give another directory, or --force to continue with the new one (finished stages stay as they are)"
    )
    run(mine, directory, force=True)
    made = {made_with(shard)["policy"] for shard in (place / "trees").glob("*.parquet")}
    assert made == {policy_fingerprint(str(policy))}
    assert f"{place / 'trees' / 'shard-0000.parquet'}: the trees of another policy; set aside as " in caplog.text
    assert f"{place / 'trees' / 'shard-0001.parquet'}: not a readable Parquet file" in caplog.text
    assert len(list((place / "damaged" / "trees").iterdir())) == 2
    run(mine, directory)


def test_a_checkpoint_cut_short(
    config: RunConfig, undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(undisturbed, directory)
    place = directory / "round-000"
    for name in ("train", "evaluate"):
        (place / "stages" / f"{name}.json").unlink()
    policy = (place / "policy" / "model.safetensors").read_bytes()
    shutil.rmtree(place / "policy")
    checkpoint = place / "training" / "unfinished" / "checkpoint.safetensors"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes(policy[: len(policy) // 2])
    run(config, directory)
    aside = place / "training" / "unfinished.damaged.safetensors"
    (said,) = caplog.messages
    assert said.startswith(f"{checkpoint}: not a checkpoint of a training (")
    assert said.endswith(f"); set aside as {aside}; the training starts again")
    assert "\n" not in said
    assert aside.read_bytes() == policy[: len(policy) // 2]
    aside.unlink()
    assert fingerprints(directory) == fingerprints(undisturbed)


@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_an_engine_that_dies(
    schedule: Literal["synchronous", "asynchronous"],
    config: RunConfig,
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the middle of a shard, as if its server were gone: no tree fails of it, and the same command continues."""
    from mcts_dpo.engines.base import Completion, Request
    from mcts_dpo.engines.retry import EngineDiedError
    from mcts_dpo.engines.transformers.engine import TransformersEngine
    from mcts_dpo.search import Forest

    submit, poll = TransformersEngine.submit, TransformersEngine.poll
    served, lost = [0], list[int]()
    trees = tmp_path / "round-000" / "trees"

    def dying(engine: TransformersEngine, request: Request) -> None:
        served[0] += schedule == "asynchronous" or (trees / "shard-0000.parquet").exists()
        if served[0] > (10 if schedule == "synchronous" else 20):
            lost.append(request.id)
        else:
            submit(engine, request)

    def silent(engine: TransformersEngine, patience: float | None = None, **options: Any) -> list[Completion]:
        given = [Completion(id, error="cannot be reached, tried 6 times") for id in lost]
        lost.clear()
        return given or poll(engine, patience, **options)

    changed = config.model_copy(update={"search": config.search.model_copy(update={"schedule": schedule})})
    with monkeypatch.context() as patch:
        patch.setattr(TransformersEngine, "submit", dying)
        patch.setattr(TransformersEngine, "poll", silent)
        with pytest.raises(EngineDiedError) as died:
            run(changed, tmp_path)
    assert str(died.value) == (
        "the engine serves no requests any more (cannot be reached, tried 6 times); finished shards and journals are "
        "kept; fix the engine and give the same command again"
    )
    there = sorted(path.name for path in trees.iterdir())
    if schedule == "synchronous":
        assert there == ["shard-0000.parquet", "shard-0001.journal"]
    else:
        assert there == ["shard-0000.journal", "shard-0001.journal"]
        assert sum((trees / name).stat().st_size for name in there) > 4_000, "what it gave is in there"
    run(changed, tmp_path)
    assert {tree.status for shard in trees.iterdir() for tree in Forest.load(shard).trees}.isdisjoint({"failed"})
    if schedule == "synchronous":
        assert fingerprints(tmp_path) == fingerprints(undisturbed)


def test_an_engine_without_memory(
    config: RunConfig, undisturbed: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    passes = 0

    def starve(module: Any, arguments: Any) -> None:
        nonlocal passes
        passes += isinstance(module, torch.nn.Embedding)
        if passes > 20:
            raise torch.OutOfMemoryError("CUDA out of memory (in a test)")

    hook = register_module_forward_pre_hook(starve)
    try:
        said = refused(tmp_path)
    finally:
        hook.remove()
    assert said.startswith("engine.slots: memory does not suffice for an engine of 512 sequences at once (accepted: ")
    assert "--force" in said
    run(config, tmp_path)
    assert fingerprints(tmp_path) == fingerprints(undisturbed)


def test_changed_settings_are_taken_over_only_when_told(
    config: RunConfig, undisturbed: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    """What is finished stays; what was under way goes; the change is on record."""
    directory = tmp_path / "run"
    shutil.copytree(undisturbed, directory)
    place = directory / "round-000"
    for name in ("train", "evaluate"):
        (place / "stages" / f"{name}.json").unlink()
    (place / "training" / "unfinished").mkdir()
    (place / "trees" / "shard-0007.journal").write_bytes(b"of another search")
    before = fingerprints(directory)
    training = changed(config.training, {"optimiser.lr": 1e-5})
    said = refused(directory, training=training)
    assert said == (
        f"{directory}: holds a run of another config (training.optimiser.lr: 5e-05 -> 1e-05); give another directory, "
        "or --force to continue with the new one (finished stages stay as they are)"
    )
    assert fingerprints(directory) == before
    run(config.model_copy(update={"training": training}), directory, force=True)
    after = fingerprints(directory)
    policy = "round-000/policy/model.safetensors"
    assert after[policy] != fingerprints(undisturbed)[policy]
    assert after["round-000/pairs.parquet"] == before["round-000/pairs.parquet"]
    assert read_json_lines(directory / "changes.jsonl") == [
        {"finished": ["round-000/pairs", "round-000/search"], "changes": ["training.optimiser.lr: 5e-05 -> 1e-05"]}
    ]
    assert not (place / "training" / "unfinished").exists()
    assert not list((place / "trees").glob("*.journal"))
