"""The linear algebra behind `smooth`: frames of a video, each with a law, and what couples them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..distributions import PushforwardDistribution
from ..distributions.jacobian import forward_jacobian
from ..distributions.likelihoods import PointLikelihood
from ..errors import InputError
from ..inference.banded import factor_banded, multiply_banded
from ..inference.coordinates import coordinates
from .views import observation_noise

__all__ = ["Chain", "kernel_weights", "motion_weights"]

#: Numbers that one pass of forward derivatives may hold for a layer of a hundred.
_PASS = 60_000
#: Lets blocks be factored that nothing but the motion term holds; it acts on steps, not on poses.
_RIDGE = 1e-6


class Chain:
    """The frames of one person: which have a law, and how the law gives a pose.

    Poses are rows of n numbers in float64; laws are evaluated in their own precision.
    """

    def __init__(self, law: Any, frames: Tensor | None, noise: float) -> None:
        count = law.batch_shape[0]
        self._law = law
        inner = law.law if isinstance(law, PushforwardDistribution) else law
        place = coordinates(inner, "pose", "latent")
        start = place.start()
        if not place.standard:
            raise InputError(
                f"expected a law that is the image of a normal one, got {type(inner).__name__}"
            )
        self._inner = place.value
        self.size = place.size
        self.dtype, self.device = start.dtype, start.device
        if frames is None:
            frames = torch.arange(count)
        if frames.shape != (count,) or frames.is_floating_point():
            raise InputError(
                f"expected frames as {count} whole numbers, one for each law, got "
                f"{tuple(frames.shape)} of {frames.dtype}"
            )
        frames = frames.to(self.device)
        if bool((frames.diff() <= 0).any()):
            raise InputError("expected frames that increase (axis 0)")
        self.rows = frames - frames[0]
        self.count = int(self.rows[-1]) + 1
        self.frames = frames[0] + torch.arange(self.count, device=self.device)
        self.seen = torch.zeros(self.count, dtype=torch.bool, device=self.device)
        self.seen[self.rows] = True
        own = observation_noise(law).double().reshape(count, -1)
        self.noise = own.square() + noise**2

    def value(self, e: Tensor) -> Tensor:
        """Poses `(N, n)` of base variables `(N, d)`."""
        return self._pose(e.to(self.dtype)).double()

    def source(self, e: Tensor) -> Tensor | None:
        """Values of the law behind a push-forward."""
        if isinstance(self._law, PushforwardDistribution):
            return self._inner(e.to(self.dtype))
        return None

    def jacobian(self, e: Tensor) -> Tensor:
        """Derivatives of `value`, `(N, n, d)`."""
        e = e.to(self.dtype)
        return forward_jacobian(self._pose, e, chunk_size=max(1, _PASS // len(e))).double()

    def interpolate(self, mean: Tensor) -> Tensor:
        """Poses of all frames `(T, n)`, straight lines between those seen."""
        times = torch.arange(self.count, device=self.device)
        after = torch.searchsorted(self.rows, times).clamp(max=len(self.rows) - 1)
        before = torch.where(self.rows[after] > times, after - 1, after).clamp(min=0)
        gap = (self.rows[after] - self.rows[before]).clamp(min=1).double()
        part = ((times - self.rows[before]).double() / gap)[:, None]
        return (1 - part) * mean[before] + part * mean[after]

    def objective(self, e: Tensor, x: Tensor, mean: Tensor, motion: PointLikelihood) -> float:
        """Negative log-density, nats; infinite where it is not a number."""
        two_pi = math.log(2 * math.pi)
        gap = (x[self.rows] - mean).square() / self.noise
        value = 0.5 * (e.square().sum() + two_pi * e.numel())
        value = value + 0.5 * (gap + self.noise.log() + two_pi).sum()
        value = value - motion.log_prob(_second(x, motion)).sum()
        return float(value) if bool(value.isfinite()) else math.inf

    def step(
        self,
        e: Tensor,
        x: Tensor,
        mean: Tensor,
        jacobian: Tensor,
        damping: Tensor,
        weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A Gauss-Newton step with the base variables eliminated.

        Given `x`, base variables are independent between frames, and linear: what is left is one
        system in the poses, in which each law is a normal one.

        Args:
            e: Base variables `(N, d)`.
            x: Poses of all frames `(T, n)`.
            mean: The laws' noise-free poses at `e`, `(N, n)`.
            jacobian: Their derivatives `(N, n, d)`.
            damping: Of each frame with a law, `(N,)`.
            weights: Robust weights of the motion term.

        Returns:
            Changes of `e` `(N, d)` and `x` `(T, n)`, and what then is noise: `x` less the pose of
            its linearised law `(N, n)`.
        """
        factor = 1 + damping[:, None]
        centre = mean - (jacobian @ (e / factor)[..., None])[..., 0]
        precision, main = self._system(jacobian, factor, weights)
        bands = _motion_bands(weights, self.count)
        pull = -multiply_banded([bands[0].diag_embed(), *bands[1:]], x)
        pull[self.rows] += (precision @ (centre - x[self.rows])[..., None])[..., 0]
        main += bands[0].diag_embed()
        dx = factor_banded([main, *bands[1:]]).solve(pull)
        ahead = (precision @ (x[self.rows] + dx[self.rows] - centre)[..., None])[..., 0]
        de = ((jacobian.mT @ ahead[..., None])[..., 0] - e) / factor
        return de, dx, self.noise * ahead

    def spread(self, jacobian: Tensor, weights: Tensor) -> Tensor:
        """Posterior standard deviations `(T, n)` of the linearised problem."""
        main = self._system(jacobian, torch.ones_like(jacobian[:, 0, :1]), weights)[1]
        bands = _motion_bands(weights, self.count)
        main += bands[0].diag_embed()
        return factor_banded([main, *bands[1:]]).variances().sqrt()

    def _system(self, jacobian: Tensor, factor: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Precision of each law in the pose `(N, n, n)`, and as blocks of all frames."""
        n = jacobian.shape[-2]
        covariance = (jacobian / factor[..., None]) @ jacobian.mT
        covariance.diagonal(dim1=-2, dim2=-1).add_(self.noise)
        precision = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        main = precision.new_zeros(self.count, n, n)
        main.diagonal(dim1=-2, dim2=-1).add_(_RIDGE)
        main[self.rows] += precision
        return precision, main

    def _pose(self, e: Tensor) -> Tensor:
        value = self._inner(e)
        if isinstance(self._law, PushforwardDistribution):
            value = self._law.function(value)
        return value.flatten(-2)


def _second(x: Tensor, motion: PointLikelihood) -> Tensor:
    """Second differences `(T - 2, J, D)` of rows `(T, n)`; none of fewer than three."""
    second = x[2:] - 2 * x[1:-1] + x[:-2] if len(x) > 2 else x[:0]
    return second.unflatten(-1, tuple(motion.event_shape))


def kernel_weights(x: Tensor, motion: PointLikelihood) -> Tensor:
    """Weights of the squared standardised accelerations, `(T - 2, J, D)`."""
    residuals = motion.residuals(_second(x, motion))
    return motion.weights(residuals).unflatten(-1, tuple(motion.event_shape))


def motion_weights(x: Tensor, motion: PointLikelihood) -> Tensor:
    """Weights of the squared accelerations `(T - 2, n)`, one over the unit squared."""
    return (kernel_weights(x, motion) / motion.scale[..., None].square()).flatten(-2)


def _motion_bands(weights: Tensor, count: int) -> list[Tensor]:
    """Bands of the matrix of `sum w (x_{t-1} - 2 x_t + x_{t+1})^2`, all diagonal blocks."""
    n = weights.shape[-1]
    main, first = weights.new_zeros(count, n), weights.new_zeros(max(count - 1, 0), n)
    if count > 2:
        main[:-2] += weights
        main[1:-1] += 4 * weights
        main[2:] += weights
        first[:-1] -= 2 * weights
        first[1:] -= 2 * weights
    return [main, first, weights]
