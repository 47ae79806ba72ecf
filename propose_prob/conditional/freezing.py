"""Freeze conditional modules for inference: constant parts are computed once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributions import Transform

from .._zuko import LazyTransform
from ..nn import ConditionalMLP
from ..nn.fused import BoundMLP, FrozenConditionalMLP, no_derivative_is_wanted
from ..transforms import Chain, DenseAffine
from .flows import (
    ActNorm,
    ComposedTransform,
    ConditionalCoupling,
    FixedPermutation,
    IdentityTransform,
    LULinearModule,
    Standardizer,
)

__all__ = ["FrozenAffine", "freeze"]

Module = TypeVar("Module", bound=nn.Module)

#: Samples of one context from which on contexts are taken one after another.
_SAMPLES = 64
#: Lazy transforms that ignore the context and are affine: neighbors become one matrix.
_AFFINE = (ActNorm, LULinearModule, FixedPermutation, IdentityTransform, Standardizer)


class FrozenAffine(LazyTransform):
    """Several affine transforms as one matrix with its inverse, both computed in float64.

    Args:
        transforms: Affine transforms that ignore the context, first to last from latent to event.
        features: `d`.
    """

    matrix: Tensor
    shift: Tensor
    inverse_matrix: Tensor
    inverse_shift: Tensor
    ladj: Tensor

    def __init__(self, transforms: Sequence[LazyTransform], features: int) -> None:
        super().__init__()
        tensors = [t for m in transforms for t in (*m.parameters(), *m.buffers())]
        dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
        device = tensors[0].device if tensors else torch.device("cpu")
        chain = Chain([copy.deepcopy(module).double()(None) for module in transforms])
        points = torch.cat([torch.zeros(1, features), torch.eye(features)]).double().to(device)
        with torch.no_grad():
            image, ladj = chain.call_and_ladj(points)
            origin, _ = chain.inverse_and_ladj(points)
        for name, value in {
            "matrix": image[1:] - image[0],
            "shift": image[0],
            "inverse_matrix": origin[1:] - origin[0],
            "inverse_shift": origin[0],
            "ladj": ladj[0],
        }.items():
            self.register_buffer(name, value.to(dtype).contiguous())

    def forward(self, c: Tensor | None = None) -> DenseAffine:
        """The transform; the context is ignored."""
        return DenseAffine(
            self.matrix, self.shift, self.inverse_matrix, self.inverse_shift, self.ladj
        )


class _FrozenComposed(LazyTransform):
    def __init__(self, transforms: Sequence[LazyTransform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, c: Tensor | None = None) -> Chain:
        transforms = [transform(c) for transform in self.transforms]
        if c is None or c.dim() != 2 or not all(_known(t) for t in self.transforms):
            return Chain(transforms)
        return _ByContext(transforms, len(c))


class _ByContext(Chain):
    """A chain for contexts `(B, m)` that takes many samples one context after another.

    The numbers between the layers then stay in the cache, and the context is a bias.
    """

    def __init__(self, transforms: Sequence[Transform], contexts: int) -> None:
        super().__init__(list(transforms))
        self.contexts = contexts

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self._one_by_one(x):
            return self._stacked([self._one(i).call_and_ladj(x[:, i]) for i in self._range])
        return super().call_and_ladj(x)

    def inverse_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if self._one_by_one(y):
            return self._stacked([self._one(i).inverse_and_ladj(y[:, i]) for i in self._range])
        return super().inverse_and_ladj(y)

    def _call(self, x: Tensor) -> Tensor:
        if self._one_by_one(x):
            return torch.stack([self._one(i)._call(x[:, i]) for i in self._range], 1)
        return super()._call(x)

    def _inverse(self, y: Tensor) -> Tensor:
        if self._one_by_one(y):
            return torch.stack([self._one(i)._inverse(y[:, i]) for i in self._range], 1)
        return super()._inverse(y)

    @property
    def _range(self) -> range:
        return range(self.contexts)

    def _one_by_one(self, x: Tensor) -> bool:
        many = x.dim() == 3 and x.shape[1] == self.contexts and len(x) >= _SAMPLES
        return many and x.device.type == "cpu" and no_derivative_is_wanted()

    def _one(self, index: int) -> Chain:
        return Chain([_for_one(part, index) for part in self.parts])

    @staticmethod
    def _stacked(results: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        values, ladjs = zip(*results, strict=True)
        return torch.stack(values, 1), torch.stack(ladjs, 1)


def _known(transform: nn.Module) -> bool:
    """Whether to take a lazy transform's contexts, if it has any, one after another."""
    if isinstance(transform, ConditionalCoupling):
        # Large hidden layers gain more from one large product than from the cache.
        network: nn.Module = transform.network
        return isinstance(network, FrozenConditionalMLP) and not len(network.first)
    return isinstance(transform, (FrozenAffine, FixedPermutation))


def _for_one(part: Transform, index: int) -> Transform:
    network = getattr(part, "network", None)
    if not isinstance(network, BoundMLP):
        return part
    single = copy.copy(part)
    setattr(single, "network", network.one(index))  # noqa: B010
    return single


def freeze(model: Module) -> Module:
    """A copy for inference only: the same distributions, faster.

    Linear parts of flows between two couplings become one matrix (and the inverse another), the
    networks use fused kernels where no derivative is asked for, and nothing can be trained, saved
    or loaded any more. Derivatives of densities and samples with respect to values and evidence
    stay available. The original is not touched; a change to its weights does not reach the copy.

    Args:
        model: Any model or conditional distribution of this package, or a module that holds some.

    Returns:
        The copy, in evaluation mode, its parameters without gradients.

    Example:
        >>> from propose_prob.conditional import ConditionalFlow, StandardBase, glow_stack
        >>> flow = ConditionalFlow(StandardBase(6), glow_stack(6, 4, width=16)).eval()
        >>> c, x = torch.randn(5, 4), torch.randn(5, 6)
        >>> torch.allclose(flow(c).log_prob(x), freeze(flow)(c).log_prob(x), atol=1e-4)
        True
    """
    frozen = _frozen(copy.deepcopy(model)).eval().requires_grad_(False)
    # Read by `weights.save`, which refuses.
    setattr(frozen, "is_frozen", True)  # noqa: B010
    return cast(Module, frozen)


def _frozen(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _frozen(child))
    if isinstance(module, ConditionalMLP):
        return FrozenConditionalMLP(module)
    if isinstance(module, ComposedTransform):
        return _FrozenComposed(_folded(list(module.transforms)))
    return module


def _folded(transforms: list[LazyTransform]) -> list[LazyTransform]:
    """Neighboring affine transforms as one."""
    parts: list[LazyTransform] = []
    run: list[LazyTransform] = []
    for transform in [*transforms, None]:
        if isinstance(transform, _AFFINE):
            run.append(transform)
            continue
        run = [part for part in run if not isinstance(part, IdentityTransform)]
        if all(isinstance(part, FixedPermutation) for part in run):
            parts += run
        else:
            parts.append(FrozenAffine(run, _features(run[0])))
        run = []
        if transform is not None:
            parts.append(transform)
    return parts or transforms


def _features(transform: LazyTransform) -> int:
    order = transform.order if isinstance(transform, FixedPermutation) else transform.shift
    return len(order)
