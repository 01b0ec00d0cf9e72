"""The commands of the integrations: the harness lm-eval and the server.

Each needs its own extra. Without it, the command ends with one line that names the extra.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Annotated

import typer

from mcts_dpo.cli.common import ConfigOption, ModelOption, Overrides, policy_named, stage_config, with_own_sampling
from mcts_dpo.common.console import err_console, live_progress, say
from mcts_dpo.common.errors import InputError

app = typer.Typer()


@app.command(
    name="lm-eval",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def lm_eval(context: typer.Context) -> None:
    """Run lm-evaluation-harness with the model `mcts-dpo` (extra lm-eval). All arguments are those of the harness."""
    try:
        from mcts_dpo.integrations.lm_eval import run_harness
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; pip install 'mcts-dpo[lm-eval]'") from None
    run_harness(context.args)


@app.command()
def serve(
    overrides: Overrides = None,
    model: ModelOption = None,
    config: ConfigOption = None,
    strategy: Annotated[
        str, typer.Option(help="What answers: greedy, majority, best-of-n, weighted, beam, dvts or mcts.")
    ] = "mcts",
    budget: Annotated[
        int | None,
        typer.Option(help="Generated tokens per answer; a request can set its own with the field `budget`."),
    ] = None,
    max_budget: Annotated[
        int | None, typer.Option(help="The largest budget of a request. Default: four times --budget.")
    ] = None,
    max_work: Annotated[
        int | None, typer.Option(help="The most tokens of one request, n × budget. Default: 128 times --max-budget.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The model's name for clients. Default: the end of its path.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; any other than loopback needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8000,
    key: Annotated[
        str | None, typer.Option(envvar="MCTS_DPO_KEY", help="The key that clients must send as a bearer token.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Searches at a time. Default: twice the engine's slots.", show_default=False)
    ] = None,
    queue: Annotated[int, typer.Option(help="Searches that may wait; further requests are answered with 429.")] = 256,
    grace: Annotated[float, typer.Option(help="Seconds that running requests get to end after SIGTERM.")] = 30.0,
    max_body_bytes: Annotated[
        int, typer.Option(help="The longest body of a request; a longer one is answered with 413.")
    ] = 4 << 20,
    read_timeout: Annotated[
        float, typer.Option(help="Seconds in which a request's headers, and then its body, must have arrived.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as JSON.")] = False,
) -> None:
    """Serve the search as OpenAI's API (extra serve): /v1/chat/completions, /v1/completions, /v1/models.

    /health and /metrics are there too. A streaming answer arrives as its steps are decided: with --strategy mcts and
    search.advance=step during the search, otherwise at the end. After SIGTERM, running requests end first.
    """
    from mcts_dpo.common.settings import load_settings

    try:
        from mcts_dpo.integrations.server.running import serve as run_server
        from mcts_dpo.integrations.server.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed; pip install 'mcts-dpo[serve]'") from None
    given = {
        "strategy": strategy,
        "budget": budget,
        "max_budget": max_budget,
        "max_work": max_work,
        "name": name,
        "host": host,
        "port": port,
        "key": key,
        "concurrency": concurrency,
        "queue": queue,
        "grace": grace,
        "max_body_bytes": max_body_bytes,
        "read_timeout": read_timeout,
    }
    stage = stage_config(config, overrides)
    policy = policy_named(stage, model)
    stage = with_own_sampling(stage, policy)
    settings = load_settings(ServerSettings, given, name="serve")
    with ExitStack() as loading:
        loading.enter_context(live_progress(err_console))("load model", 0, 0)

        def ready(address: str) -> None:
            loading.close()
            if as_json:
                say(json.dumps({"policy": policy, "url": f"{address}/v1"}))
            else:
                say(f"Serving {policy} at {address}/v1")

        code = run_server(policy, settings, stage, ready)
    raise typer.Exit(code)
