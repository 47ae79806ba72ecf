"""Tasks: what users want from a law, solved over many people and frames."""

from .complete import CompletedPose, complete, complete_pose
from .fit import FittedBody, fit, fit_body
from .fit_people import FitStream, FittedPeople, fit_people
from .lift import Lift, LiftedBatch, PoseModel, Skipped, lift
from .priors import AngleDistribution, generic_prior

__all__ = [
    "AngleDistribution",
    "CompletedPose",
    "FitStream",
    "FittedBody",
    "FittedPeople",
    "Lift",
    "LiftedBatch",
    "PoseModel",
    "Skipped",
    "complete",
    "complete_pose",
    "fit",
    "fit_body",
    "fit_people",
    "generic_prior",
    "lift",
]
