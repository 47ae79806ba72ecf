"""ProHMR as a lifter: the law of 3D joints that its law of rotations implies."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from ..bodies import Body, SkeletonBody
from ..distributions import PushforwardDistribution
from ..pose.rotations import matrix_from_6d
from ..pose.skeleton import get_skeleton
from .prohmr import ProHMR


class BodyLifter(nn.Module):
    """Root-relative joints of a body posed by ProHMR, so that it stands beside models of joints.

    Args:
        model: Gives the law of rotations, and the shape.
        body: Body that is posed, `SkeletonBody` by default. The model's shape coefficients are of
            the body that it was trained with; a body with another number of them is left average.
        joint_set: Which joints, one of the body's regressors; its first joint is the root.

    Example:
        >>> import torch
        >>> from propose_prob.models import ProHMRConfig
        >>> lifter = BodyLifter(ProHMR(ProHMRConfig(flow_width=32, width=32)).eval())
        >>> lifter.conditional(torch.randn(5, 17, 2)).sample((2,)).shape
        torch.Size([2, 5, 17, 3])
    """

    def __init__(
        self, model: ProHMR, body: Body | None = None, *, joint_set: str = "h36m_17"
    ) -> None:
        super().__init__()
        self.model = model
        self.body = body or SkeletonBody()
        self.joint_set = joint_set

    def conditional(
        self,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
    ) -> PushforwardDistribution:
        """The law of root-relative joints `(J, 3)`, metres, camera axes; see `ProHMR.conditional`.

        It can be sampled and has a point estimate (the joints of the mode), but no density.
        """
        estimate = self.model.estimate(p2d, confidence, focal=focal, center=center)
        shape = estimate.shape if self.body.num_shape == estimate.shape.shape[-1] else None
        joints = get_skeleton(self.joint_set).num_joints
        return PushforwardDistribution(estimate.law, partial(self._joints, shape), (joints, 3))

    forward = conditional

    def _joints(self, shape: Tensor | None, sixd: Tensor) -> Tensor:
        output = self.body(matrix_from_6d(sixd), shape)
        joints = self.body.regress(output, self.joint_set)
        return joints - joints[..., :1, :]
