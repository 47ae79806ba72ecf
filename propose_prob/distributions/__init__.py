"""Laws: ordinary torch and Pyro distributions over latents and poses."""

from .diffusion import DiffusionPoseDistribution, noise_levels
from .empirical import EmpiricalDistribution
from .flow import FlowDistribution, diagonal_normal
from .latent import DecodedPoseDistribution, LogProbEstimate
from .likelihoods import JointLikelihood, Kernel, KeypointLikelihood, PointLikelihood
from .mixture import PoseMixtureDistribution
from .pushforward import PushforwardDistribution
from .recalibrated import RecalibratedDistribution
from .recalibrated_base import BaseRecalibration
from .recalibration import (
    Reading,
    Recalibration,
    default_recalibration,
    joint_groups,
    place_pose,
)
from .shaped import PoseFlowDistribution, VectorToJoints, VectorToRotations
from .silhouette import SilhouetteLikelihood, silhouette_pixels

__all__ = [
    "BaseRecalibration",
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
    "SilhouetteLikelihood",
    "VectorToJoints",
    "VectorToRotations",
    "default_recalibration",
    "diagonal_normal",
    "joint_groups",
    "noise_levels",
    "place_pose",
    "silhouette_pixels",
]
