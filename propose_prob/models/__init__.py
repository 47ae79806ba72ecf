"""Compositions of conditional laws: the models of the papers."""

from .evidence import Evidence, keypoint_evidence
from .lifter import BodyLifter
from .lifting import LiftingConfig, LiftingFlow
from .prohmr import BodyEstimate, ProHMR, ProHMRConfig
from .propose import ProPose, ProPoseConfig

__all__ = [
    "BodyEstimate",
    "BodyLifter",
    "Evidence",
    "LiftingConfig",
    "LiftingFlow",
    "ProHMR",
    "ProHMRConfig",
    "ProPose",
    "ProPoseConfig",
    "keypoint_evidence",
]
