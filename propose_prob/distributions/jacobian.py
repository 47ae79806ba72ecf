"""Forward-mode Jacobians of maps with few inputs and many outputs."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["forward_jacobian"]


def forward_jacobian(
    function: Callable[[Tensor], Tensor], point: Tensor, *, chunk_size: int | None = None
) -> Tensor:
    """Derivatives of a map of vectors at each of a batch of points.

    Args:
        function: Maps `(..., d)` to `(..., n)`, each row by itself.
        point: `(..., d)`.
        chunk_size: Directions taken together; all of them where left out.

    Returns:
        `(..., n, d)`.

    Example:
        >>> forward_jacobian(lambda x: x.square(), torch.tensor([1.0, 2.0]))
        tensor([[2., 0.],
                [0., 4.]])
    """
    basis = torch.eye(point.shape[-1], dtype=point.dtype, device=point.device)

    def column(direction: Tensor) -> Tensor:
        return torch.func.jvp(function, (point,), (direction.expand_as(point),))[1]

    with warnings.catch_warnings():
        # Of torch's own first use of forward mode in a process.
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        columns = torch.func.vmap(column, chunk_size=chunk_size)(basis)
    return columns.movedim(0, -1)
