"""Problems with reference answers, from files or the Hugging Face hub.

In: a path (.jsonl, .json, .csv, .parquet, each but the last also .gz; or a folder of such files) or the
name of a data set on the hub, in the layout of GSM8K, MATH, MAWPS, ARC, or any columns. Out: a list of
`Problem`. Whatever is wrong is told with file and line. Also here: which reference answers cannot be
read, and which training problems are test problems. Knows no models, prompts or tokens.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from pydantic import Field, field_validator

from mcts_dpo.files import InputError, digest, read_table, whole
from mcts_dpo.settings import Settings, load_settings, nearest
from verifiers import get_verifier, verifier_names, verify

Role = Literal["question", "answer", "solution", "id", "choices"]
Format = Literal["auto", "gsm8k", "math", "mawps", "choice", "columns"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    id:       unique in its set.
    question: the text, never empty.
    answer:   the reference answer as text; for multiple choice its letter; "" if the data set has one that
              could not be found (no \\boxed in a MATH solution); None if it has none, or it is withheld.
    solution: a reference solution, if there is one.
    choices:  of a multiple-choice question, in the order of the letters A, B, C, …; otherwise empty.
    source:   the data set, as it was asked for.
    verifier: the name of the verifier that compares answers (`verifiers.get_verifier`); "": as mathematics, or as
              letters where there are choices.
    """

    id: str
    question: str
    answer: str | None = None
    solution: str | None = None
    choices: tuple[str, ...] = ()
    source: str = ""
    verifier: str = ""

    def without_answer(self) -> Problem:
        """The problem as a solving search sees it: no reference answer, no reference solution."""
        return replace(self, answer=None, solution=None)


class ProblemSettings(Settings):
    """Which problems.

    source:       a file, a folder, or a name on the Hugging Face hub.
    format:       the layout of a row; "auto" tells it by the names of the columns.
    split:        of a folder or hub data set ("train", "test"); may be left out if there is but one.
    subset:       of a hub data set (its configuration, e.g. "main" for openai/gsm8k).
    columns:      where a data set names its columns otherwise: {question: prompt, answer: target}.
    shuffle_seed: shuffles the problems (before offset and limit); None keeps the order of the file.
    offset:       problems to skip.
    limit:        problems to keep at most.
    verifier:     the name of the verifier that compares answers; null: as mathematics, or as letters where there are
                  choices. (A vote still takes answers for one class that are equal as mathematics.)
    """

    source: str = Field(min_length=1)
    format: Format = "auto"
    split: str | None = None
    subset: str | None = None
    columns: dict[Role, str] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)
    offset: int = Field(default=0, ge=0)
    shuffle_seed: int | None = None
    verifier: str | None = None

    @field_validator("verifier")
    @classmethod
    def _known_verifier(cls, name: str | None) -> str | None:
        if name is not None and name not in verifier_names():
            close = nearest(name, verifier_names())
            hint = f"; did you mean {close!r}?" if close else ""
            raise ValueError(f"is not a verifier{hint} (accepted: {', '.join(verifier_names())})")
        return name


def load_problems(source: str | Path | ProblemSettings, **settings: Any) -> list[Problem]:
    """The problems of `source`; `settings` are those of `ProblemSettings` (and override them if that is what is given).

    Ids are those of the data set (column "id" or "unique_id"), or "<stem>-<row number>" (rows count from 1, a
    hub data set's stem is name, subset and split), the same whatever limit, offset and shuffle_seed are.

    Raises InputError, naming file and line, for: no such file or data set, a malformed line, a missing column,
    an empty question, an id that occurs twice, no problems at all.
    """
    given = source.model_dump() if isinstance(source, ProblemSettings) else {"source": str(source)}
    chosen = load_settings(ProblemSettings, {**given, **settings})
    rows, stem = _rows(chosen)
    if not rows:
        raise InputError(f"{chosen.source}: no problems in it")
    read = _reader(chosen, rows[0])
    problems = [read(row, f"{stem}-{row.number}") for row in rows]
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
    """Write problems as JSON lines, whole or not at all; `load_problems` reads them back equal but for `source` and
    `verifier`, which are said by whoever loads. A field that a problem lacks is left out of its line.
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


def unparsable_answers(problems: Iterable[Problem]) -> list[Problem]:
    """The problems whose reference answer cannot be read, so that no solution of theirs is likely to be right.

    That is: empty, without a letter or digit, with braces that do not match, or unequal to itself for `verify`;
    of a multiple-choice problem, no letter of a choice. They are kept by `load_problems`; callers count and report
    them. Problems without any reference answer (None) are not among them.
    """

    def readable(problem: Problem, answer: str) -> bool:
        if problem.verifier:
            return bool(get_verifier(problem.verifier)(answer, answer))
        if problem.choices:
            return answer in ascii_uppercase[: len(problem.choices)]
        # Equal texts are equal answers to `verify`, whether or not they mean anything: hence the first two.
        return any(map(str.isalnum, answer)) and _balanced(answer) and bool(verify(answer, answer))

    return [problem for problem in problems if problem.answer is not None and not readable(problem, problem.answer)]


def _balanced(text: str) -> bool:
    braces = re.findall(r"\\.|([{}])", text, re.DOTALL)  # \{ and \} are printed braces
    depth = 0
    for brace in braces:
        depth += {"{": 1, "}": -1}.get(brace, 0)
        if depth < 0:
            return False
    return depth == 0


def overlap(train: Iterable[Problem], test: Iterable[Problem], ngram: int | None = None) -> list[tuple[str, str]]:
    """Pairs (training id, test id) of problems that ask the same: a check for contamination.

    Two problems ask the same if their questions (with their choices) are equal after case folding and
    without white space and punctuation that carries no mathematics. With `ngram` also if they share that
    many consecutive words (13 in Brown et al. 2020, *Language Models are Few-Shot Learners*, appendix C;
    boilerplate in a data set then counts as overlap). In the order of `train`, then of `test`.
    """

    def keys(problem: Problem) -> set[str]:
        words = _words(problem)
        spans = range(len(words) - ngram + 1) if ngram else ()
        return {"\n".join(words)} | {" ".join(words[start : start + ngram]) for start in spans if ngram}

    by_key: dict[str, list[int]] = {}
    tests = list(test)
    for index, problem in enumerate(tests):
        for key in keys(problem):
            by_key.setdefault(key, []).append(index)
    pairs = []
    for problem in train:
        found = sorted({index for key in keys(problem) for index in by_key.get(key, ())})
        pairs += [(problem.id, tests[index].id) for index in found]
    return pairs


def _words(problem: Problem) -> list[str]:
    text = unicodedata.normalize("NFKC", " ".join([problem.question, *problem.choices])).casefold()
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)  # 1,000 is 1000
    text = re.sub(r"['’`]", "", text)
    # A point between digits and the signs of mathematics tell questions apart: 3.5 from 35, a - b from a + b.
    text = re.sub(r"(?<!\d)\.|\.(?!\d)|[,;:?!\"“”‘—–…]", " ", text)
    return text.split()


# --- rows: what a file or the hub holds ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """One record: where it is ("FILE, line 3"), its number from 1, and its columns."""

    where: str
    number: int
    data: Mapping[str, Any]


_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")


def _rows(settings: ProblemSettings) -> tuple[list[_Row], str]:
    """All rows, and the stem of their derived ids."""
    path = Path(settings.source).expanduser()
    kinds: dict[str, Callable[[Path], list[_Row]]] = {
        ".jsonl": _json_lines,
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    bare = path.with_suffix("") if path.suffix == ".gz" else path
    kind = kinds.get(bare.suffix)
    if path.is_dir():
        return _hub(settings)
    if path.is_file():
        if kind is None:
            raise InputError(f"{path}: a {path.suffix or 'nameless'} file (accepted: {', '.join(kinds)}, or a folder)")
        for name in ("split", "subset"):
            if getattr(settings, name) is not None:
                raise InputError(f"{path}: {name}: {getattr(settings, name)!r}, but a file has no {name}s")
        return kind(path), bare.stem
    if kind is not None or not _HUB_NAME.fullmatch(settings.source):
        siblings = [sibling.name for sibling in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(path.name, siblings)
        raise InputError(f"{path}: no such file" + (f"; did you mean {str(path.parent / close)!r}?" if close else ""))
    return _hub(settings)


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1 if path.suffix != ".gz" else "?"
        raise InputError(f"{path}, line {line}: not UTF-8 text") from None
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _record(where: str, number: int, data: Any) -> _Row:
    if not isinstance(data, dict):
        raise InputError(f"{where}: not an object of columns but {json.dumps(data, ensure_ascii=False)[:60]}")
    return _Row(where, number, data)


def _json_lines(path: Path) -> list[_Row]:
    rows: list[_Row] = []
    # Not splitlines(): JSON may hold U+2028 and its kin unescaped.
    for line, text in enumerate(_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {line}: not JSON ({error.msg}, column {error.colno})") from None
        rows.append(_record(f"{path}, line {line}", len(rows) + 1, data))
    return rows


def _json(path: Path) -> list[_Row]:
    text = _text(path)
    if text.lstrip().startswith("{"):
        return _json_lines(path)  # as the hub often names them
    try:
        data = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(data, list):
        raise InputError(f"{path}: not a list of objects, and not one object a line")
    return [_record(f"{path}, row {number}", number, item) for number, item in enumerate(data, start=1)]


def _csv(path: Path) -> list[_Row]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    rows: list[_Row] = []
    try:
        header = next(reader, [])
        line = reader.line_num + 1
        for cells in reader:
            where, line = f"{path}, line {line}", reader.line_num + 1
            if not cells:
                continue
            if len(cells) != len(header):
                raise InputError(f"{where}: {len(cells)} cells, but the header has {len(header)} columns")
            rows.append(_Row(where, len(rows) + 1, dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    return rows


def _parquet(path: Path) -> list[_Row]:
    records = read_table(path).to_pylist()
    return [_Row(f"{path}, row {number}", number, record) for number, record in enumerate(records, start=1)]


def _hub(settings: ProblemSettings) -> tuple[list[_Row], str]:
    """Rows of a data set on the hub, or of a folder: data files, or what `save_to_disk` of `datasets` wrote."""
    import datasets  # two seconds that files do not need

    source = settings.source
    try:
        path = Path(source).expanduser()
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            if settings.subset is not None:
                raise InputError(f"subset: {settings.subset!r}, but a saved data set has no subsets")
            data = datasets.load_from_disk(str(path))
        else:
            data = datasets.load_dataset(str(path) if path.is_dir() else source, name=settings.subset)
    except Exception as error:  # whatever the hub, the network or a file of the folder may raise
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
    rows = [_Row(f"{source}, row {number}", number, record) for number, record in enumerate(data, start=1)]
    return rows, stem


# --- from a row to a problem --------------------------------------------------------------------------

_COLUMNS: dict[Format, dict[Role, tuple[str, ...]]] = {
    # The first name that is there is taken; a role whose names are missing is an error if it is required.
    "gsm8k": {"question": ("question",), "answer": ("answer",), "id": ("id",)},
    "math": {
        "question": ("problem", "question"),
        "solution": ("solution",),
        "answer": ("answer",),
        "id": ("id", "unique_id"),
    },
    "mawps": {"question": ("question",), "answer": ("answer",), "id": ("id",)},
    "choice": {"question": ("question",), "choices": ("choices",), "answer": ("answerKey", "answer"), "id": ("id",)},
    "columns": {
        "question": ("question",),
        "answer": ("answer",),
        "solution": ("solution",),
        "choices": ("choices",),
        "id": ("id",),
    },
}
_REQUIRED: dict[Format, tuple[Role, ...]] = {
    "gsm8k": ("question", "answer"),
    "math": ("question",),
    "mawps": ("question", "answer"),
    "choice": ("question", "choices"),
    "columns": ("question",),
}


def _detect(settings: ProblemSettings, first: _Row) -> Format:
    there, answer = set(first.data), first.data.get("answer")
    if settings.columns:
        return "columns"
    if "choices" in there and "question" in there:
        return "choice"
    if "problem" in there and there & {"solution", "answer"}:
        return "math"
    if {"question", "answer"} <= there and isinstance(answer, str) and "####" in answer:
        return "gsm8k"
    return "columns"


def _reader(settings: ProblemSettings, first: _Row) -> Callable[[_Row, str], Problem]:
    """The function from a row and the id to derive to a Problem."""
    layout = _detect(settings, first) if settings.format == "auto" else settings.format
    names = {**_COLUMNS[layout], **{role: (name,) for role, name in settings.columns.items()}}
    required = {*_REQUIRED[layout], *settings.columns}

    def take(row: _Row, role: Role) -> Any:
        for name in names.get(role, ()):
            if name in row.data:
                return row.data[name]
        if role in required:
            raise InputError(f"{row.where}: {_no_column(row, role, names[role][0], settings)}")
        return None

    def read(row: _Row, derived: str) -> Problem:
        question = take(row, "question")
        if not isinstance(question, str):
            raise InputError(f"{row.where}: the question is {json.dumps(question, default=str)[:60]}, not text")
        if not question.strip():
            raise InputError(f"{row.where}: the question is empty")
        choices, labels = _choices(row, take(row, "choices"))
        answer, solution = take(row, "answer"), take(row, "solution")
        if solution is not None and not isinstance(solution, str):
            shown = json.dumps(solution, default=str)[:60]
            raise InputError(f"{row.where}: the solution is {shown}, not text")
        if choices:
            answer = _letter(answer, choices, labels)
        elif layout == "gsm8k" and isinstance(answer, str) and "####" in answer:
            rationale, _, answer = answer.rpartition("####")
            solution = rationale.strip()
        elif layout == "math" and answer is None and solution is not None:
            answer = last_boxed(solution) or ""
        given = _plain(take(row, "id"))
        return Problem(
            id=given or derived,
            question=question.strip(),
            answer=_plain(answer),
            solution=solution,
            choices=choices,
            source=settings.source,
        )

    return read


def _no_column(row: _Row, role: Role, name: str, settings: ProblemSettings) -> str:
    there = ", ".join(map(repr, row.data)) or "none"
    close = nearest(name, [str(key) for key in row.data])
    hint = f"; did you mean {close!r}?" if close else ""
    how = "" if role in settings.columns else f"; name it with columns.{role}"
    return f"no column {name!r} for the {role}{hint} (there are {there}{how})"


def _plain(value: Any) -> str | None:
    """A cell as text; whole floats without their point; None stays None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else str(value).strip()


def _choices(row: _Row, value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Texts and labels of {text: [...], label: [...]}, [{text, label}, ...], [text, ...], or of JSON of one of them."""
    if value is None:
        return (), ()
    try:
        if isinstance(value, str):
            value = json.loads(value)
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            value = {name: [item[name] for item in value] for name in ("text", "label")}
        texts = value["text"] if isinstance(value, dict) else value
        labels = value.get("label", []) if isinstance(value, dict) else []
        if not isinstance(texts, list) or len(texts) < 2 or len(texts) > len(ascii_uppercase):
            raise ValueError
        if labels and len(labels) != len(texts):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        shown = json.dumps(value, ensure_ascii=False, default=str)[:60]
        raise InputError(
            f"{row.where}: the choices are {shown} (accepted: {{text: [...], label: [...]}} or a list, 2 to 26 of them)"
        ) from None
    return tuple(_plain(text) or "" for text in texts), tuple(_plain(label) or "" for label in labels)


def _letter(answer: Any, choices: Sequence[str], labels: Sequence[str]) -> str | None:
    """The letter of the right choice; an index counts from 0; what names no choice stays as it is."""
    if isinstance(answer, int) and 0 <= answer < len(choices) and str(answer) not in labels:
        return ascii_uppercase[answer]
    text = _plain(answer)
    for names in (labels, ascii_uppercase[: len(choices)], choices):
        if text and text in names:
            return ascii_uppercase[names.index(text)]
    return text


def last_boxed(text: str) -> str | None:
    """What the last \\boxed{...} (or \\fbox{...}) holds, braces balanced; None if there is none or it never ends."""
    found = list(re.finditer(r"\\(?:boxed|fbox)(?:\s*\{|\s+([^\s${}]+))", text))
    if not found:
        return None
    if found[-1].group(1) is not None:  # \boxed 5
        return found[-1].group(1)
    start = end = found[-1].end()
    depth = 1
    while depth and end < len(text):
        character = text[end]
        if character == "\\":
            end += 1  # \{ and \} are printed braces, not groups
        elif character in "{}":
            depth += 1 if character == "{" else -1
        end += 1
    return None if depth else text[start : end - 1].strip()


def _check_ids(source: str, problems: Sequence[Problem], rows: Sequence[_Row]) -> None:
    first: dict[str, _Row] = {}
    for problem, row in zip(problems, rows, strict=True):
        if problem.id in first:
            raise InputError(f"{row.where}: the id {problem.id!r} is already that of {first[problem.id].where}")
        first[problem.id] = row
