from pathlib import Path

import numpy as np
import pytest
import torch

from propose_prob.datasets.cmu17 import _merge_planes, _split_planes, load_cmu17
from propose_prob.errors import InputError
from tools.pack_cmu17 import pack_split

FRAMES = {"train": 17_649, "val": 4_072, "test_seen": 3_768, "test_subject03": 2_521}
SOURCE = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.parametrize("split", FRAMES)
def test_splits_have_their_frames_and_finite_joints(split: str) -> None:
    data = load_cmu17(split)
    assert len(data) == FRAMES[split]
    assert data.world.shape == (FRAMES[split], 17, 3)
    assert data.world.isfinite().all()
    assert len(data.action_of_frames()) == len(data)
    assert data.camera_joints()[..., 2].min() > 1.0


def test_clips_never_cross_splits() -> None:
    sequences = [set(load_cmu17(split).seq_id.tolist()) for split in FRAMES]
    assert sum(len(s) for s in sequences) == len(set.union(*sequences))


def test_pelvis_is_the_origin_and_the_middle_of_the_hips() -> None:
    p3d = load_cmu17("val").p3d()
    assert (p3d[:, :, 0] == 0).all()
    assert (p3d[:, :, 1] + p3d[:, :, 4]).abs().max() < 1e-3


def test_cameras_are_rotations_and_people_stand_upright_in_image() -> None:
    data = load_cmu17("test_seen")
    R = data.cam_R
    assert torch.allclose(R @ R.mT, torch.eye(3).expand_as(R), atol=1e-5)
    assert torch.allclose(torch.linalg.det(R), torch.ones(R.shape[:2]), atol=1e-5)
    exact = data.p2d()
    # y points down: the head is above the ankles in nearly every walking or running frame.
    assert (exact[:, :, 10, 1] < exact[:, :, 3, 1]).float().mean() > 0.95
    assert exact.abs().max() <= 1.0


def test_noise_is_that_of_the_data_set() -> None:
    data = load_cmu17("val")
    error = 500 * (data.p2d("noisy") - data.p2d()).norm(dim=-1)
    assert error.median() == pytest.approx(6.0, abs=0.5)
    assert error.mean() == pytest.approx(9.0, abs=1.0)


def test_wrong_requests_say_what_was_expected() -> None:
    with pytest.raises(InputError, match="train, val, test_seen, test_subject03, got 'test'"):
        load_cmu17("test")
    with pytest.raises(ValueError, match="'exact' or 'noisy', got 'gt'"):
        load_cmu17("val").p2d("gt")
    with pytest.raises(ValueError, match="ships no detector noise"):
        load_cmu17("train").p2d("noisy")


def test_byte_planes_round_trip() -> None:
    values = np.array([0, -1, 1, 127, -128, 255, 256, 32767, -32768], np.int16)
    assert (_merge_planes(_split_planes(values)) == values).all()


@pytest.mark.skipif(not SOURCE.is_dir(), reason="needs the full CMU17 files beside the project")
def test_packing_again_gives_the_shipped_arrays(tmp_path: Path) -> None:
    pack_split(SOURCE, tmp_path, "test_subject03")
    shipped = load_cmu17("test_subject03")
    with np.load(SOURCE / "cmu17_test_subject03.npz", allow_pickle=False) as full:
        assert np.abs(full["world"] - shipped.world.numpy()).max() < 1e-4
        assert 500 * np.abs(full["uv_noisy"] - shipped.p2d("noisy").numpy()).max() < 0.15
    import propose_prob.datasets as package

    folder = Path(package.__file__).parent
    with (
        np.load(tmp_path / "cmu17_test_subject03.npz") as made,
        np.load(folder / "cmu17_test_subject03.npz") as stored,
    ):
        assert made.files == stored.files
        assert all((made[name] == stored[name]).all() for name in made.files)
