"""A process reward model as a function of paths: encode, cut to the judge's context, read, aggregate.

In: settings. Out: `ProcessJudge`, whose `scores` all problems of a search share, so that their paths are one batch.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.rewards.base import SolutionPath
from mcts_dpo.rewards.process.families import FAMILIES, Family, Head, Words
from mcts_dpo.rewards.process.layouts import Encoded, Layout, token_of, trl
from mcts_dpo.rewards.process.loading import JudgeFiles, OwnHead, head_spec, open_reader, word_pair
from mcts_dpo.rewards.process.pooling import PoolingReader
from mcts_dpo.rewards.process.readouts import Reader, aggregated, probability_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mcts_dpo.rewards.process import ProcessSettings

_log = logging.getLogger(__name__)

Item = tuple[str, SolutionPath]
"""A question and a path."""


class ProcessJudge:
    """What scores paths. cut, unknown: how many paths lost leading steps, and how many got no score, so far."""

    def __init__(
        self,
        name: str,
        encode: Callable[[str, SolutionPath, int], Encoded | None],
        reader: Reader,
        aggregate: Callable[[Sequence[float]], float],
        context: int,
        tokenizer: str = "",
    ) -> None:
        """Put a judge together.

        name: the model, for warnings. encode: (question, path, k) → the path without its first k steps; None if
        nothing is left. context: tokens that the reader may get. tokenizer: digest of the tokenizer whose ids it reads;
        "" if it reads text.
        """
        self.name, self.tokenizer, self.context = name, tokenizer, context
        self._encode, self.reader, self._aggregate = encode, reader, aggregate
        self.cut = self.unknown = 0
        self._lock = threading.Lock()

    def scores(self, items: Sequence[Item]) -> list[float]:
        """One score per path, in [0, 1]; nan where there is none."""
        return [math.nan if one is None else self._aggregate(one) for one in self.step_scores(items)]

    def step_scores(self, items: Sequence[Item]) -> list[list[float] | None]:
        """The scores of each path's steps (of those that were not cut), in [0, 1]; None where there are none."""
        encoded = [self._fitted(question, path) for question, path in items]
        known = [index for index, one in enumerate(encoded) if one is not None]
        found: list[list[float] | None] = [None] * len(items)
        read = self.reader.scores([one for one in encoded if one is not None])
        for index, scores in zip(known, read, strict=True):
            found[index] = scores
        self._count("unknown", sum(one is None for one in found), "got no score (nan)")
        return found

    def _fitted(self, question: str, path: SolutionPath) -> Encoded | None:
        """The path without the leading steps that exceed the judge's context."""
        for first in range(max(1, len(path.steps))):
            encoded = self._encode(question, path, first)
            if encoded is None or len(encoded.ids) <= self.context:
                self._count("cut", int(first > 0 and encoded is not None), "were longer than the judge's context: cut")
                return encoded
        return None

    def _count(self, what: str, more: int, says: str) -> None:
        with self._lock:
            before = getattr(self, what)
            setattr(self, what, before + more)
        if more and not before:
            _log.warning("%s: paths %s; later ones are only counted", self.name, says)


def text_encoder(layout: Layout, tag: int | None) -> Callable[[str, SolutionPath, int], Encoded | None]:
    """Encodes the texts of a path's steps. tag: the token at the places; a path in which it is lost has no score."""

    def encode(question: str, path: SolutionPath, first: int) -> Encoded | None:
        steps = [step for step in _texts(path) if step][first:]
        if not steps:
            return None
        found = layout(question, steps)
        return found if tag is None or all(found.ids[place] == tag for place in found.places) else None

    return encode


def _texts(path: SolutionPath) -> list[str]:
    """The steps' texts, stripped. What precedes the first step (`PromptSettings.prefill`) belongs to it."""
    steps = list(path.steps) or [path.text]
    if path.text.endswith(joined := "".join(steps)):
        steps[0] = path.text.removesuffix(joined) + steps[0]
    return [step.strip() for step in steps]


def policy_encoder(question: str, path: SolutionPath, first: int) -> Encoded | None:
    """Encodes a path as the policy's own ids; the place of a step is its last token."""
    ends = path.ends or (len(path.tokens),)
    begin = ends[first - 1] if first else 0
    places = [len(path.prompt) + end - begin - 1 for end in ends[first:] if end > begin]
    if not places:
        return None
    return Encoded((*path.prompt, *path.tokens[begin:]), tuple(places), len(path.prompt))


def judge_for(settings: ProcessSettings) -> ProcessJudge:
    """The judge of these settings, opened once. Raises InputError if it cannot be used."""
    path = Path(settings.model).expanduser()
    marks = [path / name for name in ("config.json", "process_reward.json", "model.safetensors")]
    changed = tuple(mark.stat().st_mtime_ns if mark.exists() else 0 for mark in marks)
    return _open_once(settings.model_copy(update={"weight": 1.0, "at": "all"}), changed)


def require_tokenizer(judge: ProcessJudge, digest: str) -> None:
    """Raise InputError if the judge reads the ids of a tokenizer other than the one with this digest."""
    if judge.tokenizer and judge.tokenizer != digest:
        raise InputError(f"{judge.name}: was trained with another tokenizer than that of the policy of this search")


@lru_cache(maxsize=2)
def _open_once(settings: ProcessSettings, changed: tuple[int, ...]) -> ProcessJudge:
    return open_judge(settings)


def open_judge(settings: ProcessSettings) -> ProcessJudge:
    """Open a judge. Raises InputError as `judge_for`."""
    files = JudgeFiles.find(settings.model)
    name = files.family(settings.family)
    family = FAMILIES[name]
    where = f"{settings.model}: family {name}"
    if name == "pathfinder" and settings.aggregate not in (None, "last"):
        raise InputError(
            f"search.rewards.process.aggregate: {settings.aggregate!r}; pathfinder scores a path's last step only "
            "(accepted: 'last')"
        )
    aggregate = settings.aggregate or family.aggregate

    def combine(scores: Sequence[float]) -> float:
        return aggregated(aggregate, scores, family.temperature)

    tokenizer = None if family.layout is None else _tokenizer(files, where)
    if settings.url:
        reader: Reader = _served(settings, files, name, tokenizer)
    else:
        reader = open_reader(files, name, tokenizer, settings.reference, settings.dtype)
    context = _context(settings, files, family)
    if family.layout is None:
        digest = OwnHead.read(files.folder).tokenizer
        return ProcessJudge(settings.model, policy_encoder, reader, combine, context, digest)
    assert tokenizer is not None
    layout = trl(tokenizer, settings.separator) if name in ("trl", "pure") else family.layout(tokenizer)
    tag = token_of(tokenizer, family.tag, where) if family.tag else None
    # PathFinder's places are before its tags.
    return ProcessJudge(
        settings.model, text_encoder(layout, None if name == "pathfinder" else tag), reader, combine, context
    )


def _tokenizer(files: JudgeFiles, where: str) -> PreTrainedTokenizerBase:
    found = load_tokenizer(files.folder)
    if not found.is_fast:
        raise InputError(f"{where}: its tokenizer gives no offsets (accepted: one with a tokenizer.json)")
    return found


def _served(settings: ProcessSettings, files: JudgeFiles, name: str, tokenizer: Any) -> PoolingReader:
    family, where = FAMILIES[name], f"{settings.model}: family {name}"
    if not family.served:
        raise InputError(
            f"search.rewards.process.url: a pooling server gives the rows at the tags, and {name} reads others "
            "(accepted: null, for local weights)"
        )
    tag = token_of(tokenizer, family.tag, where) if family.tag else None
    assert settings.url is not None
    if isinstance(family.readout, Words):
        word_pair(tokenizer, family.readout, where)  # refuses a tokenizer without them
        return PoolingReader(settings.url, settings.timeout, 2, probability_of(0), tag)
    assert isinstance(family.readout, Head)
    outputs, to_scores = head_spec(files, name)
    return PoolingReader(settings.url, settings.timeout, outputs, to_scores, tag)


def _context(settings: ProcessSettings, files: JudgeFiles, family: Family) -> int:
    """Tokens that the judge may read."""
    most = files.config.get("max_position_embeddings") or files.config.get("n_positions") or 1 << 30
    if settings.context is not None and settings.context > most:
        raise InputError(
            f"search.rewards.process.context: {settings.context} exceeds what the model was made for "
            f"(accepted: 1 to {most})"
        )
    return int(settings.context or min(most, family.context or most))
