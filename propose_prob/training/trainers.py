"""Trainers of models over 3D joints: ProPose (Algorithm 1), lifting flow, baselines."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ..distributions.flow import diagonal_normal
from ..models import ConditionalVAE, MixtureDensity, RegressionBaseline, ScoreDiffusion
from ..models.base import KeypointModel
from ..models.discriminators import PoseDiscriminator
from ..models.evidence import Evidence, keypoint_evidence
from ..models.lifting_flow import LiftingFlow
from ..models.propose import ProPose
from . import objectives
from .configs import TrainConfig
from .parallel import SharedTrainer
from .simulation import Simulator


@dataclass(frozen=True)
class Pairs:
    """A batch as the networks see it.

    Attributes:
        features: Evidence `(B, n)`.
        joints: Poses without their root in the evidence's axes, `(B, J - 1, 3)` meters.
        visible: `(B, J)` bool.
    """

    features: Tensor
    joints: Tensor
    visible: Tensor


def prepare(p2d: Tensor, confidence: Tensor, p3d: Tensor, known: Tensor) -> Pairs:
    """Turns simulated or recorded pairs into evidence.

    Args:
        p2d: Image points `(B, J, 2)` for focal length 1 and principal point 0.
        confidence: `(B, J)`.
        p3d: Root-relative joints `(B, J, 3)`, meters, camera axes; the root comes first.
        known: `(B,)` bool, whose intrinsics the model is told.
    """
    plain = keypoint_evidence(p2d, confidence)
    told = keypoint_evidence(p2d, confidence, focal=1.0)
    turned = p3d if told.rotation is None else p3d @ told.rotation.mT
    return Pairs(
        torch.where(known[:, None], told.features, plain.features),
        torch.where(known[:, None, None], turned, p3d)[:, 1:],
        confidence > 0,
    )


class ProPoseTrainer(SharedTrainer):
    """One training state: model, discriminator, optimizers and random generators.

    Args:
        model: The model that is trained, in place.
        config: The run.
        simulator: Source of pairs.
        device: Where model and data live.

    Example:
        >>> from propose_prob.datasets import load_cmu17
        >>> simulator = Simulator(load_cmu17("val").world[:50])
        >>> trainer = ProPoseTrainer(ProPose(), TrainConfig(batch_size=8), simulator)
        >>> sorted(trainer.step1())
        ['energy', 'recon3d']
    """

    def __init__(
        self,
        model: ProPose,
        config: TrainConfig,
        simulator: Simulator,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.simulator = simulator
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.gate_generator = torch.Generator().manual_seed(config.seed + 1)
        features = 3 * model.config.joints + 2
        self.discriminator = PoseDiscriminator(len(model.pose_mean), features).to(device)
        groups = self.parameter_groups()
        self.optimizer1 = self._adam(groups["phase1"], config.rate1)
        self.optimizer2 = self._adam(groups["phase2"], config.rate2)
        self.optimizer_d = self._adam(list(self.discriminator.parameters()), config.rate1)

    terms: tuple[str, ...] = (
        "recon3d", "kl", "adversarial", "discriminator", "best_of", "random", "energy", "recon2d",
        "nll", "mode_to_mode",
    )  # fmt: skip

    @property
    def steps_per_round(self) -> int:
        """Steps are counted in batches of phase 2."""
        return 1 if self.config.schedule == "end_to_end" else self.config.phase2

    def updates(self) -> list[Callable[[], dict[str, float]]]:
        """One turn of both phases (Algorithm 1), or one end-to-end batch."""
        config = self.config
        if config.schedule == "end_to_end":
            return [self.step_end_to_end]
        return [self.step1] * config.phase1 + [self.step2] * config.phase2

    def parts(self) -> dict[str, Any]:
        """Everything with a `state_dict`."""
        return {
            "model": self.model,
            "discriminator": self.discriminator,
            "optimiser1": self.optimizer1,
            "optimiser2": self.optimizer2,
            "optimiser_d": self.optimizer_d,
        }

    def generators(self) -> dict[str, torch.Generator]:
        """Of the data, and of the gate."""
        return {"data": self.generator, "gate": self.gate_generator}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Phase 1 moves g and k, phase 2 moves q, v, h and f (Algorithm 1)."""
        m = self.model
        return {
            "phase1": [*m.pilgd.parameters(), *m.decoder.parameters()],
            "phase2": [
                *m.encoder2d.parameters(),
                *m.decoder2d.parameters(),
                *m.flow.parameters(),
            ],
        }

    def prepare(self, batches: int = 20) -> None:
        """Sets mean and deviation of the pose vector from simulated poses."""
        joints = torch.cat([self._draw().joints.flatten(1) for _ in range(batches)])
        self.model.pose_mean.copy_(joints.mean(0))
        self.model.pose_std.copy_(joints.std(0))

    def set_rate(self, factor: float) -> None:
        """Sets all learning rates to `factor` times their peak."""
        for optimizer, peak in (
            (self.optimizer1, self.config.rate1),
            (self.optimizer2, self.config.rate2),
            (self.optimizer_d, self.config.rate1),
        ):
            for group in optimizer.param_groups:
                group["lr"] = factor * peak

    def step1(self) -> dict[str, float]:
        """One batch of phase 1: recon3D, the gated bidirectional loss, the adversarial part."""
        pairs = self._batch()
        self._freeze("phase2", True)
        losses = self._together(self.model, self._generator_losses, pairs)
        self._update(torch.stack(list(losses.values())).sum(), self.optimizer1, "phase1")
        self._freeze("phase2", False)
        if self.config.loss.adversarial:
            losses["discriminator"] = self._discriminator_step(pairs)
        return {name: value.item() for name, value in losses.items()}

    def step2(self) -> dict[str, float]:
        """One batch of phase 2: recon2D, NLL and mode-to-mode; w and mu_3D are detached."""
        pairs = self._batch()
        with torch.no_grad():
            pilgd = self.model.embed(pairs.joints, pairs.features)
            w, mu = pilgd.sample(), pilgd.mean
        losses = self._together(self.model, self._flow_losses, pairs, w, mu)
        self._update(torch.stack(list(losses.values())).sum(), self.optimizer2, "phase2")
        return {name: value.item() for name, value in losses.items()}

    def step_end_to_end(self) -> dict[str, float]:
        """One batch in which all parameters move together (Table 6)."""
        pairs = self._batch()
        losses = self._together(self.model, self._all_losses, pairs)
        self.optimizer1.zero_grad(set_to_none=True)
        self._update(
            torch.stack(list(losses.values())).sum(), self.optimizer2, "phase2", step=False
        )
        self._apply(self.optimizer1, "phase1")
        self._apply(self.optimizer2, "phase2")
        if self.config.loss.adversarial:
            losses["discriminator"] = self._discriminator_step(pairs)
        return {name: value.item() for name, value in losses.items()}

    def _all_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        losses = self._generator_losses(pairs)
        pilgd = self.model.embed(pairs.joints, pairs.features)
        return losses | self._flow_losses(pairs, pilgd.rsample(), pilgd.mean)

    def _generator_losses(self, pairs: Pairs) -> dict[str, Tensor]:
        loss, model = self.config.loss, self.model
        pilgd = model.embed(pairs.joints, pairs.features)
        decode = model.bind_decoder(pairs.features)
        decoded = decode(pilgd.rsample())
        losses = {"recon3d": loss.recon3d * objectives.recon3d(pairs.joints, decoded)}
        if model.config.pilgd == "vae":
            losses["kl"] = loss.kl * objectives.kl_to_standard(pilgd)
        if loss.adversarial:
            energy, codes = self.discriminator(model.standardize(decoded), pairs.features)
            pull = loss.pulling_away * objectives.pulling_away(codes)
            losses["adversarial"] = loss.adversarial * (objectives.generator_loss(energy) + pull)
        bidirectional = loss.best_of + loss.random + loss.energy
        if bidirectional and objectives.gate(loss.gate, self.gate_generator):
            latent = model.latent_distribution(pairs.features).rsample((loss.hypotheses,))
            hypotheses = decode(latent)
            if loss.best_of:
                losses["best_of"] = loss.best_of * objectives.best_of_m(
                    hypotheses, pairs.joints, k=loss.best
                )
            if loss.random:
                losses["random"] = loss.random * objectives.random_hypothesis(
                    hypotheses, pairs.joints
                )
            if loss.energy:
                losses["energy"] = loss.energy * objectives.energy_score(hypotheses, pairs.joints)
        return losses

    def _flow_losses(self, pairs: Pairs, w: Tensor, mu: Tensor) -> dict[str, Tensor]:
        loss, model = self.config.loss, self.model
        code = model.encoder2d(pairs.features)
        n = 2 * model.config.joints
        p2d = pairs.features[:, :n].unflatten(-1, (-1, 2))
        decoded = model.decoder2d(code).unflatten(-1, (-1, 2))
        losses = {"recon2d": loss.recon2d * objectives.recon2d(p2d, decoded, pairs.visible)}
        distribution = model.flow(code)
        if loss.nll:
            losses["nll"] = loss.nll * objectives.negative_log_likelihood(distribution, w)
        if loss.mode_to_mode:
            losses["mode_to_mode"] = loss.mode_to_mode * objectives.mode_to_mode(
                distribution.transform.inv(mu), distribution.base_dist.mean
            )
        return losses

    def _discriminator_step(self, pairs: Pairs) -> Tensor:
        value = self._together(self.discriminator, self._discriminator_loss, pairs)
        self.optimizer_d.zero_grad(set_to_none=True)
        value.backward()
        self.optimizer_d.step()
        return value

    def _discriminator_loss(self, pairs: Pairs) -> Tensor:
        model, loss = self.model, self.config.loss
        with torch.no_grad():
            latent = model.embed(pairs.joints, pairs.features).sample()
            fake = model.standardize(model.bind_decoder(pairs.features)(latent))
        real_energy, _ = self.discriminator(model.standardize(pairs.joints), pairs.features)
        fake_energy, _ = self.discriminator(fake, pairs.features)
        return objectives.discriminator_loss(real_energy, fake_energy, margin=loss.margin)

    def _draw(self) -> Pairs:
        batch = self.simulator(self.config.batch_size, self.generator)
        known = torch.rand(len(batch.p2d), generator=self.generator, device=self.generator.device)
        known = known < self.config.known_intrinsics
        return prepare(batch.p2d, batch.confidence, batch.p3d, known)

    def _freeze(self, group: str, frozen: bool) -> None:
        for parameter in self.parameter_groups()[group]:
            parameter.requires_grad_(not frozen)

    def _update(
        self, total: Tensor, optimizer: torch.optim.Optimizer, group: str, *, step: bool = True
    ) -> None:
        if not bool(torch.isfinite(total)):
            raise FloatingPointError(f"the loss became {total.item()}; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        if step:
            self._apply(optimizer, group)

    def _apply(self, optimizer: torch.optim.Optimizer, group: str) -> None:
        nn.utils.clip_grad_norm_(self.parameter_groups()[group], self.config.clip)
        optimizer.step()

    def _adam(self, parameters: list[nn.Parameter], rate: float) -> torch.optim.AdamW:
        # Fused: the plain update of five million numbers costs a tenth of a step on a CPU.
        return torch.optim.AdamW(
            parameters, lr=rate, weight_decay=self.config.weight_decay, fused=True
        )


Model = TypeVar("Model", bound=nn.Module)


class SingleTrainer(SharedTrainer, Generic[Model]):
    """One training state: model, optimizer and random generator.

    Args:
        model: The model that is trained, in place.
        config: The run; has `rate`, the peak learning rate, besides what every run has.
        simulator: Source of pairs.
        device: Where model and data live.
    """

    terms: tuple[str, ...]
    steps_per_round = 1

    def __init__(
        self,
        model: Model,
        config: Any,
        simulator: Simulator,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.simulator = simulator
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.rate, weight_decay=config.weight_decay, fused=True
        )

    @abstractmethod
    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted losses of a batch by name; their sum is minimized."""

    @abstractmethod
    def fit_units(self, joints: Tensor, features: Tensor) -> None:
        """Sets the model's units from poses `(n, J - 1, 3)` and their evidence `(n, m)`."""

    def prepare(self, batches: int = 20) -> None:
        """Sets the model's units from simulated poses."""
        pairs = [self._draw() for _ in range(batches)]
        self.fit_units(
            torch.cat([pair.joints for pair in pairs]), torch.cat([pair.features for pair in pairs])
        )

    def set_rate(self, factor: float) -> None:
        """Sets the learning rate to `factor` times its peak."""
        for group in self.optimizer.param_groups:
            group["lr"] = factor * self.config.rate

    def updates(self) -> list[Callable[[], dict[str, float]]]:
        """One batch."""
        return [self.step]

    def parts(self) -> dict[str, Any]:
        """Everything with a `state_dict`."""
        return {"model": self.model, "optimiser": self.optimizer}

    def generators(self) -> dict[str, torch.Generator]:
        """Of the data."""
        return {"data": self.generator}

    def step(self) -> dict[str, float]:
        """One batch of all losses.

        Raises:
            FloatingPointError: If they are not finite.
        """
        losses = self._together(self.model, self.losses, self._batch())
        total = torch.stack(list(losses.values())).sum()
        if not bool(torch.isfinite(total)):
            raise FloatingPointError(f"the loss became {total.item()}; lower the learning rate")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        return {name: value.item() for name, value in losses.items()}

    def _draw(self) -> Pairs:
        batch = self.simulator(self.config.batch_size, self.generator)
        known = torch.rand(len(batch.p2d), generator=self.generator, device=self.generator.device)
        known = known < self.config.known_intrinsics
        return prepare(batch.p2d, batch.confidence, batch.p3d, known)


class LiftingTrainer(SingleTrainer[LiftingFlow]):
    """NLL, mode and energy score (ProHMR, eq. 5-8, for joints); runs of `LiftingTrainConfig`."""

    terms: tuple[str, ...] = ("nll", "mode", "energy")

    def fit_units(self, joints: Tensor, features: Tensor) -> None:
        """Sets the coordinates' units, and every ActNorm."""
        self.model.fit_standardizer(joints, features)

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted losses of a batch by name."""
        loss, distribution = self.config.loss, self.model.vector_distribution(pairs.features)
        losses = {}
        if loss.nll:
            noise = torch.randn(
                pairs.joints.shape, generator=self.generator, device=pairs.joints.device
            )
            target = (pairs.joints + loss.noise * noise).flatten(-2)
            # In standardized units, so that the weight does not depend on the unit of length.
            units = self.model.standardiser.log_scale.mean()
            nll = objectives.negative_log_likelihood(distribution, target)
            losses["nll"] = loss.nll * (nll - units)
        if loss.mode:
            mode = distribution.center.unflatten(-1, (-1, 3))
            losses["mode"] = loss.mode * objectives.recon3d(pairs.joints, mode)
        if loss.energy:
            poses = distribution.rsample((loss.samples,)).unflatten(-1, (-1, 3))
            losses["energy"] = loss.energy * objectives.energy_score(poses, pairs.joints)
        return losses


Baseline = TypeVar("Baseline", bound=KeypointModel)


class _BaselineTrainer(SingleTrainer[Baseline]):
    """What the trainers of baselines share."""

    def fit_units(self, joints: Tensor, features: Tensor) -> None:
        """Sets the coordinates' units; the evidence has its own."""
        self.model.fit_standardizer(joints)

    def _point(self, pairs: Pairs, point: Tensor) -> Tensor:
        """Weighted error of point estimates `(B, J - 1, 3)`."""
        return self.config.loss.point * objectives.recon3d(pairs.joints, point)

    def _units(self) -> Tensor:
        """Takes nats of meters to those of standardized units, per coordinate."""
        return self.model.standardiser.log_scale.mean()


class LikelihoodTrainer(_BaselineTrainer[RegressionBaseline | MixtureDensity]):
    """Likelihood and point estimate of a distribution with an exact density.

    Runs of `RegressionTrainConfig` or `MixtureTrainConfig`.
    """

    terms: tuple[str, ...] = ("nll", "point")

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted losses of a batch by name."""
        loss, distribution = (
            self.config.loss,
            self.model.distribution(Evidence(pairs.features, None)),
        )
        losses = {}
        if loss.nll:
            root = torch.zeros_like(pairs.joints[:, :1])
            log_prob = distribution.log_prob(torch.cat([root, pairs.joints], 1)).mean()
            losses["nll"] = -loss.nll * (log_prob / pairs.joints[0].numel() + self._units())
        if loss.point:
            losses["point"] = self._point(pairs, distribution.point_estimate[:, 1:])
        return losses


class VariationalTrainer(_BaselineTrainer[ConditionalVAE]):
    """Evidence lower bound and point estimate; runs of `VariationalTrainConfig`."""

    terms: tuple[str, ...] = ("elbo", "point")

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted losses of a batch by name."""
        loss, model = self.config.loss, self.model
        decode = model.bind_decoder(pairs.features)
        losses = {}
        if loss.elbo:
            posterior = model.embed(pairs.joints, pairs.features)
            w = posterior.rsample()
            scale = model.noise_scale[:, None].expand(pairs.joints.shape[1:])
            seen = diagonal_normal(decode(w).flatten(-2), scale.flatten())
            kl = kl_divergence(posterior, model.flow.base(pairs.features))
            bound = (seen.log_prob(pairs.joints.flatten(-2)) - kl).mean()
            losses["elbo"] = -loss.elbo * (bound / pairs.joints[0].numel() + self._units())
        if loss.point:
            center = model.flow(pairs.features).center
            losses["point"] = self._point(pairs, decode(center))
        return losses


class DiffusionTrainer(_BaselineTrainer[ScoreDiffusion]):
    """Denoising at random noise levels, and point estimate; runs of `DiffusionTrainConfig`."""

    terms: tuple[str, ...] = ("denoise", "point")

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted losses of a batch by name."""
        loss, model = self.config.loss, self.model
        denoise = model.bind_denoiser(pairs.features)
        unit = model.standardiser()
        losses = {}
        if loss.denoise:
            clean = unit.inv(pairs.joints.flatten(-2))
            shape = (loss.draws, *clean.shape)
            noise = torch.empty(shape, dtype=clean.dtype, device=clean.device)
            noise.normal_(generator=self.generator)
            # Evenly in the logarithm: what the distribution is decided by differs from joint to
            # joint.
            ends = [math.log(level) for level in (model.config.smallest, model.config.largest)]
            level = noise[..., :1].clone().uniform_(*ends, generator=self.generator).exp()
            weight = 1 + level.square().reciprocal()
            error = weight * (denoise(clean + level * noise, level) - clean).square()
            losses["denoise"] = loss.denoise * error.mean()
        if loss.point:
            zero = torch.zeros_like(pairs.joints).flatten(-2)
            largest = zero.new_tensor(model.config.largest)
            point = unit(denoise(zero, largest)).unflatten(-1, (-1, 3))
            losses["point"] = self._point(pairs, point)
        return losses
