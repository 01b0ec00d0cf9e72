from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mcts_dpo.common.errors import InputError
from mcts_dpo.rewards import OutcomeSettings, SelfEvaluationSettings
from mcts_dpo.search import FINISHES, Forest, SearchSettings, search_problems
from mcts_dpo.search.tree import NODE_FIELDS
from mcts_dpo.search.tree_io import to_table
from tests.reference.engine import AutomatonEngine
from tests.search.support import PROBLEMS, PROMPT
from tests.search.support import settings as any_settings


def small_forest() -> Forest:
    """Two trees; the first: root → a, b; a → c (an end); then a late sibling d of a."""
    forest = Forest({"search": {"seed": 1}}, "digest", ["outcome", "length"])
    forest.add_tree("first", [7, 8], "Q1")
    forest.add_tree("second", [9], "Q2")
    a = forest.add_child(0, [1, 2], [-0.5, -0.25], "a\n")
    forest.add_child(0, [3], [-1.0], "b\n")
    forest.add_child(a, [4, 5, 6], [-0.1, -0.2, -0.3], "c", FINISHES.index("end"))
    forest.add_child(0, [2], [-2.0], "d\n")
    forest.scores["length"][2:] = [2.0, 1.0, 5.0, 1.0]
    return forest


def test_children_are_linked_in_the_order_of_sampling() -> None:
    forest = small_forest()
    assert forest.children(0) == [2, 3, 5]
    assert forest.children(2) == [4]
    assert forest.children(4) == []
    assert forest.first_child[0] == 2
    assert forest.last_child[0] == 5
    assert forest.next_sibling.tolist() == [-1, -1, 3, 5, -1, -1]
    assert forest.parent.tolist() == [-1, -1, 0, 0, 2, 0]
    assert forest.depth.tolist() == [0, 0, 1, 1, 2, 1]


def test_tokens_and_texts_of_a_path() -> None:
    forest = small_forest()
    assert forest.path(4) == [0, 2, 4]
    assert forest.solution_tokens(4) == [1, 2, 4, 5, 6]
    assert forest.solution_text(4) == "a\nc"
    assert forest.step_tokens(0) == []
    assert forest.step_logprobs(4) == pytest.approx([-0.1, -0.2, -0.3])
    assert forest.logprob[2] == -0.75
    assert forest.length.tolist() == [0, 0, 2, 1, 3, 1]
    assert forest.nodes(0).tolist() == [0, 2, 3, 4, 5]
    assert forest.nodes(1).tolist() == [1]
    assert forest.trees[1].prompt_tokens == (9,)


def test_a_new_node_is_empty_but_for_its_place() -> None:
    forest = small_forest()
    for name, dtype, empty, _ in NODE_FIELDS:
        array = getattr(forest, name)
        assert array.dtype == np.dtype(dtype)
        assert len(array) == len(forest)
        if name in (
            "visits",
            "samples",
            "q",
            "v",
            "prior",
            "mass",
            "reward",
            "outcome",
            "confidence",
            "expanded",
            "virtual",
        ):
            assert np.array_equal(array, np.full(6, empty, dtype), equal_nan=array.dtype.kind == "f"), name
    assert forest.terminal.tolist() == [False] * 4 + [True, False]
    assert forest.closed.tolist() == [0, 0, 0, 0, 2, 0]


def test_growth_keeps_what_was_there() -> None:
    forest = Forest()
    forest.add_tree("only", [1], "Q")
    for index in range(3000):
        node = forest.add_child(index // 2, [index, index + 1, index + 2], [-1.0, -2.0, -index], f"{index}\n")
        forest.q[node] = index
    assert len(forest) == 3001
    assert forest.q.tolist() == [0, *range(3000)]
    assert forest.step_tokens(2000) == [1999, 2000, 2001]
    assert forest.step_logprobs(2000) == [-1.0, -2.0, -1999.0]
    assert forest.children(700) == [1401, 1402]


def test_equality_looks_at_every_field() -> None:
    assert small_forest() == small_forest()
    assert small_forest() != "a forest"
    for name, _, _, _ in NODE_FIELDS:
        other = small_forest()
        getattr(other, name)[3] = 1 if getattr(other, name)[3] != 1 else 0
        assert other != small_forest(), name
    for change in (
        lambda f: f.texts.__setitem__(3, "x"),
        lambda f: f.answers.__setitem__(4, "5"),
        lambda f: f.settings.update(seed=2),
        lambda f: setattr(f, "tokenizer", "another"),
        lambda f: setattr(f.trees[0], "reason", "it broke"),
        lambda f: f.tokens.__setitem__(0, 99),
        lambda f: f.logprobs.__setitem__(0, -99.0),
    ):
        other = small_forest()
        change(other)
        assert other != small_forest()


@hypothesis_settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(any_settings, st.integers(0, 1000))
def test_a_saved_forest_loads_equal(
    tmp_path_factory: pytest.TempPathFactory, settings: SearchSettings, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("forest")
    forest = search_problems(PROBLEMS, AutomatonEngine(seed), prompt=PROMPT, settings=settings)
    forest.save(folder / "a.parquet")
    loaded = Forest.load(folder / "a.parquet")
    assert loaded == forest
    assert SearchSettings.model_validate(loaded.settings["search"]) == settings
    loaded.save(folder / "b.parquet")
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()
    # A loaded forest can continue growing.
    node = loaded.add_child(0, [1, 2], [-1.0, -1.0], "more\n")
    assert loaded.solution_tokens(node) == [1, 2]
    assert loaded.children(0)[-1] == node


def test_empty_forests_are_saved_too(tmp_path: Path) -> None:
    for name, forest in (
        ("none", Forest()),
        ("root", search_problems([], AutomatonEngine(), prompt=PROMPT, settings=SearchSettings())),
    ):
        forest.save(tmp_path / f"{name}.parquet")
        assert Forest.load(tmp_path / f"{name}.parquet") == forest


def test_a_file_of_the_first_format_is_read(tmp_path: Path) -> None:
    """There the scores of the self-evaluation are `confidence`, and the outcome has no column of scores."""
    rewards = (OutcomeSettings(), SelfEvaluationSettings(weight=0.5))
    forest = search_problems(
        PROBLEMS, AutomatonEngine(6), prompt=PROMPT, settings=SearchSettings(max_tokens=24, rewards=rewards)
    )
    assert {-1, 1} <= set(forest.outcome.tolist())
    table = to_table(forest)
    about = json.loads(table.schema.metadata[b"mcts_dpo.forest"])
    old = {name: value for name, value in about.items() if name != "rewards"} | {"format": 1}
    columns = {name: table[name] for name in table.column_names if not name.startswith("reward_")}
    first = pa.table(columns | {"confidence": table["reward_self_evaluation"]})
    pq.write_table(first.replace_schema_metadata({b"mcts_dpo.forest": json.dumps(old)}), tmp_path / "first.parquet")
    assert Forest.load(tmp_path / "first.parquet") == forest


def test_other_tools_read_the_file(tmp_path: Path) -> None:
    from datasets import load_dataset

    forest = small_forest()
    forest.answers[4] = "c"
    forest.save(tmp_path / "trees.parquet")
    rows = load_dataset(
        "parquet", data_files=str(tmp_path / "trees.parquet"), split="train", cache_dir=str(tmp_path / "c")
    )
    assert len(rows) == len(forest)
    assert rows[4]["problem_id"] == "first"
    assert rows[4]["tokens"] == [4, 5, 6]
    assert rows[4]["finish"] == "end"
    assert rows[4]["answer"] == "c"
    assert rows[3]["answer"] is None
    assert rows["parent"][:] == forest.parent.tolist()
    assert rows["reward_length"][2:] == [2.0, 1.0, 5.0, 1.0]


def test_what_is_no_forest_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.parquet: no such file"):
        Forest.load(tmp_path / "missing.parquet")
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(InputError, match=r"text\.parquet: not a readable Parquet file"):
        Forest.load(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match=r"other\.parquet: not a forest"):
        Forest.load(tmp_path / "other.parquet")
    small_forest().save(tmp_path / "good.parquet")
    table = pq.read_table(tmp_path / "good.parquet")
    pq.write_table(table.drop_columns(["visits"]), tmp_path / "cut.parquet")
    with pytest.raises(InputError, match=r"cut\.parquet: a forest without the column 'visits'"):
        Forest.load(tmp_path / "cut.parquet")
    pq.write_table(table.drop_columns(["reward_length"]), tmp_path / "unscored.parquet")
    with pytest.raises(InputError, match=r"unscored\.parquet: a forest without the column 'reward_length'"):
        Forest.load(tmp_path / "unscored.parquet")
    newer = table.replace_schema_metadata({b"mcts_dpo.forest": b'{"format": 99}'})
    pq.write_table(newer, tmp_path / "newer.parquet")
    with pytest.raises(InputError, match=r"newer\.parquet: a forest of format 99; accepted: 1, 2, 3"):
        Forest.load(tmp_path / "newer.parquet")


def test_a_bit_flipped_anywhere_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    """Also in what a file says of itself, for which Parquet has no checksum."""
    path = tmp_path / "forest.parquet"
    forest = small_forest()
    forest.save(path)
    data, rng, told = path.read_bytes(), random.Random(0), []
    for place in [*range(0, len(data), 97), *(rng.randrange(len(data) // 2, len(data)) for _ in range(300))]:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        try:
            assert Forest.load(path) == forest, place
        except InputError as error:
            told.append(str(error))
    assert len(told) > 200
    assert not any("\n" in line for line in told)
