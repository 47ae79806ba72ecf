"""Checkpoints: written atomically, verified by hash."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import IO, Any, BinaryIO

import torch

from ..errors import InputError
from ..io.atomic import atomic_file
from ..io.files import open_file
from ..io.torch_files import load_torch

#: The hash stands in the archive's comment, which ends the file.
_SEAL = b"propose_prob.sha256:"
_SEAL_SIZE = len(_SEAL) + 2 * hashlib.sha256().digest_size
#: How an archive without a comment ends: a record of so many bytes that begins with this.
_END_SIZE, _END = 22, b"PK\x05\x06"


def write_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes a state of tensors and plain values, whole or not at all, with a hash of all of it.

    A reader sees either the old or the new checkpoint, whatever happens meanwhile.

    Raises:
        OSError: If it cannot be written, on a full disk for instance; the old one stays then.
    """
    try:
        with atomic_file(path) as file:
            torch.save(state, file)
            _seal(file)
    # torch reports a failed write, on a full disk say, in words of its own.
    except RuntimeError as error:
        raise OSError(
            errno.EIO,
            "cannot be written whole (is the disk full?); the one before is kept",
            str(path),
        ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a state written by `write_checkpoint`; tensors and plain values only, never code.

    Raises:
        InputError: If the file is missing, torn, changed since it was written, or not a checkpoint.
    """
    if not path.exists():
        raise InputError(f"no checkpoint to resume from at {path}")
    with open_file(path) as file:
        _check_seal(file, path)
        try:
            state = load_torch(file, path)
        except InputError as error:
            raise InputError(
                f"{path}: expected a checkpoint of this library, got a torn or foreign file "
                f"({error})"
            ) from None
    if not isinstance(state, dict) or state.get("format") != "propose_prob.checkpoint/1":
        raise InputError(f"{path}: expected a checkpoint of this library, got another file")
    return state


def _seal(file: BinaryIO) -> None:
    """Append the hash of an archive as its comment, of which it says the length before."""
    size = file.seek(0, 2)
    file.seek(size - 2)
    file.write(_SEAL_SIZE.to_bytes(2, "little"))
    file.seek(0)
    digest = _digest(file, size)
    file.write(_SEAL + digest)


def _check_seal(file: IO[bytes], path: Path) -> None:
    size = file.seek(0, 2)
    file.seek(max(0, size - _SEAL_SIZE))
    end = file.read()
    if end.startswith(_SEAL):
        file.seek(0)
        if _digest(file, size - _SEAL_SIZE) != end[len(_SEAL) :]:
            raise InputError(
                f"{path}: expected a checkpoint as it was written, got one that was changed since: "
                "its hash does not fit"
            )
    # Earlier versions stored none.
    elif end[-_END_SIZE:][:4] != _END:
        raise InputError(
            f"{path}: expected a checkpoint of this library, got a torn or foreign file"
        )


def _digest(file: IO[bytes], size: int) -> bytes:
    """Hash of the next `size` bytes."""
    found = hashlib.sha256()
    while size:
        part = file.read(min(size, 1 << 20))
        if not part:
            raise EOFError("the file ends early")
        found.update(part)
        size -= len(part)
    return found.hexdigest().encode()
