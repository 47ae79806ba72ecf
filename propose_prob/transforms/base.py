"""What all transforms share: one pass gives a value with its log-determinant."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torch.distributions import Transform, constraints


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
        ValueError: If there are none, or one does not map vectors to vectors.

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
            raise ValueError("expected at least one transform, got none")
        for i, t in enumerate(transforms):
            if t.domain.event_dim > 1 or t.codomain.event_dim > 1 or not t.bijective:
                raise ValueError(f"transform {i}: expected a bijection of vectors, got {t}")
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
