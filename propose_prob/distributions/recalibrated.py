"""Recalibrated laws: the spread about a law's own centre, scaled joint by joint.

Latents of a decoded law belong to no joint, so a temperature on its base cannot widen an arm alone.
An affine map of the pose can: ``x = c + T (y - c)``, one matrix for each joint that has one factor
along the line of sight and one across it. Its log-determinant is known, so the density stays what
it claims to be, and sampling, hypotheses and mode follow by the same map.
"""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .latent import LogProbEstimate
from .support import RootRelative

__all__ = ["RecalibratedDistribution", "centre_of"]


def centre_of(law: Any) -> Tensor:
    """A law's point estimate, or its mode where it has none, `batch_shape + event_shape`."""
    # Not `hasattr`: that would compute the estimate only to throw it away.
    return law.point_estimate if hasattr(type(law), "point_estimate") else law.mode


class RecalibratedDistribution(dist.TorchDistribution):
    r"""A law over poses whose spread about its centre is scaled for each joint.

    .. math:: x_j = c_j + T_j (y_j - c_j), \quad T_j = a_j (I - u_j u_j^T) + d_j u_j u_j^T, \quad
        \log p_T(x) = \log p(c + T^{-1} (x - c)) - \sum_j (2 \log a_j + \log d_j)

    for `y` of law `p`: across the line of sight `u` spread is scaled by `a`, along it by `d`. The
    centre is the base law's point estimate (its mode where it has none) and stays where it is.

    Args:
        base: Law with event shape `(J, 3)`.
        temperature: `a`, of shape `(..., J)`, positive; a root without a density is left alone.
        depth: `d`, of shape `(..., J)`, positive; left out, it is `a`.
        ray: `u`, unit vectors `(..., J, 3)`; left out, the camera's axis z.
        centre: `c`, `(..., J, 3)`, where it has been computed already.
        validate_args: As in torch.

    Raises:
        ValueError: If the base is not over poses, or a shape does not fit.

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
        centre: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if len(base.event_shape) != 2 or base.event_shape[-1] != 3:
            raise ValueError(
                f"expected a law over poses, event_shape (J, 3), got {tuple(base.event_shape)}"
            )
        joints = base.event_shape[0]
        depth = temperature if depth is None else depth
        for name, factor in (("temperature", temperature), ("depth", depth)):
            if factor.dim() < 1 or factor.shape[-1] != joints:
                raise ValueError(
                    f"expected {name} of shape (..., {joints}), got {tuple(factor.shape)}"
                )
        if ray is None:
            ray = temperature.new_tensor([0.0, 0.0, 1.0]).expand(joints, 3)
        elif ray.shape[-2:] != (joints, 3):
            raise ValueError(f"expected ray of shape (..., {joints}, 3), got {tuple(ray.shape)}")
        batch = torch.broadcast_shapes(
            base.batch_shape, temperature.shape[:-1], depth.shape[:-1], ray.shape[:-2]
        )
        self.base_law: Any = base if batch == base.batch_shape else base.expand(batch)
        self.temperature = temperature.expand(*batch, joints)
        self.depth = depth.expand(*batch, joints)
        self.ray = ray.expand(*batch, joints, 3)
        if centre is None:
            centre = centre_of(self.base_law)
        elif centre.shape[-2:] != base.event_shape:
            raise ValueError(
                f"expected centre of shape (..., {joints}, 3), got {tuple(centre.shape)}"
            )
        self.centre: Tensor = centre.expand(batch + base.event_shape)
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
        new.depth = self.depth.expand(*batch, self.event_shape[0])
        new.ray = self.ray.expand(batch + self.event_shape)
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
            return self.moved(self.base_law.sample(torch.Size(sample_shape)))

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Poses `sample_shape + batch_shape + (J, 3)`, where the base law has `rsample`."""
        return self.moved(self.base_law.rsample(torch.Size(sample_shape)))

    def hypotheses(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """The base law's hypotheses `sample_shape + batch_shape + (J, 3)`, moved like samples."""
        return self.moved(self.base_law.hypotheses(torch.Size(sample_shape)))

    def decode(self, w: Tensor) -> Tensor:
        """Noise-free poses `(..., J, 3)` of the base law's latents `(..., d)`."""
        return self.moved(self.base_law.decode(w))

    @property
    def latent(self) -> Any:
        """The base law's latent law, which is not changed."""
        return self.base_law.latent

    @property
    def point_estimate(self) -> Tensor:
        """The base law's, `batch_shape + (J, 3)`: the centre that spread is scaled about."""
        return self.centre

    @property
    def mode(self) -> Tensor:
        """Image of the base law's mode: an affine map moves modes along.

        Raises:
            NotImplementedError: If the base law has no mode in closed form.
        """
        return self.moved(self.base_law.mode)

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

    def moved(self, value: Tensor) -> Tensor:
        """Poses `(..., J, 3)` of the base law as this law has them: the map."""
        return self.centre + self._scaled(value - self.centre, self.temperature, self.depth)

    def without(self, value: Tensor) -> Tensor:
        """Poses `(..., J, 3)` of this law as the base law has them: the map taken back."""
        gap = self._scaled(value - self.centre, 1 / self.temperature, 1 / self.depth)
        return self.centre + gap

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
