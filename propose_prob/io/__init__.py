"""Files from outside: keypoints, motion, markers, meshes; read safely, written atomically.

Names are imported when they are first used: the command line writes files before torch is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .amass import read_amass
    from .amc import read_amc
    from .bvh import read_bvh, write_bvh
    from .keypoints import Keypoints, read_keypoints
    from .markers import read_c3d, read_trc, write_trc
    from .meshes import write_meshes
    from .motion import Motion

__all__ = [
    "Keypoints",
    "Motion",
    "read_amass",
    "read_amc",
    "read_bvh",
    "read_c3d",
    "read_keypoints",
    "read_trc",
    "write_bvh",
    "write_meshes",
    "write_trc",
]

_HOMES = {
    "Keypoints": "keypoints",
    "Motion": "motion",
    "read_amass": "amass",
    "read_amc": "amc",
    "read_bvh": "bvh",
    "read_c3d": "markers",
    "read_keypoints": "keypoints",
    "read_trc": "markers",
    "write_bvh": "bvh",
    "write_meshes": "meshes",
    "write_trc": "markers",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
