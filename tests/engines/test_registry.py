"""Engines by name: a third-party engine is one file of under 40 lines, and real searches run on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines import EngineSettings, load_engine, register_engine, registry
from mcts_dpo.engines.registry import engine_kind, engine_names
from mcts_dpo.search import Forest
from tests.engines.tiny import make_byte_tokenizer, save_model

PLAIN = '''
"""An engine that runs a plain forward pass for every token."""
import numpy as np
import torch
from mcts_dpo.engines import Completion, Occupancy, Sample, Usage, register_engine
from mcts_dpo.models.loading import load_model, load_tokenizer

class PlainEngine:
    def __init__(self, model, settings):
        self.tokenizer, self.model = load_tokenizer(model), load_model(model, "float32")
        self.context, self.slots, self.usage, self.waiting = 128, 1, Usage(), {}
        self.cancel = lambda ids: [self.waiting.pop(one, None) for one in ids]
        self.occupancy = lambda: Occupancy(len(self.waiting))
        self.reset = self.close = lambda: None
        self.reload = lambda checkpoint: self.__init__(checkpoint, None)
    def submit(self, request):
        self.waiting[request.id] = request
    def poll(self, patience=None):
        return [self.run(self.waiting.pop(one)) for one in list(self.waiting)[:1]]
    def logs(self, tokens):
        return self.model(torch.tensor([tokens])).logits[0, -1].detach().double().log_softmax(-1).numpy()
    def score(self, prefix, tokens):
        return sum(self.logs((*prefix, *tokens[:i]))[token] for i, token in enumerate(tokens))
    def run(self, request):
        if request.choices is None:
            return Completion(request.id, tuple(self.sample(request, j) for j in range(request.n)))
        odds = np.exp([self.score(request.prefix, choice) for choice in request.choices])
        return Completion(request.id, probabilities=tuple(odds / odds.sum()))
    def sample(self, request, j):
        draw, tokens, logprobs, text = np.random.default_rng((request.seed, j)), (), (), ""
        for _ in range(min(request.max_tokens, self.context - len(request.prefix))):
            logs = self.logs((*request.prefix, *tokens))
            token = int(draw.choice(len(logs), p=np.exp(logs)))
            tokens, logprobs = (*tokens, token), (*logprobs, float(logs[token]))
            text, ended = self.tokenizer.decode(tokens), token == self.tokenizer.eos_token_id
            if ended or any(stop in text for stop in request.stop):
                return Sample(tokens, text, logprobs, "end" if ended else "stop")
        return Sample(tokens, text, logprobs, "length")

register_engine("plain", PlainEngine)
'''


def test_a_search_on_an_engine_from_outside(tmp_path: Path) -> None:
    assert len(PLAIN.strip().splitlines()) < 40
    (tmp_path / "plain.py").write_text(PLAIN)
    (tmp_path / "problems.jsonl").write_text('{"question": "aé", "answer": "ü"}\n{"question": "a€", "answer": "a"}\n')
    save_model(tmp_path / "model", tokenizer=make_byte_tokenizer())
    command = [sys.executable, "-m", "mcts_dpo", "--with", "plain", "search", "-m", "model", "-p", "problems.jsonl"]
    command += ["-o", "trees", "engine.kind=plain", "prompt.style=plain", "search.simulations=3", "search.max_depth=2"]
    command += ["search.children=2", "search.max_step_tokens=4", "search.max_tokens=12"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    forest = Forest.load(next((tmp_path / "trees").glob("*.parquet")))
    assert {tree.status for tree in forest.trees} <= {"finished", "exhausted"}
    assert len(forest.parent) > len(forest.trees)


def test_names_of_engines() -> None:
    assert engine_names()[:3] == ("transformers", "vllm", "openai")
    with pytest.raises(ValueError, match="the engine 'vllm' is registered already"):
        register_engine("vllm", engine_kind("vllm").load)
    accepted = r"\(accepted: transformers, vllm, openai.*\)"
    with pytest.raises(InputError, match=f"kind: 'vlm' is not one of the choices; did you mean 'vllm'\\? {accepted}"):
        load_engine("model", kind="vlm")
    with pytest.raises(InputError, match=f"engine.kind: 'gpt' is not one of the choices {accepted}"):
        engine_kind("gpt")


def test_a_registered_engine_is_named_by_its_nearest_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    register_engine("mine", engine_kind("transformers").load, local=False)
    with pytest.raises(InputError, match="'mins' is not one of the choices; did you mean 'mine'"):
        load_engine("model", kind="mins")
    assert EngineSettings(kind="mine").kind == "mine"
    assert not engine_kind("mine").local
