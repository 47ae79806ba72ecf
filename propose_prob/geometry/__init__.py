"""Geometry of poses: joint sets, cameras, rotations, alignment, normalization."""

from .alignment import procrustes
from .camera import Extrinsics, look_at, project, root_translation
from .normalization import normalize_keypoints
from .rotations import (
    axis_angle_from_matrix,
    geodesic_distance,
    matrix_from_6d,
    matrix_from_axis_angle,
    sixd_from_matrix,
)
from .skeletons import (
    COCO_17,
    H36M_17,
    SKELETONS,
    SMPL_24,
    Skeleton,
    convert_skeleton,
    get_skeleton,
    mirror_pose,
)

__all__ = [
    "COCO_17",
    "H36M_17",
    "SKELETONS",
    "SMPL_24",
    "Extrinsics",
    "Skeleton",
    "axis_angle_from_matrix",
    "convert_skeleton",
    "geodesic_distance",
    "get_skeleton",
    "look_at",
    "matrix_from_6d",
    "matrix_from_axis_angle",
    "mirror_pose",
    "normalize_keypoints",
    "procrustes",
    "project",
    "root_translation",
    "sixd_from_matrix",
]
