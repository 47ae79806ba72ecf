"""Compositions of conditional laws: the models of the papers."""

from .evidence import Evidence, keypoint_evidence
from .propose import ProPose, ProPoseConfig

__all__ = ["Evidence", "ProPose", "ProPoseConfig", "keypoint_evidence"]
