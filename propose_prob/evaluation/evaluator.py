"""Accumulate per-item metrics over batches into a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.alignment import procrustes
from ..geometry.camera import project, root_translation
from ..geometry.skeletons import Skeleton
from .bones import Bone, bone_pairs, bone_symmetry, bone_variation
from .calibration import CalibrationCurve, calibration_hits
from .coverage import PITHistogram
from .estimates import coordinate_median, geometric_median
from .metrics import (
    Metrics,
    auc,
    best_of,
    best_of_curve,
    cps,
    joint_errors,
    mpjpe,
    n_mpjpe,
    pa_mpjpe,
    pck,
)
from .motion_errors import MotionErrors
from .protocol import Protocol
from .reports import JointTable, Report
from .scores import check_samples, crps, energy_scores, joint_spread, nll_per_coordinate
from .sharpness import SpreadErrorHistogram

__all__ = [
    "Evaluator",
    "ItemMetrics",
    "curve",
    "evaluated_joints",
    "per_item_metrics",
    "reprojection",
]

_MM_PER_METER = 1000.0


def evaluated_joints(protocol: Protocol, skeleton: Skeleton) -> list[int]:
    """The joints of a set that a protocol evaluates, in its order; the root is always there.

    Args:
        protocol: Says which joints.
        skeleton: The model's joint set.

    Raises:
        InputError: If the set has no such joint.
    """
    if not protocol.joints:
        return list(range(skeleton.num_joints))
    named = [skeleton.index(name) for name in protocol.joints]
    return named if skeleton.root in named else [skeleton.root, *named]


class ItemMetrics(NamedTuple):
    """What is added up.

    Attributes:
        items: Per-item sums and weights, ``(B,)`` each, by metric; lengths in mm.
        joints: Per-joint error of the point estimate, spread and energy score, ``(B, J)`` each, mm.
    """

    items: dict[str, tuple[Tensor, Tensor]]
    joints: dict[str, Tensor]


@torch.no_grad()
def per_item_metrics(
    samples: Tensor,
    point: Tensor,
    target: Tensor,
    visible: Tensor,
    protocol: Protocol,
    skeleton: Skeleton | None,
) -> ItemMetrics:
    """Every metric that is a weighted mean over items or joints.

    Args:
        samples: ``(S, B, J, 3)``, meters.
        point: ``(B, J, 3)``, meters.
        target: ``(B, J, 3)``, meters.
        visible: ``(B, J)`` booleans.
        protocol: Says which joints count and how poses are aligned.
        skeleton: For bones; None for none.

    Returns:
        Metrics by name.
    """
    counted = list(protocol.counted_joints)
    free = [j for j in range(protocol.num_joints) if j != protocol.root]
    truth, scale = target[:, counted], protocol.procrustes == "similarity"
    hypotheses, guess = samples[:, :, counted], point[:, counted]
    distance = mpjpe(hypotheses, truth)
    aligned = pa_mpjpe(hypotheses, truth, scale=scale)
    best = hypotheses.gather(
        0, distance.argmin(0)[None, :, None, None].expand(1, *hypotheses.shape[1:])
    )[0]
    energy = energy_scores(samples, target)
    # Ten hypotheses cannot be had from fewer samples: the row stays empty.
    nothing = torch.full_like(distance[0], torch.nan)
    ten = protocol.num_samples >= 10
    means = {
        "sample_mpjpe": distance[0],
        "sample_pa_mpjpe": aligned[0],
        "best10_mpjpe": best_of(distance, 10) if ten else nothing,
        "best10_pa_mpjpe": best_of(aligned, 10) if ten else nothing,
        "best_mpjpe": best_of(distance, protocol.num_samples),
        "best_pa_mpjpe": best_of(aligned, protocol.num_samples),
        "point_n_mpjpe": n_mpjpe(guess, truth),
        "energy_joint": energy.joints[:, counted].mean(-1),
        "energy_pose": energy.pose,
    }
    for name, pose in (
        ("point", guess),
        ("mean", hypotheses.mean(0)),
        ("median", coordinate_median(hypotheses)),
        ("geometric", geometric_median(hypotheses)),
    ):
        means[f"{name}_mpjpe"] = mpjpe(pose, truth)
        means[f"{name}_pa_mpjpe"] = pa_mpjpe(pose, truth, scale=scale)
    per_axis = crps(hypotheses, truth).mean(1)
    means |= {f"crps_{axis}": per_axis[:, i] for i, axis in enumerate("xyz")}
    if skeleton is not None:
        bones, pairs = _bones(protocol, skeleton)
        means["bone_symmetry"] = bone_symmetry(point, pairs)
        means["bone_variation"] = bone_variation(samples, bones)
    means = {name: _MM_PER_METER * value for name, value in means.items()}
    limit = protocol.pck_threshold / _MM_PER_METER
    for name, pose in (("point", guess), ("best", best)):
        means[f"{name}_pck"] = pck(pose, truth, threshold=limit)
        means[f"{name}_auc"] = auc(pose, truth)
        means[f"{name}_cps"] = cps(procrustes(pose, truth, scale=scale), truth)
    one = torch.ones_like(distance[0])
    table = {name: (value, one) for name, value in means.items()}
    spreads = _MM_PER_METER * joint_spread(samples)
    spread, seen = spreads[:, free], visible[:, free]
    for name, mask in (("spread_seen", seen), ("spread_hidden", ~seen)):
        table[name] = ((spread * mask).sum(-1), mask.sum(-1).to(one.dtype))
    joints = {
        "error": _MM_PER_METER * joint_errors(point, target),
        "spread": spreads,
        "energy": _MM_PER_METER * energy.joints,
    }
    return ItemMetrics(table, joints)


def curve(samples: Tensor, target: Tensor, protocol: Protocol) -> tuple[list[int], Tensor]:
    """Expected MPJPE of the best of m, mm, for several m.

    Args:
        samples: ``(S, B, J, 3)``, meters.
        target: ``(B, J, 3)``, meters.
        protocol: Says which joints count.

    Returns:
        The values of m and errors ``(K, B)``.
    """
    counted = list(protocol.counted_joints)
    return best_of_curve(_MM_PER_METER * mpjpe(samples[:, :, counted], target[:, counted]))


def _bones(protocol: Protocol, skeleton: Skeleton) -> tuple[list[Bone], list[tuple[Bone, Bone]]]:
    """Bones, and mirrored pairs, of which both ends are evaluated, by evaluated index."""
    place = {joint: i for i, joint in enumerate(evaluated_joints(protocol, skeleton))}

    def moved(bone: Bone) -> Bone | None:
        child, parent = (place.get(joint) for joint in bone)
        return None if child is None or parent is None else (child, parent)

    bones = [bone for bone in map(moved, skeleton.bones) if bone is not None]
    pairs = []
    for left, right in bone_pairs(skeleton):
        a, b = moved(left), moved(right)
        if a is not None and b is not None:
            pairs.append((a, b))
    return bones, pairs


def reprojection(
    samples: Tensor, p2d: Tensor, focal: float | Tensor, visible: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean 2D distance of all hypotheses on visible joints, and which items could be placed.

    Args:
        samples: ``(S, B, J, 3)``, meters.
        p2d: ``(B, J, 2)``, relative to the principal point.
        focal: One number or ``(B,)``, same unit.
        visible: ``(B, J)`` booleans.

    Returns:
        Errors in the unit of ``p2d`` and weights, ``(B,)`` each; both 0 for items without two
        distinct image points.
    """
    length = torch.as_tensor(focal, dtype=samples.dtype, device=samples.device)
    length = length.expand(samples.shape[1])[:, None, None]
    # Only two distinct image points fix a translation; other poses are left out, not guessed.
    seen = visible[..., None]
    extent = torch.where(seen, p2d, -torch.inf).amax(-2) - torch.where(seen, p2d, torch.inf).amin(
        -2
    )
    placed = (extent > 0).any(-1)
    samples, p2d, length, seen = samples[:, placed], p2d[placed], length[placed], visible[placed]
    shift = root_translation(samples, p2d, focal=length, visible=seen)
    image = project(samples + shift[..., None, :], focal=length)
    distance = torch.linalg.vector_norm(image - p2d, dim=-1)
    error = torch.zeros(len(placed), dtype=samples.dtype, device=samples.device)
    error[placed] = (torch.where(seen, distance, 0).sum(-1) / seen.sum(-1)).mean(0)
    return error, placed.to(samples.dtype)


_ROOT_TOLERANCE = 1e-5
#: Metres; squares of more are sums that single precision does not hold.
_FAR = 1e7
_SUBSETS = ("all", "seen", "hidden")


class Evaluator:
    """Streaming evaluation of distributions over 3D poses, in constant memory, on any device.

    Every item's numbers depend on that item alone, so batches may be cut anywhere.

    Args:
        protocol: What is measured; every batch is checked against it.
        skeleton: Joint set of the poses, for the lengths of bones; without it there are none. Where
            the protocol names joints, poses hold these of the set (the root first, if it is not
            counted).

    Example:
        >>> import torch
        >>> protocol = Protocol(
        ...     "toy", "test", keypoints="exact", num_samples=20, samples="distribution"
        ... )
        >>> evaluator = Evaluator(protocol)
        >>> target = torch.randn(8, 17, 3)
        >>> target[:, 0] = 0
        >>> samples = target + 0.01 * torch.randn(20, 8, 17, 3)
        >>> samples[:, :, 0] = 0
        >>> evaluator.update(samples, target, target, torch.ones(8, 17, dtype=torch.bool))
        >>> evaluator.report().items.point_mpjpe
        0.0
    """

    def __init__(self, protocol: Protocol, *, skeleton: Skeleton | None = None) -> None:
        self.protocol = protocol
        self.skeleton = skeleton
        self._total = _Totals(protocol)
        self._groups: dict[str, _Totals] = {}
        self._style: tuple[bool, bool] | None = None
        self._pit = PITHistogram(protocol.num_joints, seed=protocol.seed)
        self._sharpness = SpreadErrorHistogram()
        self._motion = MotionErrors(step=protocol.frame_stride)
        self._counts: list[int] = []
        self._curve = torch.zeros(0, dtype=torch.float64)
        self._joints: dict[str, Tensor] = {}
        self._kinds: set[str] = set()

    @torch.no_grad()
    def update(
        self,
        samples: Tensor,
        point: Tensor,
        target: Tensor,
        visible: Tensor,
        *,
        p2d: Tensor | None = None,
        focal: float | Tensor | None = None,
        group: Sequence[str] | None = None,
        sequence: Sequence[str] | None = None,
        frame: Tensor | None = None,
        log_prob: Tensor | None = None,
        log_prob_kind: str = "exact",
    ) -> None:
        """Add a batch of items.

        Args:
            samples: Independent draws of each item's distribution, ``(S, B, J, 3)``, meters,
                root-relative. None of them may be the mode or the point estimate.
            point: Deterministic estimate, ``(B, J, 3)``, meters, root-relative.
            target: True poses, ``(B, J, 3)``, meters, root-relative.
            visible: Joints whose 2D the distribution was given, ``(B, J)`` booleans.
            p2d: The 2D pose as given to the distribution, ``(B, J, 2)``, relative to the principal
                point; hidden joints may hold anything. None leaves the reprojection out.
            focal: Focal length in the unit of ``p2d``, one number or ``(B,)``.
            group: A label per item, for the mean over actions (or what the protocol groups by).
            sequence: Label of each item's sequence, for errors over time.
            frame: Frame number of each item in its sequence, ``(B,)`` integers.
            log_prob: Log-density of the true poses, ``(B,)``, nats, meters.
            log_prob_kind: What that is, as the distribution says; see `Report.density`.

        Raises:
            InputError: If shapes disagree with the protocol or each other, a pose is not
                root-relative, a value is not finite (the message names the batch element), or only
                some of the batches have ``p2d`` or ``group``.
        """
        samples = samples if samples.dtype == torch.float64 else samples.float()
        point, target = point.to(samples), target.to(samples)
        p2d = None if p2d is None else p2d.to(samples)
        visible = visible.to(samples.device, torch.bool)
        self._check(samples, point, target, visible, p2d, focal, group)
        table_of, joints = per_item_metrics(
            samples, point, target, visible, self.protocol, self.skeleton
        )
        for name, value in joints.items():
            total = value.sum(0).cpu().double()
            self._joints[name] = self._joints.get(name, 0) + total
        if p2d is not None and focal is not None:
            table_of["reprojection"] = reprojection(samples, p2d, focal, visible)
        if log_prob is not None:
            value = nll_per_coordinate(log_prob.to(samples), self.protocol.num_joints)
            table_of["nll"] = (value, torch.ones_like(value))
            self._kinds.add(log_prob_kind)
        self._add_shapes(samples, target)
        if sequence is not None and frame is not None:
            chosen = list(self.protocol.counted_joints)
            self._motion.update(point[:, chosen], target[:, chosen], sequence, frame)
        table = torch.stack([torch.stack(pair) for pair in table_of.values()]).cpu().double()
        hits, seen = calibration_hits(samples, target).cpu(), visible.cpu()
        self._total.add(list(table_of), table, hits, seen)
        for label in sorted(set(group or ())):
            rows = torch.tensor([i for i, other in enumerate(group or ()) if other == label])
            totals = self._groups.setdefault(label, _Totals(self.protocol))
            totals.add(list(table_of), table[..., rows], hits[:, rows], seen[rows])

    def report(self) -> Report:
        """Sum up everything added so far.

        Raises:
            InputError: If nothing was added.
        """
        if self._total.items == 0:
            raise InputError("expected at least one item before a report, got none")
        by_action = {label: self._groups[label] for label in sorted(self._groups)}
        return Report(
            protocol=self.protocol,
            num_items=self._total.items,
            items=self._items(),
            actions=_macro(list(by_action.values())) if by_action else None,
            by_action={label: totals.metrics() for label, totals in by_action.items()},
            action_items={label: totals.items for label, totals in by_action.items()},
            calibration={name: line.compute() for name, line in self._total.curves.items()},
            best_of={
                m: value / self._total.items
                for m, value in zip(self._counts, self._curve.tolist(), strict=True)
            },
            pit=self._pit.compute(),
            coverage=self._pit.coverage(),
            sharpness=self._sharpness.compute(),
            joints=self._joint_table(),
            density=", ".join(sorted(self._kinds)) or None,
        )

    def _joint_table(self) -> JointTable:
        protocol, skeleton = self.protocol, self.skeleton
        names = [str(joint) for joint in range(protocol.num_joints)]
        if skeleton is not None:
            names = [skeleton.joint_names[j] for j in evaluated_joints(protocol, skeleton)]
        means = {name: total / self._total.items for name, total in self._joints.items()}
        return JointTable(tuple(names), **means)

    def _items(self) -> Metrics:
        sharpness, motion = self._sharpness.compute(), self._motion.compute()
        return replace(
            self._total.metrics(),
            spearman=sharpness.spearman,
            ause=sharpness.ause,
            velocity=_MM_PER_METER * motion.velocity,
            acceleration=_MM_PER_METER * motion.acceleration,
        )

    def merge(self, other: Evaluator) -> None:
        """Add what another process evaluated under the same protocol.

        Raises:
            InputError: If the protocols differ, or one has 2D or labels and the other has not.
        """
        if other.protocol != self.protocol:
            raise InputError("expected an evaluation under the same protocol to merge")
        if None not in (self._style, other._style) and self._style != other._style:
            raise InputError("expected p2d and group in every batch or in none, got a mixture")
        self._style = self._style or other._style
        self._total.merge(other._total)
        for label, totals in other._groups.items():
            self._groups.setdefault(label, _Totals(self.protocol)).merge(totals)
        self._pit.merge(other._pit)
        self._sharpness.merge(other._sharpness)
        self._motion.merge(other._motion)
        self._kinds |= other._kinds
        for name, total in other._joints.items():
            self._joints[name] = self._joints.get(name, 0) + total
        if len(other._curve):
            self._counts = other._counts
            self._curve = other._curve + (self._curve if len(self._curve) else 0)

    def _add_shapes(self, samples: Tensor, target: Tensor) -> None:
        """Add to what is no mean over items: PIT, sharpness, the curve of the best of m."""
        free = [j for j in range(self.protocol.num_joints) if j != self.protocol.root]
        self._pit.update(samples, target)
        error = joint_errors(samples.mean(0), target)[:, free]
        self._sharpness.update(joint_spread(samples)[:, free], error)
        self._counts, values = curve(samples, target, self.protocol)
        total = values.sum(1).cpu().double()
        self._curve = self._curve + total if len(self._curve) else total

    def _check(
        self,
        samples: Tensor,
        point: Tensor,
        target: Tensor,
        visible: Tensor,
        p2d: Tensor | None,
        focal: float | Tensor | None,
        group: Sequence[str] | None,
    ) -> None:
        protocol = self.protocol
        check_samples(samples, target, visible)
        for axis, name, want in ((0, "samples", "num_samples"), (2, "joints", "num_joints")):
            if samples.shape[axis] != getattr(protocol, want):
                raise InputError(
                    f"expected {getattr(protocol, want)} {name} (axis {axis} of samples) as the "
                    f"protocol says, got {samples.shape[axis]}"
                )
        batch, joints = target.shape[:2]
        if point.shape != target.shape:
            raise InputError(
                f"expected a point estimate of shape (B, J, 3) = {tuple(target.shape)}, "
                f"got {tuple(point.shape)}"
            )
        if p2d is not None and p2d.shape != (batch, joints, 2):
            raise InputError(
                f"expected p2d of shape (B, J, 2) = {(batch, joints, 2)}, got {tuple(p2d.shape)}"
            )
        if (p2d is None) != (focal is None):
            raise InputError("expected p2d and focal together, got only one of them")
        if group is not None and len(group) != batch:
            raise InputError(f"expected {batch} action labels (one per item), got {len(group)}")
        style = (p2d is not None, group is not None)
        if self._style not in (None, style):
            raise InputError("expected p2d and group in every batch or in none, got a mixture")
        self._check_hidden(visible)
        for name, poses in (("samples", samples), ("point", point), ("target", target)):
            self._check_pose(name, poses)
        if p2d is not None:
            self._refuse(~p2d.isfinite().all(-1) & visible, "p2d", "a non-finite value")
        self._style = style

    def _check_hidden(self, visible: Tensor) -> None:
        want = self.protocol.hidden_joints
        # Joints that are not evaluated may be among the hidden ones.
        if want is None or self.protocol.joints:
            return
        wrong = ((~visible).sum(-1) != want).nonzero()
        if len(wrong):
            item = int(wrong[0, 0])
            raise InputError(
                f"expected {want} hidden joints per pose as the protocol says, got "
                f"{int((~visible[item]).sum())} in batch element {item}"
            )

    def _check_pose(self, name: str, poses: Tensor) -> None:
        self._refuse(~poses.isfinite().all(-1), name, "a non-finite value")
        self._refuse((poses.abs() > _FAR).any(-1), name, f"a number beyond {_FAR:g} m")
        moved = torch.zeros(poses.shape[:-1], dtype=torch.bool, device=poses.device)
        root = self.protocol.root
        moved[..., root] = (poses[..., root, :].abs() > _ROOT_TOLERANCE).any(-1)
        self._refuse(moved, name, "a root away from zero (poses must be root-relative)")

    def _refuse(self, bad: Tensor, name: str, problem: str) -> None:
        if not bool(bad.any()):
            return
        *sample, item, joint = bad.nonzero()[0].tolist()
        where = f"sample {sample[0]}, joint {joint}" if sample else f"joint {joint}"
        raise InputError(
            f"{name}: {problem} in batch element {item} "
            f"({where}; item {self._total.items + item} of this evaluation)"
        )


class _Totals:
    """Running sums of one group of items."""

    def __init__(self, protocol: Protocol) -> None:
        self.items = 0
        self.sums: dict[str, Tensor] = {}
        self.curves = {
            name: CalibrationCurve(protocol.num_joints, fixed_joints=(protocol.root,))
            for name in _SUBSETS
        }

    def add(self, names: list[str], table: Tensor, hits: Tensor, seen: Tensor) -> None:
        """Add ``(K, 2, B)`` sums and weights, ``(21, B, J)`` hits and ``(B, J)`` visibility."""
        self.items += table.shape[-1]
        for name, pair in zip(names, table.sum(-1), strict=True):
            self.sums[name] = self.sums.get(name, torch.zeros_like(pair)) + pair
        for name, mask in zip(_SUBSETS, (None, seen, ~seen), strict=True):
            self.curves[name].add_hits(hits, mask)

    def merge(self, other: _Totals) -> None:
        self.items += other.items
        for name, pair in other.sums.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(pair)) + pair
        for name, line in other.curves.items():
            self.curves[name].merge(line)

    def metrics(self) -> Metrics:
        means = {name: (total / weight).item() for name, (total, weight) in self.sums.items()}
        return Metrics.build(means, {name: c.compute() for name, c in self.curves.items()})


def _macro(groups: list[_Totals]) -> Metrics:
    """Mean over groups of each metric, over those groups that have it."""
    means = {}
    for name in groups[0].sums:
        ratios = torch.stack([group.sums[name][0] / group.sums[name][1] for group in groups])
        means[name] = ratios.nanmean().item()
    curves = {
        name: CalibrationCurve.balanced(group.curves[name] for group in groups) for name in _SUBSETS
    }
    return Metrics.build(means, curves)
