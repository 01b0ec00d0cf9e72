"""lm-evaluation-harness: a model whose texts come from any of our strategies, with a budget of tokens.

    mcts-dpo lm-eval run --model mcts-dpo --model_args pretrained=MODEL,strategy=mcts,budget=512 --tasks gsm8k

In: the harness's requests; its prompts are passed on as they are. Out: texts and log-likelihoods. The harness finds and
scores the answers; no reference answer is read here. Needs the extra `lm-eval`. The harness (0.4.13) reads no entry
points: importing this module registers the model, and `mcts-dpo lm-eval` imports it first.

Source: Gao et al., "A framework for few-shot language model evaluation",
https://github.com/EleutherAI/lm-evaluation-harness.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model

from mcts_dpo.common.console import err_console, live_progress
from mcts_dpo.common.errors import InputError
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.common.settings import load_settings
from mcts_dpo.data import Problem
from mcts_dpo.engines import EngineSettings, load_engine
from mcts_dpo.engines.registry import engine_kind
from mcts_dpo.engines.shaping import refuse_shape
from mcts_dpo.integrations.arguments import sections
from mcts_dpo.models.loading import load_model, load_tokenizer
from mcts_dpo.models.prompts import PromptSettings
from mcts_dpo.search.generation import own_sampling
from mcts_dpo.search.settings import SearchSettings
from mcts_dpo.solve import Solution, solve_problems, strategy_named

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

MAX_GEN_TOKENS = 256
"""Tokens of a solution if the task does not set them (the harness's default)."""


@register_model("mcts-dpo")
class SearchLM(TemplateLM):  # type: ignore[misc]
    """`--model mcts-dpo`. Arguments, by name:

    pretrained: a hub name, a Hugging Face directory or a .gguf file.
    strategy:   greedy, majority, best-of-n, weighted, beam, dvts, mcts.
    budget:     generated tokens per request; not for greedy, whose budget is the task's own limit.
    engine_NAME, search_NAME, prompt_NAME: single settings, e.g. `search_temperature=0.7`, `engine_slots=32`,
                `prompt_answer_style=gsm8k` (how an answer is recognised in a solution, for votes and trees).
    """

    def __init__(
        self,
        pretrained: str = "",
        strategy: str = "greedy",
        budget: int | str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if not pretrained:
            raise InputError("model_args: pretrained is missing (a hub name, a directory or a .gguf file)")
        self.strategy = strategy_named(strategy)
        if self.strategy != "greedy" and budget is None:
            raise InputError(f"model_args: strategy {strategy!r} needs a budget in tokens, e.g. budget=512")
        self.budget = None if budget is None else int(budget)
        parts = sections(settings, ("pretrained", "strategy", "budget"), "model_args")
        self.pretrained = pretrained
        self.search = load_settings(SearchSettings, parts["search"])
        kind = load_settings(EngineSettings, parts["engine"]).kind
        refuse_shape(self.search, engine_kind(kind).sampling, kind)
        self.search = own_sampling(self.search, pretrained, kind)
        # The harness has rendered the prompt; our settings say how steps end and how an answer is recognised. The text
        # contains the chat template's control tokens, so they are allowed.
        own = {"style": "plain", "template": "{question}", "special_tokens": "allow"}
        self.prompt = load_settings(PromptSettings, own | parts["prompt"])
        self.tokenizer = load_tokenizer(pretrained)
        self.engine = load_engine(pretrained, **parts["engine"])
        self._scorer: Any = None

    # --- texts -------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """One text per request, in order; all requests of the same generation settings are searched together."""
        groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[_generation(request.args[1])].append(index)
        texts = [""] * len(requests)
        for (until, max_tokens, temperature), members in groups.items():
            with live_progress(err_console) as watched:
                progress = silent if disable_tqdm else watched
                contexts = [requests[index].args[0] for index in members]
                found = self._solve(contexts, until, max_tokens, temperature, progress)
            for index, solution in zip(members, found, strict=True):
                texts[index] = _cut(solution.text, until)
                self.cache_hook.add_partial("generate_until", requests[index].args, texts[index])
        return texts

    def _solve(
        self,
        contexts: list[str],
        until: tuple[str, ...],
        max_tokens: int,
        temperature: float | None,
        progress: Progress,
    ) -> list[Solution]:
        bos = self.tokenizer.bos_token
        # The tokenizer adds its BOS token to a text; the harness's chat templates have added it already.
        bare = [text.removeprefix(bos) if bos else text for text in contexts]
        problems = [Problem(f"{index}", text) for index, text in enumerate(bare)]
        search = self.search.model_copy(
            update={"max_tokens": max_tokens} | ({"temperature": temperature} if temperature else {})
        )
        prompt = self.prompt.model_copy(update={"stop": until})
        wanted = (self.strategy, self.budget or max_tokens)
        return solve_problems(problems, self.engine, [wanted], prompt=prompt, search=search, progress=progress)[wanted]

    # --- log-likelihoods: the policy's, whatever the strategy ---------------------------------------------

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood, whether it is the greedy continuation) of each continuation under the policy."""
        found: list[tuple[float, bool]] = self._policy().loglikelihood(requests, disable_tqdm=disable_tqdm)
        return found

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts under the policy."""
        found: list[float] = self._policy().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        return found

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = self._policy()._loglikelihood_tokens(requests, **kwargs)
        return found

    def _policy(self) -> Any:
        """The harness's own wrapper of the same weights, loaded when a task first asks for likelihoods."""
        if self._scorer is None:
            from lm_eval.models.huggingface import HFLM

            model = load_model(self.pretrained, "auto", "cpu")
            self._scorer = HFLM(pretrained=model, tokenizer=self.tokenizer, batch_size=8)
        return self._scorer

    # --- what the harness needs of every model ------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """The end-of-sequence token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def tokenizer_name(self) -> str:
        """For the harness's cache of rendered requests."""
        return self.pretrained.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """The ids of a text."""
        return list(self.tokenizer(string, add_special_tokens=bool(add_special_tokens))["input_ids"])

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as the policy's own template writes it."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )


def run_harness(arguments: list[str]) -> None:
    """Run the harness's command line with these arguments and `mcts-dpo` among its models."""
    from lm_eval.__main__ import cli_evaluate

    before = sys.argv
    sys.argv = ["lm-eval", *arguments]
    try:
        cli_evaluate()
    finally:
        sys.argv = before


def _generation(given: dict[str, Any]) -> tuple[tuple[str, ...], int, float | None]:
    """(stop strings, most tokens, temperature) of a request; temperature None if the task decodes greedily."""
    until = given.get("until") or ()
    stops = (until,) if isinstance(until, str) else tuple(until)
    most = int(given.get("max_gen_toks") or given.get("max_new_tokens") or given.get("max_tokens") or MAX_GEN_TOKENS)
    temperature = float(given.get("temperature") or 0.0)
    return tuple(stop for stop in stops if stop), most, temperature if given.get("do_sample") and temperature else None


def _cut(text: str, until: tuple[str, ...]) -> str:
    """The text before the first stop string, as the harness expects it."""
    ends = [at for at in (text.find(stop) for stop in until) if at >= 0]
    return text[: min(ends)] if ends else text
