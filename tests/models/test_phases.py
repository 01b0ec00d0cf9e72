"""Phases: each model family's template opens or leaves out the thought as it does, and every token gets its phase."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import Problem
from mcts_dpo.models.decoding import decode
from mcts_dpo.models.endings import usual_ends
from mcts_dpo.models.phases import phase, token_phases
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens, self_evaluation, thoughts_of
from mcts_dpo.rewards.verification import ends_with_answer
from verifiers import extract_answer

PROBLEM = Problem("1", "What is <think> 2 + 3?", "5")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</think>')[-1] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
)
TAGGED = "{% for m in messages %}<|{{ m.role }}|>{{ m.content.split('</think>')[-1] }}{% endfor %}"


@dataclass(frozen=True)
class Family:
    """A model family in reduced form.

    template:  its chat template; special, added: tokens of its vocabulary, called special or not.
    solution:  what the policy writes before the thought, in it (its marks included), after it.
    arguments: of the template. opened: what the prompt leaves open. skip: how the prompt of a judgement ends.
    """

    name: str
    template: str
    special: tuple[str, ...]
    added: tuple[str, ...]
    solution: tuple[str, str, str]
    opened: str = ""
    skip: str = ""
    arguments: tuple[tuple[str, bool], ...] = ()


INSIDE = "So the answer is 12? Wait. \\boxed{7}\n"
AFTER = "\n\nThe answer is 5."
THINK = ("<think>", "</think>")
EMPTY = "<think>\n\n</think>\n\n"
QWEN3 = CHATML + "{% if enable_thinking is defined and not enable_thinking %}" + EMPTY + "{% endif %}{% endif %}"
FAMILIES = (
    Family(
        "Qwen3",
        QWEN3,
        ("<|im_start|>", "<|im_end|>"),
        THINK,
        ("", f"<think>\n{INSIDE}</think>", AFTER),
        skip=EMPTY,
    ),
    Family(
        "Qwen3 that must not think",
        QWEN3,
        ("<|im_start|>", "<|im_end|>"),
        THINK,
        ("", "", AFTER),
        arguments=(("enable_thinking", False),),
        skip=EMPTY,
    ),
    Family(
        "DeepSeek-R1",
        TAGGED + "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}",
        ("<|user|>", "<|assistant|>"),
        THINK,
        ("", f"{INSIDE}</think>", AFTER),
        opened="<think>\n",
        skip="</think>\n\n",
    ),
    Family(
        "gpt-oss",
        "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}"
        "<|message|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
        "{# <|channel|>analysis #}",
        ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>"),
        (),
        (
            "",
            f"<|channel|>analysis<|message|>{INSIDE}<|end|><|start|>assistant<|channel|>final",
            "<|message|>The answer is 5.",
        ),
        skip="<|channel|>final<|message|>",
    ),
    Family(
        "Magistral",
        "{# [THINK] #}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
        "{% else %}{{ m.content }}</s>{% endif %}{% endfor %}",
        ("[INST]", "[/INST]", "</s>", "[THINK]", "[/THINK]"),
        (),
        ("", f"[THINK]{INSIDE}[/THINK]", "The answer is 5."),
        skip="[THINK][/THINK]",
    ),
    Family(
        "Phi-4-reasoning",
        "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content.split('</think>')[-1] }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
        ("<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        (),
        ("Well. ", f"<think>{INSIDE}</think>", AFTER),
        skip=EMPTY,
    ),
    Family(
        "GLM-4.5",
        TAGGED + "{% if add_generation_prompt %}<|assistant|>{% endif %}",
        ("<|user|>", "<|assistant|>"),
        THINK,
        ("\n", f"<think>{INSIDE}</think>", AFTER),
        skip=EMPTY,
    ),
    Family(
        "Command A Reasoning",
        "{% for m in messages %}<|START_OF_TURN|>{{ m.role }}"
        "{% if m.role == 'assistant' %}<|START_RESPONSE|>{% endif %}{{ m.content }}<|END_OF_TURN|>{% endfor %}"
        "{% if add_generation_prompt %}<|START_OF_TURN|>assistant<|START_THINKING|>{% endif %}",
        ("<|START_OF_TURN|>", "<|END_OF_TURN|>", "<|START_THINKING|>", "<|END_THINKING|>", "<|START_RESPONSE|>"),
        (),
        ("", f"{INSIDE}<|END_THINKING|>", "<|START_RESPONSE|>The answer is 5."),
        opened="<|START_THINKING|>",
        skip="<|END_THINKING|><|START_RESPONSE|>",
    ),
    Family(
        "SmolLM3",
        CHATML
        + "{% if not (enable_thinking is defined and enable_thinking) %}<think>\n\n</think>\n{% endif %}{% endif %}",
        ("<|im_start|>", "<|im_end|>"),
        THINK,
        ("", f"<think>\n{INSIDE}</think>", AFTER),
        arguments=(("enable_thinking", True),),
        skip=EMPTY,
    ),
    Family(
        "Seed-OSS",
        "{% for m in messages %}<seed:bos>{{ m.role }}\n{{ m.content }}<seed:eos>{% endfor %}"
        "{% if add_generation_prompt %}<seed:bos>assistant\n{% endif %}{# <seed:think> #}",
        ("<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>"),
        (),
        ("", f"<seed:think>{INSIDE}</seed:think>", AFTER),
        skip="<seed:think>\n\n</seed:think>\n\n",
    ),
    Family(
        "no thoughts",
        CHATML.replace(".split('</think>')[-1]", "") + "{% endif %}",
        ("<|im_start|>",),
        (),
        ("", "", "5."),
    ),
)
by_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


@cache
def tokenizer_of(family: Family) -> PreTrainedTokenizerBase:
    """A byte-level vocabulary of single bytes and a few words, with the family's control tokens."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Wait", "ĠWait", "analysis", "final", "think", "ĠThe", ".Ċ"]
    backend = Tokenizer(
        models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[], ignore_merges=True)
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<eos>",
        additional_special_tokens=list(family.special),
        chat_template=family.template,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.added])
    return tokenizer


def settings_of(family: Family) -> PromptSettings:
    return PromptSettings(template="{question}", template_arguments=dict(family.arguments))


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@by_family
def test_every_token_has_its_phase(family: Family) -> None:
    tokenizer, prompt = tokenizer_of(family), settings_of(family)
    thoughts = thoughts_of(tokenizer, prompt)
    assert thoughts.opened == family.opened
    parts = [ids(tokenizer, part) for part in family.solution]
    tokens = [token for part in parts for token in part]
    first = "after" if family.arguments == (("enable_thinking", False),) else "none"
    wanted = [first] * len(parts[0]) + ["thought"] * len(parts[1]) + ["after" if parts[1] else first] * len(parts[2])
    before = EMPTY if first == "after" else thoughts.opened
    assert token_phases(tokens, tokenizer, before) == wanted
    assert (thoughts.marks is None) == (not parts[1])
    # What comes next: outside before the opening mark, inside before the closing mark's last token, then outside.
    starts, ends = len(parts[0]), len(parts[0]) + len(parts[1])
    inside = [thoughts.phase(decode(tokenizer, tokens[:count])) == "thought" for count in range(len(tokens) + 1)]
    assert not any(inside[:starts])
    assert not any(inside[ends:])
    assert not parts[1] or sum(inside) >= len(ids(tokenizer, INSIDE))


@by_family
def test_an_answer_counts_only_after_the_thought(family: Family) -> None:
    tokenizer = tokenizer_of(family)
    thoughts = thoughts_of(tokenizer, settings_of(family))
    tokens = [token for part in family.solution for token in ids(tokenizer, part)]
    assert extract_answer(thoughts.stated(decode(tokenizer, tokens)), "last_number") == "5"
    if thoughts.marks is not None:
        unclosed = family.solution[0] + family.solution[1][: family.solution[1].index("\\boxed{7}\n") + 10]
        shown = decode(tokenizer, ids(tokenizer, unclosed))
        assert thoughts.phase(shown) == "thought"
        assert extract_answer(thoughts.stated(shown), "math") is None


@by_family
def test_a_thought_is_closed_by_force(family: Family) -> None:
    tokenizer = tokenizer_of(family)
    thoughts = thoughts_of(tokenizer, settings_of(family))
    assert thoughts.closing(family.solution[0]) == ("", ()) or thoughts.opened
    if thoughts.marks is None:
        assert thoughts.room == 0
        return
    text = decode(tokenizer, ids(tokenizer, family.solution[0] + family.solution[1].partition("Wait")[0]))
    closes, closing = thoughts.closing(text)
    assert len(closing) <= thoughts.room
    assert thoughts.phase(text + decode(tokenizer, closing)) == "after"
    assert tokenizer.decode(list(closing)) == closes


@by_family
def test_the_question_about_a_solution_is_not_answered_with_a_thought(family: Family) -> None:
    tokenizer, prompt = tokenizer_of(family), settings_of(family)
    suffix, _ = self_evaluation(tokenizer, prompt)
    asked = tokenizer.decode(list(suffix)).rpartition(prompt.self_evaluation_question)[2]
    opened = tokenizer.decode(list(prompt_tokens(PROBLEM, tokenizer, prompt))).rpartition(PROBLEM.question)[2]
    assert asked.endswith(family.skip)
    assert phase(asked) == ("after" if family.skip else "none")
    freely, _ = self_evaluation(tokenizer, prompt, thinks=True)
    assert tokenizer.decode(list(freely)).endswith(opened), "a policy that may think first begins as it always does"


def test_the_channels_of_one_answer_do_not_end_it() -> None:
    tokenizer = tokenizer_of(next(family for family in FAMILIES if family.name == "gpt-oss"))
    assert tokenizer.convert_tokens_to_ids("<|end|>") not in usual_ends(tokenizer)


WORDS = st.lists(st.sampled_from(["a", "\n", " Wait", "<", ">", "/", "½", "\\boxed{7}"]), max_size=5).map("".join)


@settings(max_examples=60)
@given(st.lists(st.tuples(WORDS, st.booleans()), max_size=6), st.booleans(), st.booleans())
def test_phases_are_those_that_a_text_was_made_with(
    parts: list[tuple[str, bool]], opened: bool, unclosed: bool
) -> None:
    """parts: texts, and whether each is a thought. opened: the prompt opens the first; unclosed: the last is open."""
    tokenizer = tokenizer_of(FAMILIES[0])
    pieces, wanted, done = [], [], False
    for index, (words, thinks) in enumerate(parts):
        first, last = index == 0 and opened, index == len(parts) - 1 and unclosed
        thinks = thinks or first
        text = ("" if first else "<think>") + words + ("" if last else "</think>") if thinks else words
        tokens = ids(tokenizer, text)
        pieces += tokens
        wanted += ["thought" if thinks else "after" if done else "none"] * len(tokens)
        done = done or thinks
    before = "<think>\n" if opened and parts else ""
    assert token_phases(pieces, tokenizer, before) == wanted
    still = bool(parts) and unclosed and (parts[-1][1] or (opened and len(parts) == 1))
    assert (phase(before + decode(tokenizer, pieces)) == "thought") == still


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("thought_marks=['<thnk>']", "'<thnk>' opens no thought that is known; did you mean '<think>'?"),
        ("thought_marks=['zzz']", "or {opening: …, closing: …}"),
        ("thought_marks=[{opening: a, closing: a}]", "accepted: two different texts, not blank"),
        ("think_budget=0", "accepted: an integer ≥ 1"),
    ],
)
def test_bad_marks_are_named_in_one_line(override: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        load_settings(PromptSettings, None, [override])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_marks_of_a_users_own() -> None:
    tokenizer = tokenizer_of(FAMILIES[-1])
    prompt = load_settings(PromptSettings, None, ["thought_marks=['<reflection>', {opening: '((', closing: '))'}]"])
    thoughts = thoughts_of(tokenizer, prompt)
    assert thoughts.marks is not None
    assert thoughts.marks.closing == "</reflection>"
    assert thoughts.phase("so (( \\boxed{7}") == "thought"
    assert thoughts.stated("so (( \\boxed{7} )) 5") == "so  5"
    assert thoughts.closing("so (( hm")[0] == "))\n\n"
    assert ends_with_answer("so (( hm", " 7 )) The answer is 5.", prompt)
    assert not ends_with_answer("so (( hm", "The answer is 7.", prompt)
