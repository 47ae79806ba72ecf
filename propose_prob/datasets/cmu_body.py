"""CMU17's frames as body pose: rotations of SMPL's 24 joints, retargeted from the motion capture.

The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with
funding from NSF EIA-0196217.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._shipped import shipped_file
from ..errors import InputError
from ..geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from ..io.atomic import atomic_file
from .cmu17 import SPLITS, _merge_planes, _split_planes

__all__ = ["PERFORMERS", "CMUBody", "load_cmu_body"]

PERFORMERS = ("01", "02", "03")
"""CMU's subjects; `CMUBody.performer` is a row of these."""

_RADIAN = 1 / 4096
_METER = 2e-4
_STORED = 22  # The hands are at rest.
_TURN = 2 * np.pi
_LONGEST = 7.9  # Radians that 16 bits hold.


@dataclass(frozen=True)
class CMUBody:
    """One split of CMU17 as body pose, row by row the frames of `load_cmu17(split)`.

    `SkeletonBody()(theta, shape, translation)` lands on `load_cmu17(split).world`.

    Attributes:
        split: Name of the split.
        theta: Local rotations `(N, 24, 3, 3)` in SMPL's convention; the root's is in CMU17's world
            axes, z up.
        translation: `(N, 3)` in meters, z up.
        shape: Shape of the frame's performer for `SkeletonBody`, `(N, 10)`, standardized.
        performer: The frame's performer `(N,)`, a row of `PERFORMERS`.

    Example:
        >>> from propose_prob.bodies import SkeletonBody
        >>> data = load_cmu_body("val")
        >>> posed = SkeletonBody()(data.theta[:3], data.shape[:3], data.translation[:3])
        >>> posed.joints.shape
        torch.Size([3, 24, 3])
    """

    split: str
    theta: Tensor
    translation: Tensor
    shape: Tensor
    performer: Tensor

    def __len__(self) -> int:
        return len(self.theta)


def load_cmu_body(split: str) -> CMUBody:
    """Loads a split that ships with the package.

    Rotations are stored to 0.014 degrees about each axis, translations to 0.1 mm.

    Args:
        split: One of `propose_prob.datasets.cmu17.SPLITS`.

    Returns:
        The split, in float32.

    Raises:
        InputError: If there is no such split, or its file is not the one that was shipped.

    Example:
        >>> load_cmu_body("val").theta.shape
        torch.Size([4072, 24, 3, 3])
    """
    if split not in SPLITS:
        raise InputError(f"expected a CMU17 split of {', '.join(SPLITS)}, got {split!r}")
    with np.load(shipped_file(f"datasets/cmu_body_{split}.npz"), allow_pickle=False) as stored:
        performer = stored["performer"].astype(np.int64)
        values = _unpack(stored["theta"], len(performer)) * _RADIAN
        translation = _unpack(stored["translation"], len(performer)) * _METER
        shape = stored["shape"][performer]
    theta = torch.eye(3, dtype=torch.float64).repeat(len(performer), 24, 1, 1)
    axis_angle = torch.from_numpy(values.reshape(-1, _STORED, 3))
    theta[:, :_STORED] = matrix_from_axis_angle(axis_angle)
    return CMUBody(
        split=split,
        theta=theta.float(),
        translation=torch.from_numpy(translation).float(),
        shape=torch.from_numpy(shape),
        performer=torch.from_numpy(performer),
    )


def pack_cmu_body(
    path: Path, theta: Tensor, translation: Tensor, shape: Tensor, performer: Tensor
) -> None:
    """Writes a split: int16 steps of 1/4096 rad and 0.2 mm, differences along time, deflated.

    Args:
        path: The file to write, `.npz`.
        theta: Local rotations `(N, 24, 3, 3)`; those of the hands are not stored.
        translation: `(N, 3)`, meters.
        shape: Shape of each performer `(P, S)`.
        performer: Row of `shape` for each frame `(N,)`.
    """
    axis_angle = _unwind(axis_angle_from_matrix(theta[:, :_STORED].double()).numpy())
    arrays = {
        "theta": _pack(axis_angle.reshape(len(axis_angle), -1), _RADIAN),
        "translation": _pack(translation.numpy(), _METER),
        "shape": shape.numpy().astype(np.float32),
        "performer": performer.numpy().astype(np.int8),
    }
    with atomic_file(path) as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _unwind(axis_angle: np.ndarray) -> np.ndarray:
    """Chooses, of the vectors that mean the same rotation, the one nearest the frame before's.

    Half a turn would otherwise jump from one end of its axis to the other.
    """
    angle = np.linalg.norm(axis_angle, axis=-1, keepdims=True)
    axis = axis_angle / np.maximum(angle, 1e-12)
    result = axis_angle.copy()
    for frame in range(1, len(result)):
        along = (result[frame - 1] * axis[frame]).sum(-1, keepdims=True)
        turns = np.rint((along - angle[frame]) / _TURN)
        length = angle[frame] + _TURN * turns
        result[frame] = axis[frame] * np.where(np.abs(length) < _LONGEST, length, angle[frame])
    return result


def _pack(values: np.ndarray, step: float) -> np.ndarray:
    """Quantizes `(N, C)` and codes the differences along time channel by channel."""
    whole = np.rint(values.T / step)
    if np.abs(whole).max() > np.iinfo(np.int16).max:
        raise InputError(f"a value of {np.abs(values).max():.3g} does not fit 16 bits of {step:g}")
    # Differences wrap around in 16 bits, and so does their sum.
    return _split_planes(np.diff(whole.astype(np.int16), axis=1, prepend=np.int16(0)))


def _unpack(planes: np.ndarray, count: int) -> np.ndarray:
    steps = _merge_planes(planes).reshape(-1, count)
    return np.cumsum(steps, axis=1).astype(np.int16).T.astype(np.float64)
