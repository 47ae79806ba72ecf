"""Compositions of conditional laws: the models of the papers."""

from .evidence import Evidence, keypoint_evidence
from .lifting import LiftingConfig, LiftingFlow
from .propose import ProPose, ProPoseConfig

__all__ = [
    "Evidence",
    "LiftingConfig",
    "LiftingFlow",
    "ProPose",
    "ProPoseConfig",
    "keypoint_evidence",
]
