"""Tasks: what users want from a distribution, solved over many people and frames."""

from .completion import complete, complete_pose
from .fitting import fit, fit_body, fit_people
from .fusion import Cameras, ViewEvidence, fuse_views
from .lifting import lift
from .priors import generic_prior
from .smoothing import smooth

__all__ = [
    "Cameras",
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
