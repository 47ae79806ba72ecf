"""Checkpoints that a kill cannot tear, and random states that resume exactly."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from .._archives import check_torch
from ..errors import InputError


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes a state of tensors and plain values, whole or not at all.

    The file is written beside its place, flushed to disk and then renamed over the old one, so that
    a reader sees either the old or the new checkpoint.

    Raises:
        OSError: If it cannot be written, on a full disk for instance; the old one stays then.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        # torch reports a failed write, on a full disk say, in words of its own.
        if isinstance(error, RuntimeError):
            raise OSError(
                errno.EIO,
                "cannot be written whole (is the disk full?); the one before is kept",
                str(path),
            ) from error
        raise


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a state written by `write_checkpoint`; tensors and plain values only, never code.

    Raises:
        InputError: If the file is missing, torn or not a checkpoint.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint to resume from at {path}")
    try:
        check_torch(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: expected a checkpoint of this library, got a torn or foreign file ({reason})"
        ) from None
    if not isinstance(state, dict) or state.get("format") != "propose_prob.checkpoint/1":
        raise InputError(f"{path}: expected a checkpoint of this library, got another file")
    return state
