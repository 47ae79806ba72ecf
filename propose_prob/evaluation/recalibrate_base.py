"""Fitting the base's temperature of a body model, by a score of the joints it implies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from propose_prob.distributions import BaseRecalibration, PushforwardDistribution
from propose_prob.errors import InputError
from propose_prob.evaluation.dataset import EvaluationSet
from propose_prob.evaluation.prepare import Condition, Prepared, prepare
from propose_prob.evaluation.scores import crps
from propose_prob.pose.skeleton import H36M_17, Skeleton

__all__ = ["recalibrate_base"]

#: Logs of the temperatures at which scores are computed; between them, a polynomial.
_LOGS = (-0.7, -0.35, 0.0, 0.35, 0.7, 1.05)
_RIDGE = 1e-3


@torch.no_grad()
def recalibrate_base(
    model: Any,
    inner: Any,
    val: Sequence[EvaluationSet],
    *,
    skeleton: Skeleton = H36M_17,
    samples: int = 30,
    hidden: Sequence[int] = (0, 4),
    batch_size: int = 64,
    seed: int = 0,
) -> None:
    """Fit a `BaseRecalibration` on held-out data.

    Only a width is fitted, so the score is of widths: the CRPS of a joint's distance from the law's
    centre (the joints of the mode, which no temperature moves). It is proper for the law of that
    distance, whatever the bias of the centre. It is computed at a few temperatures with the same
    random numbers and divided by the mean distance at temperature 1, so that a wrist of a noisy
    person counts as much as a hip of a clear one; the mean over joints is a smooth function of each
    input's log temperature. The temperature's dependence on the evidence is that of least mean
    score.

    Args:
        model: Has `conditional` over poses `(J, 3)`, laws of joints of a posed body
            (`propose_prob.models.BodyLifter`).
        inner: The body model behind it, with a `BaseRecalibration` as `calibration`, whose numbers
            are replaced, and `told`, which gives its features.
        val: Held-out sets with intrinsics, never test data.
        skeleton: Joint set of the poses.
        samples: Samples of each item at each temperature.
        hidden: Numbers of random joints to hide.
        batch_size: Items at once.
        seed: Of samples and hidden joints; the global random state is left as it was.

    Raises:
        InputError: If there is no valid item, or a law is not that of a function of an exact law.

    Example:
        >>> from propose_prob.data import load_cmu17
        >>> from propose_prob.evaluation import CMU17Set
        >>> from propose_prob.models import BodyLifter, ProHMR, ProHMRConfig
        >>> model = ProHMR(ProHMRConfig(flow_width=16, width=16, context=8, couplings=1)).eval()
        >>> val = CMU17Set(load_cmu17("val"), stride=3000)
        >>> recalibrate_base(BodyLifter(model), model, [val], samples=3, hidden=(0,))
        >>> model.calibration.fitted
        True
    """
    calibration: BaseRecalibration = inner.calibration
    calibration.reset()
    parts: list[tuple[Tensor, Tensor]] = []
    with torch.random.fork_rng():
        for data in val:
            for known in (True, False):
                for count in hidden:
                    condition = Condition("known" if known else "unknown", count, seed)
                    for batch in data.batches(batch_size):
                        item = prepare(batch, data.skeleton, skeleton, condition)
                        if len(item):
                            parts.append(_scores(model, inner, item, samples, seed))
    if not parts:
        raise InputError("expected at least one valid item to recalibrate on, got none")
    scores = torch.cat([part[0] for part in parts], 1).double()
    features = torch.cat([part[1] for part in parts]).double()
    logs = torch.tensor(_LOGS, dtype=torch.float64)
    # The polynomial through all scores of each input.
    weights = torch.linalg.solve(torch.linalg.vander(logs), scores)
    _fit(calibration, weights, features)


def _scores(
    model: Any, inner: Any, item: Prepared, samples: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Relative scores `(K, B)` at the temperatures, and features `(B, F)`."""
    free = [j for j in range(item.target.shape[1]) if bool(item.target[:, j].any())]
    item = replace(item, target=item.target[:, free])
    calibration, told = inner.calibration, inner.told

    def draw(log: float) -> tuple[Tensor, Any]:
        calibration.log_temperature.fill_(log)
        law = model.conditional(
            item.p2d, item.confidence, focal=item.told_focal, center=item.told_center
        )
        torch.manual_seed(seed)
        return law.sample((samples,))[:, :, free], law

    try:
        plain, law = draw(0.0)
        if not isinstance(law, PushforwardDistribution):
            raise InputError(f"expected a law of a body's joints, got {type(law).__name__}")
        centre = law.point_estimate[:, free]
        plain, true = _distance(plain, centre), _distance(item.target, centre)
        unit = plain[..., 0].mean(0).clamp_min(1e-6)
        drawn = (_distance(draw(log)[0], centre) for log in _LOGS)
        rows = [(crps(distance, true)[..., 0] / unit).mean(-1) for distance in drawn]
        features = told(item.p2d, item.confidence, focal=item.told_focal, center=item.told_center)
    finally:
        calibration.reset()
    return torch.stack(rows), features


def _distance(poses: Tensor, centre: Tensor) -> Tensor:
    """Distances of joints `(..., J, 3)` from a centre, three times over: as coordinates have it."""
    return torch.linalg.vector_norm(poses - centre, dim=-1, keepdim=True).expand(poses.shape)


def _fit(calibration: BaseRecalibration, weights: Tensor, features: Tensor) -> None:
    """Least mean of the polynomials with coefficients `(K, N)`, by L-BFGS."""
    log = torch.zeros((), dtype=torch.float64, requires_grad=True)
    slopes = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([log, slopes], max_iter=60, line_search_fn="strong_wolfe")
    powers = torch.arange(len(weights), dtype=torch.float64)[:, None]

    def loss() -> Tensor:
        optimiser.zero_grad()
        place = (log + features @ slopes).clamp(_LOGS[0], _LOGS[-1])
        value = (weights * place.pow(powers)).sum(0).mean() + _RIDGE * slopes.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimiser.step(loss)
    calibration.log_temperature.copy_(log.detach())
    calibration.slopes.copy_(slopes.detach())
