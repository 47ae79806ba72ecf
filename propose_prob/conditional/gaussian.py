"""Conditional Gaussians: PILGD and PAGD, the two distributions that ProPose's flow connects."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from .._zuko import LazyDistribution
from ..distributions.flow import diagonal_normal
from ..errors import InputError
from ..transforms import soft_clamp


class PILGD(LazyDistribution):
    r"""Pose Instance-Level Gaussian Distribution: one Gaussian for each 3D pose.

    .. math:: w \sim N(\sigma_\alpha(g(x, c)), s^2 I)

    Source: ProPose, eq. 1-3 and 5. Eq. 1 prints `s` like a variance, eq. 3 multiplies noise by it;
    it is a standard deviation here.

    Args:
        network: `g`, maps `(..., n)` (pose and condition, concatenated) to `(..., d)`.
        scale: `s`, fixed and never learned.
        clamp: `alpha` of the soft clamp on the mean.

    Raises:
        InputError: If `scale` or `clamp` is not positive.

    Example:
        >>> distribution = PILGD(nn.Linear(6, 2), scale=0.1)(torch.randn(5, 6))
        >>> distribution.batch_shape, distribution.event_shape
        (torch.Size([5]), torch.Size([2]))
    """

    def __init__(self, network: nn.Module, *, scale: float = 0.1, clamp: float = 2.0) -> None:
        super().__init__()
        _require_positive(scale=scale, clamp=clamp)
        self.network = network
        self.scale = scale
        self.clamp = clamp

    def forward(self, c: Tensor | None = None) -> Independent[Normal]:
        """Distribution of `w` with event shape `(d,)` given pose and condition `(..., n)`."""
        loc = soft_clamp(self.network(_required(c)), self.clamp)
        return diagonal_normal(loc, torch.full_like(loc, self.scale))

    conditional = forward


class VariationalPILGD(LazyDistribution):
    r"""A VAE's encoder in PILGD's place: `w ~ N(mu(x, c), sigma(x, c)^2)`, pulled to `N(0, I)`.

    Source: ProPose, Table 4 (the comparison with a variational autoencoder).

    Args:
        network: Maps `(..., n)` to `(..., 2 d)`: means and raw log standard deviations.
        clamp: Bound of the log standard deviations (soft clamp, eq. 5).

    Raises:
        InputError: If `clamp` is not positive.

    Example:
        >>> VariationalPILGD(nn.Linear(6, 4))(torch.randn(5, 6)).event_shape
        torch.Size([2])
    """

    def __init__(self, network: nn.Module, *, clamp: float = 4.0) -> None:
        super().__init__()
        _require_positive(clamp=clamp)
        self.network = network
        self.clamp = clamp

    def forward(self, c: Tensor | None = None) -> Independent[Normal]:
        """Distribution of `w` with event shape `(d,)` given pose and condition `(..., n)`."""
        loc, raw = self.network(_required(c)).chunk(2, -1)
        return diagonal_normal(loc, soft_clamp(raw, self.clamp).exp())

    conditional = forward


class PAGD(LazyDistribution):
    r"""Pose-Adaptive Gaussian Distribution: the flow's base, read off the 2D pose.

    .. math:: z \sim N(\mu_{2D}, \sigma_{2D}^2), \quad (\mu, \log \sigma) = \sigma_\alpha(h(c))

    The clamp acts on the mean and on the **log** of the standard deviation: clamping `sigma` itself
    would let it become negative. `temperature` multiplies the standard deviation; it is fitted
    after training on held-out poses and is 1 before.

    Source: ProPose, eq. 7-8 and 5.

    Args:
        network: `h`, maps a context `(..., m)` to `(..., 2 d)`.
        clamp: `alpha` of the soft clamp.

    Raises:
        InputError: If `clamp` is not positive.

    Example:
        >>> distribution = PAGD(nn.Linear(6, 4))(torch.randn(5, 6))
        >>> distribution.sample((3,)).shape, distribution.log_prob(torch.zeros(5, 2)).shape
        (torch.Size([3, 5, 2]), torch.Size([5]))
    """

    temperature: Tensor

    def __init__(self, network: nn.Module, *, clamp: float = 2.0) -> None:
        super().__init__()
        _require_positive(clamp=clamp)
        self.network = network
        self.clamp = clamp
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, c: Tensor | None = None) -> Independent[Normal]:
        """Distribution of `z` with event shape `(d,)` and batch shape `(...)` given `(..., m)`."""
        loc, log_scale = soft_clamp(self.network(_required(c)), self.clamp).chunk(2, -1)
        return diagonal_normal(loc, self.temperature * log_scale.exp())

    conditional = forward


class HomoscedasticGaussian(LazyDistribution):
    r"""A regression with a spread of its own for each number, the same for every context.

    .. math:: z \sim N(g(c), \mathrm{diag}(\sigma^2))

    Where `g` is trained by likelihood this is least squares, weighted by the spread that it leaves.

    Args:
        network: `g`, maps a context `(..., m)` to `(..., d)`.
        features: `d`.

    Example:
        >>> distribution = HomoscedasticGaussian(nn.Linear(6, 2), 2)(torch.randn(5, 6))
        >>> bool((distribution.stddev == distribution.stddev[0]).all())
        True
    """

    temperature: Tensor

    def __init__(self, network: nn.Module, features: int) -> None:
        super().__init__()
        self.network = network
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, c: Tensor | None = None) -> Independent[Normal]:
        """Distribution of `z` with event shape `(d,)` and batch shape `(...)` given `(..., m)`."""
        loc = self.network(_required(c))
        return diagonal_normal(loc, (self.temperature * self.log_scale.exp()).expand_as(loc))

    conditional = forward


class StandardBase(LazyDistribution):
    """`N(0, I)` for every context: the base of ProHMR and of ProPose's Table 5.

    Args:
        features: `d`.

    Example:
        >>> StandardBase(2)(torch.randn(5, 6)).event_shape
        torch.Size([2])
    """

    temperature: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("temperature", torch.ones(()))

    def forward(self, c: Tensor | None = None) -> Independent[Normal]:
        """Distribution of `z`, event shape `(d,)`, batch shape `(...)` of a context `(..., m)`."""
        batch = () if c is None else c.shape[:-1]
        loc = self.temperature.new_zeros(*batch, self.features)
        return diagonal_normal(loc, self.temperature.expand_as(loc))

    conditional = forward


def _required(c: Tensor | None) -> Tensor:
    if c is None:
        raise InputError("expected a context of shape (..., m), got None")
    return c


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise InputError(f"expected {name} > 0, got {value}")
