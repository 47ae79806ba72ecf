"""Motion of a jointed figure, as BVH and ASF/AMC files hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, short
from .archives import most_unpacked
from .files import read_text

__all__ = ["Motion", "euler_from_matrix", "matrix_from_euler"]

#: More than any figure has, crowds included.
_BONES = 4096


@dataclass(frozen=True, eq=False)
class Motion:
    """A tree of K bones moving over T frames; meters, float64.

    A bone starts at `offsets[k]` in its parent's axes and turns about its start, and whatever hangs
    on it turns along: BVH's convention. An ASF bone, which has a length, starts where its parent
    ends.

    Attributes:
        bone_names: Names of the bones.
        parents: Index of each bone's parent, always before the bone; -1 for the root, bone 0.
        offsets: Where each bone starts in its parent's axes, `(K, 3)`; the root's is not used.
        ends: Where each bone ends in its own axes, `(K, 3)`: the tip of an ASF bone, the End Site
            of a BVH joint; NaN where a file names no end.
        rest_rotations: Each bone's own axes in the rest pose `(K, 3, 3)`, about which an ASF file
            counts its angles; identity in a BVH file.
        rotations: Local rotation of each bone away from the rest pose, `(T, K, 3, 3)`.
        translation: Position of the root `(T, 3)`.
        frame_rate: Frames a second.
        moving_offsets: `(T, K, 3)` in place of `offsets` where bones slide, or `None`.

    Raises:
        InputError: If the shapes do not fit each other.

    Example:
        >>> motion = Motion(
        ...     ("hip", "thigh"), (-1, 0), torch.zeros(2, 3), torch.full((2, 3), float("nan")),
        ...     torch.eye(3).expand(2, 3, 3), torch.eye(3).expand(9, 2, 3, 3), torch.zeros(9, 3),
        ...     30.0,
        ... )
        >>> len(motion.bone_names), motion.frame_rate
        (2, 30.0)
    """

    bone_names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: Tensor
    ends: Tensor
    rest_rotations: Tensor
    rotations: Tensor
    translation: Tensor
    frame_rate: float
    moving_offsets: Tensor | None = None

    def __post_init__(self) -> None:
        frames, bones = len(self.rotations), len(self.bone_names)
        wanted = {
            "offsets": (bones, 3),
            "ends": (bones, 3),
            "rest_rotations": (bones, 3, 3),
            "rotations": (frames, bones, 3, 3),
            "translation": (frames, 3),
        }
        if self.moving_offsets is not None:
            wanted["moving_offsets"] = (frames, bones, 3)
        for name, shape in wanted.items():
            got = tuple(getattr(self, name).shape)
            if got != shape:
                raise InputError(f"expected {name} of shape {shape}, got {got}")
        ordered = all(-1 < parent < bone for bone, parent in enumerate(self.parents) if bone)
        if len(self.parents) != bones or self.parents[:1] != (-1,) or not ordered:
            raise InputError(
                f"expected {bones} parents, -1 for bone 0 and then earlier bones, "
                f"got {self.parents}"
            )
        if not self.frame_rate > 0:
            raise InputError(f"expected a frame rate above 0, got {self.frame_rate}")

    def __len__(self) -> int:
        return len(self.rotations)

    def bone(self, name: str) -> int:
        """Return the index of the bone called `name`.

        Raises:
            InputError: If there is none; the message lists those there are.
        """
        if name not in self.bone_names:
            known = ", ".join(self.bone_names)
            raise InputError(f"there is no bone {name!r}; the bones are {known}")
        return self.bone_names.index(name)

    def world_rotations(self) -> Tensor:
        """Rotation of each bone away from the rest pose in the world, `(T, K, 3, 3)`."""
        world: list[Tensor] = []
        for bone, parent in enumerate(self.parents):
            turn = self.rotations[:, bone]
            world.append(turn if parent < 0 else world[parent] @ turn)
        return torch.stack(world, dim=1)

    def joints(self) -> Tensor:
        """Where each bone starts, `(T, K, 3)` in meters, by forward kinematics."""
        world = self.world_rotations()
        joints = [self.translation]
        for bone, parent in enumerate(self.parents[1:], start=1):
            moving = self.moving_offsets
            offset = self.offsets[bone] if moving is None else moving[:, bone]
            step = world[:, parent] @ offset.expand(len(self), 3).unsqueeze(-1)
            joints.append(joints[parent] + step.squeeze(-1))
        return torch.stack(joints, dim=1)

    def end_joints(self) -> Tensor:
        """Where each bone ends, `(T, K, 3)` in meters; NaN where the file names no end."""
        return self.joints() + (self.world_rotations() @ self.ends.unsqueeze(-1)).squeeze(-1)


def matrix_from_euler(angles: Tensor, order: str) -> Tensor:
    """Multiply rotations about coordinate axes, the first of `order` outermost.

    Args:
        angles: Radians, `(..., len(order))`.
        order: Axes such as `"ZXY"`: the result is `Rz @ Rx @ Ry`. BVH lists channels in this order;
            ASF's `axis XYZ` means the opposite one, `"ZYX"`.

    Returns:
        Rotation matrices `(..., 3, 3)`; identity for an empty `order`.
    """
    result = torch.eye(3, dtype=angles.dtype).expand(*angles.shape[:-1], 3, 3)
    for place, axis in enumerate(order):
        first, second = ("XYZ".index(axis) + 1) % 3, ("XYZ".index(axis) + 2) % 3
        cosine, sine = angles[..., place].cos(), angles[..., place].sin()
        turn = torch.eye(3, dtype=angles.dtype).repeat(*angles.shape[:-1], 1, 1)
        turn[..., first, first] = turn[..., second, second] = cosine
        turn[..., first, second], turn[..., second, first] = -sine, sine
        result = result @ turn
    return result


def euler_from_matrix(matrix: Tensor, order: str) -> Tensor:
    """Give angles about three different axes such that `matrix_from_euler` returns the matrix.

    Args:
        matrix: Rotation matrices `(..., 3, 3)`.
        order: Three different axes, such as `"ZXY"`.

    Returns:
        Radians `(..., 3)`, the middle one between -pi/2 and pi/2. Where that is a right angle, only
        the sum or difference of the others matters, and the last is 0.
    """
    i, j, k = ("XYZ".index(axis) for axis in order)
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    across = torch.hypot(matrix[..., i, i], matrix[..., i, j])
    middle = torch.atan2(sign * matrix[..., i, k], across)
    first = torch.atan2(-sign * matrix[..., j, k], matrix[..., k, k])
    last = torch.atan2(-sign * matrix[..., i, j], matrix[..., i, i])
    locked = across < 1e-7
    alone = torch.atan2(sign * matrix[..., k, j], matrix[..., j, j])
    first = torch.where(locked, alone, first)
    last = torch.where(locked, torch.zeros_like(last), last)
    return torch.stack([first, middle, last], dim=-1)


def read_lines(path: Path) -> list[str]:
    """Read a text file's lines.

    Raises:
        InputError: If the file is missing or not text.
    """
    return read_text(path, "a text file").splitlines()


def check_extent(path: Path, frames: int, bones: int) -> None:
    """Check how much memory a motion takes: bones that do not move take no room in a file.

    Raises:
        InputError: If there are more bones than any figure has, or more rotations than an honest
            file of this size holds.
    """
    if bones > _BONES:
        raise InputError(f"{path}: expected up to {_BONES} bones, got {bones}")
    if 72 * frames * bones > most_unpacked(path.stat().st_size):
        raise InputError(
            f"{path}: {frames} frames of {bones} bones, most of which do not move, would fill the "
            "memory; such a file is not read"
        )


def numbers(words: Sequence[str], count: int, where: str, what: str) -> list[float]:
    """Read `count` finite numbers.

    Raises:
        InputError: If there are more or fewer, or one is not a finite number.
    """
    if len(words) != count:
        raise InputError(f"{where}: expected {count} numbers for {what}, got {len(words)}")
    values = []
    for word in words:
        try:
            value = float(word)
        except ValueError:
            got = short(repr(word))
            raise InputError(f"{where}: expected a number for {what}, got {got}") from None
        if value - value != 0:
            got = short(repr(word))
            raise InputError(f"{where}: expected a finite number for {what}, got {got}")
        values.append(value)
    return values
