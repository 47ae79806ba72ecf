"""Validation sets: scores during training, and what is fitted on them after it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..bodies import Body, SkeletonBody
from ..datasets.cmu17 import CMU17, FOCAL
from ..datasets.cmu_body import CMUBody
from ..errors import InputError
from ..evaluation import CalibrationCurve
from ..geometry.rotations import matrix_from_6d
from ..models.evidence import Evidence
from ..models.prohmr import ProHMR
from ..models.propose import ProPose
from .body_trainer import BodyPairs, prepare_bodies
from .objectives import energy_score
from .simulation import BodyBatch, BodySimulator, Simulator
from .trainers import Pairs, prepare


class Lifter(Protocol):
    """A model whose distribution over 3D joints can be watched."""

    def distribution(self, evidence: Evidence) -> Any:
        """The distribution given prepared evidence; has `sample` and `point_estimate`."""


class Scores(NamedTuple):
    """Validation scores in millimeters.

    Attributes:
        point: Mean per-joint error of the point estimate, all joints.
        energy: Energy score of the distribution, joints and whole pose (see
            `objectives.energy_score`).
    """

    point: float
    energy: float


@dataclass(frozen=True)
class Validation:
    """Held-out pairs, prepared once.

    Attributes:
        pairs: Evidence and poses.
        noisy: `(B,)` bool, which pairs have detector noise, where that is known.
    """

    pairs: Pairs
    noisy: Tensor | None = None

    @classmethod
    def from_cmu17(cls, split: CMU17, *, items: int = 1000, seed: int = 0) -> Validation:
        """A fixed random choice of frames and views: half exact, half noisy; half with intrinsics.

        Args:
            split: A split with stored detector noise.
            items: Number of pairs.
            seed: Of the choice.
        """
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(4 * len(split), generator=generator)[:items]
        exact, noisy = (split.p2d(kind).flatten(0, 1)[chosen] for kind in ("exact", "noisy"))
        draw = torch.rand(3, len(chosen), generator=generator)
        disturbed = draw[0] < 0.5
        p2d = torch.where(disturbed[:, None, None], noisy, exact) / FOCAL
        p3d = split.p3d().flatten(0, 1)[chosen]
        pairs = prepare(p2d, torch.ones(p2d.shape[:-1]), p3d, draw[1] < 0.5)
        return cls(pairs, disturbed)

    @classmethod
    def from_simulator(
        cls, simulator: Simulator, *, items: int = 1000, seed: int = 0
    ) -> Validation:
        """Simulated pairs of held-out poses.

        Args:
            simulator: Of poses that are never trained on.
            items: Number of pairs.
            seed: Of the simulation.
        """
        generator = torch.Generator(simulator.pose.device).manual_seed(seed)
        batch = simulator(items, generator)
        known = torch.rand(items, generator=generator, device=simulator.pose.device) < 0.5
        return cls(prepare(batch.p2d, batch.confidence, batch.p3d, known))

    def to(self, device: torch.device | str) -> Validation:
        """The same pairs on another device."""
        pairs = self.pairs
        return Validation(
            Pairs(pairs.features.to(device), pairs.joints.to(device), pairs.visible.to(device)),
            None if self.noisy is None else self.noisy.to(device),
        )

    @torch.no_grad()
    def scores(self, model: Lifter, *, samples: int = 32, seed: int = 0) -> Scores:
        """Scores of a model in evaluation mode; the global random state is left as it was."""
        pairs = self.pairs
        joints = pairs.joints.shape[-2]
        with torch.random.fork_rng(devices=_cuda(pairs.features)):
            torch.manual_seed(seed)
            distribution = model.distribution(Evidence(pairs.features, None))
            point = (distribution.point_estimate[:, 1:] - pairs.joints).norm(dim=-1).mean()
            energy = energy_score(distribution.sample((samples,))[:, :, 1:], pairs.joints)
        return Scores(1e3 * float(point) * joints / (joints + 1), 1e3 * float(energy))

    def fit(self, model: Lifter) -> None:
        """Sets ProPose's observation noise; other distributions have none, or learned it."""
        if isinstance(model, ProPose):
            self.fit_noise_scale(model)

    @torch.no_grad()
    def fit_noise_scale(self, model: ProPose) -> None:
        """Sets the observation noise to the held-out reconstruction error of each joint.

        The root mean square, over poses and coordinates, of what decoding a pose's own PILGD mean
        leaves: the part of the pose that the latent does not hold.
        """
        pairs = self.pairs
        latent = model.embed(pairs.joints, pairs.features).mean
        residual = model.bind_decoder(pairs.features)(latent) - pairs.joints
        model.noise_scale.copy_(residual.square().mean((0, 2)).sqrt())

    @torch.no_grad()
    def calibration_error(self, model: Lifter, *, samples: int = 100, seed: int = 0) -> float:
        """Calibration error, the mean of exact and noisy pairs where both are there.

        Averaged so, neither kind is calibrated at the other's cost.
        """
        pairs = self.pairs
        count = len(pairs.joints)
        noisy = torch.zeros(count, dtype=torch.bool) if self.noisy is None else self.noisy.cpu()
        errors = []
        for group in (noisy, ~noisy):
            chosen = group.nonzero()[:, 0].to(pairs.joints.device)
            if len(chosen) == 0:
                continue
            curve = CalibrationCurve(pairs.joints.shape[1])
            with torch.random.fork_rng(devices=_cuda(pairs.features)):
                torch.manual_seed(seed)
                for part in chosen.split(128):
                    distribution = model.distribution(Evidence(pairs.features[part], None))
                    curve.update(distribution.sample((samples,))[:, :, 1:], pairs.joints[part])
            errors.append(curve.compute().error)
        return sum(errors) / len(errors)

    def fit_temperature(
        self, model: Lifter, candidates: tuple[float, ...] = (0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1)
    ) -> float:
        """Sets the base's temperature to the best calibrated candidate, and returns it.

        A model without a flow has no such temperature: nothing is set, and 1 is returned.
        """
        base = getattr(getattr(model, "flow", None), "base", None)
        if base is None:
            return 1.0

        def error(temperature: float) -> float:
            base.temperature.fill_(temperature)
            return self.calibration_error(model)

        best = min(candidates, key=error)
        base.temperature.fill_(best)
        return best


def _cuda(tensor: Tensor) -> list[torch.device]:
    return [tensor.device] if tensor.is_cuda else []


#: Candidates for the temperature of a distribution's base.
_TEMPERATURES = tuple(round(0.7 + 0.05 * step, 2) for step in range(19))


@dataclass(frozen=True)
class BodyValidation:
    """Held-out pairs of keypoints and bodies, prepared once.

    Attributes:
        pairs: Evidence and bodies.
        noisy: `(B,)` bool, which pairs have detector noise, where that is known.
    """

    pairs: BodyPairs
    noisy: Tensor | None = None

    @classmethod
    def from_cmu(
        cls, split: CMU17, bodies: CMUBody, *, items: int = 1000, seed: int = 0
    ) -> BodyValidation:
        """A fixed random choice of frames and views: half exact, half noisy; half with intrinsics.

        The keypoints are the retargeted bodies' own joints, seen by CMU17's cameras.

        Args:
            split: A split with stored detector noise.
            bodies: The same split's bodies.
            items: Number of pairs.
            seed: Of the choice.

        Raises:
            InputError: If the split has no stored noise.
        """
        if split.noise is None:
            raise InputError(f"expected a split with stored detector noise, got {split.split!r}")
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(4 * len(split), generator=generator)[:items]
        batch = project_bodies(split, bodies, chosen // 4, chosen % 4)
        draw = torch.rand(2, len(chosen), generator=generator)
        noisy = draw[0] < 0.5
        noise = split.noise.flatten(0, 1)[chosen] / FOCAL
        p2d = batch.p2d + torch.where(noisy[:, None, None], noise, torch.zeros_like(noise))
        batch = dataclasses.replace(batch, p2d=p2d)
        return cls(_all(batch, draw[1] < 0.5), noisy)

    @classmethod
    def from_simulator(
        cls, simulator: BodySimulator, *, items: int = 1000, seed: int = 0
    ) -> BodyValidation:
        """Simulated pairs of held-out bodies.

        Args:
            simulator: Of bodies that are never trained on.
            items: Number of pairs.
            seed: Of the simulation.
        """
        generator = torch.Generator(simulator.theta.device).manual_seed(seed)
        batch = simulator(items, generator)
        known = torch.rand(items, generator=generator, device=simulator.theta.device) < 0.5
        return cls(_all(batch, known))

    def to(self, device: torch.device | str) -> BodyValidation:
        """The same pairs on another device."""
        pairs = self.pairs
        features, _, center, scale = pairs.evidence
        evidence = Evidence(
            features.to(device),
            None,
            None if center is None else center.to(device),
            None if scale is None else scale.to(device),
        )
        tensors = {
            name: getattr(pairs, name).to(device)
            for name in ("theta", "shape", "joints", "visible", "has_body")
        }
        return BodyValidation(
            BodyPairs(evidence, **tensors), None if self.noisy is None else self.noisy.to(device)
        )

    def fit(self, model: ProHMR) -> None:
        """Nothing: an exact distribution has no observation noise."""

    @torch.no_grad()
    def scores(self, model: ProHMR, *, samples: int = 32, seed: int = 0) -> Scores:
        """Scores of a model in evaluation mode, on Human3.6M-17 joints of the default body.

        `point` is the error of the mode's joints, root included; shapes are the model's own.
        """
        pairs = self.pairs
        with torch.random.fork_rng(devices=_cuda(pairs.theta)):
            torch.manual_seed(seed)
            mode, joints = self._answers(model, slice(None), samples)
            point = (mode - pairs.joints).norm(dim=-1).mean()
            energy = energy_score(joints, pairs.joints)
        count = pairs.joints.shape[1]
        return Scores(1e3 * float(point) * count / (count + 1), 1e3 * float(energy))

    @torch.no_grad()
    def calibration_error(self, model: ProHMR, *, samples: int = 100, seed: int = 0) -> float:
        """Calibration error of the joints; the mean of exact and noisy pairs where both exist."""
        pairs = self.pairs
        count = len(pairs.joints)
        noisy = torch.zeros(count, dtype=torch.bool) if self.noisy is None else self.noisy.cpu()
        errors = []
        for group in (noisy, ~noisy):
            chosen = group.nonzero()[:, 0].to(pairs.joints.device)
            if len(chosen) == 0:
                continue
            curve = CalibrationCurve(pairs.joints.shape[1])
            with torch.random.fork_rng(devices=_cuda(pairs.theta)):
                torch.manual_seed(seed)
                for part in chosen.split(128):
                    curve.update(self._answers(model, part, samples)[1], pairs.joints[part])
            errors.append(curve.compute().error)
        return sum(errors) / len(errors)

    def fit_temperature(self, model: ProHMR) -> float:
        """Sets the base's temperature to the best calibrated candidate, and returns it."""
        base = model.flow.base

        def error(temperature: float) -> float:
            base.temperature.fill_(temperature)
            return self.calibration_error(model)

        best = min(_TEMPERATURES, key=error)
        base.temperature.fill_(best)
        return best

    def _answers(self, model: ProHMR, part: slice | Tensor, samples: int) -> tuple[Tensor, Tensor]:
        """Joints of the mode `(B, 16, 3)` and of samples `(S, B, 16, 3)`, root-relative."""
        context = model.encoder(self.pairs.evidence.features[part])
        distribution = model.vector_distribution(context)
        shape, _ = model.shape_and_camera(context)
        body = SkeletonBody().to(context.device)
        sixd = distribution.sample((samples,)).unflatten(-1, (-1, 6))
        return (
            _joints(body, distribution.center.unflatten(-1, (-1, 6)), shape),
            _joints(body, sixd, shape),
        )


def project_bodies(split: CMU17, bodies: CMUBody, frames: Tensor, views: Tensor) -> BodyBatch:
    """Bodies as CMU17's cameras see them, exactly.

    Args:
        split: Gives the cameras.
        bodies: The same split's bodies.
        frames: Rows `(B,)`.
        views: Cameras 0 to 3, `(B,)`.

    Returns:
        Keypoints for focal length 1, all seen, with bodies in camera axes.
    """
    rig = split.rig_id[frames]
    turn, shift = split.cam_R[rig, views], split.cam_t[rig, views]
    theta, shape = bodies.theta[frames], bodies.shape[frames]
    theta = torch.cat([(turn @ theta[:, 0])[:, None], theta[:, 1:]], 1)
    body = SkeletonBody()
    # The body turns about its root joint, whose rest position stays where it is.
    origin = bodies.translation[frames]
    translation = (turn @ origin[..., None])[..., 0] + shift
    joints = body.regress(body(theta, shape, translation))
    p2d = joints[..., :2] / joints[..., 2:]
    return BodyBatch(
        p2d, torch.ones(p2d.shape[:-1]), joints - joints[:, :1], theta, shape, translation
    )


def _all(batch: BodyBatch, known: Tensor) -> BodyPairs:
    return prepare_bodies(batch, known, torch.ones_like(known))


def _joints(body: Body, sixd: Tensor, shape: Tensor) -> Tensor:
    joints = body.regress(body(matrix_from_6d(sixd), shape))
    return joints[..., 1:, :] - joints[..., :1, :]
