"""Trees judged again: the same judgement gives the same bits, another gives what slow counting over visits gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines.lazy import LazyEngine
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import Forest, SearchSettings, search_problems
from mcts_dpo.search.rejudge import Judging, Rejudged, rejudge
from mcts_dpo.search.tree_io import save
from tests.reference.engine import TOKENIZER, AutomatonEngine
from tests.reference.values import state_reward, step_reward, values
from tests.search.support import PROBLEMS, PROMPT, every_rule, prompts

Change = Callable[[SearchSettings], SearchSettings]


def grown(settings: SearchSettings, prompt: PromptSettings = PROMPT, seed: int = 6) -> Forest:
    return search_problems(PROBLEMS, AutomatonEngine(seed), prompt=prompt, settings=settings).by_tree()


def judged(
    forest: Forest, settings: SearchSettings, after: SearchSettings, prompt: PromptSettings = PROMPT, **options: object
) -> Forest:
    """The forest after it was saved, judged again and read."""
    with TemporaryDirectory() as place:
        source = Path(place) / "trees.parquet"
        save(forest, source)
        rejudge([source], Path(place) / "out", lambda _: Judging(settings, after, prompt), **options)  # type: ignore[arg-type]
        return Forest.load(Path(place) / "out" / "trees.parquet")


def assert_values(forest: Forest, settings: SearchSettings) -> None:
    """Every reward and value is what slow counting gives."""
    q, v = values(forest, settings)
    for node in range(len(forest)):
        assert forest.v[node] == pytest.approx(v[node], abs=1e-12)
        if forest.parent[node] >= 0:
            assert forest.q[node] == pytest.approx(q[node], abs=1e-12)
            assert forest.state_reward[node] == pytest.approx(state_reward(forest, settings, node), abs=1e-12)
            assert forest.reward[node] == pytest.approx(step_reward(forest, settings, node), abs=1e-12)


many = hypothesis_settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)


@many
@given(every_rule, prompts, st.integers(0, 10_000))
def test_the_same_judgement_gives_the_same_bits(settings: SearchSettings, prompt: PromptSettings, seed: int) -> None:
    forest = grown(settings, prompt, seed)
    assert judged(forest, settings, settings, prompt) == forest, "from what is stored"
    assert judged(forest, settings, settings, prompt, problems=PROBLEMS) == forest, "verified again"
    engine = LazyEngine(lambda: AutomatonEngine(seed), TOKENIZER)
    assert judged(forest, settings, settings, prompt, problems=PROBLEMS, engine=engine, again=True) == forest
    assert engine.usage.sampled_tokens == 0


@many
@given(
    every_rule,
    st.sampled_from(["difference", "sum"]),
    st.sampled_from(["paper", "mean"]),
    st.sampled_from([0.0, 0.7, 1.0]),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 10_000),
)
def test_another_formula_gives_what_slow_counting_gives(
    settings: SearchSettings, accumulate: str, backup: str, gamma: float, weight: float, seed: int
) -> None:
    forest = grown(settings, seed=seed)
    outcome, belief = settings.rewards
    rewards = (
        outcome.model_copy(update={"weight": 2.0}),
        belief.model_copy(update={"weight": weight if belief.weight else 0.0}),
    )
    after = settings.model_copy(update={"accumulate": accumulate, "backup": backup, "gamma": gamma, "rewards": rewards})
    again = judged(forest, settings, after)
    assert_values(again, after)
    for name in ("visits", "samples", "prior", "mass", "logprob", "outcome", "expansions"):
        np.testing.assert_array_equal(getattr(again, name), getattr(forest, name))
    assert again.settings["search"] == after.model_dump(mode="json")
    if weight or not belief.weight:
        assert judged(again, after, settings) == forest, "and back again"


BASE = SearchSettings(
    simulations=12,
    children=3,
    max_tokens=24,
    max_step_tokens=8,
    max_depth=5,
    expand="step",
    rewards=(OutcomeSettings(), SelfEvaluationSettings(weight=0.5, at="all")),
)


def test_a_new_reward_scores_every_step_with_the_engine() -> None:
    plain = BASE.model_copy(update={"rewards": (OutcomeSettings(),)})
    forest = grown(plain)
    engine = LazyEngine(lambda: AutomatonEngine(6), TOKENIZER)
    again = judged(forest, plain, BASE, problems=PROBLEMS, engine=engine)
    assert not np.isnan(again.scores["self_evaluation"][again.depth > 0]).any()
    assert_values(again, BASE)
    ends = BASE.model_copy(update={"rewards": (OutcomeSettings(), SelfEvaluationSettings(weight=0.5))})
    only_ends = judged(again, BASE, ends)
    assert (np.isnan(only_ends.scores["self_evaluation"]) == ~only_ends.terminal).all(), "known without a model"


def test_other_references_give_other_outcomes() -> None:
    forest = grown(BASE, seed=31)
    swapped = [replace(problem, answer="2") for problem in PROBLEMS]
    again = judged(forest, BASE, BASE, problems=swapped)
    answered = [node for node in range(len(forest)) if forest.answers[node] is not None]
    assert {forest.answers[node] for node in answered} >= {"1", "2", "3"}
    for node in answered:
        assert again.outcome[node] == (1 if forest.answers[node] == "2" else -1)
    assert_values(again, BASE)
    assert judged(again, BASE, BASE, problems=PROBLEMS) == forest


def test_a_tree_without_an_answer_says_so_and_no_longer() -> None:
    bare = [problem.without_answer() for problem in PROBLEMS]
    forest = grown(BASE)
    again = judged(forest, BASE, BASE, problems=bare)
    assert [info.notes for info in again.trees] == [["no reference answer: outcomes are not known"]] * 3
    assert judged(again, BASE, BASE, problems=PROBLEMS) == forest


def _run(
    place: Path, after: SearchSettings, problems: Sequence[object] | None = None, before: SearchSettings = BASE
) -> Rejudged:
    files = sorted((place / "trees").glob("*.parquet"))
    return rejudge(files, place / "out", lambda _: Judging(before, after, PROMPT), problems=problems)  # type: ignore[arg-type]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with `trees/`, two files of them."""
    for number in range(2):
        save(grown(BASE, seed=number), tmp_path / "trees" / f"shard-{number:04d}.parquet")
    return tmp_path


def test_finished_files_are_kept_and_others_refused(place: Path) -> None:
    first = _run(place, BASE)
    assert (first.trees, first.kept, first.outcomes, first.values) == (6, 0, 0, 0)
    first.files[1].unlink()
    kept = first.files[0].stat().st_mtime_ns
    second = _run(place, BASE)
    assert (second.trees, second.kept) == (3, 1)
    assert second.files[0].stat().st_mtime_ns == kept
    other = BASE.model_copy(update={"gamma": 0.5})
    with pytest.raises(InputError, match=r"shard-0000.parquet: trees of another judgement \(search settings differ\)"):
        _run(place, other)
    save(grown(BASE, seed=9), place / "trees" / "shard-0000.parquet")
    with pytest.raises(InputError, match=r"another judgement \(trees differ\)"):
        _run(place, BASE)


def test_what_is_missing_is_said_before_anything_is_written(place: Path) -> None:
    hinted = BASE.model_copy(
        update={"rewards": (OutcomeSettings(), SelfEvaluationSettings(weight=0.5, at="all", hint=True))}
    )
    with pytest.raises(InputError, match=r"search.rewards.self_evaluation: .* accepted: with --problems"):
        _run(place, hinted)
    with pytest.raises(InputError, match="the policy is needed; accepted: --policy"):
        _run(place, hinted, PROBLEMS)
    with pytest.raises(InputError, match="its problem 'one' is not in --problems"):
        _run(place, BASE, PROBLEMS[1:])
    noisy = BASE.model_copy(update={"rewards": (OutcomeSettings(noise_per_answer=1.0),)})
    with pytest.raises(InputError, match=r"search.rewards.outcome: its noise needs new outcomes"):
        _run(place, noisy)
    assert not (place / "out").exists() or not list((place / "out").iterdir())
    file = place / "trees" / "shard-0000.parquet"
    settings = Judging(BASE, BASE, PROMPT)
    with pytest.raises(InputError, match="holds the trees that are judged"):
        rejudge([file], place / "trees", lambda _: settings)
    with pytest.raises(InputError, match="accepted: files of different names"):
        rejudge([file, place / "other" / file.name], place / "out", lambda _: settings)
    with pytest.raises(InputError, match="--verifier numbers: nothing to verify against"):
        rejudge([file], place / "out", lambda _: settings, verifier="numbers")


def test_a_refused_score_fails_its_tree_only() -> None:
    plain = BASE.model_copy(update={"rewards": (OutcomeSettings(),)})
    forest = grown(plain)
    token = int(forest.trees[2].prompt_tokens[0])
    refused = [token in info.prompt_tokens for info in forest.trees]
    engine = LazyEngine(lambda: AutomatonEngine(6, refused=forest.trees[1].prompt_tokens[0]), TOKENIZER)
    again = judged(forest, plain, BASE, problems=PROBLEMS, engine=engine)
    assert any(refused)
    for info in again.trees:
        failed = forest.trees[1].prompt_tokens[0] in info.prompt_tokens
        assert (info.status == "failed") == failed
