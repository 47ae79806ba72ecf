"""Which files a command may write: none that it reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .._atomic import check_output
from ..errors import InputError

__all__ = ["check_outputs"]

#: Endings of results: a folder of keypoints may hold them, and none of them is read from there.
_RESULTS = (".nc", ".npz", ".bvh", ".glb", ".ply", ".html", ".htm")


def check_outputs(outputs: Iterable[Path], inputs: Iterable[Path | str | None]) -> None:
    """Check, before any work, that files can be written and that none of them is read.

    Args:
        outputs: Files that the command writes.
        inputs: Files and folders that it reads; names of shipped models and None are passed over.

    Raises:
        InputError: If an output cannot be written, comes twice, is an input by whatever name or
            link, or would replace a file of a folder that is an input.
    """
    read = [Path(path) for path in inputs if path is not None and Path(path).exists()]
    seen: set[Path] = set()
    for out in outputs:
        check_output(out)
        place = out.resolve()
        if place in seen:
            raise InputError(f"{out}: expected different outputs, got this one twice")
        seen.add(place)
        if not out.exists():
            continue
        for path in read:
            inside = path.is_dir() and out.suffix not in _RESULTS
            if out.samefile(path) or (inside and place.is_relative_to(path.resolve())):
                raise InputError(f"{out}: the output would replace an input")
