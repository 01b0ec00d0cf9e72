"""Looks passages up in a local file by their words (BM25).

Source: Robertson and Zaragoza 2009, The Probabilistic Relevance Framework: BM25 and Beyond; computed by the library
bm25s (Lù 2024, arXiv 2407.03618).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mcts_dpo.common.errors import InputError
from mcts_dpo.environments.tools.tool import Tool, ToolSettings, register_tool


class LookupSettings(ToolSettings):
    """Passages of a local corpus that fit a query best.

    corpus: a text file whose passages are separated by blank lines, or a JSON-lines file with a field "text".
    top:    how many passages are shown, best first.
    chars:  the most characters of a passage that are shown.
    """

    kind: Literal["lookup"] = "lookup"
    corpus: Path
    top: int = Field(default=1, ge=1, le=20)
    chars: int = Field(default=600, ge=1)

    def files(self) -> list[Path]:
        """The corpus."""
        return [self.corpus]


def read_corpus(path: Path) -> list[str]:
    """The passages of a file (see `LookupSettings.corpus`). Raises InputError that names the file and the line."""
    if not path.is_file():
        raise InputError(f"{path}: not a file; accepted: a text file, or JSON lines with a field 'text'")
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix != ".jsonl":
        found = [part.strip() for part in text.split("\n\n") if part.strip()]
    else:
        found = []
        for number, line in enumerate(text.splitlines(), 1):
            try:
                row = json.loads(line) if line.strip() else None
            except ValueError as error:
                raise InputError(f"{path}: line {number}: not JSON ({error})") from None
            if row is not None and not (isinstance(row, dict) and isinstance(row.get("text"), str)):
                raise InputError(f"{path}: line {number}: no field 'text'; accepted: {{\"text\": a passage}}")
            found += [row["text"]] if row else []
    if not found:
        raise InputError(f"{path}: no passage; accepted: text with one or more")
    return found


def _make(settings: LookupSettings) -> Tool:
    try:
        import bm25s
    except ImportError:
        raise InputError("the tool lookup needs the package bm25s; install mcts-dpo[tools]") from None
    passages = read_corpus(settings.corpus)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(passages, show_progress=False), show_progress=False)
    lock = threading.Lock()  # the library does not say that an index may be asked from several threads

    def call(arguments: Mapping[str, Any]) -> str:
        words = bm25s.tokenize(arguments["query"], show_progress=False)
        with lock:
            found, scores = index.retrieve(words, k=min(settings.top, len(passages)), show_progress=False)
        shown = [passages[place] for place, score in zip(found[0], scores[0], strict=True) if score > 0]
        return "\n\n".join(passage[: settings.chars] for passage in shown) or "nothing found"

    query = {"type": "string", "description": "words that the passage contains"}
    return Tool(
        "lookup",
        "The passages of a collection that fit a query best.",
        {"type": "object", "properties": {"query": query}, "required": ["query"]},
        call,
    )


register_tool(LookupSettings, _make)
