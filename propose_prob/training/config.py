"""Everything that a training run depends on, as one typed object."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..data.simulate import SimulatorConfig
from ..models.propose import ProPoseConfig


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
class TrainConfig:
    """A training run of ProPose.

    Attributes:
        schedule: `"alternate"` (Algorithm 1) or `"end_to_end"` (Table 6).
        steps: Batches of each phase.
        phase1: Batches of phase 1 in a row (N_p1).
        phase2: Batches of phase 2 in a row (N_p2).
        batch_size: Pairs a batch.
        rate1: Peak learning rate of phase 1 (g and k).
        rate2: Peak learning rate of phase 2 (q, v, h and f).
        warmup: Share of the steps with a rising rate; a cosine follows.
        weight_decay: Of AdamW.
        clip: Largest gradient norm.
        average: Decay of the exponential average of the weights that is evaluated and saved.
        known_intrinsics: Share of the pairs whose camera intrinsics the model is told.
        seed: Of everything random.
        model: Sizes and variants of the model.
        loss: Weights of the losses.
        simulator: What varies in the data.
    """

    schedule: str = "alternate"
    steps: int = 20_000
    phase1: int = 10
    phase2: int = 10
    batch_size: int = 256
    rate1: float = 5e-4
    rate2: float = 5e-4
    warmup: float = 0.03
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.999
    known_intrinsics: float = 0.5
    seed: int = 0
    model: ProPoseConfig = field(default_factory=ProPoseConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    simulator: SimulatorConfig = field(default_factory=SimulatorConfig)

    def __post_init__(self) -> None:
        if self.schedule not in ("alternate", "end_to_end"):
            raise ValueError(
                f"expected schedule 'alternate' or 'end_to_end', got {self.schedule!r}"
            )
        if self.schedule == "alternate" and self.loss.nll == 0:
            raise ValueError("without the NLL the flow only learns end to end: set schedule")
