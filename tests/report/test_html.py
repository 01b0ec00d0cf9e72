"""The HTML report of a real run of the toy world, looked at in a real browser."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from typer.testing import CliRunner

from mcts_dpo.cli.app import app
from mcts_dpo.common.errors import InputError
from mcts_dpo.engines import load_engine
from mcts_dpo.engines.lazy import LazyEngine
from mcts_dpo.evaluation import evaluate_strategies
from mcts_dpo.evaluation.judging import evaluate_judge
from mcts_dpo.evaluation.labelled import labelled_trees
from mcts_dpo.pipeline.rounds import run
from mcts_dpo.preferences import Pairs
from mcts_dpo.report import load_run, write_html, write_report
from mcts_dpo.report.charting import run_figures
from mcts_dpo.report.tree_json import single_tokens_fit, tree_blocks, tree_object
from mcts_dpo.rewards.length import LengthSettings
from mcts_dpo.search import Forest
from tests.browser import opened
from tests.conftest import ToyWorld
from tests.pipeline.test_faults import nobody


@pytest.fixture(scope="module")
def finished(toy_world: ToyWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one round, with its report."""
    place = tmp_path_factory.mktemp("report") / "a <run> & its report"
    run(toy_world.config.model_copy(update={"rounds": 1}), place)
    write_html(load_run(place))
    return place


def test_a_tree_in_the_page_is_the_tree_in_the_file(finished: Path) -> None:
    files = sorted((finished / "round-000" / "trees").glob("*.parquet"))
    found = list(tree_blocks([(0, files, finished / "round-000" / "pairs.parquet")]))
    blocks = [json.loads(gzip.decompress(base64.b64decode(block.text))) for block in found]
    index = [entry for block in found for entry in block.index]
    forests = [Forest.load(file) for file in files]
    entries = iter(index)
    for forest in forests:
        for tree, info in enumerate(forest.trees):
            entry = next(entries)
            shown = blocks[entry["block"]][entry["place"]]
            nodes = list(forest.nodes(tree))
            assert (entry["id"], entry["nodes"], shown["id"]) == (info.problem_id, len(nodes), info.problem_id)
            assert shown["visits"] == [int(forest.visits[node]) for node in nodes]
            assert shown["text"] == [forest.texts[node] for node in nodes]
            assert shown["parent"][0] == -1
            assert [nodes[p] for p in shown["parent"][1:]] == [int(forest.parent[node]) for node in nodes[1:]]
            assert [len(values) for values in shown["tokens"]] == [int(forest.length[node]) for node in nodes]
    pairs = Pairs.load(finished / "round-000" / "pairs.parquet")
    assert sum(entry["pairs"] for entry in index) == len(pairs) > 0


def test_pairs_in_another_order_or_of_trees_that_are_gone_are_found_all_the_same(
    finished: Path, tmp_path: Path
) -> None:
    files = sorted((finished / "round-000" / "trees").glob("*.parquet"))
    pairs = Pairs.load(finished / "round-000" / "pairs.parquet")
    expected = [
        entry for block in tree_blocks([(0, files, finished / "round-000" / "pairs.parquet")]) for entry in block.index
    ]
    pairs.take(range(len(pairs))[::-1]).save(tmp_path / "reversed.parquet")
    turned = [entry for block in tree_blocks([(0, files, tmp_path / "reversed.parquet")]) for entry in block.index]
    assert turned == expected
    some = [
        entry
        for block in tree_blocks([(0, files[1:], finished / "round-000" / "pairs.parquet")])
        for entry in block.index
    ]
    missing = len(expected) - len(some)
    assert [entry["pairs"] for entry in some] == [entry["pairs"] for entry in expected[missing:]]
    assert sum(entry["pairs"] for entry in some) > 0


def test_single_tokens_are_left_out_of_a_big_page(finished: Path) -> None:
    files = sorted((finished / "round-000" / "trees").glob("*.parquet"))
    rounds = [(0, files, finished / "none.parquet")]
    assert single_tokens_fit(rounds)
    assert not single_tokens_fit(rounds, most=10)
    first, *_ = tree_blocks(rounds, tokens=False)
    assert "tokens" not in json.loads(gzip.decompress(base64.b64decode(first.text)))[0]
    assert all(entry["pairs"] == 0 for entry in first.index)
    assert "tokens" in tree_object(Forest.load(files[0]), 0, [])


def test_the_page_is_the_same_for_the_same_run(finished: Path) -> None:
    page = finished / "report.html"
    before = page.read_bytes()
    write_html(load_run(finished))
    assert page.read_bytes() == before


def test_a_reader_finds_why_a_pair_was_chosen(finished: Path) -> None:
    with opened(finished / "report.html") as (page, complaints):
        page.wait_for_selector("#tree .node")
        assert page.title().startswith("a <run> & its report")
        assert page.locator("figure").count() >= 6
        titles = " ".join(page.locator("figcaption").all_inner_texts())
        for shown in (
            "reward, divided by β",
            "reward: margin",
            "Log-probability of the steps",
            "Q of all",
            "Visits of all",
        ):
            assert shown in titles
        assert page.locator("#rounds-table tr").count() == 3

        page.select_option("#kind", "pairs")
        shown = page.locator("#list button")
        assert 0 < shown.count() < len(json.loads(page.locator("#data").text_content() or "")["trees"])
        shown.last.click()
        page.wait_for_selector("#tree .edge.chosen")
        assert page.locator("#tree .edge.rejected").count() > 0
        # What a reader sees first: the question, the step after those before it, and why it is in a pair.
        detail = page.locator("#detail").inner_text()
        parts = (
            "The question",
            "after those before it",
            "Why this step is in a preference pair",
            "Their values differ by",
        )
        assert sorted(parts, key=detail.index) == list(parts)
        _check_ends(page, detail)

        page.locator("#tree [data-node='0']").click()
        assert "The question, as the policy reads it" in page.locator("#detail").inner_text()
        page.locator("#tree [data-node='1']").click()
        detail = page.locator("#detail").inner_text()
        assert all(word in detail for word in ("visits N", "action value Q", "prior p", "log-probability"))

        page.fill("#find", "no such words anywhere")
        assert page.locator("#list button").count() == 0
        assert page.locator("#count").inner_text().startswith("0 of")
        picture = page.screenshot()
        assert len(set(picture)) > 100
        assert len(picture) > 20_000
        assert complaints == []


def _check_ends(page: Page, detail: str) -> None:
    """Of the chosen step that is shown, the solutions that ended right, counted here by walking up from every end."""
    tree, node = page.evaluate("[view.tree, view.picked]")
    right = total = 0
    for end, (terminal, outcome, samples) in enumerate(
        zip(tree["terminal"], tree["outcome"], tree["samples"], strict=True)
    ):
        path = [end]
        while path[-1] >= 0:
            path.append(tree["parent"][path[-1]])
        if terminal and outcome and node in path:
            total += samples
            right += samples if outcome > 0 else 0
    assert total > 0
    assert f"{right} of the {total} solution" in detail


def strictly(text: str | bytes) -> Any:
    """As a browser reads JSON: NaN and Infinity are none."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_numbers_that_are_none_are_gaps(finished: Path, tmp_path: Path) -> None:
    """NaN and Infinity in a training log, in a run's metrics and in a tree: the page, the plots and `tree --json`."""
    place = tmp_path / "diverged"
    shutil.copytree(finished, place)
    log = place / "round-000" / "training" / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines() * 2]
    lines[1] |= {"loss": math.nan, "chosen_logprob": math.inf}
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    metrics[-1]["against_baseline"]["p_value"] = math.nan
    metrics[-1]["test"]["greedy"]["low"] = math.nan
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    file = next((place / "round-000" / "trees").glob("*.parquet"))
    forest = Forest.load(file)
    forest.logprob[-1] = forest.q[-1] = forest.logprobs[-1] = math.nan
    forest.save(file)

    *_, page_file = write_report(load_run(place))
    text = page_file.read_text()
    found = strictly(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    assert [found["training"][0]["columns"][name][1] for name in ("loss", "chosen_logprob")] == [None, None]
    assert None not in (found["training"][0]["columns"]["loss"][0], found["training"][0]["columns"]["loss"][2])
    blocks = re.findall('class="block">([^<]*)<', text)
    trees = [tree for block in blocks for tree in strictly(gzip.decompress(base64.b64decode(block)))]
    assert sum(None in tree["logprob"] for tree in trees) == 1
    printed = CliRunner().invoke(app, ["tree", str(file), "--json"])
    assert printed.exit_code == 0
    assert sum(None in tree["logprob"] for tree in strictly(printed.stdout)) == 1
    with opened(page_file) as (page, complaints):
        page.wait_for_selector("#tree .node")
        loss = page.locator("#training-charts figure").first.locator("path").get_attribute("d") or ""
        assert loss.count("M") == 2, "a gap"
        assert complaints == []


def test_an_empty_training_log_has_no_curve(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "empty"
    shutil.copytree(finished, place)
    (place / "round-000" / "training" / "log.jsonl").write_text("")
    assert run_figures(load_run(place))["training"] == []


def test_a_run_where_nobody_may_write_is_refused_in_one_line(finished: Path) -> None:
    folder = Path(tempfile.mkdtemp())  # one that others may enter
    try:
        place = shutil.copytree(finished, folder / "run")
        folder.chmod(0o755)
        for path in (place, *place.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        before = sorted(place.iterdir())
        with nobody(), pytest.raises(InputError) as caught:
            write_report(load_run(place))
        assert str(caught.value) == (
            f"{place}: permission is denied; nothing half-written is left and the run is as it was; permit it and give "
            "the same command again"
        )
        assert sorted(place.iterdir()) == before
    finally:
        for path in folder.rglob("*"):
            path.chmod(0o755)
        shutil.rmtree(folder)


def test_strategies_are_drawn_against_tokens(finished: Path, toy_world: ToyWorld, tmp_path: Path) -> None:
    place = tmp_path / "compared"
    shutil.copytree(finished, place)
    comparison = evaluate_strategies(
        toy_world.test[:8],
        load_engine(toy_world.policy),
        ["majority", "mcts"],
        [48, 96],
        prompt=toy_world.config.prompt,
        search=toy_world.config.search,
    )
    comparison.save(place / "strategies")
    (found,) = run_figures(load_run(place))["strategies"]
    assert found["rows"] == comparison.rows()
    assert found["name"] == "strategies"
    assert run_figures(load_run(finished))["strategies"] == []
    with opened(write_html(load_run(place))) as (page, complaints):
        figure = page.locator("#strategy-charts figure")
        assert "Accuracy against tokens per strategy" in figure.inner_text()
        assert figure.locator("circle").count() == 4
        page.locator("#strategy-charts summary").click()
        assert sorted(page.locator("#strategy-charts li").all_inner_texts()) == sorted(comparison.sentences())
        assert complaints == []


def test_judges_have_a_section(finished: Path, toy_world: ToyWorld, tmp_path: Path) -> None:
    place = tmp_path / "judged"
    shutil.copytree(finished, place)
    trees = next((place / "round-000" / "trees").glob("*.parquet"))
    labelled = labelled_trees(trees, {one.id: one for one in toy_world.train}, toy_world.config.prompt)
    engine, prompt = LazyEngine(None, None), toy_world.config.prompt
    judge = LengthSettings()
    result = evaluate_judge(labelled, judge, engine, prompt, data=trees.name, labels="outcomes")
    result.save(place / "judges" / "length.json")
    with opened(write_html(load_run(place))) as (page, complaints):
        table = page.locator("#judge-tables table")
        assert table.locator("th").all_inner_texts()[1:] == ["length"]
        cells = table.locator("tr", has_text="Brier score of solutions").locator("td").all_inner_texts()
        assert cells[1].startswith(f"{result.metrics['brier_final']['value']:.3f} [")
        assert f"Labels: outcomes. Threshold: {result.threshold}." in page.locator("#judge-tables p").inner_text()
        assert page.locator("#judge-charts figure").count() == 2
        assert complaints == []
    with opened(finished / "report.html") as (page, _):
        assert page.locator("#judges, nav a[href='#judges']").count() == 0


def test_two_thousand_trees_stay_usable(finished: Path, tmp_path: Path) -> None:
    place = tmp_path / "large"
    shutil.copytree(finished, place)
    files = sorted((place / "round-000" / "trees").glob("*.parquet"))
    trees = sum(len(Forest.load(file).trees) for file in files)
    for copy in range(-(-2000 // trees) - 1):
        for file in files:
            shutil.copy(file, file.with_name(f"shard-{copy + 1:03d}-{file.name}"))
    page_file = write_html(load_run(place))
    assert page_file.stat().st_size < 20_000_000
    with opened(page_file) as (page, complaints):
        page.wait_for_selector("#tree .node")
        assert page.locator("#count").inner_text().startswith("20")
        assert page.locator("#list button").count() == 201
        page.locator("#list button").last.click()
        assert page.locator("#list button").count() == 401
        assert complaints == []
