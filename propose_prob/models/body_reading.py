"""What a recalibration of a body model reads off the evidence and the model's own estimate."""

from __future__ import annotations

import torch
from torch import Tensor

from ..bodies import Body
from ..distributions import BaseRecalibration, PoseFlowDistribution, place_pose
from ..pose.normalise import visible_joints
from ..pose.rotations import matrix_from_6d

__all__ = ["told_of_body"]


@torch.no_grad()
def told_of_body(
    calibration: BaseRecalibration,
    body: Body,
    law: PoseFlowDistribution,
    shape: Tensor,
    p2d: Tensor,
    confidence: Tensor | None,
    *,
    focal: Tensor | float | None,
    center: Tensor | tuple[float, float],
) -> Tensor:
    """Features of a `BaseRecalibration` for each input, `(..., F)`, without gradient.

    Args:
        calibration: Says which features.
        body: Whose joints are compared with the keypoints.
        law: Law of the rotations as trained.
        shape: Shape coefficients `(..., S)` of the body; of another, they leave it average.
        p2d: Keypoints `(..., J, 2)` as the model was given them.
        confidence: As the model was given it.
        focal: As the model was given it.
        center: As the model was given it.
    """
    visible = visible_joints(p2d, confidence)
    theta = matrix_from_6d(law.centre)
    joints = body.regress(body(theta, shape if shape.shape[-1] == body.num_shape else None))
    residual, _ = place_pose(joints - joints[..., :1, :], p2d, visible, focal, center)
    return calibration.features(law, visible, focal is not None, residual)
