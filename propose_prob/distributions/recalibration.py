"""Recalibrated distributions: deviations from the center scaled joint by joint.

Latents of a decoded distribution belong to no joint, so a temperature on its base cannot widen an
arm alone. An affine map of the pose can: ``x = c + T (y - c)``, one matrix for each joint that has
one factor along the line of sight and one across it. Its log-determinant is known, so the density
stays what it claims to be, and sampling, hypotheses and mode follow by the same map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from ..errors import InputError
from ..geometry.camera import project, root_translation
from ..geometry.normalization import visible_joints
from ..geometry.skeletons import H36M_17, Skeleton
from .decoded import DecodedPoseDistribution, LogProbEstimate
from .flow import FlowDistribution, PoseFlowDistribution, diagonal_normal
from .support import RootRelative

__all__ = [
    "BaseRecalibration",
    "RecalibratedDistribution",
    "Recalibration",
    "RecalibrationFeatures",
    "default_recalibration",
    "joint_groups",
    "point_estimate_of",
    "reprojection_residual_and_rays",
]


def point_estimate_of(distribution: Any) -> Tensor:
    """Point estimate of a distribution, or else its mode, `batch_shape + event_shape`."""
    # Not `hasattr`: that would compute the estimate only to throw it away.
    return (
        distribution.point_estimate
        if hasattr(type(distribution), "point_estimate")
        else distribution.mode
    )


class RecalibratedDistribution(dist.TorchDistribution):
    r"""A distribution over poses whose spread about its center is scaled for each joint.

    .. math:: x_j = c_j + T_j (y_j - c_j), \quad T_j = a_j (I - u_j u_j^T) + d_j u_j u_j^T, \quad
        \log p_T(x) = \log p(c + T^{-1} (x - c)) - \sum_j (2 \log a_j + \log d_j)

    for `y` of distribution `p`: across the line of sight `u` spread is scaled by `a`, along it by
    `d`. The center is the base distribution's point estimate (its mode where it has none) and stays
    where it is.

    Args:
        base: Distribution with event shape `(J, 3)`.
        temperature: `a`, of shape `(..., J)`, positive; a root without a density is left alone.
        depth: `d`, of shape `(..., J)`, positive; left out, it is `a`.
        ray: `u`, unit vectors `(..., J, 3)`; left out, the camera's axis z.
        center: `c`, `(..., J, 3)`, where it has been computed already.
        validate_args: As in torch.

    Raises:
        InputError: If the base is not over poses, or a shape does not fit.

    Example:
        >>> base = dist.Normal(torch.zeros(17, 3), 1.0).to_event(2)
        >>> wide = RecalibratedDistribution(base, torch.full((17,), 2.0))
        >>> expected = dist.Normal(torch.zeros(17, 3), 2.0).to_event(2)
        >>> x = expected.sample((5,))
        >>> torch.allclose(wide.log_prob(x), expected.log_prob(x), atol=1e-3)
        True
    """

    arg_constraints = {
        "temperature": constraints.independent(constraints.positive, 1),
        "depth": constraints.independent(constraints.positive, 1),
    }

    def __init__(
        self,
        base: Distribution,
        temperature: Tensor,
        *,
        depth: Tensor | None = None,
        ray: Tensor | None = None,
        center: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if len(base.event_shape) != 2 or base.event_shape[-1] != 3:
            raise InputError(
                f"expected a distribution over poses, event_shape (J, 3), got "
                f"{tuple(base.event_shape)}"
            )
        joints = base.event_shape[0]
        depth = temperature if depth is None else depth
        for name, factor in (("temperature", temperature), ("depth", depth)):
            if factor.dim() < 1 or factor.shape[-1] != joints:
                raise InputError(
                    f"expected {name} of shape (..., {joints}), got {tuple(factor.shape)}"
                )
        if ray is None:
            ray = temperature.new_tensor([0.0, 0.0, 1.0]).expand(joints, 3)
        elif ray.shape[-2:] != (joints, 3):
            raise InputError(f"expected ray of shape (..., {joints}, 3), got {tuple(ray.shape)}")
        batch = torch.broadcast_shapes(
            base.batch_shape, temperature.shape[:-1], depth.shape[:-1], ray.shape[:-2]
        )
        self.base_distribution: Any = base if batch == base.batch_shape else base.expand(batch)
        self.temperature = temperature.expand(*batch, joints)
        self.depth = depth.expand(*batch, joints)
        self.ray = ray.expand(*batch, joints, 3)
        if center is None:
            center = point_estimate_of(self.base_distribution)
        elif center.shape[-2:] != base.event_shape:
            raise InputError(
                f"expected center of shape (..., {joints}, 3), got {tuple(center.shape)}"
            )
        self.center: Tensor = center.expand(batch + base.event_shape)
        super().__init__(batch, base.event_shape, validate_args=validate_args)

    def expand(
        self,
        batch_shape: torch.Size | list[int] | tuple[int, ...],
        _instance: Distribution | None = None,
    ) -> RecalibratedDistribution:
        """The same distribution with a larger batch shape."""
        new = self._get_checked_instance(RecalibratedDistribution, _instance)
        batch = torch.Size(batch_shape)
        new.base_distribution = self.base_distribution.expand(batch)
        new.temperature = self.temperature.expand(*batch, self.event_shape[0])
        new.depth = self.depth.expand(*batch, self.event_shape[0])
        new.ray = self.ray.expand(batch + self.event_shape)
        new.center = self.center.expand(batch + self.event_shape)
        Distribution.__init__(new, batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> constraints.Constraint:
        """The base distribution's support: the map keeps a root at zero."""
        return self.base_distribution.support

    @property
    def log_prob_kind(self) -> str:
        """The base distribution's: `"exact"` or `"bound"`."""
        return getattr(self.base_distribution, "log_prob_kind", "exact")

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the base distribution's samples carry gradients."""
        return self.base_distribution.has_rsample

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Poses `sample_shape + batch_shape + (J, 3)`, without gradients."""
        with torch.no_grad():
            return self.moved(self.base_distribution.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Poses `sample_shape + batch_shape + (J, 3)`, where the base has `rsample`."""
        return self.moved(self.base_distribution.rsample(torch.Size(sample_shape)))

    def hypotheses(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """The base's hypotheses `sample_shape + batch_shape + (J, 3)`, moved like samples."""
        return self.moved(self.base_distribution.hypotheses(torch.Size(sample_shape)))

    def decode(self, w: Tensor) -> Tensor:
        """Noise-free poses `(..., J, 3)` of the base distribution's latents `(..., d)`."""
        return self.moved(self.base_distribution.decode(w))

    @property
    def latent(self) -> Any:
        """The base distribution's latent distribution, which is not changed."""
        return self.base_distribution.latent

    @property
    def point_estimate(self) -> Tensor:
        """The base's, `batch_shape + (J, 3)`: the center that deviations are scaled about."""
        return self.center

    @property
    def mode(self) -> Tensor:
        """Image of the base distribution's mode: an affine map moves modes along.

        Raises:
            NotImplementedError: If the base distribution has no mode in closed form.
        """
        return self.moved(self.base_distribution.mode)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, `batch_shape`: the base's, and the map's volume.

        Raises:
            NotImplementedError: If the base distribution's entropy has no closed form.
        """
        return self.base_distribution.entropy() + self._log_det()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of poses `(..., J, 3)`, `sample_shape + batch_shape`, of `log_prob_kind`."""
        if self._validate_args:
            self._validate_sample(value)
        return self.base_distribution.log_prob(self.without(value)) - self._log_det()

    def estimate_log_prob(
        self, value: Tensor, *, num_particles: int | None = None, noise_seed: int | None = None
    ) -> LogProbEstimate:
        """`log_prob` with its effective sample size, for a base that estimates its density.

        Args:
            value: Poses, `sample_shape + batch_shape + (J, 3)`, meters.
            num_particles: Overrides the distribution's.
            noise_seed: Overrides the distribution's.
        """
        if self._validate_args:
            self._validate_sample(value)
        found = self.base_distribution.estimate_log_prob(
            self.without(value), num_particles=num_particles, noise_seed=noise_seed
        )
        return LogProbEstimate(
            found.log_prob - self._log_det(), found.effective_sample_size, found.num_particles
        )

    def moved(self, value: Tensor) -> Tensor:
        """Poses `(..., J, 3)` of the base distribution as this distribution has them: the map."""
        return self.center + self._scaled(value - self.center, self.temperature, self.depth)

    def without(self, value: Tensor) -> Tensor:
        """Poses `(..., J, 3)` of this distribution as the base has them: the inverse map."""
        gap = self._scaled(value - self.center, 1 / self.temperature, 1 / self.depth)
        return self.center + gap

    @property
    def stretch(self) -> Tensor:
        """By how much noise of equal spread in all directions grows along each axis.

        `batch_shape + (J, 3)`: the lengths of the rows of each `T_j`.
        """
        across, along = self.temperature.square()[..., None], self.depth.square()[..., None]
        return (across + (along - across) * self.ray.square()).sqrt()

    def _scaled(self, gap: Tensor, across: Tensor, along: Tensor) -> Tensor:
        depth = (gap * self.ray).sum(-1, keepdim=True)
        return across[..., None] * gap + ((along - across)[..., None] * depth) * self.ray

    def _log_det(self) -> Tensor:
        logs = 2 * self.temperature.log() + self.depth.log()
        support = self.support
        if isinstance(support, RootRelative):
            free = torch.arange(logs.shape[-1], device=logs.device) != support.root
            logs = logs[..., free]
        return logs.sum(-1)


#: Log temperatures stay within this, whatever the evidence looks like.
_LIMIT = math.log(3)


class BaseRecalibration(nn.Module):
    """What was fitted on held-out data to make an exact distribution honest; nothing before.

    Joints of a body hang together: no map of single rotations widens a wrist's place and leaves the
    rest. So the base's standard deviations are multiplied, all by ``exp(a + b . features)``. The
    features are whether intrinsics are known, the share of hidden keypoints, and the spread that
    the base itself claims (mean log), by which a distribution that is too sure of noisy keypoints
    and too unsure of clear ones is put right, and how badly the mode reprojects onto the keypoints,
    a guess of the detector's noise (in log). Density and mode stay exact, and the mode where it is.

    Example:
        >>> BaseRecalibration().fitted
        False
    """

    FEATURES = (
        *("intrinsics", "hidden share", "spread", "spread, intrinsics"),
        *("residual", "residual, intrinsics"),
    )

    log_temperature: Tensor
    slopes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_temperature", torch.zeros(()))
        self.register_buffer("slopes", torch.zeros(len(self.FEATURES)))

    def reset(self) -> None:
        """Forgets what was fitted."""
        self.log_temperature.zero_()
        self.slopes.zero_()

    @property
    def fitted(self) -> bool:
        """Whether anything differs from the identity."""
        # An exported program cannot branch on numbers; unfitted ones leave the distribution as it
        # is.
        if torch.compiler.is_compiling():
            return True
        return bool(self.log_temperature.any() or self.slopes.any())

    def forward(self, distribution: PoseFlowDistribution, features: Tensor) -> PoseFlowDistribution:
        """The recalibrated distribution.

        Args:
            distribution: An exact distribution with a Gaussian base.
            features: About each input `(..., F)`, as `features` gives them.
        """
        base: Any = distribution.flow.base_dist
        factor = self.temperature(features).to(base.mean)
        wider = diagonal_normal(base.mean, factor[..., None] * base.stddev)
        return PoseFlowDistribution(
            FlowDistribution(wider, distribution.flow.transform), distribution.to_pose
        )

    def temperature(self, features: Tensor) -> Tensor:
        """Temperatures `(...)` for features `(..., F)`."""
        log = self.log_temperature + features.to(self.slopes) @ self.slopes
        return log.clamp(-_LIMIT, _LIMIT).exp()

    def features(
        self, distribution: PoseFlowDistribution, visible: Tensor, known: bool, residual: Tensor
    ) -> Tensor:
        """What is told about each input, `(..., F)`, without gradient.

        Args:
            distribution: The distribution as trained.
            visible: Keypoints that were seen `(..., J)`, numbers or booleans.
            known: Whether intrinsics are known.
            residual: As `reprojection_residual_and_rays` gives it for the mode's joints `(...)`.
        """
        base: Any = distribution.flow.base_dist
        spread = base.stddev.log().mean(-1)
        hidden = 4 * (1 - visible.to(spread).mean(-1)).expand_as(spread)
        told = torch.full_like(spread, float(known))
        columns = (told, hidden, spread, told * spread, residual, told * residual)
        return torch.stack(columns, -1).detach()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Weights stored before there was this load as unfitted.
        names = ("log_temperature", "slopes")
        if not any(prefix + name in state_dict for name in names):
            for name in names:
                state_dict[prefix + name] = torch.zeros_like(getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


#: Log temperatures stay within this, whatever the evidence looks like.

#: Reprojection error over the person's size: smallest and largest told apart, and a typical log.
_RESIDUAL = (1e-3, 1.0)
_LOG_RESIDUAL = -3.5
#: The same of the distance of a build from those that are familiar, in logs of lengths.
_STRANGENESS = (1e-3, 1.0)
_LOG_STRANGENESS = -3.0


class RecalibrationFeatures(NamedTuple):
    """What a recalibration reads off the evidence and the distribution's own estimate.

    Attributes:
        features: About each joint, `(..., J, F)`.
        ray: Line of sight of each joint, unit vectors `(..., J, 3)` in camera axes; the camera's
            axis where intrinsics are unknown.

    Example:
        >>> point, p2d = torch.randn(5, 17, 3), torch.randn(5, 17, 2)
        >>> reading = default_recalibration(17).read(point, p2d, focal=1.5)
        >>> reading.ray.shape, reading.features.shape[:2]
        (torch.Size([5, 17, 3]), torch.Size([5, 17]))
    """

    features: Tensor
    ray: Tensor


class Recalibration(nn.Module):
    """What was fitted on held-out data to make a model's distributions honest; nothing before.

    The factors of a joint, across its line of sight and along it, are ``exp(a_group + b .
    features)``. The features are what anyone can tell from the evidence: whether intrinsics are
    known, whether the joint is hidden, the share of hidden joints, how badly the distribution's own
    point estimate reprojects onto the 2D, a guess of the detector's noise (in log), how far the
    bone lengths of that estimate are from familiar builds (in log), and products of these.
    Observation noise of a `DecodedPoseDistribution` has its own factor. All numbers are buffers, so
    that they are stored with the weights of the model that holds this module; files from before it
    load as unfitted, and those with one factor for all directions as what they were.

    Args:
        groups: Joints that share a temperature, each joint of the set in one group; see
            `joint_groups`.
        parents: Parent of each joint, -1 for the root; without it builds cannot be told apart.

    Raises:
        InputError: If a joint is in no group or in two, or has no parent.

    Example:
        >>> from propose_prob.geometry.skeletons import H36M_17
        >>> Recalibration(joint_groups(H36M_17), parents=H36M_17.parents).fitted
        False
    """

    FEATURES = (
        "intrinsics",
        "joint hidden",
        "hidden share",
        "residual",
        "residual, intrinsics",
        "strange build",
        "strange build, intrinsics",
        "strange build, residual",
        "strange build, hidden share",
        "hidden share, intrinsics",
        "hidden share, residual",
        "strange build, squared",
    )

    group_of: Tensor
    share_of: Tensor
    up: Tensor
    free: Tensor
    log_temperature: Tensor
    slopes: Tensor
    log_noise: Tensor
    builds: Tensor

    def __init__(
        self, groups: Sequence[Sequence[int]], *, parents: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        members = [joint for group in groups for joint in group]
        joints = len(members)
        if sorted(members) != list(range(joints)):
            raise InputError(f"expected each joint of 0..{joints - 1} in one group, got {groups}")
        if parents is not None and len(parents) != joints:
            raise InputError(f"expected {joints} parents, one of each joint, got {len(parents)}")
        self.parents = None if parents is None else tuple(parents)
        group_of = torch.empty(joints, dtype=torch.long)
        for number, group in enumerate(groups):
            group_of[list(group)] = number
        self.register_buffer("group_of", group_of, persistent=False)
        member = nn.functional.one_hot(group_of).float()
        self.register_buffer("share_of", member / member.sum(0), persistent=False)
        up = torch.tensor(parents if parents is not None else [-1] * joints)
        self.register_buffer("free", up >= 0, persistent=False)
        self.register_buffer("up", torch.where(up < 0, torch.arange(joints), up), persistent=False)
        # Rows: across the line of sight, along it.
        self.register_buffer("log_temperature", torch.zeros(2, len(groups)))
        self.register_buffer("slopes", torch.zeros(2, len(self.FEATURES)))
        self.register_buffer("log_noise", torch.zeros(()))
        self.register_buffer("builds", torch.zeros(0, joints))

    def reset(self) -> None:
        """Forgets what was fitted."""
        for buffer in (self.log_temperature, self.slopes, self.log_noise):
            buffer.zero_()
        self.builds = self.builds[:0]

    @property
    def fitted(self) -> bool:
        """Whether anything differs from the identity."""
        if torch.compiler.is_compiling():
            return True
        return any(bool(b.any()) for b in (self.log_temperature, self.slopes, self.log_noise))

    def forward(
        self,
        distribution: Distribution,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
    ) -> Any:
        """Recalibrate a distribution; unchanged if nothing is fitted.

        Args:
            distribution: Distribution of the poses given the evidence, event shape `(J, 3)`.
            p2d: Keypoints `(..., J, 2)` as the model was given them.
            confidence: As the model was given it.
            focal: As the model was given it.
            center: As the model was given it.
        """
        if not self.fitted:
            return distribution
        distribution = self.with_noise(distribution)
        estimate = point_estimate_of(distribution)
        reading = self.read(estimate, p2d, confidence, focal=focal, center=center)
        across, along = self.factors(reading.features)
        return RecalibratedDistribution(
            distribution,
            across.to(p2d.dtype),
            depth=along.to(p2d.dtype),
            ray=reading.ray,
            center=estimate,
        )

    def factors(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Factors across and along the line of sight, `(..., J)` each, for `(..., J, F)`."""
        features = features.to(self.slopes)
        logs = (
            (row[self.group_of] + features @ slope).clamp(-_LIMIT, _LIMIT)
            for row, slope in zip(self.log_temperature, self.slopes, strict=True)
        )
        across, along = (log.exp() for log in logs)
        return across, along

    def with_noise(self, distribution: Distribution) -> Distribution:
        """Set the observation noise; a distribution without any comes back as it is."""
        if not isinstance(distribution, DecodedPoseDistribution):
            return distribution
        scaled = distribution.expand(distribution.batch_shape)
        scaled.scale = distribution.scale * self.log_noise.exp().to(distribution.scale)
        return scaled

    @torch.no_grad()
    def read(
        self,
        point: Tensor,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
    ) -> RecalibrationFeatures:
        """What is told from the evidence about each joint, without gradient; see `forward`.

        Args:
            point: The distribution's own estimate `(..., J, 3)`, as `point_estimate_of` gives it.
            p2d: Keypoints `(..., J, 2)` as the model was given them.
            confidence: As the model was given it.
            focal: As the model was given it.
            center: As the model was given it.
        """
        visible = visible_joints(p2d, confidence)
        noise, ray = reprojection_residual_and_rays(point, p2d, visible, focal, center)
        noise = noise[..., None]
        strange = self.strangeness(point)[..., None]
        hidden = (~visible).to(p2d.dtype)
        known = torch.full_like(noise, float(focal is not None))
        share = 4 * hidden.mean(-1, keepdim=True)
        columns = (
            *(known, hidden, share, noise, known * noise),
            *(strange, known * strange, strange * noise, strange * share),
            *(share * known, share * noise, strange.square()),
        )
        shape = torch.broadcast_shapes(hidden.shape, strange.shape)
        return RecalibrationFeatures(
            torch.stack([column.expand(shape) for column in columns], -1), ray
        )

    def learn_builds(self, poses: Tensor, *, count: int = 2, tolerance: float = 0.02) -> None:
        """Takes the bone lengths of poses for familiar: those of the performers trained on.

        Starts with the first pose's; each further build is the one that is farthest from those
        taken, until all are nearer than `tolerance` or there are `count`. Each is then the mean of
        the poses nearest to it.

        Args:
            poses: `(N, J, 3)`, any axes, meters.
            count: Most builds to tell apart.
            tolerance: Root mean square difference of log lengths within one build.

        Raises:
            InputError: If this has no `parents`, or there is no pose.
        """
        if self.parents is None or len(poses) == 0:
            raise InputError("expected parents of the joints and at least one pose")
        logs = self._log_lengths(poses.to(self.builds))
        builds = logs[:1]
        while len(builds) < count:
            distance = _to_nearest(logs, builds)
            if float(distance.max()) < tolerance:
                break
            builds = torch.cat([builds, logs[distance.argmax()][None]])
        nearest = torch.cdist(logs, builds).argmin(1)
        self.builds = torch.stack([logs[nearest == i].mean(0) for i in range(len(builds))])

    def strangeness(self, poses: Tensor) -> Tensor:
        """Log distance of the bone lengths of poses `(..., J, 3)` from familiar ones, `(...)`.

        Zero for a typical estimate of a familiar person, and where no build is known.
        """
        if self.parents is None or len(self.builds) == 0:
            return poses.new_zeros(poses.shape[:-2])
        distance = _to_nearest(self._log_lengths(poses), self.builds.to(poses))
        return distance.clamp(*_STRANGENESS).log() - _LOG_STRANGENESS

    def _log_lengths(self, poses: Tensor) -> Tensor:
        """Log lengths of bones `(..., J)`, the mean of a group's; 0 for the root."""
        length = torch.linalg.vector_norm(poses - poses[..., self.up, :], dim=-1)
        mean = length @ self.share_of.to(length)
        return torch.where(self.free, mean[..., self.group_of].clamp_min(1e-3).log(), 0)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Weights stored before there was a recalibration have none: they load as unfitted.
        names = ("log_temperature", "slopes", "log_noise")
        if not any(prefix + name in state_dict for name in names):
            for name in names:
                state_dict[prefix + name] = torch.zeros_like(getattr(self, name))
        # Those before there were two directions had one factor, and fewer features.
        for name in names[:2]:
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and stored.dim() == 1:
                padded = stored.new_zeros(own.shape[1])
                padded[: len(stored)] = stored
                state_dict[prefix + name] = padded.expand(2, -1).clone()
        self.builds = state_dict.setdefault(prefix + "builds", self.builds[:0]).new_zeros(
            state_dict[prefix + "builds"].shape
        )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def joint_groups(skeleton: Skeleton) -> tuple[tuple[int, ...], ...]:
    """Joints with their mirror image: both sides share a temperature.

    Example:
        >>> from propose_prob.geometry.skeletons import H36M_17
        >>> joint_groups(H36M_17)[:3]
        ((0,), (1, 4), (2, 5))
    """
    return tuple(
        (joint,) if other == joint else (joint, other)
        for joint, other in enumerate(skeleton.mirror)
        if joint <= other
    )


def default_recalibration(joints: int) -> Recalibration:
    """An unfitted recalibration: mirror pairs of Human3.6M-17 together, else every joint alone.

    Example:
        >>> calibration = default_recalibration(17)
        >>> calibration.fitted, calibration.log_temperature.shape
        (False, torch.Size([2, 11]))
    """
    if joints == 17:
        return Recalibration(joint_groups(H36M_17), parents=H36M_17.parents)
    return Recalibration([(joint,) for joint in range(joints)])


def _to_nearest(logs: Tensor, builds: Tensor) -> Tensor:
    """Root mean square distance of log lengths `(..., J)` from the nearest of `(P, J)`, `(...)`."""
    gap = (logs[..., None, :] - builds).square().mean(-1)
    return gap.sqrt().amin(-1)


def reprojection_residual_and_rays(
    point: Tensor,
    p2d: Tensor,
    visible: Tensor,
    focal: Tensor | float | None,
    center: Tensor | tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """How well poses explain the 2D, and along which line each joint is seen.

    Args:
        point: Root-relative poses `(..., J, 3)`, meters, camera axes.
        p2d: Keypoints `(..., J, 2)`.
        visible: `(..., J)` booleans.
        focal: In the unit of `p2d`, where it is known.
        center: Principal point, likewise.

    Returns:
        Log of the mean reprojection error on visible joints over the person's size in 2D, less
        that of a typical estimate, `(...)`; and lines of sight `(..., J, 3)`.

    Example:
        >>> from propose_prob.datasets.cmu17 import FOCAL, load_cmu17
        >>> data = load_cmu17("val")
        >>> p2d, p3d = data.p2d()[:1, 0], data.p3d()[:1, 0]
        >>> seen = torch.ones(1, 17, dtype=torch.bool)
        >>> true, ray = reprojection_residual_and_rays(p3d, p2d, seen, FOCAL, (0.0, 0.0))
        >>> bent, _ = reprojection_residual_and_rays(-p3d, p2d, seen, FOCAL, (0.0, 0.0))
        >>> bool(true < bent), ray.shape
        (True, torch.Size([1, 17, 3]))
    """
    seen = visible[..., None]
    count = visible.sum(-1, keepdim=True).clamp_min(1)[..., None]
    ray = torch.zeros_like(point)
    ray[..., 2] = 1

    def centered(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.where(seen, x, 0).sum(-2, keepdim=True) / count
        return torch.where(seen, x - mean, 0), mean

    if focal is not None:
        focal = torch.as_tensor(focal, dtype=p2d.dtype, device=p2d.device)[..., None, None]
        middle = torch.as_tensor(center, dtype=p2d.dtype, device=p2d.device)[..., None, :]
        p2d = (p2d - middle) / focal
    image, mean = centered(p2d)
    size = (image.square().sum((-2, -1), keepdim=True) / count).sqrt()
    # A person all of whose joints lie in one place tells nothing: the largest residual.
    flat = size <= 1e-6 * (1 + mean.abs().amax((-2, -1), keepdim=True))
    if focal is not None:
        p2d = torch.where(flat, point[..., :2], torch.where(seen, p2d, 0))
        placed = point + root_translation(point, p2d, focal=1.0, visible=visible)[..., None, :]
        gap = project(placed, focal=1.0) - p2d
        # A pose that was placed behind the camera says nothing of where it is seen.
        known = (placed[..., 2:].amin(-2, keepdim=True) > 0) & ~flat
        ray = torch.where(known, nn.functional.normalize(placed, dim=-1), ray)
    else:
        # Far away, perspective is one scale and a shift (weak perspective).
        flatly, _ = centered(point[..., :2])
        square = flatly.square().sum((-2, -1), keepdim=True)
        scale = (flatly * image).sum((-2, -1), keepdim=True) / square.clamp_min(1e-12)
        gap = scale * flatly - image
    error = torch.linalg.vector_norm(torch.where(seen, gap, 0), dim=-1, keepdim=True)
    relative = error.sum(-2, keepdim=True) / count / torch.where(flat, 1, size)
    residual = torch.where(flat, _RESIDUAL[1], relative)[..., 0, 0].clamp(*_RESIDUAL)
    return residual.log() - _LOG_RESIDUAL, ray
