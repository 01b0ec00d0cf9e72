"""A run as one HTML file that needs nothing else: figures, curves, the config, and a browser of its search trees.

In: a run directory. Out: `report.html` in it, written whole, the same bytes for the same run. All data, styles and
scripts are in the file; nothing is fetched. Trees lie in it compressed and are unpacked when looked at.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from mcts_dpo.files import read_json, standard_json, whole
from mcts_dpo.progress import Progress, silent
from mcts_dpo.report.browsing import gather
from mcts_dpo.report.charting import round_directory, run_figures, tree_files
from mcts_dpo.report.text import RunRecord
from mcts_dpo.settings import read_yaml

ASSETS = ("style.css", "charts.js", "layout.js", "browser.js")


def write_html(record: RunRecord, progress: Progress = silent) -> Path:
    """Write `report.html` into the run directory and return its path."""
    progress("figures", 0, 0)
    figures = run_figures(record)
    assets = {name.replace(".", "_"): _asset(name) for name in ASSETS}
    rounds = (
        (line["round"], tree_files(record, line["round"]), round_directory(record, line["round"]) / "pairs.parquet")
        for line in record.rounds
    )
    trees = gather(rounds, progress=progress)
    environment, config = record.directory / "environment.json", record.directory / "config.yaml"
    data = {
        "name": record.directory.resolve().name,
        "config": config.read_text(encoding="utf-8"),
        "preferences": read_yaml(config).get("preferences", {}),
        "environment": read_json(environment) if environment.exists() else {},
        **figures,
        "trees": trees.index,
        "token_logprobs": trees.tokens,
    }
    blocks = "\n".join(f'<script type="text/plain" class="block">{block}</script>' for block in trees.blocks)
    page = Template(_asset("page.html")).substitute(
        assets, title=_escaped(data["name"]), data=_embedded(data), blocks=blocks
    )
    target = record.directory / "report.html"
    with whole(target) as scratch:
        scratch.write_text(page, encoding="utf-8")
    return target


def _asset(name: str) -> str:
    return (files("mcts_dpo.report") / "assets" / name).read_text(encoding="utf-8")


def _embedded(data: dict[str, Any]) -> str:
    """JSON that may stand inside a script element: no text in it can close the element, no number is NaN."""
    return standard_json(data, separators=(",", ":")).replace("<", "\\u003c")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
