"""Bodies: from joint rotations and shape to joints and surfaces."""

from .body import Body, BodyOutput
from .body_bvh import write_body_bvh
from .mesh_body import MeshBody
from .open_body import load_open_body
from .skeleton_body import SkeletonBody
from .smpl import load_smpl

__all__ = [
    "Body",
    "BodyOutput",
    "MeshBody",
    "SkeletonBody",
    "load_open_body",
    "load_smpl",
    "write_body_bvh",
]
