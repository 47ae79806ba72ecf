"""Procrustes alignment of poses."""

import torch
from torch import Tensor

from ..errors import InputError
from .rotations import nearest_rotation

__all__ = ["procrustes"]


def procrustes(
    source: Tensor, target: Tensor, *, scale: bool = True, weights: Tensor | None = None
) -> Tensor:
    """Move, turn and, if asked, scale each source pose onto its target.

    The result minimizes the weighted squared distance over proper rotations, translations and (with
    `scale`) positive scales: a reflection is never used, however much nearer it would come (Umeyama
    1991, "Least-squares estimation of transformation parameters between two point patterns", eqs.
    40-42). A pose of which all points lie in one place is only moved. Gradients are damped where
    the rotation is not unique, as for collinear points.

    Args:
        source: Poses `(..., J, D)`, D = 2 or 3, any unit.
        target: Poses `(..., J, D)`; leading dimensions broadcast against those of `source`.
        scale: Whether the source may be scaled.
        weights: Weights `(..., J)`, not negative, or a bool mask; 0 leaves a joint out of the fit,
            and then its coordinates may be NaN. Left-out joints are moved with the others.

    Returns:
        The aligned source poses `(..., J, D)`, in the unit of the target if `scale`.

    Raises:
        InputError: If the shapes do not fit, a weight is negative or NaN, a pose has no joint with
            a positive weight, or such a joint has a coordinate that is not finite.

    Example:
        >>> pose = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
        >>> turned = 2 * pose[:, [1, 2, 0]] + 5
        >>> torch.allclose(procrustes(pose, turned), turned, atol=1e-5)
        True
    """
    if source.ndim < 2 or target.ndim < 2 or source.shape[-2:] != target.shape[-2:]:
        raise InputError(
            "expected source and target with the same last dimensions (J, D), "
            f"got {tuple(source.shape)} and {tuple(target.shape)}"
        )
    if source.shape[-1] not in (2, 3):
        raise InputError(
            f"expected 2 or 3 coordinates in the last dimension, got {source.shape[-1]}"
        )
    if weights is None:
        fitted_source, fitted_target = source, target
        share = source.new_full((source.shape[-2],), 1 / source.shape[-2])
    else:
        if weights.ndim < 1 or weights.shape[-1] != source.shape[-2]:
            raise InputError(
                f"expected weights of shape (..., {source.shape[-2]}), got {tuple(weights.shape)}"
            )
        weights = weights.to(source.dtype)
        total = weights.sum(dim=-1, keepdim=True)
        if not ((weights >= 0).all() and (total > 0).all()):
            raise InputError(
                "expected weights >= 0 with a positive sum over the joints of each pose"
            )
        share = weights / total
        used = (weights > 0).unsqueeze(-1)
        fitted_source = torch.where(used, source, torch.zeros_like(source))
        fitted_target = torch.where(used, target, torch.zeros_like(target))

    share = share.unsqueeze(-1)
    source_mean = (share * fitted_source).sum(dim=-2, keepdim=True)
    target_mean = (share * fitted_target).sum(dim=-2, keepdim=True)
    from_mean = fitted_source - source_mean
    covariance = (share * (fitted_target - target_mean)).transpose(-1, -2) @ from_mean
    if not covariance.isfinite().all():
        raise InputError("expected finite coordinates wherever the weight is positive")
    rotation, singular = nearest_rotation(covariance)
    moved = (source - source_mean) @ rotation.transpose(-1, -2)
    if scale:
        variance = (share * from_mean.square()).sum(dim=(-2, -1))
        rounding = 4 * torch.finfo(source.dtype).eps * fitted_source.abs().amax(dim=(-2, -1))
        point = variance <= rounding.square()
        factor = singular.sum(dim=-1) / torch.where(point, 1.0, variance)
        moved = moved * torch.where(point, 1.0, factor)[..., None, None]
    return moved + target_mean
