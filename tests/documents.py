"""Markdown as the tests use it: the blocks of code in a document, by language, in order."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT

PAGES = ("README.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")))
"""The README and the pages of docs."""


def blocks(document: str, *languages: str) -> list[tuple[str, str]]:
    """(language, text) of each fenced block of these languages in a document of the repository."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(language, body) for language, body in found if language in languages]


def write_named(folder: Path, body: str, **names: str) -> Path | None:
    """Write a block whose first line is "# NAME" as that file, with names of models replaced; None if it has none."""
    named = re.match(r"# ([\w./-]+\.\w+)\n", body)
    if named is None:
        return None
    for name, value in names.items():
        body = body.replace(name, value)
    path = folder / named.group(1)
    path.write_text(body, encoding="utf-8")
    return path


def commands(body: str) -> list[str]:
    """The lines of a shell block without their comments."""
    return [line.split("  #")[0].strip() for line in body.splitlines() if line.strip() and not line.startswith("#")]
