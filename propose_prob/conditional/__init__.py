"""Modules that hold parameters and turn a context into a distribution."""

from .flows import (
    ActNorm,
    ConditionalCoupling,
    ConditionalFlow,
    FixedPermutation,
    LULinearModule,
    Standardizer,
    coupling_stack,
    glow_stack,
)
from .freezing import freeze
from .gaussian import PAGD, PILGD, StandardBase

__all__ = [
    "PAGD",
    "PILGD",
    "ActNorm",
    "ConditionalCoupling",
    "ConditionalFlow",
    "FixedPermutation",
    "LULinearModule",
    "StandardBase",
    "Standardizer",
    "coupling_stack",
    "freeze",
    "glow_stack",
]
