"""Priors over body pose from how far joints usually turn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, Transform, constraints

from ..distributions.flow import diagonal_normal
from ..errors import InputError
from ..geometry.rotations import (
    axis_angle_from_matrix,
    matrix_from_6d,
    nearest_rotation,
    sixd_from_matrix,
)

__all__ = ["AngleDistribution", "generic_prior"]

#: Standard deviation of an angle of a joint about the rest pose, radians.
_SPREAD = 0.4

#: Of the orientation: any, at the price of half a nat at most.
_FREE = math.pi


class AngleDistribution(dist.TransformedDistribution):
    """Independent normal distributions of joint angles, as a distribution over 6D rotations.

    Rotation `j` is `centre_j exp(v_j)` with rotation vectors `v ~ N(0, spread^2)`. Its values are
    rotations, which fill no volume of R^(6K): `log_prob` is the density of the rotation vectors.

    Source: the Gaussian pose priors of body fitting, such as SMPLify (Bogo et al., ECCV 2016),
    there a mixture.

    Args:
        center: Rotations at the center, `(..., K, 3, 3)`.
        spread: Standard deviation of the rotation vectors, `(..., K, 3)`, radians.
        validate_args: As in torch.

    Example:
        >>> dist = AngleDistribution(torch.eye(3).expand(5, 24, 3, 3), torch.full((24, 3), 0.3))
        >>> dist.sample((7,)).shape, dist.log_prob(dist.mode).shape
        (torch.Size([7, 5, 24, 6]), torch.Size([5]))
    """

    log_prob_kind = "exact"
    constant_ladj = True

    def __init__(
        self, center: Tensor, spread: Tensor, *, validate_args: bool | None = None
    ) -> None:
        batch = torch.broadcast_shapes(center.shape[:-2], spread.shape[:-1])
        scale = spread.expand(*batch, 3).flatten(-2)
        base = diagonal_normal(torch.zeros_like(scale), scale)
        super().__init__(base, [_Turn(center)], validate_args=validate_args)

    @property
    def mode(self) -> Tensor:
        """The center, `batch_shape + (K, 6)`: the most probable rotation vectors are zero."""
        return self.transforms[0](self.base_dist.mode)

    @property
    def point_estimate(self) -> Tensor:
        """The center."""
        return self.mode

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of the rotation vectors of values `(..., K, 6)`, nats per radian each."""
        return self.base_dist.log_prob(self.transforms[0].inv(value))

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> AngleDistribution:
        """The same distribution with a larger batch shape."""
        new = self._get_checked_instance(AngleDistribution, _instance)
        new.transforms = self.transforms
        new.base_dist = self.base_dist.expand(torch.Size(batch_shape))
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new


class _Turn(Transform):
    """Rotation vectors `(..., 3 K)` to 6D rotations `(..., K, 6)` about a center."""

    domain = constraints.real_vector
    codomain = constraints.independent(constraints.real, 2)
    bijective = True

    def __init__(self, center: Tensor) -> None:
        super().__init__(cache_size=0)
        self.center = center

    def with_cache(self, cache_size: int = 1) -> _Turn:
        return self

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        return torch.Size((*shape[:-1], shape[-1] // 3, 6))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        return torch.Size((*shape[:-2], 3 * shape[-2]))

    def _call(self, x: Tensor) -> Tensor:
        return sixd_from_matrix(self.center @ _exponential(x.unflatten(-1, (-1, 3))))

    def _inverse(self, y: Tensor) -> Tensor:
        return axis_angle_from_matrix(self.center.mT @ matrix_from_6d(y)).flatten(-2)


def _exponential(v: Tensor) -> Tensor:
    """Rotation matrices of rotation vectors `(..., 3)`, twice differentiable at zero too.

    Joints that nothing was seen of stay at zero, and a Laplace approximation wants curvature there.
    """
    square = v.square().sum(-1)[..., None, None]
    small = square < 1e-4
    safe = torch.where(small, torch.ones_like(square), square)
    angle = safe.sqrt()
    first = torch.where(small, 1 - square / 6 + square**2 / 120, angle.sin() / angle)
    half = 2 * (0.5 * angle).sin().square() / safe
    second = torch.where(small, 0.5 - square / 24 + square**2 / 720, half)
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    eye = torch.eye(3, dtype=v.dtype, device=v.device)
    return eye + first * cross + second * (cross @ cross)


def generic_prior(
    batch: int, *, theta: Tensor | None = None, joints: int = 24, spread: float = _SPREAD
) -> AngleDistribution:
    """Prior of a pose of which nothing was seen: each joint angle normal, any orientation.

    The orientation is centered on an upright person who faces the camera.

    Args:
        batch: B, number of people.
        theta: Poses of a data set, local rotations `(N, K, 3, 3)`: their mean rotations and the
            spread of each angle about them make the distribution. Without it, angles spread alike
            about the T pose.
        joints: K, where there is no data.
        spread: Standard deviation of each angle where there is no data, radians.

    Returns:
        A distribution with batch shape `(B,)` and event shape `(K, 6)`, in float32 or the type of
        `theta`.

    Raises:
        InputError: If a shape does not fit or a number is out of range.

    Example:
        >>> generic_prior(5).sample().shape
        torch.Size([5, 24, 6])
    """
    if batch < 1:
        raise InputError(f"expected a batch of at least 1, got {batch}")
    if not 0 < spread < math.inf:
        raise InputError(f"expected spread > 0, got {spread}")
    if theta is None:
        if joints < 1:
            raise InputError(f"expected at least one joint, got {joints}")
        center = torch.eye(3).repeat(joints, 1, 1)
        deviation = torch.full((joints, 3), spread)
    else:
        if theta.ndim != 4 or theta.shape[-2:] != (3, 3) or len(theta) < 2:
            raise InputError(
                f"expected theta of shape (N, K, 3, 3) with N >= 2, got {tuple(theta.shape)}"
            )
        center, _ = nearest_rotation(theta.mean(0))
        angles = axis_angle_from_matrix(center.mT @ theta)
        # Hands that never move in the data would otherwise be fixed for good.
        deviation = angles.square().mean(0).sqrt().clamp_min(0.02)
    facing = torch.diag(center.new_tensor([1.0, -1.0, -1.0]))
    center = torch.cat([facing[None], center[1:]])
    deviation = torch.cat([torch.full_like(deviation[:1], _FREE), deviation[1:]])
    return AngleDistribution(center.repeat(batch, 1, 1, 1), deviation.repeat(batch, 1, 1))
