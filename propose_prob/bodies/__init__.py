"""Bodies: from joint rotations and shape to joints and surfaces."""

from propose_prob.bodies.body import Body, BodyOutput
from propose_prob.bodies.mesh import MeshBody
from propose_prob.bodies.open import load_open_body
from propose_prob.bodies.skeleton import SkeletonBody, default_body
from propose_prob.bodies.smpl import load_smpl

__all__ = [
    "Body",
    "BodyOutput",
    "MeshBody",
    "SkeletonBody",
    "default_body",
    "load_open_body",
    "load_smpl",
]
