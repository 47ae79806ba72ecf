"""Laws: ordinary torch and Pyro distributions over latents and poses."""

from .flow import FlowDistribution, diagonal_normal
from .latent import DecodedPoseDistribution, LogProbEstimate
from .pushforward import PushforwardDistribution
from .recalibrated import RecalibratedDistribution, Recalibration, joint_groups
from .shaped import PoseFlowDistribution, VectorToJoints, VectorToRotations

__all__ = [
    "DecodedPoseDistribution",
    "FlowDistribution",
    "LogProbEstimate",
    "PoseFlowDistribution",
    "PushforwardDistribution",
    "RecalibratedDistribution",
    "Recalibration",
    "VectorToJoints",
    "VectorToRotations",
    "diagonal_normal",
    "joint_groups",
]
