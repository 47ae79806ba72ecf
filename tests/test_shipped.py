"""The hashes of what ships with the package."""

import json
import shutil
from pathlib import Path

import pytest

import propose_prob
from propose_prob import _shipped
from propose_prob.bodies import load_open_body
from propose_prob.datasets import load_cmu17, load_cmu_body
from propose_prob.errors import InputError
from propose_prob.weights import available, load

ROOT = Path(propose_prob.__file__).parent
TEXT = {".py", ".pyc", ".md", ".html", ".typed"}


def test_the_manifest_is_complete_and_right():
    """If not: `python tools/manifest.py`."""
    stored = json.loads((ROOT / "manifest.json").read_text())
    assert stored == _shipped.shipped_hashes()
    files = {path for path in ROOT.rglob("*") if path.is_file() and path.suffix not in TEXT}
    cards = set((ROOT / "weights").glob("*.json"))
    names = {path.relative_to(ROOT).as_posix() for path in files - cards}
    assert set(stored) == names - {"manifest.json"}
    assert {f"weights/{name}.safetensors" for name in available()} <= set(stored)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("weights/regression-cmu17.safetensors", lambda: load("regression-cmu17")),
        ("bodies/open_body.safetensors", load_open_body),
        ("datasets/cmu17_val.npz", lambda: load_cmu17("val")),
        ("datasets/cmu_body_val.npz", lambda: load_cmu_body("val")),
    ],
)
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_damaged_installations_are_named(tmp_path, monkeypatch, name, read, damage):
    copy = tmp_path / name
    copy.parent.mkdir()
    if damage == "changed":
        shutil.copy(ROOT / name, copy)
        content = bytearray(copy.read_bytes())
        content[-1] ^= 1
        copy.write_bytes(content)
    monkeypatch.setattr(_shipped, "_ROOT", tmp_path)
    wanted = "the installation is damaged" if damage == "changed" else "No such file"
    with pytest.raises(InputError, match=f"{copy.name}: .*{wanted}"):
        read()
