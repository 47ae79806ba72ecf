"""Joint sets as data.

Every set gives each of its joints a *meaning* from one shared vocabulary (`"right_knee"`,
`"thorax"`), by which `convert` takes poses from one set to another.
"""

from collections.abc import Mapping

from propose_prob.errors import InputError
from propose_prob.pose.detector_sets import (
    COCO_17,
    COCO_WHOLEBODY_133,
    HALPE_26,
    HALPE_136,
    MEDIAPIPE_33,
)
from propose_prob.pose.joint_set import Skeleton, build

__all__ = [
    "BODY_25",
    "CMU_31",
    "COCO_17",
    "COCO_WHOLEBODY_133",
    "H36M_17",
    "HALPE_136",
    "HALPE_26",
    "MEDIAPIPE_33",
    "MPII_16",
    "MPI_INF_3DHP_17",
    "SKELETONS",
    "SMPL_24",
    "Skeleton",
    "get_skeleton",
]

H36M_17 = build(
    "h36m_17",
    ("Pelvis", None, "hip_centre"),
    ("RHip", "Pelvis", "right_hip"),
    ("RKnee", "RHip", "right_knee"),
    ("RAnkle", "RKnee", "right_ankle"),
    ("LHip", "Pelvis", "left_hip"),
    ("LKnee", "LHip", "left_knee"),
    ("LAnkle", "LKnee", "left_ankle"),
    ("Spine", "Pelvis", "mid_spine"),
    ("Thorax", "Spine", "thorax"),
    ("Neck/Nose", "Thorax", "skull_base"),
    ("Head", "Neck/Nose", "head_top"),
    ("LShoulder", "Thorax", "left_shoulder"),
    ("LElbow", "LShoulder", "left_elbow"),
    ("LWrist", "LElbow", "left_wrist"),
    ("RShoulder", "Thorax", "right_shoulder"),
    ("RElbow", "RShoulder", "right_elbow"),
    ("RWrist", "RElbow", "right_wrist"),
)
"""Human3.6M's 17 moving joints, in the order that lifting papers use (3d-pose-baseline,
`src/data_utils.py`).

The pelvis is the middle of the hips. "Neck/Nose" is taken as the base of the skull, not as the tip
of the nose."""

BODY_25 = build(
    "body_25",
    ("Nose", "Neck", "nose"),
    ("Neck", "MidHip", "thorax"),
    ("RShoulder", "Neck", "right_shoulder"),
    ("RElbow", "RShoulder", "right_elbow"),
    ("RWrist", "RElbow", "right_wrist"),
    ("LShoulder", "Neck", "left_shoulder"),
    ("LElbow", "LShoulder", "left_elbow"),
    ("LWrist", "LElbow", "left_wrist"),
    ("MidHip", None, "hip_centre"),
    ("RHip", "MidHip", "right_hip"),
    ("RKnee", "RHip", "right_knee"),
    ("RAnkle", "RKnee", "right_ankle"),
    ("LHip", "MidHip", "left_hip"),
    ("LKnee", "LHip", "left_knee"),
    ("LAnkle", "LKnee", "left_ankle"),
    ("REye", "Nose", "right_eye"),
    ("LEye", "Nose", "left_eye"),
    ("REar", "REye", "right_ear"),
    ("LEar", "LEye", "left_ear"),
    ("LBigToe", "LAnkle", "left_big_toe"),
    ("LSmallToe", "LBigToe", "left_small_toe"),
    ("LHeel", "LAnkle", "left_heel"),
    ("RBigToe", "RAnkle", "right_big_toe"),
    ("RSmallToe", "RBigToe", "right_small_toe"),
    ("RHeel", "RAnkle", "right_heel"),
)
"""OpenPose BODY_25 (OpenPose, `doc/02_output.md`, "Keypoint Ordering in C++/Python"), with the tree
of its part pairs.

OpenPose trains its Neck as the middle of the shoulders and MidHip as the middle of the hips."""

MPII_16 = build(
    "mpii_16",
    ("right_ankle", "right_knee", "right_ankle"),
    ("right_knee", "right_hip", "right_knee"),
    ("right_hip", "pelvis", "right_hip"),
    ("left_hip", "pelvis", "left_hip"),
    ("left_knee", "left_hip", "left_knee"),
    ("left_ankle", "left_knee", "left_ankle"),
    ("pelvis", None, "hip_centre"),
    ("thorax", "pelvis", "thorax"),
    ("upper_neck", "thorax", "skull_base"),
    ("head_top", "upper_neck", "head_top"),
    ("right_wrist", "right_elbow", "right_wrist"),
    ("right_elbow", "right_shoulder", "right_elbow"),
    ("right_shoulder", "thorax", "right_shoulder"),
    ("left_shoulder", "thorax", "left_shoulder"),
    ("left_elbow", "left_shoulder", "left_elbow"),
    ("left_wrist", "left_elbow", "left_wrist"),
)
"""MPII Human Pose (its annotation page, joint ids 0 to 15; MMPose
`configs/_base_/datasets/mpii.py`).

Pelvis, thorax, upper neck and head top stand for Human3.6M's Pelvis, Thorax, Neck/Nose (base of the
skull) and Head. Human3.6M's Spine has no counterpart. Some lifting code shifts these names by one
(MPII thorax to Spine: 3d-pose-baseline, issue 185); this table does not."""

MPI_INF_3DHP_17 = build(
    "mpi_inf_3dhp_17",
    ("head_top", "neck", "head_top"),
    ("neck", "spine", "thorax"),
    ("right_shoulder", "neck", "right_shoulder"),
    ("right_elbow", "right_shoulder", "right_elbow"),
    ("right_wrist", "right_elbow", "right_wrist"),
    ("left_shoulder", "neck", "left_shoulder"),
    ("left_elbow", "left_shoulder", "left_elbow"),
    ("left_wrist", "left_elbow", "left_wrist"),
    ("right_hip", "pelvis", "right_hip"),
    ("right_knee", "right_hip", "right_knee"),
    ("right_ankle", "right_knee", "right_ankle"),
    ("left_hip", "pelvis", "left_hip"),
    ("left_knee", "left_hip", "left_knee"),
    ("left_ankle", "left_knee", "left_ankle"),
    ("pelvis", None, "hip_centre"),
    ("spine", "pelvis", "mid_spine"),
    ("head", "neck", "skull_base"),
)
"""MPI-INF-3DHP's 17 "relevant" joints, the order of its test files (the data set's
`mpii_get_joint_set.m`, case `relevant`, with its first-order parents; MMHuman3D
`keypoints_mapping/mpi_inf_3dhp.py` has the same order).

The set was made to match Human3.6M's: neck, head and head top stand for its Thorax, Neck/Nose (base
of the skull) and Head (SPIN, `datasets/preprocess/mpi_inf_3dhp.py`)."""

SMPL_24 = build(
    "smpl_24",
    ("Pelvis", None, None),
    ("L_Hip", "Pelvis", "left_hip"),
    ("R_Hip", "Pelvis", "right_hip"),
    ("Spine1", "Pelvis", None),
    ("L_Knee", "L_Hip", "left_knee"),
    ("R_Knee", "R_Hip", "right_knee"),
    ("Spine2", "Spine1", None),
    ("L_Ankle", "L_Knee", "left_ankle"),
    ("R_Ankle", "R_Knee", "right_ankle"),
    ("Spine3", "Spine2", None),
    ("L_Foot", "L_Ankle", "left_foot_ball"),
    ("R_Foot", "R_Ankle", "right_foot_ball"),
    ("Neck", "Spine3", None),
    ("L_Collar", "Spine3", None),
    ("R_Collar", "Spine3", None),
    ("Head", "Neck", "skull_base"),
    ("L_Shoulder", "L_Collar", "left_shoulder"),
    ("R_Shoulder", "R_Collar", "right_shoulder"),
    ("L_Elbow", "L_Shoulder", "left_elbow"),
    ("R_Elbow", "R_Shoulder", "right_elbow"),
    ("L_Wrist", "L_Elbow", "left_wrist"),
    ("R_Wrist", "R_Elbow", "right_wrist"),
    ("L_Hand", "L_Wrist", None),
    ("R_Hand", "R_Wrist", None),
)
"""SMPL's 24 joints (meshcapade.wiki/SMPL, skeleton layout).

Matched: limbs, the ball of the foot, and Head, the joint about which the head turns, with the base
of the skull. SMPL's own Pelvis lies above the line between its hips, so Human3.6M's Pelvis is the
middle of the SMPL hips; Thorax is the middle of the shoulders. Not matched: Pelvis, the three spine
joints, Neck, collars and hands. SMPL has no joint at the top of the head."""

CMU_31 = build(
    "cmu_31",
    ("root", None, None),
    ("lhipjoint", "root", "left_hip"),
    ("lfemur", "lhipjoint", "left_knee"),
    ("ltibia", "lfemur", "left_ankle"),
    ("lfoot", "ltibia", "left_foot_ball"),
    ("ltoes", "lfoot", None),
    ("rhipjoint", "root", "right_hip"),
    ("rfemur", "rhipjoint", "right_knee"),
    ("rtibia", "rfemur", "right_ankle"),
    ("rfoot", "rtibia", "right_foot_ball"),
    ("rtoes", "rfoot", None),
    ("lowerback", "root", "mid_spine"),
    ("upperback", "lowerback", None),
    ("thorax", "upperback", None),
    ("lowerneck", "thorax", "thorax"),
    ("upperneck", "lowerneck", "skull_base"),
    ("head", "upperneck", "head_top"),
    ("lclavicle", "thorax", "left_shoulder"),
    ("lhumerus", "lclavicle", "left_elbow"),
    ("lradius", "lhumerus", None),
    ("lwrist", "lradius", "left_wrist"),
    ("lhand", "lwrist", None),
    ("lfingers", "lhand", None),
    ("lthumb", "lwrist", None),
    ("rclavicle", "thorax", "right_shoulder"),
    ("rhumerus", "rclavicle", "right_elbow"),
    ("rradius", "rhumerus", None),
    ("rwrist", "rradius", "right_wrist"),
    ("rhand", "rwrist", None),
    ("rfingers", "rhand", None),
    ("rthumb", "rwrist", None),
)
"""The bones of CMU motion capture (mocap.cs.cmu.edu, ASF files); a row is the END of the bone of
that name, "root" the root's position.

So the end of "femur" is the knee and the end of "clavicle" the shoulder; "radius" ends inside the
forearm, "wrist" at the wrist. The end of "lowerneck", not of the bone called "thorax", is
Human3.6M's Thorax. The end of "head" stands for Human3.6M's Head, though it lies below the crown.
The root lies above the hips and matches nothing: Pelvis is the middle of the hips."""

SKELETONS: Mapping[str, Skeleton] = {
    skeleton.name: skeleton
    for skeleton in (
        *(H36M_17, COCO_17, BODY_25, MPII_16, SMPL_24, CMU_31, MPI_INF_3DHP_17),
        *(MEDIAPIPE_33, HALPE_26, HALPE_136, COCO_WHOLEBODY_133),
    )
}
"""All joint sets by name."""


def _key(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def get_skeleton(name: str) -> Skeleton:
    """Return the joint set called `name`; case, hyphens and underscores do not matter.

    Raises:
        InputError: If there is none of that name; the message lists the names.

    Example:
        >>> get_skeleton("COCO-17").num_joints
        17
    """
    for skeleton in SKELETONS.values():
        if _key(skeleton.name) == _key(name):
            return skeleton
    raise InputError(f"no joint set is called {name!r}; known are {', '.join(SKELETONS)}")
