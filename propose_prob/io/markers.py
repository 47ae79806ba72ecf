"""Marker recordings: OpenSim `.trc` and C3D files.

Source of `.trc`: "Marker (.trc) Files" in OpenSim's user's guide (opensimconfluence.atlassian.net):
three lines of header, names, axis numbers, then one tab-separated line for each frame.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, short
from ..geometry.skeletons import Skeleton
from .atomic import write_text
from .files import open_file, read_text

__all__ = ["MarkerRecording", "read_c3d", "read_trc", "write_trc"]

_METERS = {"mm": 1e-3, "cm": 1e-2, "dm": 1e-1, "m": 1.0}

_HEADER = (
    *("DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units"),
    *("OrigDataRate", "OrigDataStartFrame", "OrigNumFrames"),
)


@dataclass(frozen=True, eq=False)
class MarkerRecording:
    """Named points over time, `N` frames of `M` points.

    Attributes:
        names: The points' names, M of them.
        positions: `(N, M, 3)`, float32, meters, in the file's own axes; NaN where missing.
        rate: Frames a second.
    """

    names: tuple[str, ...]
    positions: Tensor
    rate: float

    def joints(self, skeleton: Skeleton) -> Tensor:
        """Pick the points that are called like a joint set's joints; case does not matter.

        Args:
            skeleton: The joint set.

        Returns:
            Joints `(N, J, 3)`, meters; NaN for those that no point is called after.

        Raises:
            InputError: If no point is called after a joint.
        """
        places = {name.lower(): place for place, name in enumerate(self.names)}
        found = [places.get(name.lower(), -1) for name in skeleton.joint_names]
        if max(found) < 0:
            raise InputError(
                f"expected points called like the joints of {skeleton.name} "
                f"({', '.join(skeleton.joint_names[:3])}, ...), got {', '.join(self.names[:8])}"
            )
        joints = self.positions[:, found]
        joints[:, torch.tensor(found) < 0] = torch.nan
        return joints


def meters_per(unit: str, path: Path) -> float:
    """Give the length of a file's unit in meters.

    Raises:
        InputError: If there is no such unit.
    """
    if unit.lower() not in _METERS:
        raise InputError(f"{path}: expected units of {', '.join(_METERS)}, got {short(repr(unit))}")
    return _METERS[unit.lower()]


def read_trc(path: str | Path) -> MarkerRecording:
    """Read a `.trc` file.

    Args:
        path: The file.

    Returns:
        The markers; empty fields are missing.

    Raises:
        InputError: If the file is missing or is not as the format has it: another header, unit,
            number of columns, markers or frames, or a field that is no number.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_trc(f"{folder}/a.trc", torch.rand(9, 2, 3), names=("hip", "knee"), rate=30.0)
        ...     recording = read_trc(f"{folder}/a.trc")
        >>> recording.names, recording.positions.shape, recording.rate
        (('hip', 'knee'), torch.Size([9, 2, 3]), 30.0)
    """
    path = Path(path)
    lines = read_text(path, "a .trc text file").splitlines()
    if len(lines) < 5 or not lines[0].startswith("PathFileType"):
        got = "an empty file" if not lines else repr(lines[0][:40])
        raise InputError(f"{path}: expected a .trc file that begins with PathFileType, got {got}")
    header = dict(zip(lines[1].split("\t"), lines[2].split("\t"), strict=False))
    missing = [key for key in _HEADER[:5] if not header.get(key, "").strip()]
    if missing:
        raise InputError(f"{path}: expected {', '.join(missing)} in lines 2 and 3, got none")
    rate, frames, markers = (
        _number(path, 3, key, header[key]) for key in ("DataRate", "NumFrames", "NumMarkers")
    )
    if not (rate > 0 and math.isfinite(rate)):
        raise InputError(f"{path}: expected a positive DataRate, got {rate}")
    scale = meters_per(header["Units"].strip(), path)
    names = tuple(field.strip() for field in lines[3].split("\t")[2:] if field.strip())
    if len(names) != markers:
        raise InputError(f"{path}: expected {markers:.0f} names in line 4, got {len(names)}")
    rows = []
    for index, line in enumerate(lines[5:], start=6):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) < 2 + 3 * len(names):
            raise InputError(
                f"{path}: expected {2 + 3 * len(names)} columns in line {index}, got {len(fields)}"
            )
        values = fields[2 : 2 + 3 * len(names)]
        rows.append([_number(path, index, "a coordinate", value) for value in values])
    if len(rows) != frames:
        raise InputError(f"{path}: expected {frames:.0f} frames, got {len(rows)}")
    positions = torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(names), 3) * scale
    whole = positions.isfinite().all(dim=-1, keepdim=True)
    return MarkerRecording(names, positions.where(whole, torch.nan).float(), rate)


def _number(path: Path, line: int, key: str, text: str) -> float:
    if not text.strip():
        return math.nan
    try:
        return float(text)
    except ValueError as error:
        got = short(repr(text))
        raise InputError(f"{path}: expected {key} in line {line}, got {got}") from error


def write_trc(path: str | Path, positions: Tensor, *, names: Sequence[str], rate: float) -> None:
    """Write points as a `.trc` file in millimeters, for OpenSim's inverse kinematics or others.

    Positions are written in the axes that they come in. OpenSim has y up: poses in camera axes (y
    down, z forward) become so by `positions * torch.tensor([1.0, -1.0, -1.0])`, poses with z up by
    `positions[..., [0, 2, 1]] * torch.tensor([1.0, 1.0, -1.0])`.

    Args:
        path: The file, replaced if it is there.
        positions: `(N, M, 3)`, meters; missing where not finite.
        names: The points' names, M of them, such as a skeleton's `joint_names`.
        rate: Frames a second.

    Raises:
        InputError: If the shape does not fit, the rate is not positive, or names are empty, alike,
            or have tabs or line breaks in them.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_trc(f"{folder}/a.trc", torch.ones(2, 1, 3), names=["Head"], rate=50.0)
        ...     recording = read_trc(f"{folder}/a.trc")
        >>> recording.names, recording.positions.shape, recording.rate
        (('Head',), torch.Size([2, 1, 3]), 50.0)
    """
    names = [str(name) for name in names]
    if positions.ndim != 3 or tuple(positions.shape[1:]) != (len(names), 3):
        raise InputError(
            f"expected positions of shape (N, {len(names)}, 3), got {tuple(positions.shape)}"
        )
    if not (rate > 0 and math.isfinite(rate)):
        raise InputError(f"expected a positive rate, got {rate}")
    if len(set(names)) != len(names) or any(
        not name.strip() or any(c in name for c in "\t\r\n") for name in names
    ):
        raise InputError(f"expected different names on one line each, got {names}")
    path = Path(path)
    frames = len(positions)
    values = (rate, rate, frames, len(names), "mm", rate, 1, frames)
    axes = (f"{axis}{marker}" for marker in range(1, len(names) + 1) for axis in "XYZ")
    lines = [
        f"PathFileType\t4\t(X/Y/Z)\t{path.name}",
        "\t".join(_HEADER),
        "\t".join(map(str, values)),
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\t" + "\t".join(axes),
        "",
    ]
    for index, row in enumerate((positions.detach().double().cpu() * 1000).tolist()):
        fields = [str(index + 1), f"{index / rate:.6f}"]
        for point in row:
            known = all(map(math.isfinite, point))
            fields += [f"{value:.4f}" if known else "" for value in point]
        lines.append("\t".join(fields))
    write_text(path, "\n".join(lines) + "\n")


def read_c3d(path: str | Path) -> MarkerRecording:
    """Read the points of a `.c3d` file.

    Source: "The C3D File Format User Guide" (c3d.org): a point is missing where its residual is -1.
    Points without a label are called "point 1" by their number. Angles, forces and the like, which
    some programs store among the points, come as they are in the file, scaled like lengths.

    Args:
        path: The file.

    Returns:
        The points, in meters and the file's own axes.

    Raises:
        InputError: If the file is missing, is no C3D file, is damaged or incomplete, has no points
            or other units than mm, cm, dm and m; or if the package is not installed.
    """
    path = Path(path)
    try:
        from c3d import Reader
    except ImportError as error:
        raise InputError(
            f"{path}: reading it needs c3d, which is not installed: "
            "pip install 'propose_prob[datasets]'"
        ) from error
    try:
        # Files without analog channels or events are common, and a warning for each is not needed:
        # what would be wrong about the points is checked below.
        with open_file(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader = Reader(file)
            expected, rate = int(reader.frame_count), float(reader.point_rate)
            stored_labels, units = reader.get("POINT:LABELS"), reader.get("POINT:UNITS")
            _check_sizes(path, reader, stored_labels, expected)
            labels = (
                [] if stored_labels is None else list(map(str.strip, stored_labels.string_array))
            )
            unit = "mm" if units is None else units.string_value.strip() or "mm"
            frames = [points[:, :4] for _, points, _ in reader.read_frames()]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except InputError:
        raise
    # The package asserts, divides and unpacks what a damaged file gives it.
    except Exception as error:
        reason = short(str(error).split("\n")[0] or type(error).__name__)
        raise InputError(f"{path}: expected a C3D file: {reason}") from error
    if not frames or not frames[0].size:
        raise InputError(f"{path}: expected points, got none")
    if len(frames) != expected:
        raise InputError(f"{path}: expected {expected} frames, got {len(frames)}: cut off")
    if not (np.isfinite(rate) and rate > 0):
        raise InputError(f"{path}: expected a positive rate, got {rate}")
    stored = np.stack(frames)
    # A frame's numbers may be anything in a damaged file.
    with np.errstate(over="ignore", invalid="ignore"):
        positions = stored[..., :3] * meters_per(unit, path)
    missing = (stored[..., 3] < 0) | ~np.isfinite(positions).all(axis=-1)
    names = [
        labels[index] if index < len(labels) and labels[index] else f"point {index + 1}"
        for index in range(stored.shape[1])
    ]
    return MarkerRecording(
        tuple(names),
        torch.from_numpy(np.where(missing[..., None], np.nan, positions).astype(np.float32)),
        rate,
    )


def _check_sizes(path: Path, reader: Any, labels: Any, frames: int) -> None:
    """Compare what a file announces with its size: the package would read frames without end."""
    if reader.point_used < 1:
        raise InputError(f"{path}: expected points, got none")
    frame = 4 * reader.point_used * (4 if reader.point_scale < 0 else 2)
    room = path.stat().st_size // frame
    if frames > room:
        raise InputError(f"{path}: expected {frames} frames, got at most {room}: cut off")
    # Empty labels take no room; there are not more than the format can count.
    count = 0 if labels is None else math.prod(labels.dimensions[1:])
    if count > max(len(labels.bytes) if count else 0, 65_535):
        raise InputError(f"{path}: expected labels of points, got room for {count} of them")
