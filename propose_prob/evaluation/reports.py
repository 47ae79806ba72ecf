"""What an evaluation says: the protocol, its numbers, and how both are printed."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from propose_prob.evaluation.calibration import LEVELS, Calibration

__all__ = ["Metrics", "Protocol", "Report"]

Keypoints = Literal["exact", "noisy"]
Samples = Literal["law", "hypotheses"]
Alignment = Literal["similarity", "rigid"]
Intrinsics = Literal["unknown", "known"]


@dataclass(frozen=True)
class Protocol:
    """Everything that changes a number, printed with every table.

    Attributes:
        dataset: Name of the data set.
        split: Its split.
        keypoints: Whether the 2D evidence is the exact projection or detector-like.
        num_samples: Samples per item, S.
        samples: What was sampled: ``"law"`` (the law itself, observation noise included) or
            ``"hypotheses"`` (noise-free decodings, as published evaluations use).
        point: What the deterministic estimate is, in words.
        num_joints: Joints of a pose, J.
        root: The joint at the origin.
        count_root: Whether the root, whose error is always zero, counts in means over joints. It
            lowers them by 1/17 on 17 joints; calibration and spread always leave it out.
        procrustes: What PA-MPJPE fits: ``"similarity"`` (rotation, translation, scale) or
            ``"rigid"`` (no scale). Neither mirrors.
        intrinsics: Whether the law was told the camera's focal length.
        hidden_joints: Joints hidden from the law in each pose; None if the data decide.
        num_views: Cameras per frame.
        frame_stride: Every how many frames one is evaluated.
        seed: Seed of the samples and of the hidden joints.
        unit: Unit of the results.
        keypoint_unit: Unit of the reprojection error.

    Raises:
        ValueError: If a field holds a value it cannot have.

    Example:
        >>> protocol = Protocol("CMU17", "val", keypoints="exact", num_samples=50, samples="law")
        >>> len(protocol.counted_joints)
        17
    """

    dataset: str
    split: str
    keypoints: Keypoints
    num_samples: int
    samples: Samples
    point: str = "the law's point estimate"
    num_joints: int = 17
    root: int = 0
    count_root: bool = True
    procrustes: Alignment = "similarity"
    intrinsics: Intrinsics = "unknown"
    hidden_joints: int | None = 0
    num_views: int = 4
    frame_stride: int = 1
    seed: int = 0
    unit: Literal["mm"] = "mm"
    keypoint_unit: str = "px"

    def __post_init__(self) -> None:
        """Check every field."""
        choices = {
            "keypoints": Keypoints,
            "samples": Samples,
            "procrustes": Alignment,
            "intrinsics": Intrinsics,
            "unit": Literal["mm"],
        }
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise ValueError(
                    f"expected {name} to be one of {get_args(kind)}, got {getattr(self, name)!r}"
                )
        for name, least in (("num_samples", 2), ("num_joints", 2), ("num_views", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"expected {name} >= {least}, got {getattr(self, name)}")
        if self.frame_stride < 1:
            raise ValueError(f"expected frame_stride >= 1, got {self.frame_stride}")
        if not 0 <= self.root < self.num_joints:
            raise ValueError(f"expected 0 <= root < {self.num_joints}, got {self.root}")
        if self.hidden_joints is not None and not 0 <= self.hidden_joints <= self.num_joints:
            raise ValueError(
                f"expected 0 <= hidden_joints <= {self.num_joints}, got {self.hidden_joints}"
            )

    @property
    def counted_joints(self) -> tuple[int, ...]:
        """Joints over which errors are averaged."""
        return tuple(j for j in range(self.num_joints) if self.count_root or j != self.root)

    def describe(self) -> str:
        """The protocol as one paragraph."""
        frames = "every frame" if self.frame_stride == 1 else f"one frame in {self.frame_stride}"
        views = "1 view" if self.num_views == 1 else f"{self.num_views} views"
        drawn = {
            "law": "samples of the law itself",
            "hypotheses": "noise-free hypotheses (decoded latent samples)",
        }[self.samples]
        hidden = {0: "no joint hidden", None: "joints hidden as the data have it"}.get(
            self.hidden_joints, f"{self.hidden_joints} joints hidden per pose"
        )
        root = f"the root (joint {self.root}, always zero)"
        joints = (
            f"{self.num_joints} joints, {root} among them"
            if self.count_root
            else f"{self.num_joints - 1} joints, {root} left out"
        )
        fit = {"similarity": "rotation, translation and scale", "rigid": "rotation and translation"}
        return (
            f"{self.dataset}, split {self.split}: {self.keypoints} 2D, {views}, {frames}, "
            f"{hidden}, camera intrinsics {self.intrinsics} to the law. Per pose "
            f"{self.num_samples} {drawn}, independent, seed {self.seed}; the random sample is the "
            f"first of them. The deterministic estimate is {self.point}. Errors are "
            f"root-relative, in {self.unit}, means over {joints}. PA-MPJPE aligns "
            f"{fit[self.procrustes]} on the same joints, never mirrors. Best of m is the expected "
            f"minimum over m of the {self.num_samples}. Calibration and spread leave the root out; "
            "the signed calibration error is positive for a law that is too wide "
            f"(underconfident). Reprojection ({self.keypoint_unit}) is that of every hypothesis on "
            "the joints seen, each placed by least squares on the 2D, never by the true depth."
        )


@dataclass(frozen=True)
class Metrics:
    """The numbers of one group of items; NaN where there was nothing to measure.

    Attributes:
        point_mpjpe: MPJPE of the deterministic estimate, mm. ``*_pa_mpjpe``: after alignment.
        point_pa_mpjpe: PA-MPJPE of the deterministic estimate, mm.
        mean_mpjpe: MPJPE of the mean of samples, mm.
        mean_pa_mpjpe: PA-MPJPE of the mean of samples, mm.
        sample_mpjpe: MPJPE of one random sample, mm.
        sample_pa_mpjpe: PA-MPJPE of one random sample, mm.
        best10_mpjpe: Expected MPJPE of the best of ten samples, mm.
        best10_pa_mpjpe: Expected PA-MPJPE of the best of ten samples, mm.
        best_mpjpe: MPJPE of the best of all samples, mm.
        best_pa_mpjpe: PA-MPJPE of the best of all samples, mm.
        energy_joint: Energy score of a joint's law, mean over counted joints, mm.
        energy_pose: Energy score of the whole pose vector's law, mm.
        ece: Calibration error over all joints but the root.
        ece_signed: The same, signed: positive is underconfident (too wide).
        ece_seen: Calibration error of the seen joints.
        ece_seen_signed: The same, signed.
        ece_hidden: Calibration error of the hidden joints.
        ece_hidden_signed: The same, signed.
        reprojection: Mean reprojection error of all hypotheses on seen joints.
        spread_seen: Spread of seen joints, mean over them, mm.
        spread_hidden: Spread of hidden joints, mean over them, mm.
    """

    point_mpjpe: float
    point_pa_mpjpe: float
    mean_mpjpe: float
    mean_pa_mpjpe: float
    sample_mpjpe: float
    sample_pa_mpjpe: float
    best10_mpjpe: float
    best10_pa_mpjpe: float
    best_mpjpe: float
    best_pa_mpjpe: float
    energy_joint: float
    energy_pose: float
    ece: float
    ece_signed: float
    ece_seen: float
    ece_seen_signed: float
    ece_hidden: float
    ece_hidden_signed: float
    reprojection: float
    spread_seen: float
    spread_hidden: float

    @classmethod
    def build(cls, means: Mapping[str, float], curves: Mapping[str, Calibration]) -> Metrics:
        """Join means with the calibration of ``"all"``, ``"seen"`` and ``"hidden"`` joints.

        Args:
            means: Every metric but the calibration errors; ``reprojection`` may be missing.
            curves: Calibration over each set of joints.

        Returns:
            The metrics.
        """
        values = {"reprojection": math.nan, **means}
        for name, prefix in (("all", "ece"), ("seen", "ece_seen"), ("hidden", "ece_hidden")):
            values[prefix] = curves[name].error
            values[f"{prefix}_signed"] = curves[name].signed
        return cls(**values)


@dataclass(frozen=True, eq=False)
class Report:
    """Result of an evaluation.

    Attributes:
        protocol: What was measured.
        num_items: Number of poses.
        items: Means over poses.
        actions: Means over actions (every action weighs the same), None without action labels. Its
            calibration errors are those of the action-weighted frequencies.
        by_action: Metrics of each action.
        action_items: Poses of each action.
        calibration: Curves over ``"all"``, ``"seen"`` and ``"hidden"`` joints and all poses.
    """

    protocol: Protocol
    num_items: int
    items: Metrics
    actions: Metrics | None
    by_action: Mapping[str, Metrics]
    action_items: Mapping[str, int]
    calibration: Mapping[str, Calibration]

    def to_table(self) -> str:
        """Aligned plain text, with the protocol above it."""
        unit, pixels = self.protocol.unit, self.protocol.keypoint_unit
        head = textwrap.fill(f"Protocol: {self.protocol.describe()}", width=100)
        means = f"Means over {self.num_items} poses"
        columns = {"poses": self.items}
        if self.actions is not None:
            means += f" and, with equal weights, over {len(self.by_action)} actions"
            columns["actions"] = self.actions
        errors = [
            (label, prefix)
            for label, prefix in (
                ("deterministic estimate", "point"),
                ("mean of samples", "mean"),
                ("one random sample", "sample"),
                ("best of 10", "best10"),
                (f"best of {self.protocol.num_samples}", "best"),
            )
        ]
        titles = [f"{kind} ({over})" for over in columns for kind in ("MPJPE", "PA-MPJPE")]
        rows = [
            [
                label,
                *(
                    _number(getattr(m, f"{prefix}{kind}"), 1)
                    for m in columns.values()
                    for kind in ("_mpjpe", "_pa_mpjpe")
                ),
            ]
            for label, prefix in errors
        ]
        blocks = [head, f"{means}.", _align([[f"error ({unit})", *titles], *rows])]
        law = [
            (f"energy score, per joint ({unit})", "energy_joint", 1),
            (f"energy score, whole pose ({unit})", "energy_pose", 1),
            ("calibration error", "ece", 3),
            ("  signed (+ too wide)", "ece_signed", 3),
            ("calibration error, seen joints", "ece_seen", 3),
            ("  signed (+ too wide)", "ece_seen_signed", 3),
            ("calibration error, hidden joints", "ece_hidden", 3),
            ("  signed (+ too wide)", "ece_hidden_signed", 3),
            (f"reprojection of hypotheses ({pixels})", "reprojection", 3),
            (f"spread, seen joints ({unit})", "spread_seen", 1),
            (f"spread, hidden joints ({unit})", "spread_hidden", 1),
        ]
        rows = [
            [
                label,
                *(
                    _signed(getattr(m, name), digits)
                    if name.endswith("signed")
                    else _number(getattr(m, name), digits)
                    for m in columns.values()
                ),
            ]
            for label, name, digits in law
        ]
        blocks.append(_align([["law", *columns], *rows]))
        if self.by_action:
            best = f"best of {self.protocol.num_samples}"
            title = [f"action ({unit})", "poses", "estimate", best, "energy", "ECE", "signed ECE"]
            rows = [
                [
                    label,
                    str(self.action_items[label]),
                    _number(m.point_mpjpe, 1),
                    _number(m.best_mpjpe, 1),
                    _number(m.energy_joint, 1),
                    _number(m.ece, 3),
                    _signed(m.ece_signed, 3),
                ]
                for label, m in self.by_action.items()
            ]
            blocks.append(_align([title, *rows]))
        return "\n\n".join(blocks)

    def to_json(self) -> str:
        """The report as JSON, curves included; what was not measured is null."""
        content = {
            "protocol": {**asdict(self.protocol), "description": self.protocol.describe()},
            "num_items": self.num_items,
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


def _align(rows: list[list[str]]) -> str:
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


def _signed(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:+.{digits}f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
