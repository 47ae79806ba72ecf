"""Completion: a whole pose where some of its joints or bones are known in 3D."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ..bodies import Body, SkeletonBody
from ..distributions import EmpiricalDistribution, JointLikelihood, PointLikelihood
from ..distributions.likelihoods import Kernel
from ..errors import InputError
from ..geometry.rotations import matrix_from_6d
from ..inference.posteriors import Method, Posterior, posterior

__all__ = ["CompletedPose", "complete", "complete_pose"]

#: Standard deviation, meters, of where a pose stands about the middle of its known joints.
_PLACE = 2.0

CompletionModel = Callable[[Tensor | None, Tensor | None], None]


@dataclass(frozen=True, eq=False)
class CompletedPose:
    """Distributions of whole poses, given what was known of them; `B` poses.

    Attributes:
        distribution: Weighted draws of what the given distribution was over, joints `(J, 3)` or 6D
            rotations `(K, 6)`.
        joints: Weighted draws of the joints in which positions were given, meters; the same draws
            in the same order.
        k_hat: Whether the weights can be trusted, `(B,)`: below 0.7 they can (see
            `inference.Posterior`). None for NUTS, which has no weights.
        effective_sample_size: Of how many independent draws they are worth, `(B,)`.
        posterior: All sites, and what ArviZ needs.

    Example:
        >>> distribution = dist.Normal(torch.zeros(2, 17, 3), 0.3).to_event(2)
        >>> known = torch.full((2, 17, 3), torch.nan)
        >>> known[:, 13] = torch.tensor([0.2, -0.1, 0.4])
        >>> completed = complete(distribution, known, num_samples=200)
        >>> completed.joints.sample((5,)).shape, completed.k_hat.shape
        (torch.Size([5, 2, 17, 3]), torch.Size([2]))
    """

    distribution: EmpiricalDistribution
    joints: EmpiricalDistribution
    k_hat: Tensor | None
    effective_sample_size: Tensor
    posterior: Posterior


def complete_pose(
    distribution: Any,
    *,
    scale: float | Tensor = 0.01,
    orientation_scale: float = 0.05,
    kind: Kernel = "gaussian",
    free_place: bool = False,
    body: Body | None = None,
    shape: Tensor | None = None,
    joint_set: str | None = None,
) -> CompletionModel:
    r"""The Pyro model of a pose of which some joints, or orientations of bones, were measured.

    Sites: `pose`, the distribution's; `offset` `(3,)` where the place is free; `shape` of a body
    where it is
    not given; `known` and `orientations`, observed. Deterministic: `joints`.

    An orientation `R` counts with :math:`-|R - Q|_F^2 / 4 s^2`, which is :math:`-\alpha^2 / 2 s^2`
    for small angles :math:`\alpha` between it and the measured `Q`.

    Args:
        distribution: Distribution of root-relative joints, event shape `(J, 3)`, or of 6D
            rotations, `(K, 6)`, batch shape `(B,)` or `()`.
        scale: Standard deviation of a known joint's coordinates, meters, a number or `(B, J)`.
        orientation_scale: Standard deviation of a known orientation, radians.
        kind: Kernel of both errors; a robust one bears wrong markers.
        free_place: Whether positions are in the sensor's own place, so that where the pose stands
            is unknown, rather than relative to its root. The axes are the distribution's in any
            case.
        body: What a distribution of rotations poses, `SkeletonBody()` by default.
        shape: Its shape, `(num_shape,)` or `(B, num_shape)`; unknown, N(0, I), by default.
        joint_set: Which of the body's joint sets positions are in, one of its regressors; its own
            joints by default.

    Returns:
        A model of known joints `(B, J, 3)`, NaN where unknown, and global orientations
        `(B, K, 3, 3)` of the body's joints, NaN where unknown; either may be None.

    Raises:
        InputError: If the distribution is over neither, or an option does not fit it.

    Example:
        >>> from propose_prob.inference import map_estimate
        >>> known = torch.full((1, 17, 3), torch.nan)
        >>> known[:, 13] = torch.tensor([0.2, -0.1, 0.4])
        >>> model = complete_pose(dist.Normal(torch.zeros(1, 17, 3), 0.3).to_event(2))
        >>> found = map_estimate(model, known, None).values["pose"]
        >>> found[0, 13].round(decimals=1)
        tensor([ 0.2000, -0.1000,  0.4000])
    """
    event = tuple(distribution.event_shape)
    if len(event) != 2 or event[1] not in (3, 6):
        raise InputError(
            f"expected a distribution of joints (J, 3) or 6D rotations (K, 6), got event shape "
            f"{event}"
        )
    if not bool((torch.as_tensor(scale) > 0).all()) or not 0 < orientation_scale < math.inf:
        raise InputError(
            f"expected scales > 0, got scale={scale}, orientation_scale={orientation_scale}"
        )
    posed = event[1] == 6
    if not posed and not (body is None and shape is None and joint_set is None):
        raise InputError(
            "body, shape and joint_set go with a distribution of rotations, got one of joints"
        )
    frame = body or SkeletonBody()
    if posed and joint_set is not None and joint_set not in frame.regressors:
        known_sets = ", ".join(frame.regressors) or "none"
        raise InputError(f"this body cannot give the joint set {joint_set!r}; it has {known_sets}")

    def model(known: Tensor | None, orientations: Tensor | None) -> None:
        given = _first(known, orientations)
        if orientations is not None and not posed:
            raise InputError(
                "orientations of bones go with a distribution of rotations, got one of joints"
            )
        with pyro.plate("problems", len(given)):
            pose = pyro.sample("pose", distribution)
            joints, turned = pose, None
            if posed:
                coefficients = shape
                if shape is None and frame.num_shape:
                    standard = dist.Normal(given.new_zeros(frame.num_shape), 1.0)
                    coefficients = pyro.sample("shape", standard.to_event(1))
                output = frame(matrix_from_6d(pose), coefficients)
                joints, turned = output.joints, output.rotations
                if joint_set is not None:
                    joints = frame.regress(output, joint_set)
                joints = joints - joints[..., :1, :]
            if free_place and known is not None:
                around = known.nanmean(-2).nan_to_num()
                offset = pyro.sample("offset", dist.Normal(around, _PLACE).to_event(1))
                joints = joints + offset[..., None, :]
            pyro.deterministic("joints", joints, event_dim=2)
            if known is not None:
                error = JointLikelihood(joints, scale=scale, kind=kind)
                pyro.sample("known", error, obs=known)
            if orientations is not None and turned is not None:
                width = math.sqrt(2) * orientation_scale
                near = PointLikelihood(turned.flatten(-2), scale=width, kind=kind)
                pyro.sample("orientations", near, obs=orientations.flatten(-2))

    return model


def complete(
    distribution: Any,
    known: Tensor | None = None,
    *,
    orientations: Tensor | None = None,
    scale: float | Tensor = 0.01,
    orientation_scale: float = 0.05,
    kind: Kernel = "gaussian",
    free_place: bool = False,
    body: Body | None = None,
    shape: Tensor | None = None,
    joint_set: str | None = None,
    method: Method = "importance",
    num_samples: int = 1000,
    seed: int = 0,
) -> CompletedPose:
    """Condition on joints that a depth sensor or markers saw, or bones that an IMU turned.

    Distributions that are given 2D and 3D of the same moment hold what the 2D says; the 3D is
    multiplied in.

    Args:
        distribution: Distribution of joints or of rotations; see `complete_pose`.
        known: Positions `(B, J, 3)`, meters, the distribution's axes; NaN where unknown.
        orientations: Global orientations `(B, K, 3, 3)` of a body's joints; NaN where unknown.
        scale: Standard deviation of a known joint's coordinates, meters.
        orientation_scale: Standard deviation of an orientation, radians.
        kind: Kernel of both errors.
        free_place: Whether where the pose stands is unknown.
        body: What a distribution of rotations poses.
        shape: Its shape, where known.
        joint_set: Joint set of the positions, for a distribution of rotations.
        method: How to draw; see `inference.posteriors`. Weights of importance sampling degenerate
            where many numbers bend strongly: look at `k_hat`, and take `"nuts"` then.
        num_samples: Draws for each pose.
        seed: Of the draws.

    Returns:
        The distributions of the whole poses.

    Raises:
        InputError: If nothing is known of a pose, a shape does not fit, or an option is wrong.

    Example:
        >>> distribution = dist.Normal(torch.zeros(2, 17, 3), 0.3).to_event(2)
        >>> known = torch.full((2, 17, 3), torch.nan)
        >>> known[:, 13] = torch.tensor([0.2, -0.1, 0.4])
        >>> completed = complete(distribution, known, num_samples=200)
        >>> completed.distribution.sample((5,)).shape
        torch.Size([5, 2, 17, 3])
        >>> bool((completed.distribution.mean[:, 13] - known[:, 13]).norm(dim=-1).max() < 0.01)
        True
    """
    model = complete_pose(
        distribution,
        scale=scale,
        orientation_scale=orientation_scale,
        kind=kind,
        free_place=free_place,
        body=body,
        shape=shape,
        joint_set=joint_set,
    )
    _check_known(distribution, known, orientations)
    found = posterior(model, known, orientations, method=method, num_samples=num_samples, seed=seed)
    return CompletedPose(
        distribution=found.distributions["pose"],
        joints=found.distributions["joints"],
        k_hat=found.k_hat,
        effective_sample_size=found.effective_sample_size,
        posterior=found,
    )


def _first(known: Tensor | None, orientations: Tensor | None) -> Tensor:
    given = orientations if known is None else known
    if given is None:
        raise InputError("expected known joints or orientations, got neither")
    return given


def _check_known(distribution: Any, known: Tensor | None, orientations: Tensor | None) -> None:
    count = len(_first(known, orientations))
    something = torch.zeros(count, dtype=torch.bool)
    for name, value, event in (("known", known, (3,)), ("orientations", orientations, (3, 3))):
        if value is None:
            continue
        if value.ndim != 2 + len(event) or value.shape[2:] != event or len(value) != count:
            wanted = f"({count}, {'J' if name == 'known' else 'K'}, {str(event)[1:-1].rstrip(',')})"
            raise InputError(f"expected {name} of shape {wanted}, got {tuple(value.shape)}")
        if bool(value.isinf().any()):
            raise InputError(f"expected {name} finite, or NaN where unknown, got infinite ones")
        there = ~value.isnan().flatten(2).any(-1)
        something |= there.any(-1).cpu()
    if distribution.batch_shape not in ((), (count,)):
        raise InputError(
            f"expected a distribution with batch shape ({count},), got "
            f"{tuple(distribution.batch_shape)}"
        )
    if not bool(something.all()):
        raise InputError(
            f"nothing is known of pose {int((~something).nonzero()[0])}: expected a joint or an "
            "orientation without NaN"
        )
