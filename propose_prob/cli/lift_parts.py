"""Many frames lifted into a folder of files: shared out, resumable, in constant memory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._atomic import check_outputs, remove_leftovers, write_bytes, write_text
from ..devices import launched_as
from ..errors import InputError
from .options import at_least, model_file, progress
from .output import tell, warn

if TYPE_CHECKING:
    from ..data.keypoints import Keypoints
    from .lift import Lift

__all__ = ["lift_parts"]

_SETTINGS = "lift.json"
#: Bytes of it, at the most; it names every input.
_LONGEST = 1 << 26
#: Of the options, those that change neither what a part holds nor where it begins.
_FREE = ("out", "machine")


def lift_parts(command: Lift, model: Any, folder: Path) -> None:
    """Lift every frame of a command's inputs into `folder/part-NNNNNN.nc`.

    Each part is a file of its own that appears when it is whole; parts that are there already are
    passed over, and those that were cut short since are written again. The folder remembers what
    its parts are made of: options, and size and hash of the model and of every input. A part's
    random numbers depend on the seed and its number alone, so that neither interruptions nor the
    number of processes change a result. Parts with nobody in them leave an empty file
    `part-NNNNNN.empty`. The processes that `torchrun` starts take parts in turns.

    Args:
        command: The command with its options.
        model: The model.
        folder: Where to write; made where it is missing.

    Raises:
        InputError: If the folder holds the output of other options, inputs or weights, or a frame
            cannot be read.
    """
    at_least(command.part_frames, 1, "--part-frames")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder to write files to, or a name in .nc or .npz")
    rank, processes = launched_as()
    if folder.is_dir():
        if any(folder.samefile(path) for path in command.files):
            raise InputError(f"{folder}: the output would be written among the inputs")
        files = [path for path in command.files if path.is_file()]
        check_outputs([folder / _SETTINGS], [*files, command.model])
    import torch

    streams = list(command.streams())
    total = sum(len(stream) for _, stream in streams)
    _agree(command, folder, total)
    mine = range(rank, -(-total // command.part_frames), processes)
    people = skipped = new = 0
    with progress(None, total=len(mine), unit="part") as bar:
        for number in mine:
            bar.update()
            path, empty = (folder / f"part-{number:06d}.{end}" for end in ("nc", "empty"))
            if empty.exists() or _whole(path):
                continue
            # Of a process that was killed while it wrote this part.
            remove_leftovers(path)
            torch.manual_seed((command.machine.seed << 32) + number)
            start = number * command.part_frames

            def frames(start: int = start) -> Iterator[Keypoints]:
                passed = 0
                for source, stream in streams:
                    first, last = start - passed, start + command.part_frames - passed
                    passed += len(stream)
                    if last > 0 and first < len(stream):
                        for frame in stream.part(max(0, first), last):
                            yield command.named(frame, source)

            count, left = command.write(model, frames(), path)
            if not count:
                path.unlink(missing_ok=True)
                write_bytes(empty, b"")
            people, skipped, new = people + count, skipped + len(left), new + 1
    if skipped:
        warn(f"skipped {skipped} people")
    tell(
        f"{people} people in {new} new of {len(mine)} parts, {command.samples} samples each: "
        f"{folder}"
    )


def _agree(command: Lift, folder: Path, total: int) -> None:
    """Store what a folder's parts are made of, or compare it with what is stored."""
    options = {
        field.name: getattr(command, field.name)
        for field in dataclasses.fields(command)
        if field.name not in _FREE
    }
    options |= {
        "files": [str(path) for path in command.files],
        "frames": total,
        "seed": command.machine.seed,
        "model_content": _content(model_file(command.model)),
        "files_content": [_content(path) for path in command.files],
    }
    settings = json.loads(json.dumps(options, default=str))
    path = folder / _SETTINGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.stat().st_size > _LONGEST:
            raise ValueError
        stored = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        # Another process of the same run may be storing the same at this moment.
        if any(not p.name.startswith(".") and p != path for p in folder.iterdir()):
            raise InputError(
                f"{folder}: expected a new folder, or one of `propose-prob lift` with its "
                f"{_SETTINGS}"
            ) from None
        write_text(path, json.dumps(settings, indent=1) + "\n")
        return
    except (ValueError, RecursionError):
        raise InputError(f"{path}: expected JSON as `propose-prob lift` writes it") from None
    known = stored if isinstance(stored, dict) else {}
    differ = sorted(name for name in settings if known.get(name) != settings[name])
    if differ:
        raise InputError(
            f"{folder} holds the output of other options ({', '.join(differ)} differ): use another "
            "--out"
        )


def _content(path: Path) -> list[Any]:
    """Size and hash of a file, or of all files of a folder of keypoints with their names."""
    if not path.is_dir():
        return [path.stat().st_size, _digest(path)]
    size, together = 0, hashlib.sha256()
    for part in sorted(path.glob("*.json")):
        size += part.stat().st_size
        together.update(os.fsencode(part.name) + b"\0" + _digest(part).encode() + b"\0")
    return [size, together.hexdigest()]


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _whole(path: Path) -> bool:
    """Whether a part is there, as long as it says: HDF5 begins with where the file ends."""
    try:
        with path.open("rb") as file:
            head, size = file.read(48), file.seek(0, 2)
    except FileNotFoundError:
        return False
    # Superblocks of version 2 and 3 lay their addresses out alike; older ones begin those later.
    place = {0: 40, 2: 28, 3: 28}.get(head[8] if len(head) == 48 else -1)
    if place is None or not head.startswith(b"\x89HDF\r\n\x1a\n"):
        return False
    return int.from_bytes(head[place : place + 8], "little") == size
