"""Conditional flows: modules that hold parameters and build transforms and flow distributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .._zuko import LazyDistribution, LazyTransform
from ..distributions import FlowDistribution
from ..errors import InputError
from ..nn import ConditionalMLP
from ..nn.mlp import zero_output
from ..transforms import (
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    DiagonalAffine,
    Identity,
    Inverse,
    LULinear,
    Permutation,
    SplineCoupling,
    VectorTransform,
)

COUPLINGS = ("additive", "affine", "spline")


class ConditionalCoupling(LazyTransform):
    """A coupling transform whose network sees the context.

    Args:
        features: `d`, at least 2.
        context: Size of the context.
        kind: `"additive"` (constant log-determinant), `"affine"` (soft-clamped, eq. 5) or
            `"spline"` (monotonic rational-quadratic, through zuko).
        swap: Whether the first half moves instead of the second.
        width: Hidden size of the network.
        blocks: Residual blocks of the network.
        clamp: Bound of the affine log-scales.
        bins: Number of spline bins.
        activation: See `ConditionalMLP`.
        last_activation: See `ConditionalMLP`.

    Raises:
        InputError: If `features < 2` or `kind` is unknown.

    Example:
        >>> transform = ConditionalCoupling(6, 16, kind="additive", width=32)(torch.randn(5, 16))
        >>> transform(torch.randn(5, 6)).shape
        torch.Size([5, 6])
    """

    def __init__(
        self,
        features: int,
        context: int,
        *,
        kind: str = "affine",
        swap: bool = False,
        width: int = 160,
        blocks: int = 1,
        clamp: float = 1.0,
        bins: int = 8,
        activation: str = "silu",
        last_activation: bool = True,
    ) -> None:
        super().__init__()
        if features < 2:
            raise InputError(f"expected features >= 2 to split in two, got {features}")
        if kind not in COUPLINGS:
            raise InputError(f"expected a coupling of {', '.join(COUPLINGS)}, got {kind!r}")
        self.kind = kind
        self.swap = swap
        self.clamp = clamp
        self.bins = bins
        self.resting = features // 2 if not swap else features - features // 2
        moving = features - self.resting
        out = moving * {"additive": 1, "affine": 2, "spline": 3 * bins - 1}[kind]
        self.network = ConditionalMLP(
            self.resting,
            context,
            out,
            width=width,
            blocks=blocks,
            activation=activation,
            last_activation=last_activation,
        )
        zero_output(self.network)

    def forward(self, c: Tensor | None = None) -> VectorTransform:
        """The transform for a context `(..., m)`, its part computed now; ValueError without."""
        if c is None:
            raise InputError("expected a context of shape (..., m), got None")
        network: Callable[[Tensor], Tensor] = self.network.bind(c)
        if self.kind == "additive":
            return AdditiveCoupling(network, self.resting, swap=self.swap)
        if self.kind == "affine":
            return AffineCoupling(network, self.resting, swap=self.swap, clamp=self.clamp)
        return SplineCoupling(network, self.resting, swap=self.swap, bins=self.bins)


class ActNorm(LazyTransform):
    """Learned scale and shift of each element, fitted to data before training.

    `fitted` is a buffer, so that a loaded model is never fitted again by accident.
    Source: Glow (Kingma and Dhariwal, 2018), sec. 3.1.

    Args:
        features: `d`.

    Example:
        >>> norm = ActNorm(2)
        >>> norm(None)(torch.ones(2)).tolist(), bool(norm.fitted)
        ([1.0, 1.0], False)
    """

    fitted: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    def forward(self, c: Tensor | None = None) -> DiagonalAffine:
        """The transform; the context is ignored."""
        return DiagonalAffine(self.shift, self.log_scale)

    def fit(self, values: Tensor) -> None:
        """Sets shift and scale so that events `(n, d)` become latents of mean 0 and deviation 1.

        Raises:
            InputError: If there are fewer than two values.
        """
        if len(values) < 2:
            raise InputError(f"expected at least 2 values on axis 0, got {len(values)}")
        with torch.no_grad():
            self.shift.copy_(values.mean(0))
            self.log_scale.copy_(values.std(0).clamp_min(1e-6).log())
            self.fitted.fill_(True)


class LULinearModule(LazyTransform):
    """Learned linear map through its triangular factors, the identity at the start.

    Source: Glow (Kingma and Dhariwal, 2018), sec. 3.2; ProHMR, eq. 3.

    Args:
        features: `d`.

    Example:
        >>> LULinearModule(3)()(torch.arange(3.0)).tolist()
        [0.0, 1.0, 2.0]
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.lower = nn.Parameter(torch.zeros(features, features))
        self.upper = nn.Parameter(torch.zeros(features, features))
        self.log_diagonal = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))

    def forward(self, c: Tensor | None = None) -> LULinear:
        """The transform; the context is ignored."""
        eye = torch.eye(len(self.shift), dtype=self.shift.dtype, device=self.shift.device)
        upper = self.upper.triu(1) + self.log_diagonal.exp().diag_embed()
        return LULinear(self.lower.tril(-1) + eye, upper, self.shift)


class FixedPermutation(LazyTransform):
    """A permutation drawn once and kept as a buffer.

    Args:
        features: `d`.
        seed: Of the draw; the global random state is left alone.

    Example:
        >>> sorted(FixedPermutation(4, seed=0)()(torch.arange(4.0)).tolist())
        [0.0, 1.0, 2.0, 3.0]
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(self, features: int, *, seed: int) -> None:
        super().__init__()
        order = torch.randperm(features, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("order", order)
        self.register_buffer("inverse_order", order.argsort())

    def forward(self, c: Tensor | None = None) -> Permutation:
        """The transform; the context is ignored."""
        return Permutation(self.order, self.inverse_order)


class IdentityTransform(LazyTransform):
    """The identity for every context: a flow distribution that is its base.

    Example:
        >>> IdentityTransform()(torch.randn(5, 16))(torch.ones(2)).tolist()
        [1.0, 1.0]
    """

    def forward(self, c: Tensor | None = None) -> Identity:
        """The transform; the context is ignored."""
        return Identity()


class Standardizer(LazyTransform):
    """Fixed shift and scale that give standardized numbers the event's units.

    Kept as buffers and set from training data by `fit`, never learned.

    Args:
        features: `d`.

    Example:
        >>> standardiser = Standardizer(1)
        >>> standardiser.fit(torch.tensor([[1.0], [3.0]]))
        >>> standardiser()(torch.zeros(1)).tolist()
        [2.0]
    """

    shift: Tensor
    log_scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(features))
        self.register_buffer("log_scale", torch.zeros(features))

    def forward(self, c: Tensor | None = None) -> DiagonalAffine:
        """The transform; the context is ignored."""
        return DiagonalAffine(self.shift, self.log_scale)

    def fit(self, values: Tensor, *, floor: float = 1e-3) -> None:
        """Sets mean and standard deviation, at least `floor`, from events `(n, d)`."""
        self.shift.copy_(values.mean(0))
        self.log_scale.copy_(values.std(0).clamp_min(floor).log())


class ComposedTransform(LazyTransform):
    """Several conditional transforms, first to last from latent to event.

    Args:
        transforms: Any lazy transforms of vectors, zuko's included.

    Example:
        >>> coupling = ConditionalCoupling(6, 16, kind="additive")
        >>> transform = ComposedTransform([coupling, LULinearModule(6)])
        >>> transform(torch.randn(5, 16)).constant_ladj
        True
    """

    def __init__(self, transforms: Sequence[LazyTransform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, c: Tensor | None = None) -> Chain:
        """The composed transform for a context `(..., m)`."""
        return Chain([transform(c) for transform in self.transforms])

    @torch.no_grad()
    def fit_actnorm(self, values: Tensor, c: Tensor | None = None) -> None:
        """Fits every ActNorm that is not fitted yet to events `(n, d)` with contexts `(n, m)`."""
        for module in reversed(list(self.transforms)):
            if isinstance(module, ActNorm) and not module.fitted:
                module.fit(values)
            values = module(c).inv(values)


class InverseTransform(LazyTransform):
    """A conditional transform the other way round, for flows published from event to latent.

    Args:
        transform: Gives a `VectorTransform`.

    Example:
        >>> InverseTransform(LULinearModule(3))()(torch.arange(3.0)).tolist()
        [0.0, 1.0, 2.0]
    """

    def __init__(self, transform: LazyTransform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, c: Tensor | None = None) -> Inverse:
        """The inverted transform for a context `(..., m)`."""
        return Inverse(self.transform(c))


def coupling_stack(
    features: int,
    context: int,
    *,
    kind: str = "affine",
    couplings: int = 8,
    width: int = 160,
    blocks: int = 1,
    clamp: float = 1.0,
    seed: int = 0,
) -> ComposedTransform:
    """Couplings with fixed permutations between them: ProPose's flow.

    Args:
        features: `d`.
        context: Size of the context.
        kind: See `ConditionalCoupling`.
        couplings: Number of couplings.
        width: Hidden size of each network.
        blocks: Residual blocks of each network.
        clamp: Bound of affine log-scales.
        seed: Of the permutations.

    Example:
        >>> coupling_stack(6, 16, couplings=2, width=8)(torch.randn(5, 16))(torch.zeros(5, 6)).shape
        torch.Size([5, 6])
    """
    layers: list[LazyTransform] = []
    for i in range(couplings):
        layers.append(
            ConditionalCoupling(
                features,
                context,
                kind=kind,
                swap=i % 2 == 1,
                width=width,
                blocks=blocks,
                clamp=clamp,
            )
        )
        if i % 2 == 1 and i + 1 < couplings:
            layers.append(FixedPermutation(features, seed=seed + i))
    return ComposedTransform(layers)


def glow_stack(
    features: int,
    context: int,
    *,
    kind: str = "additive",
    couplings: int = 4,
    width: int = 1024,
    blocks: int = 2,
) -> ComposedTransform:
    """Blocks of ActNorm, LU linear and coupling: ProHMR's flow (eq. 3).

    With additive couplings the log-determinant is constant, so the mode is known.

    Args:
        features: `d`.
        context: Size of the context.
        kind: See `ConditionalCoupling`.
        couplings: Number of blocks.
        width: Hidden size of each network.
        blocks: Residual blocks of each network.

    Example:
        >>> glow_stack(6, 16, couplings=2, width=8)(torch.randn(5, 16)).constant_ladj
        True
    """
    layers: list[LazyTransform] = []
    for i in range(couplings):
        layers += [
            ActNorm(features),
            LULinearModule(features),
            ConditionalCoupling(
                features, context, kind=kind, swap=i % 2 == 1, width=width, blocks=blocks
            ),
        ]
    return ComposedTransform(layers)


class ConditionalFlow(LazyDistribution):
    """A flow distribution for each context: learnable base and transform.

    Args:
        base: Builds the distribution of the latent (PAGD, StandardBase, any zuko distribution
            module).
        transform: Builds the map from latent to event.

    Example:
        >>> from propose_prob.conditional import PAGD, glow_stack
        >>> distribution = ConditionalFlow(PAGD(nn.Linear(5, 16)), glow_stack(8, 5, couplings=2))
        >>> posterior = distribution.conditional(torch.randn(3, 5))
        >>> posterior.log_prob(posterior.sample((100,))).shape
        torch.Size([100, 3])
    """

    def __init__(self, base: LazyDistribution, transform: LazyTransform) -> None:
        super().__init__()
        self.base = base
        self.transform = transform

    def forward(self, c: Tensor | None = None) -> FlowDistribution:
        """Distribution with batch shape `(...)` for a context `(..., m)`."""
        batch = None if c is None else c.shape[:-1]
        return FlowDistribution(self.base(c), self.transform(c), batch_shape=batch)

    conditional = forward
