"""Simulated cameras, bodies and detectors: endless training pairs from motion capture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bodies import SkeletonBody
from ..configuration import number, pair, share
from ..geometry.rotations import matrix_from_axis_angle
from ..geometry.skeletons import H36M_17, SMPL_24

_PARENTS = H36M_17.parents
#: Bones that share a length factor on both sides of the body, by child joint.
_BONE_GROUPS = ((1, 4), (2, 5), (3, 6), (7,), (8,), (9,), (10,), (11, 14), (12, 15), (13, 16))
#: A limb's joints, by the joint it hangs on.
_ARMS = {11: (12, 13), 14: (15, 16)}
_LEGS = {4: (5, 6), 1: (2, 3)}
#: (right, left, upper, lower) joints of the part of the torso that arms and legs move with.
_CHEST = (14, 11, 8, 7)
_HIPS = (1, 4, 7, 0)
#: What COCO and OpenPose detectors never give, and limbs that an image border or a body hides.
_NOT_DETECTED = (7, 9, 10)
_HIDDEN_LIMBS = ((2, 3), (5, 6), (12, 13), (15, 16), (2, 3, 5, 6), (3, 6))


@dataclass(frozen=True)
class SimulatorConfig:
    """What varies between the frame that was recorded and the pair that is trained on.

    Lengths are in meters, angles in degrees. The defaults cover the fixed cameras of CMU17 with a
    margin; `wide` of the cameras go far beyond them.

    Attributes:
        mirror: Probability of the left-right mirrored pose.
        mix: Probability that the arms or the legs come from another frame.
        bend: Probability that all bones are turned at random; `bend_angle` is the standard
            deviation of each turn about each axis.
        bend_angle: See `bend`.
        build: Probability of another body build: bone lengths times log-normal factors of
            standard deviation `bone_sd` for each pair of bones, `side_sd` for each single bone and
            `size_sd` for the whole body.
        bone_sd: See `build`.
        side_sd: See `build`.
        size_sd: See `build`.
        distance: Nearest and farthest pelvis.
        pitch: Lowest and highest camera pitch (negative looks down).
        off_axis: Standard deviation of the pelvis' angle to the optical axis, across and up.
        wide: Probability of a camera with roll, a pitch of -50 to 30 and a distance of 1.8 to 20.
        noisy: Probability that the 2D has detector noise.
        noise_px: Standard deviation of that noise at `focal_px`.
        focal_px: Focal length that `noise_px` refers to.
        outlier: Probability that a joint of a noisy pose moves by a further `outlier_px`.
        outlier_px: See `outlier`.
        swap: Probability that the legs of a noisy pose are swapped; the same for the arms.
        missing: Probability that joints are missing.

    Example:
        >>> SimulatorConfig(mirror=0.0, missing=0.1).missing
        0.1
    """

    mirror: float = share(0.5)
    mix: float = share(0.25)
    bend: float = share(0.25)
    bend_angle: float = number(6.0)
    build: float = share(0.5)
    bone_sd: float = number(0.05)
    side_sd: float = number(0.02)
    size_sd: float = number(0.03)
    distance: tuple[float, float] = pair((2.5, 8.0), low=0.1, high=1000.0)
    pitch: tuple[float, float] = pair((-18.0, 4.0), low=-90.0, high=90.0)
    off_axis: tuple[float, float] = pair((5.0, 3.0), low=0.0, high=80.0, ordered=False)
    wide: float = share(0.15)
    noisy: float = share(0.5)
    noise_px: float = number(5.0)
    focal_px: float = number(1145.0, above=0.0)
    outlier: float = share(0.05)
    outlier_px: float = number(40.0)
    swap: float = share(0.02)
    missing: float = share(0.35)


@dataclass(frozen=True)
class Batch:
    """Simulated pairs.

    Attributes:
        p2d: Image points `(B, 17, 2)` for focal length 1 and principal point 0.
        confidence: `(B, 17)`, 0 where a joint is missing, else 1.
        p3d: Root-relative joints in camera axes `(B, 17, 3)`, meters.
    """

    p2d: Tensor
    confidence: Tensor
    p3d: Tensor


class CameraSimulator:
    """Random cameras and detectors: what simulators of joints and of bodies share.

    Args:
        config: What varies.
    """

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        self.config = config or SimulatorConfig()

    def _film(self, pose: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """World poses to a camera's axes, in front of it.

        Returns:
            Joints `(B, 17, 3)`, and the turn `(B, 3, 3)` and shift `(B, 3)` that took them there.
        """
        config = self.config
        size, device = len(pose), pose.device

        def between(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(size, generator=generator, device=device)

        def normal() -> Tensor:
            return torch.randn(size, generator=generator, device=device)

        wide = torch.rand(size, generator=generator, device=device) < config.wide
        distance = torch.where(
            wide,
            torch.exp(between(math.log(1.8), math.log(20.0))),
            between(*config.distance),
        )
        pitch = torch.where(wide, between(-50.0, 30.0), between(*config.pitch))
        roll = torch.where(wide, 12.0 * normal(), torch.zeros_like(distance))
        across = config.off_axis[0] * normal().clamp(-2.5, 2.5)
        up = config.off_axis[1] * normal().clamp(-2.5, 2.5)

        # World z up to camera y down, looking along the horizontal, then azimuth, pitch and roll.
        upright = pose.new_tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
        azimuth = _axis_rotation(between(0.0, 360.0), 2)
        turn = _axis_rotation(roll, 2) @ _axis_rotation(pitch, 0) @ upright @ azimuth
        joints = pose @ turn.transpose(1, 2)
        ray = torch.stack(
            [torch.tan(torch.deg2rad(across)), torch.tan(torch.deg2rad(up)), torch.ones_like(up)],
            -1,
        )
        # A limb of a close person can reach behind the camera: step back until it does not.
        short = (0.4 - distance - joints[..., 2].amin(1)).clamp_min(0.0)
        shift = (distance + short)[:, None] * ray
        return joints + shift[:, None], turn, shift

    def _detect(self, p2d: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        config = self.config
        size, device = len(p2d), p2d.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=device)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        noisy = uniform(size, 1, 1) < config.noisy
        level = torch.exp(0.4 * normal(size, 1, 1)) / config.focal_px
        spread = config.noise_px * (0.8 + 0.5 * uniform(size, 17, 1)) * normal(size, 17, 2)
        far = (uniform(size, 17, 1) < config.outlier) * config.outlier_px * normal(size, 17, 2)
        detected = p2d + level * (spread + far)
        for joints in ((1, 2, 3, 4, 5, 6), (11, 12, 13, 14, 15, 16)):
            swapped = detected.clone()
            swapped[:, list(joints)] = detected[:, list(joints[3:] + joints[:3])]
            detected = torch.where(uniform(size, 1, 1) < config.swap, swapped, detected)
        p2d = torch.where(noisy, detected, p2d)

        chosen = uniform(size)
        count = 1 + (8 * uniform(size, 1)).long()
        order = uniform(size, 17).argsort(1)
        random_loss = order < count
        limbs = torch.zeros(len(_HIDDEN_LIMBS), 17, dtype=torch.bool, device=device)
        for row, hidden in enumerate(_HIDDEN_LIMBS):
            limbs[row, list(hidden)] = True
        limb_loss = limbs[torch.randint(len(limbs), (size,), generator=generator, device=device)]
        share = config.missing
        detector = ((chosen >= 0.5 * share) & (chosen < 0.8 * share))[:, None]
        lost = random_loss & (chosen < 0.5 * share)[:, None]
        lost = lost | (limb_loss & ((chosen >= 0.7 * share) & (chosen < share))[:, None])
        lost[:, list(_NOT_DETECTED)] |= detector
        # Such detectors' thorax is the middle of the shoulders.
        middle = 0.5 * (p2d[:, 11] + p2d[:, 14])
        thorax = torch.where(detector, middle, p2d[:, 8])
        p2d = torch.cat([p2d[:, :8], thorax[:, None], p2d[:, 9:]], 1)
        return p2d, (~lost).float()


class Simulator(CameraSimulator):
    """Draws training pairs from recorded poses.

    Args:
        world: Recorded joints `(N, 17, 3)` in meters, z up.
        config: What varies.

    Example:
        >>> from propose_prob.datasets import load_cmu17
        >>> simulator = Simulator(load_cmu17("val").world[:50])
        >>> batch = simulator(8, torch.Generator().manual_seed(0))
        >>> batch.p2d.shape, batch.p3d.shape
        (torch.Size([8, 17, 2]), torch.Size([8, 17, 3]))
    """

    def __init__(self, world: Tensor, config: SimulatorConfig | None = None) -> None:
        super().__init__(config)
        self.pose = world - world[:, :1]

    def __call__(self, size: int, generator: torch.Generator) -> Batch:
        """Draws `size` independent pairs with the given generator (of the poses' device)."""
        pose = self._bodies(size, generator)
        joints, _, _ = self._film(pose, generator)
        p2d, confidence = self._detect(joints[..., :2] / joints[..., 2:], generator)
        return Batch(p2d, confidence, joints - joints[:, :1])

    def _bodies(self, size: int, generator: torch.Generator) -> Tensor:
        config = self.config
        device = self.pose.device

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=device)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        index = torch.randint(len(self.pose), (2, size), generator=generator, device=device)
        pose, other = self.pose[index[0]], self.pose[index[1]]
        mixed = uniform(size) < config.mix
        arms = uniform(size) < 0.5
        pose = _transplant(pose, other, _ARMS, _CHEST, mixed & arms)
        pose = _transplant(pose, other, _LEGS, _HIPS, mixed & ~arms)

        bones = pose - pose[:, list(_PARENTS)]
        build = (uniform(size, 1) < config.build).float()
        log_factor = config.side_sd * normal(size, 17) + config.size_sd * normal(size, 1)
        for group in _BONE_GROUPS:
            log_factor[:, list(group)] += config.bone_sd * normal(size, 1)
        bones = bones * torch.exp(build * log_factor)[..., None]

        angle = math.radians(config.bend_angle) * normal(size, 17, 3)
        angle = angle * (uniform(size, 1, 1) < config.bend)
        turn = matrix_from_axis_angle(angle)
        total = [turn[:, 0]]
        joints = [torch.zeros_like(bones[:, 0])]
        for joint in range(1, 17):
            parent = _PARENTS[joint]
            total.append(total[parent] @ turn[:, joint])
            joints.append(joints[parent] + (total[joint] @ bones[:, joint, :, None])[..., 0])
        pose = torch.stack(joints, 1)
        # The pelvis is by definition the middle of the hips.
        pose = pose - 0.5 * (pose[:, 1:2] + pose[:, 4:5])
        pose[:, 0] = 0

        mirrored = pose[:, list(H36M_17.mirror)] * pose.new_tensor([-1.0, 1.0, 1.0])
        flip = uniform(size, 1, 1) < config.mirror
        return torch.where(flip, mirrored, pose)


def _transplant(
    pose: Tensor,
    other: Tensor,
    limbs: Mapping[int, tuple[int, ...]],
    torso: tuple[int, int, int, int],
    chosen: Tensor,
) -> Tensor:
    """Replaces limbs by another frame's, carried over in axes fixed to the torso."""
    turn = _torso_axes(pose, torso) @ _torso_axes(other, torso).transpose(1, 2)
    result = pose.clone()
    for root, joints in limbs.items():
        for joint in joints:
            offset = (turn @ (other[:, joint] - other[:, root])[..., None])[..., 0]
            result[:, joint] = pose[:, root] + offset
    return torch.where(chosen[:, None, None], result, pose)


def _torso_axes(pose: Tensor, torso: tuple[int, int, int, int]) -> Tensor:
    """Orthonormal axes `(B, 3, 3)` (columns) from a line across the body and one along it."""
    right, left, top, bottom = torso
    x = torch.nn.functional.normalize(pose[:, left] - pose[:, right], dim=-1)
    up = pose[:, top] - pose[:, bottom]
    up = torch.nn.functional.normalize(up - (up * x).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, up, torch.linalg.cross(x, up)], -1)


def _axis_rotation(degrees: Tensor, axis: int) -> Tensor:
    vector = torch.zeros(len(degrees), 3, device=degrees.device)
    vector[:, axis] = torch.deg2rad(degrees)
    return matrix_from_axis_angle(vector)


#: Joints of SMPL's tree whose rotations make the pose of the arms, and of the legs.
_ARM_ROTATIONS = (13, 14, 16, 17, 18, 19, 20, 21, 22, 23)
_LEG_ROTATIONS = (1, 2, 4, 5, 7, 8, 10, 11)


@dataclass(frozen=True)
class BodyBatch:
    """Simulated pairs of keypoints and bodies.

    Attributes:
        p2d: Image points of the body's Human3.6M-17 joints `(B, 17, 2)`, focal length 1, principal
            point 0.
        confidence: `(B, 17)`, 0 where a joint is missing, else 1.
        p3d: Root-relative joints in camera axes `(B, 17, 3)`, meters.
        theta: Local rotations `(B, 24, 3, 3)`, the first one in camera axes.
        shape: Shape coefficients `(B, 10)`.
        translation: Of the body in camera axes, `(B, 3)` meters.
    """

    p2d: Tensor
    confidence: Tensor
    p3d: Tensor
    theta: Tensor
    shape: Tensor
    translation: Tensor


class BodySimulator(CameraSimulator):
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
        for limbs, here in ((_ARM_ROTATIONS, mixed & arms), (_LEG_ROTATIONS, mixed & ~arms)):
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
