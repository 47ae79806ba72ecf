"""Bounded opening and reading of files that a user names."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import IO, Any

from ..errors import InputError, short

__all__ = ["check_name", "open_file", "read_json", "read_text"]

#: Characters of a name of a frame, a person or a joint.
_NAME = 1000

#: Bytes of a text file, which is read whole; JSON takes ten times as much in memory.
_LONGEST = 2**29

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def open_file(path: Path, *, where: str = "") -> IO[bytes]:
    """Open a regular file for reading.

    Args:
        path: The file.
        where: Where it can be had, for the message if it cannot be read.

    Raises:
        InputError: If it is missing, may not be read, or is a folder, pipe, device or socket:
            these would be waited for, or have no end.

    Example:
        >>> with open_file(Path(__file__)) as file:
        ...     file.read(3)
        b'...'
    """
    try:
        # Opening a pipe would wait for its other end.
        handle = os.open(
            path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
    except OSError as error:
        reason = "; ".join(filter(None, (error.strerror or str(error), where)))
        raise InputError(f"{path}: cannot be read: {reason}") from error
    except ValueError as error:
        raise InputError(f"expected the name of a file, got {short(repr(str(path)))}") from error
    try:
        mode = os.fstat(handle).st_mode
        for is_kind, name in _KINDS:
            if is_kind(mode):
                raise InputError(f"{path}: expected a file, got {name}")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_text(path: Path, expected: str, *, most: int = _LONGEST) -> str:
    """Read a text file in UTF-8, with or without a mark at its start.

    Args:
        path: The file.
        expected: What it should be, for messages.
        most: Bytes that such a file may have.

    Raises:
        InputError: As of `open_file`, or if it is no text or too long to be read whole.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.txt").write_text("hip")
        ...     read_text(Path(folder, "a.txt"), "names")
        'hip'
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise InputError(f"{path}: expected {expected} of up to {most} bytes, got {size}")
        try:
            if b"\0" in (head := file.read(2**16)):
                raise InputError(f"{path}: expected {expected}, got NUL bytes")
            return (head + file.read(size)).decode("utf-8-sig")
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: expected {expected}, got byte {error.start} of another kind of file"
            ) from error


def read_json(path: Path, expected: str = "JSON", *, most: int = _LONGEST) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        expected: What it should be, for messages.
        most: Bytes that such a file may have.

    Raises:
        InputError: As of `read_text`, or if it is no JSON, is nested too deeply, or has integers
            of thousands of digits.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a.json").write_text("[1, 2]")
        ...     read_json(Path(folder, "a.json"))
        [1, 2]
    """
    try:
        return json.loads(read_text(path, expected, most=most))
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected {expected} ({short(str(error))})") from None


def check_name(path: Path, what: str, name: int | str) -> None:
    """Check that a name of a frame, a person or a joint can be stored and shown.

    Raises:
        InputError: If it is an integer beyond 64 bits, is very long, or has a NUL character, which
            ends a text in files, or half of a surrogate pair, which is no character.

    Example:
        >>> check_name(Path("a.json"), "frame", "00001")
    """
    if isinstance(name, int):
        if not -(2**63) <= name < 2**63:
            raise InputError(f"{path}: expected a {what} number of 64 bits, got a longer one")
    elif len(name) > _NAME:
        raise InputError(
            f"{path}: expected a {what} name of up to {_NAME} characters, got a longer one"
        )
    elif "\0" in name:
        raise InputError(f"{path}: expected a {what} name without NUL characters, got one with")
    else:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{path}: expected a {what} name in Unicode, got half a surrogate pair"
            ) from None
