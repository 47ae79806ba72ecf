"""Bijections from latent to event: pure torch transforms, parameters given from outside."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Transform, constraints

from ._zuko import MonotonicRQSTransform
from .errors import InputError

__all__ = [
    "AdditiveCoupling",
    "AffineCoupling",
    "Chain",
    "DenseAffine",
    "DiagonalAffine",
    "Identity",
    "Inverse",
    "LULinear",
    "Permutation",
    "SplineCoupling",
    "VectorTransform",
    "soft_clamp",
]


def soft_clamp(t: Tensor, alpha: float) -> Tensor:
    r"""Squeezes the real line smoothly into an interval.

    .. math:: \sigma_\alpha(t) = \frac{2 \alpha}{\pi} \arctan \frac{t}{\alpha}

    Source: ProPose, eq. 5 (after Ardizzone et al., 2019).

    Args:
        t: Any shape.
        alpha: Half the width of the interval, positive.

    Returns:
        Values in `(-alpha, alpha)`, of the shape of `t`.

    Example:
        >>> soft_clamp(torch.tensor([-1e9, 0.0, 1e9]), 2.0)
        tensor([-2.,  0.,  2.])
    """
    return (2 * alpha / math.pi) * torch.atan(t / alpha)


class VectorTransform(Transform, ABC):
    """Bijection of the last axis, from latent to event, without a cache.

    Subclasses give `call_and_ladj` and `inverse_and_ladj`: the value together with the
    log-determinant of the map that made it, in one pass. `_call` and `_inverse` give the value
    alone; a subclass that saves work by that overrides them.

    `constant_ladj` is a promise: the log-determinant depends neither on the value nor on anything
    but parameters and context. Only then is a flow's mode known in closed form.

    Example:
        >>> import torch
        >>> from propose_prob.transforms import DiagonalAffine
        >>> transform: VectorTransform = DiagonalAffine(torch.ones(2), torch.tensor([0.0, 1.0]))
        >>> y, ladj = transform.call_and_ladj(torch.zeros(5, 2))
        >>> y.shape, ladj.tolist(), transform.constant_ladj
        (torch.Size([5, 2]), [1.0, 1.0, 1.0, 1.0, 1.0], True)
    """

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True
    constant_ladj: bool = False

    def __init__(self) -> None:
        super().__init__(cache_size=0)

    @abstractmethod
    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latent `(..., d)` to event `(..., d)` and `log|det dy/dx|` of shape `(...)`."""

    @abstractmethod
    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Event `(..., d)` to latent `(..., d)` and `log|det dx/dy|` of shape `(...)`."""

    def with_cache(self, cache_size: int = 1) -> VectorTransform:
        """Returns itself: transforms here never cache."""
        return self

    def _call(self, x: Tensor) -> Tensor:
        return self.call_and_ladj(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.inverse_and_ladj(y)[0]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """`log|det dy/dx|` at `x`, of shape `(...)`."""
        return self.call_and_ladj(x)[1]


class Chain(VectorTransform):
    """Composition of vector transforms, first to last from latent to event.

    Args:
        transforms: At least one transform. torch and zuko transforms of vectors are accepted too;
            they count as not constant.

    Raises:
        InputError: If there are none, or one does not map vectors to vectors.

    Example:
        >>> import torch
        >>> from propose_prob.transforms import DiagonalAffine
        >>> step = DiagonalAffine(torch.ones(2), torch.zeros(2))
        >>> Chain([step, step])(torch.zeros(2)).tolist()
        [2.0, 2.0]
    """

    def __init__(self, transforms: list[Transform]) -> None:
        super().__init__()
        if not transforms:
            raise InputError("expected at least one transform, got none")
        for i, t in enumerate(transforms):
            if t.domain.event_dim > 1 or t.codomain.event_dim > 1 or not t.bijective:
                raise InputError(f"transform {i}: expected a bijection of vectors, got {t}")
        self.parts = list(transforms)
        self.constant_ladj = all(getattr(t, "constant_ladj", False) for t in transforms)

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Applies all parts, first to last."""
        total = x.new_zeros(())
        for part in self.parts:
            if isinstance(part, VectorTransform):
                x, ladj = part.call_and_ladj(x)
            else:
                y = part(x)
                ladj, x = _foreign_ladj(part, x, y), y
            total = total + ladj
        return x, total.expand(x.shape[:-1])

    def _call(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part._call(x) if isinstance(part, VectorTransform) else part(x)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part._inverse(y) if isinstance(part, VectorTransform) else part.inv(y)
        return y

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Undoes all parts, last to first."""
        total = y.new_zeros(())
        for part in reversed(self.parts):
            if isinstance(part, VectorTransform):
                y, ladj = part.inverse_and_ladj(y)
            else:
                x = part.inv(y)
                ladj, y = -_foreign_ladj(part, x, y), x
            total = total + ladj
        return y, total.expand(y.shape[:-1])


def _foreign_ladj(transform: Transform, x: Tensor, y: Tensor) -> Tensor:
    ladj = transform.log_abs_det_jacobian(x, y)
    return ladj.sum(-1) if transform.domain.event_dim == 0 else ladj


class Identity(VectorTransform):
    """The identity, with log-determinant 0.

    Example:
        >>> import torch
        >>> y, ladj = Identity().call_and_ladj(torch.ones(3, 2))
        >>> y.shape, ladj.tolist()
        (torch.Size([3, 2]), [0.0, 0.0, 0.0])
    """

    constant_ladj = True

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the value unchanged."""
        return x, x.new_zeros(()).expand(x.shape[:-1])

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the value unchanged."""
        return self.call_and_ladj(y)


class Inverse(VectorTransform):
    """A transform the other way round: still value and log-determinant in one pass.

    Args:
        transform: The transform whose events become latents.

    Example:
        >>> import torch
        >>> from propose_prob.transforms import DiagonalAffine
        >>> Inverse(DiagonalAffine(torch.ones(2), torch.zeros(2)))(torch.zeros(2)).tolist()
        [-1.0, -1.0]
    """

    def __init__(self, transform: VectorTransform) -> None:
        super().__init__()
        self.transform = transform
        self.constant_ladj = transform.constant_ladj

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Inverts the transform."""
        return self.transform.inverse_and_ladj(x)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Applies the transform."""
        return self.transform.call_and_ladj(y)

    def _call(self, x: Tensor) -> Tensor:
        return self.transform._inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.transform._call(y)


class Permutation(VectorTransform):
    """Reorders the elements.

    Args:
        order: Permutation `(d,)`: element `i` of the event is element `order[i]` of the latent.
        inverse_order: Its inverse; computed when left out.

    Example:
        >>> Permutation(torch.tensor([2, 0, 1]))(torch.tensor([10.0, 20.0, 30.0])).tolist()
        [30.0, 10.0, 20.0]
    """

    constant_ladj = True

    def __init__(self, order: Tensor, inverse_order: Tensor | None = None) -> None:
        super().__init__()
        self.order = order
        self.inverse_order = order.argsort() if inverse_order is None else inverse_order

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Reorders."""
        return x.index_select(-1, self.order), x.new_zeros(()).expand(x.shape[:-1])

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Restores the order."""
        return y.index_select(-1, self.inverse_order), y.new_zeros(()).expand(y.shape[:-1])


class DiagonalAffine(VectorTransform):
    """Scales and shifts each element: `y = exp(log_scale) x + shift` (ActNorm once fitted).

    Source: Glow (Kingma and Dhariwal, 2018); "instance normalization" of ProHMR, eq. 3.

    Args:
        shift: `(d,)`.
        log_scale: `(d,)`.

    Example:
        >>> DiagonalAffine(torch.ones(2), torch.zeros(2))(torch.zeros(2)).tolist()
        [1.0, 1.0]
    """

    constant_ladj = True

    def __init__(self, shift: Tensor, log_scale: Tensor) -> None:
        super().__init__()
        self.shift = shift
        self.log_scale = log_scale

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scales, then shifts."""
        y = x * self.log_scale.exp() + self.shift
        return y, self.log_scale.sum().expand(y.shape[:-1])

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Takes the shift off, then the scale."""
        x = (y - self.shift) * (-self.log_scale).exp()
        return x, -self.log_scale.sum().expand(x.shape[:-1])


class LULinear(VectorTransform):
    """Linear map `y = L U x + shift` given by its triangular factors.

    Source: Glow (Kingma and Dhariwal, 2018), sec. 3.2; ProHMR, eq. 3.

    Args:
        lower: Unit lower triangular `(d, d)`.
        upper: Upper triangular `(d, d)` with a positive diagonal.
        shift: `(d,)`.

    Example:
        >>> lower = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> transform = LULinear(lower, torch.diag(torch.tensor([2.0, 1.0])), torch.zeros(2))
        >>> transform(torch.ones(2)).tolist()
        [2.0, 3.0]
    """

    constant_ladj = True

    def __init__(self, lower: Tensor, upper: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.shift = shift

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Multiplies by the matrix, then shifts."""
        y = x @ (self.lower @ self.upper).mT + self.shift
        return y, self._ladj().expand(y.shape[:-1])

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Solves the two triangular systems."""
        # One solve with all values as columns: a batch of solves is many times slower.
        columns = (y - self.shift).reshape(-1, y.shape[-1]).mT
        half = torch.linalg.solve_triangular(self.lower, columns, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(self.upper, half, upper=True).mT.reshape(y.shape)
        return x, -self._ladj().expand(x.shape[:-1])

    def _ladj(self) -> Tensor:
        return self.upper.diagonal().log().sum()


class DenseAffine(VectorTransform):
    """Affine map `y = W x + shift` whose inverse was computed beforehand.

    What ActNorm, LU linear maps and permutations become when nothing of them is trained any more.

    Args:
        matrix: Transpose of `W`, `(d, d)`.
        shift: `(d,)`.
        inverse_matrix: Transpose of the inverse of `W`, `(d, d)`.
        inverse_shift: Shift of the inverse map, `(d,)`.
        ladj: `log|det W|`, `()`.

    Example:
        >>> half, two = 0.5 * torch.eye(2), 2 * torch.eye(2)
        >>> zero = torch.zeros(2)
        >>> transform = DenseAffine(two, zero, half, zero, torch.tensor(4.0).log())
        >>> transform(torch.ones(2)).tolist(), transform.inv(torch.ones(2)).tolist()
        ([2.0, 2.0], [0.5, 0.5])
    """

    constant_ladj = True

    def __init__(
        self,
        matrix: Tensor,
        shift: Tensor,
        inverse_matrix: Tensor,
        inverse_shift: Tensor,
        ladj: Tensor,
    ) -> None:
        super().__init__()
        self.matrix = matrix
        self.shift = shift
        self.inverse_matrix = inverse_matrix
        self.inverse_shift = inverse_shift
        self.ladj = ladj

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Multiplies by the matrix, then shifts."""
        y = torch.nn.functional.linear(x, self.matrix.mT, self.shift)
        return y, self.ladj.expand(y.shape[:-1])

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Multiplies by the inverse matrix, then shifts."""
        x = torch.nn.functional.linear(y, self.inverse_matrix.mT, self.inverse_shift)
        return x, -self.ladj.expand(x.shape[:-1])


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
