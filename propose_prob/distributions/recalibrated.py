"""Recalibrated laws: the spread about a law's own centre, scaled joint by joint.

Latents of a decoded law belong to no joint, so a temperature on its base cannot widen an arm alone.
An affine map of the pose can: ``x = c + T (y - c)`` with one factor for each joint. Its
log-determinant is known, so the density stays what it claims to be, and sampling, hypotheses and
mode follow by the same map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from ..pose.camera import project, root_translation
from ..pose.normalise import visible_joints
from ..pose.skeleton import H36M_17, Skeleton
from .latent import DecodedPoseDistribution, LogProbEstimate
from .support import RootRelative

__all__ = ["Recalibration", "RecalibratedDistribution", "default_recalibration", "joint_groups"]

#: Log temperatures stay within this, whatever the evidence looks like.
_LIMIT = math.log(3)
#: Reprojection error over the person's size: smallest and largest told apart, and a typical log.
_RESIDUAL = (1e-3, 1.0)
_LOG_RESIDUAL = -3.5


class RecalibratedDistribution(dist.TorchDistribution):
    r"""A law over poses whose spread about its centre is scaled for each joint.

    .. math:: x_j = c_j + T_j (y_j - c_j), \quad y \sim p, \quad
        \log p_T(x) = \log p(c + T^{-1} (x - c)) - 3 \sum_j \log T_j

    The centre is the base law's point estimate (its mode where it has none) and stays where it is.

    Args:
        base: Law with event shape `(J, 3)`.
        temperature: `T`, of shape `(..., J)`, positive; a root without a density is left alone.
        validate_args: As in torch.

    Raises:
        ValueError: If the base is not over poses, or the temperature has another number of joints.

    Example:
        >>> base = dist.Normal(torch.zeros(17, 3), 1.0).to_event(2)
        >>> wide = RecalibratedDistribution(base, torch.full((17,), 2.0))
        >>> expected = dist.Normal(torch.zeros(17, 3), 2.0).to_event(2)
        >>> x = expected.sample((5,))
        >>> torch.allclose(wide.log_prob(x), expected.log_prob(x), atol=1e-3)
        True
    """

    arg_constraints = {"temperature": constraints.independent(constraints.positive, 1)}

    def __init__(
        self,
        base: Distribution,
        temperature: Tensor,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if len(base.event_shape) != 2 or base.event_shape[-1] != 3:
            raise ValueError(
                f"expected a law over poses, event_shape (J, 3), got {tuple(base.event_shape)}"
            )
        joints = base.event_shape[0]
        if temperature.dim() < 1 or temperature.shape[-1] != joints:
            raise ValueError(
                f"expected temperature of shape (..., {joints}), got {tuple(temperature.shape)}"
            )
        batch = torch.broadcast_shapes(base.batch_shape, temperature.shape[:-1])
        self.base_law: Any = base if batch == base.batch_shape else base.expand(batch)
        self.temperature = temperature.expand(*batch, joints)
        known = "point_estimate" if _has(base, "point_estimate") else "mode"
        self.centre: Tensor = getattr(self.base_law, known)
        super().__init__(batch, base.event_shape, validate_args=validate_args)

    def expand(
        self,
        batch_shape: torch.Size | list[int] | tuple[int, ...],
        _instance: Distribution | None = None,
    ) -> RecalibratedDistribution:
        """The same law with a larger batch shape."""
        new = self._get_checked_instance(RecalibratedDistribution, _instance)
        batch = torch.Size(batch_shape)
        new.base_law = self.base_law.expand(batch)
        new.temperature = self.temperature.expand(*batch, self.event_shape[0])
        new.centre = self.centre.expand(batch + self.event_shape)
        Distribution.__init__(new, batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> constraints.Constraint:
        """The base law's support: the map keeps a root at zero."""
        return self.base_law.support

    @property
    def log_prob_kind(self) -> str:
        """The base law's: `"exact"` or `"bound"`."""
        return getattr(self.base_law, "log_prob_kind", "exact")

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the base law's samples carry gradients."""
        return self.base_law.has_rsample

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Poses `sample_shape + batch_shape + (J, 3)`, without gradients."""
        with torch.no_grad():
            return self._move(self.base_law.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Poses `sample_shape + batch_shape + (J, 3)`, where the base law has `rsample`."""
        return self._move(self.base_law.rsample(torch.Size(sample_shape)))

    def hypotheses(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """The base law's noise-free hypotheses, moved like its samples."""
        return self._move(self.base_law.hypotheses(torch.Size(sample_shape)))

    def decode(self, w: Tensor) -> Tensor:
        """Noise-free poses `(..., J, 3)` of the base law's latents `(..., d)`."""
        return self._move(self.base_law.decode(w))

    @property
    def latent(self) -> Any:
        """The base law's latent law, which is not changed."""
        return self.base_law.latent

    @property
    def point_estimate(self) -> Tensor:
        """The base law's point estimate: the centre that spread is scaled about."""
        return self.centre

    @property
    def mode(self) -> Tensor:
        """Image of the base law's mode: an affine map moves modes along.

        Raises:
            NotImplementedError: If the base law has no mode in closed form.
        """
        return self._move(self.base_law.mode)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, `batch_shape`: the base law's, and the map's volume.

        Raises:
            NotImplementedError: If the base law's entropy has no closed form.
        """
        return self.base_law.entropy() + self._log_det()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of poses `(..., J, 3)`, `sample_shape + batch_shape`, of `log_prob_kind`."""
        if self._validate_args:
            self._validate_sample(value)
        return self.base_law.log_prob(self.without(value)) - self._log_det()

    def estimate_log_prob(
        self, value: Tensor, *, num_particles: int | None = None, noise_seed: int | None = None
    ) -> LogProbEstimate:
        """`log_prob` with its effective sample size, for a base law that estimates its density.

        Args:
            value: Poses, `sample_shape + batch_shape + (J, 3)`, metres.
            num_particles: Overrides the law's.
            noise_seed: Overrides the law's.
        """
        if self._validate_args:
            self._validate_sample(value)
        found = self.base_law.estimate_log_prob(
            self.without(value), num_particles=num_particles, noise_seed=noise_seed
        )
        return LogProbEstimate(
            found.log_prob - self._log_det(), found.effective_sample_size, found.num_particles
        )

    def _move(self, value: Tensor) -> Tensor:
        return self.centre + self.temperature[..., None] * (value - self.centre)

    def without(self, value: Tensor) -> Tensor:
        """Poses `(..., J, 3)` of this law as the base law has them: the map taken back."""
        return self.centre + (value - self.centre) / self.temperature[..., None]

    def _log_det(self) -> Tensor:
        logs = self.temperature.log()
        support = self.support
        if isinstance(support, RootRelative):
            free = torch.arange(logs.shape[-1], device=logs.device) != support.root
            logs = logs[..., free]
        return 3 * logs.sum(-1)


class Recalibration(nn.Module):
    """What was fitted on held-out data to make a model's laws honest; nothing before.

    The temperature of a joint is ``exp(a_group + b . features)``; the features are what anyone can
    tell from the evidence: whether intrinsics are known, whether the joint is hidden, the share of
    hidden joints, and how badly the law's own point estimate reprojects onto the 2D, a guess of
    the detector's noise (in log, and once more where intrinsics are known). Observation noise of a
    `DecodedPoseDistribution` has its own factor. All numbers are buffers, so that they are stored
    with the weights of the model that holds this module; files from before it load as unfitted.

    Args:
        groups: Joints that share a temperature, each joint of the set in one group; see
            `joint_groups`.

    Attributes:
        enabled: Set to False to get laws as they were trained.

    Raises:
        ValueError: If a joint is in no group or in two.

    Example:
        >>> from propose_prob.pose.skeleton import H36M_17
        >>> Recalibration(joint_groups(H36M_17)).fitted
        False
    """

    FEATURES = ("intrinsics", "joint hidden", "hidden share", "residual", "residual, intrinsics")

    group_of: Tensor
    log_temperature: Tensor
    slopes: Tensor
    log_noise: Tensor

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        members = [joint for group in groups for joint in group]
        if sorted(members) != list(range(len(members))):
            raise ValueError(
                f"expected each joint of 0..{len(members) - 1} in one group, got {groups}"
            )
        self.enabled = True
        group_of = torch.empty(len(members), dtype=torch.long)
        for number, group in enumerate(groups):
            group_of[list(group)] = number
        self.register_buffer("group_of", group_of, persistent=False)
        self.register_buffer("log_temperature", torch.zeros(len(groups)))
        self.register_buffer("slopes", torch.zeros(len(self.FEATURES)))
        self.register_buffer("log_noise", torch.zeros(()))

    def reset(self) -> None:
        """Forgets what was fitted."""
        for buffer in (self.log_temperature, self.slopes, self.log_noise):
            buffer.zero_()

    @property
    def fitted(self) -> bool:
        """Whether anything differs from the identity."""
        return any(bool(b.any()) for b in (self.log_temperature, self.slopes, self.log_noise))

    def forward(
        self,
        law: Distribution,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
    ) -> Any:
        """The recalibrated law; the law itself if nothing is fitted or this is not `enabled`.

        Args:
            law: Law of the poses given the evidence, event shape `(J, 3)`.
            p2d: Keypoints `(..., J, 2)` as the model was given them.
            confidence: As the model was given it.
            focal: As the model was given it.
            center: As the model was given it.
        """
        if not (self.enabled and self.fitted):
            return law
        law = self.with_noise(law)
        features = self.features(law, p2d, confidence, focal=focal, center=center)
        return RecalibratedDistribution(law, self.temperature(features).to(p2d.dtype))

    def temperature(self, features: Tensor) -> Tensor:
        """Temperatures `(..., J)` for features `(..., J, F)`."""
        log = self.log_temperature[self.group_of] + features.to(self.slopes) @ self.slopes
        return log.clamp(-_LIMIT, _LIMIT).exp()

    def with_noise(self, law: Distribution) -> Distribution:
        """The law with this observation noise; a law without any comes back as it is."""
        if not isinstance(law, DecodedPoseDistribution):
            return law
        scaled = law.expand(law.batch_shape)
        scaled.scale = law.scale * self.log_noise.exp().to(law.scale)
        return scaled

    @torch.no_grad()
    def features(
        self,
        law: Any,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
    ) -> Tensor:
        """What is told from the evidence about each joint, `(..., J, F)`, without gradient."""
        visible = visible_joints(p2d, confidence)
        point = law.point_estimate if _has(law, "point_estimate") else law.mode
        residual = _residual(point, p2d, visible, focal, center).clamp(*_RESIDUAL)
        noise = (residual.log() - _LOG_RESIDUAL)[..., None]
        hidden = (~visible).to(p2d.dtype)
        known = float(focal is not None)
        share = hidden.mean(-1, keepdim=True)
        columns = (torch.full_like(share, known), hidden, 4 * share, noise, known * noise)
        return torch.stack([column.expand(hidden.shape) for column in columns], -1)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Weights stored before there was a recalibration have none: they load as unfitted.
        names = ("log_temperature", "slopes", "log_noise")
        if not any(prefix + name in state_dict for name in names):
            for name in names:
                state_dict[prefix + name] = torch.zeros_like(getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def joint_groups(skeleton: Skeleton) -> tuple[tuple[int, ...], ...]:
    """Joints with their mirror image: both sides share a temperature.

    Example:
        >>> from propose_prob.pose.skeleton import H36M_17
        >>> joint_groups(H36M_17)[:3]
        ((0,), (1, 4), (2, 5))
    """
    return tuple(
        (joint,) if other == joint else (joint, other)
        for joint, other in enumerate(skeleton.mirror)
        if joint <= other
    )


def default_recalibration(joints: int) -> Recalibration:
    """An unfitted recalibration: mirror pairs of Human3.6M-17 together, else every joint alone."""
    groups = joint_groups(H36M_17) if joints == 17 else [(joint,) for joint in range(joints)]
    return Recalibration(groups)


def _has(law: Any, name: str) -> bool:
    # Not `hasattr`: that would compute the estimate only to throw it away.
    return hasattr(type(law), name)


def _residual(
    point: Tensor,
    p2d: Tensor,
    visible: Tensor,
    focal: Tensor | float | None,
    center: Tensor | tuple[float, float],
) -> Tensor:
    """Mean reprojection error of poses on visible joints over the person's size in 2D, `(...)`."""
    seen = visible[..., None]
    count = visible.sum(-1, keepdim=True).clamp_min(1)[..., None]

    def centred(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.where(seen, x, 0).sum(-2, keepdim=True) / count
        return torch.where(seen, x - mean, 0), mean

    if focal is not None:
        focal = torch.as_tensor(focal, dtype=p2d.dtype, device=p2d.device)[..., None, None]
        middle = torch.as_tensor(center, dtype=p2d.dtype, device=p2d.device)[..., None, :]
        p2d = (p2d - middle) / focal
    image, mean = centred(p2d)
    size = (image.square().sum((-2, -1), keepdim=True) / count).sqrt()
    # A person all of whose joints lie in one place tells nothing: the largest residual.
    flat = size <= 1e-6 * (1 + mean.abs().amax((-2, -1), keepdim=True))
    if focal is not None:
        p2d = torch.where(flat, point[..., :2], torch.where(seen, p2d, 0))
        placed = point + root_translation(point, p2d, focal=1.0, visible=visible)[..., None, :]
        gap = project(placed, focal=1.0) - p2d
    else:
        # Far away, perspective is one scale and a shift (weak perspective).
        flatly, _ = centred(point[..., :2])
        square = flatly.square().sum((-2, -1), keepdim=True)
        scale = (flatly * image).sum((-2, -1), keepdim=True) / square.clamp_min(1e-12)
        gap = scale * flatly - image
    error = torch.linalg.vector_norm(torch.where(seen, gap, 0), dim=-1, keepdim=True)
    relative = error.sum(-2, keepdim=True) / count / torch.where(flat, 1, size)
    return torch.where(flat, _RESIDUAL[1], relative)[..., 0, 0]
