"""The numbers of a report: names, labels, units, and what each of them means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from propose_prob.evaluation.calibration import Calibration

__all__ = ["METRICS", "Metric", "Metrics"]


@dataclass(frozen=True)
class Metric:
    """How a number is printed.

    Attributes:
        label: Name with unit.
        digits: Digits after the point.
        signed: Whether a plus sign is printed.
        percent: Whether a share is printed in percent.
        listed: Whether the report lists it below the table of errors.

    Example:
        >>> Metric("PA-MPJPE (mm)").digits
        1
    """

    label: str
    digits: int = 1
    signed: bool = False
    percent: bool = False
    listed: bool = True

    def format(self, value: float) -> str:
        """The number as text; a dash where nothing was measured."""
        if math.isnan(value):
            return "-"
        value = 100 * value if self.percent else value
        return f"{value:+.{self.digits}f}" if self.signed else f"{value:.{self.digits}f}"


def _errors() -> dict[str, Metric]:
    names = {
        "point": "estimate",
        "mean": "mean",
        "median": "median",
        "geometric": "geometric median",
        "sample": "random",
        "best10": "best of 10",
        "best": "best of {samples}",
    }
    kinds = {"mpjpe": "", "pa_mpjpe": "PA, "}
    return {
        f"{prefix}_{kind}": Metric(f"{what}{name} (mm)", listed=False)
        for prefix, name in names.items()
        for kind, what in kinds.items()
    }


METRICS: Mapping[str, Metric] = {
    **_errors(),
    "point_n_mpjpe": Metric("N-MPJPE, estimate (mm)"),
    "point_pck": Metric("PCK@{pck}, estimate (%)", percent=True),
    "point_auc": Metric("AUC, estimate (%)", percent=True),
    "point_cps": Metric("CPS, estimate (of 299)"),
    "best_pck": Metric("PCK@{pck}, best of {samples} (%)", percent=True),
    "best_auc": Metric("AUC, best of {samples} (%)", percent=True),
    "best_cps": Metric("CPS, best of {samples} (of 299)"),
    "velocity": Metric("MPJVE, estimate (mm per step)"),
    "acceleration": Metric("acceleration error, estimate (mm per step^2)"),
    "energy_joint": Metric("energy score, per joint (mm)"),
    "energy_pose": Metric("energy score, whole pose (mm)"),
    "crps_x": Metric("CRPS, across (mm)"),
    "crps_y": Metric("CRPS, down (mm)"),
    "crps_z": Metric("CRPS, depth (mm)"),
    "nll": Metric("NLL (nats per coordinate, metres)", digits=3),
    "ece": Metric("calibration error", digits=3),
    "ece_signed": Metric("  signed (+ too wide)", digits=3, signed=True),
    "ece_seen": Metric("calibration error, seen joints", digits=3),
    "ece_seen_signed": Metric("  signed (+ too wide)", digits=3, signed=True),
    "ece_hidden": Metric("calibration error, hidden joints", digits=3),
    "ece_hidden_signed": Metric("  signed (+ too wide)", digits=3, signed=True),
    "spearman": Metric("rank correlation of spread and error", digits=3),
    "ause": Metric("area under the sparsification error", digits=3),
    "reprojection": Metric("reprojection of hypotheses ({pixels})", digits=3),
    "spread_seen": Metric("spread, seen joints (mm)"),
    "spread_hidden": Metric("spread, hidden joints (mm)"),
    "bone_symmetry": Metric("bones left against right, estimate (mm)"),
    "bone_variation": Metric("bone lengths vary over samples by (mm)"),
}
"""Every metric by name."""


@dataclass(frozen=True)
class Metrics:
    """The numbers of one group of items; NaN where there was nothing to measure.

    Errors are named by estimate: ``point`` is deterministic, ``mean``, ``median`` (of each
    coordinate) and ``geometric`` (median of each joint) are of the samples, ``sample`` is one
    random sample, ``best10`` and ``best`` are the expected best of ten and the best of all.

    Attributes:
        point_mpjpe: MPJPE, mm; ``*_pa_mpjpe``: after alignment.
        point_n_mpjpe: N-MPJPE, mm.
        point_pck: Share of joints nearer than the protocol's threshold.
        point_auc: Mean of that share over 0, 5, ..., 150 mm.
        point_cps: Correct poses score of the aligned pose, 0 to 299.
        best_pck: The same three of the sample of least MPJPE.
        velocity: MPJVE of the deterministic estimate, mm per step of the protocol's stride.
        acceleration: Acceleration error of it, mm per squared step.
        energy_joint: Energy score of a joint's law, mean over counted joints, mm.
        energy_pose: Energy score of the whole pose vector's law, mm.
        crps_x: CRPS of each coordinate, mean over counted joints, mm; y is down, z is depth.
        nll: Negative log-density of the truth, nats per free coordinate, metres.
        ece: Calibration error over all joints but the root; ``ece_seen``, ``ece_hidden`` likewise.
        ece_signed: The same, signed: positive is underconfident (too wide).
        spearman: Rank correlation of spread and error of joints.
        ause: Area between sparsification curves, over the mean error.
        reprojection: Mean reprojection error of all hypotheses on seen joints.
        spread_seen: Spread of seen joints, mean over them, mm; ``spread_hidden`` likewise.
        bone_symmetry: Mean difference between left and right bones of the estimate, mm.
        bone_variation: Standard deviation of a bone's length over samples, mean over bones, mm.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set, Protocol, evaluate
        >>> data = CMU17Set(propose_prob.data.load_cmu17("val"), stride=1500)
        >>> protocol = Protocol(
        ...     "CMU17", "val", keypoints="exact", num_samples=20, samples="law", frame_stride=1500
        ... )
        >>> metrics = evaluate(propose_prob.load("prohmr-lifting-cmu17"), data, protocol).items
        >>> metrics.best_mpjpe < metrics.point_mpjpe < metrics.sample_mpjpe
        True
    """

    point_mpjpe: float
    point_pa_mpjpe: float
    mean_mpjpe: float
    mean_pa_mpjpe: float
    median_mpjpe: float
    median_pa_mpjpe: float
    geometric_mpjpe: float
    geometric_pa_mpjpe: float
    sample_mpjpe: float
    sample_pa_mpjpe: float
    best10_mpjpe: float
    best10_pa_mpjpe: float
    best_mpjpe: float
    best_pa_mpjpe: float
    point_n_mpjpe: float
    point_pck: float
    point_auc: float
    point_cps: float
    best_pck: float
    best_auc: float
    best_cps: float
    velocity: float
    acceleration: float
    energy_joint: float
    energy_pose: float
    crps_x: float
    crps_y: float
    crps_z: float
    nll: float
    ece: float
    ece_signed: float
    ece_seen: float
    ece_seen_signed: float
    ece_hidden: float
    ece_hidden_signed: float
    spearman: float
    ause: float
    reprojection: float
    spread_seen: float
    spread_hidden: float
    bone_symmetry: float
    bone_variation: float

    @classmethod
    def build(cls, means: Mapping[str, float], curves: Mapping[str, Calibration]) -> Metrics:
        """Join means with the calibration of ``"all"``, ``"seen"`` and ``"hidden"`` joints.

        Args:
            means: Metrics that are means; those missing are NaN.
            curves: Calibration over each set of joints.

        Returns:
            The metrics.
        """
        values = {field.name: math.nan for field in fields(cls)} | dict(means)
        for name, prefix in (("all", "ece"), ("seen", "ece_seen"), ("hidden", "ece_hidden")):
            values[prefix] = curves[name].error
            values[f"{prefix}_signed"] = curves[name].signed
        return cls(**values)

    def to_dict(self) -> dict[str, float]:
        """All numbers by name."""
        return asdict(self)
