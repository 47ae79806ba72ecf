"""Fit recalibrations on held-out data by proper scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..distributions import DecodedPoseDistribution, PushforwardDistribution
from ..distributions.recalibration import (
    BaseRecalibration,
    Recalibration,
    RecalibrationFeatures,
    joint_groups,
    point_estimate_of,
)
from ..errors import InputError
from ..geometry.skeletons import H36M_17, Skeleton
from .benchmark import conditional_of
from .calibration import CalibrationCurve
from .conditions import Condition, Prepared, prepare
from .metrics import mpjpe
from .scores import crps, energy_scores, nll_per_coordinate
from .sets import EvaluationSet

__all__ = [
    "Draws",
    "RecalibratedModel",
    "RecalibrationReport",
    "fit_factors",
    "recalibrate",
    "recalibrate_base",
]

#: Weight of squared slopes: features that do not help stay at zero.
_RIDGE = 1e-3


@dataclass(frozen=True, eq=False)
class Draws:
    """Samples of many distributions under one condition, and the truth.

    Attributes:
        name: The condition in words.
        samples: Relative to each distribution's center, `(S, N, J, 3)`, meters.
        target: True poses, likewise, `(N, J, 3)`; NaN where unknown.
        reading: What a recalibration reads about each.
        root: Index of the root joint.
    """

    name: str
    samples: Tensor
    target: Tensor
    reading: RecalibrationFeatures
    root: int

    def scaled(self, calibration: Recalibration) -> Tensor:
        """The samples as the recalibrated distribution has them."""
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
    optimizer = torch.optim.LBFGS([log, slopes], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        factor = (log[group] + features @ slopes).exp()
        gap = factor.square() * terms.square - 2 * factor * terms.product + terms.truth
        # The score's second term is linear in the factor: half the mean distance of pairs.
        score = gap.clamp_min(1e-12).sqrt().mean(0) - factor * terms.half
        value = (score * terms.weight).sum() / terms.weight.count_nonzero()
        value = value + _RIDGE * slopes.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
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


#: Logs of the temperatures at which scores are computed; between them, a polynomial.
_LOGS = (-0.7, -0.35, 0.0, 0.35, 0.7, 1.05)


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

    Only a width is fitted, so the score is of widths: the CRPS of a joint's distance from the
    distribution's center (the joints of the mode, which no temperature moves). It is proper for the
    distribution of that distance, whatever the bias of the center. It is computed at a few
    temperatures with the same random numbers and divided by the mean distance at temperature 1, so
    that a wrist of a noisy person counts as much as a hip of a clear one; the mean over joints is a
    smooth function of each input's log temperature. The temperature's dependence on the evidence is
    that of least mean score.

    Args:
        model: Has `conditional` over poses `(J, 3)`, distributions of joints of a posed body
            (`propose_prob.models.ProHMRJoints`).
        inner: The body model behind it, with a `BaseRecalibration` as `calibration`, whose numbers
            are replaced, and `recalibration_features`.
        val: Held-out sets with intrinsics, never test data.
        skeleton: Joint set of the poses.
        samples: Samples of each item at each temperature.
        hidden: Numbers of random joints to hide.
        batch_size: Items at once.
        seed: Of samples and hidden joints; the global random state is left as it was.

    Raises:
        InputError: If there is no valid item, or a distribution is not that of a function of an
            exact distribution.

    Example:
        >>> from propose_prob.datasets import load_cmu17
        >>> from propose_prob.evaluation import CMU17Set
        >>> from propose_prob.models import ProHMR, ProHMRConfig, ProHMRJoints
        >>> model = ProHMR(ProHMRConfig(flow_width=16, width=16, context=8, couplings=1)).eval()
        >>> val = CMU17Set(load_cmu17("val"), stride=3000)
        >>> recalibrate_base(ProHMRJoints(model), model, [val], samples=3, hidden=(0,))
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
    calibration = inner.calibration

    def draw(log: float) -> tuple[Tensor, Any]:
        calibration.log_temperature.fill_(log)
        distribution = model.conditional(
            item.p2d, item.confidence, focal=item.told_focal, center=item.told_center
        )
        torch.manual_seed(seed)
        return distribution.sample((samples,))[:, :, free], distribution

    try:
        plain, distribution = draw(0.0)
        if not isinstance(distribution, PushforwardDistribution):
            raise InputError(
                f"expected a distribution of a body's joints, got {type(distribution).__name__}"
            )
        centre = distribution.point_estimate[:, free]
        plain, true = _distance(plain, centre), _distance(item.target, centre)
        unit = plain[..., 0].mean(0).clamp_min(1e-6)
        drawn = (_distance(draw(log)[0], centre) for log in _LOGS)
        rows = [(crps(distance, true)[..., 0] / unit).mean(-1) for distance in drawn]
        features = inner.recalibration_features(
            item.p2d, item.confidence, focal=item.told_focal, center=item.told_center
        )
    finally:
        calibration.reset()
    return torch.stack(rows), features


def _distance(poses: Tensor, centre: Tensor) -> Tensor:
    """Distances of joints `(..., J, 3)` from a center, three times over: as coordinates have it."""
    return torch.linalg.vector_norm(poses - centre, dim=-1, keepdim=True).expand(poses.shape)


def _fit(calibration: BaseRecalibration, weights: Tensor, features: Tensor) -> None:
    """Least mean of the polynomials with coefficients `(K, N)`, by L-BFGS."""
    log = torch.zeros((), dtype=torch.float64, requires_grad=True)
    slopes = torch.zeros(features.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log, slopes], max_iter=60, line_search_fn="strong_wolfe")
    powers = torch.arange(len(weights), dtype=torch.float64)[:, None]

    def loss() -> Tensor:
        optimizer.zero_grad()
        place = (log + features @ slopes).clamp(_LOGS[0], _LOGS[-1])
        value = (weights * place.pow(powers)).sum(0).mean() + _RIDGE * slopes.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    calibration.log_temperature.copy_(log.detach())
    calibration.slopes.copy_(slopes.detach())


#: Search of the observation noise's factor: bounds of its log, and steps of the golden section.
_NOISE_LOG = (math.log(0.25), math.log(4.0))
_NOISE_STEPS = 6
_NOISE_BATCH = 8


class RecalibratedModel(nn.Module):
    """Any model with a recalibration behind it, for models that have no place for one.

    Args:
        model: Has `conditional` over poses `(J, 3)`.
        calibration: What was fitted.

    Example:
        >>> from propose_prob.distributions.recalibration import joint_groups
        >>> from propose_prob.models import RegressionBaseline
        >>> calibration = Recalibration(joint_groups(H36M_17))
        >>> _ = calibration.log_temperature.fill_(0.5)
        >>> model = RecalibratedModel(RegressionBaseline().eval(), calibration)
        >>> model.conditional(torch.randn(4, 17, 2)).temperature.log().mean()
        tensor(0.5000)
    """

    def __init__(self, model: nn.Module, calibration: Recalibration) -> None:
        super().__init__()
        self.model = model
        self.calibration = calibration

    def conditional(
        self,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
        recalibrated: bool = True,
    ) -> Any:
        """The model's distribution, recalibrated; arguments and errors are the model's."""
        conditional: Any = self.model.conditional
        distribution = conditional(p2d, confidence, focal=focal, center=center)
        if not recalibrated:
            return distribution
        return self.calibration(distribution, p2d, confidence, focal=focal, center=center)

    forward = conditional


@dataclass(frozen=True)
class CalibrationSummary:
    """What a recalibration may change, under one condition.

    Attributes:
        ece: Calibration error over all joints but the root.
        signed: The same, signed; positive is too wide.
        energy: Energy score per joint, mm.
        best: MPJPE of the best of all samples, mm.
    """

    ece: float
    signed: float
    energy: float
    best: float


@dataclass(frozen=True)
class RecalibrationReport:
    """What was fitted and what it changed on the data it was fitted on.

    Attributes:
        model: The recalibrated model: the one given, if it has a place for a `Recalibration`.
        calibration: The fitted numbers.
        samples: Samples per item behind every number.
        before: Scores under each condition, before.
        after: The same, after.
        nll: Negative log-density per coordinate of the observation noise's pairs, nats with
            meters, before and after; None where the noise was not fitted.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set
        >>> val = CMU17Set(propose_prob.datasets.load_cmu17("val"), stride=1500)
        >>> model = propose_prob.load("prohmr-lifting-cmu17")
        >>> report = recalibrate(model, [val], samples=4, hidden=(0,))
        >>> list(report.before)
        ['val exact, intrinsics known', 'val exact, intrinsics unknown']
        >>> report.to_table().splitlines()[1]
        'val exact, intrinsics known    0... > 0...'
    """

    model: nn.Module
    calibration: Recalibration
    samples: int
    before: dict[str, CalibrationSummary]
    after: dict[str, CalibrationSummary]
    nll: tuple[float, float] | None

    def to_table(self) -> str:
        """Aligned plain text: before and after, condition by condition."""
        width = max(len(name) for name in self.before)
        lines = [
            f"{'':{width}}   calibration error (signed)     energy score (mm)   "
            f"best of {self.samples} (mm)",
        ]
        for name, old in self.before.items():
            new = self.after[name]
            lines.append(
                f"{name:{width}}  {old.ece:.3f} ({old.signed:+.3f}) > {new.ece:.3f} "
                f"({new.signed:+.3f})    {old.energy:6.1f} > {new.energy:6.1f}    "
                f"{old.best:6.1f} > {new.best:6.1f}"
            )
        if self.nll is not None:
            lines.append(
                f"negative log-density, nats per coordinate (meters): {self.nll[0]:.3f} > "
                f"{self.nll[1]:.3f}, observation noise times "
                f"{float(self.calibration.log_noise.exp()):.2f}"
            )
        return "\n".join(lines)


def recalibrate(
    model: nn.Module,
    val: Sequence[EvaluationSet],
    *,
    skeleton: Skeleton = H36M_17,
    familiar: Tensor | None = None,
    samples: int = 100,
    hidden: Sequence[int] = (0, 4),
    noise_pairs: int = 128,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> RecalibrationReport:
    """Fit the spread of a model's distributions on held-out data by proper scores.

    First the observation noise of a `DecodedPoseDistribution`, by the density of true poses
    (golden-section search): the only score that sees a few millimeters. Then the factors of joint
    groups and their slopes, across the line of sight by the energy score of each joint's two
    coordinates there, along it by that of its depth (the CRPS), each divided by half the mean
    distance of its samples: a weight that depends on the evidence alone keeps a score proper, and
    this one makes a wrist of a noisy person count as much as a hip of a clear one. All scores are
    smallest, in expectation, at the true distribution; best of many hypotheses is not looked at.

    Every set is used under every condition: intrinsics known (where the set has them) and unknown,
    and each number of hidden joints. Use sets of exact and of detected 2D, or neither is honest at
    the other's cost.

    Args:
        model: Has `conditional` over poses `(J, 3)`. If its attribute `calibration` is a
            `Recalibration`, the numbers are put there, to be stored with the weights.
        val: Held-out sets, never test data.
        skeleton: The model's joint set.
        familiar: Poses of the performers trained on, `(N, J, 3)`, meters, any axes: their bone
            lengths tell strange builds. Left out, builds are not told apart.
        samples: Samples for each item.
        hidden: Numbers of random joints to hide.
        noise_pairs: Items whose density is computed for the observation noise.
        batch_size: Items at once.
        device: Where the model is.
        seed: Of samples and hidden joints; the global random state is left as it was.
        progress: Called with each condition's name.

    Returns:
        The recalibrated model and what changed.

    Raises:
        InputError: If there is no set, or a set has no valid item.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set
        >>> val = CMU17Set(propose_prob.datasets.load_cmu17("val"), stride=1500)
        >>> model = propose_prob.load("prohmr-lifting-cmu17")
        >>> report = recalibrate(model, [val], samples=4, hidden=(0,))
        >>> report.calibration.fitted, report.model is model
        (True, True)
    """
    if not val:
        raise InputError("expected at least one data set to recalibrate on, got none")
    slot = getattr(model, "calibration", None)
    own = isinstance(slot, Recalibration)
    if isinstance(slot, Recalibration):
        fitted = slot.to(device)
    else:
        fitted = Recalibration(joint_groups(skeleton), parents=skeleton.parents).to(device)
    result = model if own else RecalibratedModel(model, fitted)
    devices = [torch.device(device)] if torch.device(device).type == "cuda" else []
    runs = [
        _Evaluation(model, data, skeleton, Condition(known, count, seed), batch_size, device)
        for data in val
        for known in _intrinsics(data)
        for count in hidden
    ]
    fitted.reset()
    if familiar is not None:
        fitted.learn_builds(familiar)
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        few = [replace(run, batch_size=_NOISE_BATCH) for run in runs]
        nll = _fit_noise(fitted, few, noise_pairs)
        draws = []
        for run in runs:
            if progress is not None:
                progress(run.name)
            draws.append(_draw(run, fitted, samples))
        before = {draw.name: _honesty(draw, None) for draw in draws}
        with torch.enable_grad():
            fit_factors(fitted, draws)
        after = {draw.name: _honesty(draw, fitted) for draw in draws}
    return RecalibrationReport(result, fitted, samples, before, after, nll)


@dataclass(frozen=True)
class _Evaluation:
    """A model on a set under one condition."""

    model: Any
    data: EvaluationSet
    skeleton: Skeleton
    condition: Condition
    batch_size: int
    device: torch.device | str

    @property
    def name(self) -> str:
        return f"{self.data.split} {self.data.keypoints}, {self.condition.describe()}"

    def distribution(self, item: Prepared) -> Any:
        conditional = conditional_of(self.model, recalibrated=False)
        return conditional(
            item.p2d, item.confidence, focal=item.told_focal, center=item.told_center
        )

    def items(self) -> Iterator[Prepared]:
        for batch in self.data.batches(self.batch_size):
            item = prepare(
                batch, self.data.skeleton, self.skeleton, self.condition, device=self.device
            )
            if len(item):
                yield item


def _intrinsics(data: EvaluationSet) -> tuple[Literal["known", "unknown"], ...]:
    first = next(data.batches(1), None)
    if first is None:
        raise InputError(f"{data.name} {data.split}: expected at least one item, got none")
    return ("unknown",) if first.focal is None else ("known", "unknown")


def _draw(run: _Evaluation, calibration: Recalibration, samples: int) -> Draws:
    parts: list[tuple[Tensor, ...]] = []
    for item in run.items():
        distribution = calibration.with_noise(run.distribution(item))
        centre = point_estimate_of(distribution)
        reading = calibration.read(
            centre, item.p2d, item.confidence, focal=item.told_focal, center=item.told_center
        )
        parts.append((distribution.sample((samples,)) - centre, item.target - centre, *reading))
    if not parts:
        raise InputError(f"{run.name}: expected at least one valid item, got none")
    drawn, target, features, ray = (
        torch.cat([part[i] for part in parts], 1 if i == 0 else 0) for i in range(4)
    )
    return Draws(run.name, drawn, target, RecalibrationFeatures(features, ray), run.skeleton.root)


def _honesty(draw: Draws, calibration: Recalibration | None) -> CalibrationSummary:
    samples = draw.samples if calibration is None else draw.scaled(calibration)
    known = draw.target.isfinite().all(-1)
    target = torch.where(known[..., None], draw.target, 0)
    curve = CalibrationCurve(target.shape[1], fixed_joints=(draw.root,))
    curve.update(samples, target, known)
    result = curve.compute()
    energy = energy_scores(samples, target, mask=known).joints.nanmean()
    best = mpjpe(samples, target, mask=known).amin(0).mean()
    return CalibrationSummary(result.error, result.signed, 1e3 * float(energy), 1e3 * float(best))


def _fit_noise(
    calibration: Recalibration, runs: Sequence[_Evaluation], pairs: int
) -> tuple[float, float] | None:
    """Golden-section search of the observation noise's factor by the density of true poses."""
    chosen: list[tuple[Any, Tensor]] = []
    for run in runs:
        # Small batches from all over the set: neighboring frames tell the same.
        items = [item for item in run.items() if bool(item.target.isfinite().all())]
        wanted = -(-pairs // (len(runs) * _NOISE_BATCH))
        for item in items[:: max(1, len(items) // wanted)][:wanted]:
            distribution = run.distribution(item)
            if not isinstance(distribution, DecodedPoseDistribution):
                return None
            chosen.append((distribution, item.target))
    if not chosen:
        return None

    def score(log: float) -> float:
        calibration.log_noise.fill_(log)
        values = [
            nll_per_coordinate(calibration.with_noise(distribution).log_prob(x), x.shape[-2])
            for distribution, x in chosen
        ]
        return float(torch.cat(values).mean())

    before = score(0.0)
    best = _golden_section(score, *_NOISE_LOG, steps=_NOISE_STEPS)
    return before, score(best)


def _golden_section(score: Callable[[float], float], low: float, high: float, steps: int) -> float:
    """Minimum of a function with one valley."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = score(left), score(right)
    for _ in range(steps):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = score(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = score(right)
    return (low + high) / 2
