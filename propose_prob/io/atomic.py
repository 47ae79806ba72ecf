"""Atomic writing: files appear whole or not at all, and never through a link.

A file is written under a name that nobody can guess, beside its place, in a file that did not exist
before; it is flushed to the disk and then takes its place in one step. Until then the file of that
name, if there is one, stays as it is, and after an error nothing of the new one is left.

What may be written to: a regular file, or a name that is free. A symbolic link to such a file, or
to nothing, is itself replaced, and what it points at stays as it is: a link that someone else put
there cannot direct a write to another place. Folders, pipes, devices and sockets, and links to
them, are refused, and so is everything in `/dev`.
"""

from __future__ import annotations

import errno
import glob
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError

__all__ = [
    "atomic_file",
    "atomic_path",
    "check_output",
    "check_outputs",
    "discard",
    "locked",
    "remove_leftovers",
    "scratch_folder",
    "write_bytes",
    "write_text",
]

#: The disk is full, the user's share of it is used up, or a file may not become so large.
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
#: Temporary files and folders of this process that exist at this moment.
_LIVE: set[Path] = set()
#: Endings of results: a folder of keypoints may hold them, and none of them is read from there.
_RESULTS = (".nc", ".npz", ".bvh", ".glb", ".ply", ".html", ".htm")
#: Of the name of a file, what the name of its temporary one repeats, bytes: names end at 255.
_NAME = 120


@contextmanager
def atomic_file(path: str | Path) -> Iterator[BinaryIO]:
    """A new binary file, open for writing and reading, that takes the place of `path` at the end.

    Args:
        path: File to write, replaced if it exists.

    Yields:
        The open file.

    Raises:
        InputError: As of `check_output`.
        OSError: If it cannot be written, on a full disk for instance; an older file stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_file(Path(folder, "result.bin")) as file:
        ...         _ = file.write(b"whole")
        ...     Path(folder, "result.bin").read_bytes()
        b'whole'
    """
    path = Path(path)
    check_output(path)
    temporary = _beside(path)
    _LIVE.add(temporary)
    try:
        with os.fdopen(_create_locked(temporary), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        # A failed write of an open file does not say of which.
        if error.filename is None and error.errno in _FULL:
            error.filename = str(path)
        raise
    finally:
        _remove(temporary)
    _sync_folder(path.parent)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """As `atomic_file`, for writers that take a path: that of an empty file that is there already.

    Args:
        path: File to write, replaced if it exists.

    Yields:
        Where to write.

    Raises:
        InputError: As of `check_output`.
        OSError: As of `atomic_file`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with atomic_path(Path(folder, "result.txt")) as temporary:
        ...         _ = temporary.write_text("whole")
        ...     Path(folder, "result.txt").read_text()
        'whole'
    """
    path = Path(path)
    check_output(path)
    temporary = _beside(path)
    _LIVE.add(temporary)
    try:
        made = _create(temporary)
        mode = stat.S_IMODE(os.fstat(made).st_mode)
        os.close(made)
        yield temporary
        written = os.open(temporary, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            # Some writers put a file of their own in the place, readable by its user only.
            if stat.S_IMODE(os.fstat(written).st_mode) != mode:
                os.chmod(temporary, mode)
            os.fsync(written)
        finally:
            os.close(written)
        os.replace(temporary, path)
    finally:
        _remove(temporary)
    _sync_folder(path.parent)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all; see `atomic_file`.

    Raises:
        InputError: As of `check_output`.
        OSError: As of `atomic_file`.
    """
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8, lines ended as they are, whole or not at all.

    Raises:
        InputError: As of `check_output`.
        OSError: As of `atomic_file`.
    """
    write_bytes(path, text.encode("utf-8"))


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """A new folder beside `path`, for its user alone, that is gone at the end.

    Args:
        path: The file that is made with its help.

    Yields:
        The folder.

    Raises:
        InputError: As of `check_output`.
    """
    path = Path(path)
    check_output(path)
    folder = _beside(path)
    _LIVE.add(folder)
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        _remove(folder)


def check_output(path: Path) -> None:
    """Check, before any work, that a file of this name could be written.

    Raises:
        InputError: If it is a folder, a pipe, a device or a socket, or a link to one, or its folder
            does not exist or cannot be written to.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        # Free, or a link to nothing; what else is wrong with it, its folder says.
        mode = stat.S_IFREG
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: expected the name of a file to write ({reason})") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: expected the name of a file to write, got a folder")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    # A link in /dev may lead to a file: the standard output, where that is one.
    if not stat.S_ISREG(mode) or path.parent.resolve() == Path("/dev"):
        raise InputError(
            f"{path}: expected the name of a file to write, got a pipe, a device or a socket"
        )
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: the folder {path.parent} cannot be written to")


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path | str | None]) -> None:
    """Check, before any work, that files can be written and that none of them is read.

    Args:
        outputs: Files that the command writes.
        inputs: Files and folders that it reads; names of shipped models and None are passed over.

    Raises:
        InputError: If an output cannot be written, comes twice, is an input by whatever name or
            link, or would replace a file of a folder that is an input.
    """
    read = [Path(path) for path in inputs if path is not None and Path(path).exists()]
    seen: set[Path] = set()
    for out in outputs:
        check_output(out)
        place = out.resolve()
        if place in seen:
            raise InputError(f"{out}: expected different outputs, got this one twice")
        seen.add(place)
        if not out.exists():
            continue
        for path in read:
            inside = path.is_dir() and out.suffix not in _RESULTS
            if out.samefile(path) or (inside and place.is_relative_to(path.resolve())):
                raise InputError(f"{out}: the output would replace an input")


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of writing `path` with `atomic_file`.

    The file that another process is writing at this moment stays. So do all of them where the
    system has no locks, which tell the ones from the others.
    """
    for torn in path.parent.glob(f".{glob.escape(_shown(path))}.*"):
        with suppress(OSError):
            flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            handle = os.open(torn, os.O_RDONLY | flags)
            try:
                if stat.S_ISREG(os.fstat(handle).st_mode) and _lock(handle, wait=False):
                    _remove(torn)
            finally:
                os.close(handle)


@contextmanager
def locked(folder: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes that ask for the same lock out of a folder, where the system can.

    The lock ends with the process, however that ends, and leaves no file.

    Args:
        folder: The folder.
        what: What goes on in it, for the message.
        wait: Wait for another process that holds the lock, instead of raising.

    Raises:
        InputError: If another process holds the lock.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder), "a training"):
        ...     with locked(Path(folder), "a training"):
        ...         pass
        Traceback (most recent call last):
        propose_prob.errors.InputError: ...: a training is going on in this folder ...
    """
    if sys.platform == "win32":
        # Its folders cannot be opened.
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if _lock(handle, wait=wait) is False:
            raise InputError(
                f"{folder}: {what} is going on in this folder already: wait for it to end, or "
                "choose another folder"
            )
        yield
    finally:
        os.close(handle)


def discard() -> None:
    """Remove all temporary files and folders of this process, which is about to end at once."""
    for path in tuple(_LIVE):
        _remove(path)


def _beside(path: Path) -> Path:
    return path.with_name(f".{_shown(path)}.{secrets.token_hex(8)}")


def _shown(path: Path) -> str:
    """What the names of a file's temporary ones begin with, behind a dot."""
    return os.fsencode(path.name)[:_NAME].decode("ascii", "replace").replace("\ufffd", "_")


def _create(path: Path) -> int:
    """Create a file that is not there, with the permissions that the user's umask gives."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    return os.open(path, flags, 0o666)


def _create_locked(path: Path) -> int:
    """Create a file as `_create` does, with a lock that tells others that it is being written."""
    while True:
        handle = _create(path)
        try:
            _lock(handle, wait=True)
            # Before there was a lock, another process may have taken it for a leftover.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.lstat(path)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _lock(handle: int, *, wait: bool) -> bool | None:
    """Whether an open file or folder is locked now; None where the system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        # Some network file systems lock nothing.
        return None
    return True


def _remove(path: Path) -> None:
    """Remove a temporary file or folder; that it cannot be removed hides no other error."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    _LIVE.discard(path)


def _sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    if sys.platform == "win32":
        return
    # The file is whole and in its place, whether or not the folder can be flushed or even read.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
