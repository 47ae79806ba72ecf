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
