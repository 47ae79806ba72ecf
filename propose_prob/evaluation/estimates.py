"""Point estimates from samples: mean, coordinatewise and geometric median, the random sample.

Which of them is meant changes the number, so a protocol names it.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["Estimate", "coordinate_median", "estimate", "geometric_median"]

Estimate = Literal["mean", "median", "geometric_median", "sample"]
"""Names of the estimates that `estimate` makes of samples."""


def estimate(samples: Tensor, kind: Estimate) -> Tensor:
    """One pose that stands for the samples.

    Args:
        samples: Samples of each item's distribution, ``(S, ..., J, 3)``, any unit.
        kind: ``"mean"``; ``"median"`` of each coordinate; ``"geometric_median"`` of each joint;
            ``"sample"``, the first of them, a random one where samples are independent.

    Returns:
        Poses ``(..., J, 3)``, same unit.

    Raises:
        InputError: If the kind is unknown or the samples have another shape.

    Example:
        >>> import torch
        >>> estimate(torch.tensor([0.0, 1.0, 5.0])[:, None, None].expand(3, 17, 3), "median")[0, 0]
        tensor(1.)
    """
    if kind not in get_args(Estimate):
        raise InputError(f"expected an estimate of {get_args(Estimate)}, got {kind!r}")
    _check(samples)
    if kind == "mean":
        return samples.mean(0)
    if kind == "median":
        return coordinate_median(samples)
    if kind == "geometric_median":
        return geometric_median(samples)
    return samples[0]


def coordinate_median(samples: Tensor) -> Tensor:
    """Median of each coordinate, the mean of the two middle values for an even S.

    Args:
        samples: ``(S, ..., J, 3)``, any unit.

    Returns:
        Poses ``(..., J, 3)``, same unit.

    Example:
        >>> coordinate_median(torch.tensor([[[0.0, 0, 0]], [[1.0, 2, 3]], [[9.0, 9, 9]]])).tolist()
        [[1.0, 2.0, 3.0]]
    """
    _check(samples)
    ordered = samples.sort(dim=0).values
    count = samples.shape[0]
    return (ordered[(count - 1) // 2] + ordered[count // 2]) / 2


def geometric_median(samples: Tensor, *, steps: int = 64, tolerance: float = 1e-7) -> Tensor:
    """The point of each joint with the least mean distance to its samples.

    It minimizes the joint's expected error (MPJPE) under the distribution, and turns with the pose,
    which the coordinatewise median does not. Computed by Weiszfeld's iteration with the correction
    of Vardi and Zhang, "The multivariate L1-median and associated data depth", PNAS 2000, eq.
    2.5-2.6, so that an iterate on a sample does not stop there unless it is the answer.

    Args:
        samples: ``(S, ..., J, 3)``, any unit.
        steps: Most iterations.
        tolerance: A joint that moves by less than this share of its spread is done: its answer does
            not depend on who shares the batch.

    Returns:
        Poses ``(..., J, 3)``, same unit.

    Example:
        >>> import torch
        >>> corners = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0]])
        >>> geometric_median(corners[:, None])
        tensor([[1., 1., 0.]])
    """
    _check(samples)
    point = coordinate_median(samples)
    spread = (samples - samples.mean(0)).square().sum(-1).mean(0).sqrt()
    tiny = torch.finfo(samples.dtype).tiny
    done = torch.zeros_like(spread, dtype=torch.bool)
    for _ in range(steps):
        gap = samples - point
        distance = torch.linalg.vector_norm(gap, dim=-1)
        here = distance <= 1e-9 * spread
        weight = torch.where(here, 0, 1 / distance.clamp_min(tiny))
        total = weight.sum(0)
        pull = (weight[..., None] * gap).sum(0)
        strength = torch.linalg.vector_norm(pull, dim=-1)
        # As many samples as lie here hold the point back; only a stronger pull moves it.
        held = (here.sum(0) / strength.clamp_min(tiny)).clamp(max=1)
        step = (1 - held)[..., None] * pull / total.clamp_min(tiny)[..., None]
        point = torch.where(done[..., None], point, point + step)
        done = done | (torch.linalg.vector_norm(step, dim=-1) <= tolerance * spread)
        if bool(done.all()):
            break
    return point


def _check(samples: Tensor) -> None:
    if samples.ndim < 3 or samples.shape[-1] != 3 or samples.shape[0] == 0:
        raise InputError(f"expected samples of shape (S, ..., J, 3), got {tuple(samples.shape)}")
