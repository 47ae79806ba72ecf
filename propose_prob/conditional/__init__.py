"""Modules that hold parameters and turn a context into a distribution."""

from .flows import (
    ActNorm,
    ComposedTransform,
    ConditionalCoupling,
    ConditionalFlow,
    FixedPermutation,
    IdentityTransform,
    InverseTransform,
    LULinearModule,
    Standardizer,
    coupling_stack,
    glow_stack,
)
from .freezing import freeze
from .gaussian import PAGD, PILGD, HomoscedasticGaussian, StandardBase, VariationalPILGD

__all__ = [
    "PAGD",
    "PILGD",
    "ActNorm",
    "ComposedTransform",
    "ConditionalCoupling",
    "ConditionalFlow",
    "FixedPermutation",
    "HomoscedasticGaussian",
    "IdentityTransform",
    "InverseTransform",
    "LULinearModule",
    "StandardBase",
    "Standardizer",
    "VariationalPILGD",
    "coupling_stack",
    "freeze",
    "glow_stack",
]
