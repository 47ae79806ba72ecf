"""Leaves out what cannot run here: examples that need a missing extra, tests that need a GPU."""

from importlib.util import find_spec

import pytest
import torch

EXTRAS = {"propose_prob.models.export.export_onnx": "onnxscript"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark such examples and tests as skipped."""
    no_gpu = not torch.cuda.is_available()
    for item in items:
        if no_gpu and item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device; there is none"))
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
