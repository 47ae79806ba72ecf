import numpy as np
import pytest
import torch

from propose_prob.datasets.pairs import read_pairs
from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import COCO_17, H36M_17, MPII_16


def pairs(joints=17, count=6):
    random = np.random.default_rng(0)
    return {
        "p2d": random.normal(size=(count, joints, 2)),
        "p3d": random.normal(size=(count, joints, 3)),
    }


@pytest.fixture
def write(tmp_path):
    def call(**arrays):
        path = tmp_path / "mine.npz"
        np.savez(path, **arrays)
        return path

    return call


def test_what_is_needed_is_enough(write):
    arrays = pairs()
    arrays["p2d"][2, 5] = np.nan
    items, skeleton = read_pairs(write(**arrays))
    assert skeleton is H36M_17 and len(items) == 6
    assert items.focal is None and items.center is None
    assert items.confidence[2, 5] == 0 and items.confidence.sum() == 6 * 17 - 1
    assert items.valid.all() and items.frame.tolist() == list(range(6))
    torch.testing.assert_close(items.p3d, torch.tensor(arrays["p3d"], dtype=torch.float32))
    assert items.action == items.sequence == ["all"] * 6


def test_everything_can_be_said(write):
    confidence = np.linspace(0, 1, 6 * 17).reshape(6, 17)
    items, skeleton = read_pairs(
        write(
            **pairs(),
            confidence=confidence,
            focal=np.arange(1, 7),
            center=[3, 4],
            action=list("abcabc"),
            sequence=[1, 1, 2, 2, 3, 3],
            frame=[5, 6, 5, 6, 5, 6],
            skeleton="COCO-17",
        )
    )
    assert skeleton is COCO_17
    torch.testing.assert_close(items.confidence, torch.tensor(confidence, dtype=torch.float32))
    assert items.focal.tolist() == [1, 2, 3, 4, 5, 6] and items.center.tolist() == [[3, 4]] * 6
    assert items.action == list("abcabc") and items.sequence == list("112233")
    assert items.frame.tolist() == [5, 6] * 3
    items, skeleton = read_pairs(write(**pairs(16), skeleton="mpii_16", focal=900.0))
    assert skeleton is MPII_16 and items.focal.tolist() == [900] * 6
    assert items.center.tolist() == [[0, 0]] * 6


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"p3d": None}, "p2d and p3d.*got p2d"),
        ({"P2D": 1.0}, "got P2D, p2d, p3d"),
        ({"p3d": np.zeros((6, 16, 3))}, r"\(6, 16, 3\)"),
        ({"p2d": np.zeros((0, 17, 2)), "p3d": np.zeros((0, 17, 3))}, "at least one item"),
        ({"p2d": np.zeros((6, 5, 2)), "p3d": np.zeros((6, 5, 3))}, "has 5 joints"),
        ({"skeleton": "mpii_16"}, "16 joints of mpii_16, got 17"),
        ({"skeleton": "spider"}, "spider"),
        ({"confidence": np.ones((6, 3))}, r"confidence of shape \(6, 17\), got \(6, 3\)"),
        ({"focal": np.ones(5)}, r"focal of shape \(6,\)"),
        ({"focal": np.nan}, "finite numbers in focal"),
        ({"center": [1.0, 2.0]}, "focal beside center"),
        ({"action": ["a"]}, r"action of shape \(6,\)"),
        ({"p2d": np.full((6, 17, 2), "x")}, "numbers in p2d"),
        ({"focal": np.array([{}], dtype=object)}, "plain arrays"),
    ],
)
def test_wrong_files_are_named(write, changes, words):
    arrays = pairs() | changes
    path = write(**{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(InputError, match=words) as error:
        read_pairs(path)
    assert "mine.npz" in str(error.value) or "spider" in words


def test_other_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_pairs(tmp_path / "none.npz")
    for name, content in (
        ("text.npz", b"no archive"),
        ("empty.npz", b""),
        ("cut.npz", b"PK\x03\x04"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_pairs(tmp_path / name)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match="single array"):
        read_pairs(tmp_path / "one.npy")
