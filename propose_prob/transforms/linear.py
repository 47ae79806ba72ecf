"""Linear transforms with constant log-determinants."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import VectorTransform


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

    Source: Glow (Kingma and Dhariwal, 2018); "instance normalisation" of ProHMR, eq. 3.

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
