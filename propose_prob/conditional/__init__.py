"""Conditional laws: modules that hold parameters and turn a context into a law."""

from .flow import (
    ActNorm,
    ComposedTransform,
    ConditionalCoupling,
    ConditionalFlow,
    ConditionalLU,
    FixedPermutation,
    InverseTransform,
    NoTransform,
    Standardiser,
    coupling_stack,
    glow_stack,
)
from .frozen import freeze
from .gaussian import PAGD, PILGD, HomoscedasticGaussian, StandardBase, VariationalPILGD

__all__ = [
    "PAGD",
    "PILGD",
    "ActNorm",
    "ComposedTransform",
    "ConditionalCoupling",
    "ConditionalFlow",
    "ConditionalLU",
    "FixedPermutation",
    "HomoscedasticGaussian",
    "InverseTransform",
    "NoTransform",
    "StandardBase",
    "Standardiser",
    "VariationalPILGD",
    "coupling_stack",
    "freeze",
    "glow_stack",
]
