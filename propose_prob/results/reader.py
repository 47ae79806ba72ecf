"""Read result files of `lift`, `fuse`, `smooth` and `fit` as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError, short
from ..io.archives import read_npz
from ..io.files import check_name, open_file
from ..io.sandbox import read_netcdf
from .schema import AXES, LABELS, VARIABLES

__all__ = ["StoredResult", "read_result"]

Array = npt.NDArray[Any]

#: Arrays of a fitted body, with the dimensions after the item.
_BODY = {"theta": 3, "shape": 1, "translation": 1, "joints": 2}


@dataclass(frozen=True, eq=False)
class StoredResult:
    """Poses of N items, an item being a person in a frame; arrays that a file lacks are missing.

    Attributes:
        joint_names: Names of the J joints.
        frames: Name of each item's frame.
        people: Label of each item's person.
        arrays: Name to array, items first; names and units as in `propose_prob.results.schema`
            (`pose (N, S, J, 3)`, `point_estimate (N, J, 3)`, ...), and for fitted bodies `theta
            (N, K, 3, 3)`, `shape (N, B)`, `translation (N, 3)` and `joints (N, J, 3)`, meters.
        attributes: What the file says about how it was made.

    Example:
        >>> result = StoredResult(
        ...     ("hip", "knee"), ("0", "1"), ("a", "a"), {"point_estimate": np.zeros((2, 2, 3))}
        ... )
        >>> len(result), result.take([1]).frames, result.point.shape
        (2, ('1',), (2, 2, 3))
    """

    joint_names: tuple[str, ...]
    frames: tuple[str, ...]
    people: tuple[str, ...]
    arrays: Mapping[str, Array]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def point(self) -> Array:
        """One pose for each item `(N, J, 3)`, meters: the point estimate or the fitted joints."""
        return self.arrays["point_estimate" if "point_estimate" in self.arrays else "joints"]

    def take(self, rows: Sequence[int] | Array) -> StoredResult:
        """The items of the given rows, in their order."""
        return replace(
            self,
            frames=tuple(self.frames[row] for row in rows),
            people=tuple(self.people[row] for row in rows),
            arrays={name: values[rows] for name, values in self.arrays.items()},
        )


def read_result(path: str | Path) -> StoredResult:
    """Read a result file of the command line, `.nc` or `.npz`.

    Args:
        path: File that `propose-prob lift`, `fuse`, `smooth` or `fit` (`.nc` or `.npz`) wrote.

    Returns:
        Its content; nothing in the file is executed.

    Raises:
        InputError: If there is no such file, it is not a result, or its arrays do not fit together.

    Example:
        >>> import tempfile
        >>> from propose_prob.results.writer import open_writer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open_writer(f"{folder}/a.npz", joint_names=["hip", "knee"]) as writer:
        ...         point = np.zeros((1, 2, 3))
        ...         writer.append({"point_estimate": point}, {"frame": ["7"], "person": ["a"]})
        ...         writer.finish({"model": "none"})
        ...     result = read_result(f"{folder}/a.npz")
        >>> result.frames, result.point.shape, result.attributes["model"]
        (('7',), (1, 2, 3), 'none')
    """
    path = Path(path)
    if path.suffix not in (".nc", ".npz"):
        raise InputError(f"{path}: expected a result file that ends in .nc or .npz")
    stored, attributes = (_netcdf if path.suffix == ".nc" else _npz)(path)
    for name, text in attributes.items():
        check_name(path, "attribute", name)
        if isinstance(text, str):
            check_name(path, name, text)
    return _checked(path, stored, attributes)


def _npz(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    stored = read_npz(path)
    attributes = {name: value.item() for name, value in stored.items() if value.ndim == 0}
    return {name: value for name, value in stored.items() if value.ndim}, attributes


def _netcdf(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    with open_file(path) as file:
        return read_netcdf(file, path)


def _checked(path: Path, stored: Mapping[str, Array], attributes: dict[str, Any]) -> StoredResult:
    missing = [name for name in ("joint", *LABELS) if name not in stored]
    if missing or not {"point_estimate", "joints"} & set(stored):
        raise InputError(
            f"{path}: expected a result with joint, frame, person and point_estimate or joints; "
            f"it has {short(', '.join(sorted(stored))) or 'nothing'}"
        )
    shapes = {name: stored[name].shape for name in ("joint", *LABELS)}
    if any(len(shape) != 1 for shape in shapes.values()) or shapes["frame"] != shapes["person"]:
        raise InputError(
            f"{path}: expected labels of joints, and as many of frames as of people, got shapes "
            f"{', '.join(f'{name} {shape}' for name, shape in shapes.items())}"
        )
    count = len(stored["frame"])
    sizes = {"joint": len(stored["joint"]), "axis": len(AXES), "image_axis": 2}
    arrays = {}
    for name in (*VARIABLES, *_BODY):
        if name not in stored:
            continue
        values = stored[name]
        dims = VARIABLES[name].dims if name in VARIABLES else ()
        expected = [count, *(sizes.get(dim) for dim in dims)] if dims else [count]
        ndim = 1 + (len(dims) or _BODY.get(name, 0))
        if (
            values.ndim != ndim
            or not np.issubdtype(values.dtype, np.floating)
            or any(
                want not in (None, got) for want, got in zip(expected, values.shape, strict=False)
            )
        ):
            raise InputError(
                f"{path}: {name}: expected numbers of shape "
                f"{tuple('*' if want is None else want for want in expected)}, got {values.shape} "
                f"of {values.dtype}"
            )
        arrays[name] = values
    # Once there are not more of them than of poses.
    labels = {}
    for what in ("joint", *LABELS):
        labels[what] = tuple(map(str, stored[what].tolist()))
        for name in labels[what]:
            check_name(path, what, name)
    return StoredResult(
        joint_names=labels["joint"],
        frames=labels["frame"],
        people=labels["person"],
        arrays=arrays,
        attributes=attributes,
    )
