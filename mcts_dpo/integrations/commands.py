"""The commands of the integrations, for the command line to take in: parse, call one function, print.

Each needs its own extra; without it the answer is one line that says which.
"""

from __future__ import annotations

import typer

from mcts_dpo.files import InputError

app = typer.Typer()


@app.command(
    name="lm-eval",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def lm_eval(context: typer.Context) -> None:
    """lm-evaluation-harness with `--model mcts-dpo` known to it (extra lm-eval); all arguments are the harness's."""
    try:
        from mcts_dpo.integrations.lm_eval import run_harness
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; pip install 'mcts-dpo[lm-eval]'") from None
    run_harness(context.args)
