"""Trainer of ProHMR, on items with and without a 3D body."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..bodies import Body, SkeletonBody
from ..errors import InputError
from ..geometry.camera import project
from ..geometry.rotations import matrix_from_6d, sixd_from_matrix
from ..models.discriminators import BodyDiscriminator
from ..models.evidence import Evidence, camera_in_keypoints, keypoint_evidence, weak_to_translation
from ..models.prohmr import ProHMR
from . import objectives
from .configs import BodyRunConfig, BodyTrainConfig
from .parallel import SharedTrainer
from .simulation import BodyBatch, BodySimulator


@dataclass(frozen=True)
class BodyPairs:
    """A batch as the networks see it.

    Attributes:
        evidence: Features `(B, n)` with the center and scale of their normalization, for focal
            length 1.
        theta: Local rotations `(B, K, 3, 3)`, the first in the evidence's axes.
        shape: `(B, S)`.
        joints: Root-relative Human3.6M-17 joints but the root `(B, 16, 3)`, meters, same axes.
        visible: `(B, 17)` bool.
        has_body: `(B,)` bool, whose theta, shape and joints are known.
    """

    evidence: Evidence
    theta: Tensor
    shape: Tensor
    joints: Tensor
    visible: Tensor
    has_body: Tensor


def prepare_bodies(batch: BodyBatch, known: Tensor, has_body: Tensor) -> BodyPairs:
    """Turns simulated or recorded pairs into evidence.

    Args:
        batch: Keypoints for focal length 1 and principal point 0, with bodies in camera axes.
        known: `(B,)` bool, whose intrinsics the model is told.
        has_body: `(B,)` bool, whose bodies may be learned from.
    """
    plain = keypoint_evidence(batch.p2d, batch.confidence)
    told = keypoint_evidence(batch.p2d, batch.confidence, focal=1.0)
    if told.rotation is None or plain.center is None or told.center is None:
        raise InputError("expected evidence with a rotation where intrinsics are told")
    eye = torch.eye(3, dtype=batch.p2d.dtype, device=batch.p2d.device)
    turn = torch.where(known[:, None, None], told.rotation, eye)
    center = torch.where(known[:, None], told.center, plain.center)
    scale = torch.where(known, told.scale, plain.scale)  # type: ignore[arg-type]
    features = torch.where(known[:, None], told.features, plain.features)
    theta = torch.cat([(turn @ batch.theta[:, 0])[:, None], batch.theta[:, 1:]], 1)
    return BodyPairs(
        Evidence(features, None, center, scale),
        theta,
        batch.shape,
        (batch.p3d @ turn.mT)[:, 1:],
        batch.confidence > 0,
        has_body,
    )


class BodyTrainer(SharedTrainer):
    """One training state: model, discriminator, optimizers and random generator.

    Args:
        model: The model that is trained, in place.
        config: The run.
        device: Where the model lives.
        body: The body whose joints are compared.
    """

    terms: tuple[str, ...] = (
        "nll", "sample2d", "mode2d", "mode3d", "rotation", "shape", "orthogonality", "energy",
        "adversarial", "discriminator",
    )  # fmt: skip
    steps_per_round = 1

    def __init__(
        self,
        model: ProHMR,
        config: BodyRunConfig,
        device: torch.device | str,
        *,
        body: Body,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.body = body.to(device)
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.discriminator = BodyDiscriminator(config.model.joints, config.model.shape).to(device)
        self.optimizer = self._adam(model)
        self.optimizer_d = self._adam(self.discriminator)

    def prepare(self, batches: int = 20) -> None:
        """Fits every ActNorm to simulated poses."""
        pairs = [self._draw() for _ in range(batches)]
        theta = torch.cat([self._target(pair) for pair in pairs])
        with torch.no_grad():
            context = torch.cat([self._context(pair) for pair in pairs])
        self.model.flow.transform.fit_actnorm(theta, context)

    def set_rate(self, factor: float) -> None:
        """Sets all learning rates to `factor` times their peak."""
        for optimizer in (self.optimizer, self.optimizer_d):
            for group in optimizer.param_groups:
                group["lr"] = factor * self.config.rate

    def updates(self) -> list[Callable[[], dict[str, float]]]:
        """One batch."""
        return [self.step]

    def parts(self) -> dict[str, Any]:
        """Everything with a `state_dict`."""
        return {
            "model": self.model,
            "discriminator": self.discriminator,
            "optimiser": self.optimizer,
            "optimiser_d": self.optimizer_d,
        }

    def generators(self) -> dict[str, torch.Generator]:
        """Of the data."""
        return {"data": self.generator}

    def step(self) -> dict[str, float]:
        """One batch of all losses (ProHMR, eq. 5-10).

        Raises:
            FloatingPointError: If the loss is no longer finite.
        """
        pairs = self._batch()
        losses, fake = self._together(self.model, self.losses, pairs)
        total = torch.stack(list(losses.values())).sum()
        if not bool(torch.isfinite(total)):
            raise FloatingPointError(f"the loss became {total.item()}; lower the learning rate")
        self._update(total, self.optimizer, self.model)
        if self.config.loss.adversarial:
            loss = self._together(self.discriminator, self._discriminator_loss, pairs, fake)
            self._update(loss, self.optimizer_d, self.discriminator)
            losses["discriminator"] = loss
        return {name: value.item() for name, value in losses.items()}

    def losses(self, pairs: BodyPairs) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """The generator's losses of a batch by name, and the sample that the adversary judges."""
        return self._losses(_without_unknown(pairs), self._context(pairs))

    def _discriminator_loss(self, pairs: BodyPairs, fake: tuple[Tensor, Tensor]) -> Tensor:
        real = self.discriminator(pairs.theta[pairs.has_body], pairs.shape[pairs.has_body])
        return objectives.lsgan_discriminator_loss(real, self.discriminator(*fake)[: len(real)])

    @abstractmethod
    def _context(self, pairs: BodyPairs) -> Tensor:
        """The encoder's answer to a batch."""

    @abstractmethod
    def _draw(self) -> BodyPairs:
        """The next batch."""

    def _losses(
        self, pairs: BodyPairs, context: Tensor
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        loss, has = self.config.loss, pairs.has_body
        distribution = self.model.vector_distribution(context)
        shape, weak = self.model.shape_and_camera(context)
        mode = distribution.center.unflatten(-1, (-1, 6))
        count = max(1, loss.samples if loss.energy else 1)
        samples = distribution.rsample((count,)).unflatten(-1, (-1, 6))
        mode_theta, theta = matrix_from_6d(mode), matrix_from_6d(samples)
        place = weak_to_translation(camera_in_keypoints(weak, pairs.evidence))
        mode_joints, joints = self._joints(mode_theta, shape), self._joints(theta, shape)
        losses = {}
        if loss.nll:
            nll = -distribution.log_prob(self._target(pairs)) / mode[0].numel()
            losses["nll"] = loss.nll * objectives.masked_mean(nll, has)
        if loss.sample2d:
            losses["sample2d"] = loss.sample2d * self._keypoints(pairs, joints[0], place)
        if loss.mode2d:
            losses["mode2d"] = loss.mode2d * self._keypoints(pairs, mode_joints, place)
        if loss.mode3d:
            error = _root_relative(mode_joints) - pairs.joints
            distance = (error.square().sum(-1) + 1e-12).sqrt()
            losses["mode3d"] = loss.mode3d * objectives.masked_mean(distance, has)
        if loss.rotation:
            losses["rotation"] = loss.rotation * objectives.rotation_error(
                pairs.theta, mode_theta, has
            )
        if loss.shape:
            losses["shape"] = loss.shape * objectives.masked_mean(
                (shape - pairs.shape).square(), has
            )
        if loss.orthogonality:
            losses["orthogonality"] = loss.orthogonality * (
                objectives.orthogonality(samples) + objectives.orthogonality(mode)
            )
        if loss.energy and bool(has.any()):
            score = objectives.energy_score(_root_relative(joints)[:, has], pairs.joints[has])
            losses["energy"] = loss.energy * score
        if loss.adversarial:
            scores = self.discriminator(theta[0], shape)
            losses["adversarial"] = loss.adversarial * objectives.lsgan_generator_loss(scores)
        return losses, (theta[0].detach(), shape.detach())

    def _target(self, pairs: BodyPairs) -> Tensor:
        """The rotations' 6D numbers `(B, 6 K)`, noised so that their density stays finite."""
        sixd = sixd_from_matrix(pairs.theta).flatten(-2)
        noise = torch.randn(sixd.shape, generator=self.generator, device=sixd.device)
        return sixd + self.config.loss.noise * noise

    def _joints(self, theta: Tensor, shape: Tensor) -> Tensor:
        return self.body.regress(self.body(theta, shape))

    def _keypoints(self, pairs: BodyPairs, joints: Tensor, place: Tensor) -> Tensor:
        evidence = pairs.evidence
        if evidence.center is None or evidence.scale is None:
            raise InputError("expected evidence with the center and scale of its normalization")
        # Far outside the image the loss is no guide: nearer than 0.3 m counts as 0.3 m.
        seen = project(joints + place[:, None], focal=1.0, near=0.3)
        seen = (seen - evidence.center[:, None]) / evidence.scale[:, None, None]
        p2d = evidence.features[:, : 2 * joints.shape[-2]].unflatten(-1, (-1, 2))
        return objectives.keypoints2d(p2d, seen, pairs.visible)

    def _adam(self, module: nn.Module) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            module.parameters(),
            lr=self.config.rate,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def _update(self, total: Tensor, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(module.parameters(), self.config.clip)
        optimizer.step()


class ProHMRTrainer(BodyTrainer):
    """Training from simulated keypoints.

    Args:
        model: The model that is trained, in place.
        config: The run.
        simulator: Source of pairs.
        device: Where model and data live.
        body: The body whose joints are compared.

    Example:
        >>> from propose_prob.datasets import load_cmu_body
        >>> bodies = load_cmu_body("val")
        >>> source = BodySimulator(bodies.theta[:50], torch.zeros(50, 10))
        >>> trainer = ProHMRTrainer(ProHMR(), BodyTrainConfig(batch_size=8), source)
        >>> sorted(trainer.step())[:4]
        ['energy', 'mode2d', 'mode3d', 'nll']
    """

    def __init__(
        self,
        model: ProHMR,
        config: BodyTrainConfig,
        simulator: BodySimulator,
        device: torch.device | str = "cpu",
        *,
        body: Body | None = None,
    ) -> None:
        self.settings = config
        self.simulator = simulator
        super().__init__(model, config, device, body=body or SkeletonBody())

    def _context(self, pairs: BodyPairs) -> Tensor:
        return self.model.encoder(pairs.evidence.features)

    def _draw(self) -> BodyPairs:
        batch = self.simulator(self.settings.batch_size, self.generator)
        draw = torch.rand(2, len(batch.p2d), generator=self.generator, device=self.generator.device)
        return prepare_bodies(
            batch, draw[0] < self.settings.known_intrinsics, draw[1] >= self.settings.only_2d
        )


def _without_unknown(pairs: BodyPairs) -> BodyPairs:
    """The pairs with a body at rest wherever none is known.

    A NaN that a mask takes out of a loss would still reach its gradient.
    """
    has = pairs.has_body
    rest = torch.eye(3, dtype=pairs.theta.dtype, device=pairs.theta.device)
    return dataclasses.replace(
        pairs,
        theta=torch.where(has[:, None, None, None], pairs.theta, rest),
        shape=torch.where(has[:, None], pairs.shape, 0),
        joints=torch.where(has[:, None, None], pairs.joints, 0),
    )


def _root_relative(joints: Tensor) -> Tensor:
    return joints[..., 1:, :] - joints[..., :1, :]
