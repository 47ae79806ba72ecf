"""NetCDF files through a file object that survives failing writes.

HDF5 cannot bear that a write fails. It keeps what it could not write, tries again while it closes
the file and once more while the process ends, and crashes over it. So it writes to an object here
that never fails: what the disk does not take stays in memory until the failure is raised, which is
at the end of the piece of work in which it happened.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from ..io.atomic import atomic_file

__all__ = ["NetCDFFile", "netcdf_file"]

#: What a signal may interrupt: exceptions of its handler inside of HDF5 would be failed writes too.
_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class NetCDFFile:
    """A NetCDF file that is being written; see `netcdf_file`.

    Attributes:
        root: The `h5netcdf.File`; use it inside of `writing` only.
    """

    def __init__(self, file: BinaryIO) -> None:
        import h5netcdf  # type: ignore[import-untyped]

        self._sink = _Sink(file)
        with self.writing():
            self.root = h5netcdf.File(self._sink, "w")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A piece of work on the file; signals wait for its end.

        Raises:
            OSError: If the disk did not take all of it.
        """
        with _held_back():
            yield
        if self._sink.error is not None:
            raise self._sink.error

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: If the disk did not take all of it.
        """
        with self.writing():
            self.root.close()


@contextmanager
def netcdf_file(path: str | Path) -> Iterator[NetCDFFile]:
    """Write a NetCDF file, whole or not at all.

    Args:
        path: File to write, replaced if it exists.

    Yields:
        The file.

    Raises:
        InputError: As of `check_output`.
        OSError: If it cannot be written, on a full disk for instance; an older file stays.

    Example:
        >>> import tempfile, xarray
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with netcdf_file(f"{folder}/a.nc") as file, file.writing():
        ...         file.root.dimensions["item"] = 2
        ...         _ = file.root.create_variable("depth", ("item",), data=[1.0, 2.0])
        ...     xarray.load_dataset(f"{folder}/a.nc")["depth"].values.tolist()
        [1.0, 2.0]
    """
    with atomic_file(path) as file:
        opened = NetCDFFile(file)
        try:
            yield opened
        finally:
            opened.close()


class _Sink:
    """A file in which no write fails: the first error is kept, and what it befell."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._place = 0
        self._end = 0
        # Where something begins that is not in the file, in the order in which it was written.
        self._kept: list[tuple[int, bytes]] = []
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._end)[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self.error is None:
            try:
                self._file.seek(self._place)
                self._file.write(data)
            except OSError as error:
                self.error = error
        if self.error is not None:
            self._kept.append((self._place, bytes(data)))
        self._place += size
        self._end = max(self._end, self._place)
        return size

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        start, count = self._place, max(0, min(len(view), self._end - self._place))
        view[:count] = bytes(count)
        try:
            self._file.seek(start)
            self._file.readinto(view[:count])  # type: ignore[attr-defined]
        except OSError as error:
            self.error = self.error or error
        for place, data in self._kept:
            first, last = max(start, place), min(start + count, place + len(data))
            if first < last:
                view[first - start : last - start] = data[first - place : last - place]
        self._place += count
        return count

    def read(self, size: int = -1) -> bytes:
        data = bytearray(self._end - self._place if size < 0 else size)
        return bytes(data[: self.readinto(data)])

    def truncate(self, size: int | None = None) -> int:
        self._end = self._place if size is None else size
        if self.error is None:
            try:
                self._file.truncate(self._end)
            except OSError as error:
                self.error = error
        return self._end

    def flush(self) -> None:
        """The file is flushed when it is whole."""


@contextmanager
def _held_back() -> Iterator[None]:
    """Let signals that would raise wait for the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def keep(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    # A handler that no Python set cannot be set again.
    held = {number: handler for number, handler in before.items() if handler is not None}
    for number in held:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in held.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
