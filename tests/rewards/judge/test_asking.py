"""The judge: the policy's verdict by hand, an API's over real connections, and searches that outlive a bad one."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from benchmarks.driving import complete
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import seed_from
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import Problem
from mcts_dpo.engines import EngineSettings, load_engine
from mcts_dpo.engines.base import Request
from mcts_dpo.integrations.server.settings import ServerSettings
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.rewards import OutcomeSettings, RewardSettings
from mcts_dpo.rewards.judge import JudgeSettings
from mcts_dpo.rewards.judge.asking import ANSWER_TOKENS
from mcts_dpo.rewards.judge.rubric import RUBRIC, render
from mcts_dpo.rewards.judge.verdicts import grade_score
from mcts_dpo.search import SearchSettings, search_problems
from mcts_dpo.search.journal import Journal, identity
from mcts_dpo.search.mcts import admit
from mcts_dpo.search.runner import Runner
from mcts_dpo.search.state import begin
from mcts_dpo.solve import solve_problems
from tests.conftest import ToyWorld
from tests.engines.chat_server import Body, ChatServer, asked, chat_server, said
from tests.integrations.serving import stage, thread
from tests.reference.engine import EOS, TOKENIZER, AutomatonEngine
from tests.rewards.support import made, path_of, scored
from tests.search.support import PROBLEMS, PROMPT

PROBLEM = PROBLEMS[0]
PATHS = [path_of(PROBLEM, "a\nb\n"), path_of(PROBLEM, "ba", closed=True)]
OWN = JudgeSettings(rubric="{question};{steps};{step}?", words=("y", "n"))


def searched(*rewards: RewardSettings, **changes: Any) -> SearchSettings:
    return SearchSettings(max_tokens=24, max_depth=5, simulations=4, rewards=(OutcomeSettings(), *rewards)).model_copy(
        update=changes
    )


# --- what the judge reads --------------------------------------------------------------------------------


def test_the_rubric_holds_the_question_and_the_steps_as_they_are() -> None:
    problem = Problem("p", "What is {steps}?", choices=("one", "two"))
    path = path_of(PROBLEM, "a\nb\n")
    text = render(RUBRIC, problem, path, form="words", words=("Yes", "No"), thinks=False)
    assert "Problem:\nWhat is {steps}?\nA. one\nB. two\n\nSolution so far:\na\nb\n\nIts last step:\nb\n\n" in text
    assert text.endswith("\nAnswer with one word: Yes or No.")
    graded = render("{step} {reply}", problem, path, form="grade", words=("Yes", "No"), thinks=True)
    assert graded.startswith('b Think first. End with a line "Grade: N"')


# --- the policy ------------------------------------------------------------------------------------------


def test_the_policy_judges_by_the_probabilities_of_two_words() -> None:
    engine = AutomatonEngine(2, states=60)
    reward = made(OWN, PROBLEM)
    found = scored(reward, PATHS, engine)
    yes, no = (TOKENIZER(word)["input_ids"][0] for word in "yn")
    for text, score in zip(("ab;a\nb;b?\n", "ab;ba;ba?\n"), found, strict=True):
        log_p = engine.log_probabilities(TOKENIZER(text)["input_ids"])
        assert score == pytest.approx(1 / (1 + np.exp(log_p[no] - log_p[yes])))
    assert found[0] != found[1]
    assert engine.usage.sampled_tokens == 0
    assert (reward.cost, reward.room) == (1, len("ab;;?") - len("ab\n") + 1 + 1)


def test_the_policy_thinks_before_its_verdict() -> None:
    settings = OWN.model_copy(update={"think": 5, "temperature": 1.0})
    engine, reward = AutomatonEngine(2, states=60), made(settings, PROBLEM)
    found = scored(reward, PATHS, engine)
    yes, no = (TOKENIZER(f"\nVerdict: {word}")["input_ids"][-1] for word in "yn")
    for path, text, score in zip(PATHS, ("ab;a\nb;b?", "ab;ba;ba?"), found, strict=True):
        prefix, seed = TOKENIZER(text)["input_ids"], seed_from(0, "judge", PROBLEM.id, path.text)
        (thought,) = complete(engine, [Request(0, prefix, max_tokens=5, temperature=1.0, seed=seed)])
        written = [token for token in thought.samples[0].tokens if token != EOS]
        log_p = engine.log_probabilities([*prefix, *written, *TOKENIZER("\nVerdict: ")["input_ids"]])
        assert score == pytest.approx(1 / (1 + np.exp(log_p[no] - log_p[yes])))
    assert reward.cost == 5 + 1


def test_the_policy_gives_grades() -> None:
    settings = OWN.model_copy(update={"verdict": "grade", "temperature": 1.0})
    engine, reward = AutomatonEngine(2, states=60), made(settings, PROBLEM)
    paths = [path_of(PROBLEM, text) for text in ("a", "b", "ab", "ba", "aab", "bba", "aba", "bab")]
    found = scored(reward, paths, engine)
    expected = []
    for path in paths:
        prefix = TOKENIZER(f"ab;{path.text};{path.text}?")["input_ids"]
        seed = seed_from(0, "judge", PROBLEM.id, path.text)
        request = Request(0, prefix, max_tokens=ANSWER_TOKENS, temperature=1.0, seed=seed)
        expected.append(grade_score(complete(engine, [request])[0].samples[0].text))
    assert found == pytest.approx(expected, nan_ok=True)
    assert 0 < sum(map(math.isnan, found)) < len(found)


def test_a_path_that_is_too_long_for_the_policy_is_unknown() -> None:
    for think in (0, 3):
        engine = AutomatonEngine(2, states=60, context=24)
        paths = [path_of(PROBLEM, "a"), path_of(PROBLEM, "ab" * 9), path_of(PROBLEM, "b")]
        found = scored(made(OWN.model_copy(update={"think": think}), PROBLEM), paths, engine)
        assert [math.isnan(score) for score in found] == [False, True, False]


def test_what_the_policy_judges_counts_in_every_budget() -> None:
    settings = searched(OWN.model_copy(update={"think": 4, "at": "all"}))
    for strategy in ("best-of-n", "beam", "mcts"):
        engine = AutomatonEngine(3)
        found = solve_problems(PROBLEMS, engine, [(strategy, 300)], prompt=PROMPT, search=settings)[strategy, 300]
        verdicts = sum(request.choices is not None for request in engine.requests)
        assert verdicts > 0
        assert engine.usage.sampled_tokens + verdicts <= sum(one.tokens for one in found) <= 300 * len(PROBLEMS)


# --- a model of its own ----------------------------------------------------------------------------------


def test_another_model_judges_in_this_process(toy_world: ToyWorld) -> None:
    policy, problem = toy_world.policy, toy_world.train[0]
    rubric = "{question}\n{steps}\nRight so far?"
    own = EngineSettings(dtype="float32", threads=1, slots=4)
    settings = JudgeSettings(model=str(policy), engine=own, rubric=rubric, words=("yes", "no"), at="all")
    reward = made(settings, problem)
    paths = [path_of(problem, "ab"), path_of(problem, "a" * 30)]
    found = scored(reward, paths, AutomatonEngine(2))
    model, tokenizer = LlamaForCausalLM.from_pretrained(policy, dtype="float32"), load_tokenizer(policy)
    yes, no = (tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in ("yes", "no"))
    for path, score in zip(paths, found, strict=True):
        text = f"{problem.question}\n{path.text}\nRight so far?\n"
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])).logits[0, -1]
        assert score == pytest.approx(float(torch.sigmoid(logits[yes] - logits[no])), rel=1e-5)
    assert found[0] != found[1]
    assert (reward.cost, reward.room) == (1, 0)
    assert settings.files() == [policy]


def test_a_tree_is_searched_while_another_model_judges(toy_world: ToyWorld) -> None:
    own = EngineSettings(dtype="float32", threads=1, slots=4)
    judge = JudgeSettings(
        model=str(toy_world.policy), engine=own, think=3, rubric="{steps}?", at="all", words=("yes", "no")
    )
    forest = search_problems(PROBLEMS, AutomatonEngine(3), prompt=PROMPT, settings=searched(judge))
    scores = forest.scores["judge"][forest.depth > 0]
    assert len(scores)
    assert ((scores > 0) & (scores < 1)).all()


# --- an API ----------------------------------------------------------------------------------------------


def believes(body: Body) -> Body:
    """Sure of solutions with an "a" in their last step."""
    p = 0.9 if "a" in asked(body).rpartition("|")[2] else 0.2
    return said("Yes" if p > 0.5 else "No", [("Yes" if p > 0.5 else "No", {"Yes": p, "No": 1 - p})])


@pytest.fixture
def believer() -> Iterator[ChatServer]:
    with chat_server(believes) as server:
        yield server


def api(url: str, **changes: Any) -> JudgeSettings:
    given = {"rubric": "{question}|{steps}|{step}", "timeout": 20.0} | changes
    return JudgeSettings(url=url, **({"model": "judge"} | given))


def test_a_search_is_judged_over_the_api(believer: ChatServer) -> None:
    settings = searched(api(believer.url, at="all"), expand="step", max_step_tokens=8)
    forest = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=settings)
    steps = [node for node in range(len(forest)) if forest.depth[node]]
    expected = [0.9 if "a" in forest.texts[node] else 0.2 for node in steps]
    assert forest.scores["judge"][steps] == pytest.approx(expected)
    assert {0.9, 0.2} == set(expected)
    assert all(body["max_tokens"] == ANSWER_TOKENS for body in believer.seen)
    assert sum(tree.unscored.get("judge", 0) for tree in forest.trees) == 0


@pytest.mark.parametrize("strategy", ["best-of-n", "weighted", "beam", "dvts", "mcts"])
def test_every_strategy_asks_it(strategy: str, believer: ChatServer) -> None:
    engine = AutomatonEngine(3)
    wanted = [(strategy, 300)]
    settings = searched(api(believer.url), temperature=1.0)
    (found,) = solve_problems(PROBLEMS, engine, wanted, prompt=PROMPT, search=settings).values()
    assert believer.seen
    assert all(one.error is None and one.tokens <= 300 for one in found)
    assert not any(request.choices for request in engine.requests), "the policy is not asked"


BAD: dict[str, Any] = {
    "nonsense": said("I like trains."),
    "not json": b"<html>",
    "refused": (401, {"error": {"message": "who are you?"}}),
    "no content": said(None),
    "out of range": said("Grade: 99"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("schedule", ["synchronous", "asynchronous"])
def test_a_judge_that_gives_no_verdict_is_unknown_and_the_search_goes_on(name: str, schedule: str) -> None:
    with chat_server(lambda _: BAD[name]) as server:
        form = "grade" if name == "out of range" else "words"
        settings = searched(api(server.url, verdict=form), schedule=schedule)
        forest = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=settings)
    alone = search_problems(PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=searched(schedule=schedule))
    assert np.isnan(forest.scores["judge"]).all()
    assert [tree.unscored["judge"] for tree in forest.trees] == [
        int(forest.terminal[forest.nodes(tree)].sum()) for tree in range(len(PROBLEMS))
    ]
    assert {tree.status for tree in forest.trees} == {"simulations"}
    assert np.array_equal(forest.q, alone.q, equal_nan=True), "what is unknown changes no value"


def test_trees_that_do_not_wait_for_a_slow_judge_go_on() -> None:
    go = threading.Event()

    def answer(body: Body) -> Body:
        if asked(body).startswith("ab|"):
            go.wait(120.0)
        return believes(body)

    with chat_server(answer) as server:
        settings = searched(api(server.url, timeout=200.0), schedule="asynchronous")
        state = begin(PROBLEMS, AutomatonEngine(6), PROMPT, settings, "train")
        with closing(Runner[None](state.engine, "asynchronous")) as runner:
            admit(runner, 0, state)
            while sum(tree.running for tree in state.trees) > 1:
                runner.step(5.0)
            assert [tree.running for tree in state.trees] == [True, False, False]
            go.set()
            while runner.busy:
                runner.step(5.0)
    assert not any(tree.running for tree in state.trees)


def test_a_journal_holds_the_verdicts(tmp_path: Path, believer: ChatServer) -> None:
    settings = searched(api(believer.url))

    def grown() -> Any:
        state = begin(PROBLEMS, AutomatonEngine(6), PROMPT, settings, "train")
        journal = Journal(tmp_path / "journal", identity(settings, PROMPT, PROBLEMS, "train", ""))
        with closing(Runner[None](state.engine)) as runner:
            admit(runner, 0, state, journal)
            while runner.busy:
                runner.step()
        journal.close()
        return state.forest

    first, asked_first = grown(), len(believer.seen)
    assert grown() == first
    assert len(believer.seen) == asked_first > 0


def test_our_own_server_is_such_an_api(toy_world: ToyWorld) -> None:
    """The toy policy answers the rubric with a story, so most verdicts are unknown; the protocol is what counts."""
    engine = load_engine(str(toy_world.policy), settings=toy_world.config.engine)
    with thread(engine, ServerSettings(budget=60), stage()) as served:
        question = toy_world.test[0].question
        judge = api(f"{served.url}/v1", model="toy", rubric=question + "{step}", verdict="grade", timeout=120.0)
        found = scored(made(judge, PROBLEM), [path_of(PROBLEM, "")] * 2, AutomatonEngine())
        assert all(math.isnan(score) or 0 <= score <= 1 for score in found)
        statuses = {name.partition("status=")[2][:5] for name in served.metrics() if "requests_total{" in name}
        assert statuses == {'"200"', '"400"'}, "it refuses log-probabilities, and is asked without"
    engine.close()


# --- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("rubric='Is it right?'", r"contains neither '\{steps\}' nor '\{step\}'"),
        ("words=[yes, YES]", r"are not two words; accepted: a good word and a bad one"),
        ("words=[yes]", r"words\.1: missing"),
        ("url=http://localhost:1/v1", r"url: without model; accepted: both"),
        ("verdict=number", r"'number' is not one of the choices \(accepted: 'words' or 'grade'\)"),
        ("timeout=0", r"timeout: 0 is out of range"),
    ],
)
def test_bad_settings_in_one_line(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as told:
        load_settings(SearchSettings, None, [f"rewards.judge.{given}"])
    assert "\n" not in str(told.value)


def test_words_that_are_the_same_tokens() -> None:
    with pytest.raises(InputError, match=r"^search\.rewards\.judge\.words: \['c', 'd'\] are the same tokens"):
        made(JudgeSettings(words=("c", "d")), PROBLEM)


def test_a_model_of_its_own_that_does_not_exist() -> None:
    with pytest.raises(InputError, match="/nope: no such model file or directory"):
        made(JudgeSettings(model="/nope"), PROBLEM)


def test_the_key_comes_from_the_variable_that_is_named(believer: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    stored = JudgeSettings.model_validate(api(believer.url).model_dump())
    assert scored(made(stored, PROBLEM), PATHS, AutomatonEngine()) == pytest.approx([0.2, 0.9])
    believer.keys.clear()
    judge = api(believer.url, api_key_env="KEY_OF_THE_JUDGE")
    with pytest.raises(InputError, match=r"api_key_env: 'KEY_OF_THE_JUDGE' is no variable of the environment"):
        made(judge, PROBLEM)
    monkeypatch.setenv("KEY_OF_THE_JUDGE", "abc")
    assert scored(made(judge, PROBLEM), PATHS, AutomatonEngine()) == pytest.approx([0.2, 0.9])
    assert believer.keys == {"Bearer abc"}
