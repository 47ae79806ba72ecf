"""Baselines on the same encoder: regression, mixture density, conditional VAE, diffusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from ..conditional import ConditionalFlow, StandardBase, Standardizer
from ..conditional.flows import IdentityTransform
from ..conditional.gaussian import HomoscedasticGaussian, VariationalPILGD
from ..configuration import count, given, number, share
from ..distributions import (
    DecodedPoseDistribution,
    DiffusionPoseDistribution,
    FlowDistribution,
    PoseFlowDistribution,
    PoseMixtureDistribution,
)
from ..distributions.diffusion import noise_levels
from ..distributions.recalibration import default_recalibration
from ..errors import InputError
from ..nn import ConditionalMLP, ResidualMLP
from ..transforms import soft_clamp
from .base import KeypointModel, to_pose
from .evidence import EVIDENCE_EXTRA, Evidence


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

    joints: int = given(17)
    width: int = count(640)
    blocks: int = count(2, low=0)
    dropout: float = share(0.1)


class RegressionBaseline(KeypointModel[PoseFlowDistribution]):
    """Joints by regression, with a Gaussian of the same spread for every input about them.

    The baseline of Martinez et al. ("A simple yet effective baseline for 3d human pose estimation",
    ICCV 2017), a deterministic residual network trained by squared error. That is the likelihood of
    a Gaussian of fixed spread; here each coordinate's spread is learned too, which makes it a
    distribution: exact density, mode = mean, and a width that knows nothing of what was seen.

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
        self.standardiser = Standardizer(size)
        self.calibration = default_recalibration(config.joints)
        self.flow = ConditionalFlow(HomoscedasticGaussian(network, size), self.standardiser)

    def distribution(self, evidence: Evidence) -> PoseFlowDistribution:
        """The distribution given prepared evidence with features `(..., n)`."""
        return PoseFlowDistribution(self.vector_distribution(evidence.features), to_pose(evidence))

    def vector_distribution(self, features: Tensor) -> FlowDistribution:
        """The distribution of the joints' coordinates `(..., 3 (J - 1))` in the evidence's axes."""
        return self.flow(features)


@dataclass(frozen=True)
class MixtureConfig:
    """Sizes of the mixture density network.

    Attributes:
        joints: J.
        kernels: K.
        clamp: Bound of the kernels' log standard deviations, in standardized units.
        width: Hidden size of the network.
        blocks: Its residual blocks.
        dropout: Its dropout.

    Example:
        >>> MixtureConfig(kernels=3).kernels
        3
    """

    joints: int = given(17)
    kernels: int = count(5)
    clamp: float = number(4.0, above=0.0)
    width: int = count(640)
    blocks: int = count(2, low=0)
    dropout: float = share(0.1)


class MixtureDensity(KeypointModel[PoseMixtureDistribution]):
    """Weights, means and spreads of a few Gaussian kernels, read off the keypoints.

    After Li and Lee ("Generating multiple hypotheses for 3D human pose estimation with mixture
    density network", CVPR 2019). Theirs are isotropic kernels, here each coordinate of each kernel
    has its own spread, a strictly larger family; their prior on the weights is left out. The point
    estimate is the mean of the most probable kernel.

    Args:
        config: Sizes.

    Raises:
        InputError: If there is no kernel.

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
            raise InputError(f"expected at least one kernel, got {config.kernels}")
        size = 3 * (config.joints - 1)
        self.network = ResidualMLP(
            3 * config.joints + EVIDENCE_EXTRA,
            config.kernels * (1 + 2 * size),
            width=config.width,
            blocks=config.blocks,
            dropout=config.dropout,
        )
        self.standardiser = Standardizer(size)
        self.calibration = default_recalibration(config.joints)

    def distribution(self, evidence: Evidence) -> PoseMixtureDistribution:
        """The distribution given prepared evidence with features `(..., n)`."""
        logits, loc, log_scale = self._kernels(evidence.features)
        unit = self.standardiser()
        scale = (log_scale + unit.log_scale).exp()
        return PoseMixtureDistribution(logits, unit(loc), scale, to_pose(evidence))

    def _kernels(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits `(..., K)`, means and log deviations `(..., K, d)` in standardized units."""
        count, size = self.config.kernels, 3 * (self.config.joints - 1)
        out = self.network(features)
        logits, rest = out.split([count, 2 * count * size], -1)
        loc, raw = rest.unflatten(-1, (count, 2 * size)).chunk(2, -1)
        return logits, loc, soft_clamp(raw, self.config.clamp)


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

    joints: int = given(17)
    latent: int = count(32)
    clamp: float = number(4.0, above=0.0)
    context: int = count(256)
    width: int = count(640)
    blocks: int = count(2, low=0)
    decoder_width: int = count(256)
    decoder_blocks: int = count(2, low=0)
    dropout: float = share(0.1)


class ConditionalVAE(KeypointModel[DecodedPoseDistribution]):
    """A decoder of keypoints and a standard normal latent, trained with a recognition network.

    The generator of Sharma et al. ("Monocular 3D human pose estimation by generation and ordinal
    ranking", ICCV 2019), without what ranks its samples by depth orders that only an image shows.
    The observation noise of each joint is learned by the same bound, so that no weight of its KL
    term has to be chosen, and the distribution has a density, if an estimated one.

    Args:
        config: Sizes.

    Example:
        >>> model = ConditionalVAE(VariationalConfig(width=32, decoder_width=16)).eval()
        >>> distribution = model.conditional(torch.randn(5, 17, 2))
        >>> distribution.hypotheses((2,)).shape, distribution.log_prob_kind
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
        self.standardiser = Standardizer(size)
        self.calibration = default_recalibration(config.joints)
        self.flow = ConditionalFlow(StandardBase(config.latent), IdentityTransform())
        self.log_noise = nn.Parameter(torch.full((config.joints - 1,), -3.0))

    @property
    def noise_scale(self) -> Tensor:
        """Standard deviation of each joint about its decoded place `(J - 1,)`, meters."""
        return self.log_noise.exp()

    def distribution(self, evidence: Evidence) -> DecodedPoseDistribution:
        """The distribution given prepared evidence with features `(..., n)`."""
        return DecodedPoseDistribution(
            self.flow(evidence.features),
            self.bind_decoder(evidence.features),
            self.noise_scale,
            encoder=partial(self._center, evidence.features),
            rotation=to_pose(evidence).rotation,
        )

    def bind_decoder(self, features: Tensor) -> Callable[[Tensor], Tensor]:
        """The decoder for fixed evidence: `(..., d) -> (..., J - 1, 3)` in meters."""
        return partial(self._joints, self.decoder.bind(self.encoder(features)))

    def embed(self, joints: Tensor, features: Tensor) -> Independent:
        """Approximate posterior of the latent of poses `(..., J - 1, 3)` in the evidence's axes."""
        x = self.standardiser().inv(joints.flatten(-2))
        features = features.expand(*x.shape[:-1], features.shape[-1])
        return self.recognition(torch.cat([x, features], -1))

    def _center(self, features: Tensor, joints: Tensor) -> Tensor:
        return self.embed(joints, features).mean

    def _joints(self, decode: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
        return self.standardiser()(decode(w)).unflatten(-1, (-1, 3))


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

    joints: int = given(17)
    steps: int = count(16)
    largest: float = number(10.0, above=0.0)
    smallest: float = number(0.01, above=0.0, at_most="largest")
    context: int = count(256)
    width: int = count(640)
    blocks: int = count(2, low=0)
    denoiser_width: int = count(384)
    denoiser_blocks: int = count(2, low=0)
    dropout: float = share(0.1)


class ScoreDiffusion(KeypointModel[DiffusionPoseDistribution]):
    """Joints denoised from pure noise, conditioned on 2D keypoints.

    A score model on the standardized coordinates as in DiffPose (Holmquist and Wandt, ICCV 2023)
    and GFPose (Ci et al., CVPR 2023), with the preconditioned network, noise levels and few-step
    sampling that have been found since (see `DiffusionPoseDistribution`). It has no density. The
    point estimate is what is denoised from no signal, the mean of the distribution as far as it was
    learned.

    Source of the preconditioning: Karras et al. (NeurIPS 2022), Table 1.

    Args:
        config: Sizes and sampler.

    Raises:
        InputError: If there are fewer than two steps or the noise levels do not fall.

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
        self.standardiser = Standardizer(size)
        self.calibration = default_recalibration(config.joints)

    def distribution(self, evidence: Evidence) -> DiffusionPoseDistribution:
        """The distribution given prepared evidence with features `(..., n)`."""
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

        A map of noisy standardized coordinates `(..., d)` and the noise's standard deviation, `()`
        or `(..., 1)`, to the mean of clean ones `(..., d)`.
        """
        return partial(_preconditioned, self.denoiser.bind(self.encoder(features)))


def _preconditioned(network: Callable[[Tensor], Tensor], x: Tensor, level: Tensor) -> Tensor:
    # Standardized coordinates have variance 1; input and target of the network then have, too.
    total = (1 + level.square()).sqrt()
    log = level.log()[..., None] if level.dim() == 0 else level.log()
    frequencies = 2.0 ** (torch.arange(_FREQUENCIES, dtype=x.dtype, device=x.device) / 2 - 2)
    angles = (log * frequencies).expand(*x.shape[:-1], _FREQUENCIES)
    told = torch.cat([x / total, angles.sin(), angles.cos()], -1)
    return x / total.square() + level / total * network(told)
