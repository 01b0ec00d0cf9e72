"""Tree search over reasoning steps, driven by a policy: problems and an engine in, a `Forest` out.

The search uses neither training nor run directories. It does not import torch; an engine may.
"""

from mcts_dpo.search.answers import TreeVote, tree_answer
from mcts_dpo.search.generation import own_sampling
from mcts_dpo.search.journal import policy_fingerprint
from mcts_dpo.search.mcts import search_problems
from mcts_dpo.search.render import render_text, render_tree
from mcts_dpo.search.runner_clock import RunnerClock
from mcts_dpo.search.settings import GumbelSettings, SearchSettings
from mcts_dpo.search.shards import search_shards
from mcts_dpo.search.statistics import counts_of_shard, search_statistics
from mcts_dpo.search.tree import FINISHES, LENGTH, NONE, Forest, TreeInfo

__all__ = [
    "FINISHES",
    "LENGTH",
    "NONE",
    "Forest",
    "GumbelSettings",
    "RunnerClock",
    "SearchSettings",
    "TreeInfo",
    "TreeVote",
    "counts_of_shard",
    "own_sampling",
    "policy_fingerprint",
    "render_text",
    "render_tree",
    "search_problems",
    "search_shards",
    "search_statistics",
    "tree_answer",
]
