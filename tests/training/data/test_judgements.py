"""Questions about steps: which are asked, as a search asks them, with the right answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens
from mcts_dpo.preferences import Solutions, Steps
from mcts_dpo.rewards import SolutionPath
from mcts_dpo.rewards.self_evaluation import self_evaluation_prompt
from mcts_dpo.toy.policy import toy_prompt
from mcts_dpo.toy.world import make_problems
from mcts_dpo.training import SelfEvaluationLossSettings
from mcts_dpo.training.data.judgements import make_judgements
from tests.conftest import ToyWorld
from tests.training.test_process_reward import steps_of
from tests.training.world import digest_of, tiny_policy

PROMPT = PromptSettings(
    style="plain", template="{question}", separator=" ", self_evaluation_question="w20 w21", yes="w3", no="w4"
)
"""The question is the tokens 20, 21; yes is 3, no is 4."""


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_policy(tmp_path_factory.mktemp("policy") / "tiny")


def asked(table: Steps, policy: Path, **settings: object) -> list[tuple[list[int], str]]:
    own = SelfEvaluationLossSettings.model_validate({"min_samples": 4, **settings})
    found = make_judgements(table, load_tokenizer(policy), PROMPT, own, seed=0)
    assert isinstance(found, Solutions)
    contexts, replies = found.tokens("prompt_tokens"), found.tokens("completion_tokens")
    questions = []
    for row in range(len(found)):
        assert contexts[row][-2:].tolist() == [20, 21]
        assert replies[row].tolist() in ([3], [4])
        questions.append((contexts[row][:-2].tolist(), {3: "yes", 4: "no"}[int(replies[row][0])]))
    return sorted(questions)


def tree(policy: Path, *, n: int = 4) -> Steps:
    """Prompt 9. A right path 10, 11; 12 collapses after it (value 0, n samples), and all below; 13 is wrong at once."""
    paths = [
        (0, [9], [[10], [11]], [1, 2], [0.5, 1.0], [8, 4]),
        (0, [9], [[10], [12], [14]], [1, 3, 4], [0.5, 0.0, 0.0], [8, n, 1]),
        (0, [9], [[10], [12], [15]], [1, 3, 5], [0.5, 0.0, 0.0], [8, n, n - 1]),
        (0, [9], [[13]], [6], [0.0], [1]),
    ]
    return steps_of(paths, digest_of(policy))


def test_first_errors_and_steps_before_them(policy: Path) -> None:
    errors = [([9, 10, 12], "no"), ([9, 13], "no")]  # where a solution ends, one sample is enough
    assert asked(tree(policy), policy, first_errors=1.0, before=0.0) == errors
    before = [([9, 10], "yes")]
    assert asked(tree(policy), policy, first_errors=2 / 3, before=1 / 3) == sorted([*errors, *before])
    everything = asked(tree(policy), policy, first_errors=0.1, before=0.0)
    assert Counter(dict.fromkeys(map(str, everything), 1)) == Counter(
        map(str, [*errors, ([9, 10], "yes"), ([9, 10, 11], "yes"), ([9, 10, 12, 14], "no"), ([9, 10, 12, 15], "no")])
    )
    assert len(everything) == 20


def test_few_samples_prove_nothing(policy: Path) -> None:
    found = asked(tree(policy, n=3), policy, first_errors=0.1, before=0.0)
    assert ([9, 13], "no") in found
    assert not any(context == [9, 10, 12] for context, _ in found)
    assert ([9, 10, 12, 14], "no") in found, "where a wrong solution ends, something is wrong"
    assert asked(tree(policy, n=3), policy, first_errors=1.0, before=0.0, min_samples=3)[0] == ([9, 10, 12], "no")


def test_a_tree_without_a_right_solution_has_no_first_error(policy: Path) -> None:
    table = steps_of([(0, [9], [[10], [11]], [1, 2], [0.0, 0.0], [8, 1])], digest_of(policy))
    with pytest.raises(InputError, match=r"steps: no first error: .*accepted: .*self_evaluation\.min_samples"):
        asked(table, policy)


def test_the_end_of_a_solution_is_not_shown(policy: Path) -> None:
    paths = [
        (0, [9], [[10], [11, 1]], [1, 2], [0.5, 1.0], [8, 4]),
        (0, [9], [[10], [12, 1]], [1, 3], [0.5, 0.0], [8, 4]),
    ]
    found = asked(steps_of(paths, digest_of(policy)), policy, first_errors=0.1, before=0.0)
    assert {str(context) for context, _ in found} == {"[9, 10]", "[9, 10, 11]", "[9, 10, 12]"}


def test_the_question_is_the_one_that_the_search_asks(toy_world: ToyWorld) -> None:
    tokenizer = load_tokenizer(toy_world.policy)
    (problem,) = make_problems(1, seed=3, events=(1,))
    start = list(prompt_tokens(problem, tokenizer, toy_prompt()))
    lines = [
        [int(token) for token in tokenizer(line, add_special_tokens=False)["input_ids"]]
        for line in (problem.solution or "").splitlines(keepends=True)
    ]
    lines[-1].append(int(tokenizer.eos_token_id))
    wrong = [[*lines[0], *lines[0]]]
    right, collapse = [1.0] * len(lines), [0.0]
    paths = [
        (0, start, lines, list(range(1, len(lines) + 1)), right, [4] * len(lines)),
        (0, start, wrong, [99], collapse, [4]),
    ]
    table = steps_of(paths, digest_of(toy_world.policy))
    own = SelfEvaluationLossSettings(first_errors=0.05, before=0.0)
    found = make_judgements(table, tokenizer, toy_prompt(), own, seed=0)
    question = self_evaluation_prompt(problem, tokenizer, toy_prompt())
    whole = SolutionPath(tuple(start), tuple(token for line in lines for token in line), "", terminal=True, closed=True)
    wanted = question.request(whole).prefix
    rows = [row for row in range(len(found)) if tuple(found.tokens("prompt_tokens")[row].tolist()) == wanted]
    assert rows
    assert all(tuple(found.tokens("completion_tokens")[row].tolist()) == question.choices[0] for row in rows)
