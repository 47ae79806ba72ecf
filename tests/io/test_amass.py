import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from propose_prob.errors import InputError
from propose_prob.io.amass import read_amass


def arrays(size=156, frames=5, **changes):
    generator = np.random.default_rng(0)
    stored = {
        "poses": generator.normal(size=(frames, size)),
        "trans": generator.normal(size=(frames, 3)),
        "betas": generator.normal(size=16),
        "gender": np.array("female"),
        "mocap_framerate": np.array(120.0),
        # What the reader does not need may be anything.
        "labels": np.array([{"a": 1}], dtype=object),
    }
    stored.update(changes)
    return {name: value for name, value in stored.items() if value is not None}


def save(path, stored):
    np.savez(path, **stored)
    return path


@pytest.mark.parametrize(
    ("size", "model", "joints"), [(72, "smpl", 24), (156, "smplh", 52), (165, "smplx", 55)]
)
def test_every_model(tmp_path, size, model, joints):
    stored = arrays(size)
    motion = read_amass(save(tmp_path / "a.npz", stored))
    assert (motion.model, len(motion), motion.gender, motion.frame_rate) == (
        model,
        5,
        "female",
        120,
    )
    assert motion.poses.shape == (5, joints, 3)
    assert motion.theta.dtype == motion.poses.dtype == motion.translation.dtype == torch.float32
    np.testing.assert_allclose(motion.translation, stored["trans"].astype(np.float32))
    np.testing.assert_allclose(motion.betas, stored["betas"].astype(np.float32))
    shared = 24 if size == 72 else 22
    vectors = stored["poses"].reshape(5, -1, 3)[:, :shared].reshape(-1, 3)
    expected = Rotation.from_rotvec(vectors).as_matrix().reshape(5, shared, 3, 3)
    np.testing.assert_allclose(motion.theta[:, :shared], expected, atol=1e-5)
    assert (motion.theta[:, shared:] == torch.eye(3)).all()


@pytest.mark.parametrize("gender", [np.array(b"male"), np.array(["Male"])])
def test_other_spellings(tmp_path, gender):
    stored = arrays(gender=gender, mocap_framerate=None, mocap_frame_rate=np.array([60]))
    motion = read_amass(save(tmp_path / "a.npz", stored))
    assert (motion.gender, motion.frame_rate) == ("male", 60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": None}, "found no poses among trans, betas"),
        ({"poses": np.zeros((5, 66))}, r"\(T, 72\), \(T, 156\) or \(T, 165\), got \(5, 66\)"),
        ({"poses": np.full((5, 72), np.nan)}, r"finite numbers in poses, got one at \[0, 0\]"),
        ({"poses": np.array([None] * 5)}, "array 'poses' holds pickled objects"),
        ({"poses": np.full((5, 72), "x")}, "expected numbers in poses, got <U1"),
        ({"trans": np.zeros((4, 3))}, r"trans of shape \(5, 3\), got \(4, 3\)"),
        ({"betas": np.zeros((5, 10))}, r"betas of shape \(B,\), got \(5, 10\)"),
        ({"gender": np.array("unknown")}, "gender female, male or neutral"),
        ({"gender": np.array(1)}, "expected text in gender, got int64"),
        ({"mocap_framerate": None}, "mocap_framerate or mocap_frame_rate, got neither"),
        ({"mocap_framerate": np.array(0)}, "frame rate above 0, got 0"),
        ({"mocap_framerate": np.array([1, 2])}, r"the frame rate of shape \(1,\), got \(2,\)"),
    ],
)
def test_wrong_files(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_amass(save(tmp_path / "a.npz", arrays(**changes)))


def test_damaged_files(tmp_path):
    path = save(tmp_path / "a.npz", arrays())
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"complete .npz of plain arrays"):
        read_amass(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_amass(tmp_path / "none.npz")
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(InputError, match=r"expected a complete .npz .* got a single array"):
        read_amass(tmp_path / "b.npy")
