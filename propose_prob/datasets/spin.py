"""Training sets in the `.npz` files of SPIN and ProHMR."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError
from ..io.amass import body_rotations, read_arrays, real, words

__all__ = ["SpinDataset", "read_spin"]

_OPENPOSE = 25
_EXTRA = (19, 24)
_PROHMR = ("body_keypoints_2d", "extra_keypoints_2d", "body_keypoints_3d", "body_pose", "betas")
_PIXELS_OF_SCALE = 200.0

_OPTIONAL = (
    *("part", "openpose", "body_keypoints_2d", "extra_keypoints_2d"),
    *("S", "body_keypoints_3d", "extra_keypoints_3d"),
    *("pose", "body_pose", "shape", "betas", "gender"),
    *("has_smpl", "has_body_pose", "has_betas", "has_pose_3d"),
)


@dataclass(frozen=True, eq=False)
class SpinDataset:
    """N annotated people in images; what is not annotated is zero and masked.

    The 49 joints are SPIN's (github.com/nkolot/SPIN, `constants.py`): OpenPose's BODY_25, then the
    24 of the ground truth in SPIN's own order: right ankle, knee, hip, left hip, knee, ankle, right
    wrist, elbow, shoulder, left shoulder, elbow, wrist, neck (LSP), head top (LSP), pelvis (MPII),
    thorax (MPII), spine, jaw and head (Human3.6M), nose, left eye, right eye, left ear, right ear.

    Attributes:
        images: Each person's image, N strings.
        center: Middle of the person's box `(N, 2)`, pixels.
        size: Side of the square box `(N,)`, pixels.
        keypoints_2d: `(N, 49, 2)`, pixels.
        confidence_2d: `(N, 49)`, 0 where not annotated.
        keypoints_3d: `(N, 49, 3)`, meters, in the axes of the file.
        confidence_3d: `(N, 49)`, 0 where not annotated.
        theta: SMPL's local rotations `(N, 24, 3, 3)`; identity where not annotated.
        betas: SMPL's shape coefficients `(N, 10)`.
        has_theta: Whether `theta` is annotated, `(N,)`, bool.
        has_betas: Whether `betas` is annotated, `(N,)`, bool.
        gender: `"male"`, `"female"` or `""` for unknown, N strings.

    Example:
        >>> import tempfile
        >>> arrays = {"imgname": ["a.jpg", "b.jpg"], "center": np.zeros((2, 2)), "scale": [1, 1.5]}
        >>> arrays |= {"pose": np.zeros((2, 72)), "shape": np.zeros((2, 10)), "has_smpl": [1, 0]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/people.npz", **arrays)
        ...     people = read_spin(f"{folder}/people.npz")
        >>> people.theta[people.has_theta].shape, bool(people.confidence_2d.any())
        (torch.Size([1, 24, 3, 3]), False)
    """

    images: tuple[str, ...]
    center: Tensor
    size: Tensor
    keypoints_2d: Tensor
    confidence_2d: Tensor
    keypoints_3d: Tensor
    confidence_3d: Tensor
    theta: Tensor
    betas: Tensor
    has_theta: Tensor
    has_betas: Tensor
    gender: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


def read_spin(path: str | Path) -> SpinDataset:
    """Read a training set as SPIN's and ProHMR's preprocessing writes it.

    Needed are `imgname`, `center` and `scale` (one number, or width and height, of which the larger
    counts). All else may be missing:

    * 2D: `openpose` (N, 25, 3) and `part` (N, 24, 3), or ProHMR's `body_keypoints_2d` (N, 25, 3)
      and `extra_keypoints_2d` (N, 19, 3); the last number is the confidence;
    * 3D: `S` (N, 24, 4), or `body_keypoints_3d` (N, 25, 4) and `extra_keypoints_3d` (N, 19, 4);
    * SMPL: `pose` (N, 72) and `shape` (N, 10) with `has_smpl`, or ProHMR's `body_pose` and `betas`
      with `has_body_pose` and `has_betas`. Poses that come without a mask count as annotated.

    SPIN's files give `scale` in units of 200 pixels, ProHMR's in pixels (github.com/nkolot/ProHMR,
    `prohmr/datasets/image_dataset.py`); the names of a file's other arrays tell whose it is.
    ProHMR's 19 further joints are the first 19 of SPIN's 24.

    NaN is read as not annotated; confidences are cut at 1.

    Args:
        path: The `.npz`. No pickle is read.

    Returns:
        The people, in float32.

    Raises:
        InputError: If the file is missing or broken, or an array holds objects or has another
            shape.

    Example:
        >>> import tempfile
        >>> arrays = {"imgname": ["a.jpg", "b.jpg"], "center": np.zeros((2, 2)), "scale": [1, 1.5]}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/people.npz", openpose=np.random.rand(2, 25, 3), **arrays)
        ...     people = read_spin(f"{folder}/people.npz")
        >>> people.keypoints_2d.shape, people.size.tolist(), people.has_theta.tolist()
        (torch.Size([2, 49, 2]), [200.0, 300.0], [False, False])
    """
    path = Path(path)
    arrays = read_arrays(path, ("imgname", "center", "scale"), optional=_OPTIONAL)
    if arrays["imgname"].ndim != 1 or not len(arrays["imgname"]):
        raise InputError(
            f"{path}: expected imgname of shape (N,), N > 0, got {arrays['imgname'].shape}"
        )
    images = words(path, "imgname", arrays["imgname"])
    count = len(images)
    scale = arrays["scale"]
    size = real(path, "scale", scale, (count, 2) if scale.ndim == 2 else (count,))
    size = size.max(axis=1) if size.ndim == 2 else size
    prohmr = any(name in arrays for name in _PROHMR)
    keypoints_2d, confidence_2d = _keypoints(
        path, arrays, count, ("openpose", "body_keypoints_2d"), ("part", "extra_keypoints_2d"), 2
    )
    keypoints_3d, confidence_3d = _keypoints(
        path, arrays, count, ("body_keypoints_3d",), ("S", "extra_keypoints_3d"), 3
    )
    if "has_pose_3d" in arrays:
        confidence_3d = confidence_3d * _mask(path, arrays, "has_pose_3d", count)[:, None]
    pose, has_pose = _annotated(path, arrays, count, ("pose", "body_pose"), "has_body_pose", 72)
    betas, has_betas = _annotated(path, arrays, count, ("shape", "betas"), "has_betas", 10)
    genders = [""] * count
    if "gender" in arrays:
        genders = words(path, "gender", arrays["gender"])
        if len(genders) != count:
            raise InputError(f"{path}: expected {count} of gender, got {len(genders)}")
    known = {"m": "male", "f": "female"}
    return SpinDataset(
        images=tuple(images),
        center=torch.from_numpy(real(path, "center", arrays["center"], (count, 2))),
        size=torch.from_numpy(size if prohmr else _PIXELS_OF_SCALE * size),
        keypoints_2d=torch.from_numpy(keypoints_2d),
        confidence_2d=torch.from_numpy(confidence_2d),
        keypoints_3d=torch.from_numpy(keypoints_3d),
        confidence_3d=torch.from_numpy(confidence_3d),
        theta=body_rotations(torch.from_numpy(pose).unflatten(-1, (24, 3))),
        betas=torch.from_numpy(betas),
        has_theta=torch.from_numpy(has_pose),
        has_betas=torch.from_numpy(has_betas),
        gender=tuple(known.get(gender[:1].lower(), "") for gender in genders),
    )


def _keypoints(
    path: Path,
    arrays: dict[str, npt.NDArray[np.generic]],
    count: int,
    openpose: tuple[str, ...],
    extra: tuple[str, ...],
    axes: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Join BODY_25 and the 24 further joints to `(N, 49, axes)` and their confidence."""
    both = np.zeros((count, _OPENPOSE + max(_EXTRA), axes + 1), np.float32)
    for names, start, sizes in ((openpose, 0, (_OPENPOSE,)), (extra, _OPENPOSE, _EXTRA)):
        for name in names:
            if name in arrays:
                array = arrays[name]
                joints = (
                    array.shape[1] if array.ndim == 3 and array.shape[1] in sizes else sizes[-1]
                )
                rows = _numbers(path, arrays, name, (count, joints, axes + 1))
                both[:, start : start + joints] = rows
    both[~np.isfinite(both).all(axis=-1)] = 0
    return both[..., :axes].copy(), both[..., axes].clip(0, 1)


def _annotated(
    path: Path,
    arrays: dict[str, npt.NDArray[np.generic]],
    count: int,
    names: tuple[str, str],
    mask: str,
    size: int,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    name = next((name for name in names if name in arrays), None)
    if name is None:
        return np.zeros((count, size), np.float32), np.zeros(count, bool)
    values = _numbers(path, arrays, name, (count, size))
    has = np.asarray(np.isfinite(values).all(axis=-1))
    for key in (mask, "has_smpl"):
        if key in arrays:
            has &= _mask(path, arrays, key, count)
    return np.where(has[:, None], values, np.float32(0)), has


def _numbers(
    path: Path, arrays: dict[str, npt.NDArray[np.generic]], name: str, shape: tuple[int, ...]
) -> npt.NDArray[np.float32]:
    array = arrays[name]
    if array.shape != shape or array.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: expected numbers of shape {shape} in {name}, got {array.dtype} {array.shape}"
        )
    # What exceeds float32 becomes infinite here, and counts as not annotated.
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _mask(
    path: Path, arrays: dict[str, npt.NDArray[np.generic]], name: str, count: int
) -> npt.NDArray[np.bool_]:
    return real(path, name, arrays[name].reshape(-1), (count,)) > 0
