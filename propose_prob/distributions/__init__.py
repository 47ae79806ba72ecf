"""Ordinary torch and Pyro distributions over latents and poses."""

from .decoded import DecodedPoseDistribution
from .diffusion import DiffusionPoseDistribution
from .empirical import EmpiricalDistribution
from .flow import FlowDistribution, PoseFlowDistribution
from .likelihoods import JointLikelihood, KeypointLikelihood, PointLikelihood, SilhouetteLikelihood
from .mixture import PoseMixtureDistribution
from .pushforward import PushforwardDistribution
from .recalibration import RecalibratedDistribution

__all__ = [
    "DecodedPoseDistribution",
    "DiffusionPoseDistribution",
    "EmpiricalDistribution",
    "FlowDistribution",
    "JointLikelihood",
    "KeypointLikelihood",
    "PointLikelihood",
    "PoseFlowDistribution",
    "PoseMixtureDistribution",
    "PushforwardDistribution",
    "RecalibratedDistribution",
    "SilhouetteLikelihood",
]
