"""Training of the laws to compare with: each by its own published kind of loss."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from ..distributions import diagonal_normal
from ..models.baselines import (
    ConditionalVAE,
    KeypointModel,
    MixtureDensity,
    RegressionBaseline,
    ScoreDiffusion,
)
from ..models.evidence import Evidence
from . import objectives
from .propose import Pairs
from .single import SingleTrainer

Baseline = TypeVar("Baseline", bound=KeypointModel)


class _BaselineTrainer(SingleTrainer[Baseline]):
    """What the trainers of baselines share."""

    def fit_units(self, joints: Tensor, features: Tensor) -> None:
        """Sets the coordinates' units; the evidence has its own."""
        self.model.fit_standardiser(joints)

    def _point(self, pairs: Pairs, point: Tensor) -> Tensor:
        """Weighted error of point estimates `(B, J - 1, 3)`."""
        return self.config.loss.point * objectives.recon3d(pairs.joints, point)

    def _units(self) -> Tensor:
        """Takes nats of metres to those of standardised units, per coordinate."""
        return self.model.standardiser.log_scale.mean()


class LikelihoodTrainer(_BaselineTrainer[RegressionBaseline | MixtureDensity]):
    """Likelihood and point estimate of a law with an exact density.

    Runs of `RegressionTrainConfig` or `MixtureTrainConfig`.
    """

    terms: tuple[str, ...] = ("nll", "point")

    def losses(self, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted losses of a batch by name."""
        loss, law = self.config.loss, self.model.law(Evidence(pairs.features, None))
        losses = {}
        if loss.nll:
            root = torch.zeros_like(pairs.joints[:, :1])
            log_prob = law.log_prob(torch.cat([root, pairs.joints], 1)).mean()
            losses["nll"] = -loss.nll * (log_prob / pairs.joints[0].numel() + self._units())
        if loss.point:
            losses["point"] = self._point(pairs, law.point_estimate[:, 1:])
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
            centre = model.flow(pairs.features).centre
            losses["point"] = self._point(pairs, decode(centre))
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
            # Evenly in the logarithm: what the law is decided by differs from joint to joint.
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
