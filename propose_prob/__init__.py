"""Composable probability distributions for 3D human pose.

Names are imported when they are first used, so that `propose-prob --help` needs no torch.
"""

# Neither of them imports anything that may lie in the working folder.
from ._path import leave_working_folder_out
from .errors import InputError

leave_working_folder_out()

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .weights import available, average, load, save

__version__ = "0.1.0"

__all__ = ["InputError", "__version__", "available", "average", "load", "save"]

_PARTS = frozenset(
    {"bodies", "conditional", "datasets", "distributions", "evaluation", "geometry", "images"}
    | {"inference", "io", "models", "nn", "plotting", "results", "tasks", "training"}
    | {"transforms", "weights"}
)


def __getattr__(name: str) -> "Any":
    import importlib

    if name in {"available", "average", "load", "save"}:
        return getattr(importlib.import_module(".weights", __name__), name)
    if name in _PARTS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_PARTS})
