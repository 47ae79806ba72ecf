"""Archives that would unpack to far more than they hold."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import InputError

__all__ = ["check_archive"]

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
            if size > _SIZE and size > _RATIO * max(1, info.compress_size):
                raise InputError(
                    f"{path}: {info.filename} would unpack from {info.compress_size} to {size} "
                    "bytes; such an archive is not read"
                )
            declared = _declared(archive, info)
            if declared > size:
                raise InputError(
                    f"{path}: {info.filename} says that it has {declared} bytes, but there are "
                    f"{size}"
                )
    file.seek(0)


def _declared(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """How many bytes of numbers an array's header announces; 0 where it has no such header."""
    with archive.open(info) as member:
        try:
            version = np.lib.format.read_magic(member)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(member)
        # A broken header is for the reader to report: text that is no literal, bytes that are no
        # text, data that break off or do not unpack.
        except (ValueError, SyntaxError, TypeError, EOFError, zlib.error, zipfile.BadZipFile):
            return 0
    return 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize
