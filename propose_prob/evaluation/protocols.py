"""An evaluation that says what it measured: a protocol and a streaming evaluator.

A minimum over hypotheses never stands alone here: every report also holds the deterministic
estimate, the mean of samples, one random sample, energy scores, calibration errors, reprojection
and spread, under the protocol that fixes everything a number depends on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from propose_prob.evaluation.calibration import CalibrationCurve, calibration_hits
from propose_prob.evaluation.errors import best_of, mpjpe, pa_mpjpe
from propose_prob.evaluation.reports import Metrics, Protocol, Report
from propose_prob.evaluation.scores import check_samples, energy_scores, joint_spread
from propose_prob.pose.camera import project, root_translation

__all__ = ["Evaluator", "Metrics", "Protocol", "Report"]

_MM_PER_METRE = 1000.0
_ROOT_TOLERANCE = 1e-5
_SUBSETS = ("all", "seen", "hidden")


class Evaluator:
    """Streaming evaluation of laws over 3D poses, in constant memory, on any device.

    Every item's numbers depend on that item alone, so batches may be cut anywhere.

    Args:
        protocol: What is measured; every batch is checked against it.

    Example:
        >>> import torch
        >>> protocol = Protocol("toy", "test", keypoints="exact", num_samples=20, samples="law")
        >>> evaluator = Evaluator(protocol)
        >>> target = torch.randn(8, 17, 3)
        >>> target[:, 0] = 0
        >>> samples = target + 0.01 * torch.randn(20, 8, 17, 3)
        >>> samples[:, :, 0] = 0
        >>> evaluator.update(samples, target, target, torch.ones(8, 17, dtype=torch.bool))
        >>> evaluator.report().items.point_mpjpe
        0.0
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._total = _Totals(protocol)
        self._groups: dict[str, _Totals] = {}
        self._style: tuple[bool, bool] | None = None

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
    ) -> None:
        """Add a batch of items.

        Args:
            samples: Independent draws of each item's law, ``(S, B, J, 3)``, metres, root-relative.
                None of them may be the mode or the point estimate.
            point: Deterministic estimate, ``(B, J, 3)``, metres, root-relative.
            target: True poses, ``(B, J, 3)``, metres, root-relative.
            visible: Joints whose 2D the law was given, ``(B, J)`` booleans.
            p2d: The 2D pose as given to the law, ``(B, J, 2)``, relative to the principal point;
                hidden joints may hold anything. None leaves the reprojection out.
            focal: Focal length in the unit of ``p2d``, one number or ``(B,)``.
            group: An action label per item, for the mean over actions.

        Raises:
            ValueError: If shapes disagree with the protocol or each other, a pose is not
                root-relative, a value is not finite (the message names the batch element), or only
                some of the batches have ``p2d`` or ``group``.
        """
        samples = samples if samples.dtype == torch.float64 else samples.float()
        point, target = point.to(samples), target.to(samples)
        p2d = None if p2d is None else p2d.to(samples)
        visible = visible.to(samples.device, torch.bool)
        self._check(samples, point, target, visible, p2d, focal, group)
        columns = self._columns(samples, point, target, visible)
        if p2d is not None and focal is not None:
            columns["reprojection"] = _reprojection(samples, p2d, focal, visible)
        table = torch.stack([torch.stack(pair) for pair in columns.values()]).cpu().double()
        hits, seen = calibration_hits(samples, target).cpu(), visible.cpu()
        self._total.add(list(columns), table, hits, seen)
        for label in sorted(set(group or ())):
            rows = torch.tensor([i for i, other in enumerate(group or ()) if other == label])
            totals = self._groups.setdefault(label, _Totals(self.protocol))
            totals.add(list(columns), table[..., rows], hits[:, rows], seen[rows])

    def report(self) -> Report:
        """Sum up everything added so far.

        Raises:
            ValueError: If nothing was added.
        """
        if self._total.items == 0:
            raise ValueError("expected at least one item before a report, got none")
        by_action = {label: self._groups[label] for label in sorted(self._groups)}
        return Report(
            protocol=self.protocol,
            num_items=self._total.items,
            items=self._total.metrics(),
            actions=_macro(list(by_action.values())) if by_action else None,
            by_action={label: totals.metrics() for label, totals in by_action.items()},
            action_items={label: totals.items for label, totals in by_action.items()},
            calibration={name: curve.result() for name, curve in self._total.curves.items()},
        )

    def _columns(
        self, samples: Tensor, point: Tensor, target: Tensor, visible: Tensor
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Per-item sums and weights of every metric that is a weighted mean, in mm."""
        protocol = self.protocol
        counted = list(protocol.counted_joints)
        free = [j for j in range(protocol.num_joints) if j != protocol.root]
        truth, scale = target[:, counted], protocol.procrustes == "similarity"
        hypotheses = samples[:, :, counted]
        distance = mpjpe(hypotheses, truth)
        aligned = pa_mpjpe(hypotheses, truth, scale=scale)
        centre = hypotheses.mean(0)
        energy = energy_scores(samples, target)
        # Ten hypotheses cannot be had from fewer samples: the row stays empty.
        nothing = torch.full_like(distance[0], torch.nan)
        ten = protocol.num_samples >= 10
        means = {
            "point_mpjpe": mpjpe(point[:, counted], truth),
            "point_pa_mpjpe": pa_mpjpe(point[:, counted], truth, scale=scale),
            "mean_mpjpe": mpjpe(centre, truth),
            "mean_pa_mpjpe": pa_mpjpe(centre, truth, scale=scale),
            "sample_mpjpe": distance[0],
            "sample_pa_mpjpe": aligned[0],
            "best10_mpjpe": best_of(distance, 10) if ten else nothing,
            "best10_pa_mpjpe": best_of(aligned, 10) if ten else nothing,
            "best_mpjpe": best_of(distance, protocol.num_samples),
            "best_pa_mpjpe": best_of(aligned, protocol.num_samples),
            "energy_joint": energy.joints[:, counted].mean(-1),
            "energy_pose": energy.pose,
        }
        one = torch.ones_like(distance[0])
        columns = {name: (_MM_PER_METRE * value, one) for name, value in means.items()}
        spread, seen = _MM_PER_METRE * joint_spread(samples)[:, free], visible[:, free]
        for name, mask in (("spread_seen", seen), ("spread_hidden", ~seen)):
            columns[name] = ((spread * mask).sum(-1), mask.sum(-1).to(one.dtype))
        return columns

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
                raise ValueError(
                    f"expected {getattr(protocol, want)} {name} (axis {axis} of samples) as the "
                    f"protocol says, got {samples.shape[axis]}"
                )
        batch, joints = target.shape[:2]
        if point.shape != target.shape:
            raise ValueError(
                f"expected a point estimate of shape (B, J, 3) = {tuple(target.shape)}, "
                f"got {tuple(point.shape)}"
            )
        if p2d is not None and p2d.shape != (batch, joints, 2):
            raise ValueError(
                f"expected p2d of shape (B, J, 2) = {(batch, joints, 2)}, got {tuple(p2d.shape)}"
            )
        if (p2d is None) != (focal is None):
            raise ValueError("expected p2d and focal together, got only one of them")
        if group is not None and len(group) != batch:
            raise ValueError(f"expected {batch} action labels (one per item), got {len(group)}")
        style = (p2d is not None, group is not None)
        if self._style not in (None, style):
            raise ValueError("expected p2d and group in every batch or in none, got a mixture")
        self._check_hidden(visible)
        for name, poses in (("samples", samples), ("point", point), ("target", target)):
            self._check_pose(name, poses)
        if p2d is not None:
            self._refuse(~p2d.isfinite().all(-1) & visible, "p2d", "a non-finite value")
        self._style = style

    def _check_hidden(self, visible: Tensor) -> None:
        want = self.protocol.hidden_joints
        if want is None:
            return
        wrong = ((~visible).sum(-1) != want).nonzero()
        if len(wrong):
            item = int(wrong[0, 0])
            raise ValueError(
                f"expected {want} hidden joints per pose as the protocol says, got "
                f"{int((~visible[item]).sum())} in batch element {item}"
            )

    def _check_pose(self, name: str, poses: Tensor) -> None:
        self._refuse(~poses.isfinite().all(-1), name, "a non-finite value")
        moved = torch.zeros(poses.shape[:-1], dtype=torch.bool, device=poses.device)
        root = self.protocol.root
        moved[..., root] = (poses[..., root, :].abs() > _ROOT_TOLERANCE).any(-1)
        self._refuse(moved, name, "a root away from zero (poses must be root-relative)")

    def _refuse(self, bad: Tensor, name: str, problem: str) -> None:
        if not bool(bad.any()):
            return
        *sample, item, joint = bad.nonzero()[0].tolist()
        where = f"sample {sample[0]}, joint {joint}" if sample else f"joint {joint}"
        raise ValueError(
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

    def metrics(self) -> Metrics:
        means = {name: (total / weight).item() for name, (total, weight) in self.sums.items()}
        return Metrics.build(means, {name: c.result() for name, c in self.curves.items()})


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


def _reprojection(
    samples: Tensor, p2d: Tensor, focal: float | Tensor, visible: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean 2D distance of all hypotheses on visible joints, and which items could be placed."""
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
