"""Pyro messengers that set latent values and record densities and residuals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from ..errors import InputError
from .coordinates import Coordinates, Space, coordinates, residual_form

__all__ = [
    "InitMessenger",
    "LatentSite",
    "LogDensityMessenger",
    "ModelTrace",
    "SiteDiscovery",
    "shape_message",
]


@dataclass(frozen=True)
class LatentSite:
    """Where a latent site's numbers lie: `u[:, begin:begin + size]`."""

    name: str
    begin: int
    size: int
    event_shape: torch.Size

    @property
    def part(self) -> slice:
        """Its columns."""
        return slice(self.begin, self.begin + self.size)


@dataclass
class ModelTrace:
    """What one run of the model gave for n problems.

    Attributes:
        log_density: `(n,)`.
        log_likelihood: Of the observed sites alone, `(n,)`.
        values: Latent and deterministic sites, `(n, *event)` each.
        observed: Observed values by site.
        distributions: Distribution of every site.
        residuals: Weighted residuals `(n, m)` of all sites but those that are standard normal in
            `u`.
        diagonal: Weights of the squares of `u` from those that are, `(n, d)`.
        without: Sites without residual form.
    """

    log_density: Tensor
    log_likelihood: Tensor
    values: dict[str, Tensor] = field(default_factory=dict)
    observed: dict[str, Tensor] = field(default_factory=dict)
    distributions: dict[str, Any] = field(default_factory=dict)
    residuals: list[Tensor] = field(default_factory=list)
    diagonal: Tensor = field(default_factory=lambda: torch.zeros(()))
    without: list[str] = field(default_factory=list)


class LogDensityMessenger(Messenger):
    """Gives latent sites the values of `u`, and collects densities and residuals."""

    def __init__(
        self, u: Tensor, slots: list[LatentSite], space: Space, want_residuals: bool
    ) -> None:
        super().__init__()
        self.u = u
        self.slots = {slot.name: slot for slot in slots}
        self.space: Space = space
        self.want_residuals = want_residuals
        zero = u.new_zeros(len(u))
        self.record = ModelTrace(zero, zero, diagonal=torch.zeros_like(u))

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        name, distribution = msg["name"], msg["fn"]
        record = self.record
        if msg["infer"].get("_deterministic"):
            record.values[name] = msg["value"]
            return
        record.distributions[name] = distribution
        if msg["is_observed"]:
            value = msg["value"]
            record.observed[name] = value
            self._add(msg, distribution.log_prob(value))
            form = residual_form(distribution, value) if self.want_residuals else None
            if form is None:
                record.without.append(name)
            else:
                self._residuals(msg, *form)
            return
        part = self.u[:, self.slots[name].part]
        place = coordinates(distribution, name, self.space)
        value = record.values[name] = place.value(part)
        self._add(msg, place.log_density(part, value))
        if not self.want_residuals:
            pass
        elif place.standard:
            # Numbers that are their own residuals have a Jacobian that is known.
            record.diagonal[:, self.slots[name].part] = self._factor(msg).square()
        else:
            record.without.append(name)
        msg["value"], msg["done"] = value, True

    def _add(self, msg: Any, log_density: Tensor) -> None:
        if log_density.shape != self.u.shape[:1]:
            raise InputError(shape_message(msg["name"], log_density.shape, len(self.u)))
        if msg["mask"] is not None:
            log_density = torch.where(_tensor(msg["mask"], self.u, torch.bool), log_density, 0)
        log_density = msg["scale"] * log_density
        self.record.log_density = self.record.log_density + log_density
        if msg["is_observed"]:
            self.record.log_likelihood = self.record.log_likelihood + log_density

    def _factor(self, msg: Any) -> Tensor:
        factor = _tensor(msg["scale"], self.u, self.u.dtype).sqrt()
        if msg["mask"] is not None:
            factor = factor * _tensor(msg["mask"], self.u, self.u.dtype)
        return factor.expand(len(self.u))[:, None]

    def _residuals(self, msg: Any, residual: Tensor, weight: Tensor | None) -> None:
        factor = self._factor(msg)
        if weight is not None:
            factor = factor * weight.detach().sqrt()
        self.record.residuals.append(factor * residual)


class SiteDiscovery(Messenger):
    """Finds the sites, and puts latent ones where inference begins."""

    def __init__(self, space: Space) -> None:
        super().__init__()
        self.space: Space = space
        self.shapes: dict[str, torch.Size] = {}
        self.slots: list[LatentSite] = []
        self.starts: list[Tensor] = []

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) or msg["infer"].get("_deterministic"):
            return
        name, distribution = msg["name"], msg["fn"]
        self.shapes[name] = distribution.batch_shape
        if msg["is_observed"]:
            return
        if len(distribution.batch_shape) != 1:
            raise InputError(shape_message(name, distribution.batch_shape, None))
        place = coordinates(distribution, name, self.space)
        begin = self.slots[-1].part.stop if self.slots else 0
        self.slots.append(LatentSite(name, begin, place.size, distribution.event_shape))
        self.starts.append(place.start())
        msg["value"], msg["done"] = place.value(self.starts[-1]), True


class InitMessenger(Messenger):
    """Asks for the numbers of each latent site in turn, given the sites before it."""

    def __init__(
        self,
        start: Tensor,
        slots: list[LatentSite],
        space: Space,
        choose: Callable[[LatentSite, Coordinates, Any], Tensor],
    ) -> None:
        super().__init__()
        self.space: Space = space
        self.slots = {slot.name: slot for slot in slots}
        self.choose = choose
        self.u = start.clone()

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or site_is_subsample(msg):
            return
        slot = self.slots[msg["name"]]
        place = coordinates(msg["fn"], slot.name, self.space)
        self.u[:, slot.part] = self.choose(slot, place, msg["fn"])
        msg["value"], msg["done"] = place.value(self.u[:, slot.part]), True


def _tensor(x: Any, like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.as_tensor(x, dtype=dtype, device=like.device)


def shape_message(name: str, shape: Any, count: int | None) -> str:
    """What is wrong with the batch shape of a site."""
    wanted = "(B,)" if count is None else f"({count},)"
    return (
        f"site {name!r}: expected batch shape {wanted}, one entry for each problem, got "
        f"{tuple(shape)}; declare the sites in one pyro.plate('problems', B), and move other axes "
        "into the event with .to_event"
    )
