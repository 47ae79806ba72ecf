"""Predicted width against error: rank correlation and sparsification.

Rank correlation and sparsification need all items in order. A joint histogram of spread and error
on a logarithmic grid gives both in constant memory, and histograms of processes can be added.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["SpreadError", "SpreadErrorHistogram"]


@dataclass(frozen=True, eq=False)
class SpreadError:
    """How well spread tells errors apart.

    Attributes:
        spearman: Rank correlation of spread and error; 1 is ideal, 0 is no information.
        removed: Shares of the items left out, most uncertain first, ``(K,)`` from 0 to below 1.
        by_spread: Mean error of the rest, ``(K,)``, unit of the errors.
        by_error: The same where the largest errors themselves are left out: the best there is.
        ause: Area between both curves, divided by the mean error; 0 is ideal, and leaving out at
            random has about one half (Ilg et al., "Uncertainty estimates and multi-hypotheses
            networks for optical flow", ECCV 2018, section 5.1).
        spread: Mean spread of groups of equally many items in order of spread, ``(G,)``.
        error: Mean error of the same groups, ``(G,)``: a distribution that is right has equal
            shape.
        count: Items counted.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> spread = torch.rand(2000, generator=generator)
        >>> histogram = SpreadErrorHistogram()
        >>> histogram.update(spread, spread * torch.rand(2000, generator=generator))
        >>> result = histogram.compute()
        >>> 0 < result.spearman < 1, 0 < result.ause < 0.5, result.count
        (True, True, 2000)
    """

    spearman: float
    removed: Tensor
    by_spread: Tensor
    by_error: Tensor
    ause: float
    spread: Tensor
    error: Tensor
    count: int


class SpreadErrorHistogram:
    """Streaming spread and error of any number of items, in constant memory.

    Args:
        bins: Cells of each side of the grid. With 256 the correlation is that of all items to
            about 0.001.
        low: Smallest value that is told apart from smaller ones, in the unit of the values.
        high: Largest value that is told apart from larger ones.

    Example:
        >>> import torch
        >>> histogram = SpreadErrorHistogram()
        >>> spread = torch.rand(2000, generator=torch.Generator().manual_seed(0))
        >>> histogram.update(spread, 2 * spread)
        >>> result = histogram.compute()
        >>> round(result.spearman, 2), round(abs(result.ause), 2)
        (1.0, 0.0)
    """

    def __init__(self, *, bins: int = 256, low: float = 1e-5, high: float = 10.0) -> None:
        if bins < 2 or not 0 < low < high:
            raise InputError(
                f"expected bins >= 2 and 0 < low < high, got bins {bins}, low {low}, high {high}"
            )
        self.bins, self.low, self.high = bins, low, high
        self._counts = torch.zeros(bins, bins, dtype=torch.int64)
        self._sums = torch.zeros(2, bins, bins, dtype=torch.float64)

    @torch.no_grad()
    def update(self, spread: Tensor, error: Tensor, mask: Tensor | None = None) -> None:
        """Add items.

        Args:
            spread: What the distribution says of its own uncertainty, any shape, for instance
                `joint_spread` in meters; not negative.
            error: Errors that really happened, same shape and unit.
            mask: Which of them count, same shape; all by default.

        Raises:
            InputError: If the shapes differ, a value is negative or NaN.
        """
        if error.shape != spread.shape or (mask is not None and mask.shape != spread.shape):
            raise InputError(
                f"expected spread, error and mask of one shape, got {tuple(spread.shape)}, "
                f"{tuple(error.shape)}{'' if mask is None else f' and {tuple(mask.shape)}'}"
            )
        if mask is not None:
            spread, error = spread[mask.bool()], error[mask.bool()]
        spread, error = spread.flatten().double().cpu(), error.flatten().double().cpu()
        if not bool((spread >= 0).all() and (error >= 0).all()):
            raise InputError("expected spread and error >= 0, got a negative value or NaN")
        cell = self._cell(spread) * self.bins + self._cell(error)
        size = self.bins**2
        self._counts += torch.bincount(cell, minlength=size).reshape(self.bins, -1)
        for row, value in enumerate((spread, error)):
            total = torch.bincount(cell, weights=value, minlength=size)
            self._sums[row] += total.reshape(self.bins, -1)

    def merge(self, other: SpreadErrorHistogram) -> None:
        """Add what another process counted.

        Raises:
            InputError: If the grids differ.
        """
        if (other.bins, other.low, other.high) != (self.bins, self.low, self.high):
            raise InputError("expected a histogram over the same grid")
        self._counts += other._counts
        self._sums += other._sums

    def compute(self, *, steps: int = 20, groups: int = 10) -> SpreadError:
        """Correlation and curves of everything added so far (NaN if nothing was).

        Args:
            steps: Points of the sparsification curves.
            groups: Groups of equally many items, in order of spread.
        """
        counts = self._counts.double()
        total = float(counts.sum())
        removed = torch.arange(steps, dtype=torch.float64) / steps
        by_spread = _kept_mean(counts.sum(1), self._sums[1].sum(1), removed)
        by_error = _kept_mean(counts.sum(0), self._sums[1].sum(0), removed)
        mean = float(self._sums[1].sum()) / total if total else math.nan
        gap = (by_spread - by_error) / mean
        # Nothing is left at 1, where both curves meet: the last trapezoid ends at zero.
        ause = float(torch.trapezoid(torch.cat([gap, gap.new_zeros(1)]), dx=1 / steps))
        shares = [_grouped(counts.sum(1), self._sums[row].sum(1), groups) for row in range(2)]
        return SpreadError(
            spearman=_spearman(counts),
            removed=removed,
            by_spread=by_spread,
            by_error=by_error,
            ause=ause,
            spread=shares[0],
            error=shares[1],
            count=int(total),
        )

    def _cell(self, value: Tensor) -> Tensor:
        place = (value.clamp_min(self.low).log() - math.log(self.low)) / (
            math.log(self.high) - math.log(self.low)
        )
        return (place * self.bins).long().clamp(0, self.bins - 1)


def _cumulative(counts: Tensor, sums: Tensor, upto: Tensor) -> Tensor:
    """Sum over the first ``upto`` items in order of their bin; a bin is split in proportion."""
    edges = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    heights = torch.cat([sums.new_zeros(1), sums.cumsum(0)])
    index = torch.searchsorted(edges, upto.contiguous(), right=True).clamp(1, len(counts)) - 1
    share = (upto - edges[index]) / counts[index].clamp_min(1)
    return heights[index] + share.clamp(0, 1) * sums[index]


def _kept_mean(counts: Tensor, sums: Tensor, removed: Tensor) -> Tensor:
    kept = (1 - removed) * counts.sum()
    return _cumulative(counts, sums, kept) / kept


def _grouped(counts: Tensor, sums: Tensor, groups: int) -> Tensor:
    ends = torch.arange(groups + 1, dtype=torch.float64) / groups * counts.sum()
    return _cumulative(counts, sums, ends).diff() / ends.diff()


def _spearman(counts: Tensor) -> float:
    """Correlation of mid-ranks, as with ties."""
    total = counts.sum()
    centred = []
    for axis in (1, 0):
        margin = counts.sum(axis)
        rank = margin.cumsum(0) - margin / 2
        centred.append((rank - total / 2, margin))
    (a, a_count), (b, b_count) = centred
    covariance = a @ counts @ b
    spread = ((a_count * a.square()).sum() * (b_count * b.square()).sum()).sqrt()
    return float(covariance / spread) if spread > 0 else math.nan
