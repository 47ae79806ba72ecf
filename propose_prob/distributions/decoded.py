"""Decoded pose distribution: a flow over a small latent, decoded to joints with noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.quasirandom import SobolEngine

from ..errors import InputError
from .flow import FlowDistribution, standard_parameters
from .jacobian import forward_jacobian
from .support import InsertRoot, RootRelative


@dataclass(frozen=True)
class LogProbEstimate:
    """An importance-weighted log-density with its diagnostics.

    Attributes:
        log_prob: Estimate, `sample_shape + batch_shape`; a lower bound in expectation.
        effective_sample_size: Of the `num_particles` particles, same shape.
        num_particles: Number of particles.

    Example:
        >>> import propose_prob
        >>> dist = propose_prob.load("propose-cmu17").conditional(torch.randn(17, 2))
        >>> estimate = dist.estimate_log_prob(dist.sample((3,)), num_particles=8)
        >>> estimate.log_prob.shape, estimate.num_particles
        (torch.Size([3]), 8)
    """

    log_prob: Tensor
    effective_sample_size: Tensor
    num_particles: int


class DecodedPoseDistribution(dist.TorchDistribution):
    r"""Distribution of a pose whose latent follows a flow.

    .. math:: p(x | c) = \int N(x; k(w, c), \sigma_x^2)\, p(w | c)\, dw

    ProPose's decoder changes dimension, so its noise-free push-forward has no density over poses;
    the observation noise `scale`, learned from held-out reconstructions, gives it one. `sample`
    draws from this distribution, `hypotheses` are the noise-free decodings that the paper
    evaluates.

    The event is `(J, 3)`: root-relative joints in meters, camera axes; the root row is zero and
    carries no density. Source: ProPose, eq. 1-3 and 9.

    Args:
        latent: Distribution of `w`, over a diagonal normal base; its batch shape is this
            distribution's.
        decoder: Map `(..., d) -> (..., J - 1, 3)` bound to the context, the root left out.
        scale: Standard deviation of each non-root joint's coordinates `(J - 1,)`, meters.
        encoder: Map of a pose `(..., J - 1, 3)` to the center of its PILGD `(..., d)`: where the
            search for the best latent starts.
        root: Index of the root joint.
        rotation: From the decoder's axes to the camera's, `batch_shape + (3, 3)`; None for equal.
        num_particles: Particles of `log_prob`.
        noise_seed: Which fixed noise set `log_prob` uses.
        validate_args: As in torch.

    Raises:
        InputError: If `scale` is not a vector, `root` not one of the joints or `num_particles` not
            positive.
        TypeError: If the latent's base is not a diagonal normal distribution.

    Example:
        >>> from propose_prob.distributions.flow import diagonal_normal
        >>> from propose_prob.transforms import Identity
        >>> latent = FlowDistribution(diagonal_normal(torch.zeros(9), torch.ones(9)), Identity())
        >>> dist = DecodedPoseDistribution(latent, lambda w: w.unflatten(-1, (3, 3)),
        ...                               torch.full((3,), 0.01))
        >>> dist.sample((5,)).shape, dist.hypotheses((2,)).shape, dist.log_prob_kind
        (torch.Size([5, 4, 3]), torch.Size([2, 4, 3]), 'bound')
    """

    arg_constraints = {"scale": constraints.positive}
    has_rsample = True
    log_prob_kind = "bound"

    def __init__(
        self,
        latent: FlowDistribution,
        decoder: Callable[[Tensor], Tensor],
        scale: Tensor,
        *,
        encoder: Callable[[Tensor], Tensor] | None = None,
        root: int = 0,
        rotation: Tensor | None = None,
        num_particles: int = 64,
        noise_seed: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        standard_parameters(latent.base_dist)
        if scale.dim() != 1:
            raise InputError(f"expected scale of shape (J - 1,), got {tuple(scale.shape)}")
        if not 0 <= root <= len(scale):
            raise InputError(f"expected root in 0..{len(scale)}, got {root}")
        _require_particles(num_particles)
        self.latent = latent
        self.decoder = decoder
        self.scale = scale
        self.encoder = encoder
        self.root = root
        self.rotation = rotation
        self.num_particles = num_particles
        self.noise_seed = noise_seed
        event = torch.Size((scale.shape[-1] + 1, 3))
        super().__init__(latent.batch_shape, event, validate_args=validate_args)

    def expand(
        self,
        batch_shape: torch.Size | list[int] | tuple[int, ...],
        _instance: Distribution | None = None,
    ) -> DecodedPoseDistribution:
        """The same distribution with a larger batch shape."""
        new = self._get_checked_instance(DecodedPoseDistribution, _instance)
        new.latent = self.latent.expand(torch.Size(batch_shape))
        for name in (
            "decoder", "scale", "encoder", "root", "rotation", "num_particles", "noise_seed",
        ):  # fmt: skip
            setattr(new, name, getattr(self, name))
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> RootRelative:
        """Root-relative poses; unconstrained inference moves all joints but the root."""
        return RootRelative(self.root)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Poses `sample_shape + batch_shape + (J, 3)`, observation noise included."""
        joints = self.decoder(self.latent.rsample(torch.Size(sample_shape)))
        return self._to_event(joints + self.scale[..., None] * torch.randn_like(joints))

    def hypotheses(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Noise-free decodings of latent samples, `sample_shape + batch_shape + (J, 3)`.

        The poses that the paper calls hypotheses (Tables 1 and 2). They lie on a surface of the
        latent's dimension, so they have no density of their own.
        """
        with torch.no_grad():
            return self.decode(self.latent.sample(torch.Size(sample_shape)))

    def decode(self, w: Tensor) -> Tensor:
        """Noise-free poses `(..., J, 3)` of latents `(..., d)`."""
        return self._to_event(self.decoder(w))

    @property
    def point_estimate(self) -> Tensor:
        """Decoded center of the base, `batch_shape + (J, 3)`: "SH" in the paper, Table 3.

        Not called a mode: it is none of the pose distribution's.
        """
        return self.decode(self.latent.center)

    @property
    def mode(self) -> Tensor:
        """Not available in closed form.

        Raises:
            NotImplementedError: Always; names the alternatives.
        """
        raise NotImplementedError(
            "a decoded distribution has no mode in closed form; use .point_estimate (decoded "
            "center of the "
            "base), .latent.mode where the latent flow has one, or a numerical MAP estimate"
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Importance-weighted log-density of poses `(..., J, 3)`, root row ignored.

        Deterministic for a given `noise_seed` and differentiable in value and parameters; a lower
        bound in expectation that tightens with `num_particles`. Units: nats, density per meter in
        each of the 3 (J - 1) coordinates.
        """
        return self.estimate_log_prob(value).log_prob

    def estimate_log_prob(
        self, value: Tensor, *, num_particles: int | None = None, noise_seed: int | None = None
    ) -> LogProbEstimate:
        """`log_prob` with its effective sample size.

        Each pose gets its own proposal: the Laplace approximation of `p(w | x, c)` in base
        coordinates, found by damped Gauss-Newton steps from the PILGD center, with a wider part
        for its tails, on fixed scrambled Sobol points.

        Args:
            value: Poses, `sample_shape + batch_shape + (J, 3)`, meters.
            num_particles: Overrides the distribution's.
            noise_seed: Overrides the distribution's.

        Raises:
            InputError: If `num_particles` is not positive.
        """
        if self._validate_args:
            self._validate_sample(value)
        particles = self.num_particles if num_particles is None else num_particles
        _require_particles(particles)
        seed = self.noise_seed if noise_seed is None else noise_seed
        shape = torch.broadcast_shapes(value.shape[:-2], self.batch_shape)
        target = self._from_event(value.expand(shape + self.event_shape))
        with torch.no_grad():
            center, factor = self._laplace(target.detach())
            e, log_q = _proposal_particles(center, factor, particles, seed)
        residual = (target - self._decode_standard(e)) / self.scale[..., None]
        log_likelihood = -0.5 * residual.square().sum((-2, -1)) - 3 * (
            self.scale.log().sum() + 0.5 * self.scale.shape[-1] * math.log(2 * math.pi)
        )
        log_prior = -0.5 * e.square().sum(-1) - 0.5 * e.shape[-1] * math.log(2 * math.pi)
        log_weights = log_likelihood + log_prior - log_q
        total = log_weights.logsumexp(0)
        with torch.no_grad():
            ess = (2 * total - (2 * log_weights).logsumexp(0)).exp()
        return LogProbEstimate(total - math.log(particles), ess, particles)

    def _decode_standard(self, e: Tensor) -> Tensor:
        """Joints of standardized base coordinates `(..., d)`: the noise of a N(0, I) latent."""
        loc, scale = standard_parameters(self.latent.base_dist)
        return self.decoder(self.latent.transform(loc + scale * e))

    def _laplace(self, target: Tensor, steps: int = 6) -> tuple[Tensor, Tensor]:
        """Center `(..., d)` and Cholesky factor of the precision `(..., d, d)` of `p(e | x, c)`."""
        loc, scale = standard_parameters(self.latent.base_dist)
        shape = target.shape[:-2] + loc.shape[-1:]
        if self.encoder is None:
            e = torch.zeros(shape, dtype=loc.dtype, device=loc.device)
        else:
            w = self.encoder(target)
            e = ((self.latent.transform.inv(w) - loc) / scale).expand(shape).contiguous()
        eye = torch.eye(shape[-1], dtype=loc.dtype, device=loc.device)
        damping = torch.full(shape[:-1], 1e-2, dtype=loc.dtype, device=loc.device)
        residual, jacobian = self._residual_and_jacobian(e, target)
        value = _objective(e, residual)
        for _ in range(steps):
            hessian = jacobian.mT @ jacobian + eye
            gradient = (jacobian.mT @ residual[..., None])[..., 0] + e
            damped = (
                hessian + damping[..., None, None] * hessian.diagonal(dim1=-2, dim2=-1).diag_embed()
            )
            step = torch.cholesky_solve(gradient[..., None], torch.linalg.cholesky(damped))
            trial = e - step[..., 0]
            trial_residual, trial_jacobian = self._residual_and_jacobian(trial, target)
            trial_value = _objective(trial, trial_residual)
            better = trial_value < value
            e = torch.where(better[..., None], trial, e)
            residual = torch.where(better[..., None], trial_residual, residual)
            jacobian = torch.where(better[..., None, None], trial_jacobian, jacobian)
            value = torch.where(better, trial_value, value)
            damping = torch.where(better, damping / 10, damping * 10)
        return e, torch.linalg.cholesky(jacobian.mT @ jacobian + eye)

    def _residual_and_jacobian(self, e: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Whitened residual `(..., n)` and its Jacobian `(..., n, d)` in base coordinates."""

        def whitened(e: Tensor) -> Tensor:
            return ((self._decode_standard(e) - target) / self.scale[..., None]).flatten(-2)

        return whitened(e), forward_jacobian(whitened, e)

    def _to_event(self, joints: Tensor) -> Tensor:
        if self.rotation is not None:
            joints = joints @ self.rotation.mT
        return InsertRoot(self.root)(joints)

    def _from_event(self, value: Tensor) -> Tensor:
        joints = InsertRoot(self.root).inv(value)
        return joints if self.rotation is None else joints @ self.rotation


def _require_particles(count: int) -> None:
    if count < 1:
        raise InputError(f"expected num_particles >= 1, got {count}")


def _objective(e: Tensor, residual: Tensor) -> Tensor:
    value = 0.5 * (residual.square().sum(-1) + e.square().sum(-1))
    return value.nan_to_num(nan=math.inf)


#: Shares and relative widths of the proposal: mostly the Laplace distribution, partly wider for its
#: tails.
_SHARES = (0.8, 0.2)
_WIDTHS = (1.0, 1.5)


def _proposal_particles(
    center: Tensor, factor: Tensor, particles: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Fixed low-discrepancy particles of a normal with a wider tail, with log-densities.

    Args:
        center: `(..., d)`.
        factor: Cholesky factor of the precision, `(..., d, d)`.
        particles: Number of particles.
        seed: Of the scrambling.

    Returns:
        Particles `(P, ..., d)` and log-densities `(P, ...)`.
    """
    d = center.shape[-1]
    points = SobolEngine(d + 1, scramble=True, seed=seed).draw(particles, dtype=torch.float64)
    wide = points[:, -1:] >= _SHARES[0]
    unit = torch.special.ndtri(points[:, :-1].clamp(1e-9, 1 - 1e-9))
    unit = torch.where(wide, _WIDTHS[1], _WIDTHS[0]) * unit
    square = unit.square().sum(-1)
    log_unit = torch.stack(
        [
            math.log(share) - d * math.log(width) - 0.5 * square / width**2
            for share, width in zip(_SHARES, _WIDTHS, strict=True)
        ]
    ).logsumexp(0) - 0.5 * d * math.log(2 * math.pi)
    batch = (1,) * (center.dim() - 1)
    moved = torch.linalg.solve_triangular(
        factor.mT,
        unit.to(center).reshape((particles, *batch, d)).expand(particles, *center.shape)[..., None],
        upper=True,
    )
    log_q = log_unit.to(center).reshape((particles, *batch))
    return center + moved[..., 0], log_q + factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
