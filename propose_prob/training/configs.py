"""Training configurations, their allowed ranges, and JSON in and out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ..configuration import count, from_dict, number, share
from ..errors import InputError
from ..io.files import read_json
from ..models.baselines import DiffusionConfig, MixtureConfig, RegressionConfig, VariationalConfig
from ..models.lifting_flow import LiftingConfig
from ..models.prohmr import ProHMRConfig
from ..models.propose import ProPoseConfig
from .simulation import SimulatorConfig

#: Bytes of a configuration's file.
_LONGEST = 2**24


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses of ProPose; 0 leaves a term out (the ablations of Table 7).

    Attributes:
        recon3d: Eq. 4.
        recon2d: Eq. 6.
        nll: Eq. 10.
        mode_to_mode: Eq. 15.
        best_of: Best of M in the bidirectional loss, eq. 12.
        random: Random hypothesis in the bidirectional loss, eq. 13.
        energy: Energy score in the bidirectional loss: a proper score, ours.
        adversarial: Generator's and discriminator's part, eq. 11.
        pulling_away: Pulling-away term in the generator's loss, relative to `adversarial`.
        margin: m of eq. 11, in units of the energy (mean squared standardized residual).
        kl: Pull of the VAE of Table 4 towards N(0, I); unused by the Gaussian PILGD.
        hypotheses: L of eq. 12.
        best: k of eq. 12.
        gate: b of eq. 14: the bidirectional loss applies with probability 1 - b.

    Example:
        >>> paper = LossConfig(energy=0.0, best_of=1.0, random=1.0)
        >>> paper.hypotheses, paper.best
        (8, 2)
    """

    recon3d: float = number(1.0)
    recon2d: float = number(1.0)
    nll: float = number(1.0)
    mode_to_mode: float = number(0.1)
    best_of: float = number(0.0)
    random: float = number(0.0)
    energy: float = number(1.0)
    adversarial: float = number(0.0)
    pulling_away: float = number(0.1)
    margin: float = number(0.1)
    kl: float = number(0.01)
    hypotheses: int = count(8)
    best: int = count(2, at_most="hypotheses")
    gate: float = share(0.5)


@dataclass(frozen=True)
class RunConfig:
    """What every training run depends on, whatever the model.

    Attributes:
        steps: Batches; of phase 2 where phases alternate.
        batch_size: Pairs in a batch.
        warmup: Share of the steps in which the learning rates rise; then they fall as a cosine.
        weight_decay: Of AdamW.
        clip: Largest gradient norm.
        average: Decay of the exponential average of the weights that is evaluated and saved.
        validate: Steps between validations.
        known_intrinsics: Share of the pairs whose camera intrinsics the model is told.
        seed: Of everything random.
    """

    steps: int = count(40_000, long=True)
    batch_size: int = count(128)
    warmup: float = share(0.03)
    weight_decay: float = number(0.01)
    clip: float = number(1.0, above=0.0)
    average: float = share(0.999)
    validate: int = count(1000, long=True)
    known_intrinsics: float = share(0.5)
    seed: int = count(0, low=0, long=True)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """A training run of ProPose.

    Attributes:
        schedule: `"alternate"` (Algorithm 1) or `"end_to_end"` (Table 6).
        phase1: Batches of phase 1 in a row (N_p1).
        phase2: Batches of phase 2 in a row (N_p2).
        rate1: Peak learning rate of phase 1.
        rate2: Peak learning rate of phase 2.
        model: Sizes and variants of the model.
        loss: Weights of the losses.
        simulator: What varies in the data.

    Example:
        >>> TrainConfig(steps=100, model=ProPoseConfig(latent=32)).model.latent
        32
    """

    schedule: str = "alternate"
    phase1: int = count(2, long=True)
    phase2: int = count(10, long=True)
    rate1: float = number(1e-3)
    rate2: float = number(1e-3)
    model: ProPoseConfig = field(default_factory=ProPoseConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)

    def __post_init__(self) -> None:
        if self.schedule not in ("alternate", "end_to_end"):
            raise InputError(
                f"expected schedule 'alternate' or 'end_to_end', got {self.schedule!r}"
            )
        if self.schedule == "alternate" and self.loss.nll == 0:
            raise InputError("without the NLL the flow only learns end to end: set schedule")


@dataclass(frozen=True)
class SimulatedConfig(RunConfig):
    """A training run with one optimizer, on cameras that are simulated as it goes.

    Attributes:
        rate: Peak learning rate.
        simulator: What varies in the data.
    """

    rate: float = number(1e-3)
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)


@dataclass(frozen=True)
class LiftingLossConfig:
    """Weights of the losses of the lifting flow (ProHMR, sec. 3.6).

    Attributes:
        nll: Negative log-likelihood per coordinate, in standardized units.
        mode: Mean per-joint error of the mode (the center where no mode is known), meters.
        energy: Energy score of samples, ours: a proper score in meters, which the eye and the
            benchmarks see, where the likelihood also sees millimeters.
        samples: Samples of the energy score.
        noise: Standard deviation of the noise on the training poses, meters: it keeps the density
            of bones of constant length from growing without bound.
    """

    nll: float = number(1.0)
    mode: float = number(5.0)
    energy: float = number(0.0)
    samples: int = count(4)
    noise: float = number(0.005)


@dataclass(frozen=True)
class LiftingTrainConfig(SimulatedConfig):
    """A training run of the lifting flow.

    Attributes:
        model: Sizes and variants of the model.
        loss: Weights of the losses.
    """

    model: LiftingConfig = field(default_factory=LiftingConfig)
    loss: LiftingLossConfig = field(default_factory=LiftingLossConfig)


@dataclass(frozen=True)
class BodyLossConfig:
    """Weights of the losses of ProHMR; 0 leaves a term out.

    Terms that need a body in 3D are means over the items that have one.

    Attributes:
        nll: Negative log-likelihood per 6D number (eq. 5).
        sample2d: L1 distance of one sample's projected joints from the keypoints, in normalized
            keypoints (eq. 6, the expectation term, by reparametrization).
        mode2d: The same of the mode.
        mode3d: Mean distance of the mode's root-relative joints, meters (eq. 8).
        rotation: Squared error of the mode's rotation matrices (eq. 8).
        shape: Squared error of the shape coefficients.
        orthogonality: Of the 6D numbers of samples and mode (eq. 9).
        energy: Energy score of the samples' root-relative joints, meters: ours, a proper score.
        samples: Samples of the energy score.
        adversarial: Generator's part of the LSGAN prior on samples (eq. 10).
        noise: Standard deviation of the noise on the training rotations' 6D numbers.

    Example:
        >>> BodyLossConfig().adversarial
        0.0
    """

    nll: float = number(0.2)
    sample2d: float = number(0.3)
    mode2d: float = number(0.3)
    mode3d: float = number(5.0)
    rotation: float = number(1.0)
    shape: float = number(0.05)
    orthogonality: float = number(1.0)
    energy: float = number(5.0)
    samples: int = count(4)
    adversarial: float = number(0.0)
    noise: float = number(0.005)


@dataclass(frozen=True)
class BodyRunConfig(RunConfig):
    """What every training run of ProHMR depends on, whatever its evidence.

    Attributes:
        rate: Peak learning rate.
        only_2d: Share of the items whose body in 3D is held back, as if only keypoints were known.
        model: Sizes and variants of the model.
        loss: Weights of the losses.
    """

    rate: float = number(1e-3)
    only_2d: float = share(0.0)
    model: ProHMRConfig = field(default_factory=ProHMRConfig)
    loss: BodyLossConfig = field(default_factory=BodyLossConfig)


@dataclass(frozen=True)
class BodyTrainConfig(BodyRunConfig):
    """A training run of ProHMR from simulated keypoints.

    Attributes:
        simulator: What varies in the data.
    """

    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)


@dataclass(frozen=True)
class LikelihoodLossConfig:
    """Weights of the losses of a distribution with an exact density; 0 leaves a term out.

    Attributes:
        nll: Negative log-likelihood per coordinate, in standardized units: the published loss.
        point: Mean per-joint error of the point estimate, meters, as the lifting flow has it.
    """

    nll: float = number(1.0)
    point: float = number(5.0)


@dataclass(frozen=True)
class VariationalLossConfig:
    """Weights of the losses of the conditional variational autoencoder; 0 leaves a term out.

    Attributes:
        elbo: Negative evidence lower bound per coordinate, in standardized units.
        point: Mean per-joint error of the point estimate, meters, as the lifting flow has it.
    """

    elbo: float = number(1.0)
    point: float = number(5.0)


@dataclass(frozen=True)
class DiffusionLossConfig:
    """Weights of the losses of the diffusion model; 0 leaves a term out.

    Attributes:
        denoise: Squared error of the denoiser per coordinate, so weighted that every noise level
            counts alike (Karras et al., 2022, Table 1).
        point: Mean per-joint error of the point estimate, meters, as the lifting flow has it.
        draws: Noise levels, each with its noise, for each pose of a batch.
    """

    denoise: float = number(1.0)
    point: float = number(5.0)
    draws: int = count(4)


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


AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


def read_config(path: Path, *, default: AnyConfig) -> AnyConfig:
    """A configuration from a JSON file; what it leaves out keeps the default's value.

    Raises:
        InputError: If the file is missing, not JSON, or has unknown names or wrong values.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "mine.json").write_text('{"steps": 100, "model": {"latent": 32}}')
        ...     config = read_config(Path(folder, "mine.json"), default=TrainConfig())
        >>> config.steps, config.model.latent, config.batch_size
        (100, 32, 128)
    """
    values = read_json(path, "a JSON configuration", most=_LONGEST)
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return from_dict(values, default=default)
