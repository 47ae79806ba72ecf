"""The conditional autoencoder whose reconstruction error judges poses (EBGAN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..networks import ResidualMLP


class PoseDiscriminator(nn.Module):
    """Energy of a pose given its 2D evidence: reconstruction error of a conditional autoencoder.

    Source: ProPose, eq. 11, after Zhao, Mathieu and LeCun (2017).

    Args:
        pose: Size of the standardised pose vector.
        features: Size of the evidence.
        code: Size of the bottleneck.
        width: Hidden size.
    """

    def __init__(self, pose: int, features: int, *, code: int = 24, width: int = 256) -> None:
        super().__init__()
        self.encoder = ResidualMLP(pose + features, code, width=width, blocks=1)
        self.decoder = ResidualMLP(code + features, pose, width=width, blocks=1)

    def forward(self, pose: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(B,)` and codes `(B, m)` of standardised poses `(B, n)`."""
        code = self.encoder(torch.cat([pose, features], -1))
        decoded = self.decoder(torch.cat([code, features], -1))
        return (decoded - pose).square().mean(-1), code
