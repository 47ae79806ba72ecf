"""Errors of 3D poses (MPJPE and variants, PCK, AUC, CPS, best of many) and the table of metrics.

Every function takes ``(..., J, 3)`` tensors that broadcast against each other, so ``(S, B, J, 3)``
hypotheses can be compared with a ``(B, J, 3)`` target. Lengths come out in the unit they came in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.alignment import procrustes
from .calibration import Calibration

__all__ = [
    "AUC_THRESHOLDS",
    "METRICS",
    "Metric",
    "Metrics",
    "auc",
    "best_of",
    "best_of_curve",
    "cps",
    "joint_errors",
    "mpjpe",
    "n_mpjpe",
    "pa_mpjpe",
    "pck",
    "pve",
]

AUC_THRESHOLDS: tuple[float, ...] = tuple(i / 200 for i in range(31))
"""The 31 thresholds 0, 5, ..., 150 mm of MPI-INF-3DHP's AUC, in meters."""

_POSES_PER_CHUNK = 1 << 16
_CPS_STEPS = 300


def joint_errors(pred: Tensor, target: Tensor) -> Tensor:
    """Distance between predicted and true position of each joint.

    Args:
        pred: Predicted joints, ``(..., J, 3)``, any unit.
        target: True joints, broadcastable to ``pred``, same unit.

    Returns:
        Distances ``(..., J)`` in the same unit.

    Raises:
        InputError: If an argument is not ``(..., J, 3)`` or the joint counts differ.

    Example:
        >>> joint_errors(torch.tensor([[3.0, 4.0, 0.0]]), torch.zeros(1, 3)).tolist()
        [5.0]
    """
    _check_poses(pred, target)
    return torch.linalg.vector_norm(pred - target, dim=-1)


def mpjpe(pred: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Mean per-joint position error (P1), without any alignment.

    Args:
        pred: Predicted joints, ``(..., J, 3)``, any unit.
        target: True joints, broadcastable to ``pred``, same unit.
        mask: Joints that count, ``(..., J)`` booleans; all of them by default.

    Returns:
        One error per pose, ``(...)``, in the same unit; NaN where no joint counts.

    Example:
        >>> import torch
        >>> mpjpe(torch.zeros(5, 17, 3), torch.ones(17, 3)).shape
        torch.Size([5])
    """
    return _masked_mean(joint_errors(pred, target), mask)


def pa_mpjpe(
    pred: Tensor, target: Tensor, *, mask: Tensor | None = None, scale: bool = True
) -> Tensor:
    """MPJPE after Procrustes alignment of each prediction to its target (P2).

    Rotation, translation and (by default) one scale are fitted; mirror images stay mirrored. With
    a mask both the fit and the mean use the counted joints only. Poses are aligned in chunks,
    so that memory stays bounded for any number of hypotheses.

    Args:
        pred: Predicted joints, ``(..., J, 3)``, any unit.
        target: True joints, broadcastable to ``pred``, same unit.
        mask: Joints that count, ``(..., J)`` booleans; all of them by default.
        scale: Whether the alignment may scale (similarity) or not (rigid).

    Returns:
        One error per pose, ``(...)``, in the same unit; NaN where no joint counts.

    Example:
        >>> pose = torch.randn(5, 17, 3)
        >>> bool((pa_mpjpe(2 * pose + 1, pose) < 1e-5).all())
        True
    """
    _check_poses(pred, target)
    pred, target = torch.broadcast_tensors(pred, target)
    batch, joints = pred.shape[:-2], pred.shape[-2]
    pred, target = pred.reshape(-1, joints, 3), target.reshape(-1, joints, 3)
    flat_mask = None
    if mask is not None:
        _check_mask(mask, joints)
        flat_mask = mask.bool().expand(*batch, joints).reshape(-1, joints)
    errors = []
    for start in range(0, pred.shape[0], _POSES_PER_CHUNK):
        part = slice(start, start + _POSES_PER_CHUNK)
        source, goal, counted = pred[part], target[part], None
        weights = None
        if flat_mask is not None:
            counted = flat_mask[part]
            # Nothing can be fitted where no joint counts: those poses are blanked and end as NaN.
            some = counted.any(-1, keepdim=True)
            source = torch.where(some[..., None], source, 0)
            weights = counted | ~some
        aligned = procrustes(source, goal, scale=scale, weights=weights)
        errors.append(_masked_mean(joint_errors(aligned, goal), counted))
    return torch.cat(errors).reshape(batch) if errors else pred.new_empty(batch)


def n_mpjpe(pred: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """MPJPE after multiplying each prediction by its least-squares scale (no rotation, no shift).

    Source: Rhodin et al., "Unsupervised geometry-aware representation for 3D human pose
    estimation", ECCV 2018.

    Args:
        pred: Predicted root-relative joints, ``(..., J, 3)``, any unit.
        target: True root-relative joints, broadcastable to ``pred``, same unit.
        mask: Joints that count, ``(..., J)`` booleans; all of them by default.

    Returns:
        One error per pose, ``(...)``, in the unit of ``target``; NaN where no joint counts.

    Example:
        >>> pose = torch.randn(5, 17, 3)
        >>> bool((n_mpjpe(2 * pose, pose) < 1e-5).all())
        True
    """
    _check_poses(pred, target)
    product, square = pred * target, pred.square().expand_as(pred * target)
    if mask is not None:
        _check_mask(mask, pred.shape[-2])
        product = torch.where(mask.bool()[..., None], product, 0)
        square = torch.where(mask.bool()[..., None], square, 0)
    tiny = torch.finfo(pred.dtype).tiny
    factor = product.sum((-2, -1)) / square.sum((-2, -1)).clamp_min(tiny)
    return mpjpe(factor[..., None, None] * pred, target, mask=mask)


def pve(pred: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Mean per-vertex error of body meshes, without any alignment.

    Move both meshes so that their root joints coincide first, as published tables do.

    Args:
        pred: Predicted vertices, ``(..., V, 3)``, any unit.
        target: True vertices, broadcastable to ``pred``, same unit.
        mask: Vertices that count, ``(..., V)`` booleans; all of them by default.

    Returns:
        One error per mesh, ``(...)``, in the same unit; NaN where no vertex counts.

    Example:
        >>> pve(torch.ones(100, 3), torch.zeros(100, 3)).item()
        1.732...
    """
    return mpjpe(pred, target, mask=mask)


def pck(pred: Tensor, target: Tensor, *, threshold: float, mask: Tensor | None = None) -> Tensor:
    """Share of joints less than ``threshold`` away from the truth (PCK).

    The comparison is strict, as in MPI-INF-3DHP's own evaluation (``mpii_compute_3d_pck.m``).

    Args:
        pred: Predicted joints, ``(..., J, 3)``, any unit.
        target: True joints, broadcastable to ``pred``, same unit.
        threshold: Distance below which a joint is correct, same unit (150 mm on MPI-INF-3DHP).
        mask: Joints that count, ``(..., J)`` booleans; all of them by default.

    Returns:
        Shares in [0, 1], ``(...)``; NaN where no joint counts.

    Raises:
        InputError: If ``threshold`` is negative or not a number, or shapes disagree.

    Example:
        >>> pred = torch.tensor([[0.1, 0.0, 0.0], [0.2, 0.0, 0.0]])
        >>> pck(pred, torch.zeros(2, 3), threshold=0.15).item()
        0.5
    """
    return auc(pred, target, thresholds=(threshold,), mask=mask)


def auc(
    pred: Tensor,
    target: Tensor,
    *,
    thresholds: Sequence[float] = AUC_THRESHOLDS,
    mask: Tensor | None = None,
) -> Tensor:
    """Area under the PCK curve: the mean of PCK over thresholds.

    Source: Mehta et al., "Monocular 3D human pose estimation in the wild using improved CNN
    supervision", 3DV 2017, with the thresholds of their ``mpii_compute_3d_pck.m``.

    Args:
        pred: Predicted joints, ``(..., J, 3)``, meters with the default thresholds.
        target: True joints, broadcastable to ``pred``, same unit.
        thresholds: Thresholds, same unit; 0, 5, ..., 150 mm in meters by default.
        mask: Joints that count, ``(..., J)`` booleans; all of them by default.

    Returns:
        Shares in [0, 1], ``(...)``; NaN where no joint counts.

    Raises:
        InputError: If there is no threshold, one is negative or NaN, or shapes disagree.

    Example:
        >>> import torch
        >>> round(float(auc(torch.full((1, 3), 0.1), torch.zeros(1, 3))), 3)
        0.0
        >>> round(float(auc(torch.full((1, 3), 0.05), torch.zeros(1, 3))), 3)
        0.419
    """
    if len(thresholds) == 0 or not all(threshold >= 0 for threshold in thresholds):
        raise InputError(f"expected a threshold >= 0, got {thresholds}")
    errors = joint_errors(pred, target)
    limits = errors.new_tensor(sorted(thresholds))
    # The number of thresholds that an error is below of.
    above = len(limits) - torch.searchsorted(limits, errors.contiguous(), right=True)
    share = above.to(errors.dtype) / len(limits)
    return _masked_mean(torch.where(errors.isnan(), errors, share), mask)


def cps(pred: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Correct poses score: area under the curve of poses whose every joint is near the truth.

    A pose is correct at a threshold if all its counted joints are closer than that. The area is
    that of the trapezoidal rule over 1, 2, ..., 300 mm, so that 299 is the best a pose can have.
    Published tables align each pose first (`procrustes`). Source: Wandt et al., "CanonPose", CVPR
    2021; thresholds and rule as in Wehrbein et al., "Probabilistic monocular 3D human pose
    estimation with normalizing flows", ICCV 2021.

    Args:
        pred: Predicted joints, ``(..., J, 3)``, **meters**.
        target: True joints, broadcastable to ``pred``, meters.
        mask: Joints that count, ``(..., J)`` booleans; all of them by default.

    Returns:
        One score per pose in 0 ... 299, ``(...)``; NaN where no joint counts.

    Example:
        >>> cps(torch.zeros(2, 17, 3), torch.zeros(17, 3)).tolist()
        [299.0, 299.0]
    """
    errors = joint_errors(pred, target)
    if mask is not None:
        _check_mask(mask, errors.shape[-1])
        errors = torch.where(mask.bool(), errors, -torch.inf)
    worst = 1000 * errors.amax(-1)
    # Correct at k for each integer k above the worst error; both ends weigh one half.
    correct = (_CPS_STEPS - worst.clamp_min(0).floor()).clamp(0, _CPS_STEPS)
    area = correct - 0.5 * (worst < 1).to(worst.dtype) - 0.5 * (worst < _CPS_STEPS).to(worst.dtype)
    return torch.where(worst.isfinite(), area, torch.nan)


def best_of(errors: Tensor, m: int) -> Tensor:
    """Expected smallest of ``m`` hypotheses drawn without replacement from the ``S`` at hand.

    The i-th smallest error (from 0) is the minimum with probability ``C(S-1-i, m-1) / C(S, m)``,
    which makes this the unbiased estimate of the best of ``m``; ``m = S`` is the plain minimum and
    ``m = 1`` the mean. It rewards distributions that are too narrow: never report it alone.

    Args:
        errors: One error per hypothesis, ``(S, ...)``, hypotheses along the first axis.
        m: Number of hypotheses that compete, ``1 <= m <= S``.

    Returns:
        Expected minima, ``(...)``, in the unit of ``errors``.

    Raises:
        InputError: If ``errors`` has no first axis or ``m`` is outside ``1 ... S``.

    Example:
        >>> import torch
        >>> best_of(torch.tensor([3.0, 1.0, 2.0]), 3)
        tensor(1.)
        >>> best_of(torch.tensor([3.0, 1.0, 2.0]), 1)
        tensor(2.)
    """
    if errors.ndim == 0:
        raise InputError("expected errors of shape (S, ...), got a scalar")
    num_samples = errors.shape[0]
    if not 1 <= m <= num_samples:
        raise InputError(f"expected m between 1 and S = {num_samples} (axis 0), got {m}")
    if m == num_samples:
        return errors.amin(0)
    total = math.comb(num_samples, m)
    weights = [math.comb(num_samples - 1 - i, m - 1) / total for i in range(num_samples - m + 1)]
    smallest = errors.sort(dim=0).values[: len(weights)]
    return torch.tensordot(errors.new_tensor(weights), smallest, dims=1)


def best_of_curve(errors: Tensor, counts: Sequence[int] | None = None) -> tuple[list[int], Tensor]:
    """Expected best of m for several m from the same samples, without bias and in one sort.

    Args:
        errors: One error per hypothesis, ``(S, ...)``, hypotheses along the first axis.
        counts: Values of m; by default 1, 2, 5, 10, 20, 50, ... up to S, and S.

    Returns:
        The values of m, K of them, and the expected minima, ``(K, ...)``; see `best_of`.

    Raises:
        InputError: If ``errors`` has no first axis or a count is outside ``1 ... S``.

    Example:
        >>> import torch
        >>> best_of_curve(torch.tensor([3.0, 1.0, 2.0]))
        ([1, 2, 3], tensor([2.0000, 1.3333, 1.0000]))
    """
    if errors.ndim == 0:
        raise InputError("expected errors of shape (S, ...), got a scalar")
    if counts is None:
        steps = (k * 10**e for e in range(len(str(errors.shape[0]))) for k in (1, 2, 5))
        counts = [*(m for m in steps if m < errors.shape[0]), errors.shape[0]]
    ordered = errors.sort(dim=0).values
    return list(counts), torch.stack([best_of(ordered, m) for m in counts])


def _masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the last axis of the entries where ``mask`` holds; NaN where it never does."""
    if mask is None:
        return values.mean(-1)
    _check_mask(mask, values.shape[-1])
    mask = mask.bool()
    return torch.where(mask, values, 0).sum(-1) / mask.sum(-1)


def _check_poses(pred: Tensor, target: Tensor) -> None:
    for name, value in (("pred", pred), ("target", target)):
        if value.ndim < 2 or value.shape[-1] != 3:
            raise InputError(f"expected {name} of shape (..., J, 3), got {tuple(value.shape)}")
    if pred.shape[-2] != target.shape[-2]:
        raise InputError(
            "expected as many joints in pred as in target (axis -2), "
            f"got {pred.shape[-2]} and {target.shape[-2]}"
        )


def _check_mask(mask: Tensor, joints: int) -> None:
    if mask.ndim < 1 or mask.shape[-1] != joints:
        raise InputError(f"expected a mask of shape (..., {joints}), got {tuple(mask.shape)}")


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
    "nll": Metric("NLL (nats per coordinate, meters)", digits=3),
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
        energy_joint: Energy score of a joint's distribution, mean over counted joints, mm.
        energy_pose: Energy score of the whole pose vector's distribution, mm.
        crps_x: CRPS of each coordinate, mean over counted joints, mm; y is down, z is depth.
        nll: Negative log-density of the truth, nats per free coordinate, meters.
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
        >>> data = CMU17Set(propose_prob.datasets.load_cmu17("val"), stride=1500)
        >>> protocol = Protocol(
        ...     "CMU17", "val", keypoints="exact", num_samples=20,
        ...     samples="distribution", frame_stride=1500
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
