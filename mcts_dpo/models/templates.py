"""Renders a conversation with a model's chat template, within a time limit.

A chat template is a program that comes with the model. Jinja's sandbox keeps it from files and processes, but it can
still loop for hours. In: a tokenizer, messages. Out: text.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LIMIT = 20.0
"""Seconds that a template may take for one conversation. Usual templates take about a millisecond."""


class EndlessTemplateError(Exception):
    """A chat template did not end within `LIMIT`."""

    def __str__(self) -> str:
        return f"it does not end within {LIMIT:g} s"


def render_chat(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
    """The text of a conversation. options: of `apply_chat_template`, and further variables of the template.

    Raises any error of the template, and EndlessTemplateError.
    """
    with _limited():
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, **options))


@contextmanager
def _limited() -> Iterator[None]:
    """Raise EndlessTemplateError in this thread if the block takes over `LIMIT`. A running call into C ends first."""
    lock, over, fired, thread = threading.Lock(), False, False, ctypes.c_ulong(threading.get_ident())

    def interrupt() -> None:
        nonlocal fired
        with lock:
            if not over:
                fired = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(EndlessTemplateError))

    timer = threading.Timer(LIMIT, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except EndlessTemplateError:
        fired = False  # it has arrived
        raise
    finally:
        with lock:
            over = True
        timer.cancel()
        if fired:
            _absorb()


def _absorb() -> None:
    """Wait for an exception that was raised in the last moment.

    It cannot be withdrawn: CPython 3.11 then loops for ever under a tracer (coverage, a debugger).
    """
    with suppress(EndlessTemplateError):
        for _ in range(100):
            time.sleep(0.001)
