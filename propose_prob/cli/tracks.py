"""Keypoint tracks of one person for `smooth` and `fuse`."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, short
from ..io.atomic import check_outputs

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Track", "check_intrinsics", "check_output_name", "frames_word", "read_track"]

#: Frame numbers may be this many times as many as frames, before that looks like a mistake.
_SPARSE = 20
#: Beyond that a number names a frame and counts none; floating-point numbers tell no two apart.
_LARGEST = 2**53


@dataclass(frozen=True, eq=False)
class Track:
    """One person in N frames, in the models' joint set.

    Attributes:
        numbers: Frame numbers, increasing.
        names: The frames' names.
        p2d: `(N, J, 2)`; NaN where not seen.
        confidence: `(N, J)`; 0 where not seen.
        dropped: Frames of which too little was seen.
    """

    numbers: tuple[int, ...]
    names: tuple[str, ...]
    p2d: Tensor
    confidence: Tensor
    dropped: int


def read_track(
    path: Path,
    *,
    person: str | None,
    skeleton: str | None,
    image_size: tuple[int, int] | None,
    min_joints: int,
    min_confidence: float,
    by_order: bool,
) -> Track:
    """Read the frames of one person.

    Args:
        path: File or folder.
        person: Label of the person; None for the one in most frames.
        skeleton: As of `read_keypoints`.
        image_size: As of `read_keypoints`.
        min_joints: Frames with fewer visible joints are dropped.
        min_confidence: Joints with a lower confidence count as not seen.
        by_order: Whether frames are numbered in their order instead of by their names.

    Raises:
        InputError: If the file is not readable, has no such person or no usable frame, or its frame
            numbers do not increase.
    """
    import torch

    from ..geometry.normalization import visible_joints
    from ..geometry.skeletons import H36M_17, convert_skeleton
    from ..io.keypoints import read_keypoints

    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder")
    if not 0 <= min_confidence <= 1:
        raise InputError(f"expected --min-confidence of 0 to 1, got {min_confidence}")
    frames = list(read_keypoints(path, skeleton=skeleton, image_size=image_size))
    labels = Counter(str(label) for frame in frames for label in set(frame.person_ids))
    if person is None:
        person = labels.most_common(1)[0][0]
    elif person not in labels:
        raise InputError(
            f"{path}: expected a person {person!r}, got only {', '.join(sorted(labels)[:10])}"
        )
    numbers: list[int] = []
    names: list[str] = []
    poses, weights = [], []
    dropped = 0
    for order, frame in enumerate(frames):
        rows = [row for row, label in enumerate(frame.person_ids) if str(label) == person]
        if not rows:
            continue
        points, confidence = convert_skeleton(
            frame.p2d[rows[0]], frame.skeleton, H36M_17, confidence=frame.confidence[rows[0]]
        )
        confidence = torch.where(confidence < min_confidence, 0, confidence)
        visible = visible_joints(points, confidence)
        seen = points[visible]
        if len(seen) < min_joints or float((seen.amax(0) - seen.amin(0)).max()) <= 0:
            dropped += 1
            continue
        numbers.append(order if by_order else _number(frame.frame, path))
        names.append(str(frame.frame))
        poses.append(torch.where(visible[:, None], points, torch.nan))
        weights.append(torch.where(visible, confidence, 0))
    if not poses:
        raise InputError(
            f"{path}: expected frames with at least {min_joints} visible joints (--min-joints), "
            "got none"
        )
    if any(b <= a for a, b in itertools.pairwise(numbers)):
        raise InputError(f"{path}: frame numbers do not increase; number them with --by-order")
    span = numbers[-1] - numbers[0] + 1
    if span > _SPARSE * len(numbers) + 100:
        raise InputError(
            f"{path}: {len(numbers)} frames are numbered {numbers[0]} to {numbers[-1]}; if these "
            "are no frame numbers, use --by-order"
        )
    return Track(tuple(numbers), tuple(names), torch.stack(poses), torch.stack(weights), dropped)


def check_intrinsics(focal: float | None, center: tuple[float, float] | None) -> None:
    """Raise `InputError` where only one of both is given, or the focal length is not positive."""
    if (focal is None) != (center is None):
        raise InputError("expected --focal and --center together, got only one of them")
    if focal is not None and not 0 < focal < float("inf"):
        raise InputError(f"expected a focal length > 0, got {focal}")


def check_output_name(
    out: Path, inputs: tuple[Path | str | None, ...], endings: tuple[str, ...] = (".nc", ".npz")
) -> None:
    """Raise `InputError` where the output has a wrong name or would replace an input."""
    if out.suffix not in endings:
        raise InputError(f"{out}: expected an output name that ends in {' or '.join(endings)}")
    check_outputs([out], inputs)


def frames_word(count: int) -> str:
    """`"frame"` or `"frames"`."""
    return "frame" if count == 1 else "frames"


def _number(name: int | str, path: Path) -> int:
    if isinstance(name, int):
        number = name
    else:
        digits = re.findall(r"\d+", Path(name).stem if "." in name else name)
        if not digits:
            raise InputError(f"{path}: frame {name!r} has no number in its name; use --by-order")
        number = int(digits[-1])
    if abs(number) > _LARGEST:
        shown = short(str(number))
        raise InputError(f"{path}: expected a number of a frame, got {shown}; use --by-order")
    return number
