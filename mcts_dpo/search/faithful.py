"""Where the released code of MCTS-DPO departs from its paper, each departure a switch of its own.

The code: github.com/YuxiXie/MCTS-DPO, commit fb23437, folder mcts_rl/algorithms/mcts; the paper: Xie et al. 2024, arXiv
2405.00451. All switches are off by default: then the search is the paper's. Two more belong elsewhere: the hinted
self-evaluation is `search.self_evaluation.hint` (there on in training: `HINTED_EVAL_PROMPT` shows the solution), and
the random rejected step is `preferences.rejected: random` (there always: `--choose_random` defaults to true).
In: settings, a problem. Out: numbers and steps. Knows neither forest nor engine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcts_dpo.common.settings import Settings
from mcts_dpo.data import Problem
from mcts_dpo.models.encoding import Guard
from mcts_dpo.models.endings import endings
from mcts_dpo.models.prompts import PromptSettings, split_steps
from verifiers import extract_answer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BONUS = 5 / 4
"""What a right solution of the policy's own counts for, against 1 for the reference's (search_config.py)."""


class FaithfulSettings(Settings):
    """Switches of the reference implementation.

    root_twice:       the root gains a visit when an iteration starts and another when it is backed up (mcts.py,
                      `iterate` and `_back_propagate`), so that PUCT explores more at the root. Here: of the whole tree.
    unvisited_as_one: V(s) = Σ max(1, N) Q / Σ max(1, N): a child that was never visited counts as one visit (mcts.py,
                      `_back_propagate`). Here a sample visits its child: only a reference child is unvisited.
    new_solution_bonus: a right solution counts 5/4 unless the reference solution begins with it (search_config.py,
                      `get_values`); not for multiple choice, nor without a reference solution.
    depth_penalty:    the confidence C is divided by max(d − 3, 1), d the depth of the step's parent (search_config.py,
                      `get_values`).
    reference_child:  the reference solution's next step stands first among the children, at the root and wherever the
                      path is the reference's so far (search_config.py, `get_actions`); "rollout" adds all of its steps.
                      If it states no answer, a last step does. There the policy scores it; an engine here gives no
                      probabilities of tokens that it did not draw: its prior mass is the mean of its siblings', its
                      log-probabilities are nan. Training only: a solving search refuses it.
    """

    root_twice: bool = False
    unvisited_as_one: bool = False
    new_solution_bonus: bool = False
    depth_penalty: bool = False
    reference_child: bool = False


def outcome_value(settings: FaithfulSettings, outcome: int, solution: str, problem: Problem) -> float:
    """O as it counts in the reward. solution: the text up to its end."""
    if settings.new_solution_bonus and outcome > 0 and problem.solution and not problem.choices:
        own = not problem.solution.strip().startswith(solution.strip())
        return BONUS * outcome if own else float(outcome)
    return float(outcome)


def confidence_value(settings: FaithfulSettings, confidence: float, depth: int) -> float:
    """C as it counts in the reward. depth: of the judged step, ≥ 1."""
    return confidence / max(depth - 1 - 3, 1) if settings.depth_penalty else confidence


def answer_end(tokenizer: PreTrainedTokenizerBase, prompt: PromptSettings) -> int | None:
    """The token with which a policy ends its answers: in a chat the one that the template writes there."""
    ends = endings(tokenizer)
    return ends.turn if prompt.style == "chat" and ends.turn is not None else ends.sequence


def reference_steps(
    problem: Problem, tokenizer: PreTrainedTokenizerBase, prompt: PromptSettings
) -> list[tuple[int, ...]]:
    """The tokens of each step of the reference solution, the last with the token that ends answers; [] without one."""
    if not problem.solution or not problem.solution.strip():
        return []
    text = problem.solution.strip()
    if extract_answer(prompt.prefill + text, prompt.answer_style) is None and problem.answer:
        text += f"\nThe answer is {problem.answer}."
    guard = Guard(tokenizer, [text], prompt.special_tokens)
    tokens = list(guard.ids(guard.text(text)))
    ends = split_steps(tokens, tokenizer, prompt)
    end = answer_end(tokenizer, prompt)
    if end is not None and tokens:
        tokens.append(end)
        ends[-1] += 1
    return [tuple(tokens[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
