"""Unconstrained coordinates of sites and residual forms of their densities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    biject_to,
)

from ..distributions import (
    DecodedPoseDistribution,
    FlowDistribution,
    PoseFlowDistribution,
    RecalibratedDistribution,
)
from ..distributions.flow import standard_parameters
from ..distributions.support import InsertRoot
from ..errors import InputError

__all__ = ["Coordinates", "Space", "coordinates", "residual_form"]

Space = Literal["latent", "event", "posterior"]
"""Which density is meant: `latent` of the standardized base variables, `event` of the values
themselves, `posterior` of the numbers that move, for sampling."""


@dataclass(frozen=True)
class Coordinates:
    """How numbers `u` `(n, d)` make a site's values, and their density.

    Attributes:
        size: d.
        value: `u` to event values `(n, *event)`.
        log_density: `u` and its values to the log-density `(n,)` in the chosen space.
        inverse: Event values to `u`; raises `InputError` where there is no such map.
        start: Where to begin, `(n, d)`: the base's mode, or the distribution's center.
        standard: Whether `-log_density` is half the square of `u`, up to a constant.
    """

    size: int
    value: Callable[[Tensor], Tensor]
    log_density: Callable[[Tensor, Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    start: Callable[[], Tensor]
    standard: bool


@dataclass(frozen=True)
class _Base:
    """A distribution as the image of a standard normal `e` `(n, d)` under `value`.

    `log_det` is that of the map, `(n,)`, or None where it changes dimension; `constant` tells that
    it does not depend on `e`.
    """

    like: Tensor
    value: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    log_det: Callable[[Tensor, Tensor], Tensor] | None
    constant: bool


def coordinates(distribution: Distribution, name: str, space: Space) -> Coordinates:
    """The coordinates of a latent site.

    Distributions that are the image of a normal distribution move in its standardized variables in
    every space: they are well scaled, and a density has its maximum at the same value whichever
    numbers describe it. In the event space the density is that of the value. All other
    distributions move in the unconstrained numbers of their support; the density is that of the
    value (without the map's Jacobian), except for sampling.

    Args:
        distribution: The site's distribution, batch shape `(n,)`.
        name: The site, for messages.
        space: Which density is meant.

    Raises:
        InputError: If the site is discrete.
    """
    if distribution.has_enumerate_support or getattr(distribution.support, "is_discrete", False):
        raise InputError(
            f"site {name!r}: expected a continuous distribution, got {_name(distribution)}"
        )
    base = _base_of(distribution, name)
    if base is None or (space == "event" and base.log_det is None):
        return _unconstrained(distribution, name, space)
    like, log_det = base.like, base.log_det

    def log_density(u: Tensor, value: Tensor) -> Tensor:
        standard = _log_standard(u)
        if space != "event" or log_det is None:
            return standard
        return standard - log_det(u, value)

    return Coordinates(
        size=like.shape[-1],
        value=base.value,
        log_density=log_density,
        inverse=base.inverse,
        start=lambda: torch.zeros_like(like),
        standard=space != "event" or base.constant,
    )


def residual_form(distribution: Distribution, value: Tensor) -> tuple[Tensor, Tensor | None] | None:
    """Residuals of a site whose negative log-density is half a sum of squares, up to a constant.

    Args:
        distribution: The site's distribution, batch shape `(n,)`.
        value: Its value `(n, *event)`.

    Returns:
        Residuals `(n, m)`, and weights of their squares for robust kernels (None: all 1); None
        altogether where the distribution has no such form, or its normalization depends on latents.
    """
    if hasattr(distribution, "residuals") and hasattr(distribution, "weights"):
        residual = distribution.residuals(value)
        return residual, distribution.weights(residual.detach())
    if isinstance(distribution, MultivariateNormal):
        if distribution._unbroadcasted_scale_tril.requires_grad:
            return None
        gap = (value - distribution.loc)[..., None]
        solved = torch.linalg.solve_triangular(distribution.scale_tril, gap, upper=False)
        return solved.flatten(1), None
    normal = _inner(distribution)
    if isinstance(normal, Normal):
        if normal.scale.requires_grad:
            return None
        return ((value - normal.loc) / normal.scale).reshape(len(value), -1), None
    base = _base_of(distribution, "")
    if base is None or not base.constant:
        return None
    return base.inverse(value), None


def _base_of(distribution: Distribution, name: str) -> _Base | None:
    if isinstance(distribution, PoseFlowDistribution):
        inner = _base_of(distribution.flow, name)
        to_pose = distribution.to_pose
        return inner and _Base(
            inner.like,
            lambda e: to_pose(inner.value(e)),
            lambda value: inner.inverse(to_pose.inv(value)),
            # The shape of the pose keeps volumes: the flow finds its own value again from `e`.
            inner.log_det,
            inner.constant,
        )
    if isinstance(distribution, RecalibratedDistribution):
        return _recalibrated(distribution, name)
    if isinstance(distribution, DecodedPoseDistribution):
        return _decoded(distribution, name)
    if isinstance(distribution, MultivariateNormal):
        return _linear(distribution)
    if isinstance(distribution, TransformedDistribution):
        return _transformed(distribution)
    if isinstance(_inner(distribution), Normal):
        return _normal(distribution)
    return None


def _normal(distribution: Any) -> _Base:
    inner, event = _inner(distribution), distribution.event_shape
    loc = inner.loc.reshape(*distribution.batch_shape, -1)
    scale = inner.scale.reshape(*distribution.batch_shape, -1)
    return _Base(
        torch.zeros_like(loc),
        lambda e: (loc + scale * e).reshape(e.shape[:-1] + event),
        lambda value: (value.reshape(*value.shape[: value.ndim - len(event)], -1) - loc) / scale,
        lambda e, value: scale.log().sum(-1),
        not scale.requires_grad,
    )


def _linear(distribution: MultivariateNormal) -> _Base:
    factor = distribution.scale_tril
    return _Base(
        torch.zeros_like(distribution.loc),
        lambda e: distribution.loc + (factor @ e[..., None])[..., 0],
        lambda value: torch.linalg.solve_triangular(
            factor, (value - distribution.loc)[..., None], upper=False
        )[..., 0],
        lambda e, value: factor.diagonal(dim1=-2, dim2=-1).log().sum(-1),
        not factor.requires_grad,
    )


def _transformed(distribution: Any) -> _Base | None:
    base_distribution = distribution.base_dist
    if not isinstance(_inner(base_distribution), Normal):
        return None
    base = _normal(base_distribution)
    own = isinstance(distribution, FlowDistribution)

    def value(e: Tensor) -> Tensor:
        x = base.value(e)
        for transform in distribution.transforms:
            x = transform(x)
        return x

    def inverse(y: Tensor) -> Tensor:
        for transform in reversed(distribution.transforms):
            y = transform.inv(y)
        return base.inverse(y)

    def log_det(e: Tensor, y: Tensor) -> Tensor:
        x = base.value(e)
        if own:
            moved = distribution.transform.call_and_ladj(x)[1]
        else:
            moved = base_distribution.log_prob(x) - distribution.log_prob(y)
        return moved + base.log_det(e, x)  # type: ignore[misc]

    constant = base.constant and bool(getattr(distribution, "constant_ladj", False))
    return _Base(base.like, value, inverse, log_det, constant)


def _decoded(distribution: DecodedPoseDistribution, name: str) -> _Base:
    latent = distribution.latent
    loc, scale = standard_parameters(latent.base_dist)

    def inverse(value: Tensor) -> Tensor:
        if distribution.encoder is None:
            raise InputError(
                f"site {name!r}: this decoded distribution has no encoder, so no latent belongs to "
                f"a pose; "
                f"give {name + '_base'!r} instead"
            )
        joints = InsertRoot(distribution.root).inv(value)
        if distribution.rotation is not None:
            joints = joints @ distribution.rotation
        return (latent.transform.inv(distribution.encoder(joints)) - loc) / scale

    return _Base(
        torch.zeros_like(loc),
        lambda e: distribution.decode(latent.transform(loc + scale * e)),
        inverse,
        None,
        False,
    )


def _recalibrated(distribution: RecalibratedDistribution, name: str) -> _Base | None:
    inner = _base_of(distribution.base_distribution, name)
    if inner is None:
        return None
    log_det = None
    if inner.log_det is not None:

        def log_det(e: Tensor, value: Tensor) -> Tensor:
            base = _log_standard(e)
            return base - distribution.log_prob(value)

    return _Base(
        inner.like,
        lambda e: distribution.moved(inner.value(e)),
        lambda value: inner.inverse(distribution.without(value)),
        log_det,
        inner.constant,
    )


def _unconstrained(distribution: Any, name: str, space: Space) -> Coordinates:
    transform = biject_to(distribution.support)
    event = distribution.event_shape
    free = transform.inverse_shape(torch.Size(event)) if event else torch.Size()
    moved = max(transform.domain.event_dim, transform.codomain.event_dim)

    def value(u: Tensor) -> Tensor:
        return transform(u.reshape(u.shape[:-1] + free))

    def inverse(x: Tensor) -> Tensor:
        u = transform.inv(x)
        return u.reshape(*u.shape[: u.ndim - len(free)], -1)

    def log_density(u: Tensor, x: Tensor) -> Tensor:
        log_prob = distribution.log_prob(x)
        if space != "posterior":
            return log_prob
        ladj = transform.log_abs_det_jacobian(u.reshape(u.shape[:-1] + free), x)
        extra = len(event) - moved
        return log_prob + (ladj.flatten(-extra).sum(-1) if extra > 0 else ladj)

    def start() -> Tensor:
        return inverse(_center(distribution, name).expand(distribution.batch_shape + event))

    return Coordinates(free.numel(), value, log_density, inverse, start, standard=False)


def _center(distribution: Any, name: str) -> Tensor:
    for attribute in ("point_estimate", "mode", "mean"):
        try:
            found = getattr(distribution, attribute)
        except (AttributeError, NotImplementedError):
            continue
        inside = bool(distribution.support.check(found).all()) and bool(found.isfinite().all())
        # A mode on the edge of the support is infinitely far away in unconstrained numbers.
        if inside and bool(biject_to(distribution.support).inv(found).isfinite().all()):
            return found
    raise InputError(
        f"site {name!r}: {_name(distribution)} has neither point estimate, mode nor mean within "
        f"its "
        "support to begin from; give it in init"
    )


def _inner(distribution: Any) -> Any:
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


def _log_standard(e: Tensor) -> Tensor:
    return -0.5 * e.square().sum(-1) - 0.5 * e.shape[-1] * math.log(2 * math.pi)


def _name(distribution: Any) -> str:
    return type(_inner(distribution)).__name__
