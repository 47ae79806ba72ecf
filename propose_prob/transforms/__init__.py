"""Bijections from latent to event: pure torch transforms, parameters given from outside."""

from .base import Chain, Identity, Inverse, VectorTransform
from .clamp import soft_clamp
from .coupling import AdditiveCoupling, AffineCoupling, SplineCoupling
from .linear import DenseAffine, DiagonalAffine, LULinear, Permutation

__all__ = [
    "AdditiveCoupling",
    "AffineCoupling",
    "Chain",
    "DenseAffine",
    "DiagonalAffine",
    "Identity",
    "Inverse",
    "LULinear",
    "Permutation",
    "SplineCoupling",
    "VectorTransform",
    "soft_clamp",
]
