"""The oracle: the truth of each line, on both worlds, without a reference answer, and with given error rates."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem
from mcts_dpo.engines import load_engine
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards import OutcomeSettings, RewardContext, SolutionPath
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.solve import solve_problems
from mcts_dpo.toy.horizon import HABITS, TAUGHT_EVENTS, horizon_problems, lines_right, truly_right
from mcts_dpo.toy.oracle import OracleSettings, _make
from mcts_dpo.toy.world import demonstrations, generate, make_problems, true_solution
from tests.conftest import ToyWorld
from tests.reference.engine import TOKENIZER

PROBLEMS = [*make_problems(100, 1), *horizon_problems(100, 2), *(generate(seed, events=(8,)) for seed in range(50))]


def scores(settings: OracleSettings, problem: Problem, paths: Sequence[SolutionPath], seed: int = 0) -> list[float]:
    coroutine = _make(settings, RewardContext(problem, TOKENIZER, PromptSettings(), seed)).scores(paths)
    with pytest.raises(StopIteration) as returned:
        next(coroutine)
    found: list[float] = returned.value.value
    return found


def path(text: str, terminal: bool = False) -> SolutionPath:
    return SolutionPath((), (), text, terminal=terminal)


def test_the_question_alone_tells_the_truth() -> None:
    assert all(true_solution(problem.question) == problem.solution for problem in PROBLEMS)
    question = PROBLEMS[0].question
    for foreign in ("", "What is 2 + 3?", question + " Why?", question.replace("has", "had", 1)):
        assert true_solution(foreign) is None


def test_it_scores_one_up_to_the_first_wrong_line() -> None:
    for shown in demonstrations(200, 3, HABITS, events=TAUGHT_EVENTS):
        problem = shown.problem.without_answer()
        lines = (shown.problem.solution or "").split("\n")
        ends = range(1, len(lines) + 1)
        paths = [path("\n".join(lines[:end]) + "\n") for end in ends]
        assert scores(OracleSettings(), problem, paths) == [float(right) for right in shown.right]
        whole = scores(OracleSettings(), problem, [path("\n".join(lines[:end]), terminal=True) for end in ends])
        assert whole == [0.0] * (len(lines) - 1) + [float(shown.right[-1])]
    assert scores(OracleSettings(), PROBLEMS[0], [path("")]) == [1.0]


def test_error_rates_are_those_given_and_each_path_errs_by_its_seed() -> None:
    settings = OracleSettings(false_alarm=0.2, miss=0.4)
    right = [scores(settings, problem, [path((problem.solution or "").split("\n")[0])])[0] for problem in PROBLEMS]
    wrong = [scores(settings, problem, [path(f"nothing {turn}") for turn in range(4)]) for problem in PROBLEMS]
    assert sum(right) / len(right) == pytest.approx(0.8, abs=0.06)
    assert sum(map(sum, wrong)) / len(wrong) / 4 == pytest.approx(0.4, abs=0.04)
    paths = [path(f"nothing {turn}") for turn in range(50)]
    once, again, other = (scores(settings, PROBLEMS[0], paths, seed) for seed in (0, 0, 1))
    assert once == again != other


def test_a_search_is_led_by_it_in_training_and_in_solving(toy_world: ToyWorld) -> None:
    engine = load_engine(str(toy_world.policy), settings=toy_world.config.engine)
    problems, prompt = toy_world.test[:6], toy_world.config.prompt
    settings = SearchSettings(simulations=3, max_tokens=64, rewards=(OutcomeSettings(), OracleSettings()))
    for mode in ("train", "solve"):
        forest = search_problems(problems, engine, prompt=prompt, settings=settings, mode=mode)
        for node in range(len(forest)):
            if forest.depth[node]:
                problem, text = problems[forest.tree[node]], forest.solution_text(node)
                right = truly_right(problem, text) if forest.terminal[node] else all(lines_right(problem, text))
                assert forest.scores["oracle"][node] == right
    wanted = [("best-of-n", 200), ("beam", 200)]
    chosen = SearchSettings(max_tokens=64, temperature=1.2, rewards=(OracleSettings(at="terminal"),))
    found = solve_problems(problems, engine, wanted, prompt=prompt, search=chosen)
    for solved in found.values():
        assert sum(one.answer == problem.answer for one, problem in zip(solved, problems, strict=True)) >= 3
    for one, problem in zip(found["best-of-n", 200], problems, strict=True):
        if any(sample.score == 1 for sample in one.finished):
            assert one.answer == problem.answer, "a right sample is chosen wherever there is one"


def test_a_foreign_problem_is_refused() -> None:
    with pytest.raises(InputError, match=r"^search\.rewards\.oracle: 'What is 2 \+ 3\?' is no question of the"):
        scores(OracleSettings(), Problem("p", "What is 2 + 3?"), [])
