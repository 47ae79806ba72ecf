"""3DPW ("3D Poses in the Wild") from its official pickles.

Sources: the data set's `readme.txt` (fields and their shapes); SPIN `datasets/preprocess/pw3d.py`
(splits, `campose_valid`, cameras from world to camera); OpenPose `doc/02_output.md` (the 18 joints
of `poses2d`); meshcapade.wiki/SMPL (the 24 joints of `jointPositions`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..bodies.body import Body
from ..errors import InputError, short
from ..geometry.rotations import matrix_from_axis_angle
from ..geometry.skeletons import COCO_17, H36M_17, SMPL_24, convert_skeleton
from ..io.archives import plain_array
from ..io.keypoints import OPENPOSE_COCO_18
from ..io.unpickle import load_pickle
from .clips import PoseClip

__all__ = ["read_3dpw"]

_WHERE = "3DPW is to be had from virtualhumans.mpi-inf.mpg.de/3DPW under its licence"

# Posed at a time: a body's surface of one frame has some 80 kB.
_CHUNK = 256


def read_3dpw(
    folder: str | Path,
    *,
    split: Literal["train", "validation", "test"] = "test",
    bodies: Mapping[str, Body] | None = None,
) -> Iterator[PoseClip]:
    """Read the sequences of a split, one file at a time.

    The files are Python 2 pickles; only arrays and plain containers are read from them.

    2D is `poses2d`, OpenPose's detections, as far as Human3.6M's joints can be had from them. 3D
    joints are those that the bodies' regressor `h36m_17` gives for the files' SMPL parameters,
    which is what published numbers are of. Without bodies they come from `jointPositions`, SMPL's
    own joints: Spine and Head are missing (NaN) and the others lie up to centimeters elsewhere.

    Args:
        folder: The data set's folder, or its `sequenceFiles`.
        split: Which part of `sequenceFiles`.
        bodies: SMPL bodies for the genders `"m"` and `"f"`.

    Yields:
        A clip of `H36M_17` for each person of each sequence, at 30 Hz. `valid` is the file's
        `campose_valid` where a joint was seen; the action is the sequence's name without number.

    Raises:
        InputError: If the folder has no sequences; if a file is damaged, holds other objects than
            arrays, lacks a field or has one of another shape; if a valid frame has a number that is
            not finite; or if there is no body of a person's gender.
    """
    folder = Path(folder)
    inner = folder / "sequenceFiles"
    place = (inner if inner.is_dir() else folder) / split
    paths = sorted(place.glob("*.pkl"))
    if not paths:
        raise InputError(
            f"{place}: expected the .pkl files of 3DPW's sequenceFiles/{split}, got none; {_WHERE}"
        )
    for path in paths:
        stored = load_pickle(path)
        if not isinstance(stored, dict):
            raise InputError(f"{path}: expected a dict of fields, got {type(stored).__name__}")
        for person in range(len(_people(path, stored, "poses2d"))):
            yield _clip(path, stored, person, bodies)


def _clip(
    path: Path, stored: dict[Any, Any], person: int, bodies: Mapping[str, Body] | None
) -> PoseClip:
    p2d, level = _detections(path, stored, person)
    frames = len(p2d)
    cameras = _numbers(path, "cam_poses", _field(path, stored, "cam_poses"), (frames, 4, 4))
    valid = _person(path, stored, "campose_valid", person, (frames,)) != 0
    _check_finite(path, "cam_poses", cameras[valid])
    if bodies is None:
        flat = _person(path, stored, "jointPositions", person, (frames, 72))
        _check_finite(path, "jointPositions", flat[valid])
        joints = torch.from_numpy(flat.reshape(frames, 24, 3))
        world, _ = convert_skeleton(joints, SMPL_24, H36M_17)
    else:
        world = _posed(path, stored, person, bodies, valid)
    rotation, translation = (
        torch.from_numpy(cameras[:, :3, :3]),
        torch.from_numpy(cameras[:, :3, 3]),
    )
    p3d = world.double() @ rotation.transpose(-1, -2) + translation[:, None]
    intrinsics = _numbers(path, "cam_intrinsics", _field(path, stored, "cam_intrinsics"), (3, 3))
    if not (np.isfinite(intrinsics).all() and intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0):
        raise InputError(f"{path}: expected positive focal lengths in cam_intrinsics, got others")
    name = path.stem
    return PoseClip(
        sequence=f"{name} person {person}",
        subject=f"{name} person {person}",
        skeleton=H36M_17,
        actions=(re.sub(r"_\d+$", "", name),) * frames,
        p2d=p2d,
        confidence=level,
        p3d=p3d.float(),
        focal=float(intrinsics[0, 0] + intrinsics[1, 1]) / 2,
        center=(float(intrinsics[0, 2]), float(intrinsics[1, 2])),
        image_size=None,
        frame=torch.arange(frames),
        valid=torch.from_numpy(valid) & (level > 0).any(dim=-1),
    )


def _detections(path: Path, stored: dict[Any, Any], person: int) -> tuple[Tensor, Tensor]:
    """Keypoints `(N, 17, 2)`, NaN where missing, and their confidence, of (N, 3, 18)."""
    rows = _person(path, stored, "poses2d", person, (None, 3, 18)).transpose(0, 2, 1)
    values = torch.from_numpy(rows[:, list(OPENPOSE_COCO_18)].astype(np.float32))
    confidence = values[..., 2].nan_to_num(0.0).clamp(0, 1)
    p2d, confidence = convert_skeleton(values[..., :2], COCO_17, H36M_17, confidence=confidence)
    return p2d, confidence


def _posed(
    path: Path,
    stored: dict[Any, Any],
    person: int,
    bodies: Mapping[str, Body],
    valid: npt.NDArray[np.bool_],
) -> Tensor:
    frames = len(valid)
    genders = _people(path, stored, "genders")
    gender = genders[person] if person < len(genders) else "unknown"
    if not isinstance(gender, str):
        raise InputError(f"{path}: expected genders to be text, got {type(gender).__name__}")
    if gender not in bodies:
        raise InputError(
            f"{path}: expected a body for gender {short(repr(gender))} of person {person}, "
            f"got {', '.join(bodies) or 'none'}"
        )
    body = bodies[gender]
    poses = _person(path, stored, "poses", person, (frames, 72))
    places = _person(path, stored, "trans", person, (frames, 3))
    betas = np.ravel(_person(path, stored, "betas", person, None))
    for key, values in (("poses", poses[valid]), ("trans", places[valid]), ("betas", betas)):
        _check_finite(path, key, values)
    translation = torch.from_numpy(places).float()
    shape = torch.zeros(body.num_shape)
    known = min(len(betas), body.num_shape)
    shape[:known] = torch.from_numpy(betas[:known].astype(np.float32))
    theta = matrix_from_axis_angle(torch.from_numpy(poses.reshape(frames, 24, 3))).float()
    with torch.no_grad():
        joints = [
            body.regress(body(part, shape, moved), "h36m_17")
            for part, moved in zip(theta.split(_CHUNK), translation.split(_CHUNK), strict=True)
        ]
    return torch.cat(joints)


def _check_finite(path: Path, key: str, values: npt.NDArray[np.float64]) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"{path}: expected finite {key} in valid frames, got others")


def _field(path: Path, stored: dict[Any, Any], key: str) -> Any:
    if key not in stored:
        known = short(", ".join(map(str, list(stored)[:8]))) or "nothing"
        raise InputError(f"{path}: expected the field {key}, got {known}")
    return stored[key]


def _people(path: Path, stored: dict[Any, Any], key: str) -> Any:
    people = _field(path, stored, key)
    sized = isinstance(people, list | tuple) or (isinstance(people, np.ndarray) and people.ndim > 0)
    if not sized or len(people) == 0:
        raise InputError(
            f"{path}: expected {key} to be a list with an entry for each person, "
            f"got {type(people).__name__}"
        )
    return people


def _person(
    path: Path, stored: dict[Any, Any], key: str, person: int, shape: tuple[int | None, ...] | None
) -> npt.NDArray[np.float64]:
    people = _people(path, stored, key)
    if person >= len(people):
        raise InputError(
            f"{path}: expected {key} of {person + 1} people or more, got {len(people)}"
        )
    return _numbers(path, f"{key}[{person}]", people[person], shape)


def _numbers(
    path: Path, key: str, value: Any, shape: tuple[int | None, ...] | None
) -> npt.NDArray[np.float64]:
    array = plain_array(value, f"{key} of {path}")
    fits = shape is None or (
        array.ndim == len(shape)
        and all(size in (None, got) for size, got in zip(shape, array.shape, strict=True))
    )
    if array.dtype.kind not in "fiub" or not fits:
        dimensions = ", ".join("frames" if size is None else str(size) for size in shape or ())
        expected = f"of shape ({dimensions})" if shape is not None else ""
        raise InputError(
            f"{path}: expected numbers in {key} {expected}".rstrip()
            + f", got {array.dtype} of shape {array.shape}"
        )
    # What exceeds float64 becomes infinite here; what exceeds float32 would later.
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float64)
    if (np.abs(numbers) > np.finfo(np.float32).max).any():
        raise InputError(f"{path}: expected numbers within float32 in {key}, got larger ones")
    return numbers
