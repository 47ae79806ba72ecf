"""Files that ship with the package, checked against the hashes that ship beside them."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

from .errors import InputError
from .io.files import open_file

__all__ = ["shipped_file", "shipped_hashes"]

_ROOT = Path(__file__).parent
_MANIFEST = _ROOT / "manifest.json"

#: What is loaded as numbers or pictures; pages and cards are text.
_KINDS = ("*.safetensors", "*.npz", "assets/*.jpg", "assets/*.json")


def shipped_hashes() -> dict[str, str]:
    """SHA-256 of every file of weights and data that is in the package now, by its path in it."""
    paths = {path for kind in _KINDS for path in _ROOT.rglob(kind)}
    names = sorted(path.relative_to(_ROOT).as_posix() for path in paths)
    return {name: _hash(_ROOT / name) for name in names}


def shipped_file(name: str) -> Path:
    """The path of a file of the package, after a check that it is the one that was shipped.

    Args:
        name: Its path in the package, such as `"bodies/open_body.safetensors"`.

    Raises:
        InputError: If it is missing or another one.

    Example:
        >>> shipped_file("bodies/open_body.safetensors").stat().st_size
        1621468
    """
    path = _ROOT / name
    if _hash(path) != _manifest().get(name):
        raise InputError(
            f"{path}: expected the file that ships with propose_prob, got another one: the "
            "installation is damaged, install it again"
        )
    return path


@cache
def _manifest() -> dict[str, str]:
    hashes: dict[str, str] = json.loads(_MANIFEST.read_text("utf-8"))
    return hashes


def _hash(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.sha256(file.read()).hexdigest()
