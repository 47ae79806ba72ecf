"""Read untrusted HDF5 and MATLAB files in an isolated subprocess.

HDF5 2.0 loops over some damaged files without end and takes more memory all the time, inside one
call that nothing in the same process can interrupt (a miniature of 11 kB with a few bytes changed
took 8 GB in 80 s), and scipy 1.17 ends the process over some damaged MATLAB files. HDF5 files may
also name other files, whose bytes would then be taken for theirs. So these libraries never see a
file in this process: `sandbox_child.py` reads it in Python's isolated mode, with limits on time and
memory, and hands over plain arrays. It gets the open file and no name: what it checked is what it
read.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .archives import DAMAGE, check_archive, most_unpacked

__all__ = ["read_matlab5", "read_matlab73", "read_netcdf"]

Array = npt.NDArray[Any]

#: Run by its path: an isolated interpreter does not find this package.
_PROGRAM = Path(__file__).with_name("sandbox_child.py")

#: The least time and memory that reading may take, and what it may for each byte of the file.
_SECONDS, _MEMORY = 20.0, 2**29
_SECONDS_PER_BYTE = 1e-6


def read_netcdf(file: IO[bytes], path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read the variables of a NetCDF file and its groups, and its attributes.

    Args:
        file: The open file.
        path: Its name, for messages.

    Returns:
        The variables by name, and the attributes.

    Raises:
        InputError: If the file is damaged, reaches beyond itself (external storage, virtual
            datasets, links, foreign filters), or takes more time or memory than an honest one.
    """
    index, arrays = _read(file, path, "netcdf")
    return {name: arrays[number] for name, number in index["arrays"].items()}, index["attributes"]


def read_matlab5(
    file: IO[bytes], path: Path, keys: Sequence[str]
) -> dict[str, Array | list[Array]]:
    """Read some variables of a MATLAB file of version 5: arrays, and lists for cell arrays.

    Raises:
        InputError: As of `read_netcdf`, or if a variable is no array of numbers.
    """
    return _matlab(file, path, "matlab5", keys)


def read_matlab73(
    file: IO[bytes], path: Path, keys: Sequence[str]
) -> dict[str, Array | list[Array]]:
    """Read some variables of a MATLAB file of version 7.3: arrays, and lists for cell arrays.

    Raises:
        InputError: As of `read_matlab5`.
    """
    return _matlab(file, path, "matlab73", keys)


def _matlab(
    file: IO[bytes], path: Path, kind: str, keys: Sequence[str]
) -> dict[str, Array | list[Array]]:
    index, arrays = _read(file, path, kind, keys)
    return {
        key: [arrays[cell] for cell in number] if isinstance(number, list) else arrays[number]
        for key, number in index["arrays"].items()
    }


def _read(
    file: IO[bytes], path: Path, kind: str, keys: Sequence[str] = ()
) -> tuple[dict[str, Any], list[Array]]:
    size = os.fstat(file.fileno()).st_size
    largest, seconds = most_unpacked(size), _SECONDS + _SECONDS_PER_BYTE * size
    request = {
        "kind": kind,
        "keys": list(keys),
        "paths": _packages(),
        "size": size,
        "largest": largest,
        "memory": _MEMORY + 3 * largest,
        "seconds": int(seconds) + 1,
    }
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(_PROGRAM), json.dumps(request)],
                stdin=file,
                stdout=out,
                stderr=errors,
                timeout=3 * seconds,
                env=_environment(),
                cwd=_PROGRAM.parent,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"{path}: expected a complete file: reading it does not end") from None
        if done.returncode:
            errors.seek(0)
            lines = errors.read(2**16).decode(errors="replace").strip().splitlines()
            reason = lines[-1][:300] if lines else _ended(done.returncode)
            raise InputError(f"{path}: expected a complete file: {reason}")
        return _unpacked(out, path)


def _ended(code: int) -> str:
    """Say how a process ended that could not say it itself."""
    if -code == getattr(signal, "SIGXCPU", None):
        return "reading it does not end"
    return f"reading it ends with signal {-code}"


def _unpacked(out: IO[bytes], path: Path) -> tuple[dict[str, Any], list[Array]]:
    out.seek(0)
    try:
        check_archive(out, path)
        with zipfile.ZipFile(out) as archive:
            index = json.loads(archive.read("index.json"))
            arrays = []
            for number in range(len(archive.namelist()) - 1):
                with archive.open(f"{number}.npy") as member:
                    arrays.append(np.lib.format.read_array(member, allow_pickle=False))
            return index, arrays
    except DAMAGE as error:
        raise InputError(f"{path}: expected a complete file: {error}") from error


def _packages() -> list[str]:
    """Where this package and NumPy lie, if not where an isolated interpreter looks anyway."""
    places = (Path(__file__).parents[2], Path(np.__file__).parents[1])
    return [str(place) for place in dict.fromkeys(places)]


def _environment() -> dict[str, str]:
    """This process's, without what steers Python and HDF5; no plugins, one thread."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HDF5_"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**kept, **threads, "HDF5_PLUGIN_PRELOAD": "::"}
