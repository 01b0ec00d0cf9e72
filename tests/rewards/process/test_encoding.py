"""From paths to what a judge reads: empty steps, prefill, cuts beyond the context."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from mcts_dpo.rewards.process.encoding import fitted, policy_encoder, text_encoder
from mcts_dpo.rewards.process.layouts import numbered, qwen_prm, trl
from mcts_dpo.rewards.process.readouts import aggregated
from tests.rewards.process.world import QUESTION, byte_tokenizer, judge_of, path_of, random_head, save_judge

TOKENIZER = byte_tokenizer()


def test_empty_steps_are_skipped_and_prefill_belongs_to_the_first_step() -> None:
    encode = text_encoder(trl(TOKENIZER), None)
    plain = encode("q", path_of(["Let: a\n", "b"]), 0)
    filled = encode("q", path_of(["a\n", " \n", "b"], text="Let: a\n \nb"), 0)
    assert plain is not None
    assert filled is not None
    assert (filled.ids, filled.places, filled.start) == (plain.ids, plain.places, plain.start)
    assert (plain.steps, filled.steps) == ((0, 1), (0, 2))
    assert encode("q", path_of([" ", "\n"]), 0) is None
    whole = encode("q", replace(path_of(["ab"]), steps=(), ends=()), 0)
    assert whole == encode("q", path_of(["ab"]), 0)


def test_marks_in_texts_are_no_places() -> None:
    encode = text_encoder(qwen_prm(byte_tokenizer(["<extra_0>"])), None)
    assert encode("q\ue000", path_of(["\ue000a", "b\ue000"]), 0) == encode("q", path_of(["a", "b"]), 0)


def test_a_path_with_a_lost_tag_is_not_encoded() -> None:
    assert text_encoder(trl(TOKENIZER), TOKENIZER.encode("\n")[0])("q", path_of(["a"]), 0) is not None
    assert text_encoder(trl(TOKENIZER), TOKENIZER.encode("x")[0])("q", path_of(["a"]), 0) is None


def test_steps_are_numbered_once() -> None:
    assert numbered(["a", "Step 2: b", "step 9. c"]) == ["Step 1: a", "Step 2: b", "step 9. c"]


def test_the_policys_ids_lose_whole_leading_steps() -> None:
    path = path_of(["a", "b", "c"])  # 2 tokens of prompt, 3 per step
    assert policy_encoder("", path, 0) == fitted(policy_encoder, 11, "", path)[0]
    found, cut = fitted(policy_encoder, 10, "", path)
    assert cut == 1
    assert found is not None
    assert (found.ids, found.places, found.steps) == ((1, 2, 6, 7, 8, 9, 10, 11), (4, 7), (1, 2))
    assert fitted(policy_encoder, 4, "", path) == (None, 0)
    empty_step = path_of(["a", "", "c"], ends=(3, 3, 9))
    found = policy_encoder("", empty_step, 0)
    assert found is not None
    assert (found.places, found.steps) == ((4, 10), (0, 2))


def test_a_long_path_keeps_its_score_and_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    head = random_head(("score", 2, 32))
    folder = save_judge(tmp_path / "judge", "llama", TOKENIZER, "LlamaForTokenClassification", head)
    steps = ["3 + 2 = 5\n", "So 5 apples.\n", "The answer is 5."]
    short, full = judge_of(folder, context=70), judge_of(folder)
    items = [(QUESTION, path_of(steps)), (QUESTION, path_of(steps[1:])), (QUESTION, path_of(["a" * 100]))]
    (cut, kept, too_long), (whole, same, _) = short.step_scores(items), full.step_scores(items)
    assert math.isnan(cut[0])
    assert cut[1:] == pytest.approx(kept, abs=1e-6)
    assert kept == pytest.approx(same, abs=1e-6)
    assert whole[1:] != pytest.approx(kept, abs=1e-3)
    assert list(map(math.isnan, too_long)) == [True]
    assert (short.cut, short.unknown, full.cut, full.unknown) == (1, 1, 0, 0)
    assert caplog.text.count("lost leading steps, beyond the judge's context") == 1
    assert [math.isnan(score) for score in short.scores(items)] == [False, False, True]
    assert (short.cut, short.unknown) == (2, 2)
    read = [len(TOKENIZER.encode("\n".join([QUESTION, *map(str.strip, path.steps), ""]))) for _, path in items]
    assert full.tokens == sum(read) - len(read)  # no newline after the question
    assert caplog.text.count("lost leading steps") == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [("last", 0.2), ("min", 0.2), ("prod", 0.08), ("mean", 0.5), ("softmin", 0.2001)],
)
def test_aggregates(name: str, expected: float) -> None:
    assert aggregated(name, [0.5, 0.8, 0.2], 0.05) == pytest.approx(expected, abs=1e-3)
    assert aggregated(name, [0.2, 0.8, 0.5], 0.05) == pytest.approx(0.5 if name == "last" else expected, abs=1e-3)
    assert aggregated(name, [0.7], 0.05) == pytest.approx(0.7)
