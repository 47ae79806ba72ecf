"""Tasks: what users want from a distribution, solved over many people and frames."""

from .completion import CompletedPose, complete, complete_pose
from .fitting import FittedBody, fit, fit_body, fit_people
from .fusion import Cameras, Fused, ViewEvidence, fuse_views
from .lifting import LiftedBatch, lift
from .priors import generic_prior
from .smoothing import Smoothed, smooth

__all__ = [
    "Cameras",
    "CompletedPose",
    "FittedBody",
    "Fused",
    "LiftedBatch",
    "Smoothed",
    "ViewEvidence",
    "complete",
    "complete_pose",
    "fit",
    "fit_body",
    "fit_people",
    "fuse_views",
    "generic_prior",
    "lift",
    "smooth",
]
