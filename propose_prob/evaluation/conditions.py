"""Convert dataset batches to model inputs and targets under a condition."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..datasets.clips import EvaluationBatch
from ..errors import InputError
from ..geometry.normalization import visible_joints
from ..geometry.skeletons import Skeleton, convert_skeleton

__all__ = ["Condition", "Prepared", "prepare"]


@dataclass(frozen=True)
class Condition:
    """What a model is told of the evidence.

    Attributes:
        intrinsics: Whether it is told focal length and principal point.
        hidden: Random joints hidden in each pose.
        seed: Chooses these joints, from sequence and frame: batches and strides do not matter.
        min_joints: Items of which fewer joints were seen are left out.

    Example:
        >>> Condition(intrinsics="known", hidden=4).min_joints
        2
    """

    intrinsics: Literal["known", "unknown"] = "unknown"
    hidden: int = 0
    seed: int = 0
    min_joints: int = 2

    def describe(self) -> str:
        """In a few words."""
        hidden = f", {self.hidden} hidden" if self.hidden else ""
        return f"intrinsics {self.intrinsics}{hidden}"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch in a model's joint set, invalid items left out.

    Attributes:
        p2d: Keypoints `(B, J, 2)`, pixels; NaN where hidden or missing.
        confidence: `(B, J)`; 0 there.
        visible: `(B, J)` booleans.
        target: True joints relative to the root, `(B, J, 3)`, meters; NaN where unknown.
        told_focal: Focal length `(B,)` as the model is told it; None for unknown.
        told_center: Principal point `(B, 2)`, likewise.
        focal: True focal length `(B,)`, pixels, for reprojection; None where the set has none.
        center: True principal point `(B, 2)`, pixels.
        action: Action labels, `B`.
        sequence: Sequence labels, `B`.
        frame: Frame numbers `(B,)`.

    Example:
        >>> from propose_prob.datasets import load_cmu17
        >>> from propose_prob.evaluation import CMU17Set
        >>> data = CMU17Set(load_cmu17("val"), stride=1500)
        >>> batch = next(data.batches(8))
        >>> item = prepare(batch, data.skeleton, data.skeleton, Condition(hidden=4))
        >>> len(item), item.visible.sum(-1).tolist(), item.told_focal
        (8, [13, 13, 13, 13, 13, 13, 13, 13], None)
    """

    p2d: Tensor
    confidence: Tensor
    visible: Tensor
    target: Tensor
    told_focal: Tensor | None
    told_center: Tensor | tuple[float, float]
    focal: Tensor | None
    center: Tensor | None
    action: list[str]
    sequence: list[str]
    frame: Tensor

    def __len__(self) -> int:
        return len(self.p2d)


def prepare(
    batch: EvaluationBatch,
    source: Skeleton,
    skeleton: Skeleton,
    condition: Condition,
    *,
    device: torch.device | str = "cpu",
) -> Prepared:
    """Leave invalid items out, convert joints, make poses relative to the root, hide joints.

    Args:
        batch: As a reader gave it.
        source: Its joint set.
        skeleton: The model's joint set; joints without a counterpart are missing.
        condition: What the model is told.
        device: Where to put the tensors.

    Raises:
        InputError: If a valid item's root is unknown, or the model should be told intrinsics that
            the set does not have.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set
        >>> data = CMU17Set(propose_prob.datasets.load_cmu17("val"), stride=1500)
        >>> told, batch = Condition(intrinsics="known"), next(data.batches(8))
        >>> item = prepare(batch, data.skeleton, data.skeleton, told)
        >>> model = propose_prob.load("prohmr-lifting-cmu17")
        >>> distribution = model.conditional(
        ...     item.p2d, item.confidence, focal=item.told_focal, center=item.told_center
        ... )
        >>> bool((distribution.point_estimate - item.target).norm(dim=-1).mean() < 0.05)
        True
    """
    batch = batch.select(batch.valid)
    p2d, confidence = convert_skeleton(batch.p2d, source, skeleton, confidence=batch.confidence)
    enough = visible_joints(p2d, confidence).sum(-1) >= condition.min_joints
    batch, p2d, confidence = batch.select(enough), p2d[enough], confidence[enough]
    p3d, _ = convert_skeleton(batch.p3d, source, skeleton)
    target = p3d - p3d[:, skeleton.root : skeleton.root + 1]
    if not bool(target[:, skeleton.root].isfinite().all()):
        item = int((~target[:, skeleton.root].isfinite().all(-1)).nonzero()[0])
        raise InputError(
            f"expected a true {skeleton.joint_names[skeleton.root]} of every valid item, got none "
            f"of {batch.sequence[item]}, frame {int(batch.frame[item])}"
        )
    told = condition.intrinsics == "known"
    if told and batch.focal is None:
        raise InputError("expected a data set with intrinsics to tell the model, got one without")
    visible = visible_joints(p2d, confidence) & ~_hidden(batch, condition, skeleton.num_joints)
    center = batch.center
    if center is None and batch.focal is not None:
        center = batch.p2d.new_zeros(len(batch), 2)
    p2d = torch.where(visible[..., None], p2d, torch.nan)
    confidence = torch.where(visible, confidence, 0)
    focal = None if batch.focal is None else batch.focal.to(device)
    center = None if center is None else center.to(device)
    return Prepared(
        p2d=p2d.to(device),
        confidence=confidence.to(device),
        visible=visible.to(device),
        target=target.to(device),
        told_focal=focal if told else None,
        told_center=center if told and center is not None else (0.0, 0.0),
        focal=focal,
        center=center,
        action=batch.action,
        sequence=batch.sequence,
        frame=batch.frame,
    )


def _hidden(batch: EvaluationBatch, condition: Condition, joints: int) -> Tensor:
    hidden = torch.zeros(len(batch), joints, dtype=torch.bool, device=batch.p2d.device)
    if condition.hidden == 0:
        return hidden
    generator = torch.Generator()
    for row, (sequence, frame) in enumerate(zip(batch.sequence, batch.frame.tolist(), strict=True)):
        # Seeds that differ in few bits give similar first draws; a checksum spreads them.
        name = f"{condition.seed} {sequence} {frame}".encode()
        order = torch.randperm(joints, generator=generator.manual_seed(zlib.crc32(name)))
        hidden[row, order[: condition.hidden]] = True
    return hidden
