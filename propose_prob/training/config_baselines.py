"""Training runs of the laws to compare with; see `config` for what every run has."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..models.baselines import (
    DiffusionConfig,
    MixtureConfig,
    RegressionConfig,
    VariationalConfig,
)
from .config import SimulatedConfig


@dataclass(frozen=True)
class LikelihoodLossConfig:
    """Weights of the losses of a law with an exact density; 0 leaves a term out.

    Attributes:
        nll: Negative log-likelihood per coordinate, in standardised units: the published loss.
        point: Mean per-joint error of the point estimate, metres, as the lifting flow has it.
    """

    nll: float = 1.0
    point: float = 5.0


@dataclass(frozen=True)
class VariationalLossConfig:
    """Weights of the losses of the conditional variational autoencoder; 0 leaves a term out.

    Attributes:
        elbo: Negative evidence lower bound per coordinate, in standardised units.
        point: Mean per-joint error of the point estimate, metres, as the lifting flow has it.
    """

    elbo: float = 1.0
    point: float = 5.0


@dataclass(frozen=True)
class DiffusionLossConfig:
    """Weights of the losses of the diffusion model; 0 leaves a term out.

    Attributes:
        denoise: Squared error of the denoiser per coordinate, so weighted that every noise level
            counts alike (Karras et al., 2022, Table 1).
        point: Mean per-joint error of the point estimate, metres, as the lifting flow has it.
        draws: Noise levels, each with its noise, for each pose of a batch.
    """

    denoise: float = 1.0
    point: float = 5.0
    draws: int = 4


@dataclass(frozen=True)
class RegressionTrainConfig(SimulatedConfig):
    """A training run of the regression.

    Attributes:
        model: Sizes of the model.
        loss: Weights of the losses.
    """

    model: RegressionConfig = field(default_factory=RegressionConfig)
    loss: LikelihoodLossConfig = field(default_factory=LikelihoodLossConfig)


@dataclass(frozen=True)
class MixtureTrainConfig(SimulatedConfig):
    """A training run of the mixture density network.

    Attributes:
        model: Sizes of the model.
        loss: Weights of the losses.
    """

    model: MixtureConfig = field(default_factory=MixtureConfig)
    loss: LikelihoodLossConfig = field(default_factory=LikelihoodLossConfig)


@dataclass(frozen=True)
class VariationalTrainConfig(SimulatedConfig):
    """A training run of the conditional variational autoencoder.

    Attributes:
        model: Sizes of the model.
        loss: Weights of the losses.
    """

    model: VariationalConfig = field(default_factory=VariationalConfig)
    loss: VariationalLossConfig = field(default_factory=VariationalLossConfig)


@dataclass(frozen=True)
class DiffusionTrainConfig(SimulatedConfig):
    """A training run of the diffusion model.

    Attributes:
        model: Sizes and sampler of the model.
        loss: Weights of the losses.
    """

    model: DiffusionConfig = field(default_factory=DiffusionConfig)
    loss: DiffusionLossConfig = field(default_factory=DiffusionLossConfig)
