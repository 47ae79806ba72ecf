"""Proper scores and standard deviations of sampled distributions.

The energy score is smallest, in expectation, for the distribution that the truth was drawn from:
unlike the best of many hypotheses it cannot be improved by a wrong spread.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["EnergyScores", "crps", "energy_scores", "joint_spread", "nll_per_coordinate"]

# Elements of a chunk of (S, items, J): small enough for a CPU's cache, or large enough to keep
# a GPU busy despite one kernel launch per offset between samples.
_CPU_CHUNK = 1 << 17
_GPU_CHUNK = 1 << 24


class EnergyScores(NamedTuple):
    """Energy scores of a batch, in the unit of the poses.

    Attributes:
        joints: Score of each joint's 3D distribution, ``(B, J)``.
        pose: Score of the distribution of the whole pose vector, ``(B,)``.

    Example:
        >>> scores = energy_scores(torch.randn(50, 4, 17, 3), torch.randn(4, 17, 3))
        >>> scores.joints.shape, scores.pose.shape
        (torch.Size([4, 17]), torch.Size([4]))
    """

    joints: Tensor
    pose: Tensor


@torch.no_grad()
def energy_scores(samples: Tensor, target: Tensor, *, mask: Tensor | None = None) -> EnergyScores:
    """Energy score per joint and of the whole pose, from samples.

    ``ES = mean_s ||x_s - y|| - 1/2 mean_{s != s'} ||x_s - x_s'||`` (Gneiting and Raftery, "Strictly
    proper scoring rules, prediction, and estimation", JASA 2007, eq. 22) with the unbiased mean
    over distinct pairs. Lower is better; a distribution that is one point scores its error. Pairs
    are visited by their offset and items in chunks, so that memory grows with ``S`` and not with
    its square.

    Args:
        samples: Independent samples of each item's distribution, ``(S, B, J, 3)``, any unit, ``S >=
            2``.
        target: True poses, ``(B, J, 3)``, same unit.
        mask: Joints that belong to the pose vector, ``(B, J)`` booleans; all by default. The scores
            of other joints are NaN, and so is the pose score where no joint counts.

    Returns:
        Scores per joint ``(B, J)`` and per pose ``(B,)``, without gradient.

    Raises:
        InputError: If shapes disagree or there are fewer than two samples.

    Example:
        >>> import torch
        >>> joints, pose = energy_scores(torch.zeros(4, 2, 17, 3), torch.ones(2, 17, 3))
        >>> joints.shape, round(float(pose[0]), 3)
        (torch.Size([2, 17]), 7.141)
    """
    check_samples(samples, target, mask)
    if samples.shape[0] < 2:
        raise InputError(f"expected at least 2 samples (axis 0), got {samples.shape[0]}")
    num_samples, batch, joints = samples.shape[:3]
    limit = _CPU_CHUNK if samples.device.type == "cpu" else _GPU_CHUNK
    step = max(1, limit // max(1, num_samples * joints))
    parts = []
    for start in range(0, batch, step):
        part = slice(start, start + step)
        centred = samples[:, part] - target[part]
        counted = None if mask is None else mask[part].bool()
        if counted is not None:
            centred = torch.where(counted[..., None], centred, 0)
        per_joint, per_pose = energy_of(centred)
        if counted is not None:
            per_joint = torch.where(counted, per_joint, torch.nan)
            per_pose = torch.where(counted.any(-1), per_pose, torch.nan)
        parts.append((per_joint, per_pose))
    if not parts:
        return EnergyScores(samples.new_empty(0, joints), samples.new_empty(0))
    return EnergyScores(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]))


@torch.no_grad()
def crps(samples: Tensor, target: Tensor) -> Tensor:
    """Continuous ranked probability score of each coordinate, from samples.

    ``CRPS = mean_s |x_s - y| - 1/2 mean_{s != s'} |x_s - x_s'|``, the energy score in one dimension
    (Gneiting and Raftery, JASA 2007, eq. 21), with the unbiased mean over distinct pairs, in
    ``O(S log S)`` by sorting. Camera axes tell depth (z) from the image plane (x, y).

    Args:
        samples: Independent samples of each item's distribution, ``(S, B, J, 3)``, any unit, ``S >=
            2``.
        target: True poses, ``(B, J, 3)``, same unit.

    Returns:
        Scores ``(B, J, 3)``, same unit.

    Raises:
        InputError: If shapes disagree or there are fewer than two samples.

    Example:
        >>> import torch
        >>> crps(torch.zeros(4, 2, 17, 3), torch.ones(2, 17, 3))[0, 0]
        tensor([1., 1., 1.])
    """
    check_samples(samples, target)
    count = samples.shape[0]
    if count < 2:
        raise InputError(f"expected at least 2 samples (axis 0), got {count}")
    # Centered first: the weights cancel, and so would the digits of a large common offset.
    ordered = (samples - target).sort(dim=0).values
    rank = torch.arange(count, dtype=samples.dtype, device=samples.device)
    # Sum over pairs i < j of x_j - x_i: the k-th smallest is the larger one k times.
    weight = (2 * rank - (count - 1)) / (count * (count - 1))
    return ordered.abs().mean(0) - torch.tensordot(weight, ordered, dims=1)


def nll_per_coordinate(log_prob: Tensor, num_joints: int) -> Tensor:
    """Negative log-density of poses in nats per free coordinate, meters.

    A density over ``3 (J - 1)`` coordinates in meters has the unit ``m^{-3 (J - 1)}``; per
    coordinate the numbers of different joint sets can be compared. In millimeters the same
    distribution scores ``ln 1000 = 6.908`` nats more. An importance-weighted bound (`log_prob_kind
    == "bound"`) makes this an upper bound in expectation.

    Args:
        log_prob: Log-densities of root-relative poses ``(...)``, nats, coordinates in meters.
        num_joints: J, the root included, which has no density.

    Returns:
        Scores ``(...)``, nats per coordinate; lower is better.

    Raises:
        InputError: If there are fewer than two joints.

    Example:
        >>> import math, torch
        >>> normal = torch.distributions.Normal(torch.zeros(48), 0.01)   # 10 mm a coordinate
        >>> float(nll_per_coordinate(normal.log_prob(torch.zeros(48)).sum(), 17))  # ln(0.01 * 2.5)
        -3.686...
    """
    if num_joints < 2:
        raise InputError(f"expected at least 2 joints, got {num_joints}")
    return -log_prob / (3 * (num_joints - 1))


def joint_spread(samples: Tensor) -> Tensor:
    """Root mean square distance of each joint's samples to their mean.

    Args:
        samples: Samples of each item's distribution, ``(S, ..., J, 3)``, any unit.

    Returns:
        Spread per joint, ``(..., J)``, same unit (the biased, divide-by-S estimate).

    Raises:
        InputError: If ``samples`` is not ``(S, ..., J, 3)``.

    Example:
        >>> joint_spread(torch.tensor([[[0.0, 0, 0]], [[2.0, 0, 0]]])).tolist()
        [1.0]
    """
    if samples.ndim < 3 or samples.shape[-1] != 3:
        raise InputError(f"expected samples of shape (S, ..., J, 3), got {tuple(samples.shape)}")
    return (samples - samples.mean(0)).square().sum(-1).mean(0).sqrt()


def check_samples(samples: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
    """Check that samples are (S, B, J, 3), the target (B, J, 3) and the mask (B, J).

    Args:
        samples: Should be ``(S, B, J, 3)`` with ``S >= 1``.
        target: Should be ``(B, J, 3)``.
        mask: Should be ``(B, J)`` or None.

    Raises:
        InputError: If one of them has another shape.
    """
    if samples.ndim != 4 or samples.shape[-1] != 3 or samples.shape[0] == 0:
        raise InputError(f"expected samples of shape (S, B, J, 3), got {tuple(samples.shape)}")
    if target.shape != samples.shape[1:]:
        raise InputError(
            f"expected a target of shape (B, J, 3) = {tuple(samples.shape[1:])}, "
            f"got {tuple(target.shape)}"
        )
    if mask is not None and mask.shape != samples.shape[1:3]:
        raise InputError(
            f"expected a mask of shape (B, J) = {tuple(samples.shape[1:3])}, "
            f"got {tuple(mask.shape)}"
        )


def energy_of(deviations: Tensor, *, smoothing: float = 0.0) -> EnergyScores:
    """Energy scores of samples minus their target; the kernel of `energy_scores`.

    Args:
        deviations: ``(S, B, J, 3)``, ``S >= 2``, any unit.
        smoothing: Added to squared distances, so that gradients exist where two samples agree.

    Returns:
        Scores per joint ``(B, J)`` and per pose ``(B,)``, with gradients where they are asked for.

    Example:
        >>> energy_of(torch.ones(4, 2, 17, 3)).joints.shape
        torch.Size([2, 17])
    """
    num_samples = deviations.shape[0]
    axes_first = deviations.permute(3, 0, 1, 2).contiguous()
    squared = axes_first.square().sum(0)
    per_joint = (squared + smoothing).sqrt().mean(0)
    per_pose = (squared.sum(-1) + smoothing).sqrt().mean(0)
    joint_pairs, pose_pairs = torch.zeros_like(per_joint), torch.zeros_like(per_pose)
    for offset in range(1, num_samples):
        squared = (axes_first[:, offset:] - axes_first[:, :-offset]).square().sum(0)
        pose_pairs = pose_pairs + (squared.sum(-1) + smoothing).sqrt().sum(0)
        joint_pairs = joint_pairs + (squared + smoothing).sqrt().sum(0)
    # Each unordered pair was met once: half the mean over ordered pairs is this sum over S (S - 1).
    pairs = num_samples * (num_samples - 1)
    return EnergyScores(per_joint - joint_pairs / pairs, per_pose - pose_pairs / pairs)
