"""Compositions of conditional distributions: the models of the papers, and baselines."""

from .baselines import ConditionalVAE, MixtureDensity, RegressionBaseline, ScoreDiffusion
from .export import Sampler, export_onnx, export_program
from .lifting_flow import LiftingConfig, LiftingFlow
from .prohmr import BodyEstimate, ProHMR, ProHMRConfig, ProHMRJoints
from .propose import ProPose, ProPoseConfig

__all__ = [
    "BodyEstimate",
    "ConditionalVAE",
    "LiftingConfig",
    "LiftingFlow",
    "MixtureDensity",
    "ProHMR",
    "ProHMRConfig",
    "ProHMRJoints",
    "ProPose",
    "ProPoseConfig",
    "RegressionBaseline",
    "Sampler",
    "ScoreDiffusion",
    "export_onnx",
    "export_program",
]
