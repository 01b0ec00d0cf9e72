"""A judge on a vLLM pooling server: a local server that speaks its protocol, computed by the same tiny model."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import tokenizer_digest
from tests.rewards.process.world import (
    LLAMA3,
    byte_tokenizer,
    decoder,
    items,
    judge_of,
    path_of,
    random_head,
    save_judge,
)

Rows = Callable[[list[int]], list[list[float]]]
"""Token ids of a prompt → the rows of its answer."""


@contextmanager
def server(answer: Callable[[dict[str, Any]], tuple[int, str]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers `POST /pooling` with a status and a body. Yields its address and the bodies it was sent."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"path": self.path})
            status, text = answer(body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as here:
        thread = threading.Thread(target=here.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{here.server_port}", asked
        finally:
            here.shutdown()
            thread.join()


def pooled(rows: Rows) -> Callable[[dict[str, Any]], tuple[int, str]]:
    """vLLM's answer: one entry of rows per prompt, here in reverse order."""

    def answer(body: dict[str, Any]) -> tuple[int, str]:
        assert body["task"] == "token_classify"
        assert body["use_activation"] is False
        found = [
            {"index": index, "object": "pooling", "data": rows(prompt)} for index, prompt in enumerate(body["input"])
        ]
        return 200, json.dumps({"object": "list", "data": found[::-1]})

    return answer


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    head = random_head(("score.0", 32, 32), ("score.2", 2, 32))
    folder = tmp_path_factory.mktemp("judges") / "Qwen2.5-Math-PRM-7B"
    return save_judge(folder, "qwen2", byte_tokenizer(["<extra_0>"]), "Qwen2ForProcessRewardModel", head)


@torch.no_grad()
def qwen_logits(folder: Path, ids: list[int]) -> torch.Tensor:
    head = random_head(("score.0", 32, 32), ("score.2", 2, 32))
    states = decoder(folder)(input_ids=torch.tensor([ids])).last_hidden_state[0]
    hidden = (states @ head["score.0.weight"].T + head["score.0.bias"]).relu()
    found: torch.Tensor = hidden @ head["score.2.weight"].T + head["score.2.bias"]
    return found


def test_rows_per_token_rows_per_tag_and_probabilities(qwen: Path) -> None:
    tag = byte_tokenizer(["<extra_0>"]).convert_tokens_to_ids("<extra_0>")

    def all_rows(ids: list[int]) -> list[list[float]]:
        return qwen_logits(qwen, ids).tolist()

    def step_rows(ids: list[int]) -> list[list[float]]:
        return [row for token, row in zip(ids, qwen_logits(qwen, ids).tolist(), strict=True) if token == tag]

    def activated(ids: list[int]) -> list[list[float]]:
        return qwen_logits(qwen, ids).softmax(-1)[[token == tag for token in ids]].tolist()

    local = judge_of(qwen)
    wanted = local.step_scores(items())
    for rows in (all_rows, step_rows, activated):
        with server(pooled(rows)) as (url, asked):
            judge = judge_of(qwen, url=url + "/")
            assert [pytest.approx(one, abs=1e-5) for one in wanted] == judge.step_scores(items())
            assert judge.scores(items()) == pytest.approx(local.scores(items()), abs=1e-5)
        assert {one["path"] for one in asked} == {"/pooling"}
        assert judge.unknown == 0


def test_many_paths_are_several_requests(qwen: Path) -> None:
    with server(pooled(lambda ids: qwen_logits(qwen, ids).tolist())) as (url, asked):
        scores = judge_of(qwen, url=url).scores([items()[2]] * 40)
    assert [len(one["input"]) for one in asked] == [32, 8]
    assert len(set(scores)) == 1


def test_our_own_regression(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    head = random_head(("score", 1, 32))
    folder = save_judge(tmp_path / "judge", "qwen2", tokenizer, "Qwen2ForTokenClassification", head, num_labels=1)
    about = {"format": 1, "family": "mcts_dpo", "tokenizer": tokenizer_digest(tokenizer), "kind": "regression"}
    (folder / "process_reward.json").write_text(json.dumps(about | {"range": [-2.0, 2.0]}))
    model = AutoModelForTokenClassification.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def rows(ids: list[int]) -> list[list[float]]:
        found: list[list[float]] = model(input_ids=torch.tensor([ids])).logits[0].tolist()
        return found

    wanted = judge_of(folder).scores(items())
    with server(pooled(rows)) as (url, asked):
        assert judge_of(folder, url=url).scores(items()) == pytest.approx(wanted, abs=1e-5)
    assert asked[0]["input"][0][:2] == [1, 2], "the policy's ids"


def bodies() -> dict[str, tuple[int, str]]:
    return {
        "an error": (400, '{"error": "no"}'),
        "a crash": (500, "no"),
        "no JSON": (200, "<html>"),
        "no data": (200, '{"object": "list"}'),
        "data of another kind": (200, '{"data": [1, 2]}'),
        "too few rows": (200, '{"data": [{"index": 0, "data": [[0.5, 0.5]]}]}'),
        "an embedding": (200, '{"data": [{"index": 0, "data": [0.1, 0.2, 0.3]}]}'),
        "text": (200, '{"data": [{"index": 0, "data": "AAAA"}]}'),
        "no rows, for a tag that it does not find": (200, '{"data": [{"index": 0, "data": []}]}'),
        "another prompt's": (200, '{"data": [{"index": 9, "data": [[0.5, 0.5]]}]}'),
        "ragged rows": (200, '{"data": [{"index": 0, "data": [[0.5, 0.5], [0.1]]}]}'),
    }


@pytest.mark.parametrize("name", bodies())
def test_nonsense_is_an_unknown_score(qwen: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with server(lambda _: bodies()[name]) as (url, asked):
        judge = judge_of(qwen, url=url)
        (score,) = judge.scores(items()[:1])
    assert math.isnan(score)
    assert judge.unknown == 1
    assert len(asked) == (2 if name == "a crash" else 1)
    assert caplog.text.count("/pooling: no scores: ") == 1


def test_rows_that_are_not_finite_are_an_unknown_score(qwen: Path) -> None:
    with server(pooled(lambda ids: [[math.nan, 0.5]] * len(ids))) as (url, _):
        assert math.isnan(judge_of(qwen, url=url).scores(items()[:1])[0])


def test_a_server_that_is_slow_or_absent(qwen: Path, caplog: pytest.LogCaptureFixture) -> None:
    def slow(_: dict[str, Any]) -> tuple[int, str]:
        time.sleep(0.5)
        return 200, "{}"

    with server(slow) as (url, _):
        assert math.isnan(judge_of(qwen, url=url, timeout=0.05).scores(items()[:1])[0])
    absent = judge_of(qwen, url=url)
    assert all(map(math.isnan, absent.scores(items())))
    assert absent.unknown == len(items())
    assert f"{url}/pooling: no scores" in caplog.text


def test_after_a_crash_it_is_asked_once_more(qwen: Path) -> None:
    answers = [lambda _: (503, "busy"), pooled(lambda ids: qwen_logits(qwen, ids).tolist())]
    with server(lambda body: answers.pop(0)(body)) as (url, _):
        assert judge_of(qwen, url=url).scores(items()[:1]) == pytest.approx(
            judge_of(qwen).scores(items()[:1]), abs=1e-6
        )


@pytest.mark.parametrize("family", ["rlhflow", "pathfinder", "eurus", "math_psa"])
def test_families_without_a_head_are_refused(tmp_path: Path, family: str) -> None:
    tokenizer = byte_tokenizer(["<extra>", "<+>", "<->"], template=LLAMA3)
    folder = save_judge(tmp_path / "judge", "llama", tokenizer, "LlamaForCausalLM")
    with pytest.raises(
        InputError, match=rf"process\.url: a pooling server computes the outputs of a head, and {family}"
    ):
        judge_of(folder, family=family, url="http://127.0.0.1:1")


def test_weights_are_not_read(qwen: Path, tmp_path: Path) -> None:
    for path in qwen.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with server(pooled(lambda ids: qwen_logits(qwen, ids).tolist())) as (url, _):
        found = judge_of(tmp_path, url=url).scores([("q", path_of(["a"]))])
    assert found == pytest.approx(judge_of(qwen).scores([("q", path_of(["a"]))]), abs=1e-5)
