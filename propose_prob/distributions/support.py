"""Support of root-relative poses and its bijection to free coordinates."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Transform, biject_to, constraints, transform_to


class RootRelative(constraints.Constraint):
    """Poses `(J, 3)` of finite joints, relative to one of them.

    The root row carries no density. Inference that moves in unconstrained space (NUTS, AutoDelta)
    therefore has to leave it out: three directions without a density never stop drifting.

    Args:
        root: Index of the root joint.
    """

    event_dim = 2

    def __init__(self, root: int) -> None:
        self.root = root

    def check(self, value: Tensor) -> Tensor:
        """Whether poses `(..., J, 3)` have no NaN, of shape `(...)`."""
        return (value == value).all(-1).all(-1)


class InsertRoot(Transform):
    """Joints without their root `(..., J - 1, 3)` to poses `(..., J, 3)` whose root row is zero.

    Args:
        root: Index of the root joint.
    """

    domain = constraints.independent(constraints.real, 2)
    bijective = True

    def __init__(self, root: int) -> None:
        super().__init__(cache_size=0)
        self.root = root
        self.codomain = RootRelative(root)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, InsertRoot) and other.root == self.root

    def with_cache(self, cache_size: int = 1) -> InsertRoot:
        """Returns itself: nothing is cached."""
        return self

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero: the density is one over the joints without their root."""
        return x.new_zeros(x.shape[:-2])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of the poses."""
        return torch.Size((*shape[:-2], shape[-2] + 1, shape[-1]))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of the joints without their root."""
        return torch.Size((*shape[:-2], shape[-2] - 1, shape[-1]))

    def _call(self, x: Tensor) -> Tensor:
        root = x.new_zeros((*x.shape[:-2], 1, x.shape[-1]))
        return torch.cat([x[..., : self.root, :], root, x[..., self.root :, :]], -2)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.cat([y[..., : self.root, :], y[..., self.root + 1 :, :]], -2)


@biject_to.register(RootRelative)
@transform_to.register(RootRelative)
def _insert_root(constraint: RootRelative) -> InsertRoot:
    return InsertRoot(constraint.root)
