"""Whether a library can read a file, found out in a process of its own.

HDF5 2.0 loops over some damaged files without end and takes more memory all the time, inside one
call that nothing in the same process can interrupt (a miniature of 11 kB with a few bytes changed
took 8 GB in 80 s), and scipy 1.17 ends the process over some damaged MATLAB files. So a file is
read once where that does no harm.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError

__all__ = ["check_matlab5", "check_matlab73", "check_netcdf"]

#: The least time and memory that reading may take, and what it may for each byte of the file.
_SECONDS, _MEMORY = 60.0, 4 * 2**30
_SECONDS_PER_BYTE, _MEMORY_PER_BYTE = 1e-6, 20

_LIMITED = """
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
except (ImportError, OSError, ValueError):
    pass
"""

_MATLAB5 = """
from scipy.io import loadmat
loadmat(sys.argv[1], variable_names=sys.argv[3:])
"""

_MATLAB73 = """
import h5py
with h5py.File(sys.argv[1], "r") as file:
    for variable in [file[key] for key in sys.argv[3:] if key in file]:
        value = variable[()] if isinstance(variable, h5py.Dataset) else None
        if value is not None and variable.dtype == h5py.ref_dtype:
            for cell in value.ravel():
                file[cell][()]
"""

_NETCDF = """
import h5netcdf, h5py
with h5py.File(sys.argv[1], "r") as opened, h5netcdf.File(opened, "r") as file:
    list(file.attrs.items())
    for group in (file, *file.groups.values()):
        for variable in group.variables.values():
            variable.dimensions, variable[...]
"""


def check_matlab5(path: Path, keys: Sequence[str]) -> None:
    """Check that some variables of a MATLAB file of version 5 can be read.

    Raises:
        InputError: If they cannot, or not in the time and memory that an honest file takes.
    """
    _read(path, _MATLAB5, keys)


def check_matlab73(path: Path, keys: Sequence[str]) -> None:
    """Check that some variables of a MATLAB file of version 7.3 can be read.

    Raises:
        InputError: As of `check_matlab5`.
    """
    _read(path, _MATLAB73, keys)


def check_netcdf(path: Path) -> None:
    """Check that a NetCDF file and its groups can be read.

    Raises:
        InputError: As of `check_matlab5`.
    """
    _read(path, _NETCDF, ())


def _read(path: Path, program: str, keys: Sequence[str]) -> None:
    size = path.stat().st_size
    memory = _MEMORY + _MEMORY_PER_BYTE * size
    command = [sys.executable, "-c", _LIMITED + program, str(path), str(memory), *keys]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_SECONDS + _SECONDS_PER_BYTE * size,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{path}: expected a complete file: reading it does not end") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"reading it ends with signal {-done.returncode}"
        raise InputError(f"{path}: expected a complete file: {reason}")
