"""Composable probability distributions for 3D human pose.

Names are imported when they are first used, so that `propose-prob --help` needs no torch.
"""

from __future__ import annotations

import importlib

from ._path import leave_working_folder_out
from .errors import InputError

# Not from typing, whose import takes longer than all else here: see propose_prob.cli.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import data
    from .conditional import PAGD, PILGD, ConditionalFlow, freeze
    from .distributions import DecodedPoseDistribution, FlowDistribution
    from .models import ProPose, ProPoseConfig
    from .weights import available, load, save

__all__ = [
    "PAGD",
    "PILGD",
    "ConditionalFlow",
    "DecodedPoseDistribution",
    "FlowDistribution",
    "InputError",
    "ProPose",
    "ProPoseConfig",
    "available",
    "data",
    "freeze",
    "load",
    "save",
]

_HOMES = {
    "PAGD": "conditional",
    "PILGD": "conditional",
    "ConditionalFlow": "conditional",
    "DecodedPoseDistribution": "distributions",
    "FlowDistribution": "distributions",
    "ProPose": "models",
    "ProPoseConfig": "models",
    "available": "weights",
    "freeze": "conditional",
    "load": "weights",
    "save": "weights",
}
_PARTS = frozenset(
    {"bodies", "conditional", "data", "distributions", "evaluation", "inference", "models"}
    | {"networks", "pose", "tasks", "training", "transforms", "visualisation", "weights"}
)


leave_working_folder_out()


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    if name in _PARTS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS})
