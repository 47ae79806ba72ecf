"""Write result files batch by batch in constant memory."""

from __future__ import annotations

import errno
import os
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..io.atomic import atomic_file, atomic_path, check_output, scratch_folder
from .netcdf import NetCDFFile, netcdf_file
from .schema import AXES, IMAGE_AXES, LABELS, VARIABLES, stored_labels

__all__ = ["Writer", "atomic_path", "check_output", "open_writer"]

Array = npt.NDArray[Any]

#: Draws of so many people lie together in a NetCDF file.
_CHUNK = 16
#: Bytes that stay free on the disk.
_SPARE = 1 << 24


class Writer(ABC):
    """A result file that is being written; see `open_writer`."""

    def __init__(self, joint_names: Sequence[str], folder: Path) -> None:
        self.joint_names = list(joint_names)
        self._folder = folder

    def append(self, arrays: Mapping[str, Array], labels: Mapping[str, Sequence[Any]]) -> None:
        """Add items.

        Args:
            arrays: Name in `VARIABLES` to values, items first; the same names in every call.
            labels: Name in `LABELS` to one label for each item.

        Raises:
            InputError: If a name is unknown or the numbers of items differ.
            OSError: If the disk is full.
        """
        # Early, rather than after hours of work that would be lost.
        needed = 2 * sum(values.nbytes for values in arrays.values()) + _SPARE
        if shutil.disk_usage(self._folder).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        if set(labels) != set(LABELS) or not set(arrays) <= set(VARIABLES):
            raise InputError(
                f"expected variables of {', '.join(VARIABLES)} and labels {', '.join(LABELS)}, "
                f"got {', '.join(arrays)} and {', '.join(labels)}"
            )
        lengths = {len(values) for values in (*arrays.values(), *labels.values())}
        if len(lengths) != 1:
            raise InputError(f"expected one number of items (axis 0), got {sorted(lengths)}")
        self._append(
            {name: np.asarray(values, np.float32) for name, values in arrays.items()},
            {name: stored_labels(name, values) for name, values in labels.items()},
        )

    @abstractmethod
    def finish(self, attrs: Mapping[str, str | int | float]) -> None:
        """Store the attributes of the whole file; call it once, last."""

    @abstractmethod
    def _append(self, arrays: dict[str, Array], labels: dict[str, list[str]]) -> None: ...


@contextmanager
def open_writer(path: str | Path, *, joint_names: Sequence[str]) -> Iterator[Writer]:
    """Write a `.nc` or `.npz` file; it appears when the block ends without an error.

    * `.nc`: NetCDF that `arviz.from_netcdf` reads: `posterior/pose (chain, draw, item, joint,
      axis)`, `constant_data`, `observed_data`, labels `frame` and `person` in each.
    * `.npz`: the same names, items first (`pose (item, draw, joint, axis)`), readable with
      `allow_pickle=False`; attributes are arrays without dimensions. While it is written it takes
      twice its size on disk.

    Args:
        path: File to write, replaced if it exists.
        joint_names: Names of the joints.

    Yields:
        The writer.

    Raises:
        InputError: If the name ends otherwise, or its folder does not exist.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open_writer(f"{folder}/a.npz", joint_names=["hip"]) as writer:
        ...         writer.append({"spread": np.ones((2, 1))}, {"frame": [7, 8], "person": [0, 0]})
        ...         writer.finish({"model": "none"})
        ...     with np.load(f"{folder}/a.npz", allow_pickle=False) as stored:
        ...         stored["frame"].tolist(), stored["spread"].shape
        (['7', '8'], (2, 1))
    """
    path = Path(path)
    if path.suffix == ".nc":
        with netcdf_file(path) as file:
            yield _NetCDFWriter(file, joint_names, path.parent)
    elif path.suffix == ".npz":
        with scratch_folder(path) as folder, atomic_file(path) as target:
            writer = _NpzWriter(folder, joint_names)
            yield writer
            writer.pack(target)
    else:
        raise InputError(f"{path}: expected an output name that ends in .nc or .npz")


class _NetCDFWriter(Writer):
    def __init__(self, file: NetCDFFile, joint_names: Sequence[str], folder: Path) -> None:
        super().__init__(joint_names, folder)
        self._opened, self._file = file, file.root
        self._items = 0

    def finish(self, attrs: Mapping[str, str | int | float]) -> None:
        with self._opened.writing():
            for name, value in attrs.items():
                self._file.attrs[name] = value

    def _append(self, arrays: dict[str, Array], labels: dict[str, list[str]]) -> None:
        with self._opened.writing():
            self._store(arrays, labels)

    def _store(self, arrays: dict[str, Array], labels: dict[str, list[str]]) -> None:
        if not self._items:
            self._define(arrays)
        start, self._items = self._items, self._items + len(labels["frame"])
        groups = {VARIABLES[name].group for name in arrays}
        for group in groups:
            self._file[group].resize_dimension("item", self._items)
            for name, texts in labels.items():
                self._file[group][name][start : self._items] = np.array(texts, dtype=object)
        for name, values in arrays.items():
            variable = VARIABLES[name]
            stored = self._file[variable.group][name]
            if variable.dims[0] == "draw":
                stored[0, :, start : self._items] = np.moveaxis(values, 1, 0)
            else:
                stored[start : self._items] = values

    def _define(self, arrays: dict[str, Array]) -> None:
        import h5py

        text = h5py.string_dtype()
        names: dict[str, list[str] | Array] = {
            "chain": np.arange(1),
            "joint": self.joint_names,
            "axis": list(AXES),
            "image_axis": list(IMAGE_AXES),
        }
        for name, values in arrays.items():
            variable = VARIABLES[name]
            if variable.group not in self._file.groups:
                self._file.create_group(variable.group)
            group = self._file[variable.group]
            dims, sizes = ("item", *variable.dims), (None, *values.shape[1:])
            chunks = (1024, *values.shape[1:])
            if variable.dims[0] == "draw":
                dims, sizes = ("chain", "draw", "item", *dims[2:]), (1, sizes[1], None, *sizes[2:])
                chunks = (1, values.shape[1], _CHUNK, *values.shape[2:])
                names["draw"] = np.arange(values.shape[1])
            for dim, size in zip(dims, sizes, strict=True):
                if dim not in group.dimensions:
                    group.dimensions[dim] = size
                if dim in names and dim not in group.variables:
                    coordinate = names[dim]
                    if isinstance(coordinate, list):
                        group.create_variable(dim, (dim,), dtype=text)[:] = np.array(
                            coordinate, dtype=object
                        )
                    else:
                        group.create_variable(dim, (dim,), dtype="i8")[:] = coordinate
            for label, description in LABELS.items():
                if label not in group.variables:
                    made = group.create_variable(label, ("item",), dtype=text, chunks=(1024,))
                    made.attrs["long_name"] = description
            stored = group.create_variable(name, dims, dtype="f4", chunks=chunks)
            stored.attrs["units"] = variable.units
            stored.attrs["long_name"] = variable.description
            # xarray and ArviZ then know the labels as coordinates.
            stored.attrs["coordinates"] = " ".join(LABELS)


class _NpzWriter(Writer):
    def __init__(self, folder: Path, joint_names: Sequence[str]) -> None:
        super().__init__(joint_names, folder)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._items = 0
        self._labels: dict[str, list[str]] = {name: [] for name in LABELS}
        self._attrs: dict[str, Array] = {}

    def finish(self, attrs: Mapping[str, str | int | float]) -> None:
        self._attrs = {name: np.asarray(value) for name, value in attrs.items()}

    def pack(self, target: IO[bytes]) -> None:
        """Join the parts to an archive, again without holding them in memory."""
        small = {
            "joint": np.array(self.joint_names),
            "axis": np.array(AXES),
            "image_axis": np.array(IMAGE_AXES),
            **{name: np.array(texts, dtype=np.str_) for name, texts in self._labels.items()},
            **self._attrs,
        }
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for name, shape in self._shapes.items():
                header = {"descr": "<f4", "fortran_order": False, "shape": (self._items, *shape)}
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array_header_1_0(member, header)
                    with (self._folder / name).open("rb") as part:
                        shutil.copyfileobj(part, member, 1 << 20)
            for name, values in small.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)

    def _append(self, arrays: dict[str, Array], labels: dict[str, list[str]]) -> None:
        for name, values in arrays.items():
            shape = self._shapes.setdefault(name, values.shape[1:])
            if shape != values.shape[1:]:
                raise InputError(f"expected {name} of shape (N, *{shape}), got {values.shape}")
            with (self._folder / name).open("ab") as part:
                part.write(np.ascontiguousarray(values, "<f4").data)
        for name, texts in labels.items():
            self._labels[name] += texts
        self._items += len(labels["frame"])
