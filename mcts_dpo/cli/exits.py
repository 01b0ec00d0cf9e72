"""How a command ends: 0; 2 for input that its giver can mend; 75 where the same command may go on from what is on disk;
1 for any other failure; 130 when interrupted (what was finished stays finished; a second signal ends it at once). All
but 0 with one line on stderr. `--debug` before the command shows tracebacks.

In: the command line's app. Out: the process's exit code. Knows no command.
"""

from __future__ import annotations

import io
import logging
import sys
import traceback
from types import TracebackType
from typing import NoReturn

import typer
import typer.exceptions

from mcts_dpo.common.errors import InputError, RefusalError, RestartError
from mcts_dpo.common.interrupts import guard
from verifiers.visible import visible

MENDABLE: dict[type[OSError], str] = {
    FileExistsError: "a file; accepted: a folder, new or there already",
    IsADirectoryError: "a folder; accepted: a file",
    NotADirectoryError: "lies below a file; accepted: a place in a folder",
    FileNotFoundError: "no such file or folder",
    PermissionError: "permission is denied",
}
"""What the system says of a path that was given and cannot be used so, in words: input that its giver can mend."""


def run_app(app: typer.Typer) -> NoReturn:
    """Run the command that the process was given; what it raises becomes a line and an exit code."""
    _speak_literally()
    try:
        with guard():
            _run(app, "--debug" in sys.argv[1:])
    except Exception:  # --debug: the interpreter shows the traceback, by our hook (typer has put its own there)
        sys.excepthook = _show_traceback
        raise


def _run(app: typer.Typer, debug: bool) -> NoReturn:
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        if debug:
            raise
        _end(2, str(error))
    except RestartError as error:
        if debug:
            raise
        if error.speaks:
            typer.echo(visible(f"mcts-dpo: {error}"), err=True)
        sys.exit(75)
    except RefusalError as error:
        if debug:
            raise
        _end(1, str(error))
    except KeyboardInterrupt:
        code = 130
    except typer.Abort:
        _end(1, "given up")
    except typer.exceptions.TyperException as error:  # of the command line itself
        _end(2, _usage(error))
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            for kind, words in MENDABLE.items():
                if isinstance(error, kind):
                    _end(2, f"{error.filename2 or error.filename}: {words}")
        _end(1, f"{type(error).__name__}: {error} (--debug shows where)")
    if code == 130:
        _end(130, "interrupted; finished shards and stages are kept, the same command continues")
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: typer.exceptions.TyperException) -> str:
    """What is wrong with a command line, in one line."""
    context = getattr(error, "ctx", None)
    program = context.command_path if context else "mcts-dpo"
    message = " ".join(getattr(error, "format_message", lambda: str(error))().split())
    return f"{message or 'no command'} ({program} --help says more)"


def _end(code: int, line: str) -> NoReturn:
    typer.echo(visible(f"mcts-dpo: {line}"), err=True)
    sys.exit(code)


class _Visible(logging.Formatter):
    """Log lines, tracebacks included, in which text of others cannot act on the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace))))


def _speak_literally() -> None:
    """See to it that log lines, tracebacks and characters that the terminal's encoding lacks are spelled out."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Visible())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
