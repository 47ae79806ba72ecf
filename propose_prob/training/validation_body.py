"""Held-out bodies: what a training of ProHMR is watched by, and what is fitted on them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bodies import Body, SkeletonBody
from ..data.cmu17 import CMU17, FOCAL
from ..data.cmu_body import CMUBody
from ..data.simulate_body import BodyBatch, BodySimulator
from ..evaluation import CalibrationCurve
from ..models.evidence import Evidence
from ..models.prohmr import ProHMR
from ..pose.rotations import matrix_from_6d
from .objectives import energy_score
from .prohmr import BodyPairs, prepare_bodies
from .validation import Scores

#: Candidates for the temperature of a law's base.
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
            ValueError: If the split has no stored noise.
        """
        if split.noise is None:
            raise ValueError(f"expected a split with stored detector noise, got {split.split!r}")
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(4 * len(split), generator=generator)[:items]
        batch = film_bodies(split, bodies, chosen // 4, chosen % 4)
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
        """Nothing: an exact law has no observation noise."""

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
        law = model.vector_law(context)
        shape, _ = model.shape_and_camera(context)
        body = SkeletonBody().to(context.device)
        sixd = law.sample((samples,)).unflatten(-1, (-1, 6))
        return (
            _joints(body, law.centre.unflatten(-1, (-1, 6)), shape),
            _joints(body, sixd, shape),
        )


def film_bodies(split: CMU17, bodies: CMUBody, frames: Tensor, views: Tensor) -> BodyBatch:
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


def _cuda(tensor: Tensor) -> list[torch.device]:
    return [tensor.device] if tensor.is_cuda else []
