"""Pickles of other people read without running what they say to run.

A pickle is a program: it may import any function and call it. Published body models are pickles all
the same, of arrays and nothing else. `load_pickle` knows by name the few classes that such files
hold, gives its own stand-ins for them, and refuses every other name. Neither scipy nor chumpy nor
numpy's own unpickling code runs.
"""

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from propose_prob.errors import InputError

__all__ = ["load_pickle"]

#: Most entries of nested lists and tuples, and most bytes of a sparse matrix written out.
_LARGEST, _DENSE = 10_000_000, 2**28


def load_pickle(source: str | PathLike[str] | IO[bytes], *, name: str = "") -> object:
    """Read a pickle of arrays and built-in containers; nothing in it is executed.

    Pickles of Python 2 (its strings as Latin-1) and 3 and of every protocol are read. Instead of
    numpy arrays, scalars and dtypes, scipy's sparse matrices (csc, csr, coo) and chumpy's `Ch` and
    `Select`, plain numpy comes back, dense; dicts, lists, tuples, sets, strings and numbers come
    back as they are. Arrays are numeric, boolean, of strings, or of objects of these kinds.

    Args:
        source: The file, or a stream that is open for reading bytes and stands at the pickle.
        name: What messages call a stream.

    Returns:
        What the file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If the file asks for any other class or function (the message names it), is no
            complete pickle, or would take far more memory than it has bytes.
    """
    if isinstance(source, (str, PathLike)):
        with Path(source).open("rb") as file:
            return load_pickle(file, name=str(source))
    try:
        value = _plain(_Reader(source).load(), {})
        _check_expanded(value)
        return value
    except _Refused as error:
        raise InputError(
            f"{name} asks for {_line(error)}, which is neither an array nor a container; it was "
            "not read, since a pickle may execute what it asks for"
        ) from None
    # Broken or hostile bytes make the unpickler raise nearly anything.
    except Exception as error:
        raise InputError(
            f"expected a complete pickle of arrays in {name}: {type(error).__name__}: "
            f"{_line(error)}"
        ) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Refused(Exception):
    """A name that is not in the table."""


def _weighing(load: Callable[[Any], None]) -> Callable[[Any], None]:
    def load_and_weigh(reader: Any) -> None:
        load(reader)
        reader.weigh(reader.stack[-1])

    return load_and_weigh


def _load_global(reader: Any) -> None:
    module, name = reader.readline(), reader.readline()
    if not name.endswith(b"\n"):
        raise EOFError("a name is cut off")
    reader.append(reader.find_class(module[:-1].decode(), name[:-1].decode()))


# The one written in Python: the other's memo takes as much memory as a file asks for (ten bytes are
# enough for 64 GB), and what it puts together cannot be watched.
class _Reader(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        **{
            code[0]: _weighing(pickle._Unpickler.dispatch[code[0]])
            for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
        },
        pickle.GLOBAL[0]: _load_global,
    }

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")
        # Kept beside its weight, a tuple keeps its id.
        self._weights: dict[int, tuple[int, tuple[Any, ...]]] = {}

    def weigh(self, value: tuple[Any, ...]) -> None:
        """Refuse tuples that hold themselves over and over: hashing one of 60 would never end."""
        inner = (self._weights.get(id(item), (0,))[0] for item in value if type(item) is tuple)
        weight = len(value) + sum(inner)
        if weight > _LARGEST:
            raise ValueError(f"tuples of more than {_LARGEST} entries")
        self._weights[id(value)] = weight, value

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _TABLE[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("an object outside the file")


class _Call:
    """A function that a pickle may call but not alter."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function has no state")


class _StandIn:
    """An object of a known class: its state is kept and read once everything is there."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __new__(cls, *arguments: Any) -> "_StandIn":
        new = object.__new__(cls)
        new.arguments = arguments
        return new

    # Defined so that a pickle cannot set attributes of the class itself.
    def __setstate__(self, state: Any) -> None:
        self.state = state

    def plain(self, done: dict[int, Any]) -> Any:
        raise NotImplementedError

    def fields(self, done: dict[int, Any]) -> dict[str, Any]:
        """The attributes of an object whose state is a dict."""
        state = _plain(self.state, done)
        if not isinstance(state, dict):
            raise ValueError(f"expected attributes, got {type(state).__name__}")
        return state


class _DType(_StandIn):
    """`numpy.dtype(code)`; the byte order is in the state (its second entry)."""

    def plain(self, done: dict[int, Any]) -> np.dtype[Any]:
        code = self.arguments[0]
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSUO]\d{1,6}|\?|b1", code):
            raise ValueError(f"expected an array of numbers or strings, got dtype {code!r}")
        state = getattr(self, "state", (3, "|"))
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"unknown byte order {order!r}")
        return np.dtype("O") if code[0] == "O" else np.dtype(f"{order}{code}")


class _Array(_StandIn):
    """`numpy.ndarray`, whose state is (version, shape, dtype, Fortran order, data)."""

    def plain(self, done: dict[int, Any]) -> np.ndarray:
        _, shape, dtype, fortran, data = self.state
        return _array(data, dtype, shape, "F" if fortran else "C", done)


class _Sparse(_StandIn):
    """`scipy.sparse` matrices and arrays."""

    def plain(self, done: dict[int, Any]) -> np.ndarray:
        fields = self.fields(done)
        rows, columns = fields["_shape"] if "_shape" in fields else fields["shape"]
        data = fields["data"]
        if "indptr" in fields:
            counts = np.diff(fields["indptr"])
            if len(counts) and not 0 <= counts.min() <= counts.max() <= len(data) >= counts.sum():
                raise ValueError("a sparse matrix whose index does not fit its entries")
            along = np.repeat(np.arange(len(counts)), counts)
            across = fields["indices"][: len(along)]
            row, column = (across, along) if self.by_column else (along, across)
            data = data[: len(along)]
        else:
            row, column = fields["coords"] if "coords" in fields else (fields["row"], fields["col"])
        if len(data) and (min(row.min(), column.min()) < 0):
            raise ValueError("negative indices in a sparse matrix")
        if rows * columns * data.dtype.itemsize > _DENSE:
            raise ValueError(f"a sparse matrix of {rows} x {columns}")
        dense = np.zeros((rows, columns), data.dtype)
        # Entries that are stored twice count twice.
        np.add.at(dense, (row, column), data)
        return dense

    by_column = False


class _SparseByColumn(_Sparse):
    by_column = True


class _Chumpy(_StandIn):
    """`chumpy.ch.Ch`: the value is in `x`."""

    def plain(self, done: dict[int, Any]) -> np.ndarray:
        return np.asarray(self.fields(done)["x"])


class _ChumpySelect(_StandIn):
    """`chumpy.reordering.Select`: entries of `a`, flat, in another shape."""

    def plain(self, done: dict[int, Any]) -> np.ndarray:
        fields = self.fields(done)
        chosen = np.ravel(fields["a"])[fields["idxs"]]
        return chosen.reshape(fields["preferred_shape"])


class _Object(_StandIn):
    """`object`, which Python 2 names as the base of what it reconstructs."""


def _array(data: Any, dtype: Any, shape: Any, order: str, done: dict[int, Any]) -> np.ndarray:
    if not isinstance(dtype, _DType):
        raise ValueError("expected a dtype")
    kind = dtype.plain(done)
    shape = tuple(int(size) for size in shape)
    if kind.kind == "O":
        items = [_plain(item, done) for item in data]
        values = np.empty(len(items), dtype=object)
        for place, item in enumerate(items):
            values[place] = item
        return values.reshape(shape, order="F" if order == "F" else "C")
    raw = data if isinstance(data, bytes | bytearray) else _encode(data)
    if len(raw) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(raw)} bytes for an array of shape {shape} and dtype {kind}")
    values = np.frombuffer(raw, kind) if raw else np.empty(0, kind)
    return values.reshape(shape, order="F" if order == "F" else "C").copy()


def _reconstruct(subtype: Any, shape: Any, kind: Any) -> _StandIn:
    if subtype is not _Array:
        raise ValueError("expected an array")
    return _Array()


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if isinstance(dtype, _DType) and dtype.plain({}).kind == "O":
        raise ValueError("expected a number, got an object scalar")
    return _array(data, dtype, (), "C", {})[()]


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return _array(data, dtype, shape, order, {})


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("expected Latin-1 text")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Protocols 0 to 2 write empty bytes as `bytes()`."""
    return b""


def _bytearray(data: Any = b"", encoding: Any = "latin1") -> bytearray:
    return bytearray(data if isinstance(data, bytes) else _encode(data, encoding))


def _complex(real: Any, imag: Any) -> complex:
    return complex(float(real), float(imag))


def _reconstructor(cls: Any, base: Any, state: Any) -> _StandIn:
    """Python 2's `copy_reg._reconstructor`, for protocols 0 and 1."""
    if not (isinstance(cls, type) and issubclass(cls, _StandIn)) or base is not _Object:
        raise ValueError("expected an object of a known class")
    return cls()


def _table() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("numpy", "dtype"): _DType,
        ("numpy", "ndarray"): _Array,
        ("chumpy.ch", "Ch"): _Chumpy,
        ("chumpy", "Ch"): _Chumpy,
        ("chumpy.reordering", "Select"): _ChumpySelect,
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): _Call(_encode),
    }
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = _Call(_reconstruct)
        table[f"{core}.multiarray", "scalar"] = _Call(_scalar)
        table[f"{core}.numeric", "_frombuffer"] = _Call(_frombuffer)
    for builtins in ("builtins", "__builtin__"):
        table[builtins, "object"] = _Object
        table[builtins, "set"] = set
        table[builtins, "frozenset"] = frozenset
        table[builtins, "bytes"] = _Call(_no_bytes)
        table[builtins, "bytearray"] = _Call(_bytearray)
        table[builtins, "complex"] = _Call(_complex)
    for registry in ("copyreg", "copy_reg"):
        table[registry, "_reconstructor"] = _Call(_reconstructor)
    for layout, stand_in in (("csc", _SparseByColumn), ("csr", _Sparse), ("coo", _Sparse)):
        for module in (layout, f"_{layout}"):
            for kind in ("matrix", "array"):
                table[f"scipy.sparse.{module}", f"{layout}_{kind}"] = stand_in
    return table


_TABLE: Mapping[tuple[str, str], Any] = _table()


def _check_expanded(value: Any) -> None:
    """Refuse lists that hold others over and over: as an array they would fill the memory."""
    left, entries, size = [value], 0, 0
    seen: dict[int, int] = {}
    while left:
        item = left.pop()
        if isinstance(item, dict):
            if id(item) not in seen:
                seen[id(item)] = 0
                left.extend(item.values())
        elif isinstance(item, list | tuple):
            entries += len(item)
            if entries > _LARGEST:
                raise ValueError(f"lists of more than {_LARGEST} entries")
            left.extend(item)
        elif isinstance(item, np.ndarray):
            size += item.nbytes
            if item.dtype == object and id(item) not in seen:
                left.extend(item.flat)
            seen[id(item)] = item.nbytes
    if size > _DENSE + 2 * sum(seen.values()):
        raise ValueError(f"lists of {size} bytes of arrays, most of them the same")


def _plain(value: Any, done: dict[int, Any]) -> Any:
    """Put numpy in place of stand-ins; what occurs twice, or in itself, is built once."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, _StandIn):
        done[id(value)] = value.plain(done)
    elif isinstance(value, dict):
        new: dict[Any, Any] = {}
        done[id(value)] = new
        new.update((_plain(key, done), _plain(item, done)) for key, item in value.items())
    elif isinstance(value, list):
        items: list[Any] = []
        done[id(value)] = items
        items.extend(_plain(item, done) for item in value)
    elif isinstance(value, tuple | set | frozenset):
        done[id(value)] = type(value)(_plain(item, done) for item in value)
    elif isinstance(value, _Call) or isinstance(value, type):
        raise ValueError("a function or class by itself is no data")
    else:
        return value
    return done[id(value)]
