"""Laws: ordinary torch and Pyro distributions over latents and poses."""

from .diffusion import DiffusionPoseDistribution, noise_levels
from .empirical import EmpiricalDistribution
from .flow import FlowDistribution, diagonal_normal
from .latent import DecodedPoseDistribution, LogProbEstimate
from .likelihoods import JointLikelihood, Kernel, KeypointLikelihood, PointLikelihood
from .mixture import PoseMixtureDistribution
from .pushforward import PushforwardDistribution
from .recalibrated import RecalibratedDistribution
from .recalibration import Reading, Recalibration, default_recalibration, joint_groups
from .shaped import PoseFlowDistribution, VectorToJoints, VectorToRotations

__all__ = [
    "DecodedPoseDistribution",
    "DiffusionPoseDistribution",
    "EmpiricalDistribution",
    "FlowDistribution",
    "JointLikelihood",
    "Kernel",
    "KeypointLikelihood",
    "LogProbEstimate",
    "PointLikelihood",
    "PoseFlowDistribution",
    "PoseMixtureDistribution",
    "PushforwardDistribution",
    "Reading",
    "RecalibratedDistribution",
    "Recalibration",
    "VectorToJoints",
    "VectorToRotations",
    "default_recalibration",
    "diagonal_normal",
    "joint_groups",
    "noise_levels",
]
