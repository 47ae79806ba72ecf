"""Restricted unpickler: arrays and containers only, never executes code.

A pickle is a program: it may import any function and call it. Published body models are pickles all
the same, of arrays and nothing else. `load_pickle` knows by name the few classes that such files
hold, gives its own stand-ins for them, and refuses every other name. Neither scipy nor chumpy nor
numpy's own unpickling code runs.
"""

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from ..errors import InputError, short
from .files import open_file

__all__ = ["PickledCall", "PickledObject", "load_pickle"]

#: Most entries of nested lists and tuples, steps of the program, and bytes of arrays beyond those
#: that stand in the file.
_LARGEST, _STEPS, _DENSE = 10_000_000, 2_000_000, 2**27


def load_pickle(
    source: str | PathLike[str] | IO[bytes],
    *,
    name: str = "",
    known: Mapping[tuple[str, str], Any] | None = None,
    outside: Callable[[Any], Any] | None = None,
) -> object:
    """Read a pickle of arrays and built-in containers; nothing in it is executed.

    Pickles of Python 2 (its strings as Latin-1) and 3 and of every protocol are read. Instead of
    numpy arrays, scalars and dtypes, scipy's sparse matrices (csc, csr, coo) and chumpy's `Ch` and
    `Select`, plain numpy comes back, dense; dicts, lists, tuples, sets, strings and numbers come
    back as they are. Arrays are numeric, boolean, of strings, or of objects of these kinds.

    Args:
        source: The file, or a stream that is open for reading bytes and stands at the pickle.
        name: What messages call a stream.
        known: Further classes and functions that the file may ask for, by module and name: a
            `PickledObject` class, or a `PickledCall`.
        outside: Gives the object that lies outside of the pickle under a persistent id.

    Returns:
        What the file holds.

    Raises:
        InputError: If there is no such file, or it asks for any other class or function (the
            message names it), is no complete pickle, or would take far more memory than it has
            bytes.
    """
    if isinstance(source, (str, PathLike)):
        with open_file(Path(source)) as file:
            return load_pickle(file, name=str(source), known=known, outside=outside)
    try:
        reader = _Reader(source, known or {}, outside)
        value = _plain(reader.load(), _Done(reader.spend))
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
    return short(str(error))


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


def _load_frame(reader: Any) -> None:
    # Frames only save calls; without them every step is counted.
    reader.read(8)


def _load_put(reader: Any) -> None:
    number = reader.readline()[:-1]
    if not number.isdigit() or len(number) > 10:
        raise ValueError("a place in the memo that is no number of 32 bits")
    reader.memo[int(number)] = reader.stack[-1]


def _load_bytearray(reader: Any) -> None:
    length = int.from_bytes(reader.read(8), "little")
    data = reader.read(length)
    if len(data) != length:
        raise EOFError("an array of bytes is cut off")
    reader.append(bytearray(data))


def _with_keys(
    load: Callable[[Any], None], keys: Callable[[Any], Iterable[Any]]
) -> Callable[[Any], None]:
    def check_and_load(reader: Any) -> None:
        _check_keys(keys(reader))
        load(reader)

    return check_and_load


def _check_keys(keys: Iterable[Any]) -> None:
    """Refuse keys that may be made to collide, each of which would be compared with all others.

    Hashes of text and bytes are salted. Longer integers repeat theirs every 2^61 - 1; those of
    tuples and complex numbers can be computed backwards.
    """
    for key in keys:
        if type(key) not in (str, bytes, bool, float, type(None)) and not (
            type(key) is int and abs(key) < 2**64
        ):
            raise ValueError(
                f"expected text or numbers of 64 bits as keys, got {type(key).__name__}"
            )


class _Counted:
    """A stream that counts bytes and calls."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size, self._calls = file, 0, 0

    def read(self, length: int) -> bytes:
        # In pieces: room for all that is announced would be taken at once.
        parts = []
        while length > 0 and (part := self._file.read(min(length, 2**20))):
            parts.append(part)
            length -= len(part)
        return self._count(parts[0] if len(parts) == 1 else b"".join(parts))

    def readline(self) -> bytes:
        return self._count(self._file.readline())

    def _count(self, data: bytes) -> bytes:
        self.size += len(data)
        self._calls += 1
        if self._calls > _STEPS:
            raise ValueError(f"more than {_STEPS} steps")
        return data


# The one written in Python: the other's memo takes as much memory as a file asks for (ten bytes are
# enough for 64 GB), and what it puts together cannot be watched.
class _Reader(pickle._Unpickler):
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        **{
            code[0]: _weighing(pickle._Unpickler.dispatch[code[0]])
            for code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
        },
        **{
            code[0]: _with_keys(pickle._Unpickler.dispatch[code[0]], keys)
            for code, keys in (
                (pickle.SETITEM, lambda reader: reader.stack[-2:-1]),
                (pickle.SETITEMS, lambda reader: reader.stack[::2]),
                (pickle.DICT, lambda reader: reader.stack[::2]),
                (pickle.ADDITEMS, lambda reader: reader.stack),
                (pickle.FROZENSET, lambda reader: reader.stack),
            )
        },
        pickle.GLOBAL[0]: _load_global,
        pickle.FRAME[0]: _load_frame,
        pickle.PUT[0]: _load_put,
        pickle.BYTEARRAY8[0]: _load_bytearray,
    }

    def __init__(
        self,
        file: IO[bytes],
        known: Mapping[tuple[str, str], Any],
        outside: Callable[[Any], Any] | None,
    ) -> None:
        self._source = _Counted(file)
        super().__init__(self._source, encoding="latin1")
        self._known, self._outside = {**_TABLE, **known}, outside
        self._made = 0
        # Kept beside its weight, a tuple keeps its id.
        self._weights: dict[int, tuple[int, tuple[Any, ...]]] = {}

    def spend(self, size: int) -> None:
        """Refuse arrays that are made over and over from the same bytes."""
        self._made += size
        if self._made > _DENSE + 2 * self._source.size:
            raise ValueError("arrays of far more bytes than there are")

    def weigh(self, value: tuple[Any, ...]) -> None:
        """Refuse tuples that hold themselves over and over: hashing one of 60 would never end."""
        inner = (self._weights.get(id(item), (0,))[0] for item in value if type(item) is tuple)
        weight = len(value) + sum(inner)
        if weight > _LARGEST:
            raise ValueError(f"tuples of more than {_LARGEST} entries")
        self._weights[id(value)] = weight, value

    def find_class(self, module: str, name: str) -> Any:
        try:
            found = self._known[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None
        return found.counted(self.spend) if isinstance(found, PickledCall) else found

    def persistent_load(self, pid: Any) -> Any:
        if self._outside is None:
            raise _Refused("an object outside the file")
        return self._outside(pid)


class PickledCall:
    """A function that a pickle may call but not alter."""

    __slots__ = ("_function", "_spend")

    def __init__(
        self, function: Callable[..., Any], spend: Callable[[int], None] | None = None
    ) -> None:
        self._function, self._spend = function, spend

    def counted(self, spend: Callable[[int], None]) -> "PickledCall":
        """The same function; the sizes of what it returns are counted."""
        return PickledCall(self._function, spend)

    def __call__(self, *arguments: Any) -> Any:
        """What the function returns."""
        made = self._function(*arguments)
        if self._spend is not None:
            self._spend(made.nbytes if isinstance(made, np.ndarray | np.generic) else _length(made))
        return made

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function has no state")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, bytes | bytearray) else 0


class _Done(dict[int, Any]):
    """What stand-ins became, by their ids; sizes of arrays are told to `spend` as they are made."""

    def __init__(self, spend: Callable[[int], None] = lambda size: None) -> None:
        super().__init__()
        self.spend = spend


class PickledObject:
    """A stand-in for an object of a known class: what it becomes is made once everything is read.

    Attributes:
        arguments: What the object was made with.
        state: What was put into it afterwards; missing where nothing was.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __new__(cls, *arguments: Any) -> "PickledObject":
        """A new stand-in, whatever way of making objects the pickle takes."""
        new = object.__new__(cls)
        new.arguments = arguments
        return new

    # Defined so that a pickle cannot set attributes of the class itself.
    def __setstate__(self, state: Any) -> None:
        self.state = state

    def plain(self, done: _Done) -> Any:
        """What the object becomes.

        Args:
            done: What others have become, by their ids.

        Raises:
            ValueError: If it is not as its class has it; any other exception does as well.
        """
        raise NotImplementedError

    def fields(self, done: _Done) -> dict[str, Any]:
        """The attributes of an object whose state is a dict."""
        state = _plain(self.state, done)
        if not isinstance(state, dict):
            raise ValueError(f"expected attributes, got {type(state).__name__}")
        return state


class _DType(PickledObject):
    """`numpy.dtype(code)`; the byte order is in the state (its second entry)."""

    def plain(self, done: _Done) -> np.dtype[Any]:
        code = self.arguments[0]
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSUO]\d{1,6}|\?|b1", code):
            got = short(repr(code))
            raise ValueError(f"expected an array of numbers or strings, got dtype {got}")
        state = getattr(self, "state", (3, "|"))
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError("unknown byte order")
        dtype = np.dtype("O") if code[0] == "O" else np.dtype(f"{order}{code}")
        if not dtype.itemsize:
            # Billions of entries would take no room in a file.
            raise ValueError("entries without bytes")
        return dtype


class _Array(PickledObject):
    """`numpy.ndarray`, whose state is (version, shape, dtype, Fortran order, data)."""

    def plain(self, done: _Done) -> np.ndarray:
        _, shape, dtype, fortran, data = self.state
        return _array(data, dtype, shape, "F" if fortran else "C", done)


class _Sparse(PickledObject):
    """`scipy.sparse` matrices and arrays."""

    def plain(self, done: _Done) -> np.ndarray:
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
        if not (type(rows) is type(columns) is int and min(rows, columns) >= 0):
            raise ValueError("a sparse matrix without a shape")
        if max(rows, 1) * max(columns, 1) * data.dtype.itemsize > _DENSE:
            raise ValueError(f"a sparse matrix of {short(f'{rows:.3g} x {columns:.3g}')}")
        done.spend(rows * columns * data.dtype.itemsize)
        dense = np.zeros((rows, columns), data.dtype)
        # Entries that are stored twice count twice.
        np.add.at(dense, (row, column), data)
        return dense

    by_column = False


class _SparseByColumn(_Sparse):
    by_column = True


class _Chumpy(PickledObject):
    """`chumpy.ch.Ch`: the value is in `x`."""

    def plain(self, done: _Done) -> np.ndarray:
        value = self.fields(done)["x"]
        _check_expanded(value)
        return np.asarray(value)


class _ChumpySelect(PickledObject):
    """`chumpy.reordering.Select`: entries of `a`, flat, in another shape."""

    def plain(self, done: _Done) -> np.ndarray:
        fields = self.fields(done)
        _check_expanded([fields["a"], fields["idxs"]])
        values, chosen = np.ravel(fields["a"]), np.asarray(fields["idxs"])
        done.spend(chosen.size * values.dtype.itemsize)
        chosen = values[chosen]
        return chosen.reshape(fields["preferred_shape"])


class _Object(PickledObject):
    """`object`, which Python 2 names as the base of what it reconstructs."""


def _array(data: Any, dtype: Any, shape: Any, order: str, done: _Done) -> np.ndarray:
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
        raise ValueError(f"{len(raw)} bytes for an array of another size")
    done.spend(len(raw))
    values = np.frombuffer(raw, kind) if raw else np.empty(0, kind)
    return values.reshape(shape, order="F" if order == "F" else "C").copy()


def _reconstruct(subtype: Any, shape: Any, kind: Any) -> PickledObject:
    if subtype is not _Array:
        raise ValueError("expected an array")
    return _Array()


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if isinstance(dtype, _DType) and dtype.plain(_Done()).kind == "O":
        raise ValueError("expected a number, got an object scalar")
    return _array(data, dtype, (), "C", _Done())[()]


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return _array(data, dtype, shape, order, _Done())


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("expected Latin-1 text")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Protocols 0 to 2 write empty bytes as `bytes()`."""
    return b""


def _bytearray(data: Any = b"", encoding: Any = "latin1") -> bytearray:
    return bytearray(data if isinstance(data, bytes) else _encode(data, encoding))


def _set(items: Any = ()) -> set[Any]:
    items = list(items)
    _check_keys(items)
    return set(items)


def _frozenset(items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(items))


def _ordered_dict(items: Any = ()) -> "OrderedDict[Any, Any]":
    items = list(items)
    _check_keys(key for key, _ in items)
    return OrderedDict(items)


def _complex(real: Any, imag: Any) -> complex:
    return complex(float(real), float(imag))


def _reconstructor(cls: Any, base: Any, state: Any) -> PickledObject:
    """Python 2's `copy_reg._reconstructor`, for protocols 0 and 1."""
    if not (isinstance(cls, type) and issubclass(cls, PickledObject)) or base is not _Object:
        raise ValueError("expected an object of a known class")
    return cls()


def _table() -> dict[tuple[str, str], Any]:
    table: dict[tuple[str, str], Any] = {
        ("numpy", "dtype"): _DType,
        ("numpy", "ndarray"): _Array,
        ("chumpy.ch", "Ch"): _Chumpy,
        ("chumpy", "Ch"): _Chumpy,
        ("chumpy.reordering", "Select"): _ChumpySelect,
        ("collections", "OrderedDict"): PickledCall(_ordered_dict),
        ("_codecs", "encode"): PickledCall(_encode),
    }
    for core in ("numpy.core", "numpy._core"):
        table[f"{core}.multiarray", "_reconstruct"] = PickledCall(_reconstruct)
        table[f"{core}.multiarray", "scalar"] = PickledCall(_scalar)
        table[f"{core}.numeric", "_frombuffer"] = PickledCall(_frombuffer)
    for builtins in ("builtins", "__builtin__"):
        table[builtins, "object"] = _Object
        table[builtins, "set"] = PickledCall(_set)
        table[builtins, "frozenset"] = PickledCall(_frozenset)
        table[builtins, "bytes"] = PickledCall(_no_bytes)
        table[builtins, "bytearray"] = PickledCall(_bytearray)
        table[builtins, "complex"] = PickledCall(_complex)
    for registry in ("copyreg", "copy_reg"):
        table[registry, "_reconstructor"] = PickledCall(_reconstructor)
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


def _plain(value: Any, done: _Done) -> Any:
    """Put numpy in place of stand-ins; what occurs twice, or in itself, is built once."""
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, PickledObject):
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
    elif isinstance(value, (PickledCall, type)):
        raise ValueError("a function or class by itself is no data")
    else:
        return value
    return done[id(value)]
