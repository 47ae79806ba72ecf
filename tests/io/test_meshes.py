import sys

import numpy as np
import pytest
import torch

from propose_prob.errors import InputError
from propose_prob.io.meshes import write_meshes

trimesh = pytest.importorskip("trimesh", reason="trimesh is missing: extra [mesh]")

FACES = torch.tensor([[0, 1, 2], [1, 2, 3]])


def surfaces(count):
    return torch.randn(count, 4, 3, generator=torch.Generator().manual_seed(0))


def upright(points):
    return points.numpy() * [1, -1, -1]


def test_one_surface_is_one_ply(tmp_path):
    points = surfaces(1)
    assert write_meshes(tmp_path / "a.ply", points, FACES) == [tmp_path / "a.ply"]
    read = trimesh.load(tmp_path / "a.ply", process=False)
    np.testing.assert_allclose(read.vertices, upright(points[0]), atol=1e-6)
    assert read.faces.tolist() == FACES.tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


def test_several_surfaces_are_numbered_ply_files(tmp_path):
    points = surfaces(3)
    written = write_meshes(tmp_path / "a.ply", points, FACES)
    assert [path.name for path in written] == ["a_000.ply", "a_001.ply", "a_002.ply"]
    read = trimesh.load(written[2], process=False)
    np.testing.assert_allclose(read.vertices, upright(points[2]), atol=1e-6)


def test_a_glb_holds_all_surfaces_by_name(tmp_path):
    points = surfaces(2)
    names = ["frame 0 person a", "frame 1 person a"]
    written = write_meshes(tmp_path / "a.glb", points, FACES, names=names)
    assert [path.name for path in written] == ["a.glb"]
    assert (tmp_path / "a.glb").read_bytes()[:4] == b"glTF"
    read = trimesh.load(tmp_path / "a.glb", process=False)
    assert set(read.geometry) == set(names)
    np.testing.assert_allclose(read.geometry[names[1]].vertices, upright(points[1]), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("a.obj", {}, "a.obj: expected an output name that ends in .ply or .glb"),
        ("a.ply", {"vertices": surfaces(1)[0]}, r"shape \(N, V, 3\) with N >= 1, got \(4, 3\)"),
        ("a.ply", {"vertices": surfaces(0)}, "N >= 1"),
        ("a.ply", {"vertices": surfaces(2) / 0}, "finite vertices, surface 0"),
        ("a.ply", {"faces": FACES.float()}, "integer faces"),
        ("a.ply", {"faces": FACES + 1}, "faces of vertices 0 to 3, got 1 to 4"),
        ("a.glb", {"names": ["a"]}, "expected 2 different names, got 1"),
        ("a.glb", {"names": ["a", "a"]}, "got 2, 1 of them different"),
    ],
)
def test_wrong_input_is_named_and_nothing_written(tmp_path, name, change, message):
    given = {"vertices": surfaces(2), "faces": FACES} | change
    with pytest.raises(InputError, match=message):
        write_meshes(tmp_path / name, **given)
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(InputError, match=r"pip install 'propose_prob\[mesh\]'"):
        write_meshes(tmp_path / "a.ply", surfaces(1), FACES)
