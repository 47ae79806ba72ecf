"""Coupling transforms: one half moves by what the other half and the context say."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._zuko import MonotonicRQSTransform
from .base import VectorTransform
from .clamp import soft_clamp


class _Coupling(VectorTransform):
    """Splits a vector in two; `swap` says that the first part moves instead of the second.

    Args:
        network: Maps the resting half `(..., r)` to the parameters of the moving half.
        resting: Number of resting elements.
        swap: Whether the resting elements are the last ones.
    """

    def __init__(
        self, network: Callable[[Tensor], Tensor], resting: int, *, swap: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.resting = resting
        self.swap = swap

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.swap:
            moving, resting = x.tensor_split((x.shape[-1] - self.resting,), -1)
        else:
            resting, moving = x.tensor_split((self.resting,), -1)
        return resting, moving

    def _join(self, resting: Tensor, moving: Tensor) -> Tensor:
        # The context may have batch axes that the value lacks.
        resting = resting.expand(*moving.shape[:-1], resting.shape[-1])
        return torch.cat([moving, resting] if self.swap else [resting, moving], -1)


class AdditiveCoupling(_Coupling):
    """Moves one half by a shift of the other; the log-determinant is zero everywhere.

    Source: NICE (Dinh et al., 2014); the coupling of ProHMR, sec. 3.3.

    Example:
        >>> transform = AdditiveCoupling(lambda rest: 10 * rest, resting=1)
        >>> transform(torch.tensor([1.0, 2.0])).tolist(), transform.constant_ladj
        ([1.0, 12.0], True)
    """

    constant_ladj = True

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Adds the shift."""
        y = self._call(x)
        return y, y.new_zeros(()).expand(y.shape[:-1])

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the shift off again."""
        x = self._inverse(y)
        return x, x.new_zeros(()).expand(x.shape[:-1])

    def _call(self, x: Tensor) -> Tensor:
        resting, moving = self._split(x)
        return self._join(resting, moving + self.network(resting))

    def _inverse(self, y: Tensor) -> Tensor:
        resting, moving = self._split(y)
        return self._join(resting, moving - self.network(resting))


class AffineCoupling(_Coupling):
    """Scales and shifts one half; the log-scale passes the soft clamp of ProPose, eq. 5.

    Source: Real NVP (Dinh et al., 2017) with the clamp of Ardizzone et al. (2019).

    Args:
        network: Maps the resting half `(..., r)` to `(..., 2 m)`: shifts, then raw log-scales.
        resting: Number of resting elements.
        swap: Whether the resting elements are the last ones.
        clamp: Bound of each log-scale.

    Example:
        >>> transform = AffineCoupling(lambda rest: torch.zeros(*rest.shape[:-1], 2), resting=1)
        >>> transform(torch.tensor([1.0, 2.0])).tolist(), transform.constant_ladj
        ([1.0, 2.0], False)
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        resting: int,
        *,
        swap: bool = False,
        clamp: float = 1.0,
    ) -> None:
        super().__init__(network, resting, swap=swap)
        self.clamp = clamp

    def _parameters(self, resting: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = self.network(resting).chunk(2, -1)
        # Elementwise functions are several times slower on a slice.
        return shift, soft_clamp(raw.contiguous(), self.clamp)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scales, then shifts."""
        resting, moving = self._split(x)
        shift, log_scale = self._parameters(resting)
        moved = torch.addcmul(shift, moving, log_scale.exp())
        return self._join(resting, moved), log_scale.sum(-1)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the shift off, then the scale."""
        resting, moving = self._split(y)
        shift, log_scale = self._parameters(resting)
        return self._join(resting, (moving - shift) * (-log_scale).exp()), -log_scale.sum(-1)

    def _call(self, x: Tensor) -> Tensor:
        resting, moving = self._split(x)
        shift, log_scale = self._parameters(resting)
        return self._join(resting, torch.addcmul(shift, moving, log_scale.exp()))

    def _inverse(self, y: Tensor) -> Tensor:
        resting, moving = self._split(y)
        shift, log_scale = self._parameters(resting)
        return self._join(resting, (moving - shift) * (-log_scale).exp())


class SplineCoupling(_Coupling):
    """Moves one half by monotonic rational-quadratic splines on [-5, 5], the identity outside.

    Source: Neural Spline Flows (Durkan et al., 2019); the spline is zuko's.

    Args:
        network: Maps the resting half `(..., r)` to `(..., m (3 bins - 1))`.
        resting: Number of resting elements.
        swap: Whether the resting elements are the last ones.
        bins: Number of bins.

    Example:
        >>> def network(rest):
        ...     return torch.zeros(*rest.shape[:-1], 23)
        >>> transform = SplineCoupling(network, resting=1, bins=8)
        >>> x = torch.tensor([1.0, 2.0])
        >>> torch.allclose(transform.inv(transform(x)), x)
        True
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        resting: int,
        *,
        swap: bool = False,
        bins: int = 8,
    ) -> None:
        super().__init__(network, resting, swap=swap)
        self.bins = bins

    def _spline(self, resting: Tensor) -> MonotonicRQSTransform:
        raw = self.network(resting).unflatten(-1, (-1, 3 * self.bins - 1))
        return MonotonicRQSTransform(*raw.split([self.bins, self.bins, self.bins - 1], -1))

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Applies the splines."""
        resting, moving = self._split(x)
        moved, ladj = self._spline(resting).call_and_ladj(moving)
        return self._join(resting, moved), ladj.sum(-1)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Undoes the splines."""
        resting, moved = self._split(y)
        moving, ladj = self._spline(resting).inv.call_and_ladj(moved)
        return self._join(resting, moving), ladj.sum(-1)
