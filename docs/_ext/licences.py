"""Licences of everything that `pip install propose_prob` brings along, from installed metadata.

`python docs/_ext/licences.py` writes the table of docs/licences.md.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

PAGE = Path(__file__).parents[1] / "licences.md"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"
MARK = "<!-- table -->"


def needed() -> dict[str, Distribution]:
    """Packages that the project needs without extras, by name, with all that those need."""
    text = re.search(r"^dependencies = \[(.*?)^\]", PROJECT.read_text(), re.DOTALL | re.MULTILINE)
    waiting = re.findall(r'"([\w.-]+)', text[1])
    found: dict[str, Distribution] = {}
    while waiting:
        try:
            package = distribution(waiting.pop())
        # Of another platform or Python.
        except PackageNotFoundError:
            continue
        key = re.sub(r"[-_.]+", "-", package.metadata["Name"]).lower()
        if key in found:
            continue
        found[key] = package
        for line in package.requires or []:
            requirement, _, marker = line.partition(";")
            if "extra" not in marker:
                waiting.append(re.match(r"[\w.-]+", requirement.strip())[0])
    return dict(sorted(found.items()))


def licence(package: Distribution) -> str:
    """A package's licence in a few words."""
    metadata = package.metadata
    if metadata.get("License-Expression"):
        return metadata["License-Expression"]
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier") or []
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    text = (metadata.get("License") or "").strip().splitlines()
    return ", ".join(classifiers) or (text[0][:60] if text else "not stated")


def table() -> str:
    """The table as Markdown."""
    rows = ["| package | licence |", "|---|---|"]
    rows += [f"| {name} | {licence(package)} |" for name, package in needed().items()]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    head = PAGE.read_text().partition(MARK)[0]
    PAGE.write_text(f"{head}{MARK}\n\n{table()}")
