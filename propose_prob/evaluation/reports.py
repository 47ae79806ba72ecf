"""Evaluation reports: the numbers under a protocol, as tables."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from .calibration import LEVELS, Calibration
from .coverage import Coverage
from .metrics import METRICS, Metrics
from .protocol import Protocol
from .sharpness import SpreadError

__all__ = ["ESTIMATES", "GROUP_COLUMNS", "JointTable", "Report", "align"]

ESTIMATES: Mapping[str, str] = {
    "point": "deterministic estimate",
    "mean": "mean of samples",
    "median": "coordinatewise median",
    "geometric": "geometric median",
    "sample": "one random sample",
    "best10": "best of 10",
    "best": "best of {samples}",
}
"""What each estimate is, by the prefix of its metrics."""

GROUP_COLUMNS: tuple[str, ...] = (
    *("point_mpjpe", "point_pa_mpjpe", "best_mpjpe", "point_pck", "point_auc"),
    *("energy_joint", "ece", "ece_signed"),
)
"""Metrics that the table of groups shows."""


@dataclass(frozen=True, eq=False)
class JointTable:
    """Means of each joint over all items, mm.

    Attributes:
        names: The joints' names.
        error: Error of the deterministic estimate, ``(J,)`` float64.
        spread: Spread of the distribution, ``(J,)``.
        energy: Energy score of the joint's distribution, ``(J,)``.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set, evaluate
        >>> data = CMU17Set(propose_prob.datasets.load_cmu17("val"), stride=1500)
        >>> protocol = Protocol(
        ...     "CMU17", "val", keypoints="exact", num_samples=20,
        ...     samples="distribution", frame_stride=1500
        ... )
        >>> joints = evaluate(propose_prob.load("prohmr-lifting-cmu17"), data, protocol).joints
        >>> joints.names[int(joints.spread.argmax())]
        'RWrist'
    """

    names: tuple[str, ...]
    error: Tensor
    spread: Tensor
    energy: Tensor


@dataclass(frozen=True, eq=False)
class Report:
    """Result of an evaluation.

    Attributes:
        protocol: What was measured.
        num_items: Number of poses.
        items: Means over poses.
        actions: Means over groups (every group weighs the same), None without labels. Its
            calibration errors are those of the group-weighted frequencies.
        by_action: Metrics of each group (action, setting or sequence, as the protocol says).
        action_items: Poses of each group.
        calibration: Curves over ``"all"``, ``"seen"`` and ``"hidden"`` joints and all poses.
        best_of: Expected MPJPE of the best of m, mm, for several m.
        pit: Heights of the PIT histogram of each coordinate, ``(bins, J, 3)``.
        coverage: How often central intervals of coordinates hold the truth.
        sharpness: Spread against error of all joints but the root.
        joints: Means of each joint.
        density: What the log-densities behind the NLL are: ``"exact"``, ``"bound"`` (the NLL is
            then no smaller than the true one, in expectation) or ``"unnormalised"``; None without.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set, evaluate
        >>> data = CMU17Set(propose_prob.datasets.load_cmu17("val"), stride=1500)
        >>> protocol = Protocol(
        ...     "CMU17", "val", keypoints="exact", num_samples=20,
        ...     samples="distribution", frame_stride=1500
        ... )
        >>> report = evaluate(propose_prob.load("prohmr-lifting-cmu17"), data, protocol)
        >>> list(report.best_of), report.calibration["all"].error < 0.1
        ([1, 2, 5, 10, 20], True)
    """

    protocol: Protocol
    num_items: int
    items: Metrics
    actions: Metrics | None
    by_action: Mapping[str, Metrics]
    action_items: Mapping[str, int]
    calibration: Mapping[str, Calibration]
    best_of: Mapping[int, float]
    pit: Tensor
    coverage: Coverage
    sharpness: SpreadError
    joints: JointTable
    density: str | None = None

    @property
    def headline(self) -> Metrics:
        """The mean that the protocol calls *the* number."""
        grouped = self.protocol.averaging == "groups" and self.actions is not None
        return self.actions if grouped and self.actions is not None else self.items

    def to_table(self) -> str:
        """Aligned plain text, with the protocol above it."""
        unit = self.protocol.unit
        name = self.protocol.name
        head = textwrap.fill(f"Protocol: {name}. {self.protocol.describe()}", width=100)
        means = f"Means over {self.num_items} poses"
        columns = {"poses": self.items}
        if self.actions is not None:
            means += (
                f" and, with equal weights, over {len(self.by_action)} {self.protocol.grouping}s"
            )
            columns[f"{self.protocol.grouping}s"] = self.actions
        titles = [f"{kind} ({over})" for over in columns for kind in ("MPJPE", "PA-MPJPE")]
        rows = [
            [
                label.format(samples=self.protocol.num_samples),
                *(
                    _number(getattr(m, f"{prefix}{kind}"), 1)
                    for m in columns.values()
                    for kind in ("_mpjpe", "_pa_mpjpe")
                ),
            ]
            for prefix, label in ESTIMATES.items()
        ]
        blocks = [head, f"{means}.", align([[f"error ({unit})", *titles], *rows])]
        rows = [
            [
                self.label(name),
                *(METRICS[name].format(getattr(m, name)) for m in columns.values()),
            ]
            for name in METRICS
            if METRICS[name].listed
        ]
        blocks.append(align([["distribution", *columns], *rows]))
        levels = self.coverage.to_table().splitlines()
        blocks.append(
            "\n".join(["Central intervals that hold the truth, by camera axis:", *levels])
        )
        curve = "  ".join(f"{m}: {value:.1f}" for m, value in self.best_of.items())
        blocks.append(f"Expected best of m ({unit}): {curve}")
        if self.by_action:
            best = f"best of {self.protocol.num_samples}"
            title = [self.protocol.grouping, "poses", "estimate", "PA", best, "PCK", "AUC"]
            title += ["energy", "ECE", "signed ECE"]
            rows = [
                [
                    label,
                    str(self.action_items[label]),
                    *(METRICS[name].format(getattr(m, name)) for name in GROUP_COLUMNS),
                ]
                for label, m in self.by_action.items()
            ]
            blocks.append(align([title, *rows]))
        return "\n\n".join(blocks)

    def label(self, name: str) -> str:
        """A metric's name with unit, under this protocol."""
        label = METRICS[name].label.format(
            samples=self.protocol.num_samples,
            pixels=self.protocol.keypoint_unit,
            pck=f"{self.protocol.pck_threshold:g}",
        )
        return f"{label}, {self.density}" if name == "nll" and self.density else label

    def to_json(self) -> str:
        """The report as JSON, curves included; what was not measured is null."""
        content = {
            "protocol": {**asdict(self.protocol), "description": self.protocol.describe()},
            "num_items": self.num_items,
            "best_of": {str(m): value for m, value in self.best_of.items()},
            "coverage": {
                str(level): row.tolist()
                for level, row in zip(self.coverage.levels, self.coverage.axes, strict=True)
            },
            "pit": self.pit.nanmean((1, 2)).tolist(),
            "sparsification": {
                "removed": self.sharpness.removed.tolist(),
                "by_spread": (1000 * self.sharpness.by_spread).tolist(),
                "by_error": (1000 * self.sharpness.by_error).tolist(),
            },
            "joints": {
                name: {"error": error, "spread": spread, "energy": energy}
                for name, error, spread, energy in zip(
                    self.joints.names,
                    *(v.tolist() for v in (self.joints.error, self.joints.spread)),
                    self.joints.energy.tolist(),
                    strict=True,
                )
            },
            "density": self.density,
            "items": asdict(self.items),
            "actions": None if self.actions is None else asdict(self.actions),
            "by_action": {
                label: {"num_items": self.action_items[label], **asdict(metrics)}
                for label, metrics in self.by_action.items()
            },
            "calibration": {
                "levels": list(LEVELS),
                **{
                    name: {
                        "curve": result.curve.tolist(),
                        "frequencies": result.frequencies.tolist(),
                        "counts": result.counts.tolist(),
                    }
                    for name, result in self.calibration.items()
                },
            },
        }
        return json.dumps(_without_nan(content), indent=2, allow_nan=False)


def align(rows: list[list[str]]) -> str:
    """Rows as aligned text, a rule below the first."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
