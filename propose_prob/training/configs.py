"""Training configurations, their allowed ranges, and JSON in and out."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from ..errors import InputError
from ..models.baselines import DiffusionConfig, MixtureConfig, RegressionConfig, VariationalConfig
from ..models.lifting_flow import LiftingConfig
from ..models.prohmr import ProHMRConfig
from ..models.propose import ProPoseConfig
from .simulation import SimulatorConfig

#: Probabilities and shares.
_SHARES = frozenset(
    ("warmup", "average", "known_intrinsics", "only_2d", "gate", "dropout", "mirror", "mix", "bend")
    + ("build", "wide", "noisy", "outlier", "swap", "missing", "grey")
)
#: Numbers that are divided by, or nothing is left at 0.
_POSITIVE = frozenset(
    ("clip", "clamp", "flow_clamp", "pagd_clamp", "pilgd_clamp", "pilgd_scale", "focal_px")
    + ("smallest", "largest")
)
#: Counts that may be 0.
_NONE = frozenset(
    ("blocks", "flow_blocks", "decoder_blocks", "denoiser_blocks", "seed") + ("copies", "distil")
)
#: What the data decide.
_GIVEN = frozenset(("joints", "keypoints"))
#: Pairs of numbers, each with the least and the largest.
_PAIRS = {"distance": (0.1, 1000.0), "pitch": (-90.0, 90.0), "off_axis": (0.0, 80.0)}
#: Counts of batches, and the largest of all others: sizes of layers and of batches.
_LONG, _LARGEST = frozenset(("steps", "validate", "seed", "phase1", "phase2")), 2**16


def check_ranges(config: Any, default: Any, *, where: str = "") -> None:
    """Check the numbers of a configuration and of those inside it.

    Args:
        config: A dataclass of numbers, names and such dataclasses.
        default: The same as it ships.
        where: What stands before its names in messages.

    Raises:
        InputError: If a number is not finite, too small or too large; the message names it.

    Example:
        >>> from propose_prob.training.configs import TrainConfig
        >>> check_ranges(TrainConfig(), TrainConfig())
        >>> check_ranges(TrainConfig(batch_size=0), TrainConfig())
        Traceback (most recent call last):
        propose_prob.errors.InputError: configuration: batch_size must be 1 to 65536, got 0
    """
    for entry in dataclasses.fields(config):
        name, value, usual = entry.name, getattr(config, entry.name), getattr(default, entry.name)
        if dataclasses.is_dataclass(value):
            check_ranges(value, usual, where=f"{where}{name}.")
        elif isinstance(value, tuple):
            low, high = _PAIRS[name]
            ordered = name == "off_axis" or list(value) == sorted(value)
            if not ordered or not all(low <= v <= high for v in value):
                raise _wrong(where + name, f"{low:g} to {high:g}, the smaller first", value)
        elif isinstance(value, int) and not isinstance(value, bool):
            least = 0 if name in _NONE else 1
            most = 2**62 if name in _LONG else _LARGEST
            if name in _GIVEN and value != usual:
                raise _wrong(where + name, f"{usual}, as the data have", value)
            if not least <= value <= most:
                raise _wrong(where + name, f"{least} to {most}", value)
        elif isinstance(value, float):
            limit = 1.0 if name in _SHARES else 1e6
            if not 0 <= value <= limit or (value == 0 and name in _POSITIVE):
                raise _wrong(where + name, f"{'above 0' if name in _POSITIVE else 0} to {limit:g}",
                             value)  # fmt: skip
    for small, large in (("best", "hypotheses"), ("smallest", "largest")):
        if hasattr(config, small) and getattr(config, small) > getattr(config, large):
            raise _wrong(where + small, f"at most {where}{large}", getattr(config, small))


def _wrong(name: str, expected: str, value: object) -> InputError:
    return InputError(f"configuration: {name} must be {expected}, got {value}")


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
        margin: m of eq. 11, in units of the energy (mean squared standardised residual).
        kl: Pull of the VAE of Table 4 towards N(0, I); unused by the Gaussian PILGD.
        hypotheses: L of eq. 12.
        best: k of eq. 12.
        gate: b of eq. 14: the bidirectional loss applies with probability 1 - b.

    Example:
        >>> paper = LossConfig(energy=0.0, best_of=1.0, random=1.0)
        >>> paper.hypotheses, paper.best
        (8, 2)
    """

    recon3d: float = 1.0
    recon2d: float = 1.0
    nll: float = 1.0
    mode_to_mode: float = 0.1
    best_of: float = 0.0
    random: float = 0.0
    energy: float = 1.0
    adversarial: float = 0.0
    pulling_away: float = 0.1
    margin: float = 0.1
    kl: float = 0.01
    hypotheses: int = 8
    best: int = 2
    gate: float = 0.5


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

    steps: int = 40_000
    batch_size: int = 128
    warmup: float = 0.03
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    validate: int = 1000
    known_intrinsics: float = 0.5
    seed: int = 0


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
    phase1: int = 2
    phase2: int = 10
    rate1: float = 1e-3
    rate2: float = 1e-3
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
    """A training run with one optimiser, on cameras that are simulated as it goes.

    Attributes:
        rate: Peak learning rate.
        simulator: What varies in the data.
    """

    rate: float = 1e-3
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)


@dataclass(frozen=True)
class LiftingLossConfig:
    """Weights of the losses of the lifting flow (ProHMR, sec. 3.6).

    Attributes:
        nll: Negative log-likelihood per coordinate, in standardised units.
        mode: Mean per-joint error of the mode (the centre where no mode is known), metres.
        energy: Energy score of samples, ours: a proper score in metres, which the eye and the
            benchmarks see, where the likelihood also sees millimetres.
        samples: Samples of the energy score.
        noise: Standard deviation of the noise on the training poses, metres: it keeps the density
            of bones of constant length from growing without bound.
    """

    nll: float = 1.0
    mode: float = 5.0
    energy: float = 0.0
    samples: int = 4
    noise: float = 0.005


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
        sample2d: L1 distance of one sample's projected joints from the keypoints, in normalised
            keypoints (eq. 6, the expectation term, by reparametrisation).
        mode2d: The same of the mode.
        mode3d: Mean distance of the mode's root-relative joints, metres (eq. 8).
        rotation: Squared error of the mode's rotation matrices (eq. 8).
        shape: Squared error of the shape coefficients.
        orthogonality: Of the 6D numbers of samples and mode (eq. 9).
        energy: Energy score of the samples' root-relative joints, metres: ours, a proper score.
        samples: Samples of the energy score.
        adversarial: Generator's part of the LSGAN prior on samples (eq. 10).
        noise: Standard deviation of the noise on the training rotations' 6D numbers.

    Example:
        >>> BodyLossConfig().adversarial
        0.0
    """

    nll: float = 0.2
    sample2d: float = 0.3
    mode2d: float = 0.3
    mode3d: float = 5.0
    rotation: float = 1.0
    shape: float = 0.05
    orthogonality: float = 1.0
    energy: float = 5.0
    samples: int = 4
    adversarial: float = 0.0
    noise: float = 0.005


@dataclass(frozen=True)
class BodyRunConfig(RunConfig):
    """What every training run of ProHMR depends on, whatever its evidence.

    Attributes:
        rate: Peak learning rate.
        only_2d: Share of the items whose body in 3D is held back, as if only keypoints were known.
        model: Sizes and variants of the model.
        loss: Weights of the losses.
    """

    rate: float = 1e-3
    only_2d: float = 0.0
    model: ProHMRConfig = field(default_factory=ProHMRConfig)
    loss: BodyLossConfig = field(default_factory=BodyLossConfig)


@dataclass(frozen=True)
class BodyTrainConfig(BodyRunConfig):
    """A training run of ProHMR from simulated keypoints.

    Attributes:
        simulator: What varies in the data.
    """

    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)


AnyConfig = TypeVar("AnyConfig", bound=RunConfig)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The configuration as plain values, ready for JSON.

    Example:
        >>> to_dict(TrainConfig())["loss"]["nll"]
        1.0
    """
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: dict[str, Any], *, default: AnyConfig) -> AnyConfig:
    """A configuration from plain values; what is left out keeps the default's value.

    Raises:
        InputError: If a name is unknown or a value does not fit, naming it.

    Example:
        >>> from_dict({"steps": 100, "loss": {"energy": 0.5}}, default=TrainConfig()).loss.energy
        0.5
    """
    config = _merge(default, values, "")
    check_ranges(config, default)
    return config


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
    try:
        values = json.loads(path.read_text())
    # Too deep a nesting is a RecursionError, too long a number or wrong UTF-8 a ValueError.
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected a JSON configuration ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return from_dict(values, default=default)


def _float(value: float, name: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise InputError(f"configuration: {name} is too large") from None


def _merge(default: Any, values: dict[str, Any], where: str) -> Any:
    kinds = get_type_hints(type(default))
    changes: dict[str, Any] = {}
    for name, value in values.items():
        if name not in kinds:
            raise InputError(
                f"configuration: unknown name {(where + name)[:80]!r}, expected one of "
                f"{', '.join(sorted(kinds))}"
            )
        old = getattr(default, name)
        if dataclasses.is_dataclass(old):
            if not isinstance(value, dict):
                raise InputError(f"configuration: {where + name} must be an object")
            changes[name] = _merge(old, value, f"{where}{name}.")
        elif isinstance(old, tuple):
            if not isinstance(value, list) or len(value) != len(old):
                raise InputError(f"configuration: {where + name} must be {len(old)} numbers")
            if not all(type(v) in (int, float) for v in value):
                raise InputError(f"configuration: {where + name} must be {len(old)} numbers")
            changes[name] = tuple(_float(v, where + name) for v in value)
        elif isinstance(old, float) and type(value) in (int, float):
            changes[name] = _float(value, where + name)
        elif type(value) is type(old):
            changes[name] = value
        else:
            raise InputError(
                f"configuration: {where + name} must be {type(old).__name__}, got "
                f"{textwrap.shorten(repr(value), 80)}"
            )
    try:
        return dataclasses.replace(default, **changes)
    except ValueError as error:
        raise InputError(f"configuration: {error}") from None


@dataclass(frozen=True)
class LikelihoodLossConfig:
    """Weights of the losses of a distribution with an exact density; 0 leaves a term out.

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
