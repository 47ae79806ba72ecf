"""Guards against decompression bombs, and reading of `.npz` without pickles."""

from __future__ import annotations

import math
import os
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, short
from .files import open_file

__all__ = [
    "DAMAGE",
    "check_archive",
    "check_text",
    "map_npy",
    "most_unpacked",
    "npy_header",
    "plain_array",
    "quiet_numpy",
    "read_npz",
]

# All that NumPy and zipfile raise on archives whose bytes were cut or changed.
DAMAGE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

#: What any file may unpack to, and how much for each of its bytes where it is larger.
_SIZE, _RATIO = 2**27, 100

#: Members of an archive: each costs time before it is read.
_MEMBERS = 4096


def most_unpacked(stored: int) -> int:
    """How many bytes a file may unpack to, all of it together, before it only fills the memory.

    Numbers count as eight bytes each, which is what readers make of them.

    Args:
        stored: The size of the file.

    Example:
        >>> most_unpacked(10), most_unpacked(10_000_000)
        (134217728, 1000000000)
    """
    return max(_SIZE, _RATIO * stored)


def check_archive(file: IO[bytes], path: Path) -> None:
    """Check an `.npz` before anything in it is unpacked.

    Args:
        file: The archive, open for reading; it is read again from its start afterwards.
        path: Its name, for messages.

    Raises:
        InputError: If an array says that it is larger than its place in the archive, has entries
            without bytes, or the whole is packed so tightly that it can only be there to fill the
            memory.
        zipfile.BadZipFile: If it is no archive.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> np.savez(file, world=np.zeros((3, 17, 3)))
        >>> check_archive(file, Path("world.npz"))
    """
    stored = file.seek(0, os.SEEK_END)
    file.seek(0)
    most, total = most_unpacked(stored), 0
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MEMBERS:
            raise InputError(f"{path}: expected up to {_MEMBERS} arrays, got {len(members)}")
        for info in members:
            size, declared, entries = info.file_size, *_declared(archive, info, path)
            if declared > size:
                raise InputError(
                    f"{path}: {_short(info.filename)} says that it has {declared} bytes, but "
                    f"there are {size}"
                )
            total += max(size, 8 * entries)
            if total > most:
                raise InputError(
                    f"{path}: {_short(info.filename)} and what is before it would unpack from "
                    f"{stored} to {total} bytes; such a file is not read"
                )
    file.seek(0)


def check_text(path: Path, name: str, array: npt.NDArray[Any]) -> None:
    """Check that an array of text, if it is one, holds characters: NumPy takes any number for one.

    Raises:
        InputError: If a number in it is none.
    """
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        numbers = np.dtype("u4").newbyteorder(array.dtype.byteorder)
        if int(np.ascontiguousarray(array).reshape(-1).view(numbers).max()) > sys.maxunicode:
            raise InputError(f"{path}: expected text in {name}, got numbers that are no characters")


def read_npz(path: Path, keys: Sequence[str] | None = None) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of an `.npz`, without unpickling anything.

    Args:
        path: The archive.
        keys: Which arrays, as far as there are; all by default.

    Returns:
        The arrays by name.

    Raises:
        InputError: If the file is missing, is no archive, is damaged, holds pickled objects or
            other files than arrays, or would unpack to far more than it holds.
    """
    try:
        # A file opened here is closed here; np.load leaves that of a broken archive open.
        with open_file(path) as file:
            if file.read(6) == b"\x93NUMPY":
                raise InputError(f"{path}: expected an .npz of plain arrays, got a single array")
            check_archive(file, path)
            with quiet_numpy(), np.load(file, allow_pickle=False) as archive:
                names = [name for name in keys or archive.files if name in archive.files]
                arrays = {name: archive[name] for name in names}
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            f"{path}: expected a complete .npz of plain arrays, got another file ({_reason(error)})"
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path}: expected arrays, got another file, {name}")
        check_text(path, name, array)
    return arrays


@contextmanager
def quiet_numpy() -> Iterator[None]:
    """Read arrays that Python 2 wrote without a word of NumPy's that this takes longer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*required additional header parsing", UserWarning)
        yield


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array in NumPy's format; the file stands at its data afterwards.

    Raises:
        ValueError: If the header is not one of NumPy's, or no array can be as it says: sizes that
            are no whole numbers, entries without bytes, more bytes than can be counted.
    """
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    with quiet_numpy():
        shape, _, dtype = read(file)
    if not all(type(size) is int and 0 <= size < 2**63 for size in shape):
        raise ValueError("a shape that is not one of whole numbers")
    if dtype.itemsize == 0:
        # Billions of them would take no room in a file.
        raise ValueError(f"entries of {dtype} have no bytes")
    if math.prod(shape) * max(8, dtype.itemsize) >= 2**63:
        raise ValueError("a shape of more bytes than can be counted")
    return shape, dtype


def map_npy(path: Path) -> npt.NDArray[Any]:
    """Map an array in NumPy's format into memory: its header may announce more than there is.

    Raises:
        InputError: If the file is missing or is no complete array of plain numbers or text.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/a.npy", np.ones((2, 3)))
        ...     map_npy(Path(folder, "a.npy")).shape
        (2, 3)
    """
    try:
        with open_file(path) as file:
            shape, dtype = npy_header(file)
            if dtype.hasobject:
                raise ValueError("pickled objects, which are not read")
            # What has no entries cannot be mapped.
            if not math.prod(shape):
                return np.empty(shape, dtype)
            with quiet_numpy():
                return np.load(path, mmap_mode="r", allow_pickle=False)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(
            f"{path}: expected a complete .npy array of numbers: {_reason(error)}"
        ) from error


def plain_array(value: Any, where: str) -> npt.NDArray[Any]:
    """Make one array of nested lists and numbers.

    Raises:
        InputError: If the lists are ragged, too deep, or hold what no array does.

    Example:
        >>> plain_array([[1, 2], [3, 4]], "weights").shape
        (2, 2)
    """
    try:
        return np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise InputError(f"expected one array in {where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return short(" ".join(str(error).split()) or type(error).__name__)


def _short(name: str) -> str:
    return short(name, 80)


def _declared(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> tuple[int, int]:
    """How many bytes and entries an array's header announces; 0 where it has no such header."""
    with archive.open(info) as member:
        try:
            shape, dtype = npy_header(member)
        except (ValueError, SyntaxError, TypeError, EOFError, RecursionError, zlib.error) as error:
            if not info.filename.endswith(".npy"):
                return 0, 0
            raise InputError(
                f"{path}: expected a complete .npz of plain arrays, got {_short(info.filename)} "
                f"with another header ({_reason(error)})"
            ) from error
    entries = math.prod(shape)
    return (0, 0) if dtype.hasobject else (entries * dtype.itemsize, entries)
