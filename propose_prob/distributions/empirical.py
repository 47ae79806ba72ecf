"""Weighted samples as a distribution."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..errors import InputError

__all__ = ["EmpiricalDistribution"]


class EmpiricalDistribution(dist.TorchDistribution):
    """Weighted draws of a distribution, as a distribution.

    It can be sampled and averaged over. It has no density: a histogram of points is none, and a
    kernel estimate of one would depend on a bandwidth more than on the draws.

    Args:
        draws: `(S, *batch_shape, *event_shape)`.
        log_weights: `(S, *batch_shape)`, up to a constant for each batch element; equal weights by
            default.
        event_dim: Number of axes of an event.
        validate_args: As in torch.

    Raises:
        InputError: If a shape does not fit, there are no draws, a draw is NaN, or the weights of a
            batch element are NaN or all zero.

    Example:
        >>> dist = EmpiricalDistribution(torch.randn(100, 5, 17, 3), event_dim=2)
        >>> dist.sample((7,)).shape, dist.mean.shape, dist.effective_sample_size.shape
        (torch.Size([7, 5, 17, 3]), torch.Size([5, 17, 3]), torch.Size([5]))
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    log_prob_kind = "none"

    def __init__(
        self,
        draws: Tensor,
        log_weights: Tensor | None = None,
        *,
        event_dim: int,
        validate_args: bool | None = None,
    ) -> None:
        if draws.ndim < 1 + event_dim or not draws.shape[0]:
            raise InputError(
                f"expected draws with an axis of draws and {event_dim} of an event, "
                f"got shape {tuple(draws.shape)}"
            )
        batch = draws.shape[1 : draws.ndim - event_dim]
        if log_weights is None:
            log_weights = draws.new_zeros(draws.shape[: draws.ndim - event_dim])
        if log_weights.shape != (len(draws), *batch):
            raise InputError(
                f"expected log_weights of shape {(len(draws), *batch)}, "
                f"got {tuple(log_weights.shape)}"
            )
        if draws.isnan().any():
            raise InputError("expected finite draws, got NaN")
        normalizer = log_weights.logsumexp(0)
        if not bool(normalizer.isfinite().all()):
            where = tuple((~normalizer.isfinite()).nonzero()[0].tolist())
            raise InputError(f"batch index {where}: weights are NaN, infinite or all zero")
        self.draws = draws
        self.log_weights = log_weights - normalizer
        super().__init__(batch, draws.shape[draws.ndim - event_dim :], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """All real values of the event's shape; the distribution fills only its draws."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def weights(self) -> Tensor:
        """Normalized weights `(S, *batch_shape)`."""
        return self.log_weights.exp()

    @property
    def effective_sample_size(self) -> Tensor:
        """Kish's: of how many equal weights these are worth, `batch_shape`."""
        return 1 / self.weights.square().sum(0)

    @property
    def mean(self) -> Tensor:
        """Weighted mean, `batch_shape + event_shape`."""
        return (self._wide() * self.draws).sum(0)

    @property
    def variance(self) -> Tensor:
        """Weighted variance of each coordinate, `batch_shape + event_shape`."""
        return (self._wide() * (self.draws - self.mean).square()).sum(0)

    @property
    def point_estimate(self) -> Tensor:
        """The mean, `batch_shape + event_shape`: the deterministic estimate that draws support."""
        return self.mean

    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Draws chosen by their weights, `sample_shape + batch_shape + event_shape`."""
        shape = torch.Size(sample_shape)
        count = len(self.draws)
        with torch.no_grad():
            flat = self.weights.reshape(count, -1).mT
            chosen = torch.multinomial(flat, shape.numel(), replacement=True).mT
            draws = self.draws.reshape(count, len(flat), -1)
            taken = draws.gather(0, chosen[..., None].expand(*chosen.shape, draws.shape[-1]))
        return taken.reshape(shape + self.batch_shape + self.event_shape)

    def hypotheses(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Samples: nothing separates them from the distribution's hypotheses here.

        Of shape `sample_shape + batch_shape + event_shape`.
        """
        return self.sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Not available.

        Raises:
            NotImplementedError: Always; names the alternative.
        """
        raise NotImplementedError(
            "weighted draws have no density; use the density of the model that they were drawn "
            "from, or fit a distribution to them"
        )

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> EmpiricalDistribution:
        """The same distribution with a larger batch shape; its elements share their draws."""
        new = self._get_checked_instance(EmpiricalDistribution, _instance)
        batch = torch.Size(batch_shape)
        count, extra = len(self.draws), len(batch) - len(self.batch_shape)
        lead = (count, *(1,) * extra)
        new.log_weights = self.log_weights.reshape(*lead, *self.batch_shape).expand(count, *batch)
        new.draws = self.draws.reshape(*lead, *self.batch_shape, *self.event_shape).expand(
            count, *batch, *self.event_shape
        )
        Distribution.__init__(new, batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _wide(self) -> Tensor:
        return self.weights.reshape(*self.weights.shape, *(1,) * len(self.event_shape))
