"""Geometry of poses: joint sets, normalisation, cameras, alignment."""

from propose_prob.pose.align import procrustes
from propose_prob.pose.camera import Extrinsics, look_at, project, root_translation
from propose_prob.pose.convert import convert, mirror_pose
from propose_prob.pose.normalise import (
    Normalised,
    denormalise,
    normalise,
    screen_denormalise,
    screen_normalise,
    visible_joints,
)
from propose_prob.pose.rotations import (
    axis_angle_from_matrix,
    geodesic_distance,
    matrix_from_6d,
    matrix_from_axis_angle,
    matrix_from_quaternion,
    quaternion_from_matrix,
    sixd_from_matrix,
)
from propose_prob.pose.skeleton import (
    BODY_25,
    CMU_31,
    COCO_17,
    H36M_17,
    MPII_16,
    SKELETONS,
    SMPL_24,
    Skeleton,
    get_skeleton,
)

__all__ = [
    "BODY_25",
    "CMU_31",
    "COCO_17",
    "Extrinsics",
    "H36M_17",
    "MPII_16",
    "Normalised",
    "SKELETONS",
    "SMPL_24",
    "Skeleton",
    "axis_angle_from_matrix",
    "convert",
    "denormalise",
    "geodesic_distance",
    "get_skeleton",
    "look_at",
    "matrix_from_6d",
    "matrix_from_axis_angle",
    "matrix_from_quaternion",
    "mirror_pose",
    "normalise",
    "procrustes",
    "project",
    "quaternion_from_matrix",
    "root_translation",
    "screen_denormalise",
    "screen_normalise",
    "sixd_from_matrix",
    "visible_joints",
]
