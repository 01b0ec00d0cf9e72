"""Tables for other tools: `datasets` and TRL's own command read what is written, and the card says what it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset

from mcts_dpo.engines import load_engine
from mcts_dpo.files import InputError
from mcts_dpo.preferences import (
    PreferenceSettings,
    extract_pairs,
    extract_siblings,
    extract_solutions,
    push_to_hub,
    write_card,
    write_trl,
)
from mcts_dpo.preferences.publishing import upload_patterns
from mcts_dpo.search import Forest, SearchSettings, search
from mcts_dpo.toy.policy import toy_prompt
from tests.conftest import ROOT, ToyWorld

SETTINGS = PreferenceSettings(min_gap=0.2)


@pytest.fixture(scope="module")
def forest(toy_world: ToyWorld) -> Forest:
    engine = load_engine(toy_world.policy)
    return search(toy_world.train[:16], engine, prompt=toy_prompt(), settings=SearchSettings(simulations=3))


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
    assert sorted(upload_patterns(folder)) == sorted(
        ["README.md", "pairs.parquet", "siblings.parquet", "solutions.parquet", "trees/shard-0000.parquet"]
    )


def test_nothing_without_a_card_or_a_table_is_uploaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tables"):
        write_card(tmp_path)
    with pytest.raises(InputError, match="write the card first"):
        push_to_hub(tmp_path, "org/name")
    (tmp_path / "README.md").write_text("card")
    with pytest.raises(InputError, match="not a name on the hub"):
        push_to_hub(tmp_path, "no name at all/x/y")


def test_trl_takes_one_step_on_what_is_written_for_it(forest: Forest, toy_world: ToyWorld, tmp_path: Path) -> None:
    tables = [extract(([forest]), SETTINGS) for extract in (extract_pairs, extract_siblings, extract_solutions)]
    data = tmp_path / "data"
    written = write_trl(data, *tables)
    assert [path.parent.name for path in written] == ["dpo", "kto", "sft"]
    write_card(data)
    rows = load_dataset(str(data), "dpo", split="train")
    assert rows.column_names == ["prompt", "chosen", "rejected"]
    assert rows["chosen"][:] == tables[0].texts("chosen")
    out = tmp_path / "policy"
    trl = Path(sys.executable).parent / "trl"
    command = [trl, "dpo", "--dataset_name", data, "--model_name_or_path", toy_world.policy]
    command += ["--output_dir", out, "--max_steps", 1, "--per_device_train_batch_size", 2, "--report_to", "none"]
    command += ["--use_cpu", "true", "--bf16", "false", "--logging_steps", 1, "--dtype", "float32"]
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (out / "model.safetensors").exists()
    assert "Training completed" in done.stdout
