"""ASF/AMC (Acclaim) files: a skeleton and its motion."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, short
from .motion import Motion, check_extent, matrix_from_euler, numbers, read_lines

__all__ = ["read_amc"]

_INCH = 0.0254
_ROTATIONS = ("rx", "ry", "rz")
_ROOT_DOF = ("tx", "ty", "tz", *_ROTATIONS)


@dataclass
class _Bone:
    name: str
    line: int
    direction: list[float] | None = None
    length: float | None = None
    axis: tuple[list[float], str] | None = None
    dof: tuple[str, ...] = ()
    position: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])


@dataclass
class _Skeleton:
    bones: dict[str, _Bone]
    parents: dict[str, str]
    meters: float
    degrees: bool


class _Lines:
    """A file's lines without comments and empty ones; knows where it is."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 0
        self._lines = read_lines(path)
        self._back: list[str] | None = None

    def __iter__(self) -> Iterator[list[str]]:
        while (words := self.next()) is not None:
            yield words

    def next(self) -> list[str] | None:
        if self._back is not None:
            words, self._back = self._back, None
            return words
        while self.number < len(self._lines):
            words = self._lines[self.number].split("#")[0].split()
            self.number += 1
            if words:
                return words
        return None

    def put_back(self, words: list[str]) -> None:
        self._back = words

    @property
    def where(self) -> str:
        return f"{self.path}:{self.number}"

    def error(self, message: str) -> InputError:
        return InputError(f"{self.where}: {short(message)}")

    def numbers(self, words: list[str], count: int, what: str) -> list[float]:
        return numbers(words, count, self.where, what)


def read_amc(
    path: str | Path,
    asf: str | Path,
    *,
    frame_rate: float = 120.0,
    meters_per_unit: float | None = None,
) -> Motion:
    """Read a motion (AMC) of a skeleton (ASF).

    A bone's rotation is `C R C^-1`: C are the bone's own axes (`axis`), R turns about them, its
    first degree of freedom first. Limits are checked for form only, as recordings go beyond them.
    The formats are described in M. Meredith and S. Maddock, "Motion Capture File Formats
    Explained", University of Sheffield, 2001, section 6.

    Args:
        path: The AMC file, fully specified: every frame has every bone that moves.
        asf: The ASF file of the same performer.
        frame_rate: Frames a second, which the files do not say; CMU's are mostly 120.
        meters_per_unit: By default the file's `length` unit as CMU writes it: 0.45 means that a
            value divided by 0.45 is in inches.

    Returns:
        The motion; the first bone is the root, and a bone ends at `Motion.end_joints`.

    Raises:
        InputError: If a file is missing, breaks the format, or needs translating or stretching
            bones; the message has the line.

    Example:
        >>> import tempfile
        >>> asf = '''
        ... :units
        ...   length 0.45
        ...   angle deg
        ... :root
        ...   order TX TY TZ RX RY RZ
        ...   axis XYZ
        ...   position 0 0 0
        ...   orientation 0 0 0
        ... :bonedata
        ...   begin
        ...     name arm
        ...     direction 1 0 0
        ...     length 4.5
        ...     axis 0 0 0 XYZ
        ...     dof rz
        ...     limits (-180 180)
        ...   end
        ... :hierarchy
        ...   begin
        ...     root arm
        ...   end
        ... '''
        >>> amc = '''
        ... :FULLY-SPECIFIED
        ... :DEGREES
        ... 1
        ... root 0 0 0 0 0 0
        ... arm 90
        ... '''
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = Path(folder, "01.amc"), Path(folder, "01.asf")
        ...     _ = files[0].write_text(amc), files[1].write_text(asf)
        ...     motion = read_amc(*files)
        >>> motion.bone_names, motion.end_joints()[0, 1].numpy().round(3) + 0.0
        (('root', 'arm'), array([0.   , 0.254, 0.   ]))
    """
    skeleton = _read_asf(Path(asf), meters_per_unit)
    frames = _read_frames(_Lines(Path(path)), skeleton)
    names = list(skeleton.bones)
    places = {name: place for place, name in enumerate(names)}
    parents = [places[skeleton.parents[name]] if name != "root" else -1 for name in names]
    ends, rest, rotations = [], [], []
    for bone in skeleton.bones.values():
        angles, order = bone.axis or ([0.0] * 3, "xyz")
        axes = matrix_from_euler(
            _angles(torch.tensor(angles[::-1], dtype=torch.float64), skeleton.degrees),
            order[::-1].upper(),
        )
        turns = [place for place, dof in enumerate(bone.dof) if dof in _ROTATIONS][::-1]
        turn_order = "".join(bone.dof[place][1] for place in turns).upper()
        values = _angles(frames[bone.name][:, turns], skeleton.degrees)
        rest.append(axes)
        # The root's orientation is a turn of its own, not only the axes of the others.
        turned = axes @ matrix_from_euler(values, turn_order)
        rotations.append(turned if bone.name == "root" else turned @ axes.T)
        direction = torch.tensor(bone.direction or [0.0] * 3, dtype=torch.float64)
        ends.append(skeleton.meters * (bone.length or 0.0) * direction)
    root = skeleton.bones["root"]
    shift = torch.tensor(root.position, dtype=torch.float64).repeat(len(rotations[0]), 1)
    for place, dof in enumerate(root.dof):
        if dof[0] == "t":
            shift[:, "xyz".index(dof[1])] += frames["root"][:, place]
    offsets = [torch.zeros(3, dtype=torch.float64), *(ends[parent] for parent in parents[1:])]
    return Motion(
        bone_names=tuple(names),
        parents=tuple(parents),
        offsets=torch.stack(offsets),
        ends=torch.stack(ends),
        rest_rotations=torch.stack(rest),
        rotations=torch.stack(rotations, dim=1),
        translation=skeleton.meters * shift,
        frame_rate=frame_rate,
    )


def _angles(values: Tensor, degrees: bool) -> Tensor:
    return values.deg2rad() if degrees else values


def _read_asf(path: Path, meters_per_unit: float | None) -> _Skeleton:
    lines = _Lines(path)
    root = _Bone("root", 1, dof=_ROOT_DOF)
    found = _Skeleton({"root": root}, {}, meters_per_unit or _INCH, True)
    sections = set()
    for words in lines:
        section = words[0].lower()
        if not section.startswith(":"):
            raise lines.error(f"expected a section such as :bonedata, got {words[0]!r}")
        sections.add(section)
        for words in lines:
            if words[0].startswith(":"):
                lines.put_back(words)
                break
            if section == ":units":
                _unit(lines, words, found, meters_per_unit)
            elif section == ":root":
                _root_line(lines, words, root)
            elif section == ":bonedata":
                if words[0] != "begin":
                    raise lines.error(f"expected begin, got {words[0]!r}")
                bone = _bone(lines)
                if bone.name in found.bones:
                    raise lines.error(f"bone {bone.name!r} comes twice")
                found.bones[bone.name] = bone
            elif section == ":hierarchy" and words[0] not in ("begin", "end"):
                _children(lines, words, found)
    missing = {":bonedata", ":hierarchy"} - sections
    if meters_per_unit is None:
        missing |= {":units"} - sections
    if missing:
        raise lines.error(f"expected a section {sorted(missing)[0]}, found none")
    _order_bones(lines, found)
    return found


def _unit(lines: _Lines, words: list[str], found: _Skeleton, meters_per_unit: float | None) -> None:
    if words[0] == "length" and meters_per_unit is None:
        (length,) = lines.numbers(words[1:], 1, "the unit of length")
        if length <= 0:
            raise lines.error(f"expected a unit of length above 0, got {length}")
        found.meters = _INCH / length
    elif words[0] == "angle":
        found.degrees = _is_degrees(lines, words[-1])


def _is_degrees(lines: _Lines, word: str) -> bool:
    if word.lower()[:3] not in ("deg", "rad"):
        raise lines.error(f"expected angles in deg or rad, got {word!r}")
    return word.lower().startswith("deg")


def _root_line(lines: _Lines, words: list[str], root: _Bone) -> None:
    key, rest = words[0].lower(), words[1:]
    angles, order = root.axis or ([0.0] * 3, "xyz")
    if key == "order":
        root.dof = _dof(lines, rest, _ROOT_DOF)
    elif key == "axis":
        root.axis = (angles, _axis_order(lines, " ".join(rest)))
    elif key == "orientation":
        root.axis = (lines.numbers(rest, 3, "the root's orientation"), order)
    elif key == "position":
        root.position = lines.numbers(rest, 3, "the root's position")
    else:
        raise lines.error(f"unknown word {words[0]!r} of the root")


def _axis_order(lines: _Lines, order: str) -> str:
    if sorted(order.lower()) != ["x", "y", "z"]:
        raise lines.error(f"expected an order of axes such as XYZ, got {order!r}")
    return order.lower()


def _dof(lines: _Lines, words: list[str], known: tuple[str, ...]) -> tuple[str, ...]:
    dof = tuple(word.lower() for word in words)
    if len(set(dof)) != len(dof) or not set(dof) <= set(known):
        raise lines.error(
            f"expected different degrees of freedom of {', '.join(known)}, got {' '.join(words)!r}"
        )
    return dof


def _bone(lines: _Lines) -> _Bone:
    bone = _Bone("", lines.number)
    limits: list[str] | None = None
    for words in lines:
        key, rest = words[0].lower(), words[1:]
        if key == "end":
            break
        if key == "limits" or key.startswith("("):
            limits = [] if limits is None else limits
            limits += " ".join(words).replace("limits", "").replace("(", " ").split()
        elif key == "name" and len(rest) == 1:
            bone.name = rest[0]
        elif key == "direction":
            bone.direction = lines.numbers(rest, 3, "a direction")
        elif key == "length":
            (bone.length,) = lines.numbers(rest, 1, "a length")
        elif key == "axis":
            bone.axis = (
                lines.numbers(rest[:3], 3, "an axis"),
                _axis_order(lines, " ".join(rest[3:])),
            )
        elif key == "dof":
            bone.dof = _dof(lines, rest, _ROTATIONS)
        elif key not in ("id", "bodymass", "cofmass"):
            raise lines.error(f"unknown word {words[0]!r} in bone {bone.name!r}")
    else:
        raise lines.error(f"bone {bone.name!r} has no end")
    for what in ("name", "direction", "length", "axis"):
        if not getattr(bone, what) and getattr(bone, what) != 0:
            raise lines.error(f"the bone that ends here has no {what}")
    if limits is not None and " ".join(limits).count(")") != len(bone.dof):
        raise lines.error(
            f"expected {len(bone.dof)} limits (low high) of bone {bone.name!r}, "
            f"got {' '.join(limits)!r}"
        )
    return bone


def _children(lines: _Lines, words: list[str], found: _Skeleton) -> None:
    for name in words:
        if name not in found.bones:
            raise lines.error(f"unknown bone {name!r}")
    for name in words[1:]:
        if name in found.parents or name == "root":
            raise lines.error(f"bone {name!r} has two parents")
        found.parents[name] = words[0]


def _order_bones(lines: _Lines, found: _Skeleton) -> None:
    """Put parents before children, and otherwise leave the file's order."""
    places = {name: place for place, name in enumerate(found.bones)}
    children: dict[str, list[str]] = {}
    for name, parent in found.parents.items():
        children.setdefault(parent, []).append(name)
    ordered: dict[str, _Bone] = {}
    # The first in the file of those whose parent is there.
    fitting = [(places["root"], "root")]
    while fitting:
        _, name = heapq.heappop(fitting)
        ordered[name] = found.bones[name]
        for child in children.get(name, ()):
            heapq.heappush(fitting, (places[child], child))
    if len(ordered) < len(found.bones):
        lost = sorted(set(found.bones) - set(ordered))
        raise lines.error(f"these bones do not hang on the root: {', '.join(lost)}")
    found.bones = ordered


def _read_frames(lines: _Lines, skeleton: _Skeleton) -> dict[str, Tensor]:
    """Read the values of each bone's degrees of freedom, `(T, dof)`."""
    values: dict[str, list[list[float]]] = {name: [] for name in skeleton.bones}
    moving = {name for name, bone in skeleton.bones.items() if bone.dof}
    count = 0

    def complete() -> None:
        lost = sorted(name for name in moving if len(values[name]) != count)
        if lost:
            raise lines.error(f"frame {count} ends without {', '.join(lost)}")

    for words in lines:
        name = words[0]
        if name.startswith(":"):
            if name.lower() in (":degrees", ":radians"):
                skeleton.degrees = _is_degrees(lines, name[1:])
        elif name.isdecimal():
            complete()
            count += 1
            if len(words) != 1 or name.lstrip("0") != str(count):
                raise lines.error(f"expected frame {count}, got {' '.join(words)!r}")
        else:
            if name not in skeleton.bones:
                raise lines.error(f"unknown bone {name!r}: the skeleton has none of that name")
            if len(values[name]) != count - 1:
                raise lines.error(f"expected {name!r} once in each frame")
            dof = skeleton.bones[name].dof
            values[name].append(lines.numbers(words[1:], len(dof), f"bone {name!r}"))
    complete()
    if not count:
        raise lines.error("expected at least one frame, found none")
    check_extent(lines.path, count, len(skeleton.bones))
    return {
        name: torch.tensor(rows or [[]] * count, dtype=torch.float64).reshape(count, -1)
        for name, rows in values.items()
    }
