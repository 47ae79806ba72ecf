"""Joint sets of data sets and detectors, and conversion between them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InputError

__all__ = [
    "BODY_25",
    "CMU_31",
    "COCO_17",
    "COCO_WHOLEBODY_133",
    "DERIVED",
    "H36M_17",
    "HALPE_26",
    "HALPE_136",
    "MEDIAPIPE_33",
    "MPII_16",
    "MPI_INF_3DHP_17",
    "SKELETONS",
    "SMPL_24",
    "Skeleton",
    "build",
    "convert_skeleton",
    "get_skeleton",
    "mirror_pose",
]


@dataclass(frozen=True)
class Skeleton:
    """An ordered set of joints that form a tree.

    Attributes:
        name: The set's name, as `get_skeleton` finds it.
        joint_names: Names in storage order, J of them.
        parents: Index of each joint's parent; -1 marks the root.
        mirror: Permutation that exchanges left and right: `mirror[j]` is the other side's joint.
        meanings: The shared meaning of each joint, or `None` where no other set has such a joint.

    Raises:
        InputError: If the lengths differ, there is not exactly one root, the parents form a cycle,
            or `mirror` is not an involution that keeps the parents.

    Example:
        >>> from propose_prob.geometry.skeletons import H36M_17
        >>> H36M_17.index("RWrist"), H36M_17.joint_names[H36M_17.mirror[16]]
        (16, 'LWrist')
        >>> H36M_17.bones[0]
        (1, 0)
    """

    name: str
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    mirror: tuple[int, ...]
    meanings: tuple[str | None, ...]

    def __post_init__(self) -> None:
        count = len(self.joint_names)
        for field in ("parents", "mirror", "meanings"):
            length = len(getattr(self, field))
            if length != count:
                raise InputError(f"{self.name}: expected {count} {field}, got {length}")
        if len(set(self.joint_names)) != count:
            raise InputError(f"{self.name}: joint names must differ")
        if self.parents.count(-1) != 1:
            raise InputError(f"{self.name}: expected one root (parent -1), got {self.parents}")
        if sorted(self.mirror) != list(range(count)):
            raise InputError(f"{self.name}: mirror is not a permutation of 0..{count - 1}")
        for joint in range(count):
            ancestor, steps = joint, 0
            while ancestor != -1:
                ancestor, steps = self.parents[ancestor], steps + 1
                if steps > count:
                    raise InputError(f"{self.name}: the parents of joint {joint} form a cycle")
            parent = self.parents[joint]
            mirrored_parent = -1 if parent == -1 else self.mirror[parent]
            if self.mirror[self.mirror[joint]] != joint:
                raise InputError(f"{self.name}: mirroring joint {joint} twice does not return it")
            if self.parents[self.mirror[joint]] != mirrored_parent:
                raise InputError(f"{self.name}: mirroring changes the parent of joint {joint}")

    @property
    def num_joints(self) -> int:
        """The number of joints J."""
        return len(self.joint_names)

    @property
    def root(self) -> int:
        """The index of the joint without a parent."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """The (child, parent) pairs, J - 1 of them, in joint order."""
        return tuple((child, parent) for child, parent in enumerate(self.parents) if parent != -1)

    def index(self, name: str) -> int:
        """Return the index of the joint called `name`.

        Raises:
            InputError: If this set has no such joint; the message lists those it has.
        """
        if name not in self.joint_names:
            known = ", ".join(self.joint_names)
            raise InputError(f"{self.name} has no joint {name!r}; its joints are {known}")
        return self.joint_names.index(name)


_OTHER_SIDE = {"R": "L", "L": "R", "r": "l", "l": "r"}
_OTHER_SIDE_WORD = {"right": "left", "left": "right"}


def _other_side(name: str, names: tuple[str, ...]) -> str:
    side, _, rest = name.partition("_")
    swapped = [
        f"{_OTHER_SIDE_WORD[side]}_{rest}" if side in _OTHER_SIDE_WORD else "",
        _OTHER_SIDE.get(name[0], name[0]) + name[1:],
    ]
    return next((candidate for candidate in swapped if candidate in names), name)


def build(name: str, *joints: tuple[str, str | None, str | None]) -> Skeleton:
    """Build a set from rows (joint, parent, meaning); left and right are told apart by name.

    Names of the two sides differ in `R` and `L` (either case) at the start, or in a leading
    `right_` and `left_`.

    Example:
        >>> hips = (("LHip", "Hips", "left_hip"), ("RHip", "Hips", "right_hip"))
        >>> skeleton = build("hips", ("Hips", None, "pelvis"), *hips)
        >>> skeleton.parents, skeleton.mirror
        ((-1, 0, 0), (0, 2, 1))
    """
    names = tuple(joint for joint, _, _ in joints)
    return Skeleton(
        name=name,
        joint_names=names,
        parents=tuple(-1 if parent is None else names.index(parent) for _, parent, _ in joints),
        mirror=tuple(names.index(_other_side(joint, names)) for joint in names),
        meanings=tuple(meaning for _, _, meaning in joints),
    )


_Row = tuple[str, str | None, str | None]

COCO_17 = build(
    "coco_17",
    ("nose", None, "nose"),
    ("left_eye", "nose", "left_eye"),
    ("right_eye", "nose", "right_eye"),
    ("left_ear", "left_eye", "left_ear"),
    ("right_ear", "right_eye", "right_ear"),
    ("left_shoulder", "nose", "left_shoulder"),
    ("right_shoulder", "nose", "right_shoulder"),
    ("left_elbow", "left_shoulder", "left_elbow"),
    ("right_elbow", "right_shoulder", "right_elbow"),
    ("left_wrist", "left_elbow", "left_wrist"),
    ("right_wrist", "right_elbow", "right_wrist"),
    ("left_hip", "left_shoulder", "left_hip"),
    ("right_hip", "right_shoulder", "right_hip"),
    ("left_knee", "left_hip", "left_knee"),
    ("right_knee", "right_hip", "right_knee"),
    ("left_ankle", "left_knee", "left_ankle"),
    ("right_ankle", "right_knee", "right_ankle"),
)
"""COCO's person keypoints (cocodataset.org, `categories[0].keypoints`). COCO defines no tree; this
one hangs from the nose."""

MEDIAPIPE_33 = build(
    "mediapipe_33",
    ("nose", None, "nose"),
    ("left_eye_inner", "nose", None),
    ("left_eye", "left_eye_inner", "left_eye"),
    ("left_eye_outer", "left_eye", None),
    ("right_eye_inner", "nose", None),
    ("right_eye", "right_eye_inner", "right_eye"),
    ("right_eye_outer", "right_eye", None),
    ("left_ear", "left_eye_outer", "left_ear"),
    ("right_ear", "right_eye_outer", "right_ear"),
    ("left_mouth", "nose", None),
    ("right_mouth", "nose", None),
    ("left_shoulder", "nose", "left_shoulder"),
    ("right_shoulder", "nose", "right_shoulder"),
    ("left_elbow", "left_shoulder", "left_elbow"),
    ("right_elbow", "right_shoulder", "right_elbow"),
    ("left_wrist", "left_elbow", "left_wrist"),
    ("right_wrist", "right_elbow", "right_wrist"),
    ("left_pinky", "left_wrist", None),
    ("right_pinky", "right_wrist", None),
    ("left_index", "left_wrist", None),
    ("right_index", "right_wrist", None),
    ("left_thumb", "left_wrist", None),
    ("right_thumb", "right_wrist", None),
    ("left_hip", "left_shoulder", "left_hip"),
    ("right_hip", "right_shoulder", "right_hip"),
    ("left_knee", "left_hip", "left_knee"),
    ("right_knee", "right_hip", "right_knee"),
    ("left_ankle", "left_knee", "left_ankle"),
    ("right_ankle", "right_knee", "right_ankle"),
    ("left_heel", "left_ankle", "left_heel"),
    ("right_heel", "right_ankle", "right_heel"),
    ("left_foot_index", "left_heel", "left_big_toe"),
    ("right_foot_index", "right_heel", "right_big_toe"),
)
"""MediaPipe's pose landmarks (ai.google.dev, "Pose landmark detection guide", landmarks 0 to 32;
ML Kit lists the same 33), also called BlazePose.

"Foot index" is the tip of the foot at its big toe. MediaPipe defines no tree; this one follows its
drawn connections, hung from the nose."""


# Jaw, brows, nostrils and lips of the 68 landmarks of a face: runs that mirroring reverses.
_FACE_RUNS = ((0, 16), (17, 26), (31, 35), (48, 54), (55, 59), (60, 64), (65, 67))
_FACE_EYES = ((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46))


def _face_mirror() -> list[int]:
    mirror = list(range(68))
    for first, last in _FACE_RUNS:
        mirror[first : last + 1] = range(last, first - 1, -1)
    for left, right in _FACE_EYES:
        mirror[left], mirror[right] = right, left
    return mirror


def _hand(side: str) -> list[_Row]:
    """Rows of a hand's root and the four joints of each finger."""
    root = f"{side}_hand_root"
    rows: list[_Row] = [(root, f"{side}_wrist", None)]
    for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger"):
        parent = root
        for joint in range(1, 5):
            rows.append((f"{side}_{finger}{joint}", parent, None))
            parent = f"{side}_{finger}{joint}"
    return rows


def _with_face_and_hands(name: str, body: list[_Row]) -> Skeleton:
    face: list[_Row] = [(f"face-{index}", "nose", None) for index in range(68)]
    plain = build(name, *body, *face, *_hand("left"), *_hand("right"))
    start, mirror = len(body), list(plain.mirror)
    mirror[start : start + len(face)] = [start + joint for joint in _face_mirror()]
    return replace(plain, mirror=tuple(mirror))


def _rows(skeleton: Skeleton) -> list[_Row]:
    names = skeleton.joint_names
    return [
        (name, None if parent == -1 else names[parent], meaning)
        for name, parent, meaning in zip(names, skeleton.parents, skeleton.meanings, strict=True)
    ]


HALPE_26 = build(
    "halpe_26",
    ("nose", "neck", "nose"),
    *_rows(COCO_17)[1:5],
    ("left_shoulder", "neck", "left_shoulder"),
    ("right_shoulder", "neck", "right_shoulder"),
    *_rows(COCO_17)[7:11],
    ("left_hip", "hip", "left_hip"),
    ("right_hip", "hip", "right_hip"),
    *_rows(COCO_17)[13:17],
    ("head", "neck", "head_top"),
    ("neck", "hip", "thorax"),
    ("hip", None, "hip_centre"),
    ("left_big_toe", "left_ankle", "left_big_toe"),
    ("right_big_toe", "right_ankle", "right_big_toe"),
    ("left_small_toe", "left_ankle", "left_small_toe"),
    ("right_small_toe", "right_ankle", "right_small_toe"),
    ("left_heel", "left_ankle", "left_heel"),
    ("right_heel", "right_ankle", "right_heel"),
)
"""Halpe's 26 body joints, which AlphaPose writes too (Halpe-FullBody, README, "Keypoints format";
MMPose `configs/_base_/datasets/halpe26.py`, whose links are the tree).

COCO's 17 joints come first. Head is the top of the head; Neck lies between the shoulders and Hip
between the hips."""

HALPE_136 = _with_face_and_hands("halpe_136", _rows(HALPE_26))
"""Halpe's full body: `HALPE_26`, 68 face landmarks, and 21 joints of the left and the right hand
(Halpe-FullBody, README). Face and hands match no other set here."""

COCO_WHOLEBODY_133 = _with_face_and_hands(
    "coco_wholebody_133",
    [
        *_rows(COCO_17),
        ("left_big_toe", "left_ankle", "left_big_toe"),
        ("left_small_toe", "left_ankle", "left_small_toe"),
        ("left_heel", "left_ankle", "left_heel"),
        ("right_big_toe", "right_ankle", "right_big_toe"),
        ("right_small_toe", "right_ankle", "right_small_toe"),
        ("right_heel", "right_ankle", "right_heel"),
    ],
)
"""COCO-WholeBody (MMPose `configs/_base_/datasets/coco_wholebody.py`): `COCO_17`, six joints of the
feet, 68 face landmarks, and 21 joints of the left and the right hand, as AlphaPose, MMPose and
DWPose write them. Face and hands match no other set here."""


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


DERIVED: Mapping[str, tuple[str, str]] = {
    "hip_centre": ("right_hip", "left_hip"),
    "thorax": ("right_shoulder", "left_shoulder"),
}
"""Meanings that are the midpoint of two others, for sets that have no such joint themselves."""


@lru_cache(maxsize=64)
def _sources(source: Skeleton, target: Skeleton) -> tuple[tuple[int, int], ...]:
    """Give each target joint the two source joints whose mean it is, (-1, -1) for none."""
    known = {meaning: j for j, meaning in enumerate(source.meanings) if meaning is not None}

    def find(meaning: str | None) -> tuple[int, int]:
        if meaning is None:
            return -1, -1
        if meaning in known:
            return known[meaning], known[meaning]
        if meaning in DERIVED and all(part in known for part in DERIVED[meaning]):
            first, second = DERIVED[meaning]
            return known[first], known[second]
        return -1, -1

    return tuple(find(meaning) for meaning in target.meanings)


def convert_skeleton(
    x: Tensor, source: Skeleton, target: Skeleton, *, confidence: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Convert poses from one joint set to another.

    A joint of the target is copied from the source's joint of the same meaning, or is the mean of
    the two that define it (`DERIVED`); otherwise it is missing. A source joint counts as missing
    where a coordinate is not finite or its confidence is not positive, and whatever depends on it
    is missing too. Between equal sets the pose is returned as it came.

    Args:
        x: Poses of the source set, `(..., J_source, D)`, any unit, floating point.
        source: The set that `x` is in.
        target: The set to convert to.
        confidence: Confidence of each joint, `(..., J_source)`; without it, finite joints have
            confidence 1.

    Returns:
        The poses `(..., J_target, D)`, NaN where missing, and their confidence `(..., J_target)`:
        that of the source joint, the smaller one for a mean, 0 where missing.

    Raises:
        InputError: If the number of joints is not the source's, the shapes do not fit, or a
            confidence is NaN.

    Example:
        >>> from propose_prob.geometry.skeletons import COCO_17, H36M_17
        >>> pose, confidence = convert_skeleton(torch.ones(17, 2), COCO_17, H36M_17)
        >>> [name for name, c in zip(H36M_17.joint_names, confidence) if c == 0]
        ['Spine', 'Neck/Nose', 'Head']
    """
    if x.ndim < 2 or x.shape[-2] != source.num_joints:
        raise InputError(
            f"expected {source.name} poses of shape (..., {source.num_joints}, D), "
            f"got {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise InputError(f"expected floating-point poses, got {x.dtype}")
    finite = x.isfinite().all(dim=-1)
    if confidence is None:
        confidence = finite.to(x.dtype)
    elif confidence.shape != x.shape[:-1]:
        raise InputError(
            f"expected confidence of shape {tuple(x.shape[:-1])}, got {tuple(confidence.shape)}"
        )
    elif confidence.isnan().any():
        raise InputError("expected confidence between 0 and 1, got NaN")
    if source == target:
        return x, confidence

    pairs = torch.tensor(_sources(source, target), device=x.device)
    first, second = pairs.clamp(min=0).unbind(dim=-1)
    known = finite & (confidence > 0)
    seen = known[..., first] & known[..., second] & (pairs[:, 0] >= 0)
    # NaN must leave before the mean: its gradient would survive the mask.
    clean = torch.where(known.unsqueeze(-1), x, torch.zeros_like(x))
    mean = (clean[..., first, :] + clean[..., second, :]) / 2
    least = torch.minimum(confidence[..., first], confidence[..., second])
    return (
        torch.where(seen.unsqueeze(-1), mean, torch.full_like(mean, torch.nan)),
        torch.where(seen, least, torch.zeros_like(least)),
    )


def mirror_pose(x: Tensor, skeleton: Skeleton) -> Tensor:
    """Mirror poses: negate the first coordinate and exchange left and right.

    Args:
        x: Poses `(..., J, D)`, the first coordinate pointing sideways with 0 on the mirror plane.
        skeleton: The joint set of `x`.

    Returns:
        The mirrored poses, of the same shape.

    Raises:
        InputError: If the number of joints is not the set's.

    Example:
        >>> from propose_prob.geometry.skeletons import COCO_17, H36M_17
        >>> pose = torch.randn(17, 3)
        >>> bool((mirror_pose(mirror_pose(pose, H36M_17), H36M_17) == pose).all())
        True
    """
    if x.ndim < 2 or x.shape[-2] != skeleton.num_joints:
        raise InputError(
            f"expected {skeleton.name} poses of shape (..., {skeleton.num_joints}, D), "
            f"got {tuple(x.shape)}"
        )
    swapped = x[..., list(skeleton.mirror), :]
    return torch.cat([-swapped[..., :1], swapped[..., 1:]], dim=-1)
