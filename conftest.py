"""Leaves out the examples in docstrings that need an extra which is not installed."""

from importlib.util import find_spec

import pytest

EXTRAS = {"propose_prob.models.export.export_onnx": "onnxscript"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark such examples as skipped."""
    for item in items:
        needed = EXTRAS.get(item.name) if isinstance(item, pytest.DoctestItem) else None
        if needed is not None and find_spec(needed) is None:
            item.add_marker(pytest.mark.skip(reason=f"{needed} is not installed"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the long fuzzing, `make fuzz`."""
    group = parser.getgroup("fuzz")
    group.addoption("--fuzz-seeds", default="0:20000", metavar="START:STOP", help="inputs to run")
    group.addoption("--fuzz-only", default="", metavar="NAME", help="one format or command")
    group.addoption("--fuzz-workers", type=int, default=2, help="processes that share the inputs")
    group.addoption("--fuzz-minutes", type=float, default=float("inf"), help="begin none later")
    group.addoption("--fuzz-kills", type=int, default=60, help="runs that are killed")
