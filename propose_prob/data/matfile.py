"""MATLAB files of either kind as plain arrays: version 5 through scipy, 7.3 (HDF5) through h5py."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .._apart import check_matlab5, check_matlab73
from .._archives import check_unpacked
from ..errors import InputError

__all__ = ["Cells", "read_mat"]

Cells = list[npt.NDArray[np.float64]]
"""The arrays in a MATLAB cell array's cells."""

_HDF5 = b"\x89HDF\r\n\x1a\n"

#: Of a version 5 file: its header's length, the tag of compressed data, and zlib's best ratio.
_HEADER, _COMPRESSED, _BEST = 128, 15, 1032


def read_mat(
    path: Path, keys: Sequence[str], *, where: str
) -> dict[str, npt.NDArray[np.float64] | Cells]:
    """Read some variables of a MATLAB file.

    Args:
        path: The file.
        keys: The variables to read; others are not touched.
        where: Where the file can be had, for the message if it is missing.

    Returns:
        For each key an array of MATLAB's shape (its first axis first, whichever kind of file it
        is), or a list of arrays for a cell array, in MATLAB's order.

    Raises:
        InputError: If the file is missing, is no MATLAB file, is damaged or lacks a variable, or if
            the package that reads it is not installed.
    """
    try:
        with path.open("rb") as file:
            head = file.read(520)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be read: {reason}; {where}") from error
    hdf5 = head.startswith(_HDF5) or head[512:].startswith(_HDF5)
    if not hdf5 and not head.startswith(b"MATLAB 5.0"):
        got = "an empty file" if not head else "another kind of file"
        raise InputError(f"{path}: expected a MATLAB file (version 5 or 7.3), got {got}")
    read = _read_hdf5 if hdf5 else _read_version5
    try:
        found = read(path, keys)
    except ImportError as error:
        raise InputError(
            f"{path}: reading it needs {error.name}, which is not installed: "
            "pip install 'propose_prob[datasets]'"
        ) from error
    except InputError:
        raise
    except Exception as error:
        # Neither package says what it raises on damaged files; h5py alone has six kinds.
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: expected a complete MATLAB file: {reason}") from error
    for key in keys:
        if key not in found:
            raise InputError(f"{path}: expected the variable {key}, got a file without it")
    return found


def _floats(path: Path, key: str, value: Any) -> npt.NDArray[np.float64]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path}: expected numbers in {key}, got {array.dtype}")
    return array.astype(np.float64)


def _read_version5(path: Path, keys: Sequence[str]) -> dict[str, npt.NDArray[np.float64] | Cells]:
    from scipy.io import loadmat

    _check_version5(path)
    check_matlab5(path, keys)
    found: dict[str, npt.NDArray[np.float64] | Cells] = {}
    for key, value in loadmat(path, variable_names=list(keys)).items():
        if key in keys:
            if value.dtype == object:
                cells = value.ravel(order="F")
                found[key] = [_floats(path, key, cell) for cell in cells]
            else:
                found[key] = _floats(path, key, value)
    return found


def _check_version5(path: Path) -> None:
    """Unpack what is packed, a piece at a time, to see how much it is."""
    with path.open("rb") as file:
        order: Literal["little", "big"] = "little" if file.read(_HEADER)[126:] == b"IM" else "big"
        while len(tag := file.read(8)) == 8:
            kind, length = (int.from_bytes(part, order) for part in (tag[:4], tag[4:]))
            if kind != _COMPRESSED or length * _BEST <= 2**28:
                file.seek(length, 1)
                continue
            end, size, unpack = file.tell() + length, 0, zlib.decompressobj()
            while (left := end - file.tell()) > 0 and (piece := file.read(min(left, 2**16))):
                size += len(unpack.decompress(piece))
                check_unpacked(path, "a variable", size, length)


def _read_hdf5(path: Path, keys: Sequence[str]) -> dict[str, npt.NDArray[np.float64] | Cells]:
    import h5py

    check_matlab73(path, keys)
    found: dict[str, npt.NDArray[np.float64] | Cells] = {}
    with h5py.File(path, "r") as file:
        size, stored = 0, path.stat().st_size

        def numbers(key: str, variable: Any) -> npt.NDArray[np.float64]:
            nonlocal size
            if not isinstance(variable, h5py.Dataset) or variable.dtype.kind not in "fiub":
                raise InputError(f"{path}: expected numbers in {key}, got something else")
            # Together: a cell array may name one large array over and over.
            size += math.prod(variable.shape or ()) * 8
            check_unpacked(path, key, size, stored)
            return _floats(path, key, variable[()]).T

        for key in keys:
            if key not in file:
                continue
            variable = file[key]
            if not isinstance(variable, h5py.Dataset):
                raise InputError(f"{path}: expected numbers in {key}, got a struct")
            if variable.dtype == h5py.ref_dtype:
                # HDF5 has MATLAB's axes in reverse.
                found[key] = [numbers(key, file[cell]) for cell in variable[()].ravel()]
            else:
                found[key] = numbers(key, variable)
    return found
