"""The three errors that end a command with one line instead of a traceback, and its exit code."""

from __future__ import annotations


class InputError(ValueError):
    """Input that the user can fix. The message is one line: what, where, what was given, what is accepted.

    The command line prints it without a traceback and exits with code 2.
    """


class RestartError(RuntimeError):
    """This process cannot continue, but the same command can when it is started again. The message is one line.

    The command line prints it without a traceback and exits with code 75 (EX_TEMPFAIL of sysexits.h).

    report: whether this process prints the message, if several processes end together.
    """

    def __init__(self, message: str, *, report: bool = True) -> None:
        super().__init__(message)
        self.report = report


class RefusalError(RuntimeError):
    """A service outside this program refused or could not be reached. The message is one line.

    The command line prints it without a traceback and exits with code 1.
    """
