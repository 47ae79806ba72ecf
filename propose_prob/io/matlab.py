"""MATLAB files as arrays: version 5 through scipy, 7.3 (HDF5) through h5py."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .files import open_file
from .sandbox import read_matlab5, read_matlab73

__all__ = ["Cells", "read_mat"]

Cells = list[npt.NDArray[np.float64]]
"""The arrays in a MATLAB cell array's cells."""

_HDF5 = b"\x89HDF\r\n\x1a\n"


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
    with open_file(path, where=where) as file:
        head = file.read(520)
        hdf5 = head.startswith(_HDF5) or head[512:].startswith(_HDF5)
        if not hdf5 and not head.startswith(b"MATLAB 5.0"):
            got = "an empty file" if not head else "another kind of file"
            raise InputError(f"{path}: expected a MATLAB file (version 5 or 7.3), got {got}")
        package = "h5py" if hdf5 else "scipy"
        if find_spec(package) is None:
            raise InputError(
                f"{path}: reading it needs {package}, which is not installed: "
                "pip install 'propose_prob[datasets]'"
            )
        found = (read_matlab73 if hdf5 else read_matlab5)(file, path, keys)
    for key in keys:
        if key not in found:
            raise InputError(f"{path}: expected the variable {key}, got a file without it")
    return {key: _floats(value) for key, value in found.items()}


def _floats(
    value: npt.NDArray[Any] | list[npt.NDArray[Any]],
) -> npt.NDArray[np.float64] | Cells:
    if isinstance(value, list):
        return [cell.astype(np.float64) for cell in value]
    return value.astype(np.float64)
