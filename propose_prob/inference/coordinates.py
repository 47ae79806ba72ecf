"""The numbers that inference moves for a site, and the residual form of its density."""

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
"""Which density is meant: `latent` of the standardised base variables, `event` of the values
themselves, `posterior` of the numbers that move, for sampling."""


@dataclass(frozen=True)
class Coordinates:
    """How numbers `u` `(n, d)` make a site's values, and their density.

    Attributes:
        size: d.
        value: `u` to event values `(n, *event)`.
        log_density: `u` and its values to the log-density `(n,)` in the chosen space.
        inverse: Event values to `u`; raises `InputError` where there is no such map.
        start: Where to begin, `(n, d)`: the base's mode, or the law's centre.
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
    """A law as the image of a standard normal `e` `(n, d)` under `value`.

    `log_det` is that of the map, `(n,)`, or None where it changes dimension; `constant` tells that
    it does not depend on `e`.
    """

    like: Tensor
    value: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    log_det: Callable[[Tensor, Tensor], Tensor] | None
    constant: bool


def coordinates(law: Distribution, name: str, space: Space) -> Coordinates:
    """The coordinates of a latent site.

    Laws that are the image of a normal law move in its standardised variables in every space: they
    are well scaled, and a density has its maximum at the same value whichever numbers describe it.
    In the event space the density is that of the value. All other laws move in the unconstrained
    numbers of their support; the density is that of the value (without the map's Jacobian), except
    for sampling.

    Args:
        law: The site's law, batch shape `(n,)`.
        name: The site, for messages.
        space: Which density is meant.

    Raises:
        InputError: If the site is discrete.
    """
    if law.has_enumerate_support or getattr(law.support, "is_discrete", False):
        raise InputError(f"site {name!r}: expected a continuous law, got {_name(law)}")
    base = _base_of(law, name)
    if base is None or (space == "event" and base.log_det is None):
        return _unconstrained(law, name, space)
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


def residual_form(law: Distribution, value: Tensor) -> tuple[Tensor, Tensor | None] | None:
    """Residuals of a site whose negative log-density is half a sum of squares, up to a constant.

    Args:
        law: The site's law, batch shape `(n,)`.
        value: Its value `(n, *event)`.

    Returns:
        Residuals `(n, m)`, and weights of their squares for robust kernels (None: all 1); None
        altogether where the law has no such form, or its normalisation depends on latents.
    """
    if hasattr(law, "residuals") and hasattr(law, "weights"):
        residual = law.residuals(value)
        return residual, law.weights(residual.detach())
    if isinstance(law, MultivariateNormal):
        if law._unbroadcasted_scale_tril.requires_grad:
            return None
        gap = (value - law.loc)[..., None]
        solved = torch.linalg.solve_triangular(law.scale_tril, gap, upper=False)
        return solved.flatten(1), None
    normal = _inner(law)
    if isinstance(normal, Normal):
        if normal.scale.requires_grad:
            return None
        return ((value - normal.loc) / normal.scale).reshape(len(value), -1), None
    base = _base_of(law, "")
    if base is None or not base.constant:
        return None
    return base.inverse(value), None


def _base_of(law: Distribution, name: str) -> _Base | None:
    if isinstance(law, PoseFlowDistribution):
        inner = _base_of(law.flow, name)
        to_pose = law.to_pose
        return inner and _Base(
            inner.like,
            lambda e: to_pose(inner.value(e)),
            lambda value: inner.inverse(to_pose.inv(value)),
            # The shape of the pose keeps volumes: the flow finds its own value again from `e`.
            inner.log_det,
            inner.constant,
        )
    if isinstance(law, RecalibratedDistribution):
        return _recalibrated(law, name)
    if isinstance(law, DecodedPoseDistribution):
        return _decoded(law, name)
    if isinstance(law, MultivariateNormal):
        return _linear(law)
    if isinstance(law, TransformedDistribution):
        return _transformed(law)
    if isinstance(_inner(law), Normal):
        return _normal(law)
    return None


def _normal(law: Any) -> _Base:
    inner, event = _inner(law), law.event_shape
    loc = inner.loc.reshape(*law.batch_shape, -1)
    scale = inner.scale.reshape(*law.batch_shape, -1)
    return _Base(
        torch.zeros_like(loc),
        lambda e: (loc + scale * e).reshape(e.shape[:-1] + event),
        lambda value: (value.reshape(*value.shape[: value.ndim - len(event)], -1) - loc) / scale,
        lambda e, value: scale.log().sum(-1),
        not scale.requires_grad,
    )


def _linear(law: MultivariateNormal) -> _Base:
    factor = law.scale_tril
    return _Base(
        torch.zeros_like(law.loc),
        lambda e: law.loc + (factor @ e[..., None])[..., 0],
        lambda value: torch.linalg.solve_triangular(
            factor, (value - law.loc)[..., None], upper=False
        )[..., 0],
        lambda e, value: factor.diagonal(dim1=-2, dim2=-1).log().sum(-1),
        not factor.requires_grad,
    )


def _transformed(law: Any) -> _Base | None:
    base_law = law.base_dist
    if not isinstance(_inner(base_law), Normal):
        return None
    base = _normal(base_law)
    own = isinstance(law, FlowDistribution)

    def value(e: Tensor) -> Tensor:
        x = base.value(e)
        for transform in law.transforms:
            x = transform(x)
        return x

    def inverse(y: Tensor) -> Tensor:
        for transform in reversed(law.transforms):
            y = transform.inv(y)
        return base.inverse(y)

    def log_det(e: Tensor, y: Tensor) -> Tensor:
        x = base.value(e)
        if own:
            moved = law.transform.call_and_ladj(x)[1]
        else:
            moved = base_law.log_prob(x) - law.log_prob(y)
        return moved + base.log_det(e, x)  # type: ignore[misc]

    constant = base.constant and bool(getattr(law, "constant_ladj", False))
    return _Base(base.like, value, inverse, log_det, constant)


def _decoded(law: DecodedPoseDistribution, name: str) -> _Base:
    latent = law.latent
    loc, scale = standard_parameters(latent.base_dist)

    def inverse(value: Tensor) -> Tensor:
        if law.encoder is None:
            raise InputError(
                f"site {name!r}: this decoded law has no encoder, so no latent belongs to a pose; "
                f"give {name + '_base'!r} instead"
            )
        joints = InsertRoot(law.root).inv(value)
        if law.rotation is not None:
            joints = joints @ law.rotation
        return (latent.transform.inv(law.encoder(joints)) - loc) / scale

    return _Base(
        torch.zeros_like(loc),
        lambda e: law.decode(latent.transform(loc + scale * e)),
        inverse,
        None,
        False,
    )


def _recalibrated(law: RecalibratedDistribution, name: str) -> _Base | None:
    inner = _base_of(law.base_law, name)
    if inner is None:
        return None
    log_det = None
    if inner.log_det is not None:

        def log_det(e: Tensor, value: Tensor) -> Tensor:
            base = _log_standard(e)
            return base - law.log_prob(value)

    return _Base(
        inner.like,
        lambda e: law.moved(inner.value(e)),
        lambda value: inner.inverse(law.without(value)),
        log_det,
        inner.constant,
    )


def _unconstrained(law: Any, name: str, space: Space) -> Coordinates:
    transform = biject_to(law.support)
    event = law.event_shape
    free = transform.inverse_shape(torch.Size(event)) if event else torch.Size()
    moved = max(transform.domain.event_dim, transform.codomain.event_dim)

    def value(u: Tensor) -> Tensor:
        return transform(u.reshape(u.shape[:-1] + free))

    def inverse(x: Tensor) -> Tensor:
        u = transform.inv(x)
        return u.reshape(*u.shape[: u.ndim - len(free)], -1)

    def log_density(u: Tensor, x: Tensor) -> Tensor:
        log_prob = law.log_prob(x)
        if space != "posterior":
            return log_prob
        ladj = transform.log_abs_det_jacobian(u.reshape(u.shape[:-1] + free), x)
        extra = len(event) - moved
        return log_prob + (ladj.flatten(-extra).sum(-1) if extra > 0 else ladj)

    def start() -> Tensor:
        return inverse(_centre(law, name).expand(law.batch_shape + event))

    return Coordinates(free.numel(), value, log_density, inverse, start, standard=False)


def _centre(law: Any, name: str) -> Tensor:
    for attribute in ("point_estimate", "mode", "mean"):
        try:
            found = getattr(law, attribute)
        except (AttributeError, NotImplementedError):
            continue
        if bool(law.support.check(found).all()) and bool(found.isfinite().all()):
            # A mode on the edge of the support is infinitely far away in unconstrained numbers.
            if bool(biject_to(law.support).inv(found).isfinite().all()):
                return found
    raise InputError(
        f"site {name!r}: {_name(law)} has neither point estimate, mode nor mean within its "
        "support to begin from; give it in init"
    )


def _inner(law: Any) -> Any:
    while isinstance(law, Independent):
        law = law.base_dist
    return law


def _log_standard(e: Tensor) -> Tensor:
    return -0.5 * e.square().sum(-1) - 0.5 * e.shape[-1] * math.log(2 * math.pi)


def _name(law: Any) -> str:
    return type(_inner(law)).__name__
