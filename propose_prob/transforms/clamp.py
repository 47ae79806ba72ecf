"""The soft clamp of ProPose, eq. 5."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def soft_clamp(t: Tensor, alpha: float) -> Tensor:
    r"""Squeezes the real line smoothly into an interval.

    .. math:: \sigma_\alpha(t) = \frac{2 \alpha}{\pi} \arctan \frac{t}{\alpha}

    Source: ProPose, eq. 5 (after Ardizzone et al., 2019).

    Args:
        t: Any shape.
        alpha: Half the width of the interval, positive.

    Returns:
        Values in `(-alpha, alpha)`, of the shape of `t`.

    Example:
        >>> soft_clamp(torch.tensor([-1e9, 0.0, 1e9]), 2.0)
        tensor([-2.,  0.,  2.])
    """
    return (2 * alpha / math.pi) * torch.atan(t / alpha)
