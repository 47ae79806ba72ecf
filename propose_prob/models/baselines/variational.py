"""A conditional variational autoencoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from ...conditional import (
    ConditionalFlow,
    NoTransform,
    StandardBase,
    Standardiser,
    VariationalPILGD,
)
from ...distributions import DecodedPoseDistribution, default_recalibration
from ...networks import ConditionalMLP, ResidualMLP
from ..evidence import EVIDENCE_EXTRA, Evidence
from .shared import KeypointModel, to_pose


@dataclass(frozen=True)
class VariationalConfig:
    """Sizes of the conditional variational autoencoder.

    Attributes:
        joints: J.
        latent: Size d of the latent.
        clamp: Bound of the recognition network's log standard deviations.
        context: Size of the context that the decoder sees.
        width: Hidden size of the encoder and of the recognition network.
        blocks: Residual blocks of each.
        decoder_width: Hidden size of the decoder, which runs for each hypothesis.
        decoder_blocks: Its residual blocks.
        dropout: Dropout of the encoder.

    Example:
        >>> VariationalConfig(latent=16).latent
        16
    """

    joints: int = 17
    latent: int = 32
    clamp: float = 4.0
    context: int = 256
    width: int = 640
    blocks: int = 2
    decoder_width: int = 256
    decoder_blocks: int = 2
    dropout: float = 0.1


class ConditionalVAE(KeypointModel[DecodedPoseDistribution]):
    """A decoder of keypoints and a standard normal latent, trained with a recognition network.

    The generator of Sharma et al. ("Monocular 3D human pose estimation by generation and ordinal
    ranking", ICCV 2019), without what ranks its samples by depth orders that only an image shows.
    The observation noise of each joint is learned by the same bound, so that no weight of its KL
    term has to be chosen, and the law has a density, if an estimated one.

    Args:
        config: Sizes.

    Example:
        >>> model = ConditionalVAE(VariationalConfig(width=32, decoder_width=16)).eval()
        >>> law = model.conditional(torch.randn(5, 17, 2))
        >>> law.hypotheses((2,)).shape, law.log_prob_kind
        (torch.Size([2, 5, 17, 3]), 'bound')
    """

    def __init__(self, config: VariationalConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VariationalConfig()
        size, features = 3 * (config.joints - 1), 3 * config.joints + EVIDENCE_EXTRA
        self.encoder = ResidualMLP(
            features,
            config.context,
            width=config.width,
            blocks=config.blocks,
            dropout=config.dropout,
        )
        self.recognition = VariationalPILGD(
            ResidualMLP(
                size + features, 2 * config.latent, width=config.width, blocks=config.blocks
            ),
            clamp=config.clamp,
        )
        self.decoder = ConditionalMLP(
            config.latent,
            config.context,
            size,
            width=config.decoder_width,
            blocks=config.decoder_blocks,
        )
        self.standardiser = Standardiser(size)
        self.calibration = default_recalibration(config.joints)
        self.flow = ConditionalFlow(StandardBase(config.latent), NoTransform())
        self.log_noise = nn.Parameter(torch.full((config.joints - 1,), -3.0))

    @property
    def noise_scale(self) -> Tensor:
        """Standard deviation of each joint about its decoded place `(J - 1,)`, metres."""
        return self.log_noise.exp()

    def law(self, evidence: Evidence) -> DecodedPoseDistribution:
        """The law given prepared evidence with features `(..., n)`."""
        return DecodedPoseDistribution(
            self.flow(evidence.features),
            self.bind_decoder(evidence.features),
            self.noise_scale,
            encoder=partial(self._centre, evidence.features),
            rotation=to_pose(evidence).rotation,
        )

    def bind_decoder(self, features: Tensor) -> Callable[[Tensor], Tensor]:
        """The decoder for fixed evidence: `(..., d) -> (..., J - 1, 3)` in metres."""
        return partial(self._joints, self.decoder.bind(self.encoder(features)))

    def embed(self, joints: Tensor, features: Tensor) -> Independent:
        """Recognition law of the latent, of poses `(..., J - 1, 3)` in the evidence's axes."""
        x = self.standardiser().inv(joints.flatten(-2))
        features = features.expand(*x.shape[:-1], features.shape[-1])
        return self.recognition(torch.cat([x, features], -1))

    def _centre(self, features: Tensor, joints: Tensor) -> Tensor:
        return self.embed(joints, features).mean

    def _joints(self, decode: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
        return self.standardiser()(decode(w)).unflatten(-1, (-1, 3))
