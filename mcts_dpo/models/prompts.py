"""Turns a problem into the tokens that a policy continues, and its solution into steps.

In: a problem, the policy's tokenizer, `PromptSettings`. Out: token ids. A prompt is rendered and tokenised once. All
later code passes token ids on and never tokenises again. This module also says what ends a step, what ends a solution,
and how the policy is asked whether its reasoning is right.
"""

from __future__ import annotations

from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from pydantic import Field, field_validator

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import Settings, nearest
from mcts_dpo.data import Problem
from mcts_dpo.models.decoding import prefixes
from mcts_dpo.models.encoding import Guard, SpecialTokens
from mcts_dpo.models.templates import render_chat
from verifiers import STYLES
from verifiers.read.thoughts import without_thoughts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase


class Example(Settings):
    """A worked problem shown before the question (few-shot)."""

    question: str = Field(min_length=1)
    solution: str = Field(min_length=1)


class PromptSettings(Settings):
    """How a question is put to the policy, and how its solution is read.

    style:         "chat" uses the tokenizer's chat template, "plain" writes text (for policies without one).
    system:        the system message of a chat; null leaves it to the template (Qwen's and SmolLM2's add their own). In
                   plain style, the text before everything else.
    template:      the text around a question; "{question}" is replaced by the question with its choices. In plain style
                   it ends where the solution starts ("Question: {question}\\nAnswer:").
    examples:      earlier turns of a chat, or text before the question, each in the same template.
    separator:     in plain style, the text between system text, examples and question, and before the self-evaluation
                   question.
    prefill:       the beginning of every solution. The policy continues it.
    template_arguments: further variables of the chat template (enable_thinking: false for Qwen3; date_string for
                   Llama 3, whose prompt otherwise changes with the day).
    step_end:      a step ends with the token whose text completes this text.
    stop:          a solution ends with the token whose text completes one of these texts, or with the end-of-sequence
                   token.
    special_tokens: how control tokens ("<|im_end|>") in questions, choices, examples, system messages and reference
                   solutions are encoded: "split" spells them in ordinary tokens, "allow" lets them act. The chat
                   template and the other settings of this group are never split.
    answer_style:  how the answer is found in a solution (a style of `verifiers.extract_answer`).
    self_evaluation_question, yes, no: the question about the policy's own reasoning, and its two replies.
    """

    style: Literal["chat", "plain"] = "chat"
    system: str | None = None
    template: str = '{question}\n\nReason step by step, one step per line. End with a line "The answer is ...".'
    examples: tuple[Example, ...] = ()
    separator: str = "\n\n"
    prefill: str = ""
    template_arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    step_end: str = Field(default="\n", min_length=1)
    stop: tuple[str, ...] = ()
    special_tokens: SpecialTokens = "split"
    answer_style: str = "math"
    self_evaluation_question: str = Field(default="Is the reasoning above correct? Answer Yes or No.", min_length=1)
    yes: str = Field(default="Yes", min_length=1)
    no: str = Field(default="No", min_length=1)

    @field_validator("template")
    @classmethod
    def _has_a_question(cls, template: str) -> str:
        if "{question}" not in template:
            raise ValueError("does not contain '{question}', the place of the question")
        return template

    @field_validator("answer_style")
    @classmethod
    def _known_style(cls, style: str) -> str:
        if style not in STYLES:
            close = nearest(style, STYLES)
            hint = f"; did you mean {close!r}?" if close else ""
            raise ValueError(f"is not a style of answers{hint} (accepted: {', '.join(STYLES)})")
        return style

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("holds an empty text, which would end every solution before it starts")
        return stop


def step_stops(settings: PromptSettings) -> tuple[tuple[str, ...], bool]:
    """The stop strings of one step, and whether visible text must come before them.

    A blank line belongs to the step after it, unless one of `stop` is white space.
    """
    return (settings.step_end, *settings.stop), not any(stop.isspace() for stop in settings.stop)


def prompt_tokens(problem: Problem, tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> tuple[int, ...]:
    """The token ids that the policy continues with a solution of `problem`; never empty.

    Chat style: the rendered template up to and with the mark that opens the assistant's turn, then `prefill`. No
    special tokens are added to those of the template. Plain style: the special tokens that the tokenizer puts before a
    text (a BOS if its model was trained with one), then the text. For control tokens in the problem see
    `PromptSettings.special_tokens`.

    Raises InputError if the tokenizer has no chat template, or if the template refuses the messages.
    """
    question = question_text(problem)
    guard = _guard(tokenizer, settings, question)
    if settings.style == "chat":
        text = _render(tokenizer, settings, _messages(question, settings, guard)) + settings.prefill
        tokens = guard.ids(text)
    else:
        text = _plain(question, settings, guard)
        bare, tokens = guard.ids(text), guard.ids_with_ends(text)
        end = tokenizer.eos_token_id
        # An end of sequence here would tell the policy that the text is over. One in the text itself stays.
        if tokens[-1:] == (end,) and tokens[len(tokens) - len(bare) :] != bare:
            tokens = tokens[:-1]
    if not tokens:
        raise InputError(f"problem {problem.id}: its prompt has no tokens")
    return tokens


_opened: WeakKeyDictionary[PreTrainedTokenizerBase, dict[Any, str]] = WeakKeyDictionary()


def opened_thought(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> str:
    """The mark of a thought that the prompt leaves open ("<think>" at the end of some chat templates); "" without one.

    The policy's own text then holds only the mark that closes the thought. The answer is read after that.
    """
    known = _opened.setdefault(tokenizer, {})
    arguments = tuple(sorted(settings.template_arguments.items()))
    key = (settings.style, settings.template, getattr(tokenizer, "chat_template", None), arguments)
    if key not in known:
        known[key] = thought_opened_by(_after_question(tokenizer, settings))
    return known[key]


def thought_opened_by(tail: str) -> str:
    """The mark of a thought that a text leaves open; "" without one. tail: the end of a prompt, after the question."""
    suffixes = (tail[start:] for start in reversed(range(len(tail))))
    return next((suffix for suffix in suffixes if not without_thoughts("x", suffix)), "")


def _after_question(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> str:
    """The prompt's text after the question, without `prefill`; "" if the template hides the question."""
    if settings.style == "plain":
        return settings.template.rpartition("{question}")[2]
    asked = "THE-USER-ASKED-THIS"
    try:
        rendered = _render(tokenizer, settings, [{"role": "user", "content": asked}])
    except InputError:
        return ""
    return rendered.rpartition(asked)[2] if asked in rendered else ""


def split_steps(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> list[int]:
    """Where the steps of a solution end: offsets into `tokens`, ascending; step i is tokens[ends[i-1]:ends[i]].

    A step ends with the token that completes `step_end`, even if that token holds more (".\\n" and "\\n\\n" are single
    tokens in many vocabularies). A step of only white space or special tokens joins the step before it, or at the start
    the step after it. The last offset is len(tokens). Without tokens there are no steps.
    """
    decode = prefixes(tokenizer, tokens)
    text = decode(len(tokens))
    ends: list[int] = []
    lengths: list[int] = []  # of the text up to each end
    token, found = 0, text.find(settings.step_end)
    while found >= 0:
        reach = text[: found + len(settings.step_end)]
        # The first token whose prefix spells `reach`. Whole prefixes are decoded: a single token has no text of its
        # own if a character spans several tokens, or if the decoder joins words with spaces.
        low, high = token, len(tokens)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if decode(middle).startswith(reach) else (middle + 1, high)
        token = low
        ends.append(token)
        lengths.append(len(decode(token)))
        found = text.find(settings.step_end, max(len(reach), lengths[-1]))
    ends.append(len(tokens))
    lengths.append(len(text))
    steps: list[int] = []
    start = 0
    for end, length in zip(ends, lengths, strict=True):
        if not text[start:length].strip():
            if steps:
                steps[-1], start = end, length
        elif not steps or end > steps[-1]:
            steps.append(end)
            start = length
    return steps or ([len(tokens)] if tokens else [])


def self_evaluation(
    tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, hint: str | None = None
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    """The question that asks the policy about its own reasoning: (suffix, (yes, no)), all as token ids.

    The context is prompt_tokens, then the solution so far without its end-of-sequence token, then suffix. Its next
    tokens are `yes` or `no`. The engine has the keys and values of everything except the suffix already. Chat style:
    the suffix closes the assistant's turn, asks in a user's turn, and opens the next turn of the assistant. Plain
    style: separator, question, newline. `hint`, a reference solution, comes before the question.

    Source: the self-evaluation of Xie et al. 2024 (arXiv 2405.00451), section 2.1, which gives the hint in training.
    Raises InputError if `yes` and `no` are the same tokens, or no tokens.
    """
    question = settings.self_evaluation_question
    guard = _guard(tokenizer, settings, hint or "")
    if hint is not None:
        question = f"A reference solution:\n{guard.text(hint.strip())}\n\n{question}"
    if settings.style == "chat":
        text = _after_assistant(tokenizer, settings, question, guard)
    else:
        text = f"{settings.separator}{question}\n"
    suffix = guard.ids(text)

    def reply(word: str) -> tuple[int, ...]:
        # The word is encoded in its place: some tokenizers would put a space before it alone.
        together = guard.ids(text + word)
        return together[len(suffix) :] if together[: len(suffix)] == suffix else guard.ids(word)

    yes, no = reply(settings.yes), reply(settings.no)
    if not yes or not no or yes == no:
        raise InputError(
            f"prompt.yes and prompt.no: {settings.yes!r} and {settings.no!r} are {list(yes)} and {list(no)} "
            "to this tokenizer (accepted: two words with different tokens)"
        )
    return suffix, (yes, no)


def continuations(
    tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, text: str, words: Sequence[str] = ()
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """Token ids of a text that follows a solution, and of each of some words after the text.

    A tokenizer may join the end of the text with the start of a word ("is " and "7" are " is" and " 7" in many
    vocabularies). Such tokens belong to the words. Without words, white space at the end of the text is left out, so
    that a sample can begin with it.

    Args:
        text: of settings; control tokens in it act.
        words: each not empty; control tokens in them are encoded as `PromptSettings.special_tokens` says.

    Returns:
        (ids of the text, ids of each word).
    """
    guard = _guard(tokenizer, settings, "\n".join(words))
    if not words:
        return guard.ids(text.rstrip(" ")), ()
    together = [guard.ids(text + guard.text(word)) for word in words]
    before = guard.ids(text)
    columns = enumerate(zip(before, *together, strict=False))
    shared = next((at for at, column in columns if len(set(column)) > 1), min(map(len, (before, *together))))
    return before[:shared], tuple(ids[shared:] for ids in together)


def answer_statement(style: str) -> str:
    """How a solution states its answer in a style of `verifiers.extract_answer`; "{answer}" is the answer's place."""
    return {"gsm8k": "\n#### {answer}", "boxed": "\nThe answer is \\boxed{{answer}}."}.get(
        style, "\nThe answer is {answer}."
    )


def question_text(problem: Problem) -> str:
    """The question with its choices, as the policy reads it."""
    letters = [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, problem.choices, strict=False)]
    return "\n".join([problem.question, *letters])


def _put(question: str, settings: PromptSettings) -> str:
    # Not str.format: questions and templates hold the braces of LaTeX.
    return settings.template.replace("{question}", question)


def _guard(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, text: str) -> Guard:
    """Of `text` and whatever else comes from users or data."""
    shown = [part for example in settings.examples for part in (example.question, example.solution)]
    return Guard(tokenizer, [text, settings.system or "", *shown], settings.special_tokens)


def _messages(question: str, settings: PromptSettings, guard: Guard) -> list[dict[str, str]]:
    messages = [] if settings.system is None else [{"role": "system", "content": guard.text(settings.system)}]
    for example in settings.examples:
        messages.append({"role": "user", "content": _put(guard.text(example.question), settings)})
        messages.append({"role": "assistant", "content": guard.text(example.solution.strip("\n"))})
    return [*messages, {"role": "user", "content": _put(guard.text(question), settings)}]


def _plain(question: str, settings: PromptSettings, guard: Guard) -> str:
    parts = [] if settings.system is None else [guard.text(settings.system)]
    for example in settings.examples:
        before = _put(guard.text(example.question), settings)
        # "Answer:" is followed by " Four" in the examples and by nothing in the prompt: the space before a word is
        # part of the word's token.
        space = "" if before[-1:].isspace() else " "
        parts.append(f"{before}{space}{guard.text(example.solution.strip(chr(10)))}")
    return settings.separator.join([*parts, _put(guard.text(question), settings)]) + settings.prefill


def _render(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, messages: list[dict[str, str]]) -> str:
    if not tokenizer.chat_template:
        raise InputError("prompt.style: 'chat', but the model's tokenizer has no chat template; use style: plain")
    arguments: dict[str, Any] = dict(settings.template_arguments)
    try:
        return render_chat(tokenizer, messages, add_generation_prompt=True, **arguments)
    except Exception as error:  # a template is a program and can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"prompt: the model's chat template refuses the messages ({reason[:300]})") from None


def _after_assistant(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, question: str, guard: Guard) -> str:
    """The text that the template writes between an assistant's turn and the assistant's answer to `question`."""
    said = "THE-ASSISTANT-SAID-THIS"
    turns = [{"role": "assistant", "content": said}, {"role": "user", "content": question}]
    rendered = _render(tokenizer, settings, [*_messages("?", settings, guard), *turns])
    before, found, after = rendered.rpartition(said)
    if not found or said in before:
        raise InputError("prompt: the model's chat template does not keep the assistant's turns; use style: plain")
    return after
