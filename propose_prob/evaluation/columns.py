"""What an evaluation computes for each item: sums and weights, on any device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from propose_prob.evaluation.bones import Bone, bone_pairs, bone_symmetry, bone_variation
from propose_prob.evaluation.errors import (
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
from propose_prob.evaluation.estimates import coordinate_median, geometric_median
from propose_prob.evaluation.protocol import Protocol
from propose_prob.evaluation.scores import crps, energy_scores, joint_spread
from propose_prob.pose.align import procrustes
from propose_prob.pose.camera import project, root_translation
from propose_prob.pose.skeleton import Skeleton

__all__ = ["Columns", "columns", "curve", "evaluated_joints", "reprojection"]

_MM_PER_METRE = 1000.0


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


class Columns(NamedTuple):
    """What is added up.

    Attributes:
        items: Per-item sums and weights, ``(B,)`` each, by metric; lengths in mm.
        joints: Per-joint error of the point estimate, spread and energy score, ``(B, J)`` each, mm.
    """

    items: dict[str, tuple[Tensor, Tensor]]
    joints: dict[str, Tensor]


@torch.no_grad()
def columns(
    samples: Tensor,
    point: Tensor,
    target: Tensor,
    visible: Tensor,
    protocol: Protocol,
    skeleton: Skeleton | None,
) -> Columns:
    """Every metric that is a weighted mean over items or joints.

    Args:
        samples: ``(S, B, J, 3)``, metres.
        point: ``(B, J, 3)``, metres.
        target: ``(B, J, 3)``, metres.
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
    means = {name: _MM_PER_METRE * value for name, value in means.items()}
    limit = protocol.pck_threshold / _MM_PER_METRE
    for name, pose in (("point", guess), ("best", best)):
        means[f"{name}_pck"] = pck(pose, truth, threshold=limit)
        means[f"{name}_auc"] = auc(pose, truth)
        means[f"{name}_cps"] = cps(procrustes(pose, truth, scale=scale), truth)
    one = torch.ones_like(distance[0])
    table = {name: (value, one) for name, value in means.items()}
    spreads = _MM_PER_METRE * joint_spread(samples)
    spread, seen = spreads[:, free], visible[:, free]
    for name, mask in (("spread_seen", seen), ("spread_hidden", ~seen)):
        table[name] = ((spread * mask).sum(-1), mask.sum(-1).to(one.dtype))
    joints = {
        "error": _MM_PER_METRE * joint_errors(point, target),
        "spread": spreads,
        "energy": _MM_PER_METRE * energy.joints,
    }
    return Columns(table, joints)


def curve(samples: Tensor, target: Tensor, protocol: Protocol) -> tuple[list[int], Tensor]:
    """Expected MPJPE of the best of m, mm, for several m.

    Args:
        samples: ``(S, B, J, 3)``, metres.
        target: ``(B, J, 3)``, metres.
        protocol: Says which joints count.

    Returns:
        The values of m and errors ``(K, B)``.
    """
    counted = list(protocol.counted_joints)
    return best_of_curve(_MM_PER_METRE * mpjpe(samples[:, :, counted], target[:, counted]))


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
        samples: ``(S, B, J, 3)``, metres.
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
