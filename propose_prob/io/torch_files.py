"""Files of `torch.save` read in time and memory that fit their size, without torch's unpickler.

With `weights_only=True` torch runs no code from a file, but it makes whatever a file asks for:
sixty bytes are enough for a `bytearray` of ten gigabytes, and keys may be chosen that all collide.
Here the pickle inside is read by `load_pickle`, which knows tensors and containers only, and
tensors lie within the bytes that are there.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

from ..errors import InputError, short
from .archives import DAMAGE, check_archive
from .unpickle import PickledCall, PickledObject, load_pickle

__all__ = ["load_torch"]

#: What files of torch before 1.6 begin with, each in a pickle of its own.
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

#: Bytes of tensors for each byte of a file: a few may share one storage.
_SHARED = 4

_DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}


def load_torch(file: IO[bytes], path: Path) -> Any:
    """Read what `torch.save` wrote: tensors, containers and plain values.

    Both kinds of files are read, archives and those of torch before 1.6. Parameters come as
    tensors, and every tensor on the CPU.

    Args:
        file: The file, open for reading bytes.
        path: Its name, for messages.

    Returns:
        What was saved.

    Raises:
        InputError: If the file asks for any other class or function, is damaged or of another
            kind, or would take far more memory than it has bytes.

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> torch.save({"weight": torch.ones(2, 3), "epoch": 7}, file)
        >>> load_torch(file, Path("weights.pt"))["weight"].shape
        torch.Size([2, 3])
    """
    try:
        size = file.seek(0, os.SEEK_END)
        is_archive = zipfile.is_zipfile(file)
        file.seek(0)
        return (_archive if is_archive else _sequence)(file, path, size)
    except InputError as error:
        raise InputError(f"{path}: expected tensors saved by torch ({error})") from None
    except DAMAGE as error:
        reason = short(str(error)) or type(error).__name__
        raise InputError(f"{path}: expected tensors saved by torch ({reason})") from None


def _archive(file: IO[bytes], path: Path, size: int) -> Any:
    """Read the kind that is an archive, with a member for each storage."""
    check_archive(file, path)
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(f"an archive with {len(names)} members data.pkl in place of one")
        folder = names[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            _check_order(archive.read(f"{folder}byteorder") == b"little")

        def read(key: str, dtype: torch.dtype, count: int) -> Tensor:
            return _tensor(archive.read(f"{folder}data/{key}"), dtype, count)

        with archive.open(names[0]) as pickled:
            return _load(pickled, _Storages(read, size))


def _sequence(file: IO[bytes], path: Path, size: int) -> Any:
    """Read the older kind: pickles one after another, and then the storages."""
    if load_pickle(file, name="its first part") != _MAGIC:
        raise ValueError("it does not begin as such files do")
    if load_pickle(file, name="its second part") != _PROTOCOL:
        raise ValueError(f"another version than {_PROTOCOL}")
    system = load_pickle(file, name="its third part")
    _check_order(isinstance(system, dict) and system.get("little_endian") is True)

    def room(key: str, dtype: torch.dtype, count: int) -> Tensor:
        return torch.empty(count, dtype=dtype)

    storages = _Storages(room, size)
    value = _load(file, storages)
    keys = load_pickle(file, name="its list of storages")
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages.found):
        raise ValueError("other storages than its tensors have")
    for key in keys:
        tensor = storages.found[key]
        if int.from_bytes(file.read(8), "little") != len(tensor):
            raise ValueError("a storage of another size")
        raw = file.read(len(tensor) * tensor.itemsize)
        tensor.copy_(_tensor(raw, tensor.dtype, len(tensor)))
    return value


class _Storages:
    """The storages of a file, which together hold no more bytes than it has.

    Attributes:
        found: Storage by key, each a tensor `(N,)`.
        left: Bytes that tensors may still take.
    """

    def __init__(self, read: Callable[[str, torch.dtype, int], Tensor], size: int) -> None:
        self._read, self._room = read, size
        self.found: dict[str, Tensor] = {}
        self.left = _SHARED * size

    def __call__(self, identity: Any) -> _Storage:
        """The storage, or a part of one, that a persistent id means."""
        word, kind, key, _, count, *view = identity
        if word != "storage" or not (isinstance(kind, type) and issubclass(kind, _Kind)):
            raise ValueError("something else than a storage outside of the pickle")
        if type(key) is not str or type(count) is not int or count < 0:
            raise ValueError("a storage without a name or a size")
        if key not in self.found:
            self._room -= count * kind.dtype.itemsize
            if self._room < 0:
                raise ValueError("storages of more bytes than there are")
            self.found[key] = self._read(key, kind.dtype, count)
        stored = self.found[key]
        if (stored.dtype, len(stored)) != (kind.dtype, count):
            raise ValueError("a storage of two kinds")
        if view and view[0] is not None:
            _, start, length = view[0]
            if not (type(start) is type(length) is int and 0 <= start <= start + length <= count):
                raise ValueError("a part of a storage that is not in it")
            stored = stored[start : start + length]
        return _Storage(stored, self)


class _Kind(PickledObject):
    """A class of storages, which files name and never make."""

    dtype: ClassVar[torch.dtype]


class _Storage(PickledObject):
    """A storage, which is no data without a tensor over it."""


class _View(PickledObject):
    """A tensor over a storage."""

    def plain(self, done: Mapping[int, Any]) -> Tensor:
        storage, offset, size, stride = self.arguments[:4]
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor without a storage")
        stored, storages = storage.arguments
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError("a tensor whose shape is none")
        count = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if count and last >= len(stored):
            raise ValueError("a tensor larger than its storage")
        storages.left -= count * stored.itemsize
        if storages.left < 0:
            raise ValueError("tensors of far more bytes than there are")
        view: Tensor = stored.as_strided(size, stride, offset) if count else stored.new_empty(size)
        return view


def _parameter(data: Any, *_: Any) -> Any:
    if not isinstance(data, _View):
        raise ValueError("a parameter that is no tensor")
    return data


#: `torch.Size` is read as a tuple of numbers.
_KNOWN: dict[tuple[str, str], Any] = {
    ("torch", "Size"): PickledCall(lambda sizes=(): tuple(map(int, sizes))),
    ("torch._utils", "_rebuild_parameter"): PickledCall(_parameter),
    **{
        ("torch._utils", name): PickledCall(_View)
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2")
    },
    **{
        ("torch", f"{name}Storage"): type(f"{name}Storage", (_Kind,), {"dtype": dtype})
        for name, dtype in _DTYPES.items()
    },
}


def _load(file: IO[bytes], storages: _Storages) -> Any:
    return load_pickle(file, name="its pickle", known=_KNOWN, outside=storages)


def _tensor(raw: bytes, dtype: torch.dtype, count: int) -> Tensor:
    """The numbers of a storage, in memory that torch aligned."""
    if len(raw) != count * dtype.itemsize:
        raise ValueError(f"{len(raw)} bytes for {count} numbers of {dtype}")
    if not raw:
        return torch.empty(0, dtype=dtype)
    if dtype == torch.bool:
        return torch.frombuffer(bytearray(raw), dtype=torch.uint8) != 0
    return torch.frombuffer(bytearray(raw), dtype=dtype).clone()


def _check_order(is_little: bool) -> None:
    if not is_little:
        raise ValueError("numbers whose bytes are in another order")
