"""Options, commands, and what a user sees when something is wrong."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any, Protocol

import tyro

from .. import __version__
from ..errors import InputError
from ..io.atomic import discard
from .demo import Demo
from .evaluate import Evaluate
from .fit import Fit
from .fuse import Fuse
from .lift import Lift
from .output import complain, printable, settle, tell, trace
from .photo import Photo
from .render import Render
from .report import WriteReport
from .smooth import Smooth
from .view import View

__all__ = ["main"]

_PROGRAM = "propose-prob"
_DESCRIPTION = (
    "Distributions over 3D human poses given 2D keypoints. Wrong input ends with one line on the "
    "standard "
    "error and exit code 2. `propose-prob --version` prints the version. With --debug, any command "
    "also shows where in the program an error was found; a defect ends with exit code 70."
)
_DEBUG = "--debug"
#: Exit code of what no one's input should lead to.
_DEFECT = 70


#: What torch says where memory ends.
_NO_MEMORY = ("can't allocate memory", "out of memory", "Storage size calculation overflowed")


class _Command(Protocol):
    def run(self) -> None: ...


@dataclass
class _Train:
    """Train a model on motion capture."""


def main(args: Sequence[str]) -> int:
    """Run a command; see `propose_prob.cli.main`."""
    debug = _DEBUG in args
    args = [arg for arg in args if arg != _DEBUG]
    try:
        return _run(args)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of a pipe has gone.
        return 1
    except Exception as error:
        if debug:
            trace()
        code, message = _explained(error)
        complain(f"{_PROGRAM}: error: {message}")
        return code
    finally:
        settle()


def _run(args: list[str]) -> int:
    if any("\0" in arg for arg in args):
        raise InputError("expected arguments without NUL bytes")
    # Names of files may have bytes that are no text.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with _signals(), warnings.catch_warnings():
        # Of overflow and the like; what comes of it is checked, and refused in a line. Whoever
        # asks Python for warnings has asked first.
        warnings.filterwarnings("ignore", category=RuntimeWarning, append=True)
        if args == ["--version"]:
            tell(f"{_PROGRAM} {__version__}")
        else:
            command = _parse(args)
            _check_whole_numbers(command)
            command.run()
        try:
            sys.stdout.flush()
        except OSError as error:
            error.filename = error.filename or "standard output"
            raise
    return 0


def _explained(error: Exception) -> tuple[int, str]:
    """The exit code and the message of what ended a command."""
    if isinstance(error, InputError):
        return 2, str(error)
    if isinstance(error, MemoryError):
        return 2, f"not enough memory: {error}"
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{error.filename}: "
        return 2, f"{where}{error.strerror or error}"
    reason = (str(error).splitlines() or [""])[0]
    # torch has no class of errors for the memory of the CPU.
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY):
        return 2, f"not enough memory: {reason}"
    kind = type(error).__name__
    return _DEFECT, (
        f"unexpected {kind}{': ' * bool(reason)}{printable(reason, 200)} (a defect of this "
        f"program: please report it, with what the same command prints with {_DEBUG})"
    )


@contextmanager
def _signals() -> Iterator[None]:
    """Let requests to end unwind, so that temporary files go."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:
            raise SystemExit(128 + number)
        # An exception within an import may come out as another one, or be lost.
        if _importing(frame):
            discard()
            os._exit(128 + number)
        raise KeyboardInterrupt

    before = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # What the caller has the process ignore stays ignored.
        if number is not None and signal.getsignal(number) not in (None, signal.SIG_IGN):
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _fail(message: str) -> None:
    complain(f"{_PROGRAM}: error: {message}")


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
        from .train import (
            TrainDiffusion,
            TrainImage,
            TrainLifting,
            TrainMixture,
            TrainProHMR,
            TrainProPose,
            TrainRegression,
            TrainVariational,
        )

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
    for line in messages.getvalue().splitlines():
        complain(line)
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
