"""Tables for other tools: `datasets` and TRL's own command read what is written, and the card says what it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines import load_engine
from mcts_dpo.preferences import (
    PreferenceSettings,
    extract_pairs,
    extract_siblings,
    extract_solutions,
    push_to_hub,
    tables_of,
    write_card,
    write_trl,
)
from mcts_dpo.preferences.export import upload_names
from mcts_dpo.search import Forest, SearchSettings, search_problems
from mcts_dpo.toy.policy import toy_prompt
from tests.conftest import ROOT, ToyWorld
from tests.preferences.hub import TOKEN, hub

SETTINGS = PreferenceSettings(min_gap=0.2)


@pytest.fixture(scope="module")
def forest(toy_world: ToyWorld) -> Forest:
    engine = load_engine(toy_world.policy)
    return search_problems(toy_world.train[:16], engine, prompt=toy_prompt(), settings=SearchSettings(simulations=3))


@pytest.fixture
def folder(forest: Forest, tmp_path: Path) -> Path:
    for table in (
        extract_pairs([forest], SETTINGS),
        extract_siblings([forest], SETTINGS),
        extract_solutions([forest], SETTINGS),
    ):
        table.save(tmp_path / f"{table.what}.parquet")
    forest.save(tmp_path / "trees" / "shard-0000.parquet")
    return tmp_path


def test_pairs_lists_solutions_and_trees_are_loaded_by_datasets(forest: Forest, folder: Path) -> None:
    sizes = {
        "pairs": len(extract_pairs([forest], SETTINGS)),
        "siblings": len(extract_siblings([forest], SETTINGS)),
        "solutions": len(extract_solutions([forest], SETTINGS)),
        "trees": len(forest),
    }
    assert all(sizes.values())
    write_card(folder, license="apache-2.0", model="toy", settings={"preferences": SETTINGS.model_dump(mode="json")})
    for name, size in sizes.items():
        data = load_dataset(str(folder), name, split="train", cache_dir=str(folder / ".cache"))
        assert data.num_rows == size
    alone = load_dataset("parquet", data_files=str(folder / "trees" / "*.parquet"), split="train")
    assert sum(alone["visits"]) == int(forest.visits.sum())
    assert load_dataset(str(folder), split="train").column_names[:1] == ["problem_id"], "pairs are the default"


def test_the_card_says_what_is_in_the_folder(forest: Forest, folder: Path) -> None:
    settings = {"preferences": SETTINGS.model_dump(mode="json"), **forest.settings}
    text = write_card(folder, license="apache-2.0", model="a/policy", settings=settings, title="Toy").read_text()
    _, header, body = text.split("---\n", 2)
    front = yaml.safe_load(header)
    assert front["license"] == "apache-2.0"
    assert [config["config_name"] for config in front["configs"]] == ["pairs", "siblings", "solutions", "trees"]
    assert front["size_categories"] == ["n<1K"]
    pairs = extract_pairs([forest], SETTINGS)
    assert f"| `pairs` | {len(pairs):,} | {(folder / 'pairs.parquet').stat().st_size:,} |" in body
    assert all(f"| `{name}` |" in body for name in pairs.schema.names)
    assert "`a/policy`" in body
    assert "min_gap: 0.2" in body
    assert "simulations: 3" in body
    (folder / "private-notes.txt").write_text("not to be uploaded")
    assert sorted(upload_names(folder)) == sorted(
        ["README.md", "pairs.parquet", "siblings.parquet", "solutions.parquet", "trees/shard-0000.parquet"]
    )


def test_nothing_without_a_card_or_a_table_is_uploaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tables"):
        write_card(tmp_path)
    with pytest.raises(InputError, match="write the card first"):
        push_to_hub(tmp_path, "org/name")
    (tmp_path / "README.md").write_text("card")
    with pytest.raises(InputError, match="--push no name at all/x/y: Repo id must"):
        push_to_hub(tmp_path, "no name at all/x/y")


def test_trl_takes_one_step_on_what_is_written_for_it(forest: Forest, toy_world: ToyWorld, tmp_path: Path) -> None:
    forest.save(tmp_path / "shard-0000.parquet")
    tables = tables_of(tmp_path / "shard-0000.parquet", SETTINGS)
    data = tmp_path / "data"
    counts = write_trl(data, [tables])
    assert (counts.pairs, counts.solutions) == (len(tables.pairs), len(tables.solutions))
    assert sorted(path.parent.name for path in data.rglob("*.parquet")) == ["dpo", "kto", "prm", "sft"]
    write_card(data)
    rows = load_dataset(str(data), "dpo", split="train")
    assert rows.column_names == ["prompt", "chosen", "rejected"]
    assert rows["chosen"][:] == tables.pairs.texts("chosen")
    out = tmp_path / "policy"
    trl = Path(sys.executable).parent / "trl"
    command = [trl, "dpo", "--dataset_name", data, "--model_name_or_path", toy_world.policy]
    command += ["--output_dir", out, "--max_steps", 1, "--per_device_train_batch_size", 2, "--report_to", "none"]
    command += ["--use_cpu", "true", "--bf16", "false", "--logging_steps", 1, "--dtype", "float32"]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (out / "model.safetensors").exists()
    assert "Training completed" in done.stdout


def push(folder: Path, address: str, *options: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """`mcts-dpo pairs … --push` with the real client, told by its own variables where the hub is."""
    environment = os.environ | {"HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HOME": str(folder / "home")}
    # The client's newer protocol for large files speaks to a second service, which nobody stands in for here.
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "mcts_dpo", "pairs", folder / "trees", "-o", folder / "data", "--json", *options]
    command += ["--set", "preferences.min_gap=0.2"]
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800)


def test_what_is_pushed_arrives_byte_by_byte(forest: Forest, tmp_path: Path) -> None:
    """The real client uploads to a stand-in for the hub (`hub.py`): the hub itself cannot be reached from here."""
    forest.save(tmp_path / "trees" / "shard-0000.parquet")
    options = ("--license", "apache-2.0", "--model", "a/policy", "--push")
    with hub() as there:
        done = push(tmp_path, there.url, *options, "org/steps", "--private")
        assert (done.returncode, done.stderr) == (0, "")
        data = tmp_path / "data"
        assert json.loads(done.stdout)["pushed"] == f"{there.url}/datasets/org/steps/commit/{1:040d}"
        tables = {f"{name}.parquet" for name in ("pairs", "siblings", "solutions", "steps")}
        assert set(there.files["org/steps"]) == {"README.md", *tables}
        for name, content in there.files["org/steps"].items():
            assert content == (data / name).read_bytes(), name
        assert there.commits == ["Step-level preferences by mcts-dpo"], "the card and its tables come together"
        assert there.private == {"org/steps"}
        # What arrived is a data set: the card leads to its tables.
        for name, content in there.files["org/steps"].items():
            (tmp_path / "arrived" / name).parent.mkdir(exist_ok=True)
            (tmp_path / "arrived" / name).write_bytes(content)
        loaded = load_dataset(str(tmp_path / "arrived"), "pairs", split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.num_rows == json.loads(done.stdout)["pairs"] > 0
        # Again, into what is there already, and as TRL's tables, under the token's own name.
        done = push(tmp_path, there.url, *options, "steps", "--format", "trl")
        assert (done.returncode, done.stderr) == (0, "")
        assert there.files["org/steps"]["dpo/train.parquet"] == (data / "dpo" / "train.parquet").read_bytes()
        assert there.files["org/steps"]["README.md"] == (data / "README.md").read_bytes()


@pytest.mark.parametrize(
    ("options", "token", "code", "message"),
    [
        (("--push", "org/steps"), "hf_wrong", 1, "--push org/steps: not uploaded (Client error '401 Unauthorized'"),
        (("--push", "other/steps"), TOKEN, 1, "rights to create a dataset under the namespace"),
        (("--push", "org/steps", "--license", "beer"), TOKEN, 2, '"license" must be one of'),
        (("--push", "org/st eps"), TOKEN, 2, "--push org/st eps: Repo id must"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    forest: Forest, tmp_path: Path, options: tuple[str, ...], token: str, code: int, message: str
) -> None:
    """The tables stay where they are; nothing arrives at the stand-in for the hub."""
    forest.save(tmp_path / "trees" / "shard-0000.parquet")
    with hub() as there:
        done = push(tmp_path, there.url, *options, token=token)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
        assert message in done.stderr
        assert not any(there.files.values())
    assert (tmp_path / "data" / "pairs.parquet").exists()


def test_a_hub_that_is_not_there_is_one_line(forest: Forest, tmp_path: Path) -> None:
    forest.save(tmp_path / "trees" / "shard-0000.parquet")
    with hub() as there:
        address = there.url
    done = push(tmp_path, address, "--push", "org/steps")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "--push org/steps: not uploaded (" in done.stderr
