"""MPI-INF-3DHP from its official files: `annot.mat` for training, `annot_data.mat` for testing.

Sources: the data set's README files and `mpii_get_joint_set.m` (joint order, axes, units, which
annotation is which, frame counts in excess, scene settings); MMPose
`tools/dataset_converters/preprocess_mpi_inf_3dhp.py` (files, frame counts, test images' sizes);
`test_util/camera_calibration` of the test set, as several readers quote it (test cameras); PosePile
(activities' names).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError
from ..geometry.skeletons import MPI_INF_3DHP_17
from ..io.matlab import read_mat
from .clips import PoseClip, fit_pinhole

__all__ = [
    "MPI_INF_3DHP_CAMERAS",
    "MPI_INF_3DHP_SCENES",
    "read_mpi_inf_3dhp_test",
    "read_mpi_inf_3dhp_train",
]

MPI_INF_3DHP_SCENES: Mapping[str, tuple[str, ...]] = {
    "GS": ("TS1", "TS2"),
    "noGS": ("TS3", "TS4"),
    "outdoor": ("TS5", "TS6"),
}
"""The test sequences by setting: studio with green screen, studio without, outdoors."""

MPI_INF_3DHP_CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
"""The training cameras that most work uses: those at the height of a person, and no ceiling."""

Target = Literal["univ_annot3", "annot3"]
_Camera = tuple[float, tuple[float, float], tuple[int, int]]

_ACTIVITIES = (
    "Stand/Walk",
    "Exercise",
    "Sit on Chair",
    "Reach/Crouch",
    "On Floor",
    "Sports",
    "Misc.",
)

# The 17 joints of the test files among the 28 of the training files.
_RELEVANT = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)

# Frames of video; where a file has more annotations, the last ones have no image.
_FRAMES = {
    **{("S1", 1): 6416, ("S1", 2): 12430, ("S2", 1): 6502, ("S2", 2): 6081},
    **{("S3", 1): 12488, ("S3", 2): 12283, ("S4", 1): 6171, ("S4", 2): 6675},
    **{("S5", 1): 12820, ("S5", 2): 12312, ("S6", 1): 6188, ("S6", 2): 6145},
    **{("S7", 1): 6239, ("S7", 2): 6320, ("S8", 1): 6468, ("S8", 2): 6054},
}

_WHERE = (
    "the data set is to be had from vcai.mpi-inf.mpg.de/3dhp-dataset (get_dataset.sh and "
    "get_testset.sh) under its licence"
)


def _test_camera(sequence: str) -> _Camera:
    """Focal length, principal point and image size, from the calibration in millimeters."""
    if sequence in MPI_INF_3DHP_SCENES["outdoor"]:
        width, height, focal, offset = 1920, 1080, 8.770747185, (-0.104908645, 0.104899704)
    else:
        width, height, focal, offset = 2048, 2048, 7.32506, (-0.0322884, 0.0929296)
    scale = width / 10
    center = width / 2 + offset[0] * scale, height / 2 + offset[1] * scale
    return focal * scale, center, (width, height)


def read_mpi_inf_3dhp_test(
    folder: str | Path,
    *,
    sequences: Sequence[str] = ("TS1", "TS2", "TS3", "TS4", "TS5", "TS6"),
    target: Target = "univ_annot3",
) -> Iterator[PoseClip]:
    """Read the test set from `TS1/annot_data.mat` to `TS6/annot_data.mat`, one file at a time.

    2D is `annot2`, which the cameras of the files make of `annot3`. The published numbers are of
    `univ_annot3`, the same poses at the height of Human3.6M's skeleton: these are no projections'
    originals. `valid` is the files' `valid_frame`. Lens distortion of the outdoor camera is left
    out.

    Args:
        folder: The folder of the test set (`mpi_inf_3dhp_test_set`), or the one above it.
        sequences: Which of TS1 to TS6; `MPI_INF_3DHP_SCENES` has them by setting.
        target: Which annotation becomes `p3d`.

    Yields:
        A clip of `MPI_INF_3DHP_17` for each sequence, with the activity as action of a frame and
        the setting (`GS`, `noGS` or `outdoor`) in its name, as in "TS1 GS".

    Raises:
        InputError: If a file is missing, damaged, lacks a variable or has one of another shape; or
            if a valid frame has a number that is not finite.
    """
    folder = _inner(Path(folder), "mpi_inf_3dhp_test_set")
    setting = {name: scene for scene, names in MPI_INF_3DHP_SCENES.items() for name in names}
    for sequence in sequences:
        if sequence not in setting:
            raise InputError(f"expected test sequences of {', '.join(setting)}, got {sequence!r}")
        path = folder / sequence / "annot_data.mat"
        keys = ("annot2", target, "valid_frame", "activity_annotation")
        stored = read_mat(path, keys, where=_WHERE)
        p2d = _test_joints(path, "annot2", stored["annot2"], 2)
        p3d = _test_joints(path, target, stored[target], 3)
        valid = _per_frame(path, "valid_frame", stored["valid_frame"], len(p2d)) != 0
        activity = _per_frame(path, "activity_annotation", stored["activity_annotation"], len(p2d))
        if len(p3d) != len(p2d):
            raise InputError(
                f"{path}: expected as many frames in {target} as in annot2, {len(p2d)}, "
                f"got {len(p3d)}"
            )
        for name, values in (("annot2", p2d), (target, p3d)):
            if not np.isfinite(values[valid]).all():
                raise InputError(f"{path}: expected finite {name} in valid frames, got others")
        yield _clip(
            f"{sequence} {setting[sequence]}",
            sequence,
            _activities(activity),
            p2d,
            p3d / 1000,
            valid,
            camera=_test_camera(sequence),
        )


def read_mpi_inf_3dhp_train(
    folder: str | Path,
    *,
    subjects: Sequence[str] = ("S1", "S2", "S3", "S4", "S5", "S6", "S7", "S8"),
    cameras: Sequence[int] = MPI_INF_3DHP_CAMERAS,
    target: Target = "annot3",
) -> Iterator[PoseClip]:
    """Read the training set from `S1/Seq1/annot.mat` to `S8/Seq2/annot.mat`, a file at a time.

    Of the files' 28 joints the 17 of the test files are kept, in their order. The camera of a clip
    is the one that projects its `annot3` onto its `annot2`, found from both. Annotations without
    an image, at the end of some files, are dropped. The files name no activity of a frame, so the
    action is the sequence. Others report left and right exchanged in S4/Seq2, frames 3759 to 5852;
    they are given as they are.

    Args:
        folder: The folder that holds S1 to S8.
        subjects: Which of S1 to S8.
        cameras: Which of the cameras 0 to 13.
        target: Which annotation becomes `p3d`: true size, or the height of Human3.6M's skeleton.

    Yields:
        A clip of `MPI_INF_3DHP_17` for each subject, sequence and camera, "S1 Seq1 camera 0".
        Joints outside the image have 2D too.

    Raises:
        InputError: If a file is missing, damaged, lacks a variable or has one of another shape; if
            it has no such camera; or if its numbers are not finite or fit no camera.
    """
    folder = Path(folder)
    known = sorted({subject for subject, _ in _FRAMES})
    for subject in subjects:
        if subject not in known:
            raise InputError(f"expected training subjects of {', '.join(known)}, got {subject!r}")
        for number in (1, 2):
            path = folder / subject / f"Seq{number}" / "annot.mat"
            keys = tuple(dict.fromkeys(("annot2", "annot3", target, "cameras")))
            stored = read_mat(path, keys, where=_WHERE)
            listed = [int(camera) for camera in np.ravel(stored["cameras"])]
            for camera in cameras:
                if camera not in listed:
                    raise InputError(f"{path}: expected camera {camera} in cameras, got {listed}")
                cell = listed.index(camera)
                p2d = _train_joints(path, "annot2", stored["annot2"], cell, 2)
                seen = _train_joints(path, "annot3", stored["annot3"], cell, 3)
                p3d = seen
                if target != "annot3":
                    p3d = _train_joints(path, target, stored[target], cell, 3)
                frames = min(len(p2d), len(seen), len(p3d), _FRAMES[subject, number])
                focal, center = fit_pinhole(seen[:frames], p2d[:frames])
                if not focal > 0:
                    raise InputError(
                        f"{path}: expected annot3 in front of a camera that projects it to annot2, "
                        f"got a focal length of {focal:.0f} px for camera {camera}"
                    )
                yield _clip(
                    f"{subject} Seq{number} camera {camera}",
                    subject,
                    (f"Seq{number}",) * frames,
                    p2d[:frames],
                    p3d[:frames] / 1000,
                    np.ones(frames, dtype=np.bool_),
                    camera=(focal, center, (2048, 2048)),
                )


def _inner(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_dir() else folder


def _clip(
    sequence: str,
    subject: str,
    actions: tuple[str, ...],
    p2d: npt.NDArray[np.floating],
    p3d: npt.NDArray[np.floating],
    valid: npt.NDArray[np.bool_],
    *,
    camera: _Camera,
) -> PoseClip:
    focal, center, size = camera
    seen = np.isfinite(p2d).all(axis=-1)
    # What exceeds float32 becomes infinite here, and the clip refuses it.
    with np.errstate(over="ignore"):
        pixels = np.where(seen[..., None], p2d, np.nan).astype(np.float32)
        joints = p3d.astype(np.float32)
    return PoseClip(
        sequence=sequence,
        subject=subject,
        skeleton=MPI_INF_3DHP_17,
        actions=actions,
        p2d=torch.from_numpy(pixels),
        confidence=torch.from_numpy(seen.astype(np.float32)),
        p3d=torch.from_numpy(joints),
        focal=focal,
        center=center,
        image_size=size,
        frame=torch.arange(len(p2d)),
        valid=torch.from_numpy(valid),
    )


def _test_joints(path: Path, key: str, value: Any, axes: int) -> npt.NDArray[np.float64]:
    """Bring (axes, 17, 1, frames) into (frames, 17, axes)."""
    if isinstance(value, list) or value.ndim not in (3, 4) or value.shape[:2] != (axes, 17):
        got = "a cell array" if isinstance(value, list) else value.shape
        raise InputError(f"{path}: expected {key} of shape ({axes}, 17, 1, frames), got {got}")
    return np.ascontiguousarray(value.reshape(axes, 17, -1, order="F").transpose(2, 1, 0))


def _per_frame(path: Path, key: str, value: Any, frames: int) -> npt.NDArray[np.float64]:
    if isinstance(value, list) or value.size != frames:
        got = "a cell array" if isinstance(value, list) else value.shape
        raise InputError(f"{path}: expected {key} of {frames} frames, got {got}")
    return np.ravel(value)


def _activities(numbers: npt.NDArray[np.float64]) -> tuple[str, ...]:
    # Frames that do not count have no activity, 0 or one of those below.
    names = {float(number): name for number, name in enumerate(_ACTIVITIES, 1)}
    return tuple(names.get(number, "none") for number in numbers.tolist())


def _train_joints(
    path: Path, key: str, cells: Any, cell: int, axes: int
) -> npt.NDArray[np.float64]:
    """Bring rows of 28 x axes numbers into (frames, 17, axes)."""
    if not isinstance(cells, list) or cell >= len(cells):
        got = f"{len(cells)} cells" if isinstance(cells, list) else "numbers"
        raise InputError(f"{path}: expected a cell of {key} for every camera, got {got}")
    rows = cells[cell]
    if rows.ndim != 2 or rows.shape[1] != 28 * axes:
        raise InputError(f"{path}: expected {key} of shape (frames, {28 * axes}), got {rows.shape}")
    if not (np.abs(rows) <= np.finfo(np.float32).max).all():
        raise InputError(f"{path}: expected finite numbers within float32 in {key}, got others")
    return rows.reshape(len(rows), 28, axes)[:, _RELEVANT]
