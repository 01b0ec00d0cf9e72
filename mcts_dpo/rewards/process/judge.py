"""A process reward model as a function of paths: encode, cut to the judge's context, read, aggregate.

In: settings. Out: `ProcessJudge`, whose `scores` all problems of a search share, so that their paths are one batch.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import load_tokenizer, tokenizer_digest
from mcts_dpo.rewards.base import SolutionPath
from mcts_dpo.rewards.process.encoding import Encode, fitted, policy_encoder, text_encoder
from mcts_dpo.rewards.process.families import FAMILIES, Family, Head
from mcts_dpo.rewards.process.layouts import Encoded, token_of, trl
from mcts_dpo.rewards.process.loading import JudgeFiles, OwnHead, head_spec, open_reader
from mcts_dpo.rewards.process.pooling import PoolingReader
from mcts_dpo.rewards.process.readouts import Reader, aggregated

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mcts_dpo.rewards.process import ProcessSettings

_log = logging.getLogger(__name__)

Item = tuple[str, SolutionPath]
"""A question and a path."""


class ProcessJudge:
    """What scores paths. It counts what it has done so far.

    tokens:  token ids of the paths that it read, shared ones counted for each.
    cut:     paths that lost leading steps. unknown: paths without a score.
    """

    def __init__(
        self,
        name: str,
        encode: Encode,
        reader: Reader,
        aggregate: Callable[[Sequence[float]], float],
        context: int,
        tokenizer: str = "",
    ) -> None:
        """Put a judge together.

        name: the model, for warnings. aggregate: the scores of steps → one. context: tokens that the reader may get.
        tokenizer: digest of the tokenizer whose ids it reads; "" if it reads text.
        """
        self.name, self.tokenizer, self.context = name, tokenizer, context
        self._encode, self._reader, self._aggregate = encode, reader, aggregate
        self.tokens = self.cut = self.unknown = 0
        self._lock = threading.Lock()

    def scores(self, items: Sequence[Item]) -> list[float]:
        """One score per path, in [0, 1]; nan where there is none."""
        known = [[score for score in steps if not math.isnan(score)] for steps in self.step_scores(items)]
        return [self._aggregate(steps) if steps else math.nan for steps in known]

    def step_scores(self, items: Sequence[Item]) -> list[list[float]]:
        """For each path, one score per step, in [0, 1]; nan for a step that was cut, is empty, or got no score."""
        encoded = [self._fitted(question, path) for question, path in items]
        read = iter(self._reader.scores([one for one in encoded if one is not None]))
        found = [[math.nan] * max(1, len(path.steps), len(path.ends)) for _, path in items]
        for steps, one in zip(found, encoded, strict=True):
            scores = None if one is None else next(read)
            if one is not None and scores is not None:
                for index, score in zip(
                    reversed(one.steps), reversed(scores), strict=False
                ):  # PathFinder: the last only
                    steps[index] = score
        self._count("unknown", sum(all(map(math.isnan, steps)) for steps in found), "got no score (nan)")
        return found

    def _fitted(self, question: str, path: SolutionPath) -> Encoded | None:
        found, cut = fitted(self._encode, self.context, question, path)
        self._count("tokens", 0 if found is None else len(found.ids))
        self._count("cut", int(cut > 0 and found is not None), "lost leading steps, beyond the judge's context")
        return found

    def _count(self, what: str, more: int, says: str = "") -> None:
        with self._lock:
            before = getattr(self, what)
            setattr(self, what, before + more)
        if says and more and not before:
            _log.warning("%s: paths %s; later ones are only counted", self.name, says)


def judge_for(settings: ProcessSettings) -> ProcessJudge:
    """The judge of these settings, opened once. Raises InputError if it cannot be used."""
    path = Path(settings.model).expanduser()
    marks = [path / name for name in ("config.json", "process_reward.json", "model.safetensors")]
    changed = tuple(mark.stat().st_mtime_ns if mark.exists() else 0 for mark in marks)
    return _open_once(settings.model_copy(update={"weight": 1.0, "at": "all"}), changed)


def require_tokenizer(judge: ProcessJudge, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise InputError if the judge reads the ids of another tokenizer than the policy's, `tokenizer`."""
    if judge.tokenizer and judge.tokenizer != tokenizer_digest(tokenizer):
        raise InputError(f"{judge.name}: was trained with another tokenizer than that of the policy of this search")


@lru_cache(maxsize=2)
def _open_once(settings: ProcessSettings, changed: tuple[int, ...]) -> ProcessJudge:
    return open_judge(settings)


def open_judge(settings: ProcessSettings) -> ProcessJudge:
    """Open a judge. Raises InputError as `judge_for`."""
    files = JudgeFiles.find(settings.model, weights=settings.url is None)
    name = files.family(settings.family)
    family = FAMILIES[name]
    where = f"{settings.model}: family {name}"
    if name == "pathfinder" and settings.aggregate not in (None, "last"):
        raise InputError(
            f"search.rewards.process.aggregate: {settings.aggregate!r}; pathfinder scores a path's last step only "
            "(accepted: 'last')"
        )
    if not isinstance(family.readout, Head):
        files.require_language_model(name)
    context = _context(settings, files, family)
    tokenizer = None if family.layout is None else _tokenizer(files, where)
    encode = policy_encoder if tokenizer is None else _text_encoder(settings, name, tokenizer, where)
    digest = OwnHead.read(files.folder).tokenizer if tokenizer is None else ""
    if settings.url:
        reader: Reader = _served(settings, files, name, tokenizer)
    else:
        reader = open_reader(files, name, tokenizer, settings.reference, settings.dtype)
    aggregate = partial(aggregated, settings.aggregate or family.aggregate, temperature=family.temperature)
    return ProcessJudge(settings.model, encode, reader, aggregate, context, digest)


def _text_encoder(settings: ProcessSettings, name: str, tokenizer: PreTrainedTokenizerBase, where: str) -> Encode:
    family = FAMILIES[name]
    assert family.layout is not None
    layout = trl(tokenizer, settings.separator) if name in ("trl", "pure") else family.layout(tokenizer)
    tag = token_of(tokenizer, family.tag, where) if family.tag else None
    encode = text_encoder(layout, None if name == "pathfinder" else tag)  # its places are before its tags
    _try(encode, where)
    return encode


def _try(encode: Encode, where: str) -> None:
    """Raise InputError unless a small path can be encoded: a chat template may be missing, or refuse the turns."""
    try:
        found = encode("1 + 2 = ?", SolutionPath((), (), "3\nSo 3.", ("3\n", "So 3.")), 0)
    except InputError:
        raise
    except Exception as error:  # a template is a program, and can raise anything
        raise InputError(f"{where}: its chat template cannot render its layout ({error})".splitlines()[0]) from None
    if found is None:
        raise InputError(f"{where}: its tokenizer splits or merges the tag of this family")


def _tokenizer(files: JudgeFiles, where: str) -> PreTrainedTokenizerBase:
    found = load_tokenizer(files.folder)
    if not found.is_fast:
        raise InputError(f"{where}: its tokenizer gives no offsets (accepted: one with a tokenizer.json)")
    return found


def _served(settings: ProcessSettings, files: JudgeFiles, name: str, tokenizer: Any) -> PoolingReader:
    family = FAMILIES[name]
    if not isinstance(family.readout, Head):
        # vLLM gives no logits of a language model in a pooling server, and only rows at the tags: RLHFlow's are before.
        raise InputError(
            f"search.rewards.process.url: a pooling server computes the outputs of a head, and {name} reads a language "
            "model's next token (accepted: null, for local weights)"
        )
    tag = token_of(tokenizer, family.tag, f"{settings.model}: family {name}") if family.tag else None
    outputs, to_scores = head_spec(files, name)
    return PoolingReader(str(settings.url), settings.timeout, outputs, to_scores, tag)


def _context(settings: ProcessSettings, files: JudgeFiles, family: Family) -> int:
    """Tokens that the judge may read."""
    most = files.config.get("max_position_embeddings") or files.config.get("n_positions") or 1 << 30
    if settings.context is not None and settings.context > most:
        raise InputError(
            f"search.rewards.process.context: {settings.context} exceeds what the model was made for "
            f"(accepted: 1 to {most})"
        )
    return int(settings.context or min(most, family.context or most))
