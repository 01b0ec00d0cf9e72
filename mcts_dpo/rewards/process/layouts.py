"""What a process reward model reads: a question and its steps as token ids, and the places of the steps' scores.

In: a tokenizer, a question, the texts of the steps. Out: `Encoded`. One function per layout makes it for a tokenizer.
Each layout follows the code of its family's authors, named in its docstring. What is not confirmed:
docs/process-rewards.md.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.templates import render_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARK = "\ue000"
"""A private character that marks a position of a text until the text is tokenised. Questions and steps hold none."""
_NUMBERED = re.compile(r"step \d+\s*[:.]", re.IGNORECASE)
SHEPHERD_TAG, PSA_TAG, QWEN_TAG, PATHFINDER_TAG = " ки", " \n\n\n\n\n", "<extra_0>", "<extra>"
QWEN_SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
PATHFINDER_PROMPT = (
    "You are a Math Teacher. Given a question and a student's solution, evaluate the mathemetical correctness, logic "
    "consistency of the current step and whether it will lead to the correct final solution"
)
"""As the model card has it, with its spelling."""
PATHFINDER_ASKS = f" Math reasoning: {PATHFINDER_TAG}, Consistency: {PATHFINDER_TAG}"


@dataclass(frozen=True, slots=True)
class Encoded:
    """A path as a judge reads it.

    ids:    token ids.
    places: indices in `ids` whose states give the scores: of each step, or what the family's readout expects.
    start:  the index in `ids` of the first token of the steps.
    steps:  indices of the path's steps that were encoded, ascending; a layout leaves them out.
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    start: int = 0
    steps: tuple[int, ...] = ()


Layout = Callable[[str, Sequence[str]], Encoded]
"""(question, steps) → what the model reads. The steps are stripped and not empty; there is at least one."""


def numbered(steps: Sequence[str]) -> list[str]:
    """The steps, each starting with "Step k: ". A step that starts so already stays as it is."""
    return [step if _NUMBERED.match(step) else f"Step {index}: {step}" for index, step in enumerate(steps, 1)]


def token_of(tokenizer: PreTrainedTokenizerBase, text: str, where: str) -> int:
    """The one token that stands for `text`. where: the model and family, for the message.

    A token for a blank before the text, which some tokenizers add, does not count. Raises InputError without a token.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    single = len(ids) == 1 or (text.strip() and ids and tokenizer.decode(ids[-1:]).strip() == text.strip())
    if not single or ids[-1] == tokenizer.unk_token_id:
        raise InputError(f"{where}: its tokenizer has no token {text!r}, which this family needs")
    return int(ids[-1])


def _located(
    tokenizer: PreTrainedTokenizerBase, text: str, ends: Sequence[int], *, special: bool
) -> tuple[list[int], list[int]]:
    """The ids of a text, and for each of `ends` the index of the last token that starts before that character."""
    read = tokenizer(text, add_special_tokens=special, return_offsets_mapping=True)
    real = [index for index, (begin, end) in enumerate(read["offset_mapping"]) if end > begin]
    starts = [read["offset_mapping"][index][0] for index in real]
    return list(read["input_ids"]), [real[bisect_left(starts, end) - 1] for end in ends]


def _replaced(text: str, tag: str) -> tuple[str, list[int]]:
    """The text with `tag` at each mark, and the character after each tag."""
    first, *others = text.split(MARK)
    ends = []
    for piece in others:
        first += tag
        ends.append(len(first))
        first += piece
    return first, ends


def _chat(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[tuple[str, str]], tag: str
) -> tuple[list[int], list[int]]:
    """The ids of a conversation of (role, content) turns, and the place of each mark, at which `tag` stands."""
    text = render_chat(tokenizer, [{"role": role, "content": content} for role, content in turns])
    return _located(tokenizer, *_replaced(text, tag), special=False)


def math_shepherd(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """`question Step 1: … ки⏎Step 2: … ки`; the score is at the tag.

    Source: Wang et al. 2024 (arXiv 2312.08935) and the model card of math-shepherd-mistral-7b-prm.
    """

    def encode(question: str, steps: Sequence[str]) -> Encoded:
        text = question + " " + "\n".join(f"{step}{MARK}" for step in numbered(steps))
        ids, places = _located(tokenizer, *_replaced(text, SHEPHERD_TAG), special=True)
        return Encoded(tuple(ids), tuple(places))

    return encode


def math_psa(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """`question step1 ⏎⏎⏎⏎⏎step2 ⏎⏎⏎⏎⏎`; the score is at the tag, a token of a blank and five newlines.

    Source: OpenR (arXiv 2410.09671), `reason/inference` and its `_qwen_math_infer_fn`.
    """

    def encode(question: str, steps: Sequence[str]) -> Encoded:
        text = question + " " + "".join(f"{step}{MARK}" for step in steps)
        ids, places = _located(tokenizer, *_replaced(text, PSA_TAG), special=True)
        return Encoded(tuple(ids), tuple(places))

    return encode


def rlhflow(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """A conversation: the user says a step, the assistant "+". The score is before the assistant's "+".

    The first user turn is the question, a blank and the first step. Source: RLHFlow's `math-rm/prm_evaluate.py`.
    """

    def encode(question: str, steps: Sequence[str]) -> Encoded:
        said = [f"{question} {steps[0]}", *steps[1:]]
        turns = [turn for step in said for turn in (("user", step), ("assistant", MARK))]
        ids, places = _chat(tokenizer, turns, "+")
        return Encoded(tuple(ids), tuple(place - 1 for place in places))

    return encode


def qwen_prm(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """A conversation with Qwen's system turn; the assistant says `s1<extra_0>s2<extra_0>`. The score is at the tag.

    Source: Zhang et al. 2025 (arXiv 2501.07301) and the model card of Qwen2.5-Math-PRM-7B.
    """
    return _tagged_chat(tokenizer, (("system", QWEN_SYSTEM),))


def reasonflux(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """As `qwen_prm`, without a system turn of its own (the chat template may add its default one).

    Source: Zou et al. 2025 (arXiv 2506.18896).
    """
    return _tagged_chat(tokenizer, ())


def _tagged_chat(tokenizer: PreTrainedTokenizerBase, system: Sequence[tuple[str, str]]) -> Layout:
    def encode(question: str, steps: Sequence[str]) -> Encoded:
        said = "".join(f"{step}{MARK}" for step in steps)
        ids, places = _chat(tokenizer, (*system, ("user", question), ("assistant", said)), QWEN_TAG)
        return Encoded(tuple(ids), tuple(places))

    return encode


def skywork(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """ids(bos + question + newline) + Σ (ids(step) + newline); the score is at the newline.

    Each step is tokenised alone. Source: SkyworkAI/skywork-o1-prm-inference, `prepare_input`.
    """
    newline = tokenizer.encode("\n")[-1]

    def encode(question: str, steps: Sequence[str]) -> Encoded:
        asked = tokenizer.encode(f"{tokenizer.bos_token or ''}{question}\n")
        return _in_pieces(asked, [[*tokenizer.encode(step), newline] for step in steps])

    return encode


def trl(tokenizer: PreTrainedTokenizerBase, separator: str = "\n") -> Layout:
    """[bos] + ids(question) + Σ (ids(step) + ids(separator)); the score is at the separator's last token.

    Source: TRL's `PRMTrainer.tokenize_row`, before it left TRL; PURE (arXiv 2504.15275) was trained with it.
    """
    closing = tokenizer.encode(separator, add_special_tokens=False)
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

    def encode(question: str, steps: Sequence[str]) -> Encoded:
        asked = [*first, *tokenizer.encode(question, add_special_tokens=False)]
        return _in_pieces(asked, [[*tokenizer.encode(step, add_special_tokens=False), *closing] for step in steps])

    return encode


def _in_pieces(asked: list[int], steps: Sequence[list[int]]) -> Encoded:
    """The question's ids and each step's, one after the other; the score is at the last token of each step."""
    ids, places = list(asked), []
    for step in steps:
        ids += step
        places.append(len(ids) - 1)
    return Encoded(tuple(ids), tuple(places), len(asked))


def eurus(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """A conversation in which the assistant says the steps, "Step k: …", two newlines between them.

    The place is the last token of each step; `start` is the first token of the answer. Source: Cui et al. 2025 (arXiv
    2502.01456) and the model card of EurusPRM-Stage2.
    """

    def encode(question: str, steps: Sequence[str]) -> Encoded:
        said = MARK + "\n\n".join(f"{step}{MARK}" for step in numbered(steps))
        ids, (before, *places) = _chat(tokenizer, (("user", question), ("assistant", said)), "")
        return Encoded(tuple(ids), tuple(places), before + 1)

    return encode


def pathfinder(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """A conversation that asks about the last step: whether its mathematics and its consistency are right.

    The two places are before the two `<extra>`. Source: Pala et al. 2025 (arXiv 2505.19706) and the model card of
    PathFinder-PRM-7B.
    """

    def encode(question: str, steps: Sequence[str]) -> Encoded:
        *before, last = steps
        said = "\n\n".join([*before, f"Current Step: {last}{PATHFINDER_ASKS.replace(PATHFINDER_TAG, MARK)}"])
        turns = (("user", f"{PATHFINDER_PROMPT}\n\n Question: {question}"), ("assistant", said))
        ids, places = _chat(tokenizer, turns, PATHFINDER_TAG)
        return Encoded(tuple(ids), tuple(place - 1 for place in places))

    return encode


def reasoneval(tokenizer: PreTrainedTokenizerBase) -> Layout:
    """Question and steps, tokenised with padding tokens between them, which are then removed.

    The place is the last token of a step. Where the padding token is also the first token of a text (the 7B model), the
    authors' code reads one token earlier, and so does this. Source: Xia et al. 2024 (arXiv 2404.05692),
    `codes/examples.py`.
    """
    if tokenizer.pad_token is None:
        raise InputError(f"{tokenizer.name_or_path}: its tokenizer has no padding token, which reasoneval needs")
    pad = str(tokenizer.pad_token)
    separator = tokenizer.encode(pad)[-1]

    def encode(question: str, steps: Sequence[str]) -> Encoded:
        text = f"Question:\n{question}\nAnswer:\nLet's think step by step.\n{pad}" + "".join(
            step + pad for step in steps
        )
        first, *others = tokenizer.encode(text)
        ids, ends = [first], []
        for token in others:
            if token == separator:
                ends.append(len(ids) - 1)
            else:
                ids.append(token)
        early = int(first == separator)
        return Encoded(tuple(ids), tuple(end - early for end in ends[1:]), ends[0] + 1)

    return encode
