"""Likelihoods of observed points, joints and silhouettes.

They are distributions like all others, and besides offer what Gauss-Newton methods need:
standardized residuals, and the weights with which a robust kernel is solved as a sequence of least
squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..errors import InputError

__all__ = [
    "JointLikelihood",
    "Kernel",
    "KeypointLikelihood",
    "PointLikelihood",
    "SilhouetteLikelihood",
    "silhouette_pixels",
]

Kernel = Literal["gaussian", "student_t", "geman_mcclure"]
"""How fast evidence against far points grows."""


class PointLikelihood(dist.TorchDistribution):
    r"""Distribution of J observed points, given where they should be; each has its own error.

    With the standardized residual `r_j = confidence_j (value_j - points_j) / scale_j`, so that
    `scale / confidence` is a point's standard deviation, the log-density is the sum over points of

    * `gaussian`: an isotropic normal distribution;
    * `student_t`: an isotropic multivariate Student-t distribution, `dof` degrees of freedom,
      normalized;
    * `geman_mcclure`: :math:`-\frac12 \tau^2 |r|^2 / (\tau^2 + |r|^2)` with `threshold`
      :math:`\tau`: a normal distribution's exponent near 0 that no outlier can push beyond
      :math:`\tau^2 / 2`. It has no normalization: `log_prob_kind` is `"unnormalised"` and it cannot
      be sampled.

    A point with confidence 0, or whose observed value is NaN, is missing: it contributes nothing to
    density and gradient, and samples of one with confidence 0 are NaN.

    Source: Geman and McClure, "Statistical methods for tomographic image reconstruction" (1987);
    the kernel of SMPLify (Bogo et al., ECCV 2016), there without a density.

    Args:
        points: Where the points should be, `(..., J, D)`. Only those that are seen need be finite.
        confidence: `(..., J)`, at least 0; left out, all points count fully.
        scale: Standard deviation of a point's coordinates at confidence 1, in the unit of `points`:
            a number or `(..., J)`.
        kind: Which kernel.
        dof: Degrees of freedom of `student_t`.
        threshold: :math:`\tau` of `geman_mcclure`, in standard deviations.
        validate_args: As in torch.

    Raises:
        InputError: If a shape does not fit, a confidence is negative or NaN, `scale`, `dof` or
            `threshold` is not positive, or the kind is unknown.

    Example:
        >>> dist = PointLikelihood(torch.zeros(5, 17, 2), scale=2.0, kind="student_t")
        >>> dist.batch_shape, dist.event_shape
        (torch.Size([5]), torch.Size([17, 2]))
        >>> seen = dist.sample()
        >>> seen[:, 3] = torch.nan
        >>> bool(dist.log_prob(seen).isfinite().all())
        True
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.independent(constraints.real, 2)

    def __init__(
        self,
        points: Tensor,
        confidence: Tensor | None = None,
        *,
        scale: Tensor | float,
        kind: Kernel = "gaussian",
        dof: float = 4.0,
        threshold: float = 4.0,
        validate_args: bool | None = None,
    ) -> None:
        if kind not in get_args(Kernel):
            raise InputError(f"expected kind to be one of {get_args(Kernel)}, got {kind!r}")
        for name, number in (("dof", dof), ("threshold", threshold)):
            if not number > 0:
                raise InputError(f"expected {name} > 0, got {number}")
        if points.ndim < 2 or not points.is_floating_point():
            raise InputError(
                "expected floating-point points of shape (..., J, D), got "
                f"{tuple(points.shape)} of {points.dtype}"
            )
        joints = points.shape[-2]
        scale = torch.as_tensor(scale, dtype=points.dtype, device=points.device)
        if confidence is None:
            confidence = points.new_ones(joints)
        for name, tensor, least in (("confidence", confidence, 1), ("scale", scale, 0)):
            fits = tensor.ndim >= least and tensor.shape[-1:] in ((), (joints,))
            if not fits:
                raise InputError(
                    f"expected {name} of shape (..., {joints}), got {tuple(tensor.shape)}"
                )
        self.kind = kind
        self.dof = dof
        self.threshold = threshold
        batch = torch.broadcast_shapes(
            points.shape[:-2], confidence.shape[:-1], scale.expand(joints).shape[:-1]
            if scale.ndim == 0
            else scale.shape[:-1],
        )  # fmt: skip
        self.points = points.expand(*batch, *points.shape[-2:])
        self.confidence = confidence.to(points).expand(*batch, joints)
        self.scale = scale.expand(*batch, joints)
        super().__init__(batch, points.shape[-2:], validate_args=validate_args)
        if self._validate_args:
            # `not all(>= 0)` also catches NaN.
            if not bool((self.confidence >= 0).all()):
                raise InputError("expected confidence >= 0 on every axis, got a negative or NaN")
            if not bool((self.scale > 0).all()):
                raise InputError("expected scale > 0, got one that is not, or NaN")

    @property
    def log_prob_kind(self) -> str:
        """`"exact"`, or `"unnormalised"` for `geman_mcclure`."""
        return "unnormalised" if self.kind == "geman_mcclure" else "exact"

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the distribution can be sampled."""
        return self.kind != "geman_mcclure"

    @property
    def mean(self) -> Tensor:
        """The points themselves, `batch_shape + (J, D)`.

        Every kernel is symmetric about them (Student-t for `dof > 1`).
        """
        return self.points

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> PointLikelihood:
        """The same distribution with a larger batch shape."""
        new = self._get_checked_instance(type(self), _instance)
        batch = torch.Size(batch_shape)
        new.kind, new.dof, new.threshold = self.kind, self.dof, self.threshold
        new.points = self.points.expand(batch + self.event_shape)
        new.confidence = self.confidence.expand(*batch, self.event_shape[0])
        new.scale = self.scale.expand(*batch, self.event_shape[0])
        Distribution.__init__(new, batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density `sample_shape + batch_shape` of observed points, in nats.

        Raises:
            InputError: If the value does not have the event's shape.
        """
        residual, seen = self._standardized(value)
        square = residual.square().sum(-1)
        dims = self.event_shape[-1]
        if self.kind == "geman_mcclure":
            limit = self.threshold**2
            return (-0.5 * limit * square / (limit + square)).sum(-1)
        if self.kind == "gaussian":
            exponent = -0.5 * square - 0.5 * dims * math.log(2 * math.pi)
        else:
            half = 0.5 * (self.dof + dims)
            constant = (
                math.lgamma(half)
                - math.lgamma(0.5 * self.dof)
                - 0.5 * dims * math.log(self.dof * math.pi)
            )
            exponent = constant - half * torch.log1p(square / self.dof)
        log_width = (
            torch.where(seen, self.scale, 1).log() - torch.where(seen, self.confidence, 1).log()
        )
        return torch.where(seen, exponent - dims * log_width, 0).sum(-1)

    def residuals(self, value: Tensor) -> Tensor:
        """Standardized residuals `(..., J D)`; zero where a point is missing.

        With fixed `weights`, half the weighted sum of their squares has the gradient of
        `-log_prob`.
        """
        return self._standardized(value)[0].flatten(-2)

    def weights(self, residuals: Tensor) -> Tensor:
        """Weights of the squares `(..., J D)` that a reweighted least-squares step uses.

        Source: Holland and Welsch, "Robust regression using iteratively reweighted least-squares"
        (1977): the derivative of the kernel with respect to half the squared residual.
        """
        if self.kind == "gaussian":
            return torch.ones_like(residuals)
        parts = residuals.unflatten(-1, tuple(self.event_shape))
        square = parts.square().sum(-1, keepdim=True)
        if self.kind == "student_t":
            weight = (self.dof + self.event_shape[-1]) / (self.dof + square)
        else:
            weight = (self.threshold**2 / (self.threshold**2 + square)).square()
        return weight.expand_as(parts).flatten(-2)

    def rsample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Observations `sample_shape + batch_shape + (J, D)`; NaN where confidence is 0.

        Raises:
            NotImplementedError: For `geman_mcclure`, which is no normalized distribution.
        """
        if self.kind == "geman_mcclure":
            raise NotImplementedError(
                "the Geman-McClure kernel has no normalization, so nothing can be sampled from it; "
                "use kind='student_t' for a robust distribution that can"
            )
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.points.dtype, device=self.points.device)
        if self.kind == "student_t":
            half = torch.full_like(noise[..., :1], 0.5 * self.dof)
            noise = noise * (half / torch._standard_gamma(half)).sqrt()
        width = torch.where(self.confidence > 0, self.scale / self.confidence, torch.nan)
        return self.points + width[..., None] * noise

    def _standardized(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals `(..., J, D)` and which points `(..., J)` are seen."""
        if value.shape[-2:] != self.event_shape:
            raise InputError(
                f"expected values of shape (..., {self.event_shape[0]}, {self.event_shape[1]}), "
                f"got {tuple(value.shape)}"
            )
        seen = (self.confidence > 0) & ~value.isnan().any(-1)
        # Masked before the difference: NaN times a zero gradient would be NaN.
        gap = torch.where(seen[..., None], value, 0) - torch.where(seen[..., None], self.points, 0)
        return gap * (self.confidence / self.scale)[..., None], seen


class KeypointLikelihood(PointLikelihood):
    """Distribution of 2D keypoints `(J, 2)` given where the joints project; see `PointLikelihood`.

    Args:
        projected: Projected joints `(..., J, 2)`, pixels or any other unit.
        confidence: Of the detector, `(..., J)`; 0 means not seen.
        scale: Standard deviation of a keypoint's coordinates at confidence 1, in the same unit.
        kind: Which kernel.
        dof: Degrees of freedom of `student_t`.
        threshold: Of `geman_mcclure`, in standard deviations.
        validate_args: As in torch.

    Raises:
        InputError: As `PointLikelihood`, or if `projected` is not 2D.

    Example:
        >>> dist = KeypointLikelihood(torch.zeros(17, 2), scale=5.0, kind="geman_mcclure")
        >>> dist.log_prob_kind
        'unnormalised'
    """

    def __init__(
        self,
        projected: Tensor,
        confidence: Tensor | None = None,
        *,
        scale: Tensor | float,
        kind: Kernel = "gaussian",
        dof: float = 4.0,
        threshold: float = 4.0,
        validate_args: bool | None = None,
    ) -> None:
        _require_dims("projected", projected, 2)
        super().__init__(
            projected, confidence, scale=scale, kind=kind, dof=dof, threshold=threshold,
            validate_args=validate_args,
        )  # fmt: skip


class JointLikelihood(PointLikelihood):
    """Distribution of observed 3D joints `(J, 3)`: markers, a depth camera, another frame's pose.

    Args:
        joints: Where the joints are, `(..., J, 3)`, meters.
        confidence: `(..., J)`; 0 means not known. A boolean mask serves as well.
        scale: Standard deviation of a joint's coordinates at confidence 1, meters.
        kind: Which kernel.
        dof: Degrees of freedom of `student_t`.
        threshold: Of `geman_mcclure`, in standard deviations.
        validate_args: As in torch.

    Raises:
        InputError: As `PointLikelihood`, or if `joints` is not 3D.

    Example:
        >>> known = torch.tensor([True, False, True])
        >>> dist = JointLikelihood(torch.zeros(3, 3), known, scale=0.01)
        >>> value = torch.zeros(3, 3)
        >>> value[1] = torch.nan
        >>> bool(dist.log_prob(value) > 0)
        True
    """

    def __init__(
        self,
        joints: Tensor,
        confidence: Tensor | None = None,
        *,
        scale: Tensor | float,
        kind: Kernel = "gaussian",
        dof: float = 4.0,
        threshold: float = 4.0,
        validate_args: bool | None = None,
    ) -> None:
        _require_dims("joints", joints, 3)
        super().__init__(
            joints, confidence, scale=scale, kind=kind, dof=dof, threshold=threshold,
            validate_args=validate_args,
        )  # fmt: skip


def _require_dims(name: str, points: Any, dims: int) -> None:
    if points.ndim < 2 or points.shape[-1] != dims:
        raise InputError(f"expected {name} of shape (..., J, {dims}), got {tuple(points.shape)}")


class SilhouetteLikelihood(dist.TorchDistribution):
    r"""M pixels drawn from a person's silhouette, given the body's projected surface.

    Each pixel is one of the surface's points, moved by a normal error, or one of any pixels of the
    image (0 to its width and height), from an imperfect mask:

    .. math::
        p(u_m) = (1 - \epsilon) \sum_v w_v N(u_m; p_v, s^2 I) + \epsilon / A

    It is a density, so that it pulls both ways: a pixel that no point explains has a low density,
    and points outside the silhouette take their share of the mass where no pixel is. It needs no
    renderer, and its gradient reaches points far from the silhouette's border.

    Neighboring pixels are no independent evidence: M says how much the silhouette weighs, and
    some hundred pixels of `silhouette_pixels` are enough. Choose `scale` no smaller than the gaps
    between the projected points.

    Args:
        points: Projected surface points `(..., V, 2)`, pixels. They should cover the surface
            evenly, or be weighted by the area that each stands for.
        count: M, pixels of an observation.
        scale: s, standard deviation of a coordinate, pixels: a number or `(...)`.
        size: Width and height of the image, pixels; A is its area.
        weights: Share of the surface that each point stands for, `(V,)`, positive; equal by
            default.
        outliers: Share of the pixels that are not the person's.
        validate_args: As in torch.

    Raises:
        InputError: If a shape does not fit, or a number is out of range.

    Example:
        >>> dist = SilhouetteLikelihood(torch.rand(500, 2) * 100, 80, scale=3.0, size=(160, 160))
        >>> dist.log_prob(torch.rand(80, 2) * 100) > dist.log_prob(torch.rand(80, 2) * 100 + 60)
        tensor(True)
    """

    arg_constraints = {"points": constraints.independent(constraints.real, 2)}
    has_rsample = False

    def __init__(
        self,
        points: Tensor,
        count: int,
        *,
        scale: Tensor | float,
        size: tuple[float, float],
        weights: Tensor | None = None,
        outliers: float = 0.05,
        validate_args: bool | None = None,
    ) -> None:
        if points.ndim < 2 or points.shape[-1] != 2 or not points.shape[-2]:
            raise InputError(f"expected points of shape (..., V, 2), got {tuple(points.shape)}")
        scale = torch.as_tensor(scale, dtype=points.dtype, device=points.device)
        if not bool((scale > 0).all()):
            raise InputError("expected scale > 0, got one that is not, or NaN")
        if count < 1 or not 0 < min(size) <= max(size) < math.inf or not 0 <= outliers < 1:
            raise InputError(
                "expected count >= 1, a size > 0 and outliers in [0, 1), got "
                f"{count}, {size} and {outliers}"
            )
        vertices = points.shape[-2]
        if weights is None:
            weights = points.new_full((vertices,), 1 / vertices)
        elif weights.shape != (vertices,) or not bool((weights > 0).all()):
            raise InputError(f"expected positive weights ({vertices},), got {tuple(weights.shape)}")
        batch = torch.broadcast_shapes(points.shape[:-2], scale.shape)
        self.points = points.expand(*batch, vertices, 2)
        self.scale = scale.expand(batch)
        self.weights = weights / weights.sum()
        self.size, self.outliers = size, float(outliers)
        super().__init__(batch, torch.Size([count, 2]), validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> constraints.Constraint:
        """All real pixels; NaN means a pixel left out."""
        return constraints.independent(constraints.real, 2)

    @property
    def log_prob_kind(self) -> str:
        """`"exact"`."""
        return "exact"

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> SilhouetteLikelihood:
        """The same distribution with a larger batch shape."""
        new = self._get_checked_instance(SilhouetteLikelihood, _instance)
        batch = torch.Size(batch_shape)
        new.points = self.points.expand(batch + self.points.shape[-2:])
        new.scale = self.scale.expand(batch)
        new.weights, new.size, new.outliers = self.weights, self.size, self.outliers
        Distribution.__init__(new, batch, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density `sample_shape + batch_shape` of pixels, in nats.

        Raises:
            InputError: If the value does not have the event's shape.
        """
        if value.shape[-2:] != self.event_shape:
            raise InputError(
                f"expected pixels of shape (..., {self.event_shape[0]}, 2), "
                f"got {tuple(value.shape)}"
            )
        gap = value[..., :, None, :] - self.points[..., None, :, :]
        scale = self.scale[..., None, None]
        exponent = -0.5 * (gap / scale[..., None]).square().sum(-1)
        height = self.weights.log() - (2 * math.pi * scale.square()).log()
        person = math.log1p(-self.outliers) + (exponent + height).logsumexp(-1)
        if not self.outliers:
            return person.sum(-1)
        inside = ((value >= 0) & (value <= value.new_tensor(self.size))).all(-1)
        level = math.log(self.outliers / (self.size[0] * self.size[1]))
        other = torch.where(inside, level, -torch.inf)
        return torch.logaddexp(person, other).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | Sequence[int] = ()) -> Tensor:
        """Pixels `sample_shape + batch_shape + (M, 2)`."""
        shape = self._extended_shape(torch.Size(sample_shape))
        index = torch.multinomial(self.weights, math.prod(shape[:-1]), replacement=True)
        points = self.points.expand(shape[:-2] + self.points.shape[-2:])
        chosen = points.gather(-2, index.view(shape[:-1])[..., None].expand(shape))
        person = chosen + self.scale[..., None, None] * torch.randn_like(chosen)
        other = torch.rand_like(person) * person.new_tensor(self.size)
        return torch.where(torch.rand_like(person[..., :1]) < self.outliers, other, person)


def silhouette_pixels(mask: Tensor, count: int) -> Tensor:
    """Pixels of a mask, spread evenly over it.

    Args:
        mask: `(H, W)`, bool.
        count: How many.

    Returns:
        Their middles `(count, 2)`, x and y; the first pixel's is (0.5, 0.5). Pixels of a mask
        smaller than `count` come more than once.

    Raises:
        InputError: If the mask is empty, not bool, or not two-dimensional.

    Example:
        >>> silhouette_pixels(torch.ones(40, 30, dtype=torch.bool), 100).shape
        torch.Size([100, 2])
    """
    if mask.ndim != 2 or mask.dtype is not torch.bool or not bool(mask.any()):
        raise InputError(
            f"expected a mask (H, W) of bool with a pixel set, got {mask.dtype} {tuple(mask.shape)}"
        )
    if count < 1:
        raise InputError(f"expected a count of at least 1, got {count}")
    pixels = mask.nonzero()
    # Every so many pixels in the order of interleaved bits of row and column, a curve whose
    # stretches are compact patches.
    order = torch.zeros(len(pixels), dtype=torch.long, device=mask.device)
    for bit in range(16):
        for axis in range(2):
            order |= ((pixels[:, axis] >> bit) & 1) << (2 * bit + 1 - axis)
    pixels = pixels[order.argsort()]
    step = (torch.arange(count, device=mask.device) + 0.5) / count * len(pixels)
    return pixels[step.long()].flip(-1).float() + 0.5
