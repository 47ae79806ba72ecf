"""Recalibration of laws whose numbers are rotations: a temperature of the base for each input."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from .flow import FlowDistribution, diagonal_normal
from .shaped import PoseFlowDistribution

__all__ = ["BaseRecalibration"]

#: Log temperatures stay within this, whatever the evidence looks like.
_LIMIT = math.log(3)


class BaseRecalibration(nn.Module):
    """What was fitted on held-out data to make an exact law honest; nothing before.

    Joints of a body hang together: no map of single rotations widens a wrist's place and leaves the
    rest. So the base's standard deviations are multiplied, all by ``exp(a + b . features)``. The
    features are whether intrinsics are known, the share of hidden keypoints, and the spread that
    the base itself claims (mean log), by which a law that is too sure of noisy keypoints and too
    unsure of clear ones is put right, and how badly the mode reprojects onto the keypoints, a guess
    of the detector's noise (in log). Density and mode stay exact, and the mode where it is.

    Attributes:
        enabled: Set to False to get laws as they were trained.

    Example:
        >>> BaseRecalibration().fitted
        False
    """

    FEATURES = (
        *("intrinsics", "hidden share", "spread", "spread, intrinsics"),
        *("residual", "residual, intrinsics"),
    )

    log_temperature: Tensor
    slopes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.register_buffer("log_temperature", torch.zeros(()))
        self.register_buffer("slopes", torch.zeros(len(self.FEATURES)))

    def reset(self) -> None:
        """Forgets what was fitted."""
        self.log_temperature.zero_()
        self.slopes.zero_()

    @property
    def fitted(self) -> bool:
        """Whether anything differs from the identity."""
        return bool(self.log_temperature.any() or self.slopes.any())

    @property
    def active(self) -> bool:
        """Whether laws are changed: fitted and `enabled`."""
        # An exported program cannot branch on numbers; unfitted ones leave the law as it is.
        return self.enabled and (torch.compiler.is_compiling() or self.fitted)

    def forward(self, law: PoseFlowDistribution, features: Tensor) -> PoseFlowDistribution:
        """The recalibrated law.

        Args:
            law: An exact law with a Gaussian base.
            features: About each input `(..., F)`, as `features` gives them.
        """
        base: Any = law.flow.base_dist
        factor = self.temperature(features).to(base.mean)
        wider = diagonal_normal(base.mean, factor[..., None] * base.stddev)
        return PoseFlowDistribution(FlowDistribution(wider, law.flow.transform), law.to_pose)

    def temperature(self, features: Tensor) -> Tensor:
        """Temperatures `(...)` for features `(..., F)`."""
        log = self.log_temperature + features.to(self.slopes) @ self.slopes
        return log.clamp(-_LIMIT, _LIMIT).exp()

    def features(
        self, law: PoseFlowDistribution, visible: Tensor, known: bool, residual: Tensor
    ) -> Tensor:
        """What is told about each input, `(..., F)`, without gradient.

        Args:
            law: The law as trained.
            visible: Keypoints that were seen `(..., J)`, numbers or booleans.
            known: Whether intrinsics are known.
            residual: As `place_pose` gives it for the mode's joints `(...)`.
        """
        base: Any = law.flow.base_dist
        spread = base.stddev.log().mean(-1)
        hidden = 4 * (1 - visible.to(spread).mean(-1)).expand_as(spread)
        told = torch.full_like(spread, float(known))
        columns = (told, hidden, spread, told * spread, residual, told * residual)
        return torch.stack(columns, -1).detach()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Weights stored before there was this load as unfitted.
        names = ("log_temperature", "slopes")
        if not any(prefix + name in state_dict for name in names):
            for name in names:
                state_dict[prefix + name] = torch.zeros_like(getattr(self, name))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
