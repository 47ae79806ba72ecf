"""Laws: ordinary torch and Pyro distributions over latents and poses."""

from .flow import FlowDistribution, diagonal_normal
from .latent import DecodedPoseDistribution, LogProbEstimate

__all__ = ["DecodedPoseDistribution", "FlowDistribution", "LogProbEstimate", "diagonal_normal"]
