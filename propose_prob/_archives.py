"""Archives that would unpack to far more than they hold."""

from __future__ import annotations

import math
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .errors import InputError

__all__ = [
    "DAMAGE",
    "check_archive",
    "check_text",
    "check_torch",
    "check_unpacked",
    "npy_header",
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

#: Arrays up to this size are taken as they are; larger ones must not be packed more tightly.
_SIZE, _RATIO = 2**28, 200


def check_archive(file: IO[bytes], path: Path) -> None:
    """Check an `.npz` before anything in it is unpacked.

    Args:
        file: The archive, open for reading; it is read again from its start afterwards.
        path: Its name, for messages.

    Raises:
        InputError: If an array says that it is larger than its place in the archive, or is large
            and packed so tightly that it can only be there to fill the memory.
        zipfile.BadZipFile: If it is no archive.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> np.savez(file, world=np.zeros((3, 17, 3)))
        >>> check_archive(file, Path("world.npz"))
    """
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            size = info.file_size
            check_unpacked(path, info.filename, size, info.compress_size)
            declared = _declared(archive, info)
            if declared > size:
                raise InputError(
                    f"{path}: {info.filename} says that it has {declared} bytes, but there are "
                    f"{size}"
                )
    file.seek(0)


def check_torch(path: Path) -> None:
    """Check a file of `torch.save` before torch unpacks it; older ones are no archives.

    Raises:
        InputError: As `check_archive` does.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            check_archive(file, path)


def check_text(path: Path, name: str, array: npt.NDArray[Any]) -> None:
    """Check that an array of text, if it is one, holds characters: NumPy takes any number for one.

    Raises:
        InputError: If a number in it is none.
    """
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        numbers = np.dtype("u4").newbyteorder(array.dtype.byteorder)
        if int(np.ascontiguousarray(array).reshape(-1).view(numbers).max()) > sys.maxunicode:
            raise InputError(f"{path}: expected text in {name}, got numbers that are no characters")


def check_unpacked(path: Path, name: str, size: int, stored: int) -> None:
    """Check how much a part of a file unpacks to.

    Raises:
        InputError: If it is large and packed so tightly that it can only be there to fill the
            memory.
    """
    if size > _SIZE and size > _RATIO * max(1, stored):
        raise InputError(
            f"{path}: {name} would unpack from {stored} to {size} bytes; such a file is not read"
        )


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
        with path.open("rb") as file:
            if file.read(6) == b"\x93NUMPY":
                raise InputError(f"expected an .npz of plain arrays in {path}, got a single array")
            check_archive(file, path)
            with np.load(file, allow_pickle=False) as archive:
                names = [name for name in keys or archive.files if name in archive.files]
                arrays = {name: archive[name] for name in names}
    except InputError:
        raise
    except DAMAGE as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"expected an .npz of plain arrays in {path}, got something else ({reason})"
        ) from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path}: expected arrays, got another file, {name}")
        check_text(path, name, array)
    return arrays


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array in NumPy's format; the file stands at its data afterwards.

    Raises:
        ValueError: If the header is not one of NumPy's.
    """
    version = np.lib.format.read_magic(file)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read(file)
    return shape, dtype


def _declared(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """How many bytes of numbers an array's header announces; 0 where it has no such header."""
    with archive.open(info) as member:
        try:
            shape, dtype = npy_header(member)
        # A broken header is for the reader to report: text that is no literal, bytes that are no
        # text, data that break off or do not unpack.
        except (ValueError, SyntaxError, TypeError, EOFError, zlib.error, zipfile.BadZipFile):
            return 0
    return 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize
