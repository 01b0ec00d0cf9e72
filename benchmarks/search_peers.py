"""Public loops of tree search over reasoning steps, at the work of `benchmarks.search`: expansions per CPU second.

    python -m benchmarks.search_peers llm-reasoners --model DIR --problems FILE --expansions 12 --json FILE
    python -m benchmarks.search_peers mcts-dpo-loop --model DIR --problems FILE --expansions 6 --json FILE

`llm-reasoners` (version 1.0.2, Apache-2.0) runs its own MCTS over its own HFModel; written here are only the world
model and the search configuration that every user of it writes: the actions of a state are sampled steps, the fast
reward is P(yes) to the self-evaluation question.

`mcts-dpo-loop` is a STAND-IN, written from the description of the reference implementation of Xie et al. 2024, not its
code: one `generate` call of one sequence per child, a forward pass over prompt and step to have its log-probabilities
again, and a self-evaluation that generates 4 tokens. What it does between these calls (selection, backup) is left out,
so it is a little faster than the loop that it stands for.

Both: as many children, tokens and questions per expansion as the search they are compared with; steps that end with a
newline or after the same number of tokens. Prefixes are read anew by every call, as these programs do.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from mcts_dpo.common.files import write_json
from mcts_dpo.data import load_problems
from mcts_dpo.models.loading import load_model, load_tokenizer
from mcts_dpo.models.prompts import PromptSettings, prompt_tokens, self_evaluation

PROMPT = PromptSettings()
CHILDREN, STEP_TOKENS, DEPTH = 3, 64, 8
TEMPERATURE = 0.8
SELF_EVALUATION_TOKENS = 4


def texts_of(model: Path, problems: Path, limit: int) -> tuple[list[str], str]:
    """The prompts as text, and the self-evaluation question that follows a partial solution."""
    tokenizer = load_tokenizer(model)
    suffix, _ = self_evaluation(tokenizer, PROMPT)
    found = load_problems(problems, limit=limit)
    return [tokenizer.decode(prompt_tokens(p, tokenizer, PROMPT)) for p in found], tokenizer.decode(suffix)


def llm_reasoners(model: Path, problems: Path, expansions: int, limit: int) -> dict[str, Any]:
    """llm-reasoners' MCTS, one problem after the other, until so many expansions are done."""
    import importlib.metadata

    import numpy as np
    from reasoners import SearchConfig, WorldModel
    from reasoners.algorithm import MCTS
    from reasoners.lm.hf_model import HFModel

    prompts, asked = texts_of(model, problems, limit)
    language_model = HFModel(str(model), str(model), device="cpu")
    # NumPy has no bfloat16, in which this model runs fastest here: its last layer's output is handed on as float32.
    language_model.model.lm_head.register_forward_hook(lambda module, inputs, logits: logits.float())
    # HFModel overwrites the special tokens with those of Llama 1; a newline ends a step here.
    newline = language_model.tokenizer.encode("\n", add_special_tokens=False)[0]
    done = {"expansions": 0, "tokens": 0}
    began: list[float] = []

    class Enough(Exception):
        """The expansions are done."""

    class World(WorldModel):
        def init_state(self) -> str:
            return self.example

        def step(self, state: str, action: str) -> tuple[str, dict[str, Any]]:
            return state + action, {}

        def is_terminal(self, state: str) -> bool:
            return not state.endswith("\n")

    class Config(SearchConfig):
        def get_actions(self, state: str) -> list[str]:
            if done["expansions"] == 1 and not began:
                began.append(time.process_time())  # the first expansion was the warm-up
                done.update(expansions=0, tokens=0)
            if done["expansions"] >= expansions:
                raise Enough
            found = language_model.generate(
                [state] * CHILDREN,
                max_new_tokens=STEP_TOKENS,
                do_sample=True,
                temperature=TEMPERATURE,
                top_k=0,
                eos_token_id=newline,
                hide_input=False,
            ).text
            shown = language_model.tokenizer.decode(
                language_model.tokenizer(state)["input_ids"], skip_special_tokens=True
            )
            steps = [text[len(shown) :] for text in found]
            done["expansions"] += 1
            done["tokens"] += sum(len(language_model.tokenizer.encode(s, add_special_tokens=False)) for s in steps)
            return steps

        def fast_reward(self, state: str, action: str) -> tuple[float, dict[str, Any]]:
            (logits,) = language_model.get_next_token_logits(state + action + asked, ["Yes", "No"])
            yes = float(np.exp(logits[0]) / np.exp(logits).sum())
            return yes, {"yes": yes}

        def reward(self, state: str, action: str, **details: Any) -> tuple[float, dict[str, Any]]:
            return details["yes"], details

    searcher = MCTS(depth_limit=DEPTH, n_iters=10**6, output_trace_in_each_iter=False, disable_tqdm=True)
    try:
        for prompt in prompts:
            world, config = World(), Config()
            world.example = config.example = prompt
            searcher.n_iters = 4
            searcher(world, config)
    except Enough:
        pass
    seconds = time.process_time() - began[0]
    version = importlib.metadata.version("llm-reasoners")
    return {"name": f"llm-reasoners {version}, its own MCTS and HFModel", "seconds": seconds, **done}


def mcts_dpo_loop(model: Path, problems: Path, expansions: int, limit: int) -> dict[str, Any]:
    """The stand-in of MCTS-DPO's loop: one expansion after the other, each below the last one's first child."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    tokenizer, policy = load_tokenizer(model), load_model(model, "bfloat16")
    suffix, _ = self_evaluation(tokenizer, PROMPT)
    questions = load_problems(problems, limit=limit)
    end = tokenizer.eos_token_id

    class Newline(StoppingCriteria):
        def __call__(self, ids: Any, scores: Any, **kwargs: Any) -> Any:
            ended = "\n" in tokenizer.decode(ids[0, -1:])
            return torch.full((1,), ended, dtype=torch.bool)

    def generate(ids: list[int], tokens: int, stopping: Any = None) -> list[int]:
        given = torch.tensor([ids])
        out = policy.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=tokens, do_sample=True,
            temperature=TEMPERATURE, top_k=0, stopping_criteria=stopping, pad_token_id=end,
        )  # fmt: skip
        return out[0, len(ids) :].tolist()

    def expand(ids: list[int]) -> tuple[int, list[int] | None]:
        following, drawn = None, 0
        for _ in range(CHILDREN):
            step = generate(ids, STEP_TOKENS, StoppingCriteriaList([Newline()]))
            whole = torch.tensor([ids + step])
            logits = policy(whole).logits[0, len(ids) - 1 : -1].float()
            torch.log_softmax(logits, -1).gather(1, whole[0, len(ids) :, None])
            generate([*ids, *step, *suffix], SELF_EVALUATION_TOKENS)
            drawn += len(step) + SELF_EVALUATION_TOKENS
            if following is None and "\n" in tokenizer.decode(step) and step[-1] != end:
                following = [*ids, *step]
        return drawn, following

    done = tokens = 0
    with torch.inference_mode():
        expand(list(prompt_tokens(questions[0], tokenizer, PROMPT)))  # warm-up
        start = time.process_time()
        for question in questions:
            state: list[int] | None = list(prompt_tokens(question, tokenizer, PROMPT))
            for _ in range(4):
                if state is None or done == expansions:
                    break
                drawn, state = expand(state)
                tokens += drawn
                done += 1
        seconds = time.process_time() - start
    name = "MCTS-DPO's loop, a stand-in written from its description"
    return {"name": name, "seconds": seconds, "expansions": done, "tokens": tokens}


PEERS = {"llm-reasoners": llm_reasoners, "mcts-dpo-loop": mcts_dpo_loop}


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--problems", type=Path, required=True)
    parser.add_argument("--expansions", type=int, default=12)
    parser.add_argument("--limit", type=int, default=64, help="problems to take expansions from")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = PEERS[arguments.peer](arguments.model, arguments.problems, arguments.expansions, arguments.limit)
    write_json(arguments.json, found)


if __name__ == "__main__":
    main()
