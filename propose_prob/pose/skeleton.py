"""Joint sets as data.

Every set gives each of its joints a *meaning* from one shared vocabulary (`"right_knee"`,
`"thorax"`), by which `convert` takes poses from one set to another.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from propose_prob.errors import InputError

__all__ = [
    "BODY_25",
    "CMU_31",
    "COCO_17",
    "H36M_17",
    "MPII_16",
    "SKELETONS",
    "SMPL_24",
    "Skeleton",
    "get_skeleton",
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
        ValueError: If the lengths differ, there is not exactly one root, the parents form a cycle,
            or `mirror` is not an involution that keeps the parents.

    Example:
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
                raise ValueError(f"{self.name}: expected {count} {field}, got {length}")
        if len(set(self.joint_names)) != count:
            raise ValueError(f"{self.name}: joint names must differ")
        if self.parents.count(-1) != 1:
            raise ValueError(f"{self.name}: expected one root (parent -1), got {self.parents}")
        if sorted(self.mirror) != list(range(count)):
            raise ValueError(f"{self.name}: mirror is not a permutation of 0..{count - 1}")
        for joint in range(count):
            ancestor, steps = joint, 0
            while ancestor != -1:
                ancestor, steps = self.parents[ancestor], steps + 1
                if steps > count:
                    raise ValueError(f"{self.name}: the parents of joint {joint} form a cycle")
            parent = self.parents[joint]
            mirrored_parent = -1 if parent == -1 else self.mirror[parent]
            if self.mirror[self.mirror[joint]] != joint:
                raise ValueError(f"{self.name}: mirroring joint {joint} twice does not return it")
            if self.parents[self.mirror[joint]] != mirrored_parent:
                raise ValueError(f"{self.name}: mirroring changes the parent of joint {joint}")

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


def _skeleton(name: str, *joints: tuple[str, str | None, str | None]) -> Skeleton:
    """Build a set from rows (joint, parent, meaning); left and right are told apart by name."""
    names = tuple(joint for joint, _, _ in joints)
    return Skeleton(
        name=name,
        joint_names=names,
        parents=tuple(-1 if parent is None else names.index(parent) for _, parent, _ in joints),
        mirror=tuple(names.index(_other_side(joint, names)) for joint in names),
        meanings=tuple(meaning for _, _, meaning in joints),
    )


H36M_17 = _skeleton(
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

COCO_17 = _skeleton(
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

BODY_25 = _skeleton(
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

MPII_16 = _skeleton(
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

SMPL_24 = _skeleton(
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

CMU_31 = _skeleton(
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
    skeleton.name: skeleton for skeleton in (H36M_17, COCO_17, BODY_25, MPII_16, SMPL_24, CMU_31)
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
