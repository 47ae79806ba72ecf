"""Network input features from 2D keypoints."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.camera import rectify
from ..geometry.normalization import normalize_keypoints, visible_joints

#: Features besides 2D and visibility: whether intrinsics are known, and the angular size then.
EVIDENCE_EXTRA = 2

#: Typical log of the angular size of a person (root mean square radius over focal length).
_LOG_SIZE = -2.4


class Evidence(NamedTuple):
    """What a model is told about a pose.

    Attributes:
        features: `(..., 3 J + 2)`: normalized 2D, visibility, intrinsics known, log angular size.
        rotation: From the camera's axes to those the networks work in, `(..., 3, 3)`; None where
            they are the same.
        center: What the normalization took off, `(..., 2)`: in the unit of the keypoints, or for
            focal length 1 where intrinsics are known.
        scale: What it divided by, `(...)`, same unit.

    Example:
        >>> keypoint_evidence(torch.randn(4, 17, 2)).features.shape
        torch.Size([4, 53])
    """

    features: Tensor
    rotation: Tensor | None
    center: Tensor | None = None
    scale: Tensor | None = None


def keypoint_evidence(
    p2d: Tensor,
    confidence: Tensor | None = None,
    *,
    joints: int = 17,
    focal: Tensor | float | None = None,
    center: Tensor | tuple[float, float] = (0.0, 0.0),
) -> Evidence:
    """Normalizes keypoints; see `ProPose.conditional` for arguments and errors.

    Example:
        >>> p2d = torch.randn(17, 2) * 100 + 500
        >>> keypoint_evidence(p2d, focal=1000.0, center=(500.0, 500.0)).rotation.shape
        torch.Size([3, 3])
    """
    if p2d.dim() < 2 or p2d.shape[-2:] != (joints, 2):
        raise InputError(f"expected keypoints of shape (..., {joints}, 2), got {tuple(p2d.shape)}")
    if not torch.compiler.is_compiling() and 0 in p2d.shape[:-2]:
        raise InputError(f"expected at least one person, got keypoints {tuple(p2d.shape)}")
    rotation = None
    size = None
    if focal is not None:
        focal = torch.as_tensor(focal, dtype=p2d.dtype, device=p2d.device)
        if not torch.compiler.is_compiling() and not bool(((focal > 0) & focal.isfinite()).all()):
            raise InputError("expected a focal length > 0 and finite")
        center = torch.as_tensor(center, dtype=p2d.dtype, device=p2d.device)
        visible = visible_joints(p2d, confidence)
        finite = torch.where(visible[..., None], p2d, torch.zeros_like(p2d))
        p2d, rotation = rectify(
            finite, visible, focal=focal[..., None, None], center=center[..., None, :]
        )
        confidence = visible.to(p2d.dtype)
    normalized = normalize_keypoints(p2d, confidence)
    if focal is not None:
        size = normalized.scale
    features = _features(normalized.p2d, normalized.visible, size)
    return Evidence(features, rotation, normalized.center, normalized.scale)


def _features(p2d: Tensor, visible: Tensor, size: Tensor | None) -> Tensor:
    shape = p2d.shape[:-2] + (1,)
    if size is None:
        extra = [p2d.new_zeros(shape), p2d.new_zeros(shape)]
    else:
        extra = [p2d.new_ones(shape), size.reshape(shape).log() - _LOG_SIZE]
    return torch.cat([p2d.flatten(-2), visible.to(p2d.dtype), *extra], -1)


def camera_in_keypoints(weak: Tensor, evidence: Evidence) -> Tensor:
    """A weak-perspective camera `(..., 3)` of normalized keypoints in the keypoints' own unit.

    Raises:
        InputError: If the evidence does not say how it was normalized.
    """
    if evidence.center is None or evidence.scale is None:
        raise InputError("expected evidence with the center and scale of its normalization")
    scale = evidence.scale[..., None]
    return torch.cat([weak[..., :1] * scale, weak[..., 1:] * scale + evidence.center], -1)


def weak_to_translation(
    camera: Tensor,
    *,
    focal: Tensor | float = 1.0,
    center: Tensor | tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """The translation at which a full-perspective camera sees the body as the weak one does.

    Source: ProHMR, sec. 3.4 (as in HMR and SPIN): depth = focal / scale.

    Args:
        camera: Scale (image units per meter) and place (image units), `(..., 3)`.
        focal: Focal length in image units, a number or `(...)`.
        center: Principal point `(2,)` or `(..., 2)`.

    Returns:
        Translation `(..., 3)`, meters, camera axes.
    """
    focal = torch.as_tensor(focal, dtype=camera.dtype, device=camera.device)
    center = torch.as_tensor(center, dtype=camera.dtype, device=camera.device)
    depth = focal / camera[..., 0]
    return torch.cat(
        [(camera[..., 1:] - center) * (depth / focal)[..., None], depth[..., None]], -1
    )
