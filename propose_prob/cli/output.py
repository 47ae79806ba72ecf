r"""Printing of all commands; text from files is escaped so that it cannot act on a terminal.

Labels, keys and names come from files of others. Characters that a terminal would act on, or that
show text in another order than it has, are printed as the escapes of Python: `\x1b`.
"""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from typing import TextIO

__all__ = ["complain", "printable", "settle", "tell", "trace", "warn"]

_PROGRAM = "propose-prob"
#: Characters of a message on the standard error, and of a label within one.
_MESSAGE, _LABEL = 2000, 120


def printable(text: object, limit: int = _LABEL) -> str:
    r"""A text in one line, without characters that act on a terminal, and not longer than a limit.

    Args:
        text: What to show.
        limit: Characters; of a longer text the middle is left out.

    Example:
        >>> printable("one\x1b[2Jtwo\n")
        'one\\x1b[2Jtwo\\n'
        >>> printable("x" * 1000, limit=20)
        'xxxxxxxxxxxxx…xxxxxx'
    """
    text = str(text)
    # Before anything else is done with it: a text may be as long as a file.
    if len(text) > limit:
        text = text[: 2 * limit // 3] + "…" + text[len(text) - limit + 2 * limit // 3 + 1 :]
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
    if len(shown) > limit:
        shown = shown[: 2 * limit // 3] + "…" + shown[len(shown) - limit + 2 * limit // 3 + 1 :]
    return shown


def tell(*lines: str) -> None:
    """Print lines on the standard output."""
    for line in lines:
        print(printable(line, limit=sys.maxsize))


def warn(message: str) -> None:
    """Print a warning on the standard error, in one line."""
    complain(f"{_PROGRAM}: warning: {message}")


def complain(message: str) -> None:
    """Print a message on the standard error, in one line, or not where nobody can hear it."""
    with suppress(OSError):
        print(printable(" ".join(message.split()), limit=_MESSAGE), file=sys.stderr, flush=True)


def trace() -> None:
    """Print where in the program the exception that is being handled was raised."""
    with suppress(OSError):
        for line in traceback.format_exc().splitlines():
            print(printable(line, limit=_MESSAGE), file=sys.stderr)


def settle() -> None:
    """Flush what was printed; a stream that takes it no more is not tried again as Python ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _silence(stream)


def _silence(stream: TextIO) -> None:
    with suppress(OSError, ValueError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nothing, stream.fileno())
        finally:
            os.close(nothing)
