"""Protocols: everything that changes a number, as data, printed with every table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import InputError

__all__ = ["H36M_14", "PROTOCOLS", "Protocol"]

Samples = Literal["distribution", "hypotheses"]
Alignment = Literal["similarity", "rigid"]
Intrinsics = Literal["unknown", "known"]
Averaging = Literal["poses", "groups"]
Grouping = Literal["action", "setting", "sequence"]

H36M_14: tuple[str, ...] = (
    *("Head", "Thorax", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist"),
    *("RHip", "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle"),
)
"""The 14 joints that MPI-INF-3DHP and 3DPW are evaluated on, by their names in Human3.6M-17:
neither pelvis, spine nor "Neck/Nose" (`mpii_get_pck_auc_joint_groups.m`; SPIN's `H36M_TO_J14`)."""


@dataclass(frozen=True)
class Protocol:
    """Everything that changes a number, printed with every table.

    Attributes:
        dataset: Name of the data set.
        split: Its split.
        keypoints: What the 2D evidence is: ``"exact"`` projections, ``"noisy"`` or a detector's.
        num_samples: Samples per item, S.
        samples: What was sampled: ``"distribution"`` (the distribution itself, observation noise
            included) or ``"hypotheses"`` (noise-free decodings, as published evaluations use).
        name: Name of the protocol.
        point: What the deterministic estimate is, in words.
        joints: Names of the joints that errors are averaged over, where not all `num_joints`.
        num_joints: Joints of a pose as it is evaluated, the root included.
        root: The joint at the origin, among these.
        count_root: Whether the root, whose error is always zero, counts in means over joints. It
            lowers them by 1/17 on 17 joints; calibration and spread always leave it out.
        procrustes: What PA-MPJPE fits: ``"similarity"`` (rotation, translation, scale) or
            ``"rigid"`` (no scale). Neither mirrors.
        intrinsics: Whether the distribution was told the camera's focal length and principal point.
        hidden_joints: Joints hidden from the distribution in each pose; None if the data decide.
        min_joints: Items of which fewer joints were seen, before any are hidden, are left out.
        num_views: Cameras per frame; None if the data decide.
        frame_stride: Every how many frames one is evaluated.
        averaging: Which mean is *the* number: over ``"poses"`` or over ``"groups"``, each of which
            then weighs the same. Reports print both.
        grouping: What a group is: an ``"action"``, a ``"setting"`` or a ``"sequence"``.
        pck_threshold: Error below which a joint is correct, mm.
        headline: Metrics that tables of several models show.
        density: Whether the density of the truth was computed.
        calibrated: Whether recalibrated distributions were used, where the model has a
            recalibration.
        seed: Seed of the samples and of the hidden joints.
        unit: Unit of the results.
        keypoint_unit: Unit of the reprojection error.

    Raises:
        InputError: If a field holds a value it cannot have.

    Example:
        >>> protocol = Protocol(
        ...     "CMU17", "val", keypoints="exact", num_samples=50, samples="distribution"
        ... )
        >>> len(protocol.counted_joints)
        17
    """

    dataset: str
    split: str
    keypoints: str
    num_samples: int
    samples: Samples
    name: str = "custom"
    point: str = "the distribution's point estimate"
    joints: tuple[str, ...] = ()
    num_joints: int = 17
    root: int = 0
    count_root: bool = True
    procrustes: Alignment = "similarity"
    intrinsics: Intrinsics = "unknown"
    hidden_joints: int | None = 0
    min_joints: int = 2
    num_views: int | None = 4
    frame_stride: int = 1
    averaging: Averaging = "poses"
    grouping: Grouping = "action"
    pck_threshold: float = 150.0
    headline: tuple[str, ...] = (
        *("point_mpjpe", "mean_mpjpe", "sample_mpjpe", "best10_mpjpe", "best_mpjpe"),
        *("energy_joint", "ece", "ece_signed", "reprojection"),
    )
    density: bool = False
    calibrated: bool = True
    seed: int = 0
    unit: Literal["mm"] = "mm"
    keypoint_unit: str = "px"

    def __post_init__(self) -> None:
        """Check every field."""
        choices = {
            "samples": Samples,
            "procrustes": Alignment,
            "intrinsics": Intrinsics,
            "averaging": Averaging,
            "grouping": Grouping,
            "unit": Literal["mm"],
        }
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise InputError(
                    f"expected {name} to be one of {get_args(kind)}, got {getattr(self, name)!r}"
                )
        for name, least in (
            ("num_samples", 2),
            ("num_joints", 2),
            ("min_joints", 2),
            ("frame_stride", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"expected {name} >= {least}, got {getattr(self, name)}")
        if self.num_views is not None and self.num_views < 1:
            raise InputError(f"expected num_views >= 1, got {self.num_views}")
        if not 0 <= self.root < self.num_joints:
            raise InputError(f"expected 0 <= root < {self.num_joints}, got {self.root}")
        if self.hidden_joints is not None and not 0 <= self.hidden_joints <= self.num_joints:
            raise InputError(
                f"expected 0 <= hidden_joints <= {self.num_joints}, got {self.hidden_joints}"
            )
        if self.joints and self.num_joints != len(self.joints) + (not self.count_root):
            raise InputError(
                f"expected num_joints {len(self.joints) + (not self.count_root)}, the joints named"
                f"{'' if self.count_root else ' and the root'}, got {self.num_joints}"
            )

    @property
    def counted_joints(self) -> tuple[int, ...]:
        """Joints over which errors are averaged."""
        return tuple(j for j in range(self.num_joints) if self.count_root or j != self.root)

    def describe(self) -> str:
        """The protocol as one paragraph."""
        frames = "every frame" if self.frame_stride == 1 else f"one frame in {self.frame_stride}"
        views = {None: "views as the data have them", 1: "1 view"}.get(
            self.num_views, f"{self.num_views} views"
        )
        drawn = {
            "distribution": "samples of the distribution itself",
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
        if self.joints:
            joints += f" ({', '.join(self.joints)})"
        fit = {"similarity": "rotation, translation and scale", "rigid": "rotation and translation"}
        mean = {
            "poses": "every pose weighs the same",
            "groups": f"every {self.grouping} weighs the same",
        }[self.averaging]
        distributions = (
            "Distributions are recalibrated where the model has a recalibration."
            if self.calibrated
            else "Distributions are as trained, without recalibration."
        )
        return (
            f"{self.dataset}, split {self.split}: {self.keypoints} 2D, {views}, {frames}, "
            f"{hidden}, camera intrinsics {self.intrinsics} to the distribution; poses of which at "
            f"least "
            f"{self.min_joints} joints were seen. Per pose "
            f"{self.num_samples} {drawn}, independent, seed {self.seed}; the random sample is the "
            f"first of them. The deterministic estimate is {self.point}. {distributions} Errors "
            f"are "
            f"root-relative, in {self.unit}, means over {joints}; {mean}, groups are by "
            f"{self.grouping}. PA-MPJPE aligns {fit[self.procrustes]} on the same joints, never "
            "mirrors; N-MPJPE fits one scale. PCK counts joints nearer than "
            f"{self.pck_threshold:g} mm, AUC is its mean over 0, 5, ..., 150 mm, CPS is of aligned "
            "poses; of the best of all samples, the one of least MPJPE. Best of m is the expected "
            f"minimum over m of the {self.num_samples}. Calibration and spread leave the root out; "
            "the signed calibration error is positive for a distribution that is too wide "
            f"(underconfident). Reprojection ({self.keypoint_unit}) is that of every hypothesis on "
            "the joints seen, each placed by least squares on the 2D, never by the true depth."
        )


_ALIGNED = (
    *("point_pa_mpjpe", "mean_pa_mpjpe", "sample_pa_mpjpe", "best10_pa_mpjpe", "best_pa_mpjpe"),
    *("energy_joint", "ece", "ece_signed", "reprojection"),
)
_FOURTEEN = len(H36M_14)

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "CMU17",
            "test_seen",
            "exact",
            200,
            "distribution",
            name="cmu17",
            intrinsics="known",
            frame_stride=4,
        ),
        Protocol(
            *("Human3.6M", "S9, S11", "gt", 200, "hypotheses"),
            name="h36m-p1",
            hidden_joints=None,
            frame_stride=64,
            averaging="groups",
        ),
        Protocol(
            *("Human3.6M", "S9, S11", "gt", 200, "hypotheses"),
            name="h36m-p2",
            hidden_joints=None,
            frame_stride=64,
            averaging="groups",
            headline=_ALIGNED,
        ),
        Protocol(
            *("MPI-INF-3DHP", "test", "gt", 200, "hypotheses"),
            name="3dhp",
            joints=H36M_14,
            num_joints=_FOURTEEN + 1,
            count_root=False,
            hidden_joints=None,
            num_views=1,
            grouping="setting",
            headline=(
                *("point_pck", "point_auc", "point_mpjpe", "best_pck", "best_auc", "best_mpjpe"),
                *("energy_joint", "ece", "ece_signed"),
            ),
        ),
        Protocol(
            *("3DPW", "test", "detected", 200, "hypotheses"),
            name="3dpw",
            joints=H36M_14,
            num_joints=_FOURTEEN + 1,
            count_root=False,
            hidden_joints=None,
            num_views=1,
            min_joints=6,
            grouping="sequence",
            headline=_ALIGNED,
        ),
    )
}
"""The named protocols.

* `h36m-p1`, `h36m-p2`: Human3.6M, subjects 9 and 11, 17 joints, every 64th frame (as in
  3d-pose-baseline's descendants for many hypotheses; 1 for every frame), mean over actions; MPJPE
  and, for P2, MPJPE after similarity alignment. The root counts, as in VideoPose3D's
  `mpjpe` over 17 joints.
* `3dhp`: MPI-INF-3DHP's test set, valid frames, 14 joints, PCK at 150 mm and AUC, by setting.
* `3dpw`: 3DPW's test set, 14 joints, PA-MPJPE.
* `cmu17`: the benchmark that ships.
"""
