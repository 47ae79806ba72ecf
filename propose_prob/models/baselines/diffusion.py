"""A denoising-diffusion model with a sampler of few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...conditional import Standardiser
from ...distributions import DiffusionPoseDistribution, default_recalibration, noise_levels
from ...networks import ConditionalMLP, ResidualMLP
from ..evidence import EVIDENCE_EXTRA, Evidence
from .shared import KeypointModel, to_pose

#: Numbers that tell the denoiser its noise level: sine and cosine of so many frequencies.
_FREQUENCIES = 8


@dataclass(frozen=True)
class DiffusionConfig:
    """Sizes and sampler of the diffusion model.

    Attributes:
        joints: J.
        steps: Noise levels of the sampler, each a call of the denoiser.
        largest: The largest noise level, in standard deviations of the coordinates.
        smallest: The smallest.
        context: Size of the context that the denoiser sees.
        width: Hidden size of the context's encoder.
        blocks: Its residual blocks.
        denoiser_width: Hidden size of the denoiser, which runs for each sample and step.
        denoiser_blocks: Its residual blocks.
        dropout: Dropout of the encoder.

    Example:
        >>> DiffusionConfig(steps=8).steps
        8
    """

    joints: int = 17
    steps: int = 16
    largest: float = 10.0
    smallest: float = 0.01
    context: int = 256
    width: int = 640
    blocks: int = 2
    denoiser_width: int = 384
    denoiser_blocks: int = 2
    dropout: float = 0.1


class ScoreDiffusion(KeypointModel[DiffusionPoseDistribution]):
    """Joints denoised from pure noise, conditioned on 2D keypoints.

    A score model on the standardised coordinates as in DiffPose (Holmquist and Wandt, ICCV 2023)
    and GFPose (Ci et al., CVPR 2023), with the preconditioned network, noise levels and few-step
    sampling that have been found since (see `DiffusionPoseDistribution`). It has no density. The
    point estimate is what is denoised from no signal, the mean of the law as far as it was learned.

    Source of the preconditioning: Karras et al. (NeurIPS 2022), Table 1.

    Args:
        config: Sizes and sampler.

    Raises:
        ValueError: If there are fewer than two steps or the noise levels do not fall.

    Example:
        >>> model = ScoreDiffusion(DiffusionConfig(width=32, denoiser_width=16)).eval()
        >>> model.conditional(torch.randn(5, 17, 2)).sample((2,)).shape
        torch.Size([2, 5, 17, 3])
    """

    def __init__(self, config: DiffusionConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DiffusionConfig()
        noise_levels(config.steps, largest=config.largest, smallest=config.smallest)
        size = 3 * (config.joints - 1)
        self.encoder = ResidualMLP(
            3 * config.joints + EVIDENCE_EXTRA,
            config.context,
            width=config.width,
            blocks=config.blocks,
            dropout=config.dropout,
        )
        self.denoiser = ConditionalMLP(
            size + 2 * _FREQUENCIES,
            config.context,
            size,
            width=config.denoiser_width,
            blocks=config.denoiser_blocks,
        )
        self.standardiser = Standardiser(size)
        self.calibration = default_recalibration(config.joints)

    def law(self, evidence: Evidence) -> DiffusionPoseDistribution:
        """The law given prepared evidence with features `(..., n)`."""
        features, config = evidence.features, self.config
        levels = noise_levels(config.steps, largest=config.largest, smallest=config.smallest)
        return DiffusionPoseDistribution(
            self.bind_denoiser(features),
            levels.to(features),
            self.standardiser(),
            to_pose(evidence),
            batch_shape=features.shape[:-1],
        )

    def bind_denoiser(self, features: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The denoiser for fixed evidence `(..., n)`.

        A map of noisy standardised coordinates `(..., d)` and the noise's standard deviation, `()`
        or `(..., 1)`, to the mean of clean ones `(..., d)`.
        """
        return partial(_preconditioned, self.denoiser.bind(self.encoder(features)))


def _preconditioned(network: Callable[[Tensor], Tensor], x: Tensor, level: Tensor) -> Tensor:
    # Standardised coordinates have variance 1; input and target of the network then have, too.
    total = (1 + level.square()).sqrt()
    log = level.log()[..., None] if level.dim() == 0 else level.log()
    frequencies = 2.0 ** (torch.arange(_FREQUENCIES, dtype=x.dtype, device=x.device) / 2 - 2)
    angles = (log * frequencies).expand(*x.shape[:-1], _FREQUENCIES)
    told = torch.cat([x / total, angles.sin(), angles.cos()], -1)
    return x / total.square() + level / total * network(told)
