"""The real Inspect AI, end to end on the toy policy: our engine, and a model of Inspect's own."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.data import Problem
from mcts_dpo.engines import load_engine
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search import Forest, SearchSettings
from mcts_dpo.solve import Asked, solve_problems
from mcts_dpo.toy.policy import toy_prompt
from tests.conftest import CHAT, ToyWorld

inspect_ai = pytest.importorskip("inspect_ai", reason="the extra inspect")
pytestmark = pytest.mark.filterwarnings("ignore")

TOY = {
    "prompt_answer_style": "answer_is",
    "prompt_self_evaluation_question": "Right so far?",
    "prompt_yes": "yes",
    "prompt_no": "no",
}


@pytest.fixture
def run(toy_world: ToyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Evaluate the toy's first test problems with a solver. Returns Inspect's log, which must be a success."""
    from inspect_ai import Task
    from inspect_ai.dataset import MemoryDataset, Sample

    from mcts_dpo.integrations.inspect import math_equal

    monkeypatch.setenv("INSPECT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))

    def call(solver: Any, count: int, own: bool, **arguments: Any) -> Any:
        samples = [Sample(id=p.id, input=p.question, target=p.answer or "") for p in toy_world.test[:count]]
        task = Task(dataset=MemoryDataset(samples), scorer=math_equal(style="answer_is"))
        if not own:
            arguments |= {"model": f"hf/{toy_world.policy}", "model_args": {"chat_template": CHAT, "device": "cpu"}}
        (log,) = inspect_ai.eval(
            task, solver=solver, log_dir=str(tmp_path / "logs"), display="none", **({"model": None} | arguments)
        )
        assert log.status == "success", log.error
        return log

    return call


def test_our_engine_answers_as_it_does_without_inspect(run: Any, toy_world: ToyWorld, tmp_path: Path) -> None:
    from mcts_dpo.integrations.inspect import engine_thread, majority, mcts

    policy, budget = str(toy_world.policy), 200
    problems = [Problem(f"{p.id}-1", p.question) for p in toy_world.test[:12]]
    own = solve_problems(
        problems,
        load_engine(policy),
        [("mcts", budget), ("majority", budget)],
        prompt=toy_prompt(),
        search=SearchSettings(max_tokens=80),
    )
    arguments = {"budget": budget, "policy": policy, "search_max_tokens": 80, "prompt_separator": "\n", **TOY}
    for solver in (mcts(**arguments, trees=str(tmp_path / "trees")), majority(**arguments)):
        log = run(solver, 12, own=True, max_samples=12)
        strategy = log.samples[0].metadata["mcts_dpo"]["strategy"]
        by_id = {sample.id: sample for sample in log.samples}
        for problem, solution in zip(toy_world.test, own[strategy, budget], strict=False):
            sample = by_id[problem.id]
            figures = sample.metadata["mcts_dpo"]
            assert (figures["answer"], figures["tokens"]) == (solution.answer, solution.tokens)
            assert sample.output.completion == solution.text == sample.messages[-1].text
            assert (sample.scores["math_equal"].value == "C") == (solution.answer == problem.answer)
            if strategy == "mcts":
                forest = Forest.load(Path(figures["tree"]))
                assert forest.trees[0].simulations == figures["expansions"] >= 1
                assert float(forest.v[forest.trees[0].root]) == figures["value"]
                assert forest.trees[0].generated == figures["tokens"] <= budget
    assert engine_thread(policy, ()).most_active > 1, "samples that run at the same time are searched together"


def test_a_model_of_inspects_is_called_through_its_own_generate(run: Any, tmp_path: Path) -> None:
    from mcts_dpo.integrations.inspect import mcts

    solver = mcts(budget=80, prefill=True, cache=True, search_max_tokens=40, search_temperature=0.8, **TOY)
    log = run(solver, 2, own=False)
    assert any(sample.metadata["mcts_dpo"]["answer"] for sample in log.samples)
    for sample in log.samples:
        figures = sample.metadata["mcts_dpo"]
        calls = [event for event in sample.events if event.event == "model"]
        assert figures["model_tokens"]["output"] == sum(event.output.usage.output_tokens for event in calls)
        assert len({event.config.seed for event in calls if event.config.max_tokens != 16}) > 1
        partial = [event for event in calls if event.input[-1].role == "assistant"]
        assert all(event.input[-1].text for event in partial)
        assert Path(figures["tree"]).parent == tmp_path / "logs" / "mcts-trees"
        # Tokens of whole samples are the model's own; each question counts as one.
        asked = [event for event in calls if event.input[-1].text == "Right so far?"]
        written = sum(event.output.usage.output_tokens for event in calls if event not in asked)
        assert figures["tokens"] == written + len(asked)
    again = run(solver, 2, own=False)
    assert again.stats.model_usage == {}, "everything comes from Inspect's cache"
    assert [s.output.completion for s in again.samples] == [s.output.completion for s in log.samples]


def test_steps_are_asked_for_where_a_model_does_not_go_on_with_its_message(run: Any) -> None:
    from mcts_dpo.integrations.inspect import mcts
    from mcts_dpo.integrations.inspect_engine import CONTINUE

    solver = mcts(budget=40, search_expand="step", search_max_tokens=40, search_max_step_tokens=20, **TOY)
    log = run(solver, 1, own=False)
    calls = [event for event in log.samples[0].events if event.event == "model"]
    assert any(event.config.stop_seqs == ["\n"] for event in calls)
    # Inspect keeps longer texts of its log apart.
    assert any(CONTINUE in text for text in log.samples[0].attachments.values())
    assert log.samples[0].metadata["mcts_dpo"]["nodes"] > 2


def test_limits_of_inspects_end_a_search(run: Any) -> None:
    from mcts_dpo.integrations.inspect import majority

    log = run(majority(budget=4000, search_max_tokens=40, **TOY), 2, own=False, token_limit=150)
    assert [sample.limit.type for sample in log.samples] == ["token", "token"]
    assert all("mcts_dpo" not in sample.metadata for sample in log.samples)


@pytest.mark.parametrize(
    ("output", "target", "choices", "right"),
    [
        ("so 1/2.\nThe answer is 0.5.", "\\frac{1}{2}", [], True),
        ("The answer is 7.", "8", [], False),
        ("I do not know", "8", [], False),
        ("The answer is (B).", "B", ["three", "four"], True),
        ("The answer is four.", "A", ["three", "four"], False),
        ("The answer is 12.", ["11", "12"], [], True),
    ],
)
def test_the_scorer_compares_as_mathematics(output: str, target: Any, choices: list[str], right: bool) -> None:
    import asyncio

    from inspect_ai.model import ModelName, ModelOutput
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    from mcts_dpo.integrations.inspect import math_equal

    state = TaskState(ModelName("none/none"), 1, 1, "?", [], choices=choices or None)
    state.output = ModelOutput.from_content("none", output)
    score = asyncio.run(math_equal()(state, Target(target)))
    assert score is not None
    assert (score.value == "C") is right
    assert score.explanation


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 0}, r"budget: 0 is out of range \(accepted: an integer ≥ 1\)"),
        ({"search_childrn": 3}, "did you mean 'children'"),
        ({"buget": 3}, "did you mean 'budget'"),
        ({"prompt_answer_style": "maths"}, "did you mean 'math'"),
        ({"engine_slots": 3}, "give policy=MODEL too"),
    ],
)
def test_bad_arguments_are_one_line(arguments: dict[str, Any], message: str) -> None:
    from mcts_dpo.integrations.inspect import math_equal, mcts

    with pytest.raises(InputError, match=message):
        mcts(**arguments)
    with pytest.raises(InputError, match="style: 'mth'"):
        math_equal(style="mth")


def test_messages_that_are_no_question_are_named() -> None:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    from mcts_dpo.integrations.inspect import Conversation

    user, said, system = (
        ChatMessageUser(content="q"),
        ChatMessageAssistant(content="a"),
        ChatMessageSystem(content="s"),
    )
    assert Conversation.of([system, user, said, user]) == Conversation("s", (("q", "a"),), "q")
    for wrong in ([], [user, said], [said, user], [system]):
        with pytest.raises(InputError, match="accepted: system, then examples"):
            Conversation.of(wrong)


@given(st.text(alphabet="ab \n", max_size=30), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_a_text_is_cut_within_lines(text: str, count: int) -> None:
    from mcts_dpo.integrations.inspect_engine import cut

    pieces = cut(text, count)
    lines = text.splitlines()
    assert "".join(pieces) == text
    assert all("\n" not in piece[:-1] for piece in pieces)
    assert len(pieces) == max(count, len(lines))


@given(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(alphabet="xy\n", min_size=1)), max_size=5
    )
)
@settings(max_examples=50, deadline=None)
def test_messages_survive_the_prompt(said: list[tuple[str, str]]) -> None:
    from mcts_dpo.integrations.inspect_engine import TextTokenizer, turns

    tokenizer = TextTokenizer()
    text = tokenizer.apply_chat_template([{"role": role, "content": content} for role, content in said])
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert [(message.role, message.text) for message in turns(text)] == said


class Model:
    """A model of which nothing comes: it fails, or it never answers."""

    def __init__(self, fails: bool) -> None:
        self.fails, self.calls = fails, 0

    async def generate(self, *_: Any, **__: Any) -> Any:
        self.calls += 1
        if self.fails:
            raise TimeoutError("the sample has ended")
        await anyio.sleep(3600)


def solved(model: Model, over: threading.Event) -> Any:
    """A majority of four samples asked of a model; `over` is set when the search's thread has ended."""
    from mcts_dpo.integrations.engine_thread import solve_alone
    from mcts_dpo.integrations.inspect_engine import Calls, with_model

    asked = Asked(Problem("1", "a"), PromptSettings(style="chat"), SearchSettings(max_tokens=8), 40, "majority")

    def work(engine: Any) -> Any:
        try:
            return solve_alone(asked, engine)
        finally:
            over.set()

    return with_model(model, Calls(), work)  # type: ignore[arg-type]


def test_a_failed_sample_is_not_asked_again() -> None:
    model, over = Model(fails=True), threading.Event()
    with pytest.raises(TimeoutError, match="the sample has ended"):
        anyio.run(solved, model, over)
    assert over.wait(600)
    assert 1 <= model.calls <= 5, "those in flight when the first failed"


def test_a_cancelled_sample_leaves_no_thread_behind() -> None:
    model, over = Model(fails=False), threading.Event()

    async def cancelled() -> bool:
        with anyio.move_on_after(0.5):
            await solved(model, over)
        return await anyio.to_thread.run_sync(over.wait, 60.0)  # the loop still runs, as Inspect's does

    assert anyio.run(cancelled), "the search still waits for its model"
