"""Factors of a recalibration from samples and truths, by proper scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from propose_prob.distributions import Reading, Recalibration
from propose_prob.evaluation.scores import energy_scores

__all__ = ["Draws", "fit_factors"]

#: Weight of squared slopes: features that do not help stay at zero.
_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Draws:
    """Samples of many laws under one condition, and the truth.

    Attributes:
        name: The condition in words.
        samples: Relative to each law's centre, `(S, N, J, 3)`, metres.
        target: True poses, likewise, `(N, J, 3)`; NaN where unknown.
        reading: What a recalibration reads about each.
        root: Index of the root joint.
    """

    name: str
    samples: Tensor
    target: Tensor
    reading: Reading
    root: int

    def scaled(self, calibration: Recalibration) -> Tensor:
        """The samples as the recalibrated law has them."""
        across, along = calibration.factors(self.reading.features)
        depth, rest = _split(self.samples, self.reading.ray)
        return across[..., None] * rest + (along * depth)[..., None] * self.reading.ray


def _split(gap: Tensor, ray: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets along a line of sight `(..., J)`, and what is left of them `(..., J, 3)`."""
    depth = (gap * ray).sum(-1)
    return depth, gap - depth[..., None] * ray


def fit_factors(calibration: Recalibration, draws: Sequence[Draws]) -> None:
    """Least mean relative energy scores, by L-BFGS over groups' factors and slopes.

    Args:
        calibration: Its factors and slopes are set, each from where it is.
        draws: Of every condition.
    """
    free = [j for j in range(draws[0].target.shape[1]) if j != draws[0].root]
    parts = [_terms(draw, free) for draw in draws]
    features = torch.cat([draw.reading.features[:, free] for draw in draws])
    group = calibration.group_of[free]
    for row in range(2):
        terms = _Terms(
            *(
                torch.cat(column, 1 if column[0].dim() == 3 else 0)
                for column in zip(*(part[row] for part in parts), strict=True)
            )
        )
        log, slopes = _least(
            terms, features, group, calibration.log_temperature[row], calibration.slopes[row]
        )
        calibration.log_temperature[row] = log
        calibration.slopes[row] = slopes


class _Terms(NamedTuple):
    """What a score of offsets scaled by a factor needs, joint by joint.

    Attributes:
        square: Squares of the samples' offsets `(S, N, J)`.
        product: Their products with the truth's `(S, N, J)`.
        truth: Squares of the truth's `(N, J)`.
        half: Half the samples' mean distance `(N, J)`.
        weight: Of each joint `(N, J)`.
    """

    square: Tensor
    product: Tensor
    truth: Tensor
    half: Tensor
    weight: Tensor


def _least(
    terms: _Terms, features: Tensor, group: Tensor, log: Tensor, slopes: Tensor
) -> tuple[Tensor, Tensor]:
    """Logs of the groups' factors and slopes of least score, from where they are."""
    log, slopes = (start.detach().clone().requires_grad_() for start in (log, slopes))
    optimiser = torch.optim.LBFGS([log, slopes], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        factor = (log[group] + features @ slopes).exp()
        gap = factor.square() * terms.square - 2 * factor * terms.product + terms.truth
        # The score's second term is linear in the factor: half the mean distance of pairs.
        score = gap.clamp_min(1e-12).sqrt().mean(0) - factor * terms.half
        value = (score * terms.weight).sum() / terms.weight.count_nonzero()
        value = value + _RIDGE * slopes.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return log.detach(), slopes.detach()


def _terms(draw: Draws, free: list[int]) -> tuple[_Terms, _Terms]:
    """The terms across and along the line of sight."""
    known = draw.target[:, free].isfinite().all(-1)
    target = torch.where(known[..., None], draw.target[:, free], 0)
    ray = draw.reading.ray[:, free]
    depth, rest = _split(draw.samples[:, :, free], ray)
    true_depth, true_rest = _split(target, ray)

    def terms(samples: Tensor, truth: Tensor) -> _Terms:
        error = torch.linalg.vector_norm(samples - truth, dim=-1).mean(0)
        half = error - energy_scores(samples, truth).joints
        return _Terms(
            samples.square().sum(-1),
            (samples * truth).sum(-1),
            truth.square().sum(-1),
            half,
            known / half.clamp_min(1e-6),
        )

    return terms(rest, true_rest), terms(depth[..., None] * ray, true_depth[..., None] * ray)
