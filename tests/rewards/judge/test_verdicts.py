"""Verdicts: words by their probabilities or as written, grades, and nothing where there is nothing."""

from __future__ import annotations

import math

import pytest

from mcts_dpo.engines.chat import ChatAnswer, ChatToken
from mcts_dpo.rewards.judge.verdicts import grade_score, word_score

YES_NO, CORRECT = ("Yes", "No"), ("correct", "incorrect")


def answer(*tokens: tuple[str, dict[str, float]]) -> ChatAnswer:
    found = tuple(ChatToken(text, {one: math.log(p) for one, p in there.items()}) for text, there in tokens)
    return ChatAnswer("".join(token.text for token in found), found)


def token(text: str) -> tuple[str, dict[str, float]]:
    return text, {text: 1.0}


@pytest.mark.parametrize(
    ("given", "words", "expected"),
    [
        (answer(("Yes", {"Yes": 0.6, "No": 0.2, "Maybe": 0.2})), YES_NO, 0.75),
        (answer((" no", {" no": 0.5, "No": 0.1, " yes": 0.1, "YES": 0.1, '"Yes': 0.2})), YES_NO, 0.4),
        (answer(token("**"), ("Y", {"Y": 0.9, "N": 0.1}), token("es"), token("**")), YES_NO, 0.9),
        (answer(token("Verdict: "), ("in", {"in": 0.7, "correct": 0.3}), token("correct")), CORRECT, 0.3),
        (answer(("Yes", {"Yes": 0.9, "No": 0.1}), token(" but "), ("no", {"no": 0.8, "yes": 0.2})), YES_NO, 0.2),
        (answer(("Yes", {"Yes": 1.0})), YES_NO, 1.0),
    ],
)
def test_a_word_is_scored_where_it_is_said_last(given: ChatAnswer, words: tuple[str, str], expected: float) -> None:
    assert word_score(given, words) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("Yes", YES_NO, 1.0),
        ("no.", YES_NO, 0.0),
        ("I doubt it at first, but yes: it holds.\nVerdict: YES", YES_NO, 1.0),
        ("Verdict: incorrect", CORRECT, 0.0),
        ("The step is correct.", CORRECT, 1.0),
        ("Nothing is known, yesterday's Notes say.", YES_NO, math.nan),
        ("", YES_NO, math.nan),
    ],
)
def test_without_probabilities_the_word_counts(text: str, words: tuple[str, str], expected: float) -> None:
    assert word_score(ChatAnswer(text), words) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7", 0.7),
        ("7/10", 0.7),
        ("I give 3 out of 10.", 0.3),
        ("2 + 2 = 4 is right.\n**Grade: 8.5** for 3 lines", 0.85),
        ("Grade 1? No. Score: 10", 1.0),
        ("0", 0.0),
        ("Grade: -3", math.nan),
        ("Grade: 11", math.nan),
        ("Grade: 1e99", math.nan),
        ("Grade: 10,000", math.nan),
        ("Grade: 7/9", math.nan),
        ("excellent", math.nan),
        ("", math.nan),
    ],
)
def test_grades(text: str, expected: float) -> None:
    assert grade_score(text) == pytest.approx(expected, nan_ok=True)
