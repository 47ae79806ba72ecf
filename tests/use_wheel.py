"""Uses the package where `make test-wheel` unpacked its wheel: every file is there and is found."""

import sys
import tempfile
from pathlib import Path

import propose_prob
from propose_prob import _shipped
from propose_prob.bodies import load_open_body
from propose_prob.cli import main

SOURCE = Path(__file__).parents[1] / "propose_prob"
WHEEL = Path(propose_prob.__file__).parent


def files(root: Path) -> set[str]:
    """Paths of a package's files within it, without what Python writes."""
    return {
        path.relative_to(root).as_posix()
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


if __name__ == "__main__":
    assert WHEEL != SOURCE, f"the package is imported from the repository, {SOURCE}"
    missing = files(SOURCE) - files(WHEEL)
    assert not missing, f"not in the wheel: {sorted(missing)}"
    for name in _shipped.shipped_hashes():
        _shipped.shipped_file(name)
    for name in propose_prob.available():
        propose_prob.load(name)
    for split in ("val", "test_seen"):
        propose_prob.datasets.load_cmu17(split)
    load_open_body()
    with tempfile.TemporaryDirectory() as folder:
        assert main(["demo", "--out", f"{folder}/demo"]) == 0
        assert {path.name for path in Path(folder, "demo").iterdir()} == {"demo.png", "demo.nc"}
    print(f"the wheel of {propose_prob.__version__} is complete", file=sys.stderr)
