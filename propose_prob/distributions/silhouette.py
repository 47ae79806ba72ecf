"""Likelihood of a silhouette: the pixels of a person, given where the body's surface projects."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from ..errors import InputError

__all__ = ["SilhouetteLikelihood", "silhouette_pixels"]


class SilhouetteLikelihood(dist.TorchDistribution):
    r"""Law of M pixels drawn from a person's silhouette, given the body's projected surface.

    Each pixel is one of the surface's points, moved by a normal error, or one of any pixels of the
    image (0 to its width and height), from an imperfect mask:

    .. math::
        p(u_m) = (1 - \epsilon) \sum_v w_v N(u_m; p_v, s^2 I) + \epsilon / A

    It is a density, so that it pulls both ways: a pixel that no point explains has a low density,
    and points outside the silhouette take their share of the mass where no pixel is. It needs no
    renderer, and its gradient reaches points far from the silhouette's border.

    Neighbouring pixels are no independent evidence: M says how much the silhouette weighs, and
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
        >>> law = SilhouetteLikelihood(torch.rand(500, 2) * 100, 80, scale=3.0, size=(160, 160))
        >>> law.log_prob(torch.rand(80, 2) * 100) > law.log_prob(torch.rand(80, 2) * 100 + 60)
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
        """The same law with a larger batch shape."""
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
