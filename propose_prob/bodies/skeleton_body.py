"""The default body: bones and a few rigid landmarks, no surface, no licence."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.skeletons import BODY_25, COCO_17, DERIVED, H36M_17, MPII_16, SMPL_24, Skeleton
from .body import Body, BodyOutput, Kinematics

__all__ = ["SkeletonBody", "default_body"]

_SPREAD = 0.05
"""Standard deviation of the logarithm of a length: 5 %."""

_GROUPS = {
    "torso": ("Spine1", "Spine2", "Spine3", "Neck"),
    "head": ("Head",),
    "hips": ("L_Hip", "R_Hip"),
    "shoulders": ("L_Collar", "R_Collar", "L_Shoulder", "R_Shoulder"),
    "thigh": ("L_Knee", "R_Knee"),
    "shank": ("L_Ankle", "R_Ankle"),
    "foot": ("L_Foot", "R_Foot"),
    "upper_arm": ("L_Elbow", "R_Elbow"),
    "forearm": ("L_Wrist", "R_Wrist", "L_Hand", "R_Hand"),
}
"""Which bones, named by their lower end, a shape coefficient lengthens."""

_OFFSETS = {
    "L_Hip": (0.085, -0.095, 0.005),
    "Spine1": (0.0, 0.105, -0.02),
    "Spine2": (0.0, 0.13, 0.0),
    "Spine3": (0.0, 0.055, 0.01),
    "L_Knee": (0.02, -0.405, 0.0),
    "L_Ankle": (0.0, -0.415, -0.02),
    "L_Foot": (0.02, -0.055, 0.125),
    "Neck": (0.0, 0.17, -0.005),
    "L_Collar": (0.075, 0.105, 0.0),
    "Head": (0.0, 0.09, 0.015),
    "L_Shoulder": (0.11, 0.03, -0.01),
    "L_Elbow": (0.27, 0.0, -0.005),
    "L_Wrist": (0.255, 0.0, 0.0),
    "L_Hand": (0.08, 0.0, 0.0),
}
"""Average adult offsets from the parent, meters, rounded to 5 mm; the right side mirrors the left.

Joint-center distances of the limbs follow P. de Leva, "Adjustments to Zatsiorsky-Seluyanov's
segment inertia parameters", J. Biomechanics 29(9), 1996, table 4 (mean of women and men at a
stature of 1.70 m); hips, spine and shoulder girdle the mean of the three skeletons of CMU motion
capture (mocap.cs.cmu.edu)."""

_LANDMARKS = {
    "head_top": ("Head", (0.0, 0.165, 0.01)),
    "nose": ("Head", (0.0, 0.03, 0.115)),
    "left_eye": ("Head", (0.032, 0.065, 0.09)),
    "left_ear": ("Head", (0.075, 0.035, 0.01)),
    "left_heel": ("L_Ankle", (0.0, -0.06, -0.05)),
    "left_big_toe": ("L_Foot", (-0.015, -0.005, 0.065)),
    "left_small_toe": ("L_Foot", (0.045, -0.01, 0.03)),
}
"""Rigid points by meaning: the joint that carries them and where, meters, in its frame. They grow
with that joint's segment (`_SEGMENTS`)."""

_SEGMENTS = {
    "Head": "Head",
    "L_Ankle": "L_Foot",
    "R_Ankle": "R_Foot",
    "L_Foot": "L_Foot",
    "R_Foot": "R_Foot",
}
"""The lower end of the bone with whose length the landmarks of a joint grow."""


class SkeletonBody(Body):
    """SMPL's 24 joints with average proportions, and landmarks of head and feet.

    Fast, differentiable and free of any licence. Shape coefficients are logarithms of lengths: one
    standard deviation is 5 %. The first scales the whole body, the others one group of bones each
    (`shape_names`).

    Regressors: `h36m_17`, `coco_17`, `body_25` and `mpii_16`. Human3.6M's Spine and Head lie where
    CMU motion capture has them: a fifth of the way from Spine1 to Spine2, and two thirds of the way
    from the base of the skull to its top.

    Attributes:
        shape_names: What each shape coefficient scales.

    Example:
        >>> body = SkeletonBody()
        >>> output = body(torch.eye(3).expand(24, 3, 3))
        >>> body.regress(output, "coco_17").shape
        torch.Size([17, 3])
    """

    def __init__(self, *, _tree: "_Tree | None" = None) -> None:
        tree = _average() if _tree is None else _tree
        regressors = _regressors(tree)
        super().__init__(tree.skeleton, len(tree.shape_names), regressors=regressors)
        self.shape_names = tree.shape_names
        self._own = tree.own
        self._kinematics = Kinematics(tree.skeleton.parents)
        self.register_buffer("_offsets", tree.offsets, persistent=False)
        self.register_buffer("_scales", tree.scales, persistent=False)
        for name, matrix in regressors.items():
            self.register_buffer(f"_regressor_{name}", matrix, persistent=False)
        index, parents = tree.skeleton.index, tree.skeleton.parents
        carriers = [index(joint) for joint, _ in tree.landmarks.values()]
        spots = torch.tensor([offset for _, offset in tree.landmarks.values()]).reshape(-1, 3)
        segments = [index(_SEGMENTS[joint]) for joint, _ in tree.landmarks.values()]
        lengths = tree.offsets[segments].norm(dim=-1)
        self.register_buffer("_carriers", torch.tensor(carriers, dtype=torch.long), False)
        self.register_buffer("_spots", spots / lengths.unsqueeze(-1), persistent=False)
        self.register_buffer(
            "_segments",
            torch.tensor([[j, parents[j]] for j in segments], dtype=torch.long).reshape(-1, 2),
            persistent=False,
        )

    @classmethod
    def from_offsets(
        cls, skeleton: Skeleton, offsets: Tensor, *, rotates: str = "children"
    ) -> "SkeletonBody":
        """Build a body of any tree, with one shape coefficient, its size.

        Args:
            skeleton: The tree, K joints.
            offsets: Rest position of each joint relative to its parent's, `(K, 3)`, meters; for the
                root its rest position.
            rotates: `"children"` where a joint's rotation turns what hangs on it, as in SMPL and
                BVH; `"bone"` where row j turns about j's parent the bone that ends in j, as in ASF
                and CMU motion capture.

        Returns:
            A body whose regressors are those joint sets of which the tree has every joint.

        Raises:
            InputError: If the offsets do not fit the tree or are not finite, or `rotates` is
                neither.

        Example:
            >>> from propose_prob.geometry.skeletons import CMU_31
            >>> body = SkeletonBody.from_offsets(CMU_31, torch.randn(31, 3), rotates="bone")
            >>> body.num_joints, body.shape_names, body.regressors
            (31, ('size',), ('h36m_17', 'mpii_16'))
        """
        count = skeleton.num_joints
        if tuple(offsets.shape) != (count, 3):
            raise InputError(
                f"expected offsets of shape ({count}, 3) for {skeleton.name}, "
                f"got {tuple(offsets.shape)}"
            )
        if not offsets.is_floating_point() or not bool(offsets.isfinite().all()):
            raise InputError(f"expected finite floating-point offsets for {skeleton.name}")
        if rotates not in ("children", "bone"):
            raise InputError(f"expected rotates='children' or 'bone', got {rotates!r}")
        return cls(
            _tree=_Tree(
                skeleton=skeleton,
                offsets=offsets.detach().clone(),
                scales=torch.full((count, 1), _SPREAD, dtype=offsets.dtype),
                shape_names=("size",),
                landmarks={},
                own=rotates == "bone",
            )
        )

    def forward(
        self, theta: Tensor, shape: Tensor | None = None, translation: Tensor | None = None
    ) -> BodyOutput:
        """Pose the skeleton; `vertices` is None. See `Body.forward`."""
        theta, shape, translation = self._inputs(theta, shape, translation)
        offsets = self.get_buffer("_offsets").to(theta.dtype)
        if shape is not None:
            # (..., K), one logarithm of length for each bone.
            logs = shape @ self.get_buffer("_scales").to(theta.dtype).T
            offsets = offsets * logs.exp().unsqueeze(-1)
        joints, rotations = self._kinematics(theta, offsets, own=self._own)
        if translation is not None:
            joints = joints + translation.unsqueeze(-2)
            rotations = rotations.expand(*joints.shape[:-1], 3, 3)
        return BodyOutput(joints=joints, vertices=None, rotations=rotations)

    def regress(self, output: BodyOutput, name: str = "h36m_17") -> Tensor:
        """Give the joints of another joint set. See `Body.regress`."""
        self._check_regressor(name)
        joints, rotations = output.joints, output.rotations
        carriers, segments = self.get_buffer("_carriers"), self.get_buffer("_segments")
        if len(carriers):
            # A segment's length tells how large the body's shape made it.
            bones = joints.index_select(-2, segments[:, 0]) - joints.index_select(
                -2, segments[:, 1]
            )
            lengths = torch.linalg.vector_norm(bones, dim=-1, keepdim=True)
            spots = self.get_buffer("_spots").to(joints.dtype) * lengths
            turned = rotations.index_select(-3, carriers) @ spots.unsqueeze(-1)
            landmarks = joints.index_select(-2, carriers) + turned.squeeze(-1)
            joints = torch.cat([joints, landmarks], dim=-2)
        return self.get_buffer(f"_regressor_{name}").to(joints.dtype) @ joints


def default_body() -> SkeletonBody:
    """Return the body that is used where none is given: `SkeletonBody()`.

    Example:
        >>> default_body().num_joints
        24
    """
    return SkeletonBody()


class _Tree(NamedTuple):
    """What a body of bones is built from.

    `own` says whether a rotation turns the joint's own bone rather than its children's; landmarks
    are `(carrying joint, place in its frame)` by meaning.
    """

    skeleton: Skeleton
    offsets: Tensor
    scales: Tensor
    shape_names: tuple[str, ...]
    landmarks: Mapping[str, tuple[str, tuple[float, float, float]]]
    own: bool


def _average() -> _Tree:
    """Give the average adult in SMPL's tree."""
    names = SMPL_24.joint_names
    flip = torch.tensor([-1.0, 1.0, 1.0])
    offsets = torch.zeros(len(names), 3)
    for name, offset in _OFFSETS.items():
        joint = names.index(name)
        offsets[joint] = torch.tensor(offset)
        if SMPL_24.mirror[joint] != joint:
            offsets[SMPL_24.mirror[joint]] = flip * offsets[joint]
    scales = torch.zeros(len(names), 1 + len(_GROUPS))
    scales[:, 0] = _SPREAD
    for column, group in enumerate(_GROUPS.values(), start=1):
        scales[[names.index(name) for name in group], column] = _SPREAD
    landmarks = {}
    for meaning, (carrier, (x, y, z)) in _LANDMARKS.items():
        landmarks[meaning] = (carrier, (x, y, z))
        if meaning.startswith("left_"):
            other = names[SMPL_24.mirror[names.index(carrier)]]
            landmarks["right_" + meaning.removeprefix("left_")] = (other, (-x, y, z))
    return _Tree(SMPL_24, offsets, scales, ("size", *_GROUPS), landmarks, own=False)


def _regressors(tree: _Tree) -> dict[str, Tensor]:
    """Give each joint set that the tree has all joints of as weights of joints and landmarks."""
    skeleton = tree.skeleton
    identity = torch.eye(skeleton.num_joints + len(tree.landmarks), dtype=tree.offsets.dtype)
    meanings = [*skeleton.meanings, *tree.landmarks]
    rows = {meaning: identity[j] for j, meaning in enumerate(meanings) if meaning is not None}
    if skeleton == SMPL_24:
        first, second = identity[skeleton.index("Spine1")], identity[skeleton.index("Spine2")]
        skull, top = rows["skull_base"], rows["head_top"]
        special = {
            "mid_spine": 0.8 * first + 0.2 * second,
            "thorax": identity[skeleton.index("Neck")],
            "head_top": skull / 3 + 2 * top / 3,
        }
        found = {H36M_17.name: _rows(H36M_17, {**rows, **special})}
    else:
        found = {}
    for target in (H36M_17, COCO_17, BODY_25, MPII_16):
        matrix = None if target.name in found else _rows(target, rows)
        if matrix is not None:
            found[target.name] = matrix
    return {name: matrix for name, matrix in found.items() if matrix is not None}


def _rows(target: Skeleton, rows: Mapping[str, Tensor]) -> Tensor | None:
    """Stack the target's joints, midpoints where `DERIVED` says so; None if one is missing."""
    chosen = []
    for meaning in target.meanings:
        if meaning is None:
            return None
        if meaning in rows:
            chosen.append(rows[meaning])
        elif meaning in DERIVED and all(part in rows for part in DERIVED[meaning]):
            chosen.append(torch.stack([rows[part] for part in DERIVED[meaning]]).mean(dim=0))
        else:
            return None
    return torch.stack(chosen)
