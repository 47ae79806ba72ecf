"""Training of the lifting flow: likelihood and mode."""

from __future__ import annotations

import torch
from torch import Tensor

from ..models.lifting import LiftingFlow
from . import objectives
from .propose import Pairs
from .single import SingleTrainer


class LiftingTrainer(SingleTrainer[LiftingFlow]):
    """NLL, mode and energy score (ProHMR, eq. 5-8, for joints); runs of `LiftingTrainConfig`."""

    terms: tuple[str, ...] = ("nll", "mode", "energy")

    def fit_units(self, joints: Tensor, features: Tensor) -> None:
        """Sets the coordinates' units, and every ActNorm."""
        self.model.fit_standardiser(joints, features)

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted losses of a batch by name."""
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
