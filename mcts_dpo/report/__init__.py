"""Reports on runs: as text, as pictures, and as one HTML page. It writes only its own files into a run directory."""

from pathlib import Path

from mcts_dpo.common.files import explained
from mcts_dpo.common.progress import Progress, silent
from mcts_dpo.report.html import write_html
from mcts_dpo.report.locate import find_trees, list_trees
from mcts_dpo.report.plots import plot_strategies, write_plots
from mcts_dpo.report.text import RunRecord, evaluation_table, load_run, strategies_table, summary_text, training_table

__all__ = [
    "RunRecord",
    "evaluation_table",
    "find_trees",
    "list_trees",
    "load_run",
    "plot_strategies",
    "strategies_table",
    "summary_text",
    "training_table",
    "write_html",
    "write_plots",
    "write_report",
]


def write_report(record: RunRecord, progress: Progress = silent) -> list[Path]:
    """Write the plots and `report.html` into the run directory. Returns the files, the page last.

    Raises InputError without permission to write there, or if no space is left.
    """
    progress("plots", 0, 0)
    with explained(record.directory, lambda: "the run is as it was"):
        return [*write_plots(record), write_html(record, progress)]
