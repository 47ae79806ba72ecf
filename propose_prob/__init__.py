"""Composable probability distributions for 3D human pose."""

from . import data
from .conditional import PAGD, PILGD, ConditionalFlow
from .distributions import DecodedPoseDistribution, FlowDistribution
from .errors import InputError
from .models import ProPose, ProPoseConfig
from .weights import available, load, save

__all__ = [
    "PAGD",
    "PILGD",
    "ConditionalFlow",
    "DecodedPoseDistribution",
    "FlowDistribution",
    "InputError",
    "ProPose",
    "ProPoseConfig",
    "available",
    "data",
    "load",
    "save",
]
