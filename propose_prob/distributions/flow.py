"""Flow laws: a base law moved by transforms."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, Transform, kl_divergence
from torch.distributions.kl import register_kl

from ..transforms import Chain


class FlowDistribution(dist.TransformedDistribution):
    """Density of `T(z)`, `z ~ base`, with everything in one pass.

    A torch and a Pyro distribution: usable in `pyro.sample`, plates and reparametrisation. The base
    may depend on parameters and on the context; it is expanded over the context's batch, so that
    samples of different contexts are independent.

    Source: ProPose, eq. 9 (with PAGD as base); ProHMR, eq. 1-4.

    Args:
        base: Law of the latent, event shape `(d,)`.
        transforms: Bijections of vectors, first to last from latent to event.
        batch_shape: Batch shape of the context, where the base does not have it already.
        validate_args: As in torch.

    Raises:
        ValueError: If there are no transforms or the base is not over vectors.

    Example:
        >>> from propose_prob.transforms import DiagonalAffine
        >>> base = diagonal_normal(torch.zeros(2), torch.ones(2))
        >>> law = FlowDistribution(base, DiagonalAffine(torch.ones(2), torch.full((2,), 0.7)))
        >>> law.mode.tolist(), round(law.log_prob(law.mode).item(), 3)
        ([1.0, 1.0], -3.238)
    """

    log_prob_kind = "exact"

    def __init__(
        self,
        base: Distribution,
        transforms: Transform | Sequence[Transform],
        *,
        batch_shape: torch.Size | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if len(base.event_shape) != 1:
            raise ValueError(
                f"expected a base over vectors, event_shape (d,), got {tuple(base.event_shape)}"
            )
        if batch_shape is not None:
            base = base.expand(torch.broadcast_shapes(batch_shape, base.batch_shape))
        parts = [transforms] if isinstance(transforms, Transform) else list(transforms)
        # Chains map vectors to vectors: what torch's own constructor finds out is known.
        self.base_dist = base
        self.transforms = [Chain(parts)]
        Distribution.__init__(self, base.batch_shape, base.event_shape, validate_args=validate_args)

    @property
    def transform(self) -> Chain:
        """The map from latent to event."""
        return self.transforms[0]

    @property
    def constant_ladj(self) -> bool:
        """Whether the log-determinant depends on nothing but parameters and context."""
        return self.transform.constant_ladj

    @property
    def mode(self) -> Tensor:
        """Exact mode, of shape `batch_shape + event_shape` (ProHMR, eq. 4).

        Raises:
            NotImplementedError: If the log-determinant is not constant; then the decoded centre of
                the base is `centre`, and the mode needs `inference.map_estimate`.
        """
        if not self.constant_ladj:
            raise NotImplementedError(
                "this flow's log-determinant depends on the value, so its mode has no closed form; "
                "use .centre (image of the base's mode) or a numerical MAP estimate"
            )
        return self.centre

    @property
    def centre(self) -> Tensor:
        """Image of the base's mode, `batch_shape + event_shape`; see `mode` for when it is one."""
        return self.transform(self.base_dist.mode)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, of shape `batch_shape`.

        Raises:
            NotImplementedError: If the log-determinant is not constant; the mean of `-log_prob`
                over samples estimates it then.
        """
        if not self.constant_ladj:
            raise NotImplementedError(
                "this flow's log-determinant depends on the value, so its entropy has no closed "
                "form; average -log_prob over rsample_and_log_prob"
            )
        return self.base_dist.entropy() + self.transform.call_and_ladj(self.base_dist.mode)[1]

    def log_prob(self, value: Tensor) -> Tensor:
        """Exact log-density `sample_shape + batch_shape` of values `(..., d)`, nats."""
        if self._validate_args:
            self._validate_sample(value)
        z, ladj = self.transform.inverse_and_ladj(value)
        return self.base_dist.log_prob(z) + ladj

    def rsample_and_log_prob(
        self, sample_shape: torch.Size | tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Samples with their log-density, in one pass instead of two.

        Returns:
            Values `sample_shape + batch_shape + (d,)` and log-densities `sample_shape +
            batch_shape`.
        """
        z = self.base_dist.rsample(torch.Size(sample_shape))
        value, ladj = self.transform.call_and_ladj(z)
        return value, self.base_dist.log_prob(z) - ladj

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> FlowDistribution:
        """The same law with a larger batch shape."""
        new = self._get_checked_instance(FlowDistribution, _instance)
        new.transforms = self.transforms
        new.base_dist = self.base_dist.expand(torch.Size(batch_shape))
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new


@register_kl(FlowDistribution, FlowDistribution)
def _kl_flow_flow(p: FlowDistribution, q: FlowDistribution) -> Tensor:
    # A bijection that both share leaves the divergence of the bases unchanged.
    ours, theirs = p.transform.parts, q.transform.parts
    if len(ours) != len(theirs) or any(a != b for a, b in zip(ours, theirs, strict=True)):
        raise NotImplementedError(
            "the KL divergence of two flows has a closed form only where they share the same "
            "transform objects; estimate it with p.rsample_and_log_prob and q.log_prob"
        )
    return kl_divergence(p.base_dist, q.base_dist)


def diagonal_normal(loc: Tensor, scale: Tensor) -> Independent:
    """Normal law of vectors with independent elements; `loc` and `scale` are `(..., d)`.

    Example:
        >>> diagonal_normal(torch.zeros(5, 3), torch.ones(3)).batch_shape
        torch.Size([5])
    """
    return dist.Normal(loc, scale).to_event(1)


def standard_parameters(base: Distribution) -> tuple[Tensor, Tensor]:
    """Location and scale `(..., d)` of a diagonal normal law.

    Raises:
        TypeError: If the law is not one.
    """
    inner = base
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if not isinstance(inner, Normal) or len(base.event_shape) != 1:
        raise TypeError(f"expected a diagonal normal base, got {base}")
    return inner.loc, inner.scale
