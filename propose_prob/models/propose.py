"""ProPose: a pose distribution from two instance-level Gaussians and a flow between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..conditional import PAGD, PILGD, ConditionalFlow, StandardBase
from ..conditional.flows import coupling_stack
from ..conditional.gaussian import VariationalPILGD
from ..configuration import count, given, number, share
from ..distributions import DecodedPoseDistribution, FlowDistribution, RecalibratedDistribution
from ..distributions.recalibration import default_recalibration
from ..errors import InputError
from ..geometry.normalization import as_dtype
from ..nn import ConditionalMLP, ResidualMLP
from .evidence import EVIDENCE_EXTRA, Evidence, keypoint_evidence


@dataclass(frozen=True)
class ProPoseConfig:
    """Sizes and variants of the model.

    Attributes:
        joints: J.
        latent: Size d of the PILGD latent.
        pilgd: `"gaussian"` (the paper's) or `"vae"` (Table 4).
        pilgd_scale: s of eq. 1.
        pilgd_clamp: alpha of eq. 5 on the PILGD mean.
        base: `"pagd"` (the paper's) or `"standard"` (Table 5).
        pagd_clamp: alpha of eq. 5 on mean and log standard deviation.
        coupling: Kind of coupling, see `ConditionalCoupling`.
        couplings: Number of couplings.
        flow_width: Hidden size of the coupling networks.
        flow_clamp: Bound of affine log-scales.
        code: Size of the 2D code that base and flow see.
        width: Hidden size of the encoders (g, q) and of the decoder's context trunk.
        blocks: Residual blocks of each of these.
        decoder_width: Hidden size of the decoder's part that runs for each hypothesis.
        decoder_blocks: Its residual blocks.
        dropout: Dropout in q and in the trunk of k.

    Example:
        >>> ProPoseConfig(coupling="spline").latent
        48
    """

    joints: int = given(17)
    latent: int = count(48)
    pilgd: str = "gaussian"
    pilgd_scale: float = number(0.03, above=0.0)
    pilgd_clamp: float = number(4.0, above=0.0)
    base: str = "pagd"
    pagd_clamp: float = number(4.0, above=0.0)
    coupling: str = "affine"
    couplings: int = count(8)
    flow_width: int = count(192)
    flow_clamp: float = number(1.0, above=0.0)
    code: int = count(128)
    width: int = count(512)
    blocks: int = count(2, low=0)
    decoder_width: int = count(256)
    decoder_blocks: int = count(1, low=0)
    dropout: float = share(0.1)


class PoseDecoder(nn.Module):
    """The decoder k of ProPose: latent and 2D evidence to joints.

    A trunk reads the evidence once for each context; only the rest runs for each hypothesis.

    Args:
        config: Sizes.
        features: Size of the evidence.
    """

    def __init__(self, config: ProPoseConfig, features: int) -> None:
        super().__init__()
        width = config.decoder_width
        self.trunk = ResidualMLP(
            features, width, width=config.width, blocks=config.blocks, dropout=config.dropout
        )
        self.head = ConditionalMLP(
            config.latent,
            width,
            3 * (config.joints - 1),
            width=width,
            blocks=config.decoder_blocks,
            skip=True,
        )

    def bind(self, features: Tensor) -> Callable[[Tensor], Tensor]:
        """Fixes the evidence `(..., n)`; returns a map `(..., d) -> (..., 3 (J - 1))`."""
        return self.head.bind(self.trunk(features))


class ProPose(nn.Module):
    """ProPose (Han, Kim, Lee; AAAI 2025): 2D keypoints to a distribution over 3D poses.

    `g` and `k` (PILGD learner) embed a 3D pose, given its 2D pose, in a small latent; `q`, `v` and
    `h` (PAGD learner) read a Gaussian off the 2D pose; the flow `f` connects the two.

    Args:
        config: Sizes and variants.

    Raises:
        InputError: If a variant is unknown.

    Example:
        >>> model = ProPose(ProPoseConfig(couplings=2, width=16, decoder_width=16, code=8)).eval()
        >>> distribution = model.conditional(torch.randn(5, 17, 2))
        >>> distribution.sample((3,)).shape, distribution.log_prob_kind
        (torch.Size([3, 5, 17, 3]), 'bound')
    """

    pose_mean: Tensor
    pose_std: Tensor
    noise_scale: Tensor

    def __init__(self, config: ProPoseConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ProPoseConfig()
        n_pose, features = 3 * (config.joints - 1), 3 * config.joints + EVIDENCE_EXTRA
        means = 1 if config.pilgd == "gaussian" else 2
        encoder3d = ResidualMLP(
            n_pose + features,
            means * config.latent,
            width=config.width,
            blocks=config.blocks,
            skip=n_pose,
        )
        if config.pilgd == "gaussian":
            self.pilgd: PILGD | VariationalPILGD = PILGD(
                encoder3d, scale=config.pilgd_scale, clamp=config.pilgd_clamp
            )
        elif config.pilgd == "vae":
            self.pilgd = VariationalPILGD(encoder3d)
        else:
            raise InputError(f"expected pilgd 'gaussian' or 'vae', got {config.pilgd!r}")
        self.decoder = PoseDecoder(config, features)
        _align_skips(encoder3d.skip, self.decoder.head.skip, config.latent)
        self.encoder2d = ResidualMLP(
            features,
            config.code,
            width=config.width,
            blocks=config.blocks,
            dropout=config.dropout,
        )
        self.decoder2d = ResidualMLP(
            config.code, 2 * config.joints, width=config.width // 2, blocks=1
        )
        if config.base == "pagd":
            base: PAGD | StandardBase = PAGD(
                ResidualMLP(config.code, 2 * config.latent, width=config.width // 2, blocks=1),
                clamp=config.pagd_clamp,
            )
        elif config.base == "standard":
            base = StandardBase(config.latent)
        else:
            raise InputError(f"expected base 'pagd' or 'standard', got {config.base!r}")
        self.flow = ConditionalFlow(
            base,
            coupling_stack(
                config.latent,
                config.code,
                kind=config.coupling,
                couplings=config.couplings,
                width=config.flow_width,
                clamp=config.flow_clamp,
            ),
        )
        self.calibration = default_recalibration(config.joints)
        self.register_buffer("pose_mean", torch.zeros(n_pose))
        self.register_buffer("pose_std", torch.full((n_pose,), 0.3))
        self.register_buffer("noise_scale", torch.full((config.joints - 1,), 0.02))

    def conditional(
        self,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
        recalibrated: bool = True,
    ) -> DecodedPoseDistribution | RecalibratedDistribution:
        """The distribution of the 3D pose given 2D keypoints.

        Args:
            p2d: Keypoints `(..., J, 2)`, any pixel unit, y down. NaN means not seen. Floating-point
                numbers of another type than the weights, and integers, are converted.
            confidence: `(..., J)` in 0..1; 0 means not seen. Left out: all finite joints are seen.
            focal: Focal length in the unit of `p2d`, a number or `(...)`. Where it is known, people
                off the image center are rectified; left out, the angle stays uncertain.
            center: Principal point in the unit of `p2d`, `(2,)` or `(..., 2)`; used with `focal`.
            recalibrated: Whether what was fitted on held-out data is applied, where the model's
                `calibration` was; otherwise the distribution is as it was trained.

        Returns:
            A distribution with batch shape `(...)` and event shape `(J, 3)`: meters, root-relative,
            camera axes (x right, y down, z forward).

        Raises:
            InputError: If a shape is wrong, a confidence is NaN, fewer than two joints are seen, or
                a coordinate is boolean, complex or too large for the weights' type.
        """
        p2d, confidence = as_dtype(p2d, confidence, next(self.parameters()).dtype)
        evidence = keypoint_evidence(
            p2d,
            confidence,
            joints=self.config.joints,
            focal=focal,
            center=center,
        )
        distribution = self.distribution(evidence)
        if not recalibrated:
            return distribution
        return self.calibration(distribution, p2d, confidence, focal=focal, center=center)

    forward = conditional

    def distribution(self, evidence: Evidence) -> DecodedPoseDistribution:
        """The distribution given prepared evidence with features `(..., n)`."""
        rotation = None if evidence.rotation is None else evidence.rotation.mT
        return DecodedPoseDistribution(
            self.latent_distribution(evidence.features),
            self.bind_decoder(evidence.features),
            self.noise_scale,
            encoder=partial(self._center, evidence.features),
            rotation=rotation,
        )

    def latent_distribution(self, features: Tensor) -> FlowDistribution:
        """The flow distribution of `w` for evidence features `(..., n)` (eq. 9)."""
        return self.flow(self.encoder2d(features))

    def bind_decoder(self, features: Tensor) -> Callable[[Tensor], Tensor]:
        """The decoder k for fixed evidence: `(..., d) -> (..., J - 1, 3)` in meters."""
        return partial(self._joints, self.decoder.bind(features))

    def standardize(self, joints: Tensor) -> Tensor:
        """Joints `(..., J - 1, 3)` in meters to the networks' vectors `(..., 3 (J - 1))`."""
        return (joints.flatten(-2) - self.pose_mean) / self.pose_std

    def embed(self, joints: Tensor, features: Tensor) -> torch.distributions.Independent:
        """PILGD of poses `(..., J - 1, 3)` in the evidence's axes (eq. 1-2)."""
        x = self.standardize(joints)
        features = features.expand(*x.shape[:-1], features.shape[-1])
        return self.pilgd(torch.cat([x, features], -1))

    def _center(self, features: Tensor, joints: Tensor) -> Tensor:
        return self.embed(joints, features).mean

    def _joints(self, decode: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
        flat = decode(w) * self.pose_std + self.pose_mean
        return flat.unflatten(-1, (-1, 3))


@torch.no_grad()
def _align_skips(encode: nn.Linear | None, decode: nn.Linear | None, latent: int) -> None:
    """Starts g and k as an orthonormal projection and its transpose.

    The autoencoder then reconstructs from the first step on, and the latent keeps the pose's own
    scale, in which `pilgd_scale` is a share of a coordinate's standard deviation.
    """
    if encode is not None and decode is not None:
        encode.weight.zero_()
        nn.init.orthogonal_(encode.weight[:latent])
        decode.weight.copy_(encode.weight[:latent].mT)
