"""GSM8K through the real harness and by our own evaluation, on a real model: the same texts, and every difference in
what is made of them is one that docs/harnesses.md names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mcts_dpo.data import load_problems
from mcts_dpo.engines import load_engine
from mcts_dpo.evaluation import EvaluationSettings, evaluate
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens
from mcts_dpo.toy.world import make_problems
from tests.conftest import ROOT
from verifiers import extract_answer, verify

lm_eval = pytest.importorskip("lm_eval", reason="the extra lm-eval")
pytestmark = [pytest.mark.filterwarnings("ignore")]

STOP = ("Question:", "</s>", "<|im_end|>")
SHOTS, ITEMS, TOKENS = 2, 4, 40


def read_by_the_harness(text: str, reference: str) -> dict[str, bool]:
    """Verdicts of the harness's own filters and metric, as its task gsm8k sets them up."""
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters.extraction import RegexFilter

    task = task_file().read_text()
    patterns = [pattern.encode().decode("unicode_escape") for pattern in re.findall(r'regex_pattern: "(.*)"', task)]
    filters = {
        "strict-match": RegexFilter(regex_pattern=patterns[0]),
        "flexible-extract": RegexFilter(regex_pattern=patterns[1], group_select=-1),
    }
    found = {}
    for name, one in filters.items():
        ((answer,),) = one.apply([[text]], [{}])
        match = exact_match_fn(
            predictions=[answer],
            references=[reference],
            regexes_to_ignore=[",", "\\$", "(?s).*#### ", "\\.$"],
            ignore_case=True,
        )
        found[name] = bool(match["exact_match"])
    return found


def task_file() -> Path:
    return Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"


def rows() -> list[tuple[str, str, bool, bool, bool]]:
    page = (ROOT / "docs" / "harnesses.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(.*?)` \| `(.*?)` \| ([01]) \| ([01]) \| ([01]) \|", page, re.MULTILINE)
    return [(text.replace("\\n", "\n"), ref, s == "1", f == "1", o == "1") for text, ref, s, f, o in found]


@pytest.mark.parametrize(("text", "reference", "strict", "flexible", "ours"), rows())
def test_where_the_readings_part(text: str, reference: str, strict: bool, flexible: bool, ours: bool) -> None:
    assert read_by_the_harness(text, reference) == {"strict-match": strict, "flexible-extract": flexible}
    assert bool(verify(reference, extract_answer(text, "gsm8k"))) is ours


@pytest.mark.real_model
def test_the_same_texts_and_no_unexplained_verdict(
    smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets
    from lm_eval.tasks import TaskManager

    import mcts_dpo.integrations.lm_eval  # noqa: F401  registers the model

    data = tmp_path / "openai" / "gsm8k"
    data.mkdir(parents=True)
    made = make_problems(ITEMS + 10, seed=3, events=(1,))
    for split, chosen in (("train", made[ITEMS:]), ("test", made[:ITEMS])):
        lines = [{"question": p.question, "answer": f"{p.solution}\n#### {p.answer}"} for p in chosen]
        (data / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (data / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - {split: train, path: train.jsonl}\n  - {split: test, path: test.jsonl}\n---\n"
    )
    monkeypatch.chdir(tmp_path)
    # Its own cache: the library tells data sets of one relative path apart by little, and other tests use the same.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    result: Any = lm_eval.simple_evaluate(
        model="mcts-dpo",
        model_args={"pretrained": str(smollm2), "engine_dtype": "float32"},
        tasks=["gsm8k"],
        num_fewshot=SHOTS,
        gen_kwargs={"max_gen_toks": TOKENS},
        task_manager=TaskManager(include_path=str(task_file().parent), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    by_filter: dict[str, dict[int, Any]] = {"strict-match": {}, "flexible-extract": {}}
    for sample in result["samples"]["gsm8k"]:
        by_filter[sample["filter"]][sample["doc_id"]] = sample
    problems = load_problems(data / "test.jsonl", format="gsm8k")
    shown = {p.question: f"{p.solution}\n#### {p.answer}" for p in made[ITEMS:]}
    engine = load_engine(smollm2, dtype="float32")
    agreed = 0
    for index, problem in enumerate(problems):
        sample = by_filter["strict-match"][index]
        context = sample["arguments"][0][0]
        # The harness draws its examples for each item: the same ones, by the questions that it shows.
        asked = [question for question in re.findall(r"Question: (.*)\n", context) if question in shown]
        assert len(asked) == SHOTS
        prompt = PromptSettings(
            style="plain",
            template="Question: {question}\nAnswer:",
            examples=[{"question": question, "solution": shown[question]} for question in asked],
            stop=STOP,
            answer_style="gsm8k",
        )
        assert engine.tokenizer.decode(prompt_tokens(problem, engine.tokenizer, prompt)) == context
        (own,) = evaluate([problem], engine, prompt=prompt, settings=EvaluationSettings(max_tokens=TOKENS)).outcomes
        text = own.text
        for stop in STOP:
            text = text.split(stop)[0]
        assert sample["resps"][0][0] == text
        theirs = {name: bool(found[index]["exact_match"]) for name, found in by_filter.items()}
        assert theirs == read_by_the_harness(text, problem.answer or "")
        # The mark #### twice, or not at all, or a number spelt otherwise: nothing else may part strict-match and us.
        marks = re.findall(r"#### (-?[0-9.,]+)(?=\s|$)", text)
        if len(marks) == 1 and marks[0].strip(".,") == str(problem.answer):
            assert theirs["strict-match"] is own.correct is True
            agreed += 1
        elif not marks and "####" not in text:
            assert theirs["strict-match"] is own.correct is False
    assert agreed > 0, "the model must answer something in the task's own way for this to say anything"
