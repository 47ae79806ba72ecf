"""Inference-only networks: fused kernels and preprocessed weights.

On CPUs, torch's own inference compiler calls oneDNN with weights in that library's own layout and
with activation or addition fused into the matrix product. These modules call the same operators
directly, where torch has them and nothing needs a derivative; elsewhere they compute the same with
plain operators.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from .mlp import ACTIVATIONS, ConditionalMLP

__all__ = ["BoundMLP", "FrozenConditionalMLP", "FrozenLinear", "no_derivative_is_wanted"]

#: Multiplications and weights below which a kernel call costs more than it saves (measured).
_MULTIPLICATIONS, _WEIGHTS = 20_000_000, 60_000
_FUSED_NAMES = {"silu": "swish", "relu": "relu"}


class FrozenLinear(nn.Module):
    """A linear layer with an activation or an addition after it.

    Args:
        linear: Layer whose weights are copied.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", linear.weight.detach().clone())
        bias = None if linear.bias is None else linear.bias.detach().clone()
        self.register_buffer("bias", bias)
        self._packed: tuple[tuple[int, int], Tensor] | None = None

    def forward(
        self,
        x: Tensor,
        *,
        activation: str | None = None,
        add: Tensor | None = None,
        fused: bool = False,
    ) -> Tensor:
        """Maps `(..., in)` to `(..., out)`: `activation(W x + b)` or `W x + b + add`.

        Args:
            x: Input.
            activation: `"silu"` or `"relu"`.
            add: Tensor of the output's shape; not together with an activation.
            fused: Whether kernels without a derivative may be used.
        """
        weight = self.weight
        if (
            fused
            and weight.numel() >= _WEIGHTS
            and x.numel() * len(weight) >= _MULTIPLICATIONS
            and x.dtype == torch.float32
            and x.device.type == "cpu"
        ):
            kernel = torch.ops.mkldnn._linear_pointwise
            packed = self._layout()
            if add is not None:
                return kernel.binary(x, add, packed, self.bias, "add")
            name = "none" if activation is None else _FUSED_NAMES[activation]
            return kernel(x, packed, self.bias, name, [], "")
        y = nn.functional.linear(x, weight, self.bias)
        if add is not None:
            return y.add_(add) if fused else y + add
        return y if activation is None else _activate(y, activation, in_place=fused)

    def _layout(self) -> Tensor:
        key = (self.weight.data_ptr(), self.weight._version)
        if self._packed is None or self._packed[0] != key:
            packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), None)
            self._packed = (key, packed)
        return self._packed[1]

    def __getstate__(self) -> dict[str, Any]:
        # Packed weights are opaque: neither pickle nor deepcopy can take them.
        return self.__dict__ | {"_packed": None}


class FrozenConditionalMLP(nn.Module):
    """A `ConditionalMLP` for inference.

    Args:
        network: Network whose weights are copied.
    """

    def __init__(self, network: ConditionalMLP) -> None:
        super().__init__()
        self.activation = network.activation
        self.last_activation = network.last_activation
        self.value = FrozenLinear(network.value)
        self.context = FrozenLinear(network.context)
        layers = [(block.first, block.second) for block in network.blocks]
        self.first = nn.ModuleList(FrozenLinear(cast(nn.Linear, one)) for one, _ in layers)
        self.second = nn.ModuleList(FrozenLinear(cast(nn.Linear, two)) for _, two in layers)
        self.output = FrozenLinear(network.output)
        self.skip = None if network.skip is None else FrozenLinear(network.skip)

    def bind(self, context: Tensor) -> BoundMLP:
        """Fixes the context `(..., context)`; returns a map `(..., features) -> (..., out)`."""
        return BoundMLP(self, self.context(context))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps `(..., features)` and `(..., context)` to `(..., out)`."""
        return self.bind(context)(x)

    def tail(self, hoisted: Tensor, x: Tensor) -> Tensor:
        """Everything after the context's share `(..., width)` of the first layer."""
        fused = no_derivative_is_wanted()
        if hoisted.dim() == 1:
            hidden = nn.functional.linear(x, self.value.weight, hoisted)
        elif fused and x.shape[:-1] == torch.broadcast_shapes(x.shape[:-1], hoisted.shape[:-1]):
            hidden = self.value(x).add_(hoisted)
        else:
            hidden = self.value(x) + hoisted
        for first, second in zip(self.first, self.second, strict=True):
            inner = first(
                ACTIVATIONS[self.activation](hidden), activation=self.activation, fused=fused
            )
            hidden = second(inner, add=hidden, fused=fused)
        if self.last_activation:
            hidden = _activate(hidden, self.activation, in_place=fused)
        if self.skip is None:
            return self.output(hidden, fused=fused)
        return self.output(hidden, add=self.skip(x), fused=fused)


class BoundMLP:
    """A `FrozenConditionalMLP` with its context.

    Args:
        network: The network.
        hoisted: The context's share of the first layer, `(..., width)`.
    """

    def __init__(self, network: FrozenConditionalMLP, hoisted: Tensor) -> None:
        self.network = network
        self.hoisted = hoisted

    def __call__(self, x: Tensor) -> Tensor:
        """Maps `(..., features)` to `(..., out)`."""
        return self.network.tail(self.hoisted, x)

    def one(self, index: int) -> BoundMLP:
        """The same for one of a batch of contexts `(B, m)`."""
        return BoundMLP(self.network, self.hoisted[index])


def no_derivative_is_wanted() -> bool:
    """Whether kernels without derivatives, and in-place arithmetic, may be used.

    Not while autograd records, inside a forward-mode derivative, or inside `torch.func` transforms.
    """
    # A compiler fuses by itself.
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return False
    if not torch.backends.mkldnn.is_available():
        return False
    # Both are private; a torch without them gets the plain operators.
    level = getattr(torch._C._functorch, "maybe_current_level", None)
    forward_level = getattr(forward_ad, "_current_level", 0)
    kernels = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return kernels and level is not None and level() is None and forward_level < 0


def _activate(x: Tensor, name: str, *, in_place: bool) -> Tensor:
    if not in_place:
        return ACTIVATIONS[name](x)
    return nn.functional.silu(x, inplace=True) if name == "silu" else x.relu_()
