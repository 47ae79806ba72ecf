"""Simulated cameras and detectors for posed bodies: rotations instead of joints."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bodies import SkeletonBody
from ..pose.rotations import matrix_from_axis_angle
from ..pose.skeleton import SMPL_24
from .simulate import Filming, SimulatorConfig

#: Joints of SMPL's tree whose rotations make the pose of the arms, and of the legs.
_ARMS = (13, 14, 16, 17, 18, 19, 20, 21, 22, 23)
_LEGS = (1, 2, 4, 5, 7, 8, 10, 11)


@dataclass(frozen=True)
class BodyBatch:
    """Simulated pairs of keypoints and bodies.

    Attributes:
        p2d: Image points of the body's Human3.6M-17 joints `(B, 17, 2)`, focal length 1, principal
            point 0.
        confidence: `(B, 17)`, 0 where a joint is missing, else 1.
        p3d: Root-relative joints in camera axes `(B, 17, 3)`, metres.
        theta: Local rotations `(B, 24, 3, 3)`, the first one in camera axes.
        shape: Shape coefficients `(B, 10)`.
        translation: Of the body in camera axes, `(B, 3)` metres.
    """

    p2d: Tensor
    confidence: Tensor
    p3d: Tensor
    theta: Tensor
    shape: Tensor
    translation: Tensor


class BodySimulator(Filming):
    """Draws training pairs from recorded body poses.

    Mirrors, transplants limbs, bends joints and varies the build as `SimulatorConfig` says, on
    rotations; a body of another build has shape coefficients from N(0, I).

    Args:
        theta: Recorded local rotations `(N, 24, 3, 3)` in SMPL's tree, the first in world axes with
            z up.
        shape: The performers' shape coefficients `(N, 10)`.
        config: What varies; bone-length deviations are left to the body's shape.
    """

    def __init__(self, theta: Tensor, shape: Tensor, config: SimulatorConfig | None = None) -> None:
        super().__init__(config)
        self.theta = theta
        self.shape = shape
        self.body = SkeletonBody().to(theta.device)

    def __call__(self, size: int, generator: torch.Generator) -> BodyBatch:
        """Draws `size` independent pairs with the given generator (of the poses' device)."""
        theta, shape = self._posed(size, generator)
        pose = self.body.regress(self.body(theta, shape))
        root = pose[:, 0]
        joints, turn, shift = self._film(pose - root[:, None], generator)
        p2d, confidence = self._detect(joints[..., :2] / joints[..., 2:], generator)
        translation = shift - (turn @ root[..., None])[..., 0]
        theta = torch.cat([(turn @ theta[:, 0])[:, None], theta[:, 1:]], 1)
        p3d = joints - joints[:, :1]
        return BodyBatch(p2d, confidence, p3d, theta, shape, translation)

    def _posed(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        config, device = self.config, self.theta.device

        def chosen(probability: float) -> Tensor:
            return torch.rand(size, generator=generator, device=device) < probability

        index = torch.randint(len(self.theta), (2, size), generator=generator, device=device)
        theta, other = self.theta[index[0]], self.theta[index[1]]
        mixed, arms = chosen(config.mix), chosen(0.5)
        for limbs, here in ((_ARMS, mixed & arms), (_LEGS, mixed & ~arms)):
            moved = torch.zeros(theta.shape[1], dtype=torch.bool, device=device)
            moved[list(limbs)] = True
            theta = torch.where((here[:, None] & moved)[..., None, None], other, theta)
        angle = math.radians(config.bend_angle) * torch.randn(
            size, theta.shape[1], 3, generator=generator, device=device
        )
        bent = theta @ matrix_from_axis_angle(angle)
        theta = torch.where(chosen(config.bend)[:, None, None, None], bent, theta)
        theta = torch.where(chosen(config.mirror)[:, None, None, None], mirror_theta(theta), theta)
        build = torch.randn(size, self.shape.shape[1], generator=generator, device=device)
        shape = torch.where(chosen(config.build)[:, None], build, self.shape[index[0]])
        return theta, shape


def mirror_theta(theta: Tensor) -> Tensor:
    """Rotations `(..., 24, 3, 3)` of the mirrored pose, left and right exchanged.

    The mirror is the plane x = 0, in the body's rest axes and in those of its orientation.
    """
    flip = theta.new_tensor([-1.0, 1.0, 1.0])
    return theta[..., list(SMPL_24.mirror), :, :] * flip[:, None] * flip
