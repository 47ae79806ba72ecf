"""Human3.6M in the two files that lifting papers share, VideoPose3D's format.

Sources: github.com/facebookresearch/VideoPose3D, `DATASETS.md`, `data/prepare_data_h36m.py`,
`common/h36m_dataset.py` and `run.py` (files, subjects, joints kept of 32, longer 2D recordings),
`data/data_utils.py` (joint sets of the detections).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError, short
from ..pose.convert import convert
from ..pose.skeleton import COCO_17, H36M_17, MPII_16, Skeleton
from .clips import PoseClip
from .h36m_cameras import CAMERA_IDS, h36m_camera
from .object_npz import read_object_npz

__all__ = ["H36M_ACTIONS", "H36M_TEST", "H36M_TRAIN", "read_h36m"]

H36M_TRAIN = ("S1", "S5", "S6", "S7", "S8")
"""The subjects that all protocols train on."""

H36M_TEST = ("S9", "S11")
"""The subjects that protocols 1 and 2 test on."""

H36M_ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases"),
    *("Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether"),
)
"""The 15 actions; each subject performs each of them twice."""

_OTHER_NAMES = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}

# The joints that move, of the 32 that motion capture gives, in Human3.6M-17 order.
_MOVING = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)

_WHERE = (
    "make it with VideoPose3D's data/prepare_data_h36m.py from the archives of "
    "vision.imar.ro/human3.6m, which needs registration"
)
_WHERE_DETECTED = "VideoPose3D's DATASETS.md links the detections"


def read_h36m(
    folder: str | Path, *, subjects: Sequence[str] = H36M_TEST, detections: str = "gt"
) -> Iterator[PoseClip]:
    """Read Human3.6M from `data_3d_h36m.npz` and `data_2d_h36m_<detections>.npz`.

    Both files are pickles inside; only arrays and plain containers are read from them. They are
    read when this is called (some 600 MB stay in memory), the clips are made one by one: a subject,
    a recording, a camera. Motion is brought from the world into the camera's axes; keypoints in
    COCO's or MPII's order (`detectron_pt_coco`, `sh_pt_mpii`) become Human3.6M's, missing what
    they lack. Recordings whose 2D goes on longer than their motion are cut.

    Actions are merged: "Walking" and "Walking 1" are both "Walking". "Directions" of S11 is absent
    from the files, its video being damaged.

    Args:
        folder: The folder with the two files.
        subjects: Whose recordings to read: `H36M_TRAIN`, `H36M_TEST` or some of these.
        detections: Which 2D: `"gt"` projections, `"cpn_ft_h36m_dbb"`, or what else the folder has.

    Returns:
        An iterator over clips of `H36M_17`, at 50 Hz, all frames valid.

    Raises:
        InputError: If a file is missing, is not what it should be or holds other objects than
            arrays; if a subject, recording or camera is missing; or if a recording's shapes or
            numbers are wrong (while iterating).
    """
    folder = Path(folder)
    path_3d = folder / "data_3d_h36m.npz"
    path_2d = folder / f"data_2d_h36m_{detections}.npz"
    for subject in subjects:
        if subject not in (*H36M_TRAIN, *H36M_TEST):
            known = ", ".join((*H36M_TRAIN, *H36M_TEST))
            raise InputError(f"expected subjects of Human3.6M ({known}), got {subject!r}")
    motion = read_object_npz(path_3d, ("positions_3d",), where=_WHERE)["positions_3d"]
    where = _WHERE if detections == "gt" else _WHERE_DETECTED
    stored = read_object_npz(path_2d, ("positions_2d", "metadata"), where=where)
    skeleton = _layout(path_2d, stored["metadata"])
    keypoints = stored["positions_2d"]
    for path, value, key in (
        (path_3d, motion, "positions_3d"),
        (path_2d, keypoints, "positions_2d"),
    ):
        for subject in subjects:
            entries = _entry(path, value, key, subject)
            if not isinstance(entries, dict):
                got = type(entries).__name__
                raise InputError(f"{path}: expected {key}[{subject!r}] to be a dict, got {got}")

    def clips() -> Iterator[PoseClip]:
        for subject in subjects:
            for name, positions in motion[subject].items():
                action = _action(path_3d, subject, name)
                views = _entry(path_2d, keypoints[subject], f"positions_2d[{subject!r}]", name)
                label = f"{subject} {name}"
                world = _numbers(path_3d, label, positions, joints=(32, 17), axes=(3,))
                if world.shape[1] == 32:
                    world = world[:, _MOVING]
                if not isinstance(views, list | tuple | np.ndarray) or len(views) != 4:
                    count = len(views) if isinstance(views, list | tuple | np.ndarray) else views
                    raise InputError(
                        f"{path_2d}: expected 4 cameras for {label}, got "
                        f"{count if isinstance(count, int) else type(count).__name__}"
                    )
                for camera, view in zip(CAMERA_IDS, views, strict=True):
                    seen = _numbers(
                        *(path_2d, f"{label} {camera}", view),
                        joints=(skeleton.num_joints,),
                        axes=(2, 3),
                    )
                    if len(seen) < len(world):
                        raise InputError(
                            f"{path_2d}: expected at least {len(world)} frames for {label} "
                            f"{camera}, as many as {path_3d.name} has, got {len(seen)}"
                        )
                    yield _clip(subject, name, action, camera, world, seen[: len(world)], skeleton)

    return clips()


def _clip(
    subject: str,
    name: str,
    action: str,
    camera: str,
    world: npt.NDArray[np.floating],
    seen: npt.NDArray[np.floating],
    skeleton: Skeleton,
) -> PoseClip:
    view = h36m_camera(subject, camera)
    pixels = torch.from_numpy(seen[..., :2].astype(np.float32))
    level = None
    if seen.shape[-1] == 3:
        level = torch.from_numpy(seen[..., 2].astype(np.float32).clip(0, 1))
    p2d, confidence = convert(pixels, skeleton, H36M_17, confidence=level)
    return PoseClip(
        sequence=f"{subject} {name} {camera}",
        subject=subject,
        skeleton=H36M_17,
        actions=(action,) * len(world),
        p2d=torch.where((confidence > 0)[..., None], p2d, torch.nan),
        confidence=confidence,
        p3d=torch.from_numpy(view.from_world(world).astype(np.float32)),
        focal=view.focal,
        center=view.center,
        image_size=view.image_size,
        frame=torch.arange(len(world)),
        valid=torch.ones(len(world), dtype=torch.bool),
    )


def _action(path: Path, subject: str, name: Any) -> str:
    """Take "Walking 1" for "Walking"."""
    stem = name.rsplit(" ", 1)[0] if isinstance(name, str) and name[-1:].isdecimal() else name
    action = _OTHER_NAMES.get(stem, stem)
    if action not in H36M_ACTIONS:
        raise InputError(
            f"{path}: expected recordings named after the actions {', '.join(H36M_ACTIONS)}, "
            f"got {short(repr(name))} of {subject}"
        )
    return action


def _layout(path: Path, metadata: Any) -> Skeleton:
    """Tell the joint set of the keypoints by which joints it says are left and right."""
    try:
        left, right = (tuple(map(int, side)) for side in metadata["keypoints_symmetry"])
        joints = int(metadata["num_joints"])
        # Longer numbers cannot even be shown.
        if not all(0 <= joint < 1000 for joint in (*left, *right, joints)):
            raise ValueError("no numbers of joints")
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: expected metadata with num_joints and keypoints_symmetry (left and right)"
        ) from error
    for skeleton in (H36M_17, COCO_17, MPII_16):
        pairs = {(j, other) for j, other in enumerate(skeleton.mirror) if j != other}
        given = {*zip(left, right, strict=False), *zip(right, left, strict=False)}
        if joints == skeleton.num_joints and given == pairs:
            return skeleton
    raise InputError(
        f"{path}: expected the joints of h36m_17, coco_17 or mpii_16, "
        f"got {joints} joints of which {short(str(list(left)))} are left and "
        f"{short(str(list(right)))} right"
    )


def _entry(path: Path, value: Any, name: str, key: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected {name} to be a dict, got {type(value).__name__}")
    if key not in value:
        known = short(", ".join(map(str, list(value)[:8]))) or "nothing"
        raise InputError(f"{path}: expected {short(repr(key))} in {name}, got {known}")
    return value[key]


def _numbers(
    path: Path, label: str, value: Any, *, joints: tuple[int, ...], axes: tuple[int, ...]
) -> npt.NDArray[np.floating]:
    expected = (
        f"numbers of shape (frames, {' or '.join(map(str, joints))}, "
        f"{' or '.join(map(str, axes))}) for {label}"
    )
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"{path}: expected {expected}, got {got}")
    if value.ndim != 3 or value.shape[1] not in joints or value.shape[2] not in axes:
        raise InputError(f"{path}: expected {expected}, got {value.shape}")
    if (np.abs(value) > np.finfo(np.float32).max).any() or (axes == (3,) and np.isnan(value).any()):
        raise InputError(f"{path}: expected finite {expected}, got NaN or infinite ones")
    return value
