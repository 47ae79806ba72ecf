"""What a data set's reader yields: clips for training, and their frames as evaluation batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..errors import InputError
from ..pose.skeleton import Skeleton
from .evaluation_batch import EvaluationBatch

__all__ = ["PoseClip", "evaluation_batches", "fit_pinhole"]


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
        p3d: Joints `(N, J, 3)`, float32, metres, camera axes (x right, y down, z forward), where
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
        """Joints relative to the skeleton's root, `(N, J, 3)` metres."""
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
        ValueError: If `batch_size` is not positive.
    """
    if batch_size < 1:
        raise ValueError(f"expected a positive batch_size, got {batch_size}")
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
