"""Regression: one residual network, one Gaussian."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...conditional import ConditionalFlow, HomoscedasticGaussian, Standardiser
from ...distributions import FlowDistribution, PoseFlowDistribution, default_recalibration
from ...networks import ResidualMLP
from ..evidence import EVIDENCE_EXTRA, Evidence
from .shared import KeypointModel, to_pose


@dataclass(frozen=True)
class RegressionConfig:
    """Sizes of the regression.

    Attributes:
        joints: J.
        width: Hidden size of the network.
        blocks: Its residual blocks.
        dropout: Its dropout.

    Example:
        >>> RegressionConfig(width=64).joints
        17
    """

    joints: int = 17
    width: int = 640
    blocks: int = 2
    dropout: float = 0.1


class RegressionBaseline(KeypointModel[PoseFlowDistribution]):
    """Joints by regression, with a Gaussian of the same spread for every input about them.

    The baseline of Martinez et al. ("A simple yet effective baseline for 3d human pose estimation",
    ICCV 2017), a deterministic residual network trained by squared error. That is the likelihood of
    a Gaussian of fixed spread; here each coordinate's spread is learned too, which makes it a law:
    exact density, mode = mean, and a width that knows nothing of what was seen.

    Args:
        config: Sizes.

    Example:
        >>> import torch
        >>> model = RegressionBaseline(RegressionConfig(width=32)).eval()
        >>> model.conditional(torch.randn(5, 17, 2)).sample((2,)).shape
        torch.Size([2, 5, 17, 3])
    """

    def __init__(self, config: RegressionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or RegressionConfig()
        size = 3 * (config.joints - 1)
        network = ResidualMLP(
            3 * config.joints + EVIDENCE_EXTRA,
            size,
            width=config.width,
            blocks=config.blocks,
            dropout=config.dropout,
        )
        self.standardiser = Standardiser(size)
        self.calibration = default_recalibration(config.joints)
        self.flow = ConditionalFlow(HomoscedasticGaussian(network, size), self.standardiser)

    def law(self, evidence: Evidence) -> PoseFlowDistribution:
        """The law given prepared evidence with features `(..., n)`."""
        return PoseFlowDistribution(self.vector_law(evidence.features), to_pose(evidence))

    def vector_law(self, features: Tensor) -> FlowDistribution:
        """The law of the joints' coordinates `(..., 3 (J - 1))` in the evidence's axes."""
        return self.flow(features)
