"""Pushforward distributions: a function of a random pose, without a density."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints


class PushforwardDistribution(dist.TorchDistribution):
    """Distribution of `f(x)`, `x` from another distribution, where `f` need not be invertible.

    Joints of a body whose rotations are random, vertices, angles, distances: anything that can be
    computed from a sample. Such a distribution can be sampled but has no density in closed form.

    Args:
        distribution: Distribution of `x`.
        function: `f`, maps `(..., *event)` to `(..., *event_shape)`; leading axes are
            `sample_shape + batch_shape`.
        event_shape: Shape of `f(x)` for one `x`.
        validate_args: As in torch.

    Example:
        >>> base = dist.Normal(torch.zeros(5, 3), 1.0).to_event(1)
        >>> length = PushforwardDistribution(base, lambda x: x.norm(dim=-1, keepdim=True), (1,))
        >>> length.sample((7,)).shape
        torch.Size([7, 5, 1])
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    has_rsample = True
    log_prob_kind = "none"

    def __init__(
        self,
        distribution: Distribution,
        function: Callable[[Tensor], Tensor],
        event_shape: Sequence[int],
        *,
        validate_args: bool | None = None,
    ) -> None:
        self.distribution: Any = distribution
        self.function = function
        super().__init__(
            distribution.batch_shape, torch.Size(event_shape), validate_args=validate_args
        )

    @constraints.dependent_property(is_discrete=False)
    def support(self) -> constraints.Constraint:
        """All real values of the event's shape; the distribution may fill only a part of them."""
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def point_estimate(self) -> Tensor:
        """`f` of the distribution's point estimate, `batch_shape + event_shape`.

        In general neither mode nor mean of `f(x)`.
        """
        return self.function(self.distribution.point_estimate)

    def rsample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """`f` of samples, `sample_shape + batch_shape + event_shape`."""
        return self.function(self.distribution.rsample(torch.Size(sample_shape)))

    def hypotheses(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """`f` of hypotheses, `sample_shape + batch_shape + event_shape`, without gradients."""
        with torch.no_grad():
            return self.function(self.distribution.hypotheses(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Not available.

        Raises:
            NotImplementedError: Always; names the alternative.
        """
        raise NotImplementedError(
            "the distribution of a function of a pose has no density in closed form; "
            "use .distribution.log_prob of the pose itself"
        )

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> PushforwardDistribution:
        """Expand the batch shape; `f` must not depend on the batch then."""
        new = self._get_checked_instance(PushforwardDistribution, _instance)
        new.distribution = self.distribution.expand(torch.Size(batch_shape))
        new.function = self.function
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new
