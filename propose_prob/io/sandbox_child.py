"""The isolated child process of `sandbox`: reads one untrusted file, writes plain arrays.

It runs by its path in Python's isolated mode and imports nothing of this package. The file is its
standard input; what it holds goes to the standard output, a regular file, as a zip of `.npy`
members and an index. What is refused is said in one line on the standard error.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

#: HDF5's own filters and h5py's LZF; others would be loaded from libraries on this machine.
_FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})

#: Groups in groups, objects in a file, attributes of an object and entries of an attribute.
_DEPTH, _OBJECTS, _ATTRIBUTES, _ENTRIES = 16, 100_000, 1000, 100_000

#: Bytes of a chunk, which is unpacked whole.
_CHUNK = 2**28

#: Of a version 5 file of MATLAB: its header's length and the tag of compressed data.
_HEADER, _COMPRESSED = 128, 15


class _Refused(Exception):
    """What is said of a file that is not read."""


class _Budget:
    """What a file may unpack to, all of it together."""

    def __init__(self, largest: int) -> None:
        self._largest, self._size = largest, 0

    def spend(self, size: int, name: str) -> None:
        self._size += size
        if self._size > self._largest:
            raise _Refused(
                f"{name[:80]!r} would unpack to more than {self._largest} bytes with what is "
                "before it; such a file is not read"
            )


class _Output:
    """The archive that the other side reads."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED)
        self._count = 0

    def add(self, array: Any) -> int:
        """Write an array and return its number."""
        import numpy as np

        with self._archive.open(f"{self._count}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)
        self._count += 1
        return self._count - 1

    def finish(self, index: dict[str, Any]) -> None:
        self._archive.writestr("index.json", json.dumps(index))
        self._archive.close()


def _check_hdf5(file: Any, budget: _Budget | None = None) -> set[int]:
    """Refuse whatever would reach beyond the file, before any of its data are read.

    Names may lead to other files (external, soft and user-defined links), the numbers of a
    dataset may lie in any file of the machine (external storage) or in another HDF5 file (virtual
    datasets), and a filter may be any library.

    Returns:
        The addresses of the datasets.
    """
    import h5py

    datasets: set[int] = set()
    groups = {h5py.h5o.get_info(file.id).addr}
    left: list[tuple[Any, str, int]] = [(h5py.h5g.open(file.id, b"/"), "", 0)]
    while left:
        group, path, depth = left.pop()
        _check_attributes(group, path)
        for name in group:
            where = f"{path}/{name.decode(errors='replace')}"
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise _Refused(f"{where[:80]!r} is a link to another place; such are not followed")
            info = h5py.h5o.get_info(group, name)
            if len(datasets) + len(groups) > _OBJECTS:
                raise _Refused(f"more than {_OBJECTS} objects")
            if info.type == h5py.h5o.TYPE_GROUP:
                if info.addr in groups or depth == _DEPTH:
                    raise _Refused(f"{where[:80]!r} is a group met before, or too deep in others")
                groups.add(info.addr)
                left.append((h5py.h5g.open(group, name), where, depth + 1))
            elif info.type == h5py.h5o.TYPE_DATASET and info.addr not in datasets:
                datasets.add(info.addr)
                dataset = h5py.h5d.open(group, name)
                _check_dataset(dataset, where)
                if budget is not None:
                    each = max(8, dataset.get_type().get_size())
                    budget.spend(math.prod(dataset.shape or ()) * each, where)
                    if dataset.get_type().get_class() == h5py.h5t.REFERENCE:
                        raise _Refused(f"{where[:80]!r} holds references in place of numbers")
    return datasets


def _check_dataset(dataset: Any, where: str) -> None:
    import h5py

    stored = dataset.get_create_plist()
    layout = stored.get_layout()
    if stored.get_external_count():
        raise _Refused(f"{where[:80]!r} is stored in other files (external storage)")
    if layout not in (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise _Refused(f"{where[:80]!r} is a view of other files (a virtual dataset)")
    for place in range(stored.get_nfilters()):
        if (number := stored.get_filter(place)[0]) not in _FILTERS:
            raise _Refused(f"{where[:80]!r} is packed by filter {number}, which is not HDF5's own")
    if layout == h5py.h5d.CHUNKED:
        chunk = math.prod(stored.get_chunk()) * dataset.get_type().get_size()
        if chunk > _CHUNK:
            raise _Refused(f"{where[:80]!r} has chunks of {chunk} bytes")
    _check_attributes(dataset, where)


def _check_attributes(thing: Any, where: str) -> None:
    import h5py

    count = h5py.h5a.get_num_attrs(thing)
    if count > _ATTRIBUTES:
        raise _Refused(f"{where[:80]!r} has {count} attributes")
    for number in range(count):
        entries = math.prod(h5py.h5a.open(thing, index=number).shape)
        if entries > _ENTRIES:
            raise _Refused(f"an attribute of {where[:80]!r} has {entries} entries")


def _netcdf(file: IO[bytes], request: dict[str, Any], output: _Output) -> dict[str, Any]:
    import h5netcdf  # type: ignore[import-untyped]
    import h5py

    budget, arrays = _Budget(request["largest"]), {}
    # Opened by h5py: h5netcdf complains on the standard error about what it could not open.
    with h5py.File(file, "r") as opened:
        _check_hdf5(opened, budget)
        with h5netcdf.File(opened, "r") as root:
            attributes = {str(name): _attribute(value) for name, value in root.attrs.items()}
            for group in (root, *root.groups.values()):
                for name, variable in group.variables.items():
                    values = _values(name, variable, budget, request["size"])
                    if variable.dimensions[:2] == ("chain", "draw"):
                        # Of the one chain, items first.
                        values = values[0].swapaxes(0, 1)
                    arrays[name] = output.add(values)
    return {"arrays": arrays, "attributes": attributes}


def _values(name: str, variable: Any, budget: _Budget, size: int) -> Any:
    import h5py
    import numpy as np

    text = h5py.check_string_dtype(variable.dtype)
    shape = tuple(variable.shape)
    count = math.prod(shape)
    if text is None:
        if variable.dtype.kind not in "biuf":
            raise _Refused(f"{name[:80]!r} holds {variable.dtype} in place of numbers or text")
        return np.asarray(variable[...])
    if len(shape) > 1:
        raise _Refused(f"{name[:80]!r} is text of shape {shape}, in place of a list")
    if not shape:
        return np.array(_text(variable[()]))
    # A text may be stored once and stand everywhere, so only some are read at a time.
    step = max(256, 2**26 // (size + 1))
    words: list[str] = []
    longest = 1
    for start in range(0, count, step):
        part = [_text(word) for word in variable[start : start + step]]
        budget.spend(sum(map(len, part)), name)
        longest = max([longest, *map(len, part)])
        words += part
    budget.spend(4 * longest * count, name)
    return np.array(words, dtype=f"U{longest}")


def _text(value: Any) -> str:
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def _attribute(value: Any) -> Any:
    import numpy as np

    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
        return [_attribute(part) for part in value] if isinstance(value, list) else value
    return value if isinstance(value, str | int | float | bool) else str(value)


def _matlab73(file: IO[bytes], request: dict[str, Any], output: _Output) -> dict[str, Any]:
    import h5py
    import numpy as np

    budget = _Budget(request["largest"])
    found: dict[str, Any] = {}
    with h5py.File(file, "r") as root:
        known = _check_hdf5(root)

        def numbers(key: str, variable: Any) -> int:
            if not isinstance(variable, h5py.Dataset) or variable.dtype.kind not in "fiub":
                raise _Refused(f"expected numbers in {key}, got something else")
            # Together: a cell array may name one large array over and over.
            budget.spend(math.prod(variable.shape or ()) * 8, key)
            # HDF5 has MATLAB's axes in reverse.
            return output.add(np.asarray(variable[()]).T)

        for key in request["keys"]:
            if key not in root:
                continue
            variable = root[key]
            if not isinstance(variable, h5py.Dataset):
                raise _Refused(f"expected numbers in {key}, got a struct")
            if variable.dtype != h5py.ref_dtype:
                found[key] = numbers(key, variable)
                continue
            budget.spend(math.prod(variable.shape) * 8, key)
            cells = []
            for reference in variable[()].ravel():
                cell = root[reference]
                if h5py.h5o.get_info(cell.id).addr not in known:
                    raise _Refused(f"a cell of {key} is no dataset with a name")
                cells.append(numbers(key, cell))
            found[key] = cells
    return {"arrays": found}


def _matlab5(file: IO[bytes], request: dict[str, Any], output: _Output) -> dict[str, Any]:
    from scipy.io import loadmat

    budget = _Budget(request["largest"])
    _check_version5(file, request["largest"])
    file.seek(0)
    found: dict[str, Any] = {}
    for key, value in loadmat(file, variable_names=request["keys"]).items():
        if key in request["keys"]:
            cells = value.dtype == object
            numbers = []
            for part in value.ravel(order="F") if cells else [value]:
                if getattr(part, "dtype", value.dtype).kind not in "fiub":
                    raise _Refused(f"expected numbers in {key}, got something else")
                budget.spend(part.size * 8, key)
                numbers.append(output.add(part))
            found[key] = numbers if cells else numbers[0]
    return {"arrays": found}


def _check_version5(file: IO[bytes], largest: int) -> None:
    """Unpack what is packed, a piece at a time, to see how much it is."""
    budget = _Budget(largest)
    order: Any = "little" if file.read(_HEADER)[126:] == b"IM" else "big"
    while len(tag := file.read(8)) == 8:
        kind, length = (int.from_bytes(part, order) for part in (tag[:4], tag[4:]))
        if kind != _COMPRESSED:
            file.seek(length, os.SEEK_CUR)
            continue
        end, unpack = file.tell() + length, zlib.decompressobj()
        for piece in _pieces(file, end):
            budget.spend(len(unpack.decompress(piece)), "a variable")


def _pieces(file: IO[bytes], end: int) -> Iterator[bytes]:
    while (left := end - file.tell()) > 0 and (piece := file.read(min(left, 2**16))):
        yield piece


def _limit(request: dict[str, Any]) -> None:
    try:
        import resource
    except ImportError:
        return
    seconds, written = request["seconds"], 2 * request["largest"] + 2**20
    for kind, soft, hard in (
        (resource.RLIMIT_AS, request["memory"], request["memory"]),
        # The soft one ends it by a signal that tells why.
        (resource.RLIMIT_CPU, seconds, seconds + 5),
        (resource.RLIMIT_FSIZE, written, written),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        # Where a lower limit holds already, or the system knows none.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (soft, hard))


_READERS = {"netcdf": _netcdf, "matlab73": _matlab73, "matlab5": _matlab5}


def main(arguments: Sequence[str]) -> int:
    """Read the file on the standard input as a request says; the exit code says whether it was."""
    request = json.loads(arguments[0])
    sys.path += request["paths"]
    _limit(request)
    file = os.fdopen(0, "rb", closefd=False)
    file.seek(0)
    try:
        output = _Output(os.fdopen(1, "wb", closefd=False))
        output.finish(_READERS[request["kind"]](file, request, output))
    except _Refused as error:
        reason = str(error)
    # No package says what it raises on damaged files; h5py alone has six kinds.
    except Exception as error:
        lines = str(error).splitlines()
        reason = lines[0] if lines else type(error).__name__
    else:
        return 0
    print(reason[:300].encode("ascii", "backslashreplace").decode(), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
