"""Compositions of conditional laws: the models of the papers."""

from .baselines import (
    ConditionalVAE,
    DiffusionConfig,
    MixtureConfig,
    MixtureDensity,
    RegressionBaseline,
    RegressionConfig,
    ScoreDiffusion,
    VariationalConfig,
)
from .evidence import Evidence, keypoint_evidence
from .export import PointEstimator, Sampler, export_onnx, export_program
from .lifter import BodyLifter
from .lifting import LiftingConfig, LiftingFlow
from .prohmr import BodyEstimate, ProHMR, ProHMRConfig
from .propose import ProPose, ProPoseConfig

__all__ = [
    "BodyEstimate",
    "BodyLifter",
    "ConditionalVAE",
    "DiffusionConfig",
    "Evidence",
    "LiftingConfig",
    "LiftingFlow",
    "MixtureConfig",
    "MixtureDensity",
    "PointEstimator",
    "ProHMR",
    "ProHMRConfig",
    "ProPose",
    "ProPoseConfig",
    "RegressionBaseline",
    "RegressionConfig",
    "Sampler",
    "ScoreDiffusion",
    "VariationalConfig",
    "export_onnx",
    "export_program",
    "keypoint_evidence",
]
