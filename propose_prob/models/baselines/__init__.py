"""Laws that other works use, behind the same face and on the same encoder, to compare with."""

from .diffusion import DiffusionConfig, ScoreDiffusion
from .mixture import MixtureConfig, MixtureDensity
from .regression import RegressionBaseline, RegressionConfig
from .shared import KeypointModel
from .variational import ConditionalVAE, VariationalConfig

__all__ = [
    "ConditionalVAE",
    "DiffusionConfig",
    "KeypointModel",
    "MixtureConfig",
    "MixtureDensity",
    "RegressionBaseline",
    "RegressionConfig",
    "ScoreDiffusion",
    "VariationalConfig",
]
