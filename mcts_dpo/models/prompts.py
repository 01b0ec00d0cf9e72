"""Turns a problem into the tokens that a policy continues, and its solution into steps.

In: a problem, the policy's tokenizer, `PromptSettings`. Out: token ids. A prompt is rendered and tokenised once. All
later code passes token ids on and never tokenises again. This module also says what ends a step, what ends a solution,
and how the policy is asked whether its reasoning is right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

from pydantic import Field, field_validator

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import Settings, nearest
from mcts_dpo.data import Problem
from mcts_dpo.models.encoding import Guard, SpecialTokens
from mcts_dpo.models.phases import (
    Phase,
    ThoughtMarks,
    known_marks,
    marks_in,
    open_marks,
    pairs_of,
    parted,
    phase,
    unknown_mark,
    without_thoughts,
)
from mcts_dpo.models.steps import StepSettings, split
from mcts_dpo.models.templates import render_chat
from verifiers import STYLES
from verifiers.read.thoughts import thought_spans

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
    tools:         JSON schemas of functions that the chat template tells the policy about, beside those of
                   `search.environment`.
    step_end:      a step of kind "text" ends with the token whose text completes this text.
    steps:         what a step is, if not that.
    stop:          a solution ends with the token whose text completes one of these texts, or with the end-of-sequence
                   token.
    special_tokens: how control tokens ("<|im_end|>") in questions, choices, examples, system messages and reference
                   solutions are encoded: "split" spells them in ordinary tokens, "allow" lets them act. The chat
                   template and the other settings of this group are never split.
    answer_style:  how the answer is found in a solution (a style of `verifiers.extract_answer`).
    self_evaluation_question, yes, no: the question about the policy's own reasoning, and its two replies.
    thought_marks: how a policy that thinks marks its thoughts: names of known marks ("<think>"), or {opening, closing}
                   of others. (): those that the chat template holds. A path ends, and an answer is read, only after
                   the thought.
    think_budget:  tokens of a solution's thoughts, after which they are closed by force. null: no limit.
    close_thought: whether a solution that comes to its limit inside its thought is closed by force a little before, so
                   that it states an answer (budget forcing). false: it has no answer.
    answer_tokens: tokens of a solution that are kept for its answer then; at most a quarter of the limit.
    """

    style: Literal["chat", "plain"] = "chat"
    system: str | None = None
    template: str = '{question}\n\nReason step by step, one step per line. End with a line "The answer is ...".'
    examples: tuple[Example, ...] = ()
    separator: str = "\n\n"
    prefill: str = ""
    template_arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    tools: tuple[dict[str, Any], ...] = ()
    step_end: str = Field(default="\n", min_length=1)
    steps: StepSettings = StepSettings()
    stop: tuple[str, ...] = ()
    special_tokens: SpecialTokens = "split"
    answer_style: str = "math"
    self_evaluation_question: str = Field(default="Is the reasoning above correct? Answer Yes or No.", min_length=1)
    yes: str = Field(default="Yes", min_length=1)
    no: str = Field(default="No", min_length=1)
    thought_marks: tuple[ThoughtMarks, ...] = ()
    think_budget: int | None = Field(default=None, ge=1)
    close_thought: bool = False
    answer_tokens: int = Field(default=64, ge=1)

    @field_validator("thought_marks", mode="before")
    @classmethod
    def _known_marks(cls, given: object) -> object:
        if not isinstance(given, tuple):
            return given
        try:
            return tuple(known_marks(one) if isinstance(one, str) else one for one in given)
        except KeyError as error:
            raise ValueError(f"holds an unknown mark: {unknown_mark(str(error.args[0]))}") from None

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
    return (*settings.steps.stop_strings(settings.step_end), *settings.stop), not any(
        stop.isspace() for stop in settings.stop
    )


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
_thinking: WeakKeyDictionary[PreTrainedTokenizerBase, dict[Any, tuple[str, ThoughtMarks | None]]] = WeakKeyDictionary()


def opened_thought(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> str:
    """The mark of a thought that the prompt leaves open ("<think>" at the end of some chat templates); "" without one.

    The policy's own text then holds only the mark that closes the thought. The answer is read after that.
    """
    known = _opened.setdefault(tokenizer, {})
    key = _prompt_key(tokenizer, settings)
    if key not in known:
        known[key] = thought_opened_by(_after_question(tokenizer, settings), settings.thought_marks)
    return known[key]


def _prompt_key(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> tuple[Any, ...]:
    """What decides how the prompt ends after the question."""
    arguments = tuple(sorted(settings.template_arguments.items()))
    template = getattr(tokenizer, "chat_template", None)
    return settings.style, settings.template, settings.prefill, str(template), arguments, settings.thought_marks


def thought_opened_by(tail: str, marks: Sequence[ThoughtMarks] = ()) -> str:
    """The mark of a thought that a text leaves open; "" without one. tail: the end of a prompt, after the question."""
    if open_marks(tail, marks) is None:
        return ""
    suffixes = (tail[start:] for start in reversed(range(len(tail))))
    return next((suffix for suffix in suffixes if open_marks(suffix, marks)), "")


@dataclass(frozen=True, slots=True)
class Thoughts:
    """The thoughts of one policy under one prompt.

    opened: see `opened_thought`. marks: those that the policy writes or that its prompt opens; None if it does not
    think. Then a text in known marks is a thought all the same, but no sample is cut for the sake of one.
    """

    tokenizer: PreTrainedTokenizerBase
    settings: PromptSettings
    opened: str
    marks: ThoughtMarks | None

    def phase(self, text: str) -> Phase:
        """The phase that continues after a solution's text, which begins with `prefill`."""
        return phase(self.opened + text, self.settings.thought_marks)

    def stated(self, text: str) -> str:
        """The text in which an answer counts, for `verifiers`: it leaves the thoughts in known marks out itself."""
        return without_thoughts(self.opened + text, self.settings.thought_marks)

    def answer_start(self, text: str) -> int:
        """Where the part of a solution's text after its thoughts starts; its length inside a thought."""
        spans = thought_spans(self.opened + text, more=pairs_of(self.settings.thought_marks))
        end = spans[-1][1] if spans else 0
        return len(text) if end is None else max(0, end - len(self.opened))

    def parted(self, text: str) -> tuple[str, str]:
        """The thoughts and the answer of a solution's text (see `phases.parted`)."""
        return parted(text, self.opened, self.settings.thought_marks)

    def closing(self, text: str) -> tuple[str, tuple[int, ...]]:
        """What closes by force the thought that is open after a solution's text: text and token ids; empty if none is.

        Source: budget forcing (Muennighoff et al. 2025, s1, arXiv 2501.19393, section 3.1).
        """
        marks = open_marks(self.opened + text, self.settings.thought_marks)
        if marks is None:
            return "", ()
        begun = not text or text.endswith("\n") or not marks.closing.startswith("</")
        closes = marks.closes if begun else f"\n{marks.closes}"
        return closes, _guard(self.tokenizer, self.settings, "").ids(closes)

    @property
    def room(self) -> int:
        """How many token ids `closing` gives for the policy's own marks; 0 if it does not think."""
        return 0 if self.marks is None else len(replace(self, opened=self.marks.opening).closing("x")[1])


def thoughts_of(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings) -> Thoughts:
    """How a policy thinks under a prompt: its marks come from the settings, else from the prompt's or template's text.

    A prompt that holds a whole thought already ("<think>\\n\\n</think>") leaves none to write.
    """
    known = _thinking.setdefault(tokenizer, {})
    key = _prompt_key(tokenizer, settings)
    if key not in known:
        opened, tail = opened_thought(tokenizer, settings), _after_question(tokenizer, settings) + settings.prefill
        text = settings.template if settings.style == "plain" else str(getattr(tokenizer, "chat_template", None) or "")
        marks = next(iter(settings.thought_marks), None) or open_marks(opened + settings.prefill) or marks_in(text)
        done = marks is not None and phase(tail, settings.thought_marks) == "after"
        known[key] = (opened, None if done else marks)
    return Thoughts(tokenizer, settings, *known[key])


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
    """Where the steps of a solution end, as `PromptSettings.steps` says; see `mcts_dpo.models.steps.split`."""
    return split(tokens, tokenizer, settings.steps, settings.step_end)


def self_evaluation(
    tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, hint: str | None = None, *, thinks: bool = False
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]:
    """The question that asks the policy about its own reasoning: (suffix, (yes, no)), all as token ids.

    The context is prompt_tokens, then the solution so far without its end-of-sequence token, then suffix. Its next
    tokens are `yes` or `no`. The engine has the keys and values of everything except the suffix already. Chat style:
    the suffix closes the assistant's turn, asks in a user's turn, and opens the next turn of the assistant. Plain
    style: separator, question, newline. `hint`, a reference solution, comes before the question.

    A policy that thinks would think before it replies. In chat style the suffix therefore also skips or closes that
    thought, unless it `thinks`. A thought that is open in the solution must be closed before (see `Thoughts.closing`).

    Source: the self-evaluation of Xie et al. 2024 (arXiv 2405.00451), section 2.1, which gives the hint in training.
    Raises InputError if `yes` and `no` are the same tokens, or no tokens.
    """
    question = settings.self_evaluation_question
    guard = _guard(tokenizer, settings, hint or "")
    if hint is not None:
        question = f"A reference solution:\n{guard.text(hint.strip())}\n\n{question}"
    if settings.style == "chat":
        text = _after_assistant(tokenizer, settings, question, guard)
        text += "" if thinks else _without_thought(tokenizer, settings, text.rpartition(question)[2])
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


def reply_tokens(
    tokenizer: PreTrainedTokenizerBase,
    settings: PromptSettings,
    text: str,
    role: Literal["inline", "user", "tool"],
    last: int | None = None,
) -> tuple[int, ...]:
    """What the policy reads after a step that an environment replies to, as token ids.

    "inline": the text as it is. Else a turn of that role: in chat style as the template writes it, up to and with the
    mark that opens the assistant's next turn; in plain style on lines of its own.

    text: control tokens in it never act. last: the token id before it; an end of turn is not written twice.

    Raises InputError if the chat template refuses the role.
    """
    guard = Guard(tokenizer, [text], "split")
    shown = guard.text(text)
    if role == "inline":
        return guard.ids(shown)
    if settings.style == "plain":
        return guard.ids(f"\n{shown.strip()}\n")
    ids = guard.ids(_after_assistant(tokenizer, settings, shown, guard, role))
    return ids[1:] if last is not None and ids[:1] == (last,) else ids


def _without_thought(tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, tail: str) -> str:
    """What must follow the mark that opens an assistant's turn, so that the policy replies without a thought."""
    opened = open_marks(tail, settings.thought_marks)
    if opened is not None:
        return opened.closes
    marks = thoughts_of(tokenizer, settings).marks
    return marks.skips if marks is not None and phase(tail, settings.thought_marks) == "none" else ""


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
    if settings.tools:
        arguments["tools"] = list(settings.tools)
    try:
        return render_chat(tokenizer, messages, add_generation_prompt=True, **arguments)
    except Exception as error:  # a template is a program and can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"prompt: the model's chat template refuses the messages ({reason[:300]})") from None


def _after_assistant(
    tokenizer: PreTrainedTokenizerBase, settings: PromptSettings, text: str, guard: Guard, role: str = "user"
) -> str:
    """The text that the template writes between an assistant's turn and the assistant's reply to `text`.

    role: whose turn `text` is.
    """
    said = "THE-ASSISTANT-SAID-THIS"
    turns = [{"role": "assistant", "content": said}, {"role": role, "content": text}]
    rendered = _render(tokenizer, settings, [*_messages("?", settings, guard), *turns])
    before, found, after = rendered.rpartition(said)
    if not found or said in before:
        raise InputError("prompt: the model's chat template does not keep the assistant's turns; use style: plain")
    return after
