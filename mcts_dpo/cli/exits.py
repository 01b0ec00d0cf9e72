"""How a command ends: its exit code, and one line on stderr for every code except 0.

2: input that the user can fix. 75: the same command can continue from the files on disk. 1: any other failure. 130:
interrupted; finished work is kept, and a second signal ends the process at once. `--debug` before the command shows
tracebacks. In: the app of the command line. Out: the exit code of the process.
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
    FileExistsError: "a file; accepted: a folder, which need not exist",
    IsADirectoryError: "a folder; accepted: a file",
    NotADirectoryError: "lies below a file; accepted: a place in a folder",
    FileNotFoundError: "no such file or folder",
    PermissionError: "permission is denied",
}
"""Messages for errors of the system about a path that the user gave. The user can fix these."""


def run_app(app: typer.Typer) -> NoReturn:
    """Run the command in the process's arguments. An exception becomes one line and an exit code."""
    _speak_literally()
    try:
        with guard():
            _run(app, "--debug" in sys.argv[1:])
    except Exception:  # --debug: the interpreter shows the traceback with our hook, not with typer's
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
        if error.report:
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
    """The error in a command line, in one line."""
    context = getattr(error, "ctx", None)
    program = context.command_path if context else "mcts-dpo"
    message = " ".join(getattr(error, "format_message", lambda: str(error))().split())
    return f"{message or 'no command'} ({program} --help says more)"


def _end(code: int, line: str) -> NoReturn:
    typer.echo(visible(f"mcts-dpo: {line}"), err=True)
    sys.exit(code)


class _Visible(logging.Formatter):
    """Formats log lines and tracebacks so that text of models and data cannot act on the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(super().format(record))


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(visible("".join(traceback.format_exception(kind, error, trace))))


def _speak_literally() -> None:
    """Escape control characters in log lines and tracebacks, and characters that the terminal's encoding lacks."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Visible())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
