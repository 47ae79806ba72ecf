"""Block-banded Cholesky factorization for chains, linear in their length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["BandedFactor", "factor_banded", "multiply_banded"]

#: Groups of blocks that are put together at once: few calls, little memory.
_GROUPS = 256


@dataclass(frozen=True)
class BandedFactor:
    """Cholesky factor of a symmetric positive definite block-banded matrix; see `factor_banded`.

    As many blocks as the band is wide make one group, so that only neighboring groups meet.

    Attributes:
        count: Number of blocks T.
        size: Size n of a block.
        corners: Lower triangular blocks of the groups, each `(..., g n, g n)`.
        below: The blocks under them, one fewer.
    """

    count: int
    size: int
    corners: tuple[Tensor, ...]
    below: tuple[Tensor, ...]

    def solve(self, rhs: Tensor) -> Tensor:
        """Solve `A x = rhs` for `rhs` `(T, ..., n)`.

        Raises:
            InputError: If the number or the size of the blocks differs.
        """
        if len(rhs) != self.count or rhs.shape[-1] != self.size:
            raise InputError(
                f"expected a right-hand side of shape ({self.count}, ..., {self.size}), "
                f"got {tuple(rhs.shape)}"
            )
        group = self.corners[0].shape[-1] // self.size
        padded = torch.cat([rhs, rhs.new_zeros(-self.count % group, *rhs.shape[1:])])
        # (groups, ..., g n, 1)
        rest = padded.unflatten(0, (-1, group)).movedim(1, -2).flatten(-2)[..., None]
        known: list[Tensor] = []
        for t, part in enumerate(rest.unbind()):
            if t:
                part = part - self.below[t - 1] @ known[-1]
            known.append(torch.linalg.solve_triangular(self.corners[t], part, upper=False))
        for t in range(len(known) - 1, -1, -1):
            part = known[t]
            if t + 1 < len(known):
                part = part - self.below[t].mT @ known[t + 1]
            known[t] = torch.linalg.solve_triangular(self.corners[t].mT, part, upper=True)
        return self._blocks(torch.stack(known)[..., 0])

    def variances(self) -> Tensor:
        """Diagonal of the inverse, `(T, ..., n)`.

        Source: Takahashi, Fagan and Chen, "Formation of a sparse bus impedance matrix and its
        application to short circuit study" (1973): only blocks within the band are needed, so this
        too is linear in T.
        """
        eye = torch.eye(
            self.corners[0].shape[-1], dtype=self.corners[0].dtype, device=self.corners[0].device
        )
        found: list[Tensor] = []
        covariance = eye
        for t in range(len(self.corners) - 1, -1, -1):
            corner = self.corners[t]
            inverse = torch.linalg.solve_triangular(corner, eye.expand_as(corner), upper=False)
            block = inverse.mT @ inverse
            if t < len(self.below):
                gain = self.below[t] @ inverse
                block = block + gain.mT @ covariance @ gain
            covariance = block
            found.append(block.diagonal(dim1=-2, dim2=-1))
        return self._blocks(torch.stack(found[::-1]))

    def _blocks(self, x: Tensor) -> Tensor:
        """Groups `(m, ..., g n)` as blocks `(T, ..., n)`."""
        return x.unflatten(-1, (-1, self.size)).movedim(-2, 1).flatten(0, 1)[: self.count]


def factor_banded(bands: Sequence[Tensor]) -> BandedFactor:
    """Factor a symmetric positive definite block-banded matrix.

    Time and memory are linear in the number of blocks T, and the result is exact: the chain is not
    cut into pieces.

    Args:
        bands: The diagonal blocks `(T, ..., n, n)`, then for `k = 1, 2, ...` the blocks k below
            them, of rows `t + k` and columns `t`: `(T - k, ..., n, n)`, or `(T - k, ..., n)` where
            they are diagonal themselves. Bands with k >= T are empty.

    Returns:
        The factor.

    Raises:
        InputError: If a shape does not fit, or the matrix is not positive definite.

    Example:
        >>> chain = [torch.eye(2).expand(5, 2, 2) * 2.5, -torch.ones(4, 2)]
        >>> x = factor_banded(chain).solve(torch.ones(5, 2))
        >>> torch.allclose(multiply_banded(chain, x), torch.ones(5, 2), atol=1e-5)
        True
    """
    main, others = _check(bands)
    corners: list[Tensor] = []
    below: list[Tensor] = []
    group = max(len(others), 1)
    for number, (corner, under) in enumerate(_groups(main, others, group)):
        if below:
            corner = corner - below[-1] @ below[-1].mT
        lower, info = torch.linalg.cholesky_ex(corner)
        if bool((info != 0).any()):
            first = number * group
            raise InputError(
                "expected a positive definite matrix, but it is not at blocks "
                f"{first} to {min(first + group, len(main)) - 1} (axis 0)"
            )
        corners.append(lower)
        if under is not None:
            # X L^T = under
            below.append(torch.linalg.solve_triangular(lower.mT, under, upper=True, left=False))
    return BandedFactor(len(main), main.shape[-1], tuple(corners), tuple(below))


def multiply_banded(bands: Sequence[Tensor], x: Tensor) -> Tensor:
    """Multiply a symmetric block-banded matrix, as of `factor_banded`, with `x` `(T, ..., n)`.

    Raises:
        InputError: If a shape does not fit.
    """
    main, others = _check(bands)
    result = (main @ x[..., None])[..., 0]
    for k, band in enumerate(others, start=1):
        if not len(band):
            continue
        if band.ndim < main.ndim:
            down, up = band * x[:-k], band * x[k:]
        else:
            down, up = (band @ x[:-k, ..., None])[..., 0], (band.mT @ x[k:, ..., None])[..., 0]
        result[k:] += down
        result[:-k] += up
    return result


def _groups(
    main: Tensor, others: list[Tensor], group: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Blocks of neighboring groups: those on the diagonal, and those under them."""
    count, size = len(main), main.shape[-1]
    total = -(-count // group)
    for begin in range(0, total, _GROUPS):
        end = min(begin + _GROUPS, total)
        shape = (end - begin, *main.shape[1:-2], group * size, group * size)
        corner, under = main.new_zeros(shape), main.new_zeros(shape)
        for row in range(group):
            for column in range(group):
                for target, k in ((corner, row - column), (under, group + row - column)):
                    if k < 0 or k > len(others):
                        continue
                    band = main if k == 0 else others[k - 1]
                    values = band[begin * group + column : end * group : group]
                    if band.ndim < main.ndim:
                        values = values.diag_embed()
                    place = target[
                        : len(values),
                        ...,
                        row * size : (row + 1) * size,
                        column * size : (column + 1) * size,
                    ]
                    place.copy_(values)
        if end == total:
            # Blocks that fill the last group up.
            corner[-1].diagonal(dim1=-2, dim2=-1)[..., (count - 1) % group * size + size :] = 1
        for number in range(end - begin):
            last = begin + number + 1 == total
            # The upper triangle is not read by the factorization.
            yield corner[number], None if last else under[number]


def _check(bands: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    if not bands or bands[0].ndim < 3 or bands[0].shape[-1] != bands[0].shape[-2]:
        raise InputError("expected diagonal blocks of shape (T, ..., n, n) first")
    main, others = bands[0], list(bands[1:])
    if not len(main):
        raise InputError("expected at least one block (axis 0), got none")
    for k, band in enumerate(others, start=1):
        rows = max(len(main) - k, 0)
        if band.shape not in ((rows, *main.shape[1:]), (rows, *main.shape[1:-1])):
            raise InputError(
                f"expected band {k} of shape {(rows, *main.shape[1:])}, or without its last axis "
                f"where its blocks are diagonal, got {tuple(band.shape)}"
            )
    return main, others
