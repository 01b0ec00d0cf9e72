"""Makes training data from search trees: step-level preferences, weights, and the tables that trainers (also TRL) read.

In: trees. Out: tables of pairs, of lists of siblings, of whole solutions and of labelled steps.
"""

from mcts_dpo.preferences.dataset import JaggedArray, Pairs, Siblings, Solutions, Steps
from mcts_dpo.preferences.export import push_to_hub, write_card, write_trl
from mcts_dpo.preferences.extract import PreferenceSettings, best_path, extract_pairs, extract_solutions
from mcts_dpo.preferences.siblings import extract_siblings
from mcts_dpo.preferences.steps import extract_steps
from mcts_dpo.preferences.tables import Tables, save_tables, tables_of

__all__ = [
    "JaggedArray",
    "Pairs",
    "PreferenceSettings",
    "Siblings",
    "Solutions",
    "Steps",
    "Tables",
    "best_path",
    "extract_pairs",
    "extract_siblings",
    "extract_solutions",
    "extract_steps",
    "push_to_hub",
    "save_tables",
    "tables_of",
    "write_card",
    "write_trl",
]
