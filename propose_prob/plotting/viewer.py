"""A self-contained HTML viewer of stored poses."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..geometry.skeletons import Skeleton
from ..io.atomic import write_text
from ..results.reader import StoredResult
from .figures import sides

__all__ = ["write_viewer"]

Array = npt.NDArray[Any]

#: Stands for a missing number where poses are whole millimeters.
_MISSING = -32768
#: Meters that 16 bits hold in millimeters.
_REACH = 32.767
#: Of keypoints and log-densities, which are single precision in a page.
_LARGEST = 1e30


def write_viewer(
    path: str | Path,
    result: StoredResult,
    skeleton: Skeleton,
    *,
    title: str = "3D poses",
    samples: int = 50,
    truth: Array | None = None,
    vertices: Array | None = None,
    faces: Array | None = None,
) -> None:
    """Write stored poses as one self-contained HTML page; it needs the extra `view` (plotly).

    The page shows hypotheses, point estimate, ground truth and surface in 3D, each relative to the
    root joint, the 2D keypoints and the spread of each joint; it needs no network. Poses are stored
    in whole millimeters.

    Args:
        path: File to write, replaced if it exists.
        result: N items, as `read_result` gives them.
        skeleton: The joint set, J joints.
        title: Heading of the page.
        samples: At most so many hypotheses of each item are stored.
        truth: Ground truth `(N, J, 3)`, meters, in the axes of `result`; NaN where unknown.
        vertices: Surface of each item `(N, V, 3)`, meters.
        faces: Its triangles `(F, 3)`, indices of vertices.

    Raises:
        InputError: If plotly is missing, the joints are not those of `skeleton`, a shape does not
            fit, a number is not finite, or a pose reaches 32 m from its root.

    Example:
        >>> import tempfile
        >>> from propose_prob.geometry import H36M_17
        >>> poses = np.random.default_rng(0).normal(size=(3, 10, 17, 3))
        >>> result = StoredResult(
        ...     H36M_17.joint_names, ("0", "1", "2"), ("a",) * 3,
        ...     {"pose": poses, "point_estimate": poses.mean(1)},
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_viewer(f"{folder}/poses.html", result, H36M_17)
        ...     "plotly" in Path(f"{folder}/poses.html").read_text()
        True
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise InputError(
            "the page needs plotly, which is not installed: pip install 'propose_prob[view]'"
        ) from None
    if result.joint_names != tuple(skeleton.joint_names):
        raise InputError(
            f"expected joints {', '.join(skeleton.joint_names)}, got "
            f"{', '.join(result.joint_names)}"
        )
    count, joints = len(result), skeleton.num_joints
    if not count:
        raise InputError("expected at least one pose, got a result without any")
    if (vertices is None) != (faces is None):
        raise InputError("expected vertices and faces together, got only one of them")
    stored = result.arrays
    poses, spread = stored.get("hypothesis", stored.get("pose")), stored.get("spread")
    draws = None if poses is None else poses.shape[1]
    pose = (count, joints, 3)
    _check("the point estimate", result.point, pose)
    _check("hypotheses", poses, (count, draws, joints, 3))
    _check("log-densities (lp)", stored.get("lp"), (count, draws))
    _check("spread", spread, (count, joints))
    _check("keypoints", stored.get("keypoints"), (count, joints, 2), missing=True)
    _check("ground truth", truth, pose, missing=True)
    _check("vertices", vertices, (count, None, 3))
    origin = result.point[:, [skeleton.root]]
    point = result.point - origin
    truth = None if truth is None else truth - truth[:, [skeleton.root]]
    vertices = None if vertices is None else vertices - origin
    for what, values in (("point estimate", point), ("hypotheses", poses), ("spread", spread),
                         ("ground truth", truth), ("surface", vertices)):  # fmt: skip
        _check_reach(what, values)
    arrays: dict[str, Any] = {"point": _millimeters(point)}
    if poses is not None and samples:
        arrays["poses"] = _millimeters(poses[:, :samples])
        if "lp" in stored:
            arrays["lp"] = _packed(stored["lp"][:, :samples], "<f4")
    if spread is not None:
        arrays["spread"] = _millimeters(spread)
    if "keypoints" in stored:
        arrays["keypoints"] = _packed(stored["keypoints"], "<f4")
    if truth is not None:
        arrays["truth"] = _millimeters(truth)
    if vertices is not None and faces is not None:
        arrays["vertices"], arrays["faces"] = _millimeters(vertices), _packed(faces, "<u4")
    content = {
        "joints": list(skeleton.joint_names),
        "root": skeleton.root,
        "bones": [list(bone) for bone in skeleton.bones],
        "sides": sides(skeleton),
        "items": [
            {"frame": frame, "person": person}
            for frame, person in zip(result.frames, result.people, strict=True)
        ],
        "ranges": _ranges([part for part in (point, truth, vertices) if part is not None]),
        "largest_spread": 0.0 if spread is None else 1000 * float(np.nanquantile(spread, 0.99)),
        "arrays": arrays,
    }
    page = (resources.files("propose_prob") / "plotting" / "viewer.html").read_text("utf-8")
    facts = result.attributes
    parts = {
        "TITLE": html.escape(title),
        "SUBTITLE": html.escape(_counted(result)),
        "FOOTER": html.escape(
            "; ".join(f"{name}: {facts[name]}" for name in ("model", "protocol") if name in facts)
        ),
        "DATA": _embedded(content),
        "PLOTLY": get_plotlyjs(),
    }
    head, *rest = re.split("@([A-Z]+)@", page)
    text = [head]
    # Alternately names of places and text between them: what is put in is never searched.
    for place, between in zip(rest[::2], rest[1::2], strict=True):
        text += [parts[place], between]
    write_text(path, "".join(text))


def _counted(result: StoredResult) -> str:
    people, frames = len(set(result.people)), len(set(result.frames))
    draws = result.arrays.get("hypothesis", result.arrays.get("pose"))
    text = f"{people} {'person' if people == 1 else 'people'}, {frames} "
    text += "frame" if frames == 1 else "frames"
    return text + (
        f", {draws.shape[1]} draws of the distribution each" if draws is not None else ""
    )


def _check(
    what: str, values: Array | None, shape: tuple[int | None, ...], *, missing: bool = False
) -> None:
    """Refuse an array of another shape, or whose numbers are none, which a page cannot draw."""
    if values is None:
        return
    if values.ndim != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, values.shape, strict=True)
    ):
        wanted = ", ".join("*" if want is None else str(want) for want in shape)
        raise InputError(f"expected {what} of shape ({wanted}), got {values.shape}")
    if not values.size:
        raise InputError(f"expected {what} with numbers in it, got shape {values.shape}")
    drawn = np.abs(np.nan_to_num(values, nan=0.0 if missing else np.inf)) <= _LARGEST
    if not drawn.all():
        item = int(np.argwhere(~drawn)[0, 0])
        first = values[tuple(np.argwhere(~drawn)[0])]
        raise InputError(f"expected {what} as finite numbers, got {first:g} for item {item}")


def _check_reach(what: str, values: Array | None) -> None:
    """Refuse what whole millimeters of 16 bits do not hold."""
    if values is None:
        return
    far = np.abs(np.nan_to_num(values)).reshape(len(values), -1).max(1)
    if (far > _REACH).any():
        item = int((far > _REACH).argmax())
        raise InputError(
            f"expected {what} within {_REACH} m of the root joint, got {far[item]:.3g} m for item "
            f"{item}"
        )


def _embedded(content: dict[str, Any]) -> str:
    """JSON that nothing in a page takes for anything else, whatever texts are in it."""
    text = json.dumps(content, allow_nan=False)
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _packed(values: Array, dtype: str) -> dict[str, Any]:
    data = base64.b64encode(np.ascontiguousarray(values, dtype).tobytes()).decode()
    return {"type": dtype[1:], "shape": list(values.shape), "data": data}


def _millimeters(values: Array) -> dict[str, Any]:
    whole = np.where(np.isfinite(values), 1000 * values, _MISSING)
    return _packed(np.rint(whole), "<i2")


def _ranges(parts: Sequence[Array]) -> list[list[float]]:
    """A cube of the plot's axes (x right, y away, z up) that holds all poses."""
    flat = np.concatenate([part.reshape(-1, 3) for part in parts])
    flat = flat[np.isfinite(flat).all(-1)][:, [0, 2, 1]] * np.array([1, 1, -1])
    if not len(flat):
        raise InputError("expected at least one finite pose, got only NaN")
    low, high = flat.min(0), flat.max(0)
    half = 0.55 * float((high - low).max()) + 0.05
    middle = (low + high) / 2
    return [[float(m - half), float(m + half)] for m in middle]
