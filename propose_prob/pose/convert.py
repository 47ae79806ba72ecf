"""Named conversions between joint sets, and mirror images.

Converting copies the joints that mean the same; a few meanings are defined as a mean of others
(`DERIVED`). What neither rule gives is missing in the result: NaN, with confidence 0. Nothing is
invented, so a nose tip never becomes a base of the skull.
"""

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from propose_prob.errors import InputError
from propose_prob.pose.skeleton import Skeleton

__all__ = ["DERIVED", "convert", "mirror_pose"]

DERIVED: Mapping[str, tuple[str, str]] = {
    "hip_centre": ("right_hip", "left_hip"),
    "thorax": ("right_shoulder", "left_shoulder"),
}
"""Meanings that are the midpoint of two others, for sets that have no such joint themselves."""


@lru_cache(maxsize=64)
def _sources(source: Skeleton, target: Skeleton) -> tuple[tuple[int, int], ...]:
    """Give each target joint the two source joints whose mean it is, (-1, -1) for none."""
    known = {meaning: j for j, meaning in enumerate(source.meanings) if meaning is not None}

    def find(meaning: str | None) -> tuple[int, int]:
        if meaning is None:
            return -1, -1
        if meaning in known:
            return known[meaning], known[meaning]
        if meaning in DERIVED and all(part in known for part in DERIVED[meaning]):
            first, second = DERIVED[meaning]
            return known[first], known[second]
        return -1, -1

    return tuple(find(meaning) for meaning in target.meanings)


def convert(
    x: Tensor, source: Skeleton, target: Skeleton, *, confidence: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Convert poses from one joint set to another.

    A joint of the target is copied from the source's joint of the same meaning, or is the mean of
    the two that define it (`DERIVED`); otherwise it is missing. A source joint counts as missing
    where a coordinate is not finite or its confidence is not positive, and whatever depends on it
    is missing too. Between equal sets the pose is returned as it came.

    Args:
        x: Poses of the source set, `(..., J_source, D)`, any unit, floating point.
        source: The set that `x` is in.
        target: The set to convert to.
        confidence: Confidence of each joint, `(..., J_source)`; without it, finite joints have
            confidence 1.

    Returns:
        The poses `(..., J_target, D)`, NaN where missing, and their confidence `(..., J_target)`:
        that of the source joint, the smaller one for a mean, 0 where missing.

    Raises:
        InputError: If the number of joints is not the source's, the shapes do not fit, or a
            confidence is NaN.

    Example:
        >>> from propose_prob.pose.skeleton import COCO_17, H36M_17
        >>> pose, confidence = convert(torch.ones(17, 2), COCO_17, H36M_17)
        >>> [name for name, c in zip(H36M_17.joint_names, confidence) if c == 0]
        ['Spine', 'Neck/Nose', 'Head']
    """
    if x.ndim < 2 or x.shape[-2] != source.num_joints:
        raise InputError(
            f"expected {source.name} poses of shape (..., {source.num_joints}, D), "
            f"got {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise InputError(f"expected floating-point poses, got {x.dtype}")
    finite = x.isfinite().all(dim=-1)
    if confidence is None:
        confidence = finite.to(x.dtype)
    elif confidence.shape != x.shape[:-1]:
        raise InputError(
            f"expected confidence of shape {tuple(x.shape[:-1])}, got {tuple(confidence.shape)}"
        )
    elif confidence.isnan().any():
        raise InputError("expected confidence between 0 and 1, got NaN")
    if source == target:
        return x, confidence

    pairs = torch.tensor(_sources(source, target), device=x.device)
    first, second = pairs.clamp(min=0).unbind(dim=-1)
    known = finite & (confidence > 0)
    seen = known[..., first] & known[..., second] & (pairs[:, 0] >= 0)
    # NaN must leave before the mean: its gradient would survive the mask.
    clean = torch.where(known.unsqueeze(-1), x, torch.zeros_like(x))
    mean = (clean[..., first, :] + clean[..., second, :]) / 2
    least = torch.minimum(confidence[..., first], confidence[..., second])
    return (
        torch.where(seen.unsqueeze(-1), mean, torch.full_like(mean, torch.nan)),
        torch.where(seen, least, torch.zeros_like(least)),
    )


def mirror_pose(x: Tensor, skeleton: Skeleton) -> Tensor:
    """Mirror poses: negate the first coordinate and exchange left and right.

    Args:
        x: Poses `(..., J, D)`, the first coordinate pointing sideways with 0 on the mirror plane.
        skeleton: The joint set of `x`.

    Returns:
        The mirrored poses, of the same shape.

    Raises:
        InputError: If the number of joints is not the set's.

    Example:
        >>> from propose_prob.pose.skeleton import COCO_17, H36M_17
        >>> pose = torch.randn(17, 3)
        >>> bool((mirror_pose(mirror_pose(pose, H36M_17), H36M_17) == pose).all())
        True
    """
    if x.ndim < 2 or x.shape[-2] != skeleton.num_joints:
        raise InputError(
            f"expected {skeleton.name} poses of shape (..., {skeleton.num_joints}, D), "
            f"got {tuple(x.shape)}"
        )
    swapped = x[..., list(skeleton.mirror), :]
    return torch.cat([-swapped[..., :1], swapped[..., 1:]], dim=-1)
