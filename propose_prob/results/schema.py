"""Schema of stored results: variables, dimensions, units and groups.

ArviZ objects, NetCDF files and npz archives are all written from it, so they cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

__all__ = ["AXES", "IMAGE_AXES", "LABELS", "VARIABLES", "Variable", "stored_labels"]

AXES = ("x", "y", "z")
"""Camera axes: x right, y down, z forward."""

IMAGE_AXES = ("x", "y")


@dataclass(frozen=True)
class Variable:
    """One stored array.

    Attributes:
        group: ArviZ group.
        dims: Dimensions after `item`, in the order of `npz` archives.
        units: Its unit.
        description: What it is, for people.
    """

    group: str
    dims: tuple[str, ...]
    units: str
    description: str


VARIABLES: Mapping[str, Variable] = {
    "pose": Variable(
        "posterior",
        ("draw", "joint", "axis"),
        "m",
        "independent draws of the 3D pose, relative to the root joint, camera axes "
        "(x right, y down, z forward)",
    ),
    "hypothesis": Variable(
        "posterior",
        ("draw", "joint", "axis"),
        "m",
        "the same draws without observation noise",
    ),
    "lp": Variable(
        "sample_stats",
        ("draw",),
        "nat",
        "log-density of each draw under the distribution; how exact, the attribute log_prob_kind "
        "says",
    ),
    "point_estimate": Variable(
        "constant_data", ("joint", "axis"), "m", "point estimate of the distribution (not a mode)"
    ),
    "spread": Variable(
        "constant_data",
        ("joint",),
        "m",
        "root mean square distance of a joint's draws to their mean",
    ),
    "keypoints": Variable(
        "observed_data",
        ("joint", "image_axis"),
        "unit of the input, pixels as a rule",
        "2D joints as given to the model; NaN where not seen",
    ),
    "confidence": Variable(
        "observed_data", ("joint",), "1", "confidence of the 2D joints; 0 where not seen"
    ),
}

LABELS: Mapping[str, str] = {
    "frame": "name of the frame",
    "person": "label of the person within the frame",
}
"""Text labels of every item."""


def stored_labels(name: str, values: Iterable[Any]) -> list[str]:
    """Labels as result files hold them: text, bytes of file names that are none in UTF-8 replaced.

    Args:
        name: What they label, for messages.
        values: One label for each item.

    Raises:
        InputError: If one has a NUL, at which NetCDF and NumPy would end it.
    """
    labels = [str(value).encode("utf-8", "replace").decode() for value in values]
    for label in labels:
        if "\0" in label:
            raise InputError(f"expected labels without NUL, got {label[:80]!r} for a {name}")
    return labels
