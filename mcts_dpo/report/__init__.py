"""Runs as text, pictures and one HTML page. Reads run directories; writes only its own files into them."""

from mcts_dpo.report.finding import find_trees
from mcts_dpo.report.html import write_html
from mcts_dpo.report.plots import plot_strategies, write_plots
from mcts_dpo.report.text import RunRecord, evaluation_table, load_run, strategies_table, summary_text

__all__ = [
    "RunRecord",
    "evaluation_table",
    "find_trees",
    "load_run",
    "plot_strategies",
    "strategies_table",
    "summary_text",
    "write_html",
    "write_plots",
]
