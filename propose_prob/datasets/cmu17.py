"""CMU17: real motion capture in the 17-joint Human3.6M layout, seen by fixed simulated cameras.

The data used in this project was obtained from mocap.cs.cmu.edu. The database was created with
funding from NSF EIA-0196217.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._shipped import shipped_file
from ..errors import InputError

SPLITS = ("train", "val", "test_seen", "test_subject03")

#: Focal length of every camera, in units of half the image width (1145 px of 500 px).
FOCAL = 1145 / 500

_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
_METER = 1e-4
_PIXEL = 0.25


@dataclass(frozen=True)
class CMU17:
    """One split of CMU17: `N` frames, each seen by the 4 cameras of its rig.

    Attributes:
        split: Name of the split.
        world: Joint positions `(N, 17, 3)` in meters, z up.
        cam_R: World-to-camera rotations `(C, 4, 3, 3)`; camera axes x right, y down, z forward.
        cam_t: Translations `(C, 4, 3)` in meters: `X_cam = R @ X_world + t`.
        rig_id: Rig of each frame `(N,)`; a change is also a sequence boundary.
        seq_id: Sequence of each frame `(N,)`, an index into `actions`.
        source_frame: Frame number `(N,)` in the 120 Hz source.
        noise: Detector-like error of the 2D joints `(N, 4, 17, 2)` in half image widths, or None
            for the training split, whose noise is simulated anew in each batch.
        actions: Action label of each sequence.

    Example:
        >>> data = load_cmu17("val")
        >>> data.world.shape, data.p2d("noisy").shape, data.actions[int(data.seq_id[0])]
        (torch.Size([...]), torch.Size([...]), '...')
    """

    split: str
    world: Tensor
    cam_R: Tensor  # the name of the array in the data set
    cam_t: Tensor
    rig_id: Tensor
    seq_id: Tensor
    source_frame: Tensor
    noise: Tensor | None
    actions: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.world)

    def camera_joints(self) -> Tensor:
        """Joints in camera axes, `(N, 4, 17, 3)` in meters."""
        rotated = torch.einsum("nvij,nkj->nvki", self.cam_R[self.rig_id], self.world)
        return rotated + self.cam_t[self.rig_id][:, :, None]

    def p3d(self) -> Tensor:
        """Root-relative joints in camera axes, `(N, 4, 17, 3)` in meters."""
        joints = self.camera_joints()
        return joints - joints[..., :1, :]

    def p2d(self, kind: str = "exact") -> Tensor:
        """2D joints `(N, 4, 17, 2)` on the normalized screen (half image widths, y down).

        Args:
            kind: `"exact"` projections or `"noisy"` detector-like ones.

        Raises:
            InputError: If `kind` is neither, or the split ships no noise.
        """
        joints = self.camera_joints()
        exact = joints[..., :2] / joints[..., 2:] * FOCAL
        if kind == "exact":
            return exact
        if kind != "noisy":
            raise InputError(f"expected 2D kind 'exact' or 'noisy', got {kind!r}")
        if self.noise is None:
            raise InputError(f"split {self.split!r} ships no detector noise; use 'exact'")
        return exact + self.noise

    def action_of_frames(self) -> list[str]:
        """Action label of each frame, `N` strings."""
        return [self.actions[i] for i in self.seq_id.tolist()]


def load_cmu17(split: str) -> CMU17:
    """Loads a split that ships with the package.

    Positions are stored to 0.1 mm, the 2D noise to 0.25 px of a 1000 px image.

    Args:
        split: One of `SPLITS`.

    Returns:
        The split, in float32.

    Raises:
        InputError: If there is no such split, or its file is not the one that was shipped.

    Example:
        >>> load_cmu17("val").p3d().shape
        torch.Size([4072, 4, 17, 3])
    """
    if split not in SPLITS:
        raise InputError(f"expected a CMU17 split of {', '.join(SPLITS)}, got {split!r}")
    with np.load(shipped_file(f"datasets/cmu17_{split}.npz"), allow_pickle=False) as stored:
        offsets = _merge_planes(stored["offsets"]).astype(np.float64) * _METER
        world = offsets.reshape(17, 3, -1).transpose(2, 0, 1).copy()
        for joint, parent in enumerate(_PARENTS):
            if parent >= 0:
                world[:, joint] += world[:, parent]
        noise = None
        if "noise" in stored:
            values = _merge_planes(stored["noise"]).astype(np.float32) * (_PIXEL / 500)
            noise = torch.from_numpy(values.reshape(len(world), 4, 17, 2))
        return CMU17(
            split=split,
            world=torch.from_numpy(world.astype(np.float32)),
            cam_R=torch.from_numpy(stored["cam_R"]),
            cam_t=torch.from_numpy(stored["cam_t"]),
            rig_id=torch.from_numpy(stored["rig_id"].astype(np.int64)),
            seq_id=torch.from_numpy(stored["seq_id"].astype(np.int64)),
            source_frame=torch.from_numpy(stored["source_frame"].astype(np.int64)),
            noise=noise,
            actions=tuple(stored["actions"].tolist()),
        )


def _split_planes(values: np.ndarray) -> np.ndarray:
    """Zigzag-codes int16 and parts high from low bytes, which halves the deflated size."""
    wide = values.astype(np.int32)
    coded = ((wide << 1) ^ (wide >> 31)).astype("<u2").reshape(-1)
    return np.ascontiguousarray(coded.view(np.uint8).reshape(-1, 2).T)


def _merge_planes(planes: np.ndarray) -> np.ndarray:
    coded = planes[0].astype(np.int32) | (planes[1].astype(np.int32) << 8)
    return (coded >> 1) ^ -(coded & 1)
