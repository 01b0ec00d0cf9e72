"""The plainest driver of an engine, whose pace is the ceiling of every other: submit all, wait for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mcts_dpo.engines.base import Completion, Engine, Request


def complete(
    engine: Engine, requests: Sequence[Request], on_progress: Callable[[list[Completion]], None] = lambda finished: None
) -> list[Completion]:
    """The completions in the order of the requests. on_progress: called with completions as they come, in any order."""
    for request in requests:
        engine.submit(request)
    done: dict[int, Completion] = {}
    while len(done) < len(requests):
        finished = engine.poll()
        if not finished:
            raise RuntimeError(f"the engine lost {len(requests) - len(done)} of {len(requests)} requests")
        done.update((completion.id, completion) for completion in finished)
        on_progress(finished)
    return [done[request.id] for request in requests]
