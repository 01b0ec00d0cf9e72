"""The real lm-evaluation-harness, driving the toy policy end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mcts_dpo.common.errors import InputError
from mcts_dpo.engines import load_engine
from mcts_dpo.evaluation import EvaluationSettings, evaluate
from mcts_dpo.models.loading import load_tokenizer
from mcts_dpo.toy.policy import toy_prompt
from tests.conftest import ToyWorld

lm_eval = pytest.importorskip("lm_eval", reason="the extra lm-eval")
pytestmark = pytest.mark.filterwarnings("ignore")

TASK = """
task: toy_arithmetic
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}\\n"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 120, do_sample: false}}
filter_list:
  - name: last-number
    filter:
      - {{function: regex, regex_pattern: "The answer is (-?[0-9]+)"}}
      - {{function: take_first}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
"""
CHOICE = """
task: toy_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\n"
doc_to_choice: ["{{{{right}}}}", "{{{{wrong}}}}"]
doc_to_target: 0
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


@pytest.fixture
def tasks(toy_world: ToyWorld, tmp_path: Path) -> Path:
    """A folder with two tasks over the toy's test problems."""
    rows = [
        {
            "question": problem.question,
            "answer": problem.answer,
            "right": "The answer is 7.",
            "wrong": "7 is answer The.",
        }
        for problem in toy_world.test
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "toy.yaml").write_text(TASK.format(file=data), encoding="utf-8")
    (folder / "choice.yaml").write_text(CHOICE.format(file=data), encoding="utf-8")
    return folder


def harness(tasks: Path, task: str, **arguments: Any) -> dict[str, Any]:
    """What the harness reports of one task with these model arguments."""
    from lm_eval.tasks import TaskManager

    import mcts_dpo.integrations.lm_eval  # noqa: F401  registers the model

    result = lm_eval.simple_evaluate(
        model="mcts-dpo",
        model_args=arguments,
        tasks=[task],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
    )
    assert result is not None
    found: dict[str, Any] = result
    return found


def test_greedy_through_the_harness_equals_our_own_evaluation(tasks: Path, toy_world: ToyWorld) -> None:
    result = harness(tasks, "toy_arithmetic", pretrained=str(toy_world.policy), prompt_answer_style="answer_is")
    samples = sorted(result["samples"]["toy_arithmetic"], key=lambda sample: sample["doc_id"])
    engine = load_engine(toy_world.policy)
    own = evaluate(toy_world.test, engine, prompt=toy_prompt(), settings=EvaluationSettings(max_tokens=120))
    assert [sample["resps"][0][0].strip() for sample in samples] == [o.text.strip() for o in own.outcomes]
    assert [bool(sample["exact_match"]) for sample in samples] == own.correct


def test_search_through_the_harness_answers(tasks: Path, toy_world: ToyWorld) -> None:
    arguments = {"pretrained": str(toy_world.policy), "prompt_answer_style": "answer_is", "budget": 200}
    for strategy in ("majority", "mcts"):
        result = harness(tasks, "toy_arithmetic", strategy=strategy, **arguments)
        answers = [sample["filtered_resps"][0] for sample in result["samples"]["toy_arithmetic"]]
        assert sum(answer != "[invalid]" for answer in answers) > len(answers) / 2
        assert 0 <= result["results"]["toy_arithmetic"]["exact_match,last-number"] <= 1


def test_log_likelihoods_are_the_policys_own(tasks: Path, toy_world: ToyWorld) -> None:
    result = harness(tasks, "toy_choice", pretrained=str(toy_world.policy))
    model = AutoModelForCausalLM.from_pretrained(toy_world.policy)
    tokenizer = load_tokenizer(toy_world.policy)
    assert len(result["samples"]["toy_choice"]) == len(toy_world.test)
    for sample in result["samples"]["toy_choice"]:
        for (context, continuation), (found, _) in zip(sample["arguments"], sample["filtered_resps"], strict=True):
            # The harness counts white space between the two with the continuation.
            given = tokenizer(context.rstrip(), add_special_tokens=False)["input_ids"]
            ids = torch.tensor([tokenizer(context + continuation, add_special_tokens=False)["input_ids"]])
            with torch.no_grad():
                logprobs = model(ids).logits[0].log_softmax(-1)
            expected = sum(float(logprobs[at - 1, ids[0, at]]) for at in range(len(given), ids.shape[1]))
            assert found == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "mcts"}, "needs a budget"),
        ({"strategy": "mtcs", "budget": 9}, "did you mean 'mcts'"),
        ({"stategy": "mcts"}, "did you mean 'strategy'"),
        ({"search_childrn": 3}, "did you mean 'children'"),
        ({"pretrained": ""}, "pretrained is missing"),
    ],
)
def test_bad_arguments_are_one_line(toy_world: ToyWorld, arguments: dict[str, Any], message: str) -> None:
    from mcts_dpo.integrations.lm_eval import SearchLM

    with pytest.raises(InputError, match=message):
        SearchLM(**{"pretrained": str(toy_world.policy), **arguments})
