"""Held-out pairs, the scores a run is watched by, and what is fitted on them at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..data.cmu17 import CMU17, FOCAL
from ..data.simulate import Simulator
from ..evaluation import CalibrationCurve
from ..models.evidence import Evidence
from ..models.propose import ProPose
from .objectives import energy_score
from .propose import Pairs, prepare


class Lifter(Protocol):
    """A model whose law over 3D joints can be watched."""

    def law(self, evidence: Evidence) -> Any:
        """The law given prepared evidence; has `sample` and `point_estimate`."""


class Scores(NamedTuple):
    """Validation scores in millimetres.

    Attributes:
        point: Mean per-joint error of the point estimate, all joints.
        energy: Energy score of the law, joints and whole pose (see `objectives.energy_score`).
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
            law = model.law(Evidence(pairs.features, None))
            point = (law.point_estimate[:, 1:] - pairs.joints).norm(dim=-1).mean()
            energy = energy_score(law.sample((samples,))[:, :, 1:], pairs.joints)
        return Scores(1e3 * float(point) * joints / (joints + 1), 1e3 * float(energy))

    def fit(self, model: Lifter) -> None:
        """Sets ProPose's observation noise; other laws have none, or learned it."""
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
        """Calibration error of the law, the mean of exact and noisy pairs where both are there.

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
                    law = model.law(Evidence(pairs.features[part], None))
                    curve.update(law.sample((samples,))[:, :, 1:], pairs.joints[part])
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
