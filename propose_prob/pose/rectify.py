"""Off-axis people: turning the camera so that it looks straight at them."""

from __future__ import annotations

import torch
from torch import Tensor


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
