"""BVH (Biovision hierarchy) files, in and out."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, short
from .atomic import write_text
from .motion import Motion, check_extent, euler_from_matrix, matrix_from_euler, numbers, read_lines

__all__ = ["read_bvh", "write_bvh"]

_AXES = "XYZ"
_CENTIMETERS = 100.0
_ORDER = "ZXY"


@dataclass
class _Joint:
    name: str
    parent: int
    line: int
    offset: list[float] | None = None
    end: list[float] | None = None
    channels: list[tuple[str, str]] | None = None
    """Axis and kind, `"position"` or `"rotation"`, in the file's order."""


@dataclass
class _Words:
    """The words of the file's hierarchy, each with the number of its line."""

    path: Path
    words: list[tuple[str, int]]
    place: int = 0
    last: int = field(default=1)

    def next(self) -> str:
        if self.place == len(self.words):
            raise InputError(f"{self.path}:{self.last}: the hierarchy ends in the middle")
        word, self.last = self.words[self.place]
        self.place += 1
        return word

    def name(self) -> str:
        parts = []
        while (word := self.next()) != "{":
            parts.append(word)
        return " ".join(parts)

    def expect(self, wanted: str) -> None:
        word = self.next()
        if word.upper() != wanted:
            raise self.error(f"expected {wanted!r}, got {word!r}")

    def vector(self, what: str) -> list[float]:
        words = [self.next() for _ in range(3)]
        return numbers(words, 3, f"{self.path}:{self.last}", what)

    def error(self, message: str) -> InputError:
        return InputError(f"{self.path}:{self.last}: {short(message)}")


def read_bvh(path: str | Path, *, meters_per_unit: float = 0.01) -> Motion:
    """Read a BVH file.

    Channels may come in any order and number. Position channels take the place of a joint's OFFSET,
    on any joint, as Blender and MotionBuilder read them; axes without a channel keep theirs. The
    format is described in M. Meredith and S. Maddock, "Motion Capture File Formats Explained",
    University of Sheffield, 2001, section 4.

    Args:
        path: The file.
        meters_per_unit: The file does not say its unit; centimeters by default. The CMU
            conversions by B. Hahne are in 0.0254 / 0.45 meters.

    Returns:
        The motion. A frame rate that six decimals of `Frame Time` cut off is restored to the whole
        number. Axes are the file's own, y up as a rule.

    Raises:
        InputError: If the file is missing or breaks the format: the message has the line.

    Example:
        >>> import tempfile
        >>> from propose_prob.datasets import load_cmu_body
        >>> from propose_prob.bodies import write_body_bvh
        >>> theta = load_cmu_body("val").theta[:3]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_body_bvh(f"{folder}/walk.bvh", theta, axes="z_up", frame_rate=60.0)[0]
        ...     motion = read_bvh(path)
        >>> motion.rotations.shape[0], motion.frame_rate
        (3, 60.0)
    """
    path = Path(path)
    lines = read_lines(path)
    start = next((i for i, line in enumerate(lines) if line.strip().upper() == "MOTION"), None)
    if start is None:
        raise InputError(f"{path}:{max(len(lines), 1)}: expected a line MOTION, found none")
    numbered = enumerate(lines[:start], start=1)
    words = [(word, number) for number, line in numbered for word in line.split()]
    joints = _hierarchy(_Words(path, words))
    count = sum(len(joint.channels or []) for joint in joints)
    frame_time, values = _frames(path, lines, start, count)
    check_extent(path, len(values), len(joints))
    return _motion(joints, values, frame_time, meters_per_unit)


def _hierarchy(words: _Words) -> list[_Joint]:
    words.expect("HIERARCHY")
    words.expect("ROOT")
    joints = [_Joint(words.name(), -1, words.last)]
    current = 0
    while current >= 0:
        joint, word = joints[current], words.next()
        match word.upper():
            case "OFFSET":
                joint.offset = words.vector(f"the OFFSET of {short(joint.name)}")
            case "CHANNELS":
                joint.channels = _channels(words, joint.name)
            case "JOINT":
                joints.append(_Joint(words.name(), current, words.last))
                current = len(joints) - 1
            case "END":
                words.expect("SITE")
                words.expect("{")
                words.expect("OFFSET")
                joint.end = words.vector(f"the End Site of {short(joint.name)}")
                words.expect("}")
            case "}":
                for name, value in (("OFFSET", joint.offset), ("CHANNELS", joint.channels)):
                    if value is None:
                        raise words.error(f"joint {joint.name} has no {name}")
                current = joint.parent
            case _:
                raise words.error(f"unknown word {word!r} in joint {joint.name}")
    if words.place < len(words.words):
        found = words.next()
        raise words.error(f"expected MOTION after the one ROOT, got {found!r}")
    counts = Counter(joint.name for joint in joints)
    for joint in joints:
        if not joint.name or counts[joint.name] > 1:
            raise InputError(
                f"{words.path}:{joint.line}: expected joints of different names, "
                f"got {short(repr(joint.name))} {counts[joint.name]} times"
            )
    return joints


def _channels(words: _Words, name: str) -> list[tuple[str, str]]:
    count = words.next()
    if count not in map(str, range(7)):
        raise words.error(f"expected the number of channels of {name}, 0 to 6, got {count!r}")
    channels: list[tuple[str, str]] = []
    for _ in range(int(count)):
        word = words.next()
        axis, kind = word[:1].upper(), word[1:].lower()
        if axis not in _AXES or kind not in ("position", "rotation") or (axis, kind) in channels:
            raise words.error(f"expected {count} different channels of {name}, got {word!r}")
        channels.append((axis, kind))
    return channels


def _frames(path: Path, lines: list[str], start: int, count: int) -> tuple[float, Tensor]:
    """Read what follows MOTION: frame time and values `(T, count)`."""
    rows = [(i, line) for i, line in enumerate(lines[start + 1 :], start + 2) if line.strip()]
    header = []
    for place, key in enumerate(("Frames:", "Frame Time:")):
        number, line = rows[place] if place < len(rows) else (len(lines), "")
        words = line.split()
        if " ".join(words[:-1]).lower() != key.lower():
            raise InputError(
                f"{path}:{number}: expected '{key}' and a number, got {short(repr(line))}"
            )
        header += numbers(words[-1:], 1, f"{path}:{number}", key.rstrip(":"))
    frames, frame_time = header
    if frame_time <= 0:
        raise InputError(f"{path}:{rows[1][0]}: expected a frame time above 0, got {frame_time}")
    body = rows[2:]
    if len(body) != frames or not body:
        raise InputError(
            f"{path}:{len(lines)}: expected {frames:g} frames and at least 1, got {len(body)}"
        )
    values = [numbers(line.split(), count, f"{path}:{i}", "the channels") for i, line in body]
    return frame_time, torch.tensor(values, dtype=torch.float64)


def _motion(joints: list[_Joint], values: Tensor, frame_time: float, unit: float) -> Motion:
    none = [math.nan] * 3
    offsets = unit * torch.tensor([j.offset for j in joints], dtype=torch.float64)
    ends = unit * torch.tensor([j.end or none for j in joints], dtype=torch.float64)
    places = offsets.repeat(len(values), 1, 1)
    rotations, column, moving = [], 0, False
    for bone, joint in enumerate(joints):
        order, angles = "", []
        for axis, kind in joint.channels or []:
            value = values[:, column]
            column += 1
            if kind == "rotation":
                order += axis
                angles.append(value.deg2rad())
            else:
                places[:, bone, _AXES.index(axis)] = unit * value
                moving = moving or bone > 0
        stacked = torch.stack(angles, dim=-1) if angles else values.new_zeros(len(values), 0)
        rotations.append(matrix_from_euler(stacked, order))
    rate = 1 / frame_time
    whole = round(rate)
    return Motion(
        bone_names=tuple(joint.name for joint in joints),
        parents=tuple(joint.parent for joint in joints),
        offsets=offsets,
        ends=ends,
        rest_rotations=torch.eye(3, dtype=torch.float64).repeat(len(joints), 1, 1),
        rotations=torch.stack(rotations, dim=1),
        translation=places[:, 0],
        frame_rate=float(whole) if whole and abs(rate / whole - 1) < 1e-4 else rate,
        moving_offsets=places if moving else None,
    )


def write_bvh(path: str | Path, motion: Motion) -> None:
    """Write a BVH file: centimeters, angles in degrees, rotation channels Z, X, Y.

    In Blender, `File > Import > Motion Capture (.bvh)` with scale 0.01 brings it in at life size,
    upright if the motion's y axis points up. Six decimals: a round trip keeps positions to 0.001 mm
    and angles to 0.0001 degrees.

    Args:
        path: The file to write.
        motion: Meters. A leaf without an end gets one of zero length, since BVH has no others.

    Raises:
        InputError: If a number is not finite, or a name is empty or has a brace or a line break.

    Example:
        >>> import tempfile
        >>> from propose_prob.datasets import load_cmu_body
        >>> from propose_prob.bodies import write_body_bvh
        >>> theta = load_cmu_body("val").theta[:3]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_body_bvh(f"{folder}/a.bvh", theta, axes="z_up")[0]
        ...     motion = read_bvh(path)
        ...     write_bvh(f"{folder}/b.bvh", motion)
        ...     read_bvh(f"{folder}/b.bvh").rotations.shape == motion.rotations.shape
        True
    """
    _check(motion)
    children: list[list[int]] = [[] for _ in motion.parents]
    for bone, parent in enumerate(motion.parents[1:], start=1):
        children[parent].append(bone)
    order: list[int] = []
    lines = ["HIERARCHY"]
    # Bones still to write, each behind the line that closes its parent; a chain may be longer than
    # Python nests calls.
    left: list[tuple[int, str] | str] = [(0, "")]
    while left:
        entry = left.pop()
        if isinstance(entry, str):
            lines.append(entry)
            continue
        bone, indent = entry
        order.append(bone)
        lines += _joint_lines(motion, bone, not children[bone], indent)
        left.append(f"{indent}}}")
        left += [(child, indent + "\t") for child in reversed(children[bone])]
    angles = euler_from_matrix(motion.rotations, _ORDER)
    # Angles that jump by whole turns would spin a joint between two keys.
    turn = 2 * math.pi
    jumps = (angles.diff(dim=0) / turn).round().cumsum(dim=0) * turn
    angles = torch.cat([angles[:1], angles[1:] - jumps]).rad2deg()
    columns = []
    for bone in order:
        if bone == 0:
            columns.append(_CENTIMETERS * motion.translation)
        elif motion.moving_offsets is not None:
            columns.append(_CENTIMETERS * motion.moving_offsets[:, bone])
        columns.append(angles[:, bone])
    lines += ["MOTION", f"Frames: {len(motion)}", f"Frame Time: {1 / motion.frame_rate:.10f}"]
    for row in torch.cat(columns, dim=1).tolist():
        lines.append(" ".join(f"{value:.6f}" for value in row))
    write_text(Path(path), "\n".join(lines) + "\n")


def _check(motion: Motion) -> None:
    tensors = {
        "offsets": motion.offsets[1:],
        "rotations": motion.rotations,
        "translation": motion.translation,
        "moving_offsets": motion.moving_offsets,
    }
    for name, value in tensors.items():
        if value is not None and not bool(value.isfinite().all()):
            raise InputError(f"expected finite {name} to write, got NaN or infinity")
    if not len(motion):
        raise InputError("expected at least one frame to write, got none")
    for name in motion.bone_names:
        if not name.strip() or any(mark in name for mark in "{}\r\n"):
            raise InputError(f"expected bone names without braces and line breaks, got {name!r}")


def _joint_lines(motion: Motion, bone: int, is_leaf: bool, indent: str) -> list[str]:
    """The lines of a joint up to its children."""

    def offset(value: Tensor) -> str:
        return "OFFSET " + " ".join(f"{v:.6f}" for v in (_CENTIMETERS * value).tolist())

    inner = indent + "\t"
    rest = torch.zeros(3) if bone == 0 else motion.offsets[bone]
    rotation = " ".join(f"{axis}rotation" for axis in _ORDER)
    moves = bone == 0 or motion.moving_offsets is not None
    channels = f"6 Xposition Yposition Zposition {rotation}" if moves else f"3 {rotation}"
    lines = [
        f"{indent}{'JOINT' if bone else 'ROOT'} {motion.bone_names[bone]}",
        f"{indent}{{",
        inner + offset(rest),
        f"{inner}CHANNELS {channels}",
    ]
    if is_leaf:
        end = motion.ends[bone].nan_to_num()
        lines += [f"{inner}End Site", f"{inner}{{", f"{inner}\t{offset(end)}", f"{inner}}}"]
    return lines
