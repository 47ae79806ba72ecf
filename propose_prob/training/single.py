"""Training of a model whose parameters all move together: one optimiser, one batch a step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ..data.simulate import Simulator
from .propose import Pairs, prepare

Model = TypeVar("Model", bound=nn.Module)


class SingleTrainer(ABC, Generic[Model]):
    """One training state: model, optimiser and random generator.

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
        self.model = model
        self.config = config
        self.simulator = simulator
        self.generator = torch.Generator(device).manual_seed(config.seed)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.rate, weight_decay=config.weight_decay, fused=True
        )

    @abstractmethod
    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted losses of a batch by name; their sum is minimised."""

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
        """One batch of all losses.

        Raises:
            FloatingPointError: If they are not finite.
        """
        losses = self.losses(self._draw())
        total = torch.stack(list(losses.values())).sum()
        if not bool(torch.isfinite(total)):
            raise FloatingPointError(f"the loss became {total.item()}; lower the learning rate")
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimiser.step()
        return {name: value.item() for name, value in losses.items()}

    def _draw(self) -> Pairs:
        batch = self.simulator(self.config.batch_size, self.generator)
        known = torch.rand(len(batch.p2d), generator=self.generator, device=self.generator.device)
        known = known < self.config.known_intrinsics
        return prepare(batch.p2d, batch.confidence, batch.p3d, known)
