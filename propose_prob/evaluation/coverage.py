"""PIT, interval coverage and simulation-based calibration.

All three ask for the rank of the truth among draws, whose distribution is uniform where the model
is right; they differ in what is ranked. PIT ranks coordinates, one by one; simulation-based
calibration (SBC) ranks any number that can be computed of a pose, such as its log-density.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .scores import check_samples

__all__ = ["COVERAGE_LEVELS", "Coverage", "PITHistogram", "RankHistogram", "Ranks", "rank_among"]

COVERAGE_LEVELS: tuple[float, ...] = (0.5, 0.8, 0.9, 0.95)
"""Central intervals of a coverage table."""

_AXES = ("x", "y", "z")


@torch.no_grad()
def rank_among(samples: Tensor, target: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """How many of the samples are smaller than the truth; ties are broken at random.

    Args:
        samples: Numbers of each item's draws, ``(S, ...)``.
        target: The truth's numbers, ``(...)``.
        generator: For ties, on the samples' device; the global one by default.

    Returns:
        Ranks in 0 ... S, ``(...)`` integers. Uniform if truth and samples are exchangeable.

    Raises:
        InputError: If the shapes do not fit.

    Example:
        >>> rank_among(torch.tensor([0.0, 1.0, 2.0]), torch.tensor(1.5)).item()
        2
    """
    if samples.ndim < 1 or samples.shape[1:] != target.shape:
        raise InputError(
            f"expected samples of shape (S, *{tuple(target.shape)}), got {tuple(samples.shape)}"
        )
    below, equal = (samples < target).sum(0), (samples == target).sum(0)
    share = torch.rand(target.shape, generator=generator, device=target.device)
    return below + (share * (equal + 1)).floor().to(below.dtype)


@dataclass(frozen=True, eq=False)
class Ranks:
    """A histogram of ranks and how far it is from uniform.

    Attributes:
        density: Height of each bin, 1 where uniform, ``(bins, ...)``.
        count: Ranks behind it.
        distance: Largest gap between the empirical and the uniform distribution function (the
            Kolmogorov-Smirnov statistic of the binned ranks), ``(...)``.
        chi2: Pearson's statistic of the bins, ``(...)``; about ``bins - 1`` if the ranks are
            independent and uniform. Frames of a video are not independent: it is then larger.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(100, 2000, generator=generator)
        >>> ranks = RankHistogram(99, bins=4)
        >>> ranks.update(rank_among(0.5 * draws[1:], draws[0], generator))
        >>> ranks.compute().density.round(decimals=1).tolist()
        [1.4, 0.6, 0.5, 1.5]
    """

    density: Tensor
    count: int
    distance: Tensor
    chi2: Tensor


class RankHistogram:
    """Streaming histogram of ranks, for PIT and simulation-based calibration.

    SBC: draw a pose from the distribution, or take a true one; rank a number of it
    (`distribution.log_prob`, a
    joint's depth) among the same number of S draws. Sources: Talts et al., "Validating Bayesian
    inference algorithms with simulation-based calibration", 2018; with the log-density as the
    number, Modrak et al., "Simulation-based calibration checking ... with data-dependent test
    quantities", 2023. A density is needed for that, so the distribution must have an exact
    `log_prob`.

    Args:
        num_samples: S, the same in every update.
        bins: Number of bins; S + 1 must be a multiple, or the bins would not be equally likely.
        shape: Shape of the numbers of one item, for one histogram each.

    Raises:
        InputError: If the bins do not divide S + 1.

    Example:
        >>> import torch
        >>> generator = torch.Generator().manual_seed(0)
        >>> ranks = RankHistogram(99, bins=10)
        >>> draws = torch.randn(100, 5000, generator=generator)
        >>> ranks.update(rank_among(draws[1:], draws[0], generator))
        >>> bool(ranks.compute().distance < 0.03)
        True
    """

    def __init__(self, num_samples: int, *, bins: int = 20, shape: tuple[int, ...] = ()) -> None:
        if bins < 2 or (num_samples + 1) % bins:
            raise InputError(
                f"expected bins >= 2 that divide num_samples + 1 = {num_samples + 1}, got {bins}"
            )
        self.num_samples = num_samples
        self.bins = bins
        self._counts = torch.zeros(bins, *shape, dtype=torch.int64)

    def update(self, ranks: Tensor) -> None:
        """Add ranks ``(B, *shape)`` in 0 ... S of B items.

        Raises:
            InputError: If the shape differs or a rank is outside.
        """
        if ranks.shape[1:] != self._counts.shape[1:]:
            raise InputError(
                f"expected ranks of shape (B, *{tuple(self._counts.shape[1:])}), "
                f"got {tuple(ranks.shape)}"
            )
        if ranks.numel() and not (ranks.min() >= 0 and ranks.max() <= self.num_samples):
            raise InputError(f"expected ranks between 0 and S = {self.num_samples}")
        index = ranks.to(torch.int64) * self.bins // (self.num_samples + 1)
        ones = torch.nn.functional.one_hot(index, self.bins).sum(0).cpu()
        self._counts += ones.movedim(-1, 0)

    def merge(self, other: RankHistogram) -> None:
        """Add what another process counted.

        Raises:
            InputError: If samples, bins or shape differ.
        """
        if (other.num_samples, other._counts.shape) != (self.num_samples, self._counts.shape):
            raise InputError("expected a histogram of the same samples, bins and shape")
        self._counts += other._counts

    def compute(self) -> Ranks:
        """Density and its distance from uniform (NaN if nothing was added)."""
        total = self._counts.sum(0)
        share = self._counts.double() / total
        uniform = 1 / self.bins
        steps = torch.arange(1, self.bins + 1, dtype=torch.float64) * uniform
        steps = steps.reshape(-1, *[1] * (share.ndim - 1))
        return Ranks(
            density=share * self.bins,
            count=int(total.flatten()[0]) if total.numel() else 0,
            distance=(share.cumsum(0) - steps).abs().amax(0),
            chi2=total * (share - uniform).square().sum(0) / uniform,
        )


@dataclass(frozen=True, eq=False)
class Coverage:
    """How often central intervals hold the truth.

    Attributes:
        levels: Nominal levels, K of them.
        frequencies: Share of coordinates inside, ``(K, J, 3)``; NaN where nothing counted.
        axes: The same, mean over joints, ``(K, 3)`` for x, y and z.
        counts: Items behind each joint, ``(J,)``.

    Example:
        >>> pit = PITHistogram(1)
        >>> draws = torch.randn(51, 4000, 1, 3, generator=torch.Generator().manual_seed(0))
        >>> pit.update(0.5 * draws[1:], draws[0])
        >>> print(pit.coverage().to_table())
        interval       x       y       z
             50%   27.0%   26.6%   27.0%
             80%   49.0%   47.9%   49.0%
             90%   60.9%   60.4%   61.1%
             95%   70.7%   70.0%   70.5%
    """

    levels: tuple[float, ...]
    frequencies: Tensor
    axes: Tensor
    counts: Tensor

    def to_table(self) -> str:
        """Aligned plain text: nominal level against the share inside, per axis."""
        rows = [f"{'interval':>8}" + "".join(f"{axis:>8}" for axis in _AXES)]
        for level, row in zip(self.levels, self.axes.tolist(), strict=True):
            cells = "".join("       -" if math.isnan(v) else f"{100 * v:7.1f}%" for v in row)
            rows.append(f"{100 * level:7.0f}%{cells}")
        return "\n".join(rows)


class PITHistogram:
    """Streaming probability integral transform of every coordinate.

    The transform of a coordinate is the truth's place in its cumulative distribution function,
    uniform where the distribution is right: a bump in the middle means too wide, a bowl too narrow,
    a slope biased. From S samples it is the rank plus a uniform number, over S + 1, so that it is
    exactly uniform for every S (Gneiting, Balabdaoui and Raftery, "Probabilistic forecasts,
    calibration and sharpness", JRSS B 2007; randomized as in Czado et al., Biometrics 2009).

    Args:
        num_joints: J.
        bins: Number of bins.
        levels: Central intervals of the coverage table.
        seed: Of the uniform numbers.

    Example:
        >>> import torch
        >>> pit = PITHistogram(1)
        >>> generator = torch.Generator().manual_seed(0)
        >>> draws = torch.randn(51, 4000, 1, 3, generator=generator)
        >>> pit.update(draws[1:], draws[0])
        >>> bool((pit.coverage().axes[2] - 0.9).abs().max() < 0.02)
        True
    """

    def __init__(
        self,
        num_joints: int,
        *,
        bins: int = 20,
        levels: tuple[float, ...] = COVERAGE_LEVELS,
        seed: int = 0,
    ) -> None:
        if bins < 2:
            raise InputError(f"expected bins >= 2, got {bins}")
        if not all(0 < level < 1 for level in levels):
            raise InputError(f"expected levels between 0 and 1, got {levels}")
        self.bins, self.levels = bins, tuple(levels)
        self._generator = torch.Generator().manual_seed(seed)
        self._counts = torch.zeros(bins, num_joints, 3, dtype=torch.int64)
        self._inside = torch.zeros(len(levels), num_joints, 3, dtype=torch.int64)
        self._items = torch.zeros(num_joints, dtype=torch.int64)

    @torch.no_grad()
    def update(self, samples: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            samples: Independent samples of each item's distribution, ``(S, B, J, 3)``, any unit.
            target: True poses, ``(B, J, 3)``, same unit.
            mask: Joints that count, ``(B, J)`` booleans; all by default.

        Raises:
            InputError: If shapes disagree.
        """
        check_samples(samples, target, mask)
        if target.shape[1] != self._items.shape[0]:
            raise InputError(f"expected {self._items.shape[0]} joints, got {target.shape[1]}")
        # Noise comes from the CPU, so that every device gives the same histogram.
        below = (samples < target).sum(0).cpu()
        equal = (samples == target).sum(0).cpu()
        noise = torch.rand(below.shape, generator=self._generator, dtype=torch.float64)
        value = (below + noise * (equal + 1)) / (samples.shape[0] + 1)
        counted = torch.ones(target.shape[:2]).bool() if mask is None else mask.bool().cpu()
        index = (value * self.bins).long().clamp_max(self.bins - 1)
        hot = torch.nn.functional.one_hot(index, self.bins).movedim(-1, 0)
        self._counts += (hot * counted[..., None]).sum(1)
        for row, level in enumerate(self.levels):
            inside = (value - 0.5).abs() <= level / 2
            self._inside[row] += (inside & counted[..., None]).sum(0)
        self._items += counted.sum(0)

    def merge(self, other: PITHistogram) -> None:
        """Add what another process counted.

        Raises:
            InputError: If joints, bins or levels differ.
        """
        if (other.levels, other._counts.shape) != (self.levels, self._counts.shape):
            raise InputError("expected a histogram of the same joints, bins and levels")
        self._counts += other._counts
        self._inside += other._inside
        self._items += other._items

    def compute(self) -> Tensor:
        """Height of each bin for each coordinate, 1 where uniform, ``(bins, J, 3)`` float64."""
        return self.bins * self._counts.double() / self._items[:, None]

    def coverage(self) -> Coverage:
        """The coverage table of everything added so far."""
        frequencies = self._inside.double() / self._items[:, None]
        return Coverage(self.levels, frequencies, frequencies.nanmean(1), self._items.clone())
