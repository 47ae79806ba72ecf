"""Training of the lifting flow: likelihood and mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..data.simulate import Simulator
from ..models.lifting import LiftingFlow
from . import objectives
from .config import LiftingTrainConfig
from .propose import Pairs, prepare


class LiftingTrainer:
    """One training state: model, optimiser and random generator.

    Args:
        model: The model that is trained, in place.
        config: The run.
        simulator: Source of pairs.
        device: Where model and data live.
    """

    terms: tuple[str, ...] = ("nll", "mode", "energy")
    steps_per_round = 1

    def __init__(
        self,
        model: LiftingFlow,
        config: LiftingTrainConfig,
        simulator: Simulator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model
        self.config = config
        self.simulator = simulator
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.rate, weight_decay=config.weight_decay, fused=True
        )

    def prepare(self, batches: int = 20) -> None:
        """Sets the coordinates' units, and every ActNorm, from simulated poses."""
        pairs = [self._draw() for _ in range(batches)]
        self.model.fit_standardiser(
            torch.cat([pair.joints for pair in pairs]), torch.cat([pair.features for pair in pairs])
        )

    def set_rate(self, factor: float) -> None:
        """Sets the learning rate to `factor` times its peak."""
        for group in self.optimiser.param_groups:
            group["lr"] = factor * self.config.rate

    def updates(self) -> list[Callable[[], dict[str, float]]]:
        """One batch."""
        return [self.step]

    def parts(self) -> dict[str, Any]:
        """Everything with a `state_dict`."""
        return {"model": self.model, "optimiser": self.optimiser}

    def generators(self) -> dict[str, torch.Generator]:
        """Of the data."""
        return {"data": self.generator}

    def step(self) -> dict[str, float]:
        """One batch of NLL, mode and energy score (ProHMR, eq. 5-8, for joints)."""
        pairs = self._draw()
        losses = self._losses(pairs)
        total = torch.stack(list(losses.values())).sum()
        if not bool(torch.isfinite(total)):
            raise FloatingPointError(f"the loss became {total.item()}; lower the learning rate")
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimiser.step()
        return {name: value.item() for name, value in losses.items()}

    def _losses(self, pairs: Pairs) -> dict[str, Tensor]:
        loss, law = self.config.loss, self.model.vector_law(pairs.features)
        losses = {}
        if loss.nll:
            noise = torch.randn(
                pairs.joints.shape, generator=self.generator, device=pairs.joints.device
            )
            target = (pairs.joints + loss.noise * noise).flatten(-2)
            # In standardised units, so that the weight does not depend on the unit of length.
            units = self.model.standardiser.log_scale.mean()
            nll = objectives.negative_log_likelihood(law, target)
            losses["nll"] = loss.nll * (nll - units)
        if loss.mode:
            mode = law.centre.unflatten(-1, (-1, 3))
            losses["mode"] = loss.mode * objectives.recon3d(pairs.joints, mode)
        if loss.energy:
            poses = law.rsample((loss.samples,)).unflatten(-1, (-1, 3))
            losses["energy"] = loss.energy * objectives.energy_score(poses, pairs.joints)
        return losses

    def _draw(self) -> Pairs:
        batch = self.simulator(self.config.batch_size, self.generator)
        known = torch.rand(len(batch.p2d), generator=self.generator, device=self.generator.device)
        known = known < self.config.known_intrinsics
        return prepare(batch.p2d, batch.confidence, batch.p3d, known)
