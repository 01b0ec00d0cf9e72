"""Every judge that cannot be used is refused in one clear line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.settings import load_settings
from mcts_dpo.models.loading import tokenizer_digest
from mcts_dpo.rewards import RewardSettings
from mcts_dpo.rewards.process import ProcessSettings
from mcts_dpo.rewards.process.families import FAMILIES, FamilyName
from mcts_dpo.rewards.process.judge import require_tokenizer
from mcts_dpo.search import SearchSettings
from tests.rewards.process.world import byte_tokenizer, judge_of, piece_tokenizer, random_head, save_judge

QWEN_HEAD = (("score.0", 32, 32), ("score.2", 2, 32))


def qwen(folder: Path, heads: Any = QWEN_HEAD, specials: tuple[str, ...] = ("<extra_0>",)) -> Path:
    return save_judge(folder, "qwen2", byte_tokenizer(specials), "Qwen2ForProcessRewardModel", random_head(*heads))


def policy(folder: Path, **options: Any) -> Path:
    return save_judge(folder, "qwen2", byte_tokenizer(**options), "Qwen2ForCausalLM")


def without_head(folder: Path) -> Path:
    made = qwen(folder)
    tensors = load_file(made / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("score")}
    save_file(kept | {"value.weight": torch.zeros(1)}, made / "model.safetensors", {"format": "pt"})
    return made


def no_template(folder: Path) -> Path:
    made = qwen(folder)
    (made / "chat_template.jinja").unlink()
    return made


def own(folder: Path, about: Any, outputs: int = 2) -> Path:
    head = random_head(("score", outputs, 32))
    made = save_judge(folder, "qwen2", byte_tokenizer(), "Qwen2ForTokenClassification", head, num_labels=outputs)
    (made / "process_reward.json").write_text(json.dumps(about))
    return made


def without_weights(folder: Path) -> Path:
    made = qwen(folder)
    (made / "model.safetensors").unlink()
    return made


def damaged(folder: Path) -> Path:
    made = qwen(folder)
    (made / "model.safetensors").write_bytes(b"no tensors")
    return made


def missing_layer(folder: Path) -> Path:
    made = qwen(folder)
    tensors = load_file(made / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layers.1.mlp" not in name}
    save_file(kept, made / "model.safetensors", {"format": "pt"})
    return made


def of_words(**settings: Any) -> Callable[[Path], tuple[Path, dict[str, Any]]]:
    return lambda folder: (policy(folder), settings)


CLASSIFICATION = {"format": 1, "kind": "classification", "tokenizer": "abc"}
CASES: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "a classifier as a language model": (
        qwen,
        {"family": "math_shepherd"},
        r"judge: a classifier is no language model.*holds? the head score\.0\.bias.*family=qwen_prm\?",
    ),
    "a head that is missing": (
        without_head,
        {},
        r"files lack the head: no tensor score\.weight or \.0\.weight \(found: value\.weight\)",
    ),
    "a policy as a classifier": (
        policy,
        {"family": "skywork"},
        r"lack the head: no tensor v_head\.summary\.weight or v_head\.weight.*found: only the decoder's, such as",
    ),
    "a head of three classes": (
        lambda folder: qwen(folder, (("score.0", 32, 32), ("score.2", 3, 32))),
        {},
        r"family qwen_prm: its head has 3 outputs \(accepted: 2\)",
    ),
    "a head of another width": (
        lambda folder: qwen(folder, (("score.0", 8, 8), ("score.2", 2, 8))),
        {},
        r"its head reads 8 numbers, its decoder gives 32",
    ),
    "a tokenizer without the tag": (
        lambda folder: qwen(folder, specials=()),
        {},
        r"family qwen_prm: its tokenizer has no token '<extra_0>', which this family needs",
    ),
    "a tokenizer without the words": (
        policy,
        {"family": "pathfinder"},
        r"family pathfinder: its tokenizer has no token '<extra>', which",
    ),
    "no chat template": (no_template, {}, r"family qwen_prm: its chat template cannot render its layout"),
    "a chat template that refuses": (
        lambda folder: policy(folder, template="{{ raise_exception('no system turn') }}"),
        {"family": "rlhflow"},
        r"family rlhflow: its chat template cannot render its layout \(no system turn\)",
    ),
    "no family": (policy, {}, r"process\.family: missing; the files of .* do not tell it \(accepted: math_shepherd, "),
    "no second model": (policy, {"family": "eurus"}, r"process\.reference: missing; .* needs a second language model"),
    "a context that is too large": (
        qwen,
        {"context": 5000},
        r"process\.context: 5000 exceeds .* \(accepted: 1 to 1024",
    ),
    "an aggregate of steps that are not scored": (
        policy,
        {"family": "pathfinder", "aggregate": "min"},
        r"process\.aggregate: 'min'; pathfinder scores a path's last step only \(accepted: 'last'\)",
    ),
    "no weights": (without_weights, {}, r"files lack the head: .*\(found: only the decoder's, such as none at all\)"),
    "damaged weights": (damaged, {}, r"model\.safetensors: damaged"),
    "a layer that is missing": (missing_layer, {}, r"the files lack the tensors .*layers\.1\.mlp"),
    "no padding token": (
        lambda folder: save_judge(
            folder, "mistral", piece_tokenizer(), "ReasonEval_7B", random_head(("score_head", 3, 32))
        ),
        {},
        r"has no padding token, which reasoneval needs",
    ),
    "our own of a later format": (
        lambda folder: own(folder, CLASSIFICATION | {"format": 2}),
        {},
        r"process_reward\.json: format 2, kind 'classification' \(accepted: format 1",
    ),
    "our own of another kind": (lambda folder: own(folder, [1]), {}, r"process_reward\.json: format None, kind None"),
    "our own with a bad range": (
        lambda folder: own(folder, CLASSIFICATION | {"range": [1, 1]}),
        {},
        r"process_reward\.json: range: \[1, 1\] \(accepted: two numbers, the smaller first\)",
    ),
    "our own with a range of texts": (
        lambda folder: own(folder, CLASSIFICATION | {"range": ["a", 1]}),
        {},
        r"process_reward\.json: range: \['a', 1\] \(accepted: two numbers, the smaller first\)",
    ),
    "our own with the wrong head": (
        lambda folder: own(folder, CLASSIFICATION | {"kind": "regression"}),
        {},
        r"family mcts_dpo: its head has 2 outputs \(accepted: 1\)",
    ),
    "our own, so named, without its file": (
        lambda folder: save_judge(
            folder, "qwen2", byte_tokenizer(), "Qwen2ForTokenClassification", random_head(("score", 2, 32))
        ),
        {"family": "mcts_dpo"},
        r"process_reward\.json: missing \(accepted: what mcts-dpo train --process-reward writes\)",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_line(tmp_path: Path, name: str) -> None:
    build, settings, message = CASES[name]
    folder = build(tmp_path / "judge")
    with pytest.raises(InputError, match=message) as told:
        judge_of(folder, **settings)
    assert "\n" not in str(told.value)


def test_no_such_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a process reward model"):
        judge_of(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json"):
        judge_of(tmp_path / "empty")


def test_a_name_that_no_hub_knows() -> None:
    with pytest.raises(InputError, match=r"nobody/no-judge: no such file or directory, and no such model on the hub"):
        judge_of(Path("nobody/no-judge"))
    with pytest.raises(InputError, match=r"judges/no/judge: no such file or directory, and no such model on the hub"):
        judge_of(Path("judges/no/judge"))


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    judge = judge_of(own(tmp_path / "judge", CLASSIFICATION | {"tokenizer": tokenizer_digest(tokenizer)}))
    require_tokenizer(judge, tokenizer)
    with pytest.raises(InputError, match="was trained with another tokenizer than that of the policy"):
        require_tokenizer(judge, byte_tokenizer(["<new>"]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rewards.process.family=qwen_pmr", r"'qwen_pmr' is not one of the choices; did you mean 'qwen_prm'\?"),
        ("rewards.process.aggregate=product", r"'product' is not one of the choices"),
        ("rewards.process.context=0", r"0 is out of range \(accepted: an integer ≥ 1"),
        (
            "rewards.process.url=localhost",
            r"url: 'localhost' is not accepted \(accepted: text that matches \^https\?://",
        ),
        ("rewards.judge.url=localhost", r"url: 'localhost' is not accepted \(accepted: text that matches \^https\?://"),
        ("rewards.process.weight=1", r"rewards\.1\.model: missing"),
    ],
)
def test_settings(override: str, message: str) -> None:
    given = [override] if "weight" in override else ["rewards.process.model=judge", override]
    with pytest.raises(InputError, match=message) as told:
        load_settings(SearchSettings, None, given)
    assert "\n" not in str(told.value)


def test_families_and_settings_agree() -> None:
    assert list(FamilyName.__args__) == list(FAMILIES)  # type: ignore[attr-defined]
    assert issubclass(ProcessSettings, RewardSettings)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("math-shepherd-mistral-7b-prm", "math_shepherd"),
        ("Math-psa", "math_psa"),
        ("Llama3.1-8B-PRM-Mistral-Data", "rlhflow"),
        ("EurusPRM-Stage2", "eurus"),
        ("PathFinder-PRM-7B", "pathfinder"),
    ],
)
def test_a_language_model_is_known_by_its_name(name: str, family: str) -> None:
    from mcts_dpo.rewards.process.families import detect

    assert detect(name, ["config.json"], ["lm_head.weight"], ["Qwen2ForCausalLM"]) == family
    assert detect("mine", ["config.json"], ["lm_head.weight"], ["Qwen2ForCausalLM"]) is None
