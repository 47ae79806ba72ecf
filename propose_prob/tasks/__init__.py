"""Tasks: what users want from a law, solved over many people and frames."""

from .complete import CompletedPose, complete, complete_pose
from .fit import FittedBody, fit, fit_body
from .fit_people import FitStream, FittedPeople, fit_people
from .fuse import Cameras, Fused, ViewEvidence, fuse_views, pose_prior
from .lift import Lift, LiftedBatch, PoseModel, lift
from .people import Skipped
from .priors import AngleDistribution, generic_prior
from .smooth import Smoothed, smooth, typical_acceleration

__all__ = [
    "AngleDistribution",
    "Cameras",
    "CompletedPose",
    "FitStream",
    "FittedBody",
    "FittedPeople",
    "Fused",
    "Lift",
    "LiftedBatch",
    "PoseModel",
    "Skipped",
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
    "pose_prior",
    "smooth",
    "typical_acceleration",
]
