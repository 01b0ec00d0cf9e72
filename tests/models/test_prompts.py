"""Prompts: token ids equal to the template's own, steps cut at tokens, the self-evaluation question in its place."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import Problem
from mcts_dpo.models.prompts import (
    Example,
    PromptSettings,
    answer_statement,
    continuations,
    prompt_tokens,
    self_evaluation,
    split_steps,
)
from mcts_dpo.toy.tokenizer import toy_tokenizer
from verifiers import STYLES, extract_answer

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if calm is defined %}<calm>{% endif %}{% endif %}"
)
CORPUS = [
    "What is 2 + 3? First, 2 + 3 is 5.\nThe answer is 5.\n\nYes. No. Is the reasoning above correct?",
    "Tom has 3 eggs and finds 4 more.\nSo he has 7 eggs.\n",
] * 5
PROBLEM = Problem("1", "What is 2 + 3?", "5")
EXAMPLES = (Example(question="What is 1 + 1?", solution="It is 2.\n"),)


@cache
def byte_level(template: str | None = CHATML) -> PreTrainedTokenizerBase:
    """Byte-level BPE, as Qwen, Llama 3 and SmolLM2 have; ".\\n" becomes one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["<|im_start|>", "<|im_end|>"]
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", chat_template=template)


@cache
def metaspace() -> PreTrainedTokenizerBase:
    """As Llama 2: a space before every text's first word, BOS before it, EOS (wrongly, here) after it."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>", *bytes_], initial_alphabet=[chr(c) for c in range(33, 127)]
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", additional_special_tokens=[AddedToken("<calm>")]
    )


def bare(**settings: Any) -> PromptSettings:
    """Settings whose template adds nothing to the question, unless told otherwise."""
    return PromptSettings(**{"template": "{question}", **settings})


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def pieces(tokenizer: PreTrainedTokenizerBase, tokens: list[int], settings: PromptSettings) -> list[str]:
    ends = split_steps(tokens, tokenizer, settings)
    return [tokenizer.decode(tokens[a:b]) for a, b in zip([0, *ends], ends, strict=False)]


# --- the question


def test_chat_is_the_template_rendered_once() -> None:
    tokenizer = byte_level()
    tokens = prompt_tokens(PROBLEM, tokenizer, bare())
    messages = [{"role": "user", "content": PROBLEM.question}]
    assert list(tokens) == tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.decode(tokens) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhat is 2 + 3?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chat_with_everything() -> None:
    settings = bare(
        system="Think.",
        template="{question}\nUse \\boxed{}.",
        examples=EXAMPLES,
        prefill="First",
        template_arguments={"calm": True},
    )
    problem = Problem("1", "Which is {hot}?", choices=("ice", "fire"))
    assert byte_level().decode(prompt_tokens(problem, byte_level(), settings)) == (
        "<|im_start|>system\nThink.<|im_end|>\n"
        "<|im_start|>user\nWhat is 1 + 1?\nUse \\boxed{}.<|im_end|>\n<|im_start|>assistant\nIt is 2.<|im_end|>\n"
        "<|im_start|>user\nWhich is {hot}?\nA. ice\nB. fire\nUse \\boxed{}.<|im_end|>\n"
        "<|im_start|>assistant\n<calm>First"
    )


def test_chat_adds_no_special_tokens_of_its_own() -> None:
    tokenizer = metaspace()
    tokenizer.chat_template = "<s>{{ messages[0]['content'] }}</s>"
    try:
        tokens = prompt_tokens(PROBLEM, tokenizer, bare())
        assert (tokens.count(0), tokens.count(1)) == (1, 1)
    finally:
        tokenizer.chat_template = None


def test_plain_is_examples_and_question_with_nothing_after_the_colon() -> None:
    settings = bare(style="plain", template="Q: {question}\nA:", examples=EXAMPLES, system="Sums.")
    tokens = prompt_tokens(PROBLEM, byte_level(), settings)
    text = "Sums.\n\nQ: What is 1 + 1?\nA: It is 2.\n\nQ: What is 2 + 3?\nA:"
    assert byte_level().decode(tokens) == text
    assert list(tokens) == ids(byte_level(), text)


def test_plain_puts_no_space_after_a_line_end_and_keeps_the_prefill() -> None:
    settings = bare(style="plain", template="{question}\n", examples=EXAMPLES, separator="\n#\n", prefill="Well,")
    text = byte_level().decode(prompt_tokens(PROBLEM, byte_level(), settings))
    assert text == "What is 1 + 1?\nIt is 2.\n#\nWhat is 2 + 3?\nWell,"


def test_plain_has_the_tokenizers_bos_and_never_its_eos() -> None:
    tokens = prompt_tokens(PROBLEM, metaspace(), bare(style="plain"))
    assert metaspace()(PROBLEM.question)["input_ids"] == [*tokens, 1]
    assert tokens[0] == 0
    # An end of sequence that the user wrote stays, where it may act.
    asked = prompt_tokens(Problem("1", "Why?</s>"), metaspace(), bare(style="plain", special_tokens="allow"))
    assert (tokens.count(1), asked.count(1), asked[-1]) == (0, 1, 1)


@pytest.mark.parametrize(
    "template", ["{{ 1 / 0 }}", "{{ messages[7].content + 1 }}", "{{ messages | join(0) + 3 }}", "{% if %}"]
)
def test_whatever_a_template_raises_is_one_line(template: str) -> None:
    with pytest.raises(InputError, match="chat template refuses the messages") as caught:
        prompt_tokens(PROBLEM, byte_level(template), bare())
    assert "\n" not in str(caught.value)


def test_no_chat_template() -> None:
    with pytest.raises(InputError, match="no chat template; use style: plain"):
        prompt_tokens(PROBLEM, metaspace(), bare())


def test_a_template_that_refuses() -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}x"
    with pytest.raises(InputError, match=r"refuses the messages \(System role not supported\)"):
        prompt_tokens(PROBLEM, byte_level(refusing), bare(system="Be brief."))


def test_a_prompt_without_tokens() -> None:
    with pytest.raises(InputError, match="problem 1: its prompt has no tokens"):
        prompt_tokens(PROBLEM, byte_level("{{ '' }}"), bare())


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("template=Solve.", "template: 'Solve.' does not contain '{question}'"),
        ("stop=['']", 'stop: [""] holds an empty text'),
        ("step_end=''", "step_end: '' is out of range (accepted: text, not empty)"),
        ("style=chta", "style: 'chta' is not one of the choices; did you mean 'chat'?"),
        ("answer_style=boxd", "answer_style: 'boxd' is not a style of answers; did you mean 'boxed'?"),
        ("examples=[{question: x}]", "examples.0.solution: missing"),
    ],
)
def test_settings_are_checked(override: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_settings(PromptSettings, None, [override])
    assert told in str(caught.value)


# --- steps


def test_a_line_end_merged_with_what_stands_before_it() -> None:
    tokenizer, settings = byte_level(), bare()
    tokens = ids(tokenizer, "So he has 7 eggs.\nThe answer is 5.\nYes")
    assert any(len(piece) > 1 and piece.endswith("\n") for piece in map(tokenizer.decode, tokens))
    assert pieces(tokenizer, tokens, settings) == ["So he has 7 eggs.\n", "The answer is 5.\n", "Yes"]


def test_the_token_that_completes_the_step_end_belongs_to_the_step_with_all_it_holds() -> None:
    vocabulary = {piece: index for index, piece in enumerate(["<|im_end|>", "a", ".\n\n", "\n", "\nb", "c"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="c"))
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    settings = bare()
    assert split_steps([1, 2, 1, 4, 5], fast, settings) == [2, 4, 5]
    assert split_steps([1, 3, 3, 3, 5], fast, settings) == [4, 5]  # blank lines join the step before
    assert split_steps([3, 3, 1, 5], fast, settings) == [4]  # at the start the one after
    assert split_steps([1, 3, 5, 3, 0], fast, settings) == [2, 5]  # so does the end of sequence
    assert split_steps([1, 5, 0], fast, settings) == [3]
    assert split_steps([3, 0], fast, settings) == [2]
    assert split_steps([0], fast, settings) == [1]
    assert split_steps([], fast, settings) == []


@pytest.mark.parametrize(
    ("step_end", "wanted"),
    [
        ("\n\n", ["One.\n\n", "Two.\nThree.\n\n\n", "Four。好 Step 5"]),
        ("。", ["One.\n\nTwo.\nThree.\n\n\nFour。", "好 Step 5"]),
        ("Step ", ["One.\n\nTwo.\nThree.\n\n\nFour。好 Step ", "5"]),
    ],
)
def test_a_step_end_may_span_tokens_and_characters_too(step_end: str, wanted: list[str]) -> None:
    tokenizer = byte_level()
    tokens = [token for char in "One.\n\nTwo.\nThree.\n\n\nFour。好 Step 5" for token in ids(tokenizer, char)]
    assert len(ids(tokenizer, "。")) == 3
    if step_end == "\n\n":
        wanted = ["One.\n\n", "Two.\nThree.\n\n", "\nFour。好 Step 5"]
    assert pieces(tokenizer, tokens, bare(step_end=step_end)) == wanted


def test_a_decoder_that_puts_spaces_between_words() -> None:
    tokens = ids(metaspace(), "Tom has 3 eggs.\nSo he has 7 eggs.\n Yes")
    ends = split_steps(tokens, metaspace(), bare())
    assert [metaspace().decode(tokens[:end]) for end in ends] == [
        "Tom has 3 eggs.\n",
        "Tom has 3 eggs.\nSo he has 7 eggs.\n",
        "Tom has 3 eggs.\nSo he has 7 eggs.\n Yes",
    ]


@given(
    st.lists(
        st.sampled_from(["a", "Tom", " has", ".\n", "\n", "\n\n", " ", "。", "<|im_end|>", ".", " \n\nb"]), max_size=20
    )
)
def test_steps_agree_with_a_count_of_step_ends(parts: list[str]) -> None:
    tokenizer = byte_level()
    tokens = [token for part in parts for token in ids(tokenizer, part)]
    ends = split_steps(tokens, tokenizer, bare())
    # The slow way: one token more at a time; a step is over when its text holds a line end and something to read.
    slow, start, pending = [], 0, ""
    for end in range(1, len(tokens) + 1):
        pending = tokenizer.decode(tokens[start:end], skip_special_tokens=True)
        if "\n" in tokenizer.decode(tokens[end - 1], skip_special_tokens=True):
            if pending.strip():
                slow.append(end)
                start, pending = end, ""
            elif slow:
                slow[-1] = start = end
                pending = ""
    if pending.strip() or not slow:
        slow += [len(tokens)] if tokens else []
    elif slow:
        slow[-1] = len(tokens)
    assert ends == slow


# --- self-evaluation


def test_the_question_in_a_chat_is_the_whole_conversation_rendered() -> None:
    tokenizer, settings = byte_level(), bare(examples=EXAMPLES)
    suffix, (yes, no) = self_evaluation(tokenizer, settings)
    solution = "It is 5.\nThe answer is 5."
    context = tokenizer.decode([*prompt_tokens(PROBLEM, tokenizer, settings), *ids(tokenizer, solution), *suffix])
    conversation = [
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "It is 2."},
        {"role": "user", "content": PROBLEM.question},
        {"role": "assistant", "content": solution},
        {"role": "user", "content": settings.self_evaluation_question},
    ]
    assert context == tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert (tokenizer.decode(yes), tokenizer.decode(no)) == ("Yes", "No")


def test_a_hint_stands_before_the_question() -> None:
    suffix, _ = self_evaluation(byte_level(), bare(), hint="2 + 3 = 5\n")
    assert byte_level().decode(suffix) == (
        "<|im_end|>\n<|im_start|>user\nA reference solution:\n2 + 3 = 5\n\nIs the reasoning above correct? "
        "Answer Yes or No.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_question_in_plain_text() -> None:
    settings = bare(style="plain", separator="\n", self_evaluation_question="Right?", yes="yes", no="no")
    suffix, (yes, no) = self_evaluation(byte_level(), settings)
    assert [byte_level().decode(tokens) for tokens in (suffix, yes, no)] == ["\nRight?\n", "yes", "no"]


def test_replies_are_spelt_as_after_the_question() -> None:
    tokenizer = metaspace()
    _, (yes, no) = self_evaluation(tokenizer, bare(style="plain"))
    words = [tokenizer.convert_ids_to_tokens(list(reply)) for reply in (yes, no)]
    assert ["".join(word) for word in words] == ["Yes", "No"]
    assert tokenizer.convert_ids_to_tokens(ids(tokenizer, "Yes"))[0].startswith("▁")


def test_replies_must_differ() -> None:
    with pytest.raises(InputError, match="accepted: two words with different tokens"):
        self_evaluation(byte_level(), bare(yes="Yes", no="Yes"))


def test_a_template_that_forgets_the_assistant() -> None:
    forgetful = "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    with pytest.raises(InputError, match="does not keep the assistant's turns"):
        self_evaluation(byte_level(forgetful), bare())


@pytest.mark.real_model
def test_a_real_tokenizer(smollm2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    settings = bare(examples=EXAMPLES)
    prompt = prompt_tokens(PROBLEM, tokenizer, settings)
    turns = [
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "It is 2."},
        {"role": "user", "content": PROBLEM.question},
    ]
    assert list(prompt) == tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    solution = "First, 2 + 3 is 5.\n\nSo \\boxed{5}.\nThe answer is 5."
    tokens = ids(tokenizer, solution)
    suffix, (yes, no) = self_evaluation(tokenizer, settings)
    turns += [
        {"role": "assistant", "content": solution},
        {"role": "user", "content": settings.self_evaluation_question},
    ]
    whole = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert [*prompt, *tokens, *suffix] == whole
    assert [tokenizer.decode(yes), tokenizer.decode(no)] == ["Yes", "No"]
    assert pieces(tokenizer, [*tokens, tokenizer.eos_token_id], settings) == [
        "First, 2 + 3 is 5.\n\n",
        "So \\boxed{5}.\n",
        "The answer is 5.<|im_end|>",
    ]


@pytest.mark.parametrize("style", STYLES)
def test_an_answer_is_stated_as_its_style_reads_it(style: str) -> None:
    stated = answer_statement(style)
    assert stated.startswith("\n")
    for answer in ("B",) if style == "choice" else ("42", "\\frac{1}{2}", "-3.5"):
        assert extract_answer("First, this." + stated.replace("{answer}", answer), style) == answer


def test_the_end_of_a_text_belongs_to_the_words_after_it() -> None:
    tokenizer = toy_tokenizer("Yes No")
    settings = PromptSettings(style="plain")
    said, words = continuations(tokenizer, settings, "The answer is ", ["7", "12"])
    assert [tokenizer.decode(list(ids)) for ids in (said, *words)] == ["The answer is", " 7", " 12"]
    said, words = continuations(tokenizer, settings, "x: ", ["Yes", "<eos>"])
    assert [tokenizer.decode(list(ids)) for ids in (said, *words)] == ["x:", " Yes", " <eos>"]
    assert tokenizer.eos_token_id not in words[1]
    assert continuations(tokenizer, settings, "The answer is ") == (tuple(tokenizer("The answer is")["input_ids"]), ())
