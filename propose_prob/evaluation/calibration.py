"""Calibration: does the truth fall inside quantiles as often as stated?

Around the coordinatewise median ``m_j`` of ``S`` samples, the truth's distance
``t_j = ||y_j - m_j||`` is compared with the q-quantile of the samples' distances
``e_sj = ||x_sj - m_j||``. A calibrated distribution holds the truth within its q-quantile in a
share q of the items (Pierzchlewicz et al., "Multi-hypothesis 3D human pose estimation metrics favor
miscalibrated distributions", 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .scores import check_samples

__all__ = ["LEVELS", "Calibration", "CalibrationCurve", "calibration_hits"]

_STEPS = 20
LEVELS: tuple[float, ...] = tuple(i / _STEPS for i in range(_STEPS + 1))
"""The quantile levels 0, 0.05, ..., 1 at which calibration is measured."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibration curve and the two numbers that sum it up.

    Attributes:
        frequencies: Share of items whose truth lies within the q-quantile, ``(21, J)`` float64 on
            the CPU; NaN for joints that were excluded or never counted.
        curve: Median of ``frequencies`` over joints, ``(21,)``; ideal is ``LEVELS``.
        error: Calibration error, mean over q of ``|curve - q|``; 0 is ideal. Median and quantiles
            are estimates too, so that a perfect Gaussian distribution still scores 0.043 at ``S =
            20``, 0.016 at ``S = 50`` and 0.005 at ``S = 200``.
        signed: Mean over q of ``curve - q``. Positive: the distribution is too wide
            (underconfident). Negative: it is too narrow (overconfident). The same perfect
            distribution scores -0.038, -0.014 and -0.004: compare numbers of the same S only.
        counts: Items behind each joint's frequencies, ``(J,)``.

    Example:
        >>> curve = CalibrationCurve(17)
        >>> curve.update(torch.randn(200, 500, 17, 3), torch.randn(500, 17, 3))
        >>> result = curve.compute()
        >>> result.curve.shape, result.error < 0.03
        (torch.Size([21]), True)
    """

    frequencies: Tensor
    curve: Tensor
    error: float
    signed: float
    counts: Tensor

    @classmethod
    def from_frequencies(cls, frequencies: Tensor, counts: Tensor) -> Calibration:
        """Sum up frequencies ``(21, J)``, of which NaN columns are left out.

        Args:
            frequencies: Share of items within each quantile, ``(21, J)``, NaN where unknown.
            counts: Items behind each joint, ``(J,)``.

        Returns:
            The curve; error and signed error are NaN if no joint is known.
        """
        levels = torch.tensor(LEVELS, dtype=frequencies.dtype)
        # nanquantile averages the two middle values, where nanmedian would take the lower.
        curve = frequencies.nanquantile(0.5, dim=1)
        gap = curve - levels
        return cls(frequencies, curve, gap.abs().mean().item(), gap.mean().item(), counts)


class CalibrationCurve:
    """Streaming calibration error with constant memory.

    A joint fixed by convention (the root of a root-relative pose) has zero spread and zero error:
    it lies within every quantile and would count as underconfident. Name it in ``fixed_joints``, so
    that the median runs over the other ``J - 1``.

    Args:
        num_joints: Number of joints J, fixed ones included.
        fixed_joints: Joints to leave out; the root of most skeletons is ``(0,)``.

    Raises:
        InputError: If a fixed joint does not exist.

    Example:
        >>> import torch
        >>> curve = CalibrationCurve(2)
        >>> generator = torch.Generator().manual_seed(0)
        >>> curve.update(
        ...     torch.randn(50, 2000, 2, 3, generator=generator),
        ...     torch.randn(2000, 2, 3, generator=generator),
        ... )
        >>> curve.compute().error < 0.03
        True
    """

    def __init__(self, num_joints: int, *, fixed_joints: Sequence[int] = ()) -> None:
        for joint in fixed_joints:
            if not 0 <= joint < num_joints:
                raise InputError(
                    f"expected fixed joints between 0 and {num_joints - 1}, got {joint}"
                )
        self._free = torch.ones(num_joints, dtype=torch.bool)
        self._free[list(fixed_joints)] = False
        self._hits = torch.zeros(len(LEVELS), num_joints, dtype=torch.int64)
        self._counts = torch.zeros(num_joints, dtype=torch.int64)

    def update(self, samples: Tensor, target: Tensor, mask: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            samples: Independent samples of each item's distribution, ``(S, B, J, 3)``, any unit;
                the same S in every call, for the error depends on it.
            target: True poses, ``(B, J, 3)``, same unit.
            mask: Joints that count, ``(B, J)`` booleans; all by default. Two curves with
                complementary masks tell seen joints from hidden ones.

        Raises:
            InputError: If shapes disagree.
        """
        self.add_hits(calibration_hits(samples, target), mask)

    def add_hits(self, hits: Tensor, mask: Tensor | None = None) -> None:
        """Add the hits of `calibration_hits`, for several curves over the same samples.

        Args:
            hits: ``(21, B, J)`` booleans.
            mask: Joints that count, ``(B, J)`` booleans; all by default.

        Raises:
            InputError: If shapes disagree.
        """
        expected = (*self._hits.shape[:1], *hits.shape[1:2], *self._hits.shape[1:])
        if hits.ndim != 3 or hits.shape != expected:
            raise InputError(
                f"expected hits of shape ({expected[0]}, B, {expected[-1]}), "
                f"got {tuple(hits.shape)}"
            )
        if mask is None:
            counted = torch.ones(hits.shape[1:], dtype=torch.bool, device=hits.device)
        elif mask.shape != hits.shape[1:]:
            raise InputError(
                f"expected a mask of shape (B, J) = {tuple(hits.shape[1:])}, "
                f"got {tuple(mask.shape)}"
            )
        else:
            counted = mask.bool()
        self._hits += (hits & counted).sum(1).cpu()
        self._counts += counted.sum(0).cpu()

    def frequencies(self) -> Tensor:
        """Share of items within each quantile, ``(21, J)``; NaN for joints that never counted."""
        shares = self._hits.double() / self._counts
        return torch.where(self._free, shares, torch.nan)

    def merge(self, other: CalibrationCurve) -> None:
        """Add what another process counted.

        Raises:
            InputError: If the joints or the fixed ones differ.
        """
        if not torch.equal(self._free, other._free):
            raise InputError("expected a calibration curve over the same joints, fixed ones too")
        self._hits += other._hits
        self._counts += other._counts

    def compute(self) -> Calibration:
        """Curve and calibration errors of everything added so far (NaN if nothing was)."""
        return Calibration.from_frequencies(self.frequencies(), self._counts.clone())

    @staticmethod
    def balanced(curves: Iterable[CalibrationCurve]) -> Calibration:
        """Calibration with the same weight on each of several groups of items.

        Args:
            curves: One accumulator per group, for instance per action. A joint that a group never
                counted is averaged over the other groups.

        Returns:
            The curve of the averaged frequencies.

        Raises:
            InputError: If there is no group.
        """
        groups = list(curves)
        if not groups:
            raise InputError("expected at least one calibration curve, got none")
        frequencies = torch.stack([group.frequencies() for group in groups]).nanmean(0)
        counts = torch.stack([group._counts for group in groups]).sum(0)
        return Calibration.from_frequencies(frequencies, counts)


@torch.no_grad()
def calibration_hits(samples: Tensor, target: Tensor) -> Tensor:
    """Whether the truth lies within each quantile of the samples' distances to their median.

    Args:
        samples: Independent samples of each item's distribution, ``(S, B, J, 3)``, any unit.
        target: True poses, ``(B, J, 3)``, same unit.

    Returns:
        Booleans ``(21, B, J)``, one per level of `LEVELS`; quantiles interpolate linearly.

    Raises:
        InputError: If shapes disagree.

    Example:
        >>> hits = calibration_hits(torch.randn(100, 4, 17, 3), torch.randn(4, 17, 3))
        >>> hits.shape, bool(hits[-1].sum() >= hits[0].sum())
        (torch.Size([21, 4, 17]), True)
    """
    check_samples(samples, target)
    num_samples = samples.shape[0]
    last = samples.permute(1, 2, 3, 0).contiguous()
    ordered = last.sort(dim=-1).values
    low, high = (num_samples - 1) // 2, num_samples // 2
    median = (ordered[..., low] + ordered[..., high]) / 2
    distances = torch.linalg.vector_norm(last - median[..., None], dim=2).sort(dim=-1).values
    truth = torch.linalg.vector_norm(target - median, dim=-1)
    hits = []
    for level in range(_STEPS + 1):
        # Integer positions keep the exact levels that 0.05 * i would miss by rounding.
        index, rest = divmod(level * (num_samples - 1), _STEPS)
        above = min(index + 1, num_samples - 1)
        quantile = torch.lerp(distances[..., index], distances[..., above], rest / _STEPS)
        hits.append(quantile >= truth)
    return torch.stack(hits)
