"""Options, commands, and what a user sees when something is wrong."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any, Protocol

import tyro

from ..errors import InputError
from .demo import Demo
from .evaluate import Evaluate
from .fit import Fit
from .fuse import Fuse
from .lift import Lift
from .options import package_version
from .photo import Photo
from .render import Render
from .report import WriteReport
from .smooth import Smooth
from .view import View

__all__ = ["main"]

_PROGRAM = "propose-prob"
_DESCRIPTION = (
    "Laws over 3D human poses given 2D keypoints. Wrong input ends with one line on the standard "
    "error and exit code 2. `propose-prob --version` prints the version."
)


#: What torch says where memory ends.
_NO_MEMORY = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")


class _Command(Protocol):
    def run(self) -> None: ...


@dataclass
class _Train:
    """Train a model on motion capture."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        Exit code: 0, 2 for wrong input or options, 130 when interrupted, 143 when terminated.

    Example:
        >>> main(["--version"])
        propose-prob ...
        0
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if args == ["--version"]:
        print(_PROGRAM, package_version())
        return 0
    try:
        if any("\0" in arg for arg in args):
            raise InputError("expected arguments without NUL bytes")
        # Names of files may have bytes that are no text.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        with _termination():
            command = _parse(args)
            _check_whole_numbers(command)
            command.run()
        sys.stdout.flush()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe has gone; a second flush at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except InputError as error:
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"not enough memory: {error}")
    except RuntimeError as error:
        # torch has no class of errors for the memory of the CPU.
        if not any(words in str(error) for words in _NO_MEMORY):
            raise
        return _fail(f"not enough memory: {str(error).splitlines()[0]}")
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return _fail(f"{where}{error.strerror or error}")
    return 0


@contextmanager
def _termination() -> Iterator[None]:
    """Let a request to terminate unwind, so that temporary files go."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _fail(message: str) -> int:
    print(f"{_PROGRAM}: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _parse(args: list[str]) -> _Command:
    commands: dict[str, Any] = {
        "demo": Demo,
        "lift": Lift,
        "fit": Fit,
        "fuse": Fuse,
        "smooth": Smooth,
        "view": View,
        "evaluate": Evaluate,
        "report": WriteReport,
        "render": Render,
        "photo": Photo,
    }
    name = args[0] if args else ""
    program = f"{_PROGRAM} {name}"
    if name in commands:
        return _in_one_line(lambda: tyro.cli(commands[name], prog=program, args=args[1:]), program)
    if name == "train":
        from ..training.run import (
            TrainDiffusion,
            TrainLifting,
            TrainMixture,
            TrainProHMR,
            TrainProPose,
            TrainRegression,
            TrainVariational,
        )
        from ..training.run_image import TrainImage

        models: dict[str, Any] = {
            "propose": TrainProPose,
            "lifting": TrainLifting,
            "prohmr": TrainProHMR,
            "image": TrainImage,
            "regression": TrainRegression,
            "mixture": TrainMixture,
            "cvae": TrainVariational,
            "diffusion": TrainDiffusion,
        }
        return _in_one_line(
            lambda: tyro.extras.subcommand_cli_from_dict(models, prog=program, args=args[1:]),
            program,
        )
    if not name.startswith("-"):
        raise InputError(
            f"expected a command ({', '.join([*commands, 'train'])}), "
            f"got {repr(name) if name else 'none'} (see {_PROGRAM} --help)"
        )
    # Help: only names and first lines matter.
    listed = {name: _first_line(kind) for name, kind in (commands | {"train": _Train}).items()}
    return _in_one_line(
        lambda: tyro.cli(
            Annotated[Demo, tyro.conf.subcommand("demo", description=listed["demo"])]
            | Annotated[Lift, tyro.conf.subcommand("lift", description=listed["lift"])]
            | Annotated[Fit, tyro.conf.subcommand("fit", description=listed["fit"])]
            | Annotated[Fuse, tyro.conf.subcommand("fuse", description=listed["fuse"])]
            | Annotated[Smooth, tyro.conf.subcommand("smooth", description=listed["smooth"])]
            | Annotated[View, tyro.conf.subcommand("view", description=listed["view"])]
            | Annotated[Evaluate, tyro.conf.subcommand("evaluate", description=listed["evaluate"])]
            | Annotated[WriteReport, tyro.conf.subcommand("report", description=listed["report"])]
            | Annotated[Render, tyro.conf.subcommand("render", description=listed["render"])]
            | Annotated[Photo, tyro.conf.subcommand("photo", description=listed["photo"])]
            | Annotated[_Train, tyro.conf.subcommand("train", description=listed["train"])],
            prog=_PROGRAM,
            description=_DESCRIPTION,
            args=args,
        ),
        _PROGRAM,
    )


def _check_whole_numbers(command: Any) -> None:
    """Refuse numbers that no counter of torch holds, before work is done."""
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if dataclasses.is_dataclass(value):
            _check_whole_numbers(value)
        elif isinstance(value, int) and abs(value) >= 2**62:
            option = field.name.replace("_", "-")
            raise InputError(f"expected --{option} below 2^62, got {value:.3g}")


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").splitlines()[0]


def _in_one_line(parse: Callable[[], Any], program: str) -> Any:
    """Parse, and report wrong options in one line instead of a box over several."""
    messages = io.StringIO()
    try:
        with redirect_stderr(messages):
            parsed = parse()
    except SystemExit as stop:
        if stop.code != 2:
            raise
        _fail(f"{_unboxed(messages.getvalue())} (see {program} --help)")
        raise
    print(messages.getvalue(), end="", file=sys.stderr)
    return parsed


def _unboxed(text: str) -> str:
    """The message inside a box drawn with lines, up to its first rule."""
    words = []
    for line in text.splitlines():
        inner = line.strip().strip("│").strip()
        if inner.startswith("╭"):
            continue
        if inner.startswith(("─", "╰")):
            break
        words.append(inner)
    # Behind "Got errors" follows how every possible type failed.
    return " ".join(words).partition(" Got errors:")[0] or text.strip()
