"""Command dispatch, options and error reporting of `propose-prob`."""

from __future__ import annotations

import dataclasses
import functools
import io
import operator
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType, MappingProxyType
from typing import Annotated, Any, Protocol

import tyro

from .. import __version__
from ..errors import InputError, is_numerical
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


_COMMANDS: Mapping[str, type[_Command]] = MappingProxyType(
    {
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
)
_TRAIN = "Train a model on motion capture."


@dataclass
class _Choice:
    """What help lists; it is not made."""


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
    # The latter of a training whose loss is no longer finite.
    if isinstance(error, (InputError, FloatingPointError)):
        return 2, str(error)
    if is_numerical(error):
        return 2, (
            "what the model computes is no distribution: are its weights, and the numbers that it "
            "is given, plausible?"
        )
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


def _parse(args: list[str]) -> _Command:
    name = args[0] if args else ""
    if name in _COMMANDS:
        return _read(_COMMANDS[name], [name], args[1:])
    if name == "train":
        return _parse_training(args[1:])
    listed = {name: _first_line(kind) for name, kind in _COMMANDS.items()} | {"train": _TRAIN}
    raise _help_or_error(listed, "command", [], args, description=_DESCRIPTION)


def _parse_training(args: list[str]) -> _Command:
    # Needs torch, which takes seconds to import.
    from ..models.registry import REGISTRY

    name = args[0] if args else ""
    if name in REGISTRY:
        from .train import train_command

        return _read(train_command(name), ["train", name], args[1:])
    listed = {name: entry.summary for name, entry in REGISTRY.items()}
    raise _help_or_error(listed, "model", ["train"], args)


def _help_or_error(
    listed: Mapping[str, str],
    noun: str,
    path: Sequence[str],
    args: list[str],
    description: str | None = None,
) -> InputError:
    """Print help on a choice, which exits, or say what is wrong with what was chosen.

    Args:
        listed: First lines of help by name.
        noun: What one of them is.
        path: Words before it.
        args: Words from it on.
        description: Of the choice.
    """
    if args and args[0].startswith("-"):
        choices = (
            Annotated[_Choice, tyro.conf.subcommand(name, description=line)]
            for name, line in listed.items()
        )
        _read(functools.reduce(operator.or_, choices), path, args[:1], description=description)
    got = repr(args[0]) if args else "none"
    program = " ".join([_PROGRAM, *path])
    return InputError(f"expected a {noun} ({', '.join(listed)}), got {got} (see {program} --help)")


def _read(
    kind: Any, path: Sequence[str], args: list[str], *, description: str | None = None
) -> Any:
    """An object of a type from the options behind the words of `path`.

    Raises:
        InputError: If they do not fit.
    """
    program = " ".join([_PROGRAM, *path])

    def refuse(event: Any) -> None:
        raise InputError(f"{_refusal(event)} (see {program} --help)")

    # Not promised to stay by tyro, which without it draws its messages itself, over several lines.
    hook = getattr(getattr(tyro, "_errors", None), "on_parse_error", None)
    with nullcontext() if hook is None else hook(refuse):
        return tyro.cli(kind, prog=program, description=description, args=args)


def _refusal(event: Any) -> str:
    """What is wrong with options, in words, from tyro's description of it."""
    kind = type(event).__name__
    if kind == "UnrecognizedArgs":
        return f"unrecognized options: {' '.join(event.tokens)}"
    if kind == "MissingArgs":
        missing = ", ".join(_option(each.arg) for each in event.missing_arguments)
        unknown = " ".join(event.unrecognized_tokens)
        return (
            f"expected {missing}, got {f'unrecognized options: {unknown}' if unknown else 'none'}"
        )
    if kind == "MissingSubcommand":
        return f"expected one of {', '.join(event.subcommand_spec.parser_from_name)}, got none"
    if kind == "InvalidChoice":
        choices = ", ".join(map(repr, event.choices))
        return f"expected {_option(event.argument)} of {choices}, got {event.value!r}"
    if kind == "BadValue":
        count = event.argument.lowered.nargs
        values = "a value" if count == 1 else f"{count} values"
        return f"expected {values} after {_option(event.argument)}"
    if kind == "InstantiationFailure":
        where = "" if event.argument is None else f"{_option(event.argument)}: "
        # Behind "Got errors" follows how every possible type failed.
        return where + event.message.partition("Got errors:")[0].strip()
    return f"these options do not go together ({kind})"


def _option(argument: Any) -> str:
    """An option as a user types it."""
    return argument.lowered.metavar if argument.is_positional() else argument.display_name()


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
