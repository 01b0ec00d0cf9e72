"""TRL-style preference data as our tables: `prompt` / `chosen` / `rejected` (or `completion`), text or messages.

In: a JSONL, JSON or Parquet file, a folder that `datasets` wrote, or the name of a data set on the hub. Out: `Pairs`
(or `Solutions`) of token ids, each conversation rendered once, whole (rendering.py), so that the policy is trained on
exactly what it would have read and sampled.

The formats: https://huggingface.co/docs/trl/dataset_formats (standard and conversational; explicit and implicit
prompt; prompt-completion).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from mcts_dpo.common.errors import InputError
from mcts_dpo.data.rows import MAX_MIB
from mcts_dpo.models.encoding import SpecialTokens
from mcts_dpo.models.endings import endings
from mcts_dpo.models.loading import tokenizer_digest
from mcts_dpo.preferences.dataset import Pairs, Solutions
from mcts_dpo.training.data.collate import table_of
from mcts_dpo.training.data.fields import Row, Text, short
from mcts_dpo.training.data.rendering import Rendered, render, tools_left_out
from mcts_dpo.training.data.sources import IDS, rows_of
from mcts_dpo.training.settings import BAD_ROWS, TrainingSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)


def own_table(path: Path, objective: str) -> Path | None:
    """Our own table at a path: the file itself, or the objective's table in a folder that `mcts-dpo pairs` wrote.

    None if there is none.
    """
    file = path / f"{table_of(objective).what}.parquet" if path.is_dir() else path
    return file if is_ours(file) else None


def is_ours(path: Path) -> bool:
    """Whether a file is one of our tables (with token ids), by its Parquet footer."""
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return IDS in pq.read_schema(path).names
    except (pa.ArrowException, OSError, ValueError):
        return False


def load_table(
    source: str | Path, tokenizer: PreTrainedTokenizerBase, settings: TrainingSettings, context: int | None = None
) -> Pairs | Solutions:
    """TRL-style data as the table that the objective learns from. context: tokens that a row may have.

    Raises InputError also for an objective that learns from lists of siblings, which such data does not have.
    """
    wanted = table_of(settings.objective.kind)
    options: dict[str, Any] = {
        "split": settings.data.split,
        "append_eos": settings.data.append_eos,
        "special_tokens": settings.data.special_tokens,
        "bad_rows": settings.data.bad_rows,
        "context": context,
        "max_mib": settings.data.max_mib,
    }
    if wanted is Solutions:
        return load_completions(source, tokenizer, **options)
    if wanted is not Pairs:
        raise InputError(
            f"training.objective: {settings.objective.kind!r} learns from lists of siblings; {source} is no table of "
            "them (accepted: siblings.parquet, or an objective on pairs)"
        )
    return load_preferences(source, tokenizer, **options)


def load_preferences(
    source: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str = "train",
    append_eos: bool = True,
    special_tokens: SpecialTokens = "split",
    bad_rows: float = BAD_ROWS,
    context: int | None = None,
    max_mib: int = MAX_MIB,
) -> Pairs:
    """Preference pairs from TRL-style data.

    source:     a .jsonl, .json (one object per line, or a list of them) or .parquet file, a folder that `save_to_disk`
                wrote, or a name that `datasets.load_dataset` knows, with its configuration behind a colon
                ("name:config"); split: which of its splits.
    append_eos: whether a completion ends the answer, so that the end of sequence belongs to it, and nothing that a
                chat template writes after it. False for single steps: they are taken as they are.
    special_tokens: what happens to control tokens in messages: "split" spells them out, but for those at the end of
                what the assistant says, which the chat template writes itself; "allow" lets them act.
    bad_rows:   the share of rows that may be unusable, 0 to 1: they are named in warnings and left out.
    context:    tokens that a row may have (None: any number); a longer one is unusable.
    max_mib:    how much text a compressed file may hold, in MiB.

    Fields: `chosen` and `rejected`; `prompt`, without it the prompt is the common beginning of the two (also, as in
    TRL, if the prompt is text and the others are conversations); optionally `tools` and `chat_template_kwargs` for the
    chat template, `weight` (> 0, else 1) and `margin`, or `score_chosen` and `score_rejected` whose difference it is.

    Raises InputError naming the file, the line and the field of the first row that cannot be a pair, where more than
    `bad_rows` of them cannot.
    """
    ends = endings(tokenizer)

    def pair(row: Row) -> dict[str, Any]:
        prompt, chosen, rejected = _split_prompt(row)
        both = {"chosen": chosen, "rejected": rejected}
        rendered = render(row, tokenizer, prompt, both, append_eos, special_tokens, ends)
        _require_context(row, rendered, context)
        if rendered.completions[0] == rendered.completions[1]:
            shown = short(chosen if isinstance(chosen, str) else chosen[-1].get("content"))
            raise InputError(f"{row.where}: rejected: equals chosen ({shown}); a pair needs two answers")
        return _pair_columns(row, rendered)

    columns = _usable(source, rows_of(source, split, max_mib), tokenizer, bad_rows, pair)
    n = len(columns["problem_id"])
    columns |= {name: list(range(n)) for name in ("tree", "parent", "chosen_node", "rejected_node")}
    return Pairs.from_columns(columns, tokenizer_digest(tokenizer))


def _pair_columns(row: Row, rendered: Rendered) -> dict[str, Any]:
    """A pair's value in each column of the table, except node numbers."""
    unknown, once = float("nan"), ("chosen_visits", "rejected_visits", "chosen_samples", "rejected_samples")
    return {
        "problem_id": row.where,
        "prompt": rendered.texts[0],
        "chosen": rendered.texts[1],
        "rejected": rendered.texts[2],
        "prompt_tokens": rendered.prompt,
        "prefix_tokens": [],
        "chosen_tokens": rendered.completions[0],
        "rejected_tokens": rendered.completions[1],
        "chosen_environment": rendered.environment[0],
        "rejected_environment": rendered.environment[1],
        "weight": _weight(row),
        "margin": row.number("margin", row.number("score_chosen", 0.0) - row.number("score_rejected", 0.0)),
        "chosen_q": row.number("score_chosen", 1.0),
        "rejected_q": row.number("score_rejected", -1.0),
        "smoothing": 0.0,
        "chosen_logprob": unknown,
        "rejected_logprob": unknown,
        **dict.fromkeys(once, 1),
    }


def load_completions(
    source: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str = "train",
    append_eos: bool = True,
    special_tokens: SpecialTokens = "split",
    bad_rows: float = BAD_ROWS,
    context: int | None = None,
    max_mib: int = MAX_MIB,
) -> Solutions:
    """Solutions to imitate from TRL-style data: `prompt` with `completion` or `chosen`. See `load_preferences`."""
    ends = endings(tokenizer)

    def solution(row: Row) -> dict[str, Any]:
        if row.value("completion") is not None:
            prompt, said = row.text("prompt"), {"completion": row.text("completion")}
        else:
            prompt, chosen, _ = _split_prompt(row)
            said = {"chosen": chosen}
        rendered = render(row, tokenizer, prompt, said, append_eos, special_tokens, ends)
        _require_context(row, rendered, context)
        return _solution_columns(row, rendered)

    columns = _usable(source, rows_of(source, split, max_mib), tokenizer, bad_rows, solution)
    columns["tree"] = list(range(len(columns["problem_id"])))
    return Solutions.from_columns(columns, tokenizer_digest(tokenizer))


def _solution_columns(row: Row, rendered: Rendered) -> dict[str, Any]:
    return {
        "problem_id": row.where,
        "leaf": 0,
        "prompt": rendered.texts[0],
        "completion": rendered.texts[1],
        "prompt_tokens": rendered.prompt,
        "completion_tokens": rendered.completions[0],
        "completion_environment": rendered.environment[0],
        "q": 1.0,
        "weight": _weight(row),
    }


def _usable(
    source: str | Path,
    rows: Iterable[Row | InputError],
    tokenizer: PreTrainedTokenizerBase,
    share: float,
    read: Callable[[Row], dict[str, Any]],
) -> dict[str, list[Any]]:
    """The columns that `read` makes of rows. Unusable rows are left out and named in warnings.

    share: of the rows that may be unusable. Raises InputError about the first of them if there are more, and where
    nothing is left.
    """
    kept: list[dict[str, Any]] = []
    bad: list[InputError] = []
    without_tools = 0
    for found in rows:
        try:
            if isinstance(found, InputError):
                raise found
            kept.append(read(found))
            without_tools += tools_left_out(found, tokenizer)
        except InputError as error:
            bad.append(error)
    _report(source, len(kept), bad, share)
    if without_tools:
        logger.warning("%s: the policy's chat template leaves out the tools of %d rows", source, without_tools)
    return {name: [columns[name] for columns in kept] for name in kept[0]}


NAMED = 5
"""The number of unusable rows that are named one by one."""


def _report(source: str | Path, kept: int, bad: list[InputError], share: float) -> None:
    if not kept and not bad:
        raise InputError(f"{source}: no rows; there is nothing to learn from")
    if not kept or len(bad) > share * (kept + len(bad)):
        more = f" (so are {len(bad) - 1} more rows of {kept + len(bad)}; training.data.bad_rows: {share:g})"
        raise InputError(f"{bad[0]}{more if len(bad) > 1 else ''}")
    for error in bad[:NAMED]:
        logger.warning("%s; this row is left out", error)
    if len(bad) > NAMED:
        logger.warning("%s: %d of %d rows are left out", source, len(bad), kept + len(bad))


def _require_context(row: Row, rendered: Rendered, context: int | None) -> None:
    longest = len(rendered.prompt) + max(map(len, rendered.completions))
    if context is not None and longest > context:
        raise InputError(f"{row.where}: {longest} tokens (accepted: up to {context}, the policy's context)")


def _weight(row: Row) -> float:
    weight = row.number("weight", 1.0)
    if not 0 < weight < float("inf"):
        raise InputError(f"{row.where}: weight: {weight:g} (accepted: a finite number above 0)")
    return weight


def _split_prompt(row: Row) -> tuple[Text, Text, Text]:
    """Prompt, chosen and rejected; without a prompt, it is the common beginning of the other two. The same holds if the
    prompt is text and the others are conversations, whose question it repeats.
    """
    chosen, rejected = row.text("chosen"), row.text("rejected")
    if type(chosen) is not type(rejected):
        raise InputError(
            f"{row.where}: rejected: is of another kind than chosen (accepted: both text or both messages)"
        )
    prompt = None if row.value("prompt") is None else row.text("prompt")
    if prompt is not None and not (isinstance(prompt, str) and not isinstance(chosen, str)):
        return prompt, chosen, rejected
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    if same == 0 or same in (len(chosen), len(rejected)):
        what = "is missing" if prompt is None else "is text, and the others are conversations"
        raise InputError(
            f"{row.where}: prompt: {what}; chosen and rejected do not begin alike and then differ "
            "(accepted: a prompt of the same kind, or conversations that share their beginning)"
        )
    return chosen[:same], chosen[same:], rejected[same:]
