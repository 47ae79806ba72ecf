"""Many frames lifted into a folder of files: shared out, resumable, in constant memory."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .options import at_least, progress
from .output import tell, warn

if TYPE_CHECKING:
    from ..data.keypoints import Keypoints
    from .lift import Lift

__all__ = ["lift_parts"]

_SETTINGS = "lift.json"
#: Of the options, those that change neither what a part holds nor where it begins.
_FREE = ("out", "machine")


def lift_parts(command: Lift, model: Any, folder: Path) -> None:
    """Lift every frame of a command's inputs into `folder/part-NNNNNN.nc`.

    Each part is a file of its own that appears when it is whole; parts that are there already are
    passed over. A part's random numbers depend on the seed and its number alone, so that neither
    interruptions nor the number of processes change a result. Parts with nobody in them leave an
    empty file `part-NNNNNN.empty`. The processes that `torchrun` starts take parts in turns.

    Args:
        command: The command with its options.
        model: The model.
        folder: Where to write; made where it is missing.

    Raises:
        InputError: If the folder holds the output of other options, or a frame cannot be read.
    """
    at_least(command.part_frames, 1, "--part-frames")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: expected a folder to write files to, or a name in .nc or .npz")
    import torch

    streams = list(command.streams())
    total = sum(len(stream) for _, stream in streams)
    _agree(command, folder, total)
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    mine = range(rank, -(-total // command.part_frames), processes)
    people = skipped = new = 0
    with progress(None, total=len(mine), unit="part") as bar:
        for number in mine:
            bar.update()
            path, empty = (folder / f"part-{number:06d}.{end}" for end in ("nc", "empty"))
            if path.exists() or empty.exists():
                continue
            # Of a process that was killed while it wrote this part.
            for torn in folder.glob(f".{path.name}.*"):
                torn.unlink()
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
                empty.touch()
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
    }
    settings = json.loads(json.dumps(options, default=str))
    path = folder / _SETTINGS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        # Another process of the same run may be storing the same at this moment.
        if any(not p.name.startswith(".") and p != path for p in folder.iterdir()):
            raise InputError(
                f"{folder}: expected a new folder, or one of `propose-prob lift` with its "
                f"{_SETTINGS}"
            ) from None
        temporary = path.with_name(f".{_SETTINGS}.{os.getpid()}")
        temporary.write_text(json.dumps(settings, indent=1) + "\n")
        os.replace(temporary, path)
        return
    except ValueError:
        raise InputError(f"{path}: expected JSON as `propose-prob lift` writes it") from None
    known = stored if isinstance(stored, dict) else {}
    differ = sorted(name for name in settings if known.get(name) != settings[name])
    if differ:
        raise InputError(
            f"{folder} holds the output of other options ({', '.join(differ)} differ): use another "
            "--out"
        )
