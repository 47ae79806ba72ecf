"""Evaluation batches and clips, as every data set reader yields them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.skeletons import Skeleton

__all__ = ["EvaluationBatch", "PoseClip", "evaluation_batches", "fit_pinhole"]


@dataclass(frozen=True, eq=False)
class EvaluationBatch:
    """2D evidence and true poses of `B` items, in a data set's own joint set.

    Attributes:
        p2d: Keypoints `(B, J, 2)`, pixels, y down; NaN where missing.
        confidence: `(B, J)` in 0..1, 0 where missing.
        p3d: True joints `(B, J, 3)`, meters, camera axes (x right, y down, z forward), absolute or
            relative to the root; NaN where the data set has none.
        focal: Focal length of each item `(B,)`, pixels; None where unknown.
        center: Principal point `(B, 2)`, pixels; None where unknown.
        action: Action label of each item, `B` strings.
        sequence: Sequence (and camera) of each item, `B` strings: frames of equal label follow one
            another in time.
        frame: Frame number within the sequence `(B,)`, integers.
        valid: Items to count `(B,)` booleans.

    Raises:
        InputError: If a field's shape or length does not fit the others.

    Example:
        >>> import torch
        >>> batch = EvaluationBatch(
        ...     p2d=torch.zeros(2, 17, 2), confidence=torch.ones(2, 17), p3d=torch.zeros(2, 17, 3),
        ...     focal=None, center=None, action=["walk"] * 2, sequence=["S9 walk cam0"] * 2,
        ...     frame=torch.arange(2), valid=torch.ones(2, dtype=torch.bool),
        ... )
        >>> len(batch), len(batch.select(torch.tensor([True, False])))
        (2, 1)
    """

    p2d: Tensor
    confidence: Tensor
    p3d: Tensor
    focal: Tensor | None
    center: Tensor | None
    action: list[str]
    sequence: list[str]
    frame: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        if self.p2d.ndim != 3 or self.p2d.shape[-1] != 2:
            raise InputError(f"expected p2d of shape (B, J, 2), got {tuple(self.p2d.shape)}")
        items, joints = self.p2d.shape[:2]
        shapes = {
            "confidence": (items, joints),
            "p3d": (items, joints, 3),
            "focal": (items,),
            "center": (items, 2),
            "frame": (items,),
            "valid": (items,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise InputError(f"expected {name} of shape {shape}, got {tuple(value.shape)}")
        for name in ("action", "sequence"):
            if len(getattr(self, name)) != items:
                raise InputError(
                    f"expected {items} labels in {name}, got {len(getattr(self, name))}"
                )

    def __len__(self) -> int:
        return len(self.p2d)

    def select(self, items: Tensor) -> EvaluationBatch:
        """Some of the items.

        Args:
            items: Booleans `(B,)` or indices.
        """
        index = items.nonzero()[:, 0] if items.dtype == torch.bool else items
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                chosen[field.name] = value[index.to(value.device)]
            elif value is not None:
                chosen[field.name] = [value[i] for i in index.tolist()]
        return replace(self, **chosen)

    def to(self, device: torch.device | str) -> EvaluationBatch:
        """The same batch, its tensors on another device."""
        moved: dict[str, Any] = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class PoseClip:
    """One person in one camera's recording: `N` frames of `J` joints, in order of time.

    Attributes:
        sequence: Name of the recording, the person and the camera included.
        subject: Who is seen, by the data set's name.
        skeleton: The joint set of all arrays.
        actions: Action label of each frame, `N` strings.
        p2d: Keypoints `(N, J, 2)`, float32, pixels, y down; NaN where missing.
        confidence: `(N, J)`, float32, 0 to 1; 0 where missing.
        p3d: Joints `(N, J, 3)`, float32, meters, camera axes (x right, y down, z forward), where
            they stand in front of the camera; NaN where the data set has none.
        focal: Focal length in pixels.
        center: Principal point in pixels.
        image_size: Width and height in pixels; None where the files do not tell.
        frame: Frame number in the recording `(N,)`, int64.
        valid: Frames that the data set counts `(N,)`, booleans.

    Raises:
        InputError: If an array's shape does not fit the others, or a coordinate, the focal length
            or the principal point is beyond float32.
    """

    sequence: str
    subject: str
    skeleton: Skeleton
    actions: tuple[str, ...]
    p2d: Tensor
    confidence: Tensor
    p3d: Tensor
    focal: float
    center: tuple[float, float]
    image_size: tuple[int, int] | None
    frame: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        frames, joints = len(self.actions), self.skeleton.num_joints
        shapes = {
            "p2d": (frames, joints, 2),
            "confidence": (frames, joints),
            "p3d": (frames, joints, 3),
            "frame": (frames,),
            "valid": (frames,),
        }
        for name, shape in shapes.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise InputError(f"{self.sequence}: expected {name} of shape {shape}, got {got}")
        for name in ("p2d", "p3d"):
            beyond = getattr(self, name).isinf().flatten(1).any(1)
            if bool(beyond.any()):
                raise InputError(
                    f"{self.sequence}: expected {name} within float32, frame "
                    f"{int(beyond.nonzero()[0])} (axis 0) has larger numbers"
                )
        largest = float(np.finfo(np.float32).max)
        if not (0 < self.focal <= largest and all(abs(c) <= largest for c in self.center)):
            raise InputError(
                f"{self.sequence}: expected a focal length > 0 and a principal point within "
                f"float32, got {self.focal:g} and {self.center}"
            )

    def __len__(self) -> int:
        return len(self.actions)

    def relative(self) -> Tensor:
        """Joints relative to the skeleton's root, `(N, J, 3)` meters."""
        root = self.skeleton.root
        return self.p3d - self.p3d[:, root : root + 1]


def evaluation_batches(
    clips: Iterable[PoseClip], *, batch_size: int = 4096
) -> Iterator[EvaluationBatch]:
    """Give the frames of clips, one batch never holding more than one clip.

    Args:
        clips: Clips as a reader yields them; only one is held at a time.
        batch_size: Most frames in a batch.

    Yields:
        The frames in their order, those that do not count (`valid` false) included. `p3d` is not
        relative to the root.

    Raises:
        InputError: If `batch_size` is not positive.
    """
    if batch_size < 1:
        raise InputError(f"expected a positive batch_size, got {batch_size}")
    for clip in clips:
        for start in range(0, len(clip), batch_size):
            part = slice(start, start + batch_size)
            count = len(clip.actions[part])
            yield EvaluationBatch(
                p2d=clip.p2d[part],
                confidence=clip.confidence[part],
                p3d=clip.p3d[part],
                focal=clip.p2d.new_full((count,), clip.focal),
                center=clip.p2d.new_tensor(clip.center).expand(count, 2),
                action=list(clip.actions[part]),
                sequence=[clip.sequence] * count,
                frame=clip.frame[part],
                valid=clip.valid[part],
            )


def fit_pinhole(
    p3d: npt.NDArray[np.floating], p2d: npt.NDArray[np.floating]
) -> tuple[float, tuple[float, float]]:
    """Find the camera with which 3D joints project onto 2D joints.

    Solves `u z = f x + c_x z` and `v z = f y + c_y z` for one focal length and the principal point
    by linear least squares; where a file has both kinds of joints but no camera, its own numbers
    tell the camera. Joints with a number that is not finite are left out.

    Args:
        p3d: Joints `(..., 3)` in camera axes, any unit.
        p2d: The same joints in the image `(..., 2)`, pixels.

    Returns:
        Focal length and principal point, pixels; NaN where the joints do not determine them.

    Example:
        >>> points = np.array([[0.0, 0, 2], [1, 0, 2], [0, 1, 4]])
        >>> pixels = 1000 * points[:, :2] / points[:, 2:] + np.array([512, 384])
        >>> focal, center = fit_pinhole(points, pixels)
        >>> round(focal), round(center[0]), round(center[1])
        (1000, 512, 384)
    """
    points = np.asarray(p3d, np.float64).reshape(-1, 3)
    pixels = np.asarray(p2d, np.float64).reshape(-1, 2)
    usable = np.isfinite(points).all(-1) & np.isfinite(pixels).all(-1) & (points[:, 2] != 0)
    slopes, pixels = points[usable, :2] / points[usable, 2:], pixels[usable]
    # With slopes x/z the three unknowns part: the focal length is one slope of regression.
    if not len(slopes):
        return float("nan"), (float("nan"), float("nan"))
    slope_mean, pixel_mean = slopes.mean(axis=0), pixels.mean(axis=0)
    spread = ((slopes - slope_mean) ** 2).sum()
    if spread < 1e-12:
        return float("nan"), (float("nan"), float("nan"))
    focal = ((slopes - slope_mean) * (pixels - pixel_mean)).sum() / spread
    center = pixel_mean - focal * slope_mean
    return float(focal), (float(center[0]), float(center[1]))
