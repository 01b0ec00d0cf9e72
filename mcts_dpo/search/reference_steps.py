"""Cuts a reference solution into steps. With `search.reference_child`, they become extra nodes of its tree.

In: a problem, a tokenizer and the prompt settings. Out: the token ids of each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcts_dpo.data import Problem
from mcts_dpo.models.encoding import Guard
from mcts_dpo.models.endings import endings
from mcts_dpo.models.prompts import PromptSettings, split_steps
from verifiers import extract_answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def answer_end(tokenizer: PreTrainedTokenizerBase, prompt: PromptSettings) -> int | None:
    """The id of the token that ends a policy's answers; in a chat, the token that the template writes there.

    None if the tokenizer has no such token.
    """
    ends = endings(tokenizer)
    return ends.turn if prompt.style == "chat" and ends.turn is not None else ends.sequence


def reference_steps(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, prompt: PromptSettings
) -> list[tuple[int, ...]]:
    """Cut the reference solution of a problem into steps, in the form in which a policy would write it.

    If the solution states no answer, a last step states it. Returns the token ids of each step. The last step ends with
    the token that ends answers, if there is one. Returns [] for a problem without a solution.
    """
    if not problem.solution or not problem.solution.strip():
        return []
    text = problem.solution.strip()
    if extract_answer(prompt.prefill + text, prompt.answer_style) is None and problem.answer:
        text += f"\nThe answer is {problem.answer}."
    guard = Guard(tokenizer, [text], prompt.special_tokens)
    tokens = list(guard.ids(guard.text(text)))
    ends = split_steps(tokens, tokenizer, prompt)
    end = answer_end(tokenizer, prompt)
    if end is not None and tokens:
        tokens.append(end)
        ends[-1] += 1
    return [tuple(tokens[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
