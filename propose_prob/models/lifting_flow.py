"""ProHMR's lifting variant: 2D keypoints to an exact distribution over 3D joints."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..conditional import PAGD, ConditionalFlow, StandardBase, Standardizer
from ..conditional.flows import ComposedTransform, glow_stack
from ..configuration import count, given, number, share
from ..distributions import FlowDistribution, PoseFlowDistribution, RecalibratedDistribution
from ..distributions.flow import VectorToJoints
from ..distributions.recalibration import default_recalibration
from ..errors import InputError
from ..geometry.normalization import as_dtype
from ..nn import ResidualMLP
from .evidence import EVIDENCE_EXTRA, Evidence, keypoint_evidence


@dataclass(frozen=True)
class LiftingConfig:
    """Sizes and variants of the lifting flow.

    Attributes:
        joints: J.
        base: `"pagd"`: mean and spread read off the evidence, so that each input has its own
            entropy (ProPose's base under ProHMR's flow); `"standard"`: N(0, I), the paper's.
        clamp: alpha of eq. 5 of ProPose on the base's mean and log standard deviation.
        coupling: Kind of coupling, see `ConditionalCoupling`; only additive ones (the paper's) have
            a mode in closed form.
        couplings: Number of blocks of ActNorm, LU linear map and coupling.
        flow_width: Hidden size of the coupling networks.
        flow_blocks: Residual blocks of each.
        context: Size of the context that base and flow see.
        width: Hidden size of the context's encoder.
        blocks: Its residual blocks.
        dropout: Its dropout.

    Example:
        >>> LiftingConfig(base="standard", couplings=4).coupling
        'additive'
    """

    joints: int = given(17)
    base: str = "pagd"
    clamp: float = number(4.0, above=0.0)
    coupling: str = "additive"
    couplings: int = count(8)
    flow_width: int = count(256)
    flow_blocks: int = count(1, low=0)
    context: int = count(256)
    width: int = count(512)
    blocks: int = count(2, low=0)
    dropout: float = share(0.1)


class LiftingFlow(nn.Module):
    """One flow on all coordinates of the 3D joints, conditioned on 2D keypoints.

    Source: ProHMR (Kolotouros et al., ICCV 2021), sec. 3.6, with the base of ProPose (eq. 7-8) by
    default.

    Args:
        config: Sizes and variants.

    Raises:
        InputError: If a variant is unknown.

    Example:
        >>> model = LiftingFlow(LiftingConfig(couplings=2, flow_width=16, width=16)).eval()
        >>> distribution = model.conditional(torch.randn(5, 17, 2))
        >>> distribution.sample((3,)).shape, distribution.log_prob(distribution.mode).shape
        (torch.Size([3, 5, 17, 3]), torch.Size([5]))
    """

    def __init__(self, config: LiftingConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or LiftingConfig()
        size = 3 * (config.joints - 1)
        self.encoder = ResidualMLP(
            3 * config.joints + EVIDENCE_EXTRA,
            config.context,
            width=config.width,
            blocks=config.blocks,
            dropout=config.dropout,
        )
        self.calibration = default_recalibration(config.joints)
        self.standardiser = Standardizer(size)
        stack = glow_stack(
            size,
            config.context,
            kind=config.coupling,
            couplings=config.couplings,
            width=config.flow_width,
            blocks=config.flow_blocks,
        )
        self.flow = ConditionalFlow(
            conditional_base(config.base, config.context, size, config.width // 2, config.clamp),
            ComposedTransform([*stack.transforms, self.standardiser]),
        )

    def conditional(
        self,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
        recalibrated: bool = True,
    ) -> PoseFlowDistribution | RecalibratedDistribution:
        """The distribution of the 3D pose given 2D keypoints.

        Args:
            p2d: Keypoints `(..., J, 2)`, any pixel unit, y down. NaN means not seen. Floating-point
                numbers of another type than the weights, and integers, are converted.
            confidence: `(..., J)` in 0..1; 0 means not seen. Left out: all finite joints are seen.
            focal: Focal length in the unit of `p2d`, a number or `(...)`, where it is known.
            center: Principal point in the unit of `p2d`, `(2,)` or `(..., 2)`; used with `focal`.
            recalibrated: Whether what was fitted on held-out data is applied, where the model's
                `calibration` was; otherwise the distribution is as it was trained.

        Returns:
            A distribution with batch shape `(...)` and event shape `(J, 3)`: meters, root-relative,
            camera axes (x right, y down, z forward). Its density is exact, and with additive
            couplings so are `mode` and `entropy`.

        Raises:
            InputError: If a shape is wrong, a confidence is NaN, fewer than two joints are seen, or
                a coordinate is boolean, complex or too large for the weights' type.
        """
        p2d, confidence = as_dtype(p2d, confidence, next(self.parameters()).dtype)
        distribution = self.distribution(
            keypoint_evidence(
                p2d,
                confidence,
                joints=self.config.joints,
                focal=focal,
                center=center,
            )
        )
        if not recalibrated:
            return distribution
        return self.calibration(distribution, p2d, confidence, focal=focal, center=center)

    forward = conditional

    def distribution(self, evidence: Evidence) -> PoseFlowDistribution:
        """The distribution given prepared evidence with features `(..., n)`."""
        rotation = None if evidence.rotation is None else evidence.rotation.mT
        return PoseFlowDistribution(
            self.vector_distribution(evidence.features), VectorToJoints(rotation=rotation)
        )

    def vector_distribution(self, features: Tensor) -> FlowDistribution:
        """The flow over the joints' coordinates `(..., 3 (J - 1))` in the evidence's axes."""
        return self.flow(self.encoder(features))

    @torch.no_grad()
    def fit_standardizer(self, joints: Tensor, features: Tensor) -> None:
        """Sets the coordinates' units, and every ActNorm, from joints `(n, J - 1, 3)`.

        Args:
            joints: Poses without their root, meters, in the evidence's axes.
            features: Their evidence `(n, m)`.
        """
        self.standardiser.fit(joints.flatten(-2))
        self.flow.transform.fit_actnorm(joints.flatten(-2), self.encoder(features))


def conditional_base(
    kind: str, context: int, features: int, width: int, clamp: float
) -> PAGD | StandardBase:
    """The base of an exact flow: `"pagd"` (ProPose, eq. 7-8) or `"standard"` (ProHMR).

    Raises:
        InputError: If `kind` is neither.
    """
    if kind == "pagd":
        return PAGD(ResidualMLP(context, 2 * features, width=width, blocks=1), clamp=clamp)
    if kind == "standard":
        return StandardBase(features)
    raise InputError(f"expected base 'pagd' or 'standard', got {kind!r}")
