"""Adversaries: of poses (EBGAN, in ProPose) and of body rotations and shapes (LSGAN, in ProHMR)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..nn import ResidualMLP


class PoseDiscriminator(nn.Module):
    """Energy of a pose given its 2D evidence: reconstruction error of a conditional autoencoder.

    Source: ProPose, eq. 11, after Zhao, Mathieu and LeCun (2017).

    Args:
        pose: Size of the standardized pose vector.
        features: Size of the evidence.
        code: Size of the bottleneck.
        width: Hidden size.

    Example:
        >>> energy, codes = PoseDiscriminator(48, 53)(torch.randn(8, 48), torch.randn(8, 53))
        >>> energy.shape, codes.shape
        (torch.Size([8]), torch.Size([8, 24]))
    """

    def __init__(self, pose: int, features: int, *, code: int = 24, width: int = 256) -> None:
        super().__init__()
        self.encoder = ResidualMLP(pose + features, code, width=width, blocks=1)
        self.decoder = ResidualMLP(code + features, pose, width=width, blocks=1)

    def forward(self, pose: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Energies `(B,)` and codes `(B, m)` of standardized poses `(B, n)`."""
        code = self.encoder(torch.cat([pose, features], -1))
        decoded = self.decoder(torch.cat([code, features], -1))
        return (decoded - pose).square().mean(-1), code


class BodyDiscriminator(nn.Module):
    """One score for each joint's rotation, one for all of them together and one for the shape.

    The orientation of the body is left out: every one is plausible. Source: ProHMR, sec. 3.3, after
    HMR (Kanazawa et al., 2018), sec. 3.4.

    Args:
        joints: K, joints of the body.
        shape: Number of shape coefficients.
        width: Hidden size for all joints together; each joint's own network has 32.

    Example:
        >>> BodyDiscriminator()(torch.eye(3).expand(8, 24, 3, 3), torch.zeros(8, 10)).shape
        torch.Size([8, 25])
    """

    def __init__(self, joints: int = 24, shape: int = 10, *, width: int = 256) -> None:
        super().__init__()
        own = 32
        self.embed = nn.Sequential(nn.Linear(9, own), nn.SiLU(), nn.Linear(own, own), nn.SiLU())
        self.joint = nn.Parameter(torch.randn(joints - 1, own) / own**0.5)
        self.joint_bias = nn.Parameter(torch.zeros(joints - 1))
        self.together = ResidualMLP((joints - 1) * own, 1, width=width, blocks=1)
        self.shape = nn.Sequential(nn.Linear(shape, own), nn.SiLU(), nn.Linear(own, 1))

    def forward(self, theta: Tensor, shape: Tensor) -> Tensor:
        """Scores `(B, K + 1)`, near 1 for the real: `theta` `(B, K, 3, 3)`, `shape` `(B, S)`."""
        embedded = self.embed(theta[..., 1:, :, :].flatten(-2))
        joints = (embedded * self.joint).sum(-1) + self.joint_bias
        return torch.cat([joints, self.together(embedded.flatten(-2)), self.shape(shape)], -1)
