"""Branch points inside steps: where samples are cut, what is shared, and which engines are refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from tokenizers import pre_tokenizers

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.base import Completion, Request, Sample
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.search.expansion import inner_cuts
from tests.engines.tiny import make_byte_tokenizer
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT

BYTES = make_byte_tokenizer()
SETTINGS = SearchSettings.model_validate(
    {"allocation": "entropy", "merge": "none", "simulations": 24, "max_tokens": 24, "max_depth": 12}
)


def cuts(text: str, surprisals: dict[int, float], count: int, ends: tuple[int, ...] = ()) -> list[int]:
    """Where `inner_cuts` cuts a sample of one token per byte. surprisals: by index; 0 elsewhere."""
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokens = tuple(BYTES.convert_tokens_to_ids([name for piece, _ in split.pre_tokenize_str(text) for name in piece]))
    assert len(tokens) == len(text.encode())
    assert BYTES.unk_token_id not in tokens
    logprobs = tuple(-surprisals.get(index, 0.0) for index in range(len(tokens)))
    return inner_cuts(Sample(tokens, text, logprobs, "end"), (), ends or (len(tokens),), BYTES, count)


def test_the_most_surprising_tokens_are_cut_at() -> None:
    assert cuts("aaaaaa", {2: 1.0, 4: 3.0}, 2) == [4, 2]
    assert cuts("aaaaaa", {2: 1.0, 4: 1.0}, 1) == [2]
    assert cuts("aa\naa\n", {3: 9.0, 4: 1.0}, 1, ends=(3, 6)) == [4], "a step begins at 3 already"


def test_both_parts_show_text_and_no_character_is_cut() -> None:
    assert cuts("aa\n\n", {2: 9.0, 3: 8.0, 1: 1.0}, 1) == [1]
    assert cuts("aéa", {2: 9.0, 3: 1.0}, 1) == [3]
    assert cuts("é", {1: 9.0}, 3) == []


def test_a_continuation_shares_the_tokens_before_it_exactly() -> None:
    engine = AutomatonEngine(6)
    forest = search_problems(PROBLEMS, engine, prompt=PROMPT, settings=SETTINGS)
    prefixes = {tuple(request.prefix) for request in engine.requests}
    inside = [
        node
        for node in range(len(forest))
        if forest.depth[node] and forest.expanded[node] and not forest.texts[node].endswith("\n")
    ]
    assert inside
    for node in inside:
        tree = forest.trees[forest.tree[node]]
        assert (*tree.prompt_tokens, *forest.solution_tokens(node)) in prefixes
        assert forest.samples[forest.children(node)].sum() > 1, "what was cut, and what was drawn there"


@pytest.mark.parametrize("given", [(), (math.nan,)])
def test_an_engine_without_log_probabilities_is_refused(given: tuple[float, ...]) -> None:
    class SilentEngine(AutomatonEngine):
        """Gives no usable log-probability."""

        def _complete(self, request: Request) -> Completion:
            done = super()._complete(request)
            return replace(done, samples=tuple(replace(one, logprobs=given * len(one.tokens)) for one in done.samples))

    with pytest.raises(InputError, match="the log-probability of each sampled token, which this engine") as error:
        search_problems(PROBLEMS, SilentEngine(6), prompt=PROMPT, settings=SETTINGS)
    assert "\n" not in str(error.value)
