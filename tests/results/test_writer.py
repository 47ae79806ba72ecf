import os

import numpy as np
import pytest
import xarray

from propose_prob.errors import InputError
from propose_prob.io.atomic import atomic_path
from propose_prob.results import open_writer

LABELS = {"frame": ["a", "b"], "person": [0, 1]}


def arrays(people=2, samples=3, value=1.0):
    return {
        "pose": np.full((people, samples, 2, 3), value),
        "spread": np.full((people, 2), value),
    }


@pytest.mark.parametrize("name", ["a.nc", "a.npz"])
def test_nothing_appears_before_the_end_nor_after_an_error(tmp_path, name):
    path = tmp_path / name
    path.write_text("old")
    with (
        pytest.raises(RuntimeError),
        open_writer(path, joint_names=["hip", "knee"]) as writer,
    ):
        writer.append(arrays(), LABELS)
        assert path.read_text() == "old"
        raise RuntimeError
    assert os.listdir(tmp_path) == [name] and path.read_text() == "old"
    with open_writer(path, joint_names=["hip", "knee"]) as writer:
        writer.append(arrays(), LABELS)
        writer.finish({"model": "m"})
    assert os.listdir(tmp_path) == [name] and path.stat().st_size > 1000


def test_batches_are_joined_in_order(tmp_path):
    for name in ("a.nc", "a.npz"):
        with open_writer(tmp_path / name, joint_names=["hip", "knee"]) as writer:
            for value in range(40):
                writer.append(arrays(value=float(value)), LABELS)
            writer.finish({})
    expected = np.repeat(np.arange(40.0), 2)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        assert stored["pose"].shape == (80, 3, 2, 3)
        assert (stored["pose"] == expected[:, None, None, None]).all()
        assert stored["frame"].tolist() == ["a", "b"] * 40
    with xarray.open_dataset(tmp_path / "a.nc", group="posterior") as data:
        assert data["pose"].shape == (1, 3, 80, 2, 3)
        assert (data["pose"].values == expected[None, None, :, None, None]).all()


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        (arrays(people=3), LABELS),
        (arrays(), {"frame": ["a", "b"]}),
        ({"color": np.zeros((2, 3))}, LABELS),
    ],
)
def test_wrong_batches(tmp_path, values, labels):
    with (
        pytest.raises(ValueError, match="expected"),
        open_writer(tmp_path / "a.nc", joint_names=["hip", "knee"]) as writer,
    ):
        writer.append(values, labels)
    assert not os.listdir(tmp_path)


def test_wrong_targets(tmp_path):
    (tmp_path / "folder.nc").mkdir()
    for path, words in (
        (tmp_path / "a.txt", ".nc or .npz"),
        (tmp_path / "none" / "a.nc", "no folder"),
        (tmp_path / "folder.nc", "a folder"),
    ):
        with pytest.raises(InputError, match=words), open_writer(path, joint_names=["hip"]):
            pass


def test_files_get_the_permissions_of_the_user(tmp_path):
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode
