"""Residual MLPs whose context part is computed once for each context."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from ..errors import InputError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": nn.functional.silu,
    "relu": nn.functional.relu,
}


class ResidualMLP(nn.Module):
    """Pre-activation residual MLP with layer norms.

    Args:
        features: Input size.
        out: Output size.
        width: Hidden size.
        blocks: Number of residual blocks of two layers.
        dropout: Dropout probability inside each block.
        skip: How many of the first inputs also reach the output through a linear map.

    Example:
        >>> ResidualMLP(34, 48, width=64)(torch.randn(5, 34)).shape
        torch.Size([5, 48])
    """

    def __init__(
        self,
        features: int,
        out: int,
        *,
        width: int = 512,
        blocks: int = 2,
        dropout: float = 0.0,
        skip: int = 0,
    ) -> None:
        super().__init__()
        self.input = nn.Linear(features, width)
        self.blocks = nn.Sequential(*(_Block(width, dropout, norm=True) for _ in range(blocks)))
        self.output = nn.Linear(width, out)
        self.skip = nn.Linear(skip, out, bias=False) if skip else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps `(..., features)` to `(..., out)`."""
        y = self.output(nn.functional.silu(self.blocks(self.input(x))))
        return y if self.skip is None else y + self.skip(x[..., : self.skip.in_features])


class ConditionalMLP(nn.Module):
    """Residual MLP of a value and a context, with a split first layer.

    The context's share of the first layer is computed once by `bind` and then broadcast over
    samples, instead of being copied for each sample.

    Args:
        features: Size of the value.
        context: Size of the context.
        out: Output size.
        width: Hidden size.
        blocks: Number of residual blocks of two layers.
        skip: Whether the value also reaches the output through a linear map.
        activation: `"silu"`, or `"relu"`, which published flows use.
        last_activation: Whether an activation precedes the output layer; in nflows' networks none
            does.

    Raises:
        InputError: If the activation is unknown.

    Example:
        >>> network = ConditionalMLP(6, 16, 4, width=32)
        >>> network.bind(torch.randn(5, 16))(torch.randn(200, 5, 6)).shape
        torch.Size([200, 5, 4])
    """

    def __init__(
        self,
        features: int,
        context: int,
        out: int,
        *,
        width: int = 256,
        blocks: int = 1,
        skip: bool = False,
        activation: str = "silu",
        last_activation: bool = True,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise InputError(f"expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation = activation
        self.last_activation = last_activation
        self.value = nn.Linear(features, width, bias=False)
        self.context = nn.Linear(context, width)
        self.blocks = nn.Sequential(
            *(_Block(width, 0.0, norm=False, activation=activation) for _ in range(blocks))
        )
        self.output = nn.Linear(width, out)
        self.skip = nn.Linear(features, out, bias=False) if skip else None
        # As in one joint layer: the fan-in is that of value and context together.
        bound = (features + context) ** -0.5
        nn.init.uniform_(self.value.weight, -bound, bound)
        nn.init.uniform_(self.context.weight, -bound, bound)

    def bind(self, context: Tensor) -> Callable[[Tensor], Tensor]:
        """Fixes the context `(..., context)`; returns a map `(..., features) -> (..., out)`."""
        return partial(self._tail, self.context(context))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps `(..., features)` and `(..., context)` to `(..., out)`."""
        return self._tail(self.context(context), x)

    def _tail(self, hoisted: Tensor, x: Tensor) -> Tensor:
        hidden = self.blocks(self.value(x) + hoisted)
        y = self.output(ACTIVATIONS[self.activation](hidden) if self.last_activation else hidden)
        return y if self.skip is None else y + self.skip(x)


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float, *, norm: bool, activation: str = "silu") -> None:
        super().__init__()
        self.activation = activation
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        act = ACTIVATIONS[self.activation]
        return x + self.second(self.dropout(act(self.first(act(self.norm(x))))))


def zero_output(network: ResidualMLP | ConditionalMLP) -> None:
    """Makes the network's output zero at initialization, so that a coupling starts as identity.

    Example:
        >>> network = ResidualMLP(6, 2, width=8)
        >>> zero_output(network)
        >>> network(torch.randn(6)).tolist()
        [0.0, 0.0]
    """
    with torch.no_grad():
        network.output.weight.zero_()
        network.output.bias.zero_()
