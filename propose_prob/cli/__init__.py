"""The `propose-prob` command.

Nothing heavy is imported until a command runs, so that help and mistakes in options answer at once.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]

# All of these are there when Python has started. Whoever interrupts this program before `main` has
# taken over gets a traceback, so what comes before is as little as can be: no enum, no typing.
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        Exit code: 0, 2 for wrong input or options, 70 for a defect of this program, 130 when
        interrupted, 143 when terminated.

    Example:
        >>> main(["--version"])
        propose-prob ...
        0
    """
    _open_streams()
    # While there is nothing to clean up, an interruption ends the process at once: an exception
    # would surface in whichever module is being imported, as a traceback or as another error.
    early = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if early:
            signal.signal(signal.SIGINT, _end)
    except ValueError:
        # In another thread than the main one.
        early = False
    try:
        from .app import main as run

        return run(sys.argv[1:] if argv is None else list(argv))
    finally:
        if early:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)


def _open_streams() -> None:
    """Put nothing in the place of streams that the caller closed.

    The next file that is opened would get the stream's number otherwise, and with it what
    libraries print.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
