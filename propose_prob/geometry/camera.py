"""Pinhole cameras: projection, placing a camera, and finding where a pose stands.

Camera axes are x right, y down, z forward, in meters. Image coordinates are in the unit of the
focal length: pixels, or the normalized screen of `normalization.screen_normalize`, where a focal
length in pixels is divided by half the image width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["Extrinsics", "look_at", "project", "root_translation"]


class Extrinsics(NamedTuple):
    """Where a camera stands: `X_cam = rotation @ X_world + translation`.

    Attributes:
        rotation: World axes to camera axes, `(..., 3, 3)`.
        translation: The world's origin seen from the camera, `(..., 3)`, meters.

    Example:
        >>> camera = Extrinsics(torch.eye(3), torch.tensor([0.0, 0.0, 4.0]))
        >>> (torch.zeros(3) @ camera.rotation.mT + camera.translation).tolist()
        [0.0, 0.0, 4.0]
    """

    rotation: Tensor
    translation: Tensor

    def apply(self, points: Tensor) -> Tensor:
        """Bring world points `(..., J, 3)` into camera axes, `(..., J, 3)`."""
        return points @ self.rotation.transpose(-1, -2) + self.translation.unsqueeze(-2)


def project(
    points: Tensor, *, focal: float | Tensor, center: float | Tensor = 0.0, near: float = 1e-2
) -> Tensor:
    """Project points in camera axes to the image of a pinhole camera.

    `u = focal * X / Z + center`. A point behind the camera or nearer than `near` is projected as if
    its depth were `near`: the result stays finite and lies far outside the image, so that a fit is
    pushed back instead of seeing NaN or a mirrored person.

    Args:
        points: Points `(..., 3)` in camera axes, meters.
        focal: Focal length, a number or a tensor that broadcasts against `(..., 2)`.
        center: Principal point, likewise.
        near: Smallest depth, meters.

    Returns:
        Image points `(..., 2)` in the unit of `focal`, y down.

    Raises:
        InputError: If the last dimension is not 3 or `near` is not positive.

    Example:
        >>> project(torch.tensor([1.0, 2.0, 4.0]), focal=1000.0, center=500.0)
        tensor([ 750., 1000.])
    """
    if points.ndim < 1 or points.shape[-1] != 3:
        raise InputError(f"expected points of shape (..., 3), got {tuple(points.shape)}")
    if not near > 0:
        raise InputError(f"expected near > 0, got {near}")
    return focal * (points[..., :2] / points[..., 2:].clamp(min=near)) + center


def look_at(position: Tensor, target: Tensor, *, up: Tensor | None = None) -> Extrinsics:
    """Place a camera at `position` so that `target` is at the center of its image, without roll.

    Args:
        position: The camera's place `(..., 3)` in world axes, meters.
        target: What it looks at `(..., 3)`; leading dimensions broadcast.
        up: The world's upward direction `(..., 3)`; z by default.

    Returns:
        Rotation `(..., 3, 3)` and translation `(..., 3)`.

    Raises:
        InputError: If the last dimension is not 3, or the line of sight has no length or is
            parallel to `up`.

    Example:
        >>> camera = look_at(torch.tensor([0.0, -4.0, 1.0]), torch.tensor([0.0, 0.0, 1.0]))
        >>> camera.apply(torch.tensor([[0.0, 0.0, 2.0]]))  # one meter above: y points down
        tensor([[ 0., -1.,  4.]])
    """
    if up is None:
        up = position.new_tensor([0.0, 0.0, 1.0])
    for name, value in (("position", position), ("target", target), ("up", up)):
        if value.ndim < 1 or value.shape[-1] != 3:
            raise InputError(f"expected {name} of shape (..., 3), got {tuple(value.shape)}")
    sight, up = torch.broadcast_tensors(target - position, up)
    forward = torch.nn.functional.normalize(sight, dim=-1)
    right = torch.linalg.cross(forward, torch.nn.functional.normalize(up, dim=-1))
    if (torch.linalg.vector_norm(right, dim=-1) < 1e-6).any():
        raise InputError("expected a line of sight that has a length and is not parallel to up")
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    rotation = torch.stack([right, down, forward], dim=-2)
    return Extrinsics(rotation, -(rotation @ position.unsqueeze(-1)).squeeze(-1))


def root_translation(
    p3d: Tensor,
    p2d: Tensor,
    *,
    focal: float | Tensor,
    center: float | Tensor = 0.0,
    visible: Tensor | None = None,
) -> Tensor:
    """Find where root-relative poses stand so that they project onto given 2D joints.

    Solves `focal * (X + t)_xy = (p2d - center) * (X + t)_z` for `t` by linear least squares over
    the visible joints, in closed form. This weighs a joint's error by its depth, which hardly
    differs between the joints of one person. With coordinates that no pose in front of the camera
    explains, the depth found may be negative.

    Args:
        p3d: Poses `(..., J, 3)` in camera axes relative to their root, meters; for instance
            hypotheses `(S, B, J, 3)`.
        p2d: Observed joints `(..., J, 2)`; leading dimensions broadcast.
        focal: Focal length in the unit of `p2d`, a number or a tensor that broadcasts against
            `p2d`.
        center: Principal point, likewise.
        visible: Which joints count, `(..., J)` bool; by default those with finite 2D coordinates.
            Others may be NaN.

    Returns:
        Translations `(..., 3)`, meters: `p3d + t[..., None, :]` is the pose in camera axes.

    Raises:
        InputError: If the shapes do not fit.
        InputError: If a pose has fewer than two visible joints, or all of them in one image point.

    Example:
        >>> pose, place = torch.randn(17, 3), torch.tensor([0.5, 0.2, 5.0])
        >>> seen = project(pose + place, focal=1000.0)
        >>> torch.allclose(root_translation(pose, seen, focal=1000.0), place, atol=1e-3)
        True
    """
    joints = p3d.shape[-2] if p3d.ndim > 1 else 0
    if p3d.ndim < 2 or p3d.shape[-1] != 3 or p2d.ndim < 2 or p2d.shape[-2:] != (joints, 2):
        raise InputError(
            "expected poses (..., J, 3) and joints (..., J, 2) with the same J, "
            f"got {tuple(p3d.shape)} and {tuple(p2d.shape)}"
        )
    if visible is None:
        visible = p2d.isfinite().all(dim=-1)
    elif visible.ndim < 1 or visible.shape[-1] != joints:
        raise InputError(f"expected visible of shape (..., {joints}), got {tuple(visible.shape)}")
    count = visible.sum(dim=-1, keepdim=True)
    if not torch.compiler.is_compiling() and (count < 2).any():
        index = tuple((count.squeeze(-1) < 2).nonzero()[0].tolist())
        raise InputError(
            f"at least 2 visible joints are needed to place a pose; batch index {index} has "
            f"{int(count.squeeze(-1)[index])}"
        )
    mask = visible.unsqueeze(-1)
    ray = (torch.where(mask, p2d, torch.zeros_like(p2d)) - center) / focal
    pose = torch.where(mask, p3d, torch.zeros_like(p3d))
    share = mask / count.unsqueeze(-1).to(p3d.dtype)
    # Row by row: t_xy - ray * t_z = ray * Z - (X, Y). Subtracting the mean rows leaves t_z alone.
    gap = ray * pose[..., 2:] - pose[..., :2]
    mean_ray, mean_gap = (share * ray).sum(dim=-2), (share * gap).sum(dim=-2)
    ray_offset = ray - mean_ray.unsqueeze(-2)
    spread = (share * ray_offset.square()).sum(dim=(-2, -1))
    rounding = 4 * torch.finfo(ray.dtype).eps * ray.detach().abs().amax(dim=(-2, -1))
    coincide = spread <= rounding.square()
    if not torch.compiler.is_compiling() and coincide.any():
        index = tuple(coincide.nonzero()[0].tolist())
        raise InputError(f"all visible joints at batch index {index} lie in one image point")
    depth = -(share * ray_offset * (gap - mean_gap.unsqueeze(-2))).sum(dim=(-2, -1)) / spread
    depth = depth.unsqueeze(-1)
    return torch.cat([mean_gap + mean_ray * depth, depth], dim=-1)


def rectify(
    p2d: Tensor, visible: Tensor, *, focal: Tensor, center: Tensor
) -> tuple[Tensor, Tensor]:
    """Image points as a camera of the same place would see them that looks at the person.

    A person off the optical axis is seen turned by the angle of their ray. With known intrinsics
    that turn can be taken out exactly: the points are seen by a virtual camera whose axis is the
    mean ray of the visible joints.

    Args:
        p2d: Image points `(..., J, 2)` in any unit, y down; invisible ones may be anything finite.
        visible: `(..., J)` bool, at least one True.
        focal: Focal length in the unit of `p2d`, broadcastable to `(..., 1, 1)`.
        center: Principal point in the unit of `p2d`, broadcastable to `(..., 1, 2)`.

    Returns:
        Points `(..., J, 2)` for focal length 1 and principal point 0, and the rotation
        `(..., 3, 3)` from the camera's axes to the virtual camera's.

    Example:
        >>> p2d, seen = 900 + 50 * torch.randn(17, 2), torch.ones(17, dtype=torch.bool)
        >>> focal, center = torch.tensor(1145.0), torch.tensor([500.0, 500.0])
        >>> points, rotation = rectify(p2d, seen, focal=focal, center=center)
        >>> bool(points.mean(0).abs().max() < 0.01), rotation.shape
        (True, torch.Size([3, 3]))
    """
    points = (p2d - center) / focal
    rays = torch.cat([points, torch.ones_like(points[..., :1])], -1)
    weight = visible.to(p2d.dtype)[..., None]
    mean = (torch.nn.functional.normalize(rays, dim=-1) * weight).sum(-2)
    x, y, z = torch.nn.functional.normalize(mean, dim=-1).unbind(-1)
    # The smallest rotation that brings the mean ray onto the optical axis; z > 0 in front.
    a, b, s = x * x / (1 + z), y * y / (1 + z), x * y / (1 + z)
    rotation = torch.stack(
        [
            torch.stack([1 - a, -s, -x], -1),
            torch.stack([-s, 1 - b, -y], -1),
            torch.stack([x, y, z], -1),
        ],
        -2,
    )
    turned = rays @ rotation.mT
    # A joint marked invisible may lie behind the virtual camera: keep it finite.
    depth = torch.where(visible[..., None], turned[..., 2:], torch.ones_like(turned[..., 2:]))
    return turned[..., :2] / depth, rotation
