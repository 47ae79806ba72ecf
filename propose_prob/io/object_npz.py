"""`.npz` files of pickled arrays, read with the restricted unpickler."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, short
from .archives import check_archive, npy_header
from .files import open_file
from .unpickle import load_pickle

__all__ = ["read_object_npz"]


def read_object_npz(path: Path, keys: Sequence[str], *, where: str) -> dict[str, Any]:
    """Read the objects that `np.savez` stored as object arrays without dimensions.

    Such an array is a pickle behind a short header. It is read from within the archive
    by `load_pickle`, never by NumPy.

    Args:
        path: The archive.
        keys: What to read from it.
        where: Where the file can be had, for the message if it is missing.

    Returns:
        The objects by key: arrays, numbers, strings and containers of these.

    Raises:
        InputError: If the file is missing, is no archive, is damaged, lacks a key, stores another
            kind of array, or holds anything else than these.
    """
    try:
        with open_file(path, where=where) as file:
            check_archive(file, path)
            archive = zipfile.ZipFile(file)
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            for key in keys:
                if key not in names:
                    raise InputError(
                        f"{path}: expected the array {key}, got {short(', '.join(names)) or 'none'}"
                    )
            return {key: _read_member(path, archive, key) for key in keys}
    except InputError:
        raise
    # Besides BadZipFile, damaged archives raise zlib, header and decoding errors of many kinds.
    except Exception as error:
        reason = short(str(error).split("\n")[0] or type(error).__name__)
        raise InputError(f"{path}: expected a complete .npz archive: {reason}") from error


def _read_member(path: Path, archive: zipfile.ZipFile, key: str) -> Any:
    with archive.open(f"{key}.npy") as member:
        shape, dtype = npy_header(member)
        if shape != () or dtype != np.dtype(object):
            raise InputError(
                f"{path}: expected {key} to be one stored object, got {dtype} of shape {shape}"
            )
        stored = load_pickle(member, name=f"{path} ({key})")
    if not isinstance(stored, np.ndarray) or stored.shape != ():
        raise InputError(f"{path}: expected {key} to be one stored object, got another pickle")
    return stored[()]
