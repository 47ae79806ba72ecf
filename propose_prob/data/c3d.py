"""Marker recordings in `.c3d` files, through the package `c3d`.

That package is plain Python. Given files cut short or with three bytes changed, ezc3d 1.7.2 crashed
the process or never ended in each of three runs of 60 files; `c3d` 0.6.0 raised errors.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._files import open_file
from ..errors import InputError, short
from .trc import MarkerRecording, metres_per

__all__ = ["read_c3d"]


def read_c3d(path: str | Path) -> MarkerRecording:
    """Read the points of a `.c3d` file.

    Source: "The C3D File Format User Guide" (c3d.org): a point is missing where its residual is -1.
    Points without a label are called "point 1" by their number. Angles, forces and the like, which
    some programs store among the points, come as they are in the file, scaled like lengths.

    Args:
        path: The file.

    Returns:
        The points, in metres and the file's own axes.

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
        positions = stored[..., :3] * metres_per(unit, path)
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
