"""Rows that cannot be used are named and left out up to a set share; files as people have them are read."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.training import TrainingSettings, train
from mcts_dpo.training.data.datasets import load_completions, load_preferences
from tests.training.world import tiny_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(policy: Path) -> Any:
    return load_tokenizer(policy)


def good(number: int) -> str:
    return json.dumps({"prompt": f"w{3 + number % 20} ", "chosen": "w9", "rejected": "w8"})


BAD = [
    '{"prompt": "w7", "chosen"',
    '{"prompt": "w7 ", "chosen": "w9"}',
    '{"prompt": "w7 ", "chosen": "w9 \\ud800", "rejected": "w8"}',
    '{"prompt": "w7 ", "chosen": "w9", "rejected": "w8", "margin": ' + "9" * 5000 + "}",
    '{"prompt": ' + "[" * 2000 + "]" * 2000 + "}",
    '{"prompt": "w7 ", "chosen": "w9", "rejected": "w8", "weight": Infinity}',
    '{"prompt": "w7 ", "chosen": "w8", "rejected": "w8"}',
    '{"prompt": "w7 ", "chosen": [{"role": "assistant"}], "rejected": "w8"}',
    "[" * 100_000,
    "17",
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_one_bad_row_is_named_and_left_out(
    tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([*map(good, range(12)), bad, good(12)]) + "\n")
    with caplog.at_level(logging.WARNING):
        assert len(load_preferences(path, tokenizer)) == 13
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{path}, line 13: ")
    assert record.getMessage().endswith("; this row is left out")
    assert record.getMessage().isprintable()
    with pytest.raises(InputError, match=r"data\.jsonl, line 13: ") as caught:
        load_preferences(path, tokenizer, bad_rows=0)
    assert "\n" not in str(caught.value)


def test_more_than_the_share_end_the_training(tokenizer: Any, tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([*map(good, range(6)), *BAD[:4]]) + "\n")
    with pytest.raises(InputError, match=r"line 7: .* \(so are 3 more rows of 10; training.data.bad_rows: 0.1\)$"):
        load_preferences(path, tokenizer)
    with caplog.at_level(logging.WARNING):
        assert len(load_preferences(path, tokenizer, bad_rows=0.4)) == 6
    path.write_text("\n".join([good(1), *BAD]) + "\n")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert len(load_preferences(path, tokenizer, bad_rows=1)) == 1
    assert len(caplog.records) == 6
    assert caplog.records[-1].getMessage() == f"{path}: 10 of 11 rows are left out"
    path.write_text("\n".join(BAD[:1]) + "\n")
    with pytest.raises(InputError, match="line 1: not JSON"):
        load_preferences(path, tokenizer, bad_rows=1)


def test_a_training_goes_on_without_the_bad_row_and_without_the_long_one(
    policy: Path, tmp_path: Path, caplog: Any
) -> None:
    long = json.dumps({"prompt": "w7 " * 80, "chosen": "w9", "rejected": "w8"})
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join([*map(good, range(18)), BAD[0], long]) + "\n")
    with caplog.at_level(logging.WARNING):
        summary = train(policy, path, tmp_path / "out", TrainingSettings(data={"max_updates": 1}))
    assert summary.rows == 18
    assert "line 20: 82 tokens (accepted: up to 64, the policy's context); this row is left out" in caplog.text
    with pytest.raises(InputError, match="line 19: not JSON"):
        train(policy, path, tmp_path / "out2", TrainingSettings(data={"max_updates": 1, "bad_rows": 0.05}))


def test_a_mark_at_the_beginning_and_compressed_lines(tokenizer: Any, tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf" + f"{good(1)}\n{good(2)}\n".encode()
    (tmp_path / "a.jsonl").write_bytes(text)
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + f"[{good(1)}, {good(2)}]".encode())
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    for name in ("a.jsonl", "a.json", "a.jsonl.gz"):
        assert len(load_preferences(tmp_path / name, tokenizer)) == 2
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b"\n" * (2 << 20)))
    with pytest.raises(InputError, match=r"bomb\.jsonl\.gz: holds more than max_mib = 1 MiB"):
        load_completions(tmp_path / "bomb.jsonl.gz", tokenizer, max_mib=1)


def test_nan_is_nothing(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"prompt": NaN, "chosen": "w7 w9", "rejected": "w7 w8", "weight": NaN, "margin": NaN}\n'
    )
    table = load_preferences(tmp_path / "a.jsonl", tokenizer)
    assert table.tokens("prompt_tokens")[0].tolist() == [7]
    assert (table.numbers("weight")[0], table.numbers("margin")[0]) == (1.0, 0.0)
