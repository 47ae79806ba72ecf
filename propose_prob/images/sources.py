"""Batches of people in images: from renders, varied as photographs vary."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ..configuration import number, share
from ..geometry.rotations import matrix_from_axis_angle
from ..geometry.skeletons import H36M_17
from ..training.simulation import mirror_theta
from .render_set import RenderSet

__all__ = ["AugmentConfig", "ImageBatch", "ImageSource", "RenderSource", "augment"]


@dataclass(frozen=True)
class ImageBatch:
    """B people in square crops, each seen by the crop's own camera.

    That camera looks at the crop's middle (x right, y down, z forward): the principal point is the
    middle, and orientations and joints are in its axes.

    Attributes:
        images: `(B, 3, S, S)`, RGB in 0..1.
        keypoints: Human3.6M-17 joints `(B, 17, 2)`, pixels of the crop; the first pixel's middle is
            (0.5, 0.5).
        visible: Which are annotated, `(B, 17)` bool.
        focal: Focal length `(B,)`, pixels of the crop.
        theta: Local rotations `(B, 24, 3, 3)`.
        shape: `(B, S)`.
        joints: Human3.6M-17 joints `(B, 17, 3)`, meters, from any origin.
        has_body: Whose theta, shape and joints are known `(B,)`, bool.
    """

    images: Tensor
    keypoints: Tensor
    visible: Tensor
    focal: Tensor
    theta: Tensor
    shape: Tensor
    joints: Tensor
    has_body: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> ImageBatch:
        """The same people on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)}
        return ImageBatch(**moved)


class ImageSource(Protocol):
    """People in images, by number."""

    def __len__(self) -> int:
        """How many there are."""

    def __call__(self, rows: Tensor) -> ImageBatch:
        """The people of some numbers `(B,)`."""


class RenderSource:
    """A set of renders as a source.

    Args:
        renders: The set.
    """

    def __init__(self, renders: RenderSet) -> None:
        self.renders = renders

    def __len__(self) -> int:
        return len(self.renders)

    def __call__(self, rows: Tensor) -> ImageBatch:
        """The people of some rows `(B,)`."""
        rows = rows.cpu()
        renders = self.renders
        return ImageBatch(
            images=renders.images(rows).permute(0, 3, 1, 2).float() / 255,
            keypoints=renders.keypoints[rows],
            visible=renders.visible[rows],
            focal=renders.focal[rows],
            theta=renders.theta[rows],
            shape=renders.shape[rows],
            joints=renders.joints[rows],
            has_body=torch.ones(len(rows), dtype=torch.bool),
        )


@dataclass(frozen=True)
class AugmentConfig:
    """What varies between an image and what is trained on.

    Attributes:
        mirror: Probability of the mirrored image.
        scale: Standard deviation of the logarithm of the crop's scale.
        shift: Of the crop's middle along each axis, as a share of its side.
        roll: Of the turn in the image, degrees.
        color: Of the logarithm of each channel's gain.
        contrast: Of the logarithm of brightness, contrast and gamma.
        gray: Probability of an image without colors.
    """

    mirror: float = share(0.5)
    scale: float = number(0.08)
    shift: float = number(0.03)
    roll: float = number(8.0)
    color: float = number(0.1)
    contrast: float = number(0.15)
    gray: float = share(0.1)


def augment(batch: ImageBatch, config: AugmentConfig, generator: torch.Generator) -> ImageBatch:
    """A varied batch: pixels, keypoints, intrinsics and bodies change together.

    Scale and roll are what another crop or a rolled camera would give, exactly. A shift moves the
    crop's middle, so its camera looks elsewhere and the body's orientation turns with it; pixels
    move as one, which is right to first order in the angle.

    Args:
        batch: The people.
        config: What varies.
        generator: Source of randomness, of the batch's device.
    """
    count, _, size, _ = batch.images.shape
    device = batch.images.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator, device=device)

    flip = torch.rand(count, generator=generator, device=device) < config.mirror
    batch = _mirrored(batch, flip)
    scale = torch.exp(config.scale * normal())
    shift = config.shift * size * normal(2).clamp(-2.5, 2.5)
    roll = math.radians(config.roll) * normal().clamp(-3, 3)
    images = _warp(batch.images, scale, shift, roll)
    middle = 0.5 * size
    cos, sin = roll.cos(), roll.sin()
    turn2 = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    keypoints = batch.keypoints - (middle + shift)[:, None]
    keypoints = scale[:, None, None] * (keypoints @ turn2.mT) + middle
    turn = _roll(roll) @ _aim(shift / batch.focal[:, None])
    theta = torch.cat([(turn @ batch.theta[:, 0])[:, None], batch.theta[:, 1:]], 1)
    inside = ((keypoints > 0) & (keypoints < size)).all(-1)
    return dataclasses.replace(
        batch,
        images=_colored(images, config, generator),
        keypoints=keypoints,
        visible=batch.visible & inside,
        focal=batch.focal * scale,
        theta=theta,
        joints=batch.joints @ turn.mT,
    )


def _mirrored(batch: ImageBatch, flip: Tensor) -> ImageBatch:
    size = batch.images.shape[-1]
    order = list(H36M_17.mirror)
    over, sign = batch.keypoints.new_tensor([size, 0.0]), batch.keypoints.new_tensor([-1.0, 1.0])

    def where(changed: Tensor, same: Tensor) -> Tensor:
        return torch.where(flip.view(-1, *[1] * (same.dim() - 1)), changed, same)

    joints = batch.joints[:, order] * batch.joints.new_tensor([-1.0, 1.0, 1.0])
    return dataclasses.replace(
        batch,
        images=where(batch.images.flip(-1), batch.images),
        keypoints=where(over + sign * batch.keypoints[:, order], batch.keypoints),
        visible=where(batch.visible[:, order], batch.visible),
        theta=where(mirror_theta(batch.theta), batch.theta),
        joints=where(joints, batch.joints),
    )


def _warp(images: Tensor, scale: Tensor, shift: Tensor, roll: Tensor) -> Tensor:
    """Images whose pixel `q` is the old one's at `R^T (q - middle) / scale + middle + shift`."""
    cos, sin = roll.cos() / scale, roll.sin() / scale
    offset = 2 * shift / images.shape[-1]
    rows = torch.stack([cos, sin, offset[:, 0], -sin, cos, offset[:, 1]], -1)
    grid = affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def _colored(images: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    count, device = len(images), images.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator, device=device)

    gain = torch.exp(config.contrast * normal(1, 1, 1) + config.color * normal(3, 1, 1))
    mean = images.mean((1, 2, 3), keepdim=True)
    contrast, gamma = torch.exp(config.contrast * normal(2, 1, 1)).chunk(2, 1)
    images = (mean + contrast * (images - mean)) * gain
    images = images.clamp(1e-4, 1) ** gamma
    gray = torch.rand(count, generator=generator, device=device) < config.gray
    return torch.where(gray[:, None, None, None], images.mean(1, keepdim=True), images)


def _roll(angle: Tensor) -> Tensor:
    vector = torch.zeros(len(angle), 3, dtype=angle.dtype, device=angle.device)
    vector[:, 2] = angle
    return matrix_from_axis_angle(vector)


def _aim(place: Tensor) -> Tensor:
    """The smallest rotations `(B, 3, 3)` that bring the rays of image points `(B, 2)` to the axis.

    The points are for focal length 1 and principal point 0.
    """
    length = place.norm(dim=-1, keepdim=True)
    # The axis is ray x z; both are unit vectors along it after division by the length.
    axis = torch.stack([place[:, 1], -place[:, 0], torch.zeros_like(place[:, 0])], -1)
    return matrix_from_axis_angle(axis / length.clamp_min(1e-9) * length.atan())
