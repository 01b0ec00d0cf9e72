"""A value model: one number for how good a solution so far is, from a scalar head on a policy's last hidden states.

In: token ids. Out: estimates of Q, the action value that the search would give the last step.
`mcts_dpo.training.value_model` trains it; a search uses it as a reward.

On disk it is a directory: `value.safetensors` (weight [d], bias []), `value.json` (the policy below the head and the
digest of its weights, the digest of the tokenizer, how it was trained), and `adapter/` if the policy was adapted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mcts_dpo.common.errors import InputError
from mcts_dpo.common.files import read_json, write_json
from mcts_dpo.models.loading import load_model, merge_adapter, tokenizer_digest, weights_digest


@dataclass(frozen=True, slots=True)
class ValueModel:
    """A policy with a scalar head.

    trunk:        a causal language model in evaluation mode.
    weight, bias: of the head, [d] and [] float32.
    tokenizer:    digest of the tokenizer whose ids it reads.
    """

    trunk: Any
    weight: Tensor
    bias: Tensor
    tokenizer: str

    @classmethod
    def load(cls, path: str | Path) -> ValueModel:
        """Read a directory that `save` wrote. `value.json` says where the policy is.

        Raises InputError if the directory holds no value model, or if the policy's weights have changed since training.
        """
        folder = Path(path).expanduser()
        about = read_json(folder / "value.json")
        if not isinstance(about, dict) or not {"policy", "weights", "tokenizer"} <= about.keys():
            raise InputError(
                f"{folder / 'value.json'}: not a value model (accepted: what mcts-dpo train --value writes)"
            )
        beside = folder / about["policy"]
        policy = beside.resolve() if beside.exists() else about["policy"]
        trunk: Any = load_model(policy, "float32", "cuda" if torch.cuda.is_available() else "cpu")
        if weights_digest(trunk) != about["weights"]:
            raise InputError(f"{folder}: was trained on other weights than {policy} holds now; train it again")
        if (folder / "adapter").is_dir():
            trunk = merge_adapter(trunk, folder / "adapter")
        try:
            head = load_file(folder / "value.safetensors", device=str(trunk.device))
            return cls(trunk.eval().requires_grad_(False), head["weight"], head["bias"], about["tokenizer"])
        except (FileNotFoundError, SafetensorError, KeyError) as error:
            raise InputError(f"{folder / 'value.safetensors'}: not the head of a value model ({error})") from None

    def values(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """[n] estimates of Q at the last token of each prefix (≥ 1 token ids each, from the prompt's first on).

        Each prefix is computed alone and without padding, so its value does not depend on the others.
        """
        found = np.empty(len(prefixes))
        with torch.no_grad():
            for place, prefix in enumerate(prefixes):
                ids = torch.tensor([list(prefix)], device=self.trunk.device)
                states = self.trunk.base_model(input_ids=ids, use_cache=False).last_hidden_state
                found[place] = float(states[0, -1].float() @ self.weight + self.bias)
        return found

    def confidences(self, prefixes: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """[n] in [0, 1]: (Q + 1) / 2, clipped. If Q is the outcome ±1, this is the probability of a right answer."""
        return np.clip((self.values(prefixes) + 1) / 2, 0.0, 1.0)


def save(
    folder: Path,
    weight: Tensor,
    bias: Tensor,
    *,
    policy: str | Path,
    weights: str,
    tokenizer: str,
    about: dict[str, Any],
) -> None:
    """Write a head into `folder`, which is created. weights: digest of the policy's; about: how it was trained."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": weight.float().cpu(), "bias": bias.float().cpu()}, folder / "value.safetensors")
    write_json(folder / "value.json", {**about, "policy": policy, "weights": weights, "tokenizer": tokenizer})


def relative_policy(policy: str | Path, out: Path) -> str:
    """The policy as a value model at `out` names it: by a relative path, so that both can move, or by its hub name."""
    path = Path(policy).expanduser()
    return os.path.relpath(path.resolve(), out.resolve()) if path.exists() else str(policy)


def value_model_for(path: Path, tokenizer: Any) -> ValueModel:
    """The value model at `path`, loaded once. Raises InputError if it was trained with another tokenizer."""
    found = _load_once(str(path), (path / "value.json").stat().st_mtime_ns if (path / "value.json").exists() else 0)
    if found.tokenizer != tokenizer_digest(tokenizer):
        raise InputError(f"{path}: was trained with another tokenizer than that of the policy of this search")
    return found


@lru_cache(maxsize=2)
def _load_once(path: str, changed: int) -> ValueModel:
    return ValueModel.load(path)
