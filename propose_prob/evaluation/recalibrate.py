"""Fitting a recalibration on held-out data, and saying what it changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from propose_prob.distributions import (
    DecodedPoseDistribution,
    Reading,
    Recalibration,
    joint_groups,
)
from propose_prob.distributions.recalibrated import centre_of
from propose_prob.errors import InputError
from propose_prob.evaluation.calibration import CalibrationCurve
from propose_prob.evaluation.dataset import EvaluationSet
from propose_prob.evaluation.errors import mpjpe
from propose_prob.evaluation.prepare import Condition, Prepared, prepare
from propose_prob.evaluation.recalibrate_factors import Draws, fit_factors
from propose_prob.evaluation.scores import energy_scores, nll_per_coordinate
from propose_prob.pose.skeleton import H36M_17, Skeleton

__all__ = ["RecalibratedModel", "RecalibrationReport", "recalibrate"]

#: Search of the observation noise's factor: bounds of its log, and steps of the golden section.
_NOISE_LOG = (math.log(0.25), math.log(4.0))
_NOISE_STEPS = 6
_NOISE_BATCH = 8


class RecalibratedModel(nn.Module):
    """Any model with a recalibration behind it, for models that have no place for one.

    Args:
        model: Has `conditional` over poses `(J, 3)`.
        calibration: What was fitted; `calibration.enabled = False` switches it off.

    Example:
        >>> from propose_prob.distributions import joint_groups
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
    ) -> Any:
        """The model's law, recalibrated; arguments and errors are the model's."""
        conditional: Any = self.model.conditional
        law = conditional(p2d, confidence, focal=focal, center=center)
        return self.calibration(law, p2d, confidence, focal=focal, center=center)

    forward = conditional


@dataclass(frozen=True)
class Honesty:
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
            metres, before and after; None where the noise was not fitted.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set
        >>> val = CMU17Set(propose_prob.data.load_cmu17("val"), stride=1500)
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
    before: dict[str, Honesty]
    after: dict[str, Honesty]
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
                f"negative log-density, nats per coordinate (metres): {self.nll[0]:.3f} > "
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
    """Fit the spread of a model's laws on held-out data by proper scores.

    First the observation noise of a `DecodedPoseDistribution`, by the density of true poses
    (golden-section search): the only score that sees a few millimetres. Then the factors of joint
    groups and their slopes, across the line of sight by the energy score of each joint's two
    coordinates there, along it by that of its depth (the CRPS), each divided by half the mean
    distance of its samples: a weight that depends on the evidence alone keeps a score proper, and
    this one makes a wrist of a noisy person count as much as a hip of a clear one. All scores are
    smallest, in expectation, at the true law; best of many hypotheses is not looked at.

    Every set is used under every condition: intrinsics known (where the set has them) and unknown,
    and each number of hidden joints. Use sets of exact and of detected 2D, or neither is honest at
    the other's cost.

    Args:
        model: Has `conditional` over poses `(J, 3)`. If its attribute `calibration` is a
            `Recalibration`, the numbers are put there, to be stored with the weights.
        val: Held-out sets, never test data.
        skeleton: The model's joint set.
        familiar: Poses of the performers trained on, `(N, J, 3)`, metres, any axes: their bone
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
        >>> val = CMU17Set(propose_prob.data.load_cmu17("val"), stride=1500)
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
        _Run(model, data, skeleton, Condition(known, count, seed), batch_size, device)
        for data in val
        for known in _intrinsics(data)
        for count in hidden
    ]
    fitted.reset()
    if familiar is not None:
        fitted.learn_builds(familiar)
    fitted.enabled = False
    try:
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
    finally:
        fitted.enabled = True
    return RecalibrationReport(result, fitted, samples, before, after, nll)


@dataclass(frozen=True)
class _Run:
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

    def law(self, item: Prepared) -> Any:
        return self.model.conditional(
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


def _draw(run: _Run, calibration: Recalibration, samples: int) -> Draws:
    parts: list[tuple[Tensor, ...]] = []
    for item in run.items():
        law = calibration.with_noise(run.law(item))
        centre = centre_of(law)
        reading = calibration.read(
            centre, item.p2d, item.confidence, focal=item.told_focal, center=item.told_center
        )
        parts.append((law.sample((samples,)) - centre, item.target - centre, *reading))
    if not parts:
        raise InputError(f"{run.name}: expected at least one valid item, got none")
    drawn, target, features, ray = (
        torch.cat([part[i] for part in parts], 1 if i == 0 else 0) for i in range(4)
    )
    return Draws(run.name, drawn, target, Reading(features, ray), run.skeleton.root)


def _honesty(draw: Draws, calibration: Recalibration | None) -> Honesty:
    samples = draw.samples if calibration is None else draw.scaled(calibration)
    known = draw.target.isfinite().all(-1)
    target = torch.where(known[..., None], draw.target, 0)
    curve = CalibrationCurve(target.shape[1], fixed_joints=(draw.root,))
    curve.update(samples, target, known)
    result = curve.compute()
    energy = energy_scores(samples, target, mask=known).joints.nanmean()
    best = mpjpe(samples, target, mask=known).amin(0).mean()
    return Honesty(result.error, result.signed, 1e3 * float(energy), 1e3 * float(best))


def _fit_noise(
    calibration: Recalibration, runs: Sequence[_Run], pairs: int
) -> tuple[float, float] | None:
    """Golden-section search of the observation noise's factor by the density of true poses."""
    chosen: list[tuple[Any, Tensor]] = []
    for run in runs:
        # Small batches from all over the set: neighbouring frames tell the same.
        items = [item for item in run.items() if bool(item.target.isfinite().all())]
        wanted = -(-pairs // (len(runs) * _NOISE_BATCH))
        for item in items[:: max(1, len(items) // wanted)][:wanted]:
            law = run.law(item)
            if not isinstance(law, DecodedPoseDistribution):
                return None
            chosen.append((law, item.target))
    if not chosen:
        return None

    def score(log: float) -> float:
        calibration.log_noise.fill_(log)
        values = [
            nll_per_coordinate(calibration.with_noise(law).log_prob(x), x.shape[-2])
            for law, x in chosen
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
