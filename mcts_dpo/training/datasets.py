"""TRL-style preference data as our tables: `prompt` / `chosen` / `rejected` (or `completion`), text or messages.

In: a JSONL, JSON or Parquet file, a folder that `datasets` wrote, or the name of a data set on the hub. Out: `Pairs`
(or `Solutions`) of token ids, each conversation rendered once, whole (rendering.py), so that what is trained on is what
the policy would have read and sampled. Knows no objective and no model.

The formats: https://huggingface.co/docs/trl/dataset_formats (standard and conversational; explicit and implicit
prompt; prompt-completion).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcts_dpo.encoding import SpecialTokens
from mcts_dpo.files import InputError, read_table
from mcts_dpo.models import tokenizer_digest
from mcts_dpo.preferences.dataset import Pairs, Solutions
from mcts_dpo.training.lessons import table_of
from mcts_dpo.training.rendering import Rendered, Row, Text, render, short
from mcts_dpo.training.settings import Objective, TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def own_table(path: Path, objective: Objective) -> Path | None:
    """The table of ours at a path: the file itself, or, of a folder such as `mcts-dpo pairs` writes, the one that the
    objective learns from. None if there is none.
    """
    file = path / f"{table_of(objective).what}.parquet" if path.is_dir() else path
    return file if is_ours(file) else None


_IDS = "prompt_tokens"
"""The column by which a table of ours is known."""


def is_ours(path: Path) -> bool:
    """Whether a file is a table of ours (it holds token ids), by its Parquet footer."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError):
        return False
    return _IDS in schema.names


def load_table(source: str | Path, tokenizer: PreTrainedTokenizerBase, settings: TrainingSettings) -> Pairs | Solutions:
    """TRL-style data as the table that the objective learns from.

    Raises InputError also for an objective that learns from lists of siblings, which such data does not have.
    """
    wanted = table_of(settings.objective)
    options: dict[str, Any] = {
        "split": settings.split,
        "append_eos": settings.append_eos,
        "special_tokens": settings.special_tokens,
    }
    if wanted is Solutions:
        return load_completions(source, tokenizer, **options)
    if wanted is not Pairs:
        raise InputError(
            f"training.objective: {settings.objective!r} learns from lists of siblings; {source} is no table of them "
            "(accepted: siblings.parquet, or an objective on pairs)"
        )
    return load_preferences(source, tokenizer, **options)


def load_preferences(
    source: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str = "train",
    append_eos: bool = True,
    special_tokens: SpecialTokens = "split",
) -> Pairs:
    """Preference pairs from TRL-style data.

    source:     a .jsonl, .json (one object per line, or a list of them) or .parquet file, a folder that `save_to_disk`
                wrote, or a name that `datasets.load_dataset` knows, with its configuration behind a colon
                ("name:config"); split: which of its splits.
    append_eos: whether a completion ends the answer, so that the end of sequence belongs to it, and nothing that a
                chat template writes after it. False for single steps: they are taken as they are.
    special_tokens: what becomes of control tokens in messages: "split" spells them out, but for those at the end of
                what the assistant says, which the chat template writes itself; "allow" lets them act.

    Fields: `chosen` and `rejected`; `prompt`, without which it is what the two begin with alike (so it is, as in TRL,
    where it is text beside conversations); optionally `tools` and `chat_template_kwargs` for the chat template,
    `weight` (> 0, else 1) and `margin`, or `score_chosen` and `score_rejected` whose difference it is.

    Raises InputError naming the file, the line and the field for a row that cannot be a pair.
    """
    kept: list[tuple[Row, Rendered, float, float]] = []
    for row in rows_of(source, split):
        prompt, chosen, rejected = _split_prompt(row)
        rendered = render(row, tokenizer, prompt, {"chosen": chosen, "rejected": rejected}, append_eos, special_tokens)
        if rendered.completions[0] == rendered.completions[1]:
            shown = short(chosen if isinstance(chosen, str) else chosen[-1].get("content"))
            raise InputError(f"{row.where}: rejected: equals chosen ({shown}); a pair needs two answers")
        margin = row.number("margin", row.number("score_chosen", 0.0) - row.number("score_rejected", 0.0))
        kept.append((row, rendered, _weight(row), margin))
    if not kept:
        raise InputError(f"{source}: no rows; there is nothing to learn from")
    n = len(kept)
    columns: dict[str, Any] = {
        "problem_id": [row.where for row, *_ in kept],
        "prompt": [one.texts[0] for _, one, *_ in kept],
        "chosen": [one.texts[1] for _, one, *_ in kept],
        "rejected": [one.texts[2] for _, one, *_ in kept],
        "prompt_tokens": [one.prompt for _, one, *_ in kept],
        "prefix_tokens": [[]] * n,
        "chosen_tokens": [one.completions[0] for _, one, *_ in kept],
        "rejected_tokens": [one.completions[1] for _, one, *_ in kept],
        "chosen_observed": [one.observed[0] for _, one, *_ in kept],
        "rejected_observed": [one.observed[1] for _, one, *_ in kept],
        "weight": [weight for *_, weight, _ in kept],
        "margin": [margin for *_, margin in kept],
        "chosen_q": [row.number("score_chosen", 1.0) for row, *_ in kept],
        "rejected_q": [row.number("score_rejected", -1.0) for row, *_ in kept],
    }
    columns |= {"smoothing": [0.0] * n, "chosen_logprob": [float("nan")] * n, "rejected_logprob": [float("nan")] * n}
    columns |= {name: list(range(n)) for name in ("tree", "parent", "chosen_node", "rejected_node")}
    columns |= {name: [1] * n for name in ("chosen_visits", "rejected_visits", "chosen_samples", "rejected_samples")}
    return Pairs.from_columns(columns, tokenizer_digest(tokenizer))


def load_completions(
    source: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str = "train",
    append_eos: bool = True,
    special_tokens: SpecialTokens = "split",
) -> Solutions:
    """Solutions to imitate from TRL-style data: `prompt` with `completion` or `chosen`. See `load_preferences`."""
    kept: list[tuple[Row, Rendered, float]] = []
    for row in rows_of(source, split):
        if "completion" in row.values:
            prompt, completion = row.text("prompt"), row.text("completion")
            rendered = render(row, tokenizer, prompt, {"completion": completion}, append_eos, special_tokens)
        else:
            prompt, chosen, _ = _split_prompt(row)
            rendered = render(row, tokenizer, prompt, {"chosen": chosen}, append_eos, special_tokens)
        kept.append((row, rendered, _weight(row)))
    if not kept:
        raise InputError(f"{source}: no rows; there is nothing to learn from")
    columns: dict[str, Any] = {
        "problem_id": [row.where for row, *_ in kept],
        "tree": list(range(len(kept))),
        "leaf": [0] * len(kept),
        "prompt": [one.texts[0] for _, one, _ in kept],
        "completion": [one.texts[1] for _, one, _ in kept],
        "prompt_tokens": [one.prompt for _, one, _ in kept],
        "completion_tokens": [one.completions[0] for _, one, _ in kept],
        "completion_observed": [one.observed[0] for _, one, _ in kept],
        "q": [1.0] * len(kept),
        "weight": [weight for *_, weight in kept],
    }
    return Solutions.from_columns(columns, tokenizer_digest(tokenizer))


def rows_of(source: str | Path, split: str = "train") -> Iterator[Row]:
    """The rows of a file, or of a data set by name. Raises InputError naming what cannot be read."""
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in (".jsonl", ".json"):
        yield from _json_rows(path)
    elif suffix == ".parquet":
        for number, values in enumerate(read_table(path).to_pylist(), 1):
            yield Row(values, f"{source}, row {number}")
    elif path.is_file():
        raise InputError(f"{source}: not preference data (accepted: a .jsonl or .parquet file, or a data set's name)")
    elif str(source).startswith(("/", ".", "~")) and not path.exists():
        raise InputError(f"{source}: no such file")
    else:
        yield from _hub_rows(str(source), split)


def _weight(row: Row) -> float:
    weight = row.number("weight", 1.0)
    if not 0 < weight < float("inf"):
        raise InputError(f"{row.where}: weight: {weight:g} (accepted: a finite number above 0)")
    return weight


def _json_rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8") as lines:
            if path.suffix.lower() == ".json" and lines.read(4096).lstrip().startswith("["):
                yield from _json_list(path)
                return
            lines.seek(0)
            for number, line in enumerate(lines, 1):
                where = f"{path}, line {number}"
                if not line.strip():
                    continue
                try:
                    values = json.loads(line)
                except json.JSONDecodeError as error:
                    raise InputError(f"{where}: not JSON ({error.msg})") from None
                yield _object(values, where, "one object per line")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None


def _json_list(path: Path) -> Iterator[Row]:
    try:
        objects = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    for number, values in enumerate(objects, 1):
        yield _object(values, f"{path}, row {number}", "a list of objects")


def _object(values: Any, where: str, accepted: str) -> Row:
    if not isinstance(values, dict):
        raise InputError(f"{where}: {short(values)} (accepted: {accepted})")
    return Row(values, where)


def _hub_rows(name: str, split: str) -> Iterator[Row]:
    path, _, configuration = name.partition(":")
    try:
        data = _saved(Path(path), split) if _is_saved(Path(path)) else _published(path, configuration, split)
    except Exception as error:  # whatever the hub's client of the day raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        what = "not a folder that `datasets` reads" if Path(path).is_dir() else "no such file or data set on the hub"
        raise InputError(f"{name}: {what} ({reason})") from None
    if _IDS in data.column_names:
        raise InputError(
            f"{name}: holds token ids ({_IDS}), which its text would not give back (accepted: the .parquet file itself)"
        )
    for number, values in enumerate(data, 1):
        yield Row(values, f"{name}, row {number}")


def _is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote it."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _saved(folder: Path, split: str) -> Any:
    from datasets import Dataset, load_from_disk

    found = load_from_disk(folder)
    if isinstance(found, Dataset):
        return found
    if split not in found:
        raise ValueError(f"Unknown split {split!r}; it has {', '.join(found)}")
    return found[split]


def _published(path: str, configuration: str, split: str) -> Any:
    from datasets import load_dataset

    return load_dataset(path, configuration or None, split=split)


def _split_prompt(row: Row) -> tuple[Text, Text, Text]:
    """Prompt, chosen and rejected; without a prompt, it is what the other two begin with alike. So it is where the
    prompt is text and the others are conversations, of which it repeats the question.
    """
    chosen, rejected = row.text("chosen"), row.text("rejected")
    if type(chosen) is not type(rejected):
        raise InputError(
            f"{row.where}: rejected: is of another kind than chosen (accepted: both text or both messages)"
        )
    prompt = None if row.values.get("prompt") is None else row.text("prompt")
    if prompt is not None and not (isinstance(prompt, str) and not isinstance(chosen, str)):
        return prompt, chosen, rejected
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    if same == 0 or same in (len(chosen), len(rejected)):
        what = "is missing" if prompt is None else "is text beside conversations"
        raise InputError(
            f"{row.where}: prompt: {what}, and chosen and rejected do not begin alike and then differ "
            "(accepted: a prompt of the same kind, or conversations that share their beginning)"
        )
    return chosen[:same], chosen[same:], rejected[same:]
