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
