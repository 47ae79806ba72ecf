"""Geometry of poses: joint sets, cameras, rotations, alignment, normalization."""

from .alignment import procrustes
from .camera import Extrinsics, project
from .normalization import normalize_keypoints
from .rotations import (
    axis_angle_from_matrix,
    matrix_from_6d,
    matrix_from_axis_angle,
    sixd_from_matrix,
)
from .skeletons import H36M_17, Skeleton, convert_skeleton, get_skeleton

__all__ = [
    "H36M_17",
    "Extrinsics",
    "Skeleton",
    "axis_angle_from_matrix",
    "convert_skeleton",
    "get_skeleton",
    "matrix_from_6d",
    "matrix_from_axis_angle",
    "normalize_keypoints",
    "procrustes",
    "project",
    "sixd_from_matrix",
]
