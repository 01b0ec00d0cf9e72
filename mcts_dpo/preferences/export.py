"""Exports tables as a data set for other tools: columns for TRL, a data card, an upload to the hub.

In: a folder of tables (Parquet), and how they were made. Out: `dpo/`, `kto/`, `sft/` and `prm/` tables with only the
columns that TRL reads, a README.md, and an upload. The YAML header of the README.md lets
`datasets.load_dataset(folder, NAME)` find each table, locally and on the hub.

Sources: TRL's dataset formats (https://huggingface.co/docs/trl/dataset_formats); the hub's dataset cards
(https://huggingface.co/docs/hub/datasets-cards).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from mcts_dpo.common.errors import InputError, RefusalError
from mcts_dpo.common.files import whole
from mcts_dpo.preferences.tables import Counts, Tables, write_parts

SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
"""Bounds of the hub's `size_categories`."""
TRL = {
    "dpo": ("prompt", "chosen", "rejected"),
    "kto": ("prompt", "completion", "label"),
    "sft": ("prompt", "completion"),
    "prm": ("prompt", "completions", "labels"),
}
"""TRL's trainers and the columns that each reads (standard format, explicit prompt). "prm" is what TRL calls stepwise
supervision; releases of TRL without a trainer for it still document the format."""
SAYS = {
    "pairs": "one step preferred to a sibling, with values, visits, weights and token ids",
    "siblings": "all children of a parent, best first",
    "solutions": "whole verified solutions",
    "steps": "paths whose steps have Monte Carlo labels, for reward models that judge steps",
    "trees": "search trees, one row per node",
    "dpo": "`trl dpo`: a step and a worse one after the same prompt",
    "kto": "`trl kto`: single steps, labelled by whether they are better than where they start",
    "sft": "`trl sft`: whole verified solutions",
    "prm": "stepwise supervision (TRL's PRMTrainer): steps, and whether a right solution was sampled below each",
}


def write_trl(folder: Path, parts: Iterable[Tables]) -> Counts:
    """Write `dpo/`, `kto/`, `sft/` and `prm/train.parquet` under `folder`. Tables without rows are left out.

    parts: the tables of the shards, in order. Raises InputError as `save_tables` does.

    TRL adds the end of sequence to every completion, also to single steps. Our own trainer does not. TRL also adds a
    line end (`step_separator`) to each step of `prm`, so steps are written without theirs.
    """
    columns = [list(names) for names in TRL.values()]
    paths = [folder / name / "train.parquet" for name in TRL]

    def shown(table: Any, place: int) -> Any:
        found = table.select(columns[place]).replace_schema_metadata(None)
        if "completions" not in columns[place]:
            return found
        steps = [[step.rstrip() for step in path] for path in found["completions"].to_pylist()]
        field = found.schema.field("completions")
        return found.set_column(found.schema.get_field_index(field.name), field, pa.array(steps, field.type))

    return write_parts(parts, paths, shown, empty=False)


def write_card(
    folder: Path,
    *,
    model: str | None = None,
    license: str = "unknown",
    settings: Mapping[str, Any] | None = None,
    title: str | None = None,
) -> Path:
    """Write README.md, the card of the tables under `folder`, whole or not at all. Returns its path.

    model:    the policy of the search.
    license:  the licence of the data, in the hub's spelling ("apache-2.0").
    settings: the settings with which the trees and tables were made.
    title:    the heading. None: the name of the folder.

    Raises InputError if there is no table.
    """
    tables = tables_in(folder)
    if not tables:
        raise InputError(f"{folder}: no tables (*.parquet) to describe")
    rows = {name: sum(pq.read_metadata(file).num_rows for file in files) for name, files in tables.items()}
    header: dict[str, Any] = {
        "license": license,
        "task_categories": ["text-generation"],
        "tags": ["mcts-dpo", "preference", "dpo", "trl", "reasoning"],
        "size_categories": [_size(max(rows.values()))],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": "train", "path": [str(file.relative_to(folder)) for file in files]}],
            }
            | ({"default": True} if place == 0 else {})
            for place, (name, files) in enumerate(tables.items())
        ],
    }
    path = folder / "README.md"
    with whole(path) as scratch:
        front = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
        text = "\n".join(_body(folder, tables, rows, model, settings or {}, title or folder.resolve().name))
        scratch.write_text(f"---\n{front}---\n\n{text}\n", encoding="utf-8")
    return path


def push_to_hub(folder: Path, repository: str, *, private: bool = False, token: str | None = None) -> str:
    """Upload a folder with a card to the hub's data set `repository` ("ORG/NAME"), in one commit.

    The data set is created if it does not exist. private: whether a new data set is private. token: None uses the token
    of huggingface_hub (`hf auth login`, HF_TOKEN). Returns the address of the commit.

    Raises InputError without a card, for a malformed name, and for a card that the hub does not accept (an unknown
    licence, for example). Raises RefusalError for any other refusal, or if the hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if not (folder / "README.md").exists():
        raise InputError(f"{folder}: no README.md; write the card first (write_card, or --card)")
    api = HfApi(token=token)
    quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        place = api.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        found = api.create_commit(
            place.repo_id,
            [CommitOperationAdd(name, folder / name) for name in upload_names(folder)],
            repo_type="dataset",
            commit_message="Step-level preferences by mcts-dpo",
        )
    except Exception as error:  # the hub, the network and the client can raise anything
        # The client reports an unusable name or card this way. An answer that is no JSON comes from elsewhere.
        if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
            raise InputError(f"--push {repository}: {_one_line(error)}") from None
        raise RefusalError(f"--push {repository}: not uploaded ({_one_line(error)})") from None
    finally:
        if not quiet:
            enable_progress_bars()
    return str(found)


def _one_line(error: Exception) -> str:
    """The message of an error in one line, without the list marks and links to manuals that HTTP clients add."""
    said = [line.strip().removeprefix("- ") for line in str(error).splitlines()]
    return " ".join(line for line in said if line and not line.startswith("For more info")) or type(error).__name__


def upload_names(folder: Path) -> list[str]:
    """The files of a folder that are uploaded: the card and the tables that it names."""
    files = [str(file.relative_to(folder)) for files in tables_in(folder).values() for file in files]
    return ["README.md", *files]


def tables_in(folder: Path) -> dict[str, list[Path]]:
    """Find the tables under a folder. Returns the files of each table by its name, in the order of `SAYS`.

    Names: `dpo`, `kto`, `sft`, `prm` (folders), `pairs`, `siblings`, `solutions`, `steps` (files), `trees` (shards).
    """
    found: dict[str, list[Path]] = {}
    for name in SAYS:
        files = sorted((folder / name).glob("*.parquet")) or [
            file for file in [folder / f"{name}.parquet"] if file.exists()
        ]
        if files:
            found[name] = files
    return found


def _body(
    folder: Path,
    tables: Mapping[str, Sequence[Path]],
    rows: Mapping[str, int],
    model: str | None,
    settings: Mapping[str, Any],
    title: str,
) -> list[str]:
    searched = f" of `{model}`" if model else ""
    lines = [
        f"# {title}",
        "",
        f"Step-level preferences from Monte Carlo tree search over the reasoning steps{searched}, made by mcts-dpo "
        "([Xie et al. 2024](https://arxiv.org/abs/2405.00451)). Outcomes were verified against reference answers.",
        "",
        "| name | rows | bytes | what |",
        "|---|---|---|---|",
    ]
    for name, files in tables.items():
        size = sum(file.stat().st_size for file in files)
        lines.append(f"| `{name}` | {rows[name]:,} | {size:,} | {SAYS[name]} |")
    first = next(iter(tables))
    lines += ["", "```python", "from datasets import load_dataset", "", f'data = load_dataset("FOLDER", "{first}")']
    lines += ["```", ""]
    for name, files in tables.items():
        lines += [f"## `{name}`", "", "| field | type |", "|---|---|"]
        lines += [f"| `{field.name}` | {field.type} |" for field in pq.read_schema(files[0])]
        lines.append("")
    if settings:
        shown = yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=110)
        lines += ["## Settings", "", "```yaml", shown.rstrip(), "```", ""]
    return lines[:-1]


def _size(rows: int) -> str:
    names = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")
    return next((name for bound, name in zip(SIZES, names, strict=True) if rows < bound), "n>10M")
