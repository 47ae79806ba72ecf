"""The page of public names is what the packages export, each name under one path."""

import importlib
import pkgutil
import re
from collections import Counter
from pathlib import Path

import propose_prob

PAGE = Path(__file__).parents[2] / "docs" / "public-api.md"
#: Commands, and what the top level re-exports.
ELSEWHERE = {"cli", "configuration", "weights", "errors", "devices", "__main__"}


def parts():
    yield propose_prob
    for info in pkgutil.iter_modules(propose_prob.__path__):
        if not info.name.startswith("_") and info.name not in ELSEWHERE:
            yield importlib.import_module(f"propose_prob.{info.name}")


def test_the_page_lists_what_the_packages_export():
    listed = {
        module: set(re.findall(r"`(\w+)`", names))
        for module, names in re.findall(r"^\*\*`([\w.]+)`\*\*: (.*)$", PAGE.read_text(), re.M)
    }
    assert listed == {part.__name__: set(part.__all__) for part in parts()}


def test_each_name_has_one_path():
    names = Counter(name for part in parts() for name in part.__all__)
    assert not [name for name, count in names.items() if count > 1]
    assert len(names) < 150
