"""Judges of a policy that thinks close its open thought before they ask; the data keeps it as it was written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcts_dpo.data import Problem
from mcts_dpo.engines.base import Completion, Request, Sample
from mcts_dpo.models.decoding import decode
from mcts_dpo.models.phases import phase
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens, self_evaluation, thoughts_of
from mcts_dpo.preferences import PreferenceSettings, extract_pairs
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings, SolutionPath
from mcts_dpo.rewards.forced_answer import ForcedAnswerSettings
from mcts_dpo.search import SearchSettings, search_problems
from tests.models.test_phases import FAMILIES, Family, ids, settings_of, tokenizer_of
from tests.models.test_prompts import CHATML, byte_level
from tests.reference.scripted import ScriptedEngine
from tests.rewards.support import made, scored

PROBLEM = Problem("1", "What about 2 + 3?", "5")
THINKING = [family for family in FAMILIES if family.solution[1]]
by_family = pytest.mark.parametrize("family", THINKING, ids=lambda family: family.name)


class Listener(ScriptedEngine):
    """Writes what it is asked, and answers 5 and Yes."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer, {})
        self.asked: list[Request] = []

    def _complete(self, request: Request) -> Completion:
        self.asked.append(request)
        if request.choices is not None:
            return Completion(request.id, probabilities=(0.75, 0.25))
        tokens = tuple(ids(self.tokenizer, " 5."))
        return Completion(
            request.id, tuple(Sample(tokens, " 5.", (0.0,) * len(tokens), "stop") for _ in range(request.n))
        )


def inner(family: Family) -> SolutionPath:
    """A path that ends inside the thought, after "So the answer is 12?"."""
    tokenizer, prompt = tokenizer_of(family), settings_of(family)
    text = family.solution[0] + family.solution[1].partition(" Wait")[0]
    tokens = ids(tokenizer, text)
    return SolutionPath(
        prompt_tokens(PROBLEM, tokenizer, prompt), tokens, decode(tokenizer, tokens), (text,), (len(tokens),)
    )


def tail(family: Family, request: Request) -> str:
    """What the request's prefix says after the question."""
    return str(tokenizer_of(family).decode(list(request.prefix))).partition(PROBLEM.question)[2]


@by_family
def test_a_forced_answer_comes_after_the_thought(family: Family) -> None:
    tokenizer, prompt = tokenizer_of(family), settings_of(family)
    engine, path = Listener(tokenizer), inner(family)
    reward = made(ForcedAnswerSettings(samples=2), PROBLEM, prompt, tokenizer)
    assert scored(reward, [path], engine) == [1.0], "5 is right; the 12 in the thought is no answer"
    (request,) = engine.asked
    said = tail(family, request)
    closes = thoughts_of(tokenizer, prompt).closing(path.text)[0]
    assert said.endswith(f"So the answer is 12?{closes}{'' if closes.endswith(chr(10)) else chr(10)}The answer is")
    assert phase(said) == "after"
    assert len(request.prefix) - len(path.prompt) - len(path.tokens) + request.max_tokens <= reward.room


@by_family
def test_the_question_about_a_thought_is_put_after_it(family: Family) -> None:
    tokenizer, prompt = tokenizer_of(family), settings_of(family)
    engine, path = Listener(tokenizer), inner(family)
    reward = made(SelfEvaluationSettings(at="all"), PROBLEM, prompt, tokenizer)
    assert scored(reward, [path], engine) == [0.75]
    (request,) = engine.asked
    before, _, after = tail(family, request).partition(prompt.self_evaluation_question)
    assert phase(before) == phase(after) == "after", "neither the question nor the reply is in a thought"
    assert len(request.prefix) - len(path.prompt) - len(path.tokens) + 1 <= reward.room
    suffix, _ = self_evaluation(tokenizer, prompt)
    ended = replace(path, tokens=[*path.tokens, *thoughts_of(tokenizer, prompt).closing(path.text)[1]], text="5.")
    if not thoughts_of(tokenizer, prompt).opened:
        scored(reward, [ended], engine)
        assert engine.asked[-1].prefix == (*path.prompt, *ended.tokens, *suffix), "what is closed is not closed again"


@by_family
def test_a_thought_before_the_verdict_is_closed(family: Family) -> None:
    tokenizer, prompt = tokenizer_of(family), settings_of(family)
    engine = Listener(tokenizer)
    reward = made(SelfEvaluationSettings(at="all", think=5), PROBLEM, prompt, tokenizer)
    assert scored(reward, [inner(family)], engine) == [0.75]
    thinks, verdict = engine.asked
    opened = thoughts_of(tokenizer, prompt).opened
    assert tail(family, thinks).endswith(opened)
    assert tail(family, verdict).rstrip().endswith("Verdict:")
    assert phase(tail(family, verdict).rpartition(prompt.self_evaluation_question)[2]) in ("none", "after")


def test_pairs_keep_the_thought_as_it_was_written() -> None:
    """The template drops earlier thoughts; the pairs' token ids hold them all the same, and so do their texts."""
    tokenizer = byte_level(
        "{# <think> #}" + CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
    )
    prompt = PromptSettings()
    lead = "<think>\nPerhaps 4.\nWait.\n"
    right, wrong = f"{lead}No, 5.\n</think>\n\nThe answer is 5.", f"{lead}Yes, 4.\n</think>\n\nThe answer is 4."
    engine = ScriptedEngine(tokenizer, {PROBLEM.question: (right, wrong)})
    settings = SearchSettings(children=4, simulations=3, rewards=(OutcomeSettings(),), temperature=1.0)
    forest = search_problems([PROBLEM], engine, prompt=prompt, settings=settings)
    pairs = extract_pairs([forest], PreferenceSettings(min_gap=0.1))
    (row,) = pairs.table.to_pylist()
    assert row["prompt_tokens"] == list(prompt_tokens(PROBLEM, tokenizer, prompt))
    assert [*row["prefix_tokens"], *row["chosen_tokens"]] == ids(tokenizer, lead + "No, 5.\n")
    assert row["prompt"].endswith(lead)
    assert (row["chosen"], row["rejected"]) == ("No, 5.\n", "Yes, 4.\n")
