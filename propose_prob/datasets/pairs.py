"""Pairs of 2D and 3D poses from the user's own `.npz`, for evaluation and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError, short
from ..geometry.skeletons import H36M_17, Skeleton, get_skeleton
from ..io.archives import read_npz
from ..io.files import check_name
from .clips import EvaluationBatch

__all__ = ["read_pairs"]

_OPTIONAL = ("confidence", "focal", "center", "action", "sequence", "frame", "skeleton")


def read_pairs(path: str | Path) -> tuple[EvaluationBatch, Skeleton]:
    """Read keypoints with their true poses from one `.npz`, without executing anything in it.

    Needed are `p2d` `(N, J, 2)`, pixels, y down, NaN where missing, and `p3d` `(N, J, 3)`, meters,
    camera axes (x right, y down, z forward), absolute or relative to the root. The file may also
    have `confidence` `(N, J)`, `focal` (a number or `(N,)`, pixels), `center` (`(2,)` or
    `(N, 2)`, pixels; 0 with `focal` alone), labels `action` and `sequence` `(N,)`, `frame` `(N,)`
    and the name of the joint set, `skeleton` (`h36m_17` for 17 joints).

    Args:
        path: The file.

    Returns:
        All items and their joint set.

    Raises:
        InputError: If the file cannot be read, or an array is missing, unknown or of a wrong shape.

    Example:
        >>> import numpy as np, tempfile
        >>> arrays = {"p2d": np.random.rand(20, 17, 2), "p3d": np.random.rand(20, 17, 3)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/pairs.npz", focal=1145.0, **arrays)
        ...     items, skeleton = read_pairs(f"{folder}/pairs.npz")
        >>> len(items), skeleton.name, items.focal.unique().tolist()
        (20, 'h36m_17', [1145.0])
    """
    path = Path(path)
    arrays = read_npz(path)
    missing = [name for name in ("p2d", "p3d") if name not in arrays]
    unknown = sorted(set(arrays) - {"p2d", "p3d", *_OPTIONAL})
    if missing or unknown:
        raise InputError(
            f"{path}: expected the arrays p2d and p3d, and of {', '.join(_OPTIONAL)} what there "
            f"is, got {short(', '.join(sorted(arrays))) or 'none'}"
        )
    p2d, p3d = (_numbers(path, arrays, name) for name in ("p2d", "p3d"))
    if p2d.dim() != 3 or p2d.shape[-1] != 2 or p3d.shape != (*p2d.shape[:2], 3):
        raise InputError(
            f"{path}: expected p2d (N, J, 2) and p3d (N, J, 3), got {tuple(p2d.shape)} and "
            f"{tuple(p3d.shape)}"
        )
    if not bool(p3d.isfinite().all()):
        item, joint, _ = (~p3d.isfinite()).nonzero()[0].tolist()
        raise InputError(
            f"{path}: expected finite p3d, got another number for item {item}, joint {joint}"
        )
    count, joints = p2d.shape[:2]
    if count == 0:
        raise InputError(f"{path}: expected at least one item, got p2d of shape (0, {joints}, 2)")
    skeleton = _skeleton(path, arrays, joints)
    confidence = torch.ones(count, joints)
    if "confidence" in arrays:
        confidence = _shaped(path, arrays, "confidence", (count, joints))
    focal = center = None
    if "center" in arrays and "focal" not in arrays:
        raise InputError(f"{path}: expected focal beside center, got center alone")
    if "focal" in arrays:
        focal = _shaped(path, arrays, "focal", (count,))
        if not bool((focal > 0).all()):
            item = int((focal <= 0).nonzero()[0])
            got = f"{float(focal[item]):g} for item {item}"
            raise InputError(f"{path}: expected focal lengths above 0, got {got}")
        center = torch.zeros(count, 2)
        if "center" in arrays:
            center = _shaped(path, arrays, "center", (count, 2))
    sequence = _labels(path, arrays, "sequence", count)
    frame = torch.arange(count)
    if "frame" in arrays:
        frame = _frames(path, arrays["frame"], count)
    seen = p2d.isfinite().all(-1)
    return EvaluationBatch(
        p2d=p2d,
        confidence=torch.where(seen, confidence, 0),
        p3d=p3d,
        focal=focal,
        center=center,
        action=_labels(path, arrays, "action", count),
        sequence=sequence,
        frame=frame,
        valid=torch.ones(count, dtype=torch.bool),
    ), skeleton


def _skeleton(path: Path, arrays: dict[str, Any], joints: int) -> Skeleton:
    if "skeleton" not in arrays:
        if joints != H36M_17.num_joints:
            raise InputError(
                f"{path}: expected the name of the joint set in skeleton, for p2d has {joints} "
                "joints and not 17"
            )
        return H36M_17
    skeleton = get_skeleton(str(arrays["skeleton"]))
    if skeleton.num_joints != joints:
        raise InputError(
            f"{path}: expected {skeleton.num_joints} joints of {skeleton.name}, got {joints}"
        )
    return skeleton


def _numbers(path: Path, arrays: dict[str, Any], name: str) -> Tensor:
    if arrays[name].dtype.kind not in "fiub":
        raise InputError(f"{path}: expected numbers in {name}, got {arrays[name].dtype}")
    # What exceeds float32 becomes infinite here.
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.asarray(arrays[name], dtype=np.float32))


def _shaped(path: Path, arrays: dict[str, Any], name: str, shape: tuple[int, ...]) -> Tensor:
    value = _numbers(path, arrays, name)
    if value.shape != shape and value.shape != shape[1:]:
        raise InputError(f"{path}: expected {name} of shape {shape}, got {tuple(value.shape)}")
    if not bool(value.isfinite().all()):
        raise InputError(f"{path}: expected finite numbers in {name}, got NaN or infinity")
    return value.expand(shape).contiguous()


def _labels(path: Path, arrays: dict[str, Any], name: str, count: int) -> list[str]:
    if name not in arrays:
        return ["all"] * count
    value = arrays[name]
    if value.shape != (count,):
        raise InputError(f"{path}: expected {name} of shape ({count},), got {value.shape}")
    labels = [str(label) for label in value.tolist()]
    for label in labels:
        check_name(path, name, label)
    return labels


def _frames(path: Path, value: npt.NDArray[Any], count: int) -> Tensor:
    """Numbers of frames, whole: float32 would round those above 2^24."""
    if value.shape not in ((count,), ()) or value.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: expected frame numbers of shape ({count},), got {value.dtype} {value.shape}"
        )
    if not (np.abs(value.astype(np.float64)) < 2**62).all():
        raise InputError(f"{path}: expected frame numbers of 62 bits, got others")
    return torch.from_numpy(value.astype(np.int64)).expand(count).contiguous()
