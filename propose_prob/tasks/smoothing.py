"""Smoothing: frames of a video, each with a distribution, and what couples them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..distributions import PushforwardDistribution
from ..distributions.jacobian import forward_jacobian
from ..distributions.likelihoods import Kernel, PointLikelihood
from ..errors import InputError
from ..geometry.rotations import axis_angle_from_matrix, matrix_from_6d, matrix_from_axis_angle
from ..inference.banded import factor_banded, multiply_banded
from ..inference.coordinates import coordinates
from .fusion import observation_noise

__all__ = [
    "MotionSystem",
    "Smoothed",
    "kernel_weights",
    "motion_weights",
    "smooth",
    "typical_acceleration",
]

#: Numbers that one pass of forward derivatives may hold for a layer of a hundred.
_PASS = 60_000
#: Lets blocks be factored that nothing but the motion term holds; it acts on steps, not on poses.
_RIDGE = 1e-6


class MotionSystem:
    """The frames of one person: which have a distribution, and how the distribution gives a pose.

    Poses are rows of n numbers in float64; distributions are evaluated in their own precision.
    """

    def __init__(self, distribution: Any, frames: Tensor | None, noise: float) -> None:
        count = distribution.batch_shape[0]
        self._distribution = distribution
        inner = (
            distribution.distribution
            if isinstance(distribution, PushforwardDistribution)
            else distribution
        )
        place = coordinates(inner, "pose", "latent")
        start = place.start()
        if not place.standard:
            raise InputError(
                f"expected a distribution that is the image of a normal one, got "
                f"{type(inner).__name__}"
            )
        self._inner = place.value
        self.size = place.size
        self.dtype, self.device = start.dtype, start.device
        if frames is None:
            frames = torch.arange(count)
        if frames.shape != (count,) or frames.is_floating_point():
            raise InputError(
                f"expected frames as {count} whole numbers, one for each distribution, got "
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
        own = observation_noise(distribution).double().reshape(count, -1)
        self.noise = own.square() + noise**2

    def value(self, e: Tensor) -> Tensor:
        """Poses `(N, n)` of base variables `(N, d)`."""
        return self._pose(e.to(self.dtype)).double()

    def source(self, e: Tensor) -> Tensor | None:
        """Values of the distribution behind a push-forward."""
        if isinstance(self._distribution, PushforwardDistribution):
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
        system in the poses, in which each distribution is a normal one.

        Args:
            e: Base variables `(N, d)`.
            x: Poses of all frames `(T, n)`.
            mean: The distributions' noise-free poses at `e`, `(N, n)`.
            jacobian: Their derivatives `(N, n, d)`.
            damping: Of each frame with a distribution, `(N,)`.
            weights: Robust weights of the motion term.

        Returns:
            Changes of `e` `(N, d)` and `x` `(T, n)`, and what then is noise: `x` less the pose of
            its linearized distribution `(N, n)`.
        """
        factor = 1 + damping[:, None]
        center = mean - (jacobian @ (e / factor)[..., None])[..., 0]
        precision, main = self._system(jacobian, factor, weights)
        bands = _motion_bands(weights, self.count)
        pull = -multiply_banded([bands[0].diag_embed(), *bands[1:]], x)
        pull[self.rows] += (precision @ (center - x[self.rows])[..., None])[..., 0]
        main += bands[0].diag_embed()
        dx = factor_banded([main, *bands[1:]]).solve(pull)
        ahead = (precision @ (x[self.rows] + dx[self.rows] - center)[..., None])[..., 0]
        de = ((jacobian.mT @ ahead[..., None])[..., 0] - e) / factor
        return de, dx, self.noise * ahead

    def spread(self, jacobian: Tensor, weights: Tensor) -> Tensor:
        """Posterior standard deviations `(T, n)` of the linearized problem."""
        main = self._system(jacobian, torch.ones_like(jacobian[:, 0, :1]), weights)[1]
        bands = _motion_bands(weights, self.count)
        main += bands[0].diag_embed()
        return factor_banded([main, *bands[1:]]).variances().sqrt()

    def _system(self, jacobian: Tensor, factor: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Precision of each distribution in the pose `(N, n, n)`, and as blocks of all frames."""
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
        if isinstance(self._distribution, PushforwardDistribution):
            value = self._distribution.function(value)
        return value.flatten(-2)


def _second(x: Tensor, motion: PointLikelihood) -> Tensor:
    """Second differences `(T - 2, J, D)` of rows `(T, n)`; none of fewer than three."""
    second = x[2:] - 2 * x[1:-1] + x[:-2] if len(x) > 2 else x[:0]
    return second.unflatten(-1, tuple(motion.event_shape))


def kernel_weights(x: Tensor, motion: PointLikelihood) -> Tensor:
    """Weights of the squared standardized accelerations, `(T - 2, J, D)`."""
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


#: A distribution is linearized anew where a base variable has moved further than this, in its own
#: spread.
_MOVED = 0.02
#: Longest damping of a frame: it then stands still.
_DAMPED = 1e6


@dataclass(frozen=True, eq=False)
class Smoothed:
    """A smoothed video of T frames, N of which had a distribution.

    Attributes:
        pose: `(T, *event)`, in the unit and axes of the distributions; all frames from the first to
            the last, those without a distribution included.
        frames: Their numbers `(T,)`.
        seen: Which of them had a distribution, `(T,)`.
        spread: Posterior standard deviation of each point (joint, or rotation's numbers) `(T, J)`,
            root of the sum over its coordinates: wide where frames are missing.
        base: Base variables of the N distributions, `(N, d)`.
        source: Values of the distribution that a `PushforwardDistribution` is the image of, `(N,
            ...)`; None for other distributions.
        motion_weights: How much each acceleration counted in the end, `(T - 2, J)`: far below 1 at
            jumps, which a robust kernel lets happen.
        log_density: Log-density that was maximized, nats.
        steps: Gauss-Newton steps taken.
        converged: Whether the last step was below the tolerance.

    Example:
        >>> import pyro.distributions as dist
        >>> distribution = dist.Normal(torch.zeros(4, 17, 3), 0.05).to_event(2)
        >>> smoothed = smooth(distribution, fps=30.0, frames=torch.tensor([0, 1, 2, 5]))
        >>> smoothed.seen.tolist(), bool(smoothed.spread[4, 0] > smoothed.spread[1, 0])
        ([True, True, True, False, False, True], True)
    """

    pose: Tensor
    frames: Tensor
    seen: Tensor
    spread: Tensor
    base: Tensor
    source: Tensor | None
    motion_weights: Tensor
    log_density: float
    steps: int
    converged: bool

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def rotations(self) -> Tensor:
        """A body's rotation matrices `(T, K, 3, 3)`; unseen frames turn evenly between neighbors.

        Raises:
            InputError: If the distributions were not over 6D rotations, nor images of distributions
                over them.
        """
        if self.pose.shape[-1] == 6:
            return matrix_from_6d(self.pose)
        if self.source is None or self.source.shape[-1] != 6:
            raise InputError(
                "expected the motion of distributions over 6D rotations, this one is of joints"
            )
        known = matrix_from_6d(self.source)
        rows = self.seen.nonzero()[:, 0]
        times = torch.arange(len(self), device=rows.device)
        after = torch.searchsorted(rows, times)
        before = torch.where(self.seen, after, after - 1)
        gap = (rows[after] - rows[before]).clamp(min=1)
        part = ((times - rows[before]) / gap).to(known)[:, None, None]
        turn = axis_angle_from_matrix(known[before].mT @ known[after])
        return known[before] @ matrix_from_axis_angle(part * turn)


@torch.no_grad()
def smooth(
    distribution: Any,
    *,
    frames: Tensor | None = None,
    fps: float = 30.0,
    acceleration: Tensor | float = 20.0,
    kernel: Kernel = "student_t",
    dof: float = 4.0,
    threshold: float = 4.0,
    noise: float = 1e-3,
    max_steps: int = 30,
    tolerance: float = 2e-4,
    report: Callable[[int, float], None] = lambda step, change: None,
) -> Smoothed:
    r"""Find the most probable motion given each frame's distribution.

    .. math:: \max_{e, x} \sum_{t\ \text{seen}} \log N(e_t; 0, I) + \log N(x_t; f_t(e_t), \sigma^2)
        + \sum_t \log k\big(x_{t-1} - 2 x_t + x_{t+1}\big)

    Each distribution is taken as its base variables `e` and the map `f` from them to a pose, as
    `map_estimate` takes it, so nothing here knows which model made it. :math:`\sigma` is a decoded
    distribution's observation noise, on top of `noise`. The motion term wants constant velocity:
    its kernel `k` is a distribution of the second differences of every joint (or rotation, as its
    6D numbers), and a robust one lets feet stop and hands turn.

    Frames are solved together, not in windows: every step linearizes the distributions (exact
    Jacobians), reweighs the kernel, and solves one linear system whose blocks only couple
    neighbors two frames apart (`inference.banded`). Time and memory are linear in T: in float64
    about 100 kB for a frame of 17 joints. Steps that do not help are halved, and frames whose
    distribution bends are damped.

    Frames without a distribution have only their neighbors: the motion term fills them, and
    `spread` tells how surely. A joint that was not seen in a frame needs nothing: the frame's
    distribution is wide there.

    Distributions of neighboring frames are multiplied as if their errors were independent. What a
    model gets wrong in all of them, smoothing keeps.

    Args:
        distribution: Batch shape `(N,)`, one distribution for each frame that has one: a lifter's
            over joints `(J, 3)`, `ProHMR`'s over rotations `(K, 6)`, or the
            `PushforwardDistribution` of the latter to joints, so that motion is judged in meters.
        frames: Number of each distribution's frame `(N,)`, increasing; without it 0, 1, ..., N - 1.
        fps: Frames per second of these numbers.
        acceleration: Scale of the motion term: per second squared, in the unit of the pose (m/s^2
            for joints, 1/s^2 for numbers of rotation matrices), one number or `(J,)`. Walking,
            running and play of CMU17's training split have a Student-t scale of 1.9 m/s^2 at 30
            frames per second (`typical_acceleration`). The default is ten times as wide:
            distributions err alike in neighboring frames and are surer than they should be, and
            the true scale then smooths fast motion away. Of 5, 10, 20 and 40 it has the lowest
            PA-MPJPE on val, and about half of 40's acceleration error (`benchmarks/smooth.py`).
        kernel: Of the motion term.
        dof: Degrees of freedom of `student_t`.
        threshold: Of `geman_mcclure`, in scales.
        noise: Observation noise of every distribution, in the unit of the pose; it keeps the system
            definite where a distribution leaves a coordinate no freedom, as at the root.
        max_steps: Most steps.
        tolerance: Solved when the root mean square change of the pose is below this.
        report: Called after each step with its number and that change.

    Returns:
        The motion.

    Raises:
        InputError: If the distribution has another batch shape or no base variables, `frames` do
            not increase, an option is out of range, or the distribution is not finite.

    Example:
        >>> import pyro.distributions as dist
        >>> distribution = dist.Normal(torch.randn(50, 17, 3), 0.05).to_event(2)
        >>> smooth(distribution, fps=30.0).pose.shape
        torch.Size([50, 17, 3])
    """
    _check_options(distribution, fps, noise, max_steps, tolerance)
    chain = MotionSystem(distribution, frames, noise)
    scale = torch.as_tensor(acceleration, dtype=torch.float64, device=chain.device) / fps**2
    if not bool((scale > 0).all()):
        raise InputError("expected acceleration > 0")
    points, dims = distribution.event_shape
    motion = PointLikelihood(
        scale.new_zeros(max(chain.count - 2, 0), points, dims),
        scale=scale, kind=kernel, dof=dof, threshold=threshold,
    )  # fmt: skip
    e = torch.zeros(len(chain.rows), chain.size, dtype=torch.float64, device=chain.device)
    mean = chain.value(e)
    if not bool(mean.isfinite().all()):
        bad = int((~mean.isfinite().all(-1)).nonzero()[0])
        raise InputError(
            f"frame {int(chain.frames[chain.rows[bad]])}: the distribution is not finite"
        )
    x = chain.interpolate(mean)
    objective = chain.objective(e, x, mean, motion)
    damping = torch.zeros_like(e[:, 0])
    linear_at, jacobian = e, chain.jacobian(e)
    steps, converged = 0, False
    for steps in range(1, max_steps + 1):
        if float((e - linear_at).abs().max()) > _MOVED:
            linear_at, jacobian = e, chain.jacobian(e)
        weights = motion_weights(x, motion)
        de, dx, rest = chain.step(e, x, mean, jacobian, damping, weights)
        share = 1.0
        for _ in range(6):
            trial = e + share * de
            new_mean = chain.value(trial)
            new_x = x + share * dx
            # The part of a pose that its distribution leaves to noise moves as planned, the rest
            # with it.
            new_x[chain.rows] = new_mean + (1 - share) * (x[chain.rows] - mean) + share * rest
            value = chain.objective(trial, new_x, new_mean, motion)
            if value <= objective + 1e-9 * abs(objective):
                break
            share /= 2
        planned = share * (jacobian @ de[..., None])[..., 0]
        bent = (new_mean - mean - planned).norm(dim=-1) / (planned.norm(dim=-1) + 1e-3)
        harder = (bent > 0.5) | (share < 0.1)
        damping = torch.where(harder, 4 * damping + 0.1, damping / 4).clamp(max=_DAMPED)
        if value > objective + 1e-9 * abs(objective):
            if float(damping.min()) >= _DAMPED:
                break
            continue
        change = float((new_x - x).square().mean().sqrt())
        e, x, mean, objective = trial, new_x, new_mean, value
        report(steps, change)
        if change < tolerance:
            converged = True
            break
    weights = motion_weights(x, motion)
    spread = chain.spread(jacobian, weights)
    return Smoothed(
        pose=x.unflatten(-1, (points, dims)).to(chain.dtype),
        frames=chain.frames,
        seen=chain.seen,
        spread=spread.unflatten(-1, (points, dims)).square().sum(-1).sqrt().to(chain.dtype),
        base=e.to(chain.dtype),
        source=chain.source(e),
        motion_weights=kernel_weights(x, motion)[..., 0].to(chain.dtype),
        log_density=-objective,
        steps=steps,
        converged=converged,
    )


def typical_acceleration(
    poses: Tensor, *, fps: float, sequence: Tensor | None = None, dof: float = 4.0
) -> Tensor:
    """Scale of the motion term from examples: of a Student-t fit to their accelerations.

    Source: Liu and Rubin, "ML estimation of the t distribution using EM and its extensions, ECM and
    ECME" (1995), location 0.

    Args:
        poses: Poses of consecutive frames `(N, J, D)`, without noise.
        fps: Frames per second.
        sequence: Which frames belong together `(N,)`; differences are not taken across two.
        dof: Degrees of freedom of the kernel it is meant for; infinite for `gaussian`.

    Returns:
        Scale of each joint `(J,)`, in the unit of the poses per second squared.

    Raises:
        InputError: If there are fewer than three frames in a row.

    Example:
        >>> moving = torch.randn(1000, 2, 3).cumsum(0).cumsum(0)
        >>> typical_acceleration(moving, fps=10.0, dof=torch.inf).div(100).round()
        tensor([1., 1.])
    """
    second = poses.diff(n=2, dim=0)
    if sequence is not None:
        second = second[(sequence[2:] == sequence[:-2]) & (sequence[1:-1] == sequence[2:])]
    if not len(second):
        raise InputError("expected three frames in a row of at least one sequence, got none")
    square, dims = second.double().square().sum(-1), poses.shape[-1]
    variance = square.mean(0) / dims
    for _ in range(100 if math.isfinite(dof) else 0):
        weight = (dof + dims) / (dof + square / variance.clamp_min(1e-30))
        variance = (weight * square).mean(0) / dims
    return (variance.sqrt() * fps**2).to(poses.dtype)


def _check_options(
    distribution: Any, fps: float, noise: float, max_steps: int, tolerance: float
) -> None:
    if (
        len(distribution.batch_shape) != 1
        or not distribution.batch_shape[0]
        or len(distribution.event_shape) != 2
    ):
        raise InputError(
            "expected a distribution of poses with batch shape (N,), one for each frame, got batch "
            "shape "
            f"{tuple(distribution.batch_shape)} and event shape {tuple(distribution.event_shape)}"
        )
    for name, value in (("fps", fps), ("noise", noise), ("tolerance", tolerance)):
        if not 0 < value < math.inf:
            raise InputError(f"expected {name} > 0, got {value}")
    if max_steps < 1:
        raise InputError(f"expected max_steps >= 1, got {max_steps}")
