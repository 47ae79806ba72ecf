"""The public names of the package, and the page of the API reference that documents each.

Each part of the package gets a page. It documents the names in the part's `__all__`, then those of
its modules that the part does not export: names in a module's own `__all__`, or, where it has none,
its public functions and classes.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import dataclass, field
from types import ModuleType

PACKAGE = "propose_prob"

#: Parts that are commands rather than an interface to program against.
COMMANDS = ("cli", "__main__")


@dataclass
class Page:
    """One page: which names of which modules it documents, in order.

    Attributes:
        part: The part's module, `propose_prob.geometry`.
        names: Public names by the module under which they are documented.
    """

    part: str
    names: dict[str, list[str]] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the page's file."""
        return self.part.removeprefix(f"{PACKAGE}.") + ".rst"

    def text(self) -> str:
        """The page as reStructuredText."""
        short = self.part.removeprefix(f"{PACKAGE}.")
        lines = [short, "=" * len(short), ""]
        exported = {f"{self.part}.{name}" for name in self.names[self.part]}
        for module, names in self.names.items():
            if module != self.part:
                title = f"``{module}``"
                lines += [title, "-" * len(title), ""]
            if module not in exported:
                lines += [f".. automodule:: {module}", f"   :members: {', '.join(names)}", ""]
                continue
            # A function of this name is documented above: the module cannot be an object as well.
            for name in names:
                lines += [f".. {_directive(module, name)}:: {module}.{name}", ""]
        return "\n".join(lines)


def _directive(module: str, name: str) -> str:
    value = getattr(importlib.import_module(module), name)
    if inspect.isclass(value):
        return "autoclass"
    return "autofunction" if inspect.isfunction(value) else "autodata"


def public_names(module: ModuleType) -> list[str]:
    """A module's `__all__`, or its own public functions and classes."""
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    )


def pages() -> list[Page]:
    """All pages, in the order of the package's parts."""
    root = importlib.import_module(PACKAGE)
    result = []
    for info in sorted(pkgutil.iter_modules(root.__path__), key=lambda info: info.name):
        if info.name.startswith("_") or info.name in COMMANDS:
            continue
        page = Page(f"{PACKAGE}.{info.name}")
        seen: set[int] = set()
        for module in _modules(page.part):
            names = []
            for name in public_names(module):
                value = getattr(module, name)
                if id(value) in seen or inspect.ismodule(value):
                    continue
                seen.add(id(value))
                names.append(name)
            if names or module.__name__ == page.part:
                page.names[module.__name__] = names
        result.append(page)
    return result


def _modules(part: str) -> list[ModuleType]:
    """The part itself, then its packages and modules, those that re-export names first."""
    top = importlib.import_module(part)
    found = [top]
    if hasattr(top, "__path__"):
        inner = [
            importlib.import_module(info.name)
            for info in pkgutil.walk_packages(top.__path__, f"{part}.")
            if not info.name.rpartition(".")[2].startswith("_")
        ]
        found += sorted(
            inner, key=lambda module: (not hasattr(module, "__path__"), module.__name__)
        )
    return found
