"""A run as one HTML file that needs nothing else: figures, curves, the config, and a browser of its search trees.

In: a run directory. Out: `report.html` in it, written whole, the same bytes for the same run. All data, styles and
scripts are in the file; nothing is fetched. Its trees are compressed; the page unpacks a tree when it shows it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from tempfile import TemporaryFile
from typing import Any, TextIO

from mcts_dpo.common.files import read_json, standard_json, whole
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.common.settings import read_yaml
from mcts_dpo.report.charting import round_directory, run_figures, tree_files
from mcts_dpo.report.text import RunRecord
from mcts_dpo.report.tree_json import Block, single_tokens_fit, tree_blocks

MARK = "\0"
"""The places of the trees and the data in the page."""
ASSETS = ("style.css", "charts.js", "layout.js", "browser.js")


def write_html(record: RunRecord, progress: Progress = silent) -> Path:
    """Write `report.html` into the run directory and return its path."""
    progress("figures", 0, 0)
    figures = run_figures(record)
    assets = {name.replace(".", "_"): _asset(name) for name in ASSETS}
    rounds = [
        (line["round"], tree_files(record, line["round"]), round_directory(record, line["round"]) / "pairs.parquet")
        for line in record.rounds
    ]
    tokens = single_tokens_fit(rounds)
    environment, config = record.directory / "environment.json", record.directory / "config.yaml"
    data = {
        "name": record.directory.resolve().name,
        "config": config.read_text(encoding="utf-8"),
        "preferences": read_yaml(config).get("preferences", {}),
        "environment": read_json(environment) if environment.exists() else {},
        **figures,
        "token_logprobs": tokens,
    }
    page = Template(_asset("page.html")).substitute(assets, title=_escaped(data["name"]), data=MARK, blocks=MARK)
    target = record.directory / "report.html"
    with whole(target) as scratch, scratch.open("w", encoding="utf-8") as file:
        _write(file, page.split(MARK), data, tree_blocks(rounds, tokens=tokens, progress=progress))
    return target


def _write(file: TextIO, parts: Sequence[str], data: dict[str, Any], blocks: Iterable[Block]) -> None:
    """The page in parts: first the trees, block by block, then the data, which end with the list of all trees."""
    head, between, tail = parts
    file.write(head)
    with TemporaryFile("w+", encoding="utf-8") as index:
        for block in blocks:
            file.write(f'<script type="text/plain" class="block">{block.text}</script>\n')
            index.writelines(f",{_embedded(entry)}" for entry in block.index)
        file.write(f'{between}{_embedded(data).removesuffix("}")},"trees":[')
        index.seek(0)
        index.read(1)  # the comma before the first
        shutil.copyfileobj(index, file)
    file.write(f"]}}{tail}")


def _asset(name: str) -> str:
    return (files("mcts_dpo.report") / "assets" / name).read_text(encoding="utf-8")


def _embedded(data: dict[str, Any]) -> str:
    """JSON for a script element: no text in it can close the element, and no number is NaN."""
    return standard_json(data, separators=(",", ":")).replace("<", "\\u003c")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
