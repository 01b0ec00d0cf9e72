"""A golden test per family: scores equal an independent computation, one prefix of a path at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForTokenClassification

from mcts_dpo.models.loading import tokenizer_digest
from mcts_dpo.rewards.process.judge import ProcessJudge
from tests.rewards.process.world import (
    CHATML,
    LLAMA3,
    QUESTION,
    STEPS,
    byte_tokenizer,
    decoder,
    items,
    judge_of,
    language_model,
    last_state,
    next_logits,
    path_of,
    piece_tokenizer,
    random_head,
    save_judge,
    stripped,
)

Expected = Callable[[Sequence[str]], float]
"""The score of the last of these steps, which are stripped."""


def check(judge: ProcessJudge, expected: Expected) -> list[list[float]]:
    """Compare the scores of every step of every path. Returns the expected ones."""
    wanted = [[expected(stripped(steps[: k + 1])) for k in range(len(steps))] for steps in STEPS]
    found = judge.step_scores(items())
    assert len(found) == len(wanted)
    for scores, right in zip(found, wanted, strict=True):
        assert scores == pytest.approx(right, abs=1e-5)
    values = [score for right in wanted for score in right]
    assert max(values) - min(values) > 1e-3, "the test could not fail"
    return wanted


def softmax_of(logits: torch.Tensor, one: int, other: int) -> float:
    return float(torch.softmax(logits[[one, other]], 0)[0])


def test_math_shepherd(tmp_path: Path) -> None:
    tokenizer = piece_tokenizer()
    folder = save_judge(tmp_path / "math-shepherd-mistral-7b-prm", "mistral", tokenizer, "MistralForCausalLM")
    model = language_model(folder)
    plus, minus = tokenizer.convert_tokens_to_ids(["▁+", "▁-"])

    def expected(steps: Sequence[str]) -> float:
        text = f"{QUESTION} " + "\n".join(f"Step {k}: {step} ки" for k, step in enumerate(steps, 1))
        ids = tokenizer(text).input_ids
        assert ids[-1] == tokenizer.convert_tokens_to_ids("▁ки")
        return softmax_of(next_logits(model, ids), plus, minus)

    judge = judge_of(folder)
    wanted = check(judge, expected)
    assert judge.scores(items()) == pytest.approx([min(one) for one in wanted], abs=1e-5)
    numbered = [f"Step {k}: {step}" for k, step in enumerate(STEPS[0], 1)]
    assert judge.step_scores([(QUESTION, path_of(numbered))])[0] == pytest.approx(wanted[0], abs=1e-5)


def test_math_psa(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    folder = save_judge(tmp_path / "Math-psa", "qwen2", tokenizer, "Qwen2ForCausalLM")
    model = language_model(folder)
    plus, minus = tokenizer.convert_tokens_to_ids(["Ġ+", "Ġ-"])

    def expected(steps: Sequence[str]) -> float:
        ids = tokenizer(f"{QUESTION} " + "".join(f"{step} \n\n\n\n\n" for step in steps)).input_ids
        assert ids[-1] == tokenizer.convert_tokens_to_ids("ĠĊĊĊĊĊ")
        return softmax_of(next_logits(model, ids), plus, minus)

    check(judge_of(folder), expected)


def test_rlhflow(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(template=LLAMA3, bos_token="<|begin_of_text|>")
    folder = save_judge(tmp_path / "Llama3.1-8B-PRM-Deepseek-Data", "llama", tokenizer, "LlamaForCausalLM")
    model = language_model(folder)
    plus, minus = tokenizer.convert_tokens_to_ids(["+", "-"])

    def expected(steps: Sequence[str]) -> float:
        header, turns = "<|start_header_id|>{}<|end_header_id|>\n\n", "<|begin_of_text|>"
        for k, step in enumerate(steps):
            said = f"{QUESTION} {step}" if k == 0 else step
            turns += f"{header.format('user')}{said}<|eot_id|>{header.format('assistant')}"
            turns += "+<|eot_id|>" if k + 1 < len(steps) else ""
        return softmax_of(next_logits(model, tokenizer.encode(turns, add_special_tokens=False)), plus, minus)

    judge = judge_of(folder)
    wanted = check(judge, expected)
    assert judge.scores(items()) == pytest.approx([sum(one) / len(one) for one in wanted], abs=1e-5)


SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


@pytest.mark.parametrize(("name", "system"), [("Qwen2.5-Math-PRM-7B", SYSTEM), ("ReasonFlux-PRM-7B", "You are Qwen.")])
def test_qwen_and_reasonflux(tmp_path: Path, name: str, system: str) -> None:
    tokenizer = byte_tokenizer(["<extra_0>"])
    head = random_head(("score.0", 32, 32), ("score.2", 2, 32))
    folder = save_judge(tmp_path / name, "qwen2", tokenizer, "Qwen2ForProcessRewardModel", head)
    model = decoder(folder)

    def expected(steps: Sequence[str]) -> float:
        text = (
            f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
        )
        state = last_state(model, tokenizer.encode(text + "".join(f"{step}<extra_0>" for step in steps)))
        hidden = (head["score.0.weight"] @ state + head["score.0.bias"]).clip(min=0)
        return softmax_of(head["score.2.weight"] @ hidden + head["score.2.bias"], 1, 0)

    judge = judge_of(folder)
    wanted = check(judge, expected)
    combined = math.prod if system == SYSTEM else lambda one: sum(one) / len(one)
    assert judge.scores(items()) == pytest.approx([combined(one) for one in wanted], abs=1e-5)


def test_skywork(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(bos_token="<|endoftext|>")
    head = random_head(("v_head.summary", 1, 32))
    folder = save_judge(tmp_path / "judge", "qwen2", tokenizer, "Qwen2ForPrmModel", head)
    model = decoder(folder)

    def expected(steps: Sequence[str]) -> float:
        ids = tokenizer.encode(f"<|endoftext|>{QUESTION}\n")
        for step in steps:
            ids = [*ids, *tokenizer.encode(step), *tokenizer.encode("\n")]
        value = head["v_head.summary.weight"] @ last_state(model, ids) + head["v_head.summary.bias"]
        return 1 / (1 + math.exp(-float(value)))

    judge = judge_of(folder)
    wanted = check(judge, expected)
    assert judge.scores(items()) == pytest.approx([one[-1] for one in wanted], abs=1e-5)


@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_trl(tmp_path: Path, separator: str) -> None:
    tokenizer = byte_tokenizer(bos_token="<|begin_of_text|>")
    head = random_head(("score", 2, 32))
    folder = save_judge(tmp_path / "judge", "llama", tokenizer, "LlamaForTokenClassification", head)
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def expected(steps: Sequence[str]) -> float:
        ids = [tokenizer.bos_token_id, *tokenizer.encode(QUESTION)]
        for step in steps:
            ids = [*ids, *tokenizer.encode(step), *tokenizer.encode(separator)]
        return softmax_of(next_logits(model, ids), 1, 0)

    check(judge_of(folder, separator=separator), expected)


def test_pure(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    folder = save_judge(
        tmp_path / "PURE-PRM-7B", "qwen2", tokenizer, "Qwen2ForTokenClassification", random_head(("score", 2, 32))
    )
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def expected(steps: Sequence[str]) -> float:
        pieces = [QUESTION, *(piece for step in steps for piece in (step, "\n"))]
        return softmax_of(next_logits(model, [token for piece in pieces for token in tokenizer.encode(piece)]), 1, 0)

    judge = judge_of(folder)
    wanted = check(judge, expected)
    for found, one in zip(judge.scores(items()), wanted, strict=True):
        own = [2 * p - 1 for p in one]  # P(1) − P(0), the scale and the temperature of the paper
        weights = [math.exp(-value / 0.1) for value in own]
        soft = sum(weight * value for weight, value in zip(weights, own, strict=True)) / sum(weights)
        assert found == pytest.approx((soft + 1) / 2, abs=1e-5)


def test_eurus(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    folder = save_judge(tmp_path / "EurusPRM-Stage2", "qwen2", tokenizer, "Qwen2ForCausalLM")
    other = save_judge(tmp_path / "reference", "qwen2", tokenizer, "Qwen2ForCausalLM", seed=1)
    ours, theirs = language_model(folder), language_model(other)
    asked = f"<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
    asked += "<|im_start|>assistant\n"

    def expected(steps: Sequence[str]) -> float:
        said = "\n\n".join(f"Step {k}: {step}" for k, step in enumerate(steps, 1))
        ids, start, total = tokenizer.encode(asked + said), len(tokenizer.encode(asked)), 0.0
        for place in range(start, len(ids)):
            logs = [torch.log_softmax(next_logits(model, ids[:place]), 0)[ids[place]] for model in (ours, theirs)]
            total += float(logs[0] - logs[1])
        return 1 / (1 + math.exp(-0.001 * total))

    judge = judge_of(folder, reference=str(other))
    wanted = check(judge, expected)
    assert judge.scores(items()) == pytest.approx([min(one) for one in wanted], abs=1e-5)


def test_pathfinder(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer(["<extra>", "<+>", "<->"])
    folder = save_judge(tmp_path / "PathFinder-PRM-7B", "qwen2", tokenizer, "Qwen2ForCausalLM")
    model = language_model(folder)
    plus, minus = tokenizer.convert_tokens_to_ids(["<+>", "<->"])
    prompt = (
        "You are a Math Teacher. Given a question and a student's solution, evaluate the mathemetical correctness, "
        "logic consistency of the current step and whether it will lead to the correct final solution"
    )

    def ask(text: str) -> float:
        return softmax_of(next_logits(model, tokenizer.encode(text)), plus, minus)

    def expected(steps: Sequence[str]) -> float:
        text = f"<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\n{prompt}\n\n Question: {QUESTION}"
        text += "<|im_end|>\n<|im_start|>assistant\n" + "".join(f"{step}\n\n" for step in steps[:-1])
        text += f"Current Step: {steps[-1]} Math reasoning: "
        mathematics, consistency = ask(text), ask(f"{text}<extra>, Consistency: ")
        if min(mathematics, consistency) < 0.5:
            return 0.0
        return ask(f"{text}<+>, Consistency: <+>, Correctness: ")

    judge = judge_of(folder)
    questions = [(QUESTION, path_of([f"{k} + {k} = {2 * k}\n", f"So {k}."][: 1 + k % 2])) for k in range(12)]
    wanted = [expected(stripped(path.steps)) for _, path in questions]
    assert judge.scores(questions) == pytest.approx(wanted, abs=1e-5)
    assert 0.0 in wanted
    assert max(wanted) > 0.1, "both stages are seen"


@pytest.mark.parametrize(("kind", "pad", "early"), [("mistral", "<s>", 1), ("llama", "</s>", 0)])
def test_reasoneval(tmp_path: Path, kind: str, pad: str, early: int) -> None:
    """Where the padding token is the first token of a text, the authors' code reads one token earlier."""
    tokenizer = piece_tokenizer(pad_token=pad)
    head = random_head(("score_head", 3, 32))
    folder = save_judge(tmp_path / "ReasonEval", kind, tokenizer, "ReasonEval_7B", head)
    model = decoder(folder)

    def expected(steps: Sequence[str]) -> float:
        pieces = [f"Question:\n{QUESTION}\nAnswer:\nLet's think step by step.\n", *steps]
        ids = [1, *(token for piece in pieces for token in tokenizer.encode(piece, add_special_tokens=False))]
        state = last_state(model, ids[: len(ids) - early])
        logits = head["score_head.weight"] @ state + head["score_head.bias"]
        return float(torch.softmax(logits, 0)[1:].sum())

    check(judge_of(folder), expected)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_our_own(tmp_path: Path, kind: str) -> None:
    """It reads the policy's ids: a step's score is at its last token."""
    tokenizer = byte_tokenizer()
    outputs = 2 if kind == "classification" else 1
    head = random_head(("score", outputs, 32))
    folder = save_judge(tmp_path / "judge", "qwen2", tokenizer, "Qwen2ForTokenClassification", head, num_labels=outputs)
    about = {"format": 1, "family": "mcts_dpo", "tokenizer": tokenizer_digest(tokenizer), "kind": kind}
    (folder / "process_reward.json").write_text(json.dumps(about | {"range": [-1.0, 1.0]}))
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()
    judge = judge_of(folder)
    assert judge.tokenizer == tokenizer_digest(tokenizer)
    paths = [path_of(steps) for steps in STEPS]
    for path, found in zip(paths, judge.step_scores([(QUESTION, path) for path in paths]), strict=True):
        for end, score in zip(path.ends, found or (), strict=True):
            logits = next_logits(model, [*path.prompt, *path.tokens[:end]])
            right = softmax_of(logits, 1, 0) if outputs == 2 else min(max((float(logits[0]) + 1) / 2, 0.0), 1.0)
            assert score == pytest.approx(right, abs=1e-5)


def test_chat_templates_here_are_those_of_the_tests() -> None:
    """The templates write what the tests write by hand."""
    told = byte_tokenizer(template=CHATML).apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert told == "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
