"""SMPL, SMPL-H and SMPL-X, loaded from the user's own licensed files."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, short
from ..geometry.rotations import matrix_from_axis_angle
from ..geometry.skeletons import BODY_25, COCO_17, DERIVED, H36M_17, MPII_16, SMPL_24, Skeleton
from ..io.archives import map_npy, plain_array, read_npz
from ..io.unpickle import load_pickle
from .mesh_body import MeshBody

__all__ = ["SMPLH_52", "SMPLX_55", "load_smpl"]

_WHERE = (
    "Body models are not part of this library. Register, accept the licence (free of charge for "
    "non-commercial research; commercial licences: meshcapade.com) and download SMPL from "
    "https://smpl.is.tue.mpg.de, SMPL-H from https://mano.is.tue.mpg.de, SMPL-X from "
    "https://smpl-x.is.tue.mpg.de. `SkeletonBody` needs no file."
)

_NEEDED = ("v_template", "shapedirs", "J_regressor", "kintree_table", "weights", "f")
_KEYS = (*_NEEDED, "posedirs", "bs_style", "hands_meanl", "hands_meanr")


def _with_hands(name: str, face: tuple[str, ...]) -> Skeleton:
    """SMPL's first 22 joints, joints of the face, and 15 joints a hand."""
    body = SMPL_24.joint_names[:22]
    names, parents = [*body, *face], list(SMPL_24.parents[:22])
    parents += [body.index("Head")] * len(face)
    for side in ("L", "R"):
        for finger in ("Index", "Middle", "Pinky", "Ring", "Thumb"):
            for link in (1, 2, 3):
                first = body.index(f"{side}_Wrist")
                parents.append(first if link == 1 else len(names) - 1)
                names.append(f"{side}_{finger}{link}")
    other = {"L_": "R_", "R_": "L_"}
    mirror = [names.index(other.get(joint[:2], joint[:2]) + joint[2:]) for joint in names]
    meanings = [*SMPL_24.meanings[:22], *[None] * (len(names) - 22)]
    return Skeleton(name, tuple(names), tuple(parents), tuple(mirror), tuple(meanings))


SMPLH_52 = _with_hands("smplh_52", ())
"""SMPL-H's joints (Romero et al., "Embodied Hands", SIGGRAPH Asia 2017): SMPL's first 22, then 15
of each hand."""

SMPLX_55 = _with_hands("smplx_55", ("Jaw", "L_Eye", "R_Eye"))
"""SMPL-X's joints (Pavlakos et al., "Expressive Body Capture", CVPR 2019): SMPL's first 22, jaw and
eyes, then 15 of each hand."""

_SKELETONS = {skeleton.num_joints: skeleton for skeleton in (SMPL_24, SMPLH_52, SMPLX_55)}

_VERTICES: Mapping[int, Mapping[str, int]] = {
    6890: {
        "head_top": 412,
        "nose": 332,
        "right_eye": 6260,
        "left_eye": 2800,
        "right_ear": 4071,
        "left_ear": 583,
        "left_big_toe": 3216,
        "left_small_toe": 3226,
        "left_heel": 3387,
        "right_big_toe": 6617,
        "right_small_toe": 6624,
        "right_heel": 6787,
    },
    10475: {
        "head_top": 8976,
        "nose": 9120,
        "right_eye": 9929,
        "left_eye": 9448,
        "right_ear": 616,
        "left_ear": 6,
        "left_big_toe": 5770,
        "left_small_toe": 5780,
        "left_heel": 8846,
        "right_big_toe": 8463,
        "right_small_toe": 8474,
        "right_heel": 8635,
    },
}
"""Published vertices of landmarks, by the number of vertices: of face and feet from smplx
(github.com/vchoutas/smplx, `vertex_ids.py`), the head's top from SMPL-Anthropometry
(github.com/DavidBoja/SMPL-Anthropometry, `landmark_definitions.py`)."""


def load_smpl(
    path: str | PathLike[str],
    *,
    num_shape: int = 10,
    num_expression: int = 0,
    flat_hands: bool = False,
    h36m_regressor: str | PathLike[str] | Tensor | None = None,
) -> MeshBody:
    """Load SMPL, SMPL-H or SMPL-X from an official `.npz` or `.pkl` file.

    Which of them it is follows from the number of joints: 24, 52 or 55. Nothing that a pickle asks
    for is executed, and neither scipy nor chumpy is needed.

    `theta` of all K joints holds whole rotations: smplx's `flat_hand_mean=True`. With the 24 joints
    of `SMPL_24`, the hands are at rest.

    Regressors: `h36m_17`, `coco_17`, `body_25` and `mpii_16`, from the model's joints and published
    vertices of head and feet. Its hips lie further in than Human3.6M's and its trunk elsewhere: to
    compare with published results pass `h36m_regressor`. A file with another number of vertices
    than the official ones has none of these.

    Args:
        path: The file.
        num_shape: How many shape coefficients to keep, the first ones.
        num_expression: How many of SMPL-X's expression coefficients to keep; they follow the shape
            coefficients in `shape`.
        flat_hands: Whether resting hands are flat rather than in the file's mean pose.
        h36m_regressor: Weights of the vertices for Human3.6M's 17 joints, `(17, V)`, such as the
            `J_regressor_h36m.npy` of HMR and SPIN, as a tensor or `.npy` file. Of the two orders in
            use, right leg first (`H36M_17`) or left leg first, the right one is recognized.

    Returns:
        The body, in float32.

    Raises:
        InputError: If there is no such file; the message says where to get one.
        InputError: If the file is not a body model, its skeleton is another, or it has fewer
            coefficients than asked for.

    Example:
        >>> try:
        ...     load_smpl("SMPL_NEUTRAL.npz")
        ... except InputError as error:
        ...     print(error)
        there is no body model SMPL_NEUTRAL.npz. ...
    """
    path = Path(path)
    data = _read(path)
    missing = [key for key in _NEEDED if key not in data]
    if missing:
        raise InputError(f"expected a body model in {path}, it has no {', '.join(missing)}")
    style = ", ".join(map(str, np.ravel(data.get("bs_style", "lbs"))))
    if style not in ("lbs", "b'lbs'"):
        raise InputError(f"expected linear blend skinning (bs_style lbs) in {path}, got {style!r}")
    skeleton = _skeleton_of(data["kintree_table"], path)
    values = {
        key: _tensor(data[key], key, path) for key in _KEYS if key in data and key != "bs_style"
    }
    if values["v_template"].ndim != 2 or not len(values["v_template"]):
        raise InputError(
            f"expected v_template of shape (V, 3) in {path}, "
            f"got {tuple(values['v_template'].shape)}"
        )
    size, count = len(values["v_template"]), skeleton.num_joints
    for key, shape in (
        ("v_template", (size, 3)),
        ("weights", (size, count)),
        ("J_regressor", (count, size)),
        ("posedirs", (size, 3, 9 * (count - 1))),
        ("hands_meanl", (45,)),
        ("hands_meanr", (45,)),
    ):
        if key in values and tuple(values[key].shape) != shape:
            raise InputError(
                f"expected {key} of shape {shape} in {path}, got {tuple(values[key].shape)}"
            )
    template = values["v_template"]
    rest = None
    if not flat_hands and count > SMPL_24.num_joints and "hands_meanl" in values:
        if "hands_meanr" not in values:
            raise InputError(f"{path} has hands_meanl but no hands_meanr")
        hands = torch.cat([values["hands_meanl"], values["hands_meanr"]]).reshape(-1, 3)
        face = torch.eye(3).repeat(count - 22 - len(hands), 1, 1)
        rest = torch.cat([face, matrix_from_axis_angle(hands)])
    regressors = _regressors(skeleton, size)
    if h36m_regressor is not None:
        regressors[H36M_17.name] = _h36m(h36m_regressor, template)
    return MeshBody(
        template,
        skeleton=skeleton,
        weights=values["weights"],
        joint_regressor=values["J_regressor"],
        shape_directions=_directions(values["shapedirs"], num_shape, num_expression, count, path),
        pose_directions=values.get("posedirs"),
        faces=values["f"].long(),
        regressors=regressors,
        rest=rest,
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise InputError(f"there is no body model {path}. {_WHERE}")
    if path.suffix == ".pkl":
        data = load_pickle(path)
        if not isinstance(data, dict):
            raise InputError(f"expected a dict in {path}, got {type(data).__name__}")
        return data
    if path.suffix != ".npz":
        raise InputError(f"expected a body model in .npz or .pkl, got {path}")
    return read_npz(path, _KEYS)


def _skeleton_of(tree: Any, path: Path) -> Skeleton:
    tree = plain_array(tree, f"kintree_table of {path}")
    skeleton = _SKELETONS.get(tree.shape[-1]) if tree.ndim == 2 and len(tree) == 2 else None
    if skeleton is None or tree.dtype.kind not in "iuf" or not np.isfinite(tree).all():
        raise InputError(
            f"expected kintree_table of shape (2, 24), (2, 52) or (2, 55) in {path}, "
            f"got {tree.shape}: SMPL, SMPL-H and SMPL-X are known"
        )
    # The root's parent is -1, stored as 4294967295 in unsigned numbers.
    parents = (-1, *(int(parent) for parent in tree[0, 1:]))
    if parents != skeleton.parents:
        got = short(str(parents))
        raise InputError(f"expected the joints of {skeleton.name} in {path}, got parents {got}")
    return skeleton


def _tensor(value: Any, key: str, path: Path) -> Tensor:
    array = plain_array(value, f"{key} of {path}")
    if array.dtype.kind not in "biuf":
        raise InputError(f"expected numbers in {key} of {path}, got {array.dtype}")
    # What exceeds float32 becomes infinite here.
    with np.errstate(over="ignore"):
        numbers = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(numbers).all():
        raise InputError(f"expected finite numbers in {key} of {path}, got others")
    return torch.as_tensor(numbers)


def _directions(
    stored: Tensor, num_shape: int, num_expression: int, joints: int, path: Path
) -> Tensor:
    """Choose shape and expression columns."""
    columns = stored.shape[-1] if stored.ndim == 3 else 0
    shapes, expressions = columns, 0
    if joints == SMPLX_55.num_joints:
        # 300 + 100 in whole files, 10 + 10 in those of version 1.0.
        shapes = 300 if columns >= 400 else min(columns, 10)
        expressions = columns - shapes
    for name, wanted, have in (
        ("shape", num_shape, shapes),
        ("expression", num_expression, expressions),
    ):
        if not 0 <= wanted <= have:
            raise InputError(f"expected 0 to {have} {name} coefficients for {path}, got {wanted}")
    return torch.cat(
        [stored[..., :num_shape], stored[..., shapes : shapes + num_expression]], dim=-1
    )


def _regressors(skeleton: Skeleton, size: int) -> dict[str, Tensor]:
    """Weights of joints, then vertices, for each joint set that official models have."""
    count = skeleton.num_joints
    if size not in _VERTICES:
        return {}

    def row(*parts: tuple[int, float]) -> Tensor:
        weights = torch.zeros(count + size)
        for place, weight in parts:
            weights[place] = weight
        return weights

    rows = {
        meaning: row((joint, 1.0))
        for joint, meaning in enumerate(skeleton.meanings)
        if meaning is not None
    }
    for meaning, vertex in _VERTICES[size].items():
        rows[meaning] = row((count + vertex, 1.0))
    for meaning, parts in DERIVED.items():
        rows[meaning] = torch.stack([rows[part] for part in parts]).mean(dim=0)
    index = skeleton.index
    trunk = {
        "mid_spine": row((index("Spine1"), 0.8), (index("Spine2"), 0.2)),
        "thorax": row((index("Neck"), 1.0)),
        "head_top": rows["skull_base"] / 3 + 2 * rows["head_top"] / 3,
    }
    return {
        target.name: torch.stack([known[str(meaning)] for meaning in target.meanings])
        for target, known in (
            (H36M_17, {**rows, **trunk}),
            (COCO_17, rows),
            (BODY_25, rows),
            (MPII_16, rows),
        )
    }


def _h36m(regressor: str | PathLike[str] | Tensor, template: Tensor) -> Tensor:
    """Read Human3.6M weights and put their rows into the order of `H36M_17`."""
    if isinstance(regressor, Tensor):
        weights = regressor.to(template)
    else:
        path = Path(regressor)
        weights = _tensor(map_npy(path), "the array", path)
    if tuple(weights.shape) != (17, len(template)):
        raise InputError(
            f"expected h36m_regressor of shape (17, {len(template)}), got {tuple(weights.shape)}"
        )
    # +x is the person's left.
    side = (weights @ template)[:, 0]
    right_leg, left_leg = H36M_17.index("RHip"), H36M_17.index("LHip")
    right_arm, left_arm = H36M_17.index("RShoulder"), H36M_17.index("LShoulder")
    if side[left_arm] < side[right_arm]:
        raise InputError(
            "expected h36m_regressor rows 11-13 on the left arm and 14-16 on the right one"
        )
    if side[left_leg] < side[right_leg]:
        order = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]
        weights = weights[order]
    return weights
