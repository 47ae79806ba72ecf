"""A mixture density network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...conditional import Standardiser
from ...distributions import PoseMixtureDistribution, default_recalibration
from ...networks import ResidualMLP
from ...transforms import soft_clamp
from ..evidence import EVIDENCE_EXTRA, Evidence
from .shared import KeypointModel, to_pose


@dataclass(frozen=True)
class MixtureConfig:
    """Sizes of the mixture density network.

    Attributes:
        joints: J.
        kernels: K.
        clamp: Bound of the kernels' log standard deviations, in standardised units.
        width: Hidden size of the network.
        blocks: Its residual blocks.
        dropout: Its dropout.

    Example:
        >>> MixtureConfig(kernels=3).kernels
        3
    """

    joints: int = 17
    kernels: int = 5
    clamp: float = 4.0
    width: int = 640
    blocks: int = 2
    dropout: float = 0.1


class MixtureDensity(KeypointModel[PoseMixtureDistribution]):
    """Weights, means and spreads of a few Gaussian kernels, read off the keypoints.

    After Li and Lee ("Generating multiple hypotheses for 3D human pose estimation with mixture
    density network", CVPR 2019). Theirs are isotropic kernels, here each coordinate of each kernel
    has its own spread, a strictly larger family; their prior on the weights is left out. The point
    estimate is the mean of the most probable kernel.

    Args:
        config: Sizes.

    Raises:
        ValueError: If there is no kernel.

    Example:
        >>> import torch
        >>> model = MixtureDensity(MixtureConfig(width=32)).eval()
        >>> model.conditional(torch.randn(4, 17, 2)).kernel_means.shape
        torch.Size([5, 4, 17, 3])
    """

    def __init__(self, config: MixtureConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or MixtureConfig()
        if config.kernels < 1:
            raise ValueError(f"expected at least one kernel, got {config.kernels}")
        size = 3 * (config.joints - 1)
        self.network = ResidualMLP(
            3 * config.joints + EVIDENCE_EXTRA,
            config.kernels * (1 + 2 * size),
            width=config.width,
            blocks=config.blocks,
            dropout=config.dropout,
        )
        self.standardiser = Standardiser(size)
        self.calibration = default_recalibration(config.joints)

    def law(self, evidence: Evidence) -> PoseMixtureDistribution:
        """The law given prepared evidence with features `(..., n)`."""
        logits, loc, log_scale = self._kernels(evidence.features)
        unit = self.standardiser()
        scale = (log_scale + unit.log_scale).exp()
        return PoseMixtureDistribution(logits, unit(loc), scale, to_pose(evidence))

    def _kernels(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `(..., K)`, means and log deviations `(..., K, d)` in standardised units."""
        count, size = self.config.kernels, 3 * (self.config.joints - 1)
        out = self.network(features)
        logits, rest = out.split([count, 2 * count * size], -1)
        loc, raw = rest.unflatten(-1, (count, 2 * size)).chunk(2, -1)
        return logits, loc, soft_clamp(raw, self.config.clamp)
