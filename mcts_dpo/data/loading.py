"""Problem sets from files, folders and the Hugging Face hub, and back to a file.

In: settings. Out: a list of `Problem`. Errors name file and line. `formats/` holds how a row becomes a problem, one
file per layout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import digest, whole
from mcts_dpo.common.settings import load_settings, nearest
from mcts_dpo.data.folders import opened
from mcts_dpo.data.formats.base import Row
from mcts_dpo.data.formats.registry import reader_of
from mcts_dpo.data.problem import Problem
from mcts_dpo.data.rows import Record, kind_of, narrowing, read_rows
from mcts_dpo.data.settings import ProblemSettings

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")


def load_problems(source: str | Path | ProblemSettings, **settings: Any) -> list[Problem]:
    """Load the problems of a file, a folder or a data set on the hub.

    source:   the path or name, or all settings in one object.
    settings: fields of `ProblemSettings`, which override those of the object.

    A problem's id is that of the data set (column "id" or "unique_id"), or "<stem>-<row number>". Rows count from 1.
    The stem is the file's name without suffix, or a hub data set's name, subset and split. Ids do not depend on limit,
    offset and shuffle_seed.

    Raises InputError, naming file and line, for: no such file or data set, a malformed line, a missing column, an empty
    question, an answer that is no text, number or list of them, the number of a choice that does not exist, an id that
    occurs twice, no problems at all.
    """
    given = source.model_dump() if isinstance(source, ProblemSettings) else {"source": str(source)}
    chosen = load_settings(ProblemSettings, {**given, **settings})
    rows, stem = _rows(chosen)
    if not rows:
        raise InputError(f"{chosen.source}: no problems in it")
    named = "columns" if chosen.format == "auto" and chosen.columns else chosen.format
    read = reader_of(named, rows[0].values)
    problems = [
        read(Row(row.where, row.values, f"{stem}-{row.number}", chosen.source, chosen.columns, chosen.choice_index))
        for row in rows
    ]
    _check_ids(chosen.source, problems, rows)
    if chosen.verifier is not None:
        problems = [replace(problem, verifier=chosen.verifier) for problem in problems]
    if chosen.shuffle_seed is not None:
        order = sorted(range(len(problems)), key=lambda index: digest(chosen.shuffle_seed, index))
        problems = [problems[index] for index in order]
    if chosen.offset >= len(problems):
        raise InputError(f"{chosen.source}: offset: {chosen.offset} is past the end (it has {len(problems)} problems)")
    return problems[chosen.offset :][: chosen.limit]


def save_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Write problems as JSON lines, whole or not at all. A field that a problem lacks is left out of its line.

    `load_problems` reads the problems back. Their `source` and `verifier` then come from the settings of that call.
    """
    with whole(path) as scratch, scratch.open("w", encoding="utf-8") as lines:
        for problem in problems:
            row: dict[str, Any] = {"id": problem.id, "question": problem.question}
            if problem.answer is not None:
                row["answer"] = problem.answer
            if problem.solution is not None:
                row["solution"] = problem.solution
            if problem.choices:
                row["choices"] = list(problem.choices)
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def _rows(settings: ProblemSettings) -> tuple[list[Record], str]:
    """All rows, and the stem of their derived ids."""
    path = Path(settings.source).expanduser()
    if path.is_dir():
        return _hub(settings)
    if path.is_file():
        return _of_file(path, settings), (path.with_suffix("") if path.suffix == ".gz" else path).stem
    if kind_of(path) is not None or not _HUB_NAME.fullmatch(settings.source):
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(path.name, siblings)
        raise InputError(f"{path}: no such file" + (f"; did you mean {str(path.parent / close)!r}?" if close else ""))
    return _hub(settings)


def _of_file(path: Path, settings: ProblemSettings) -> list[Record]:
    found = read_rows(path, settings.max_mib)
    for name in ("split", "subset"):
        if getattr(settings, name) is not None:
            raise InputError(f"{path}: {name}: {getattr(settings, name)!r}, but a file has no {name}s")
    rows = []
    for row in found:
        if isinstance(row, InputError):
            raise row
        rows.append(row)
    return rows


def _hub(settings: ProblemSettings) -> tuple[list[Record], str]:
    """Rows of a data set on the hub, or of a folder: data files, or the output of `save_to_disk` of `datasets`."""
    import datasets  # takes two seconds, which reading a file does not need

    source = settings.source
    try:
        path = Path(source).expanduser()
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            if settings.subset is not None:
                raise InputError(f"{source}: subset: {settings.subset!r}, but a saved data set has no subsets")
            data = opened(lambda: datasets.load_from_disk(str(path)), path, settings.max_mib)
        else:
            name = str(path) if path.is_dir() else source
            data = opened(lambda: datasets.load_dataset(name, name=settings.subset), path, settings.max_mib)
    except InputError:
        raise
    except Exception as error:  # the hub, the network and the files of a folder can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source}: not a file, nor a data set that can be loaded ({reason[:300]})") from None
    split = settings.split
    if isinstance(data, dict):
        if split is None and len(data) > 1:
            raise InputError(f"{source}: split: not given (accepted: {', '.join(data)})")
        split = split or next(iter(data))
        if split not in data:
            close = nearest(split, list(data))
            hint = f"; did you mean {close!r}?" if close else ""
            raise InputError(f"{source}: split: no {split!r}{hint} (accepted: {', '.join(data)})")
        data = data[split]
    elif split is not None:
        raise InputError(f"{source}: split: {split!r}, but it holds one split without a name")
    stem = "-".join(filter(None, [path.name, settings.subset, split]))
    narrow = narrowing(data.features.arrow_schema)
    rows = [Record(f"{source}, row {number}", number, narrow(values)) for number, values in enumerate(data, start=1)]
    return rows, stem


def _check_ids(source: str, problems: Sequence[Problem], rows: Sequence[Record]) -> None:
    first: dict[str, Record] = {}
    for problem, row in zip(problems, rows, strict=True):
        if problem.id in first:
            raise InputError(f"{row.where}: the id {problem.id!r} is already that of {first[problem.id].where}")
        first[problem.id] = row
