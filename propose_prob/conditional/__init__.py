"""Conditional laws: modules that hold parameters and turn a context into a law."""

from .flow import (
    ActNorm,
    ComposedTransform,
    ConditionalCoupling,
    ConditionalFlow,
    ConditionalLU,
    FixedPermutation,
    Standardiser,
    coupling_stack,
    glow_stack,
)
from .gaussian import PAGD, PILGD, StandardBase, VariationalPILGD

__all__ = [
    "PAGD",
    "PILGD",
    "ActNorm",
    "ComposedTransform",
    "ConditionalCoupling",
    "ConditionalFlow",
    "ConditionalLU",
    "FixedPermutation",
    "StandardBase",
    "Standardiser",
    "VariationalPILGD",
    "coupling_stack",
    "glow_stack",
]
