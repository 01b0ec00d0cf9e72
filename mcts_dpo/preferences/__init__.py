"""Trees in, step-level preferences out: selection, weights, and the tables that the trainer (and TRL) reads."""

from mcts_dpo.preferences.dataset import Pairs, Ragged, Solutions
from mcts_dpo.preferences.extract import PreferenceSettings, best_path, extract_pairs, extract_solutions

__all__ = ["Pairs", "PreferenceSettings", "Ragged", "Solutions", "best_path", "extract_pairs", "extract_solutions"]
