import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from propose_prob.datasets.spin import read_spin
from propose_prob.errors import InputError


def base(**more):
    stored = {
        "imgname": np.array(["a.jpg", "b.jpg", "c.jpg"]),
        "center": np.array([[10.0, 20], [30, 40], [50, 60]]),
        "scale": np.array([1.0, 1.5, 2]),
    }
    stored.update(more)
    return stored


def random(seed, *shape):
    return np.random.default_rng(seed).uniform(0.1, 0.9, size=shape)


def save(path, stored):
    np.savez(path, **stored)
    return path


def test_nothing_annotated(tmp_path):
    data = read_spin(save(tmp_path / "a.npz", base()))
    assert len(data) == 3 and data.images == ("a.jpg", "b.jpg", "c.jpg")
    torch.testing.assert_close(data.size, torch.tensor([200.0, 300, 400]))
    assert data.keypoints_2d.shape == (3, 49, 2) and data.keypoints_3d.shape == (3, 49, 3)
    assert not data.confidence_2d.any() and not data.confidence_3d.any()
    assert not data.has_theta.any() and not data.has_betas.any()
    assert (data.theta == torch.eye(3)).all() and (data.betas == 0).all()
    assert data.gender == ("", "", "")


def test_spin(tmp_path):
    part, openpose, joints = random(0, 3, 24, 3), random(1, 3, 25, 3), random(2, 3, 24, 4)
    part[1, 5] = np.nan
    openpose[..., 2] *= 2
    pose, shape = random(3, 3, 72), random(4, 3, 10)
    pose[2, 7] = np.nan
    stored = base(part=part, openpose=openpose, S=joints, pose=pose, shape=shape)
    stored |= {"has_smpl": np.array([1, 0, 1]), "gender": np.array(["m", "f", "n"])}
    data = read_spin(save(tmp_path / "a.npz", stored))
    assert data.has_theta.tolist() == [True, False, False]
    assert data.has_betas.tolist() == [True, False, True]
    assert data.gender == ("male", "female", "")
    expected = Rotation.from_rotvec(pose[0].reshape(-1, 3)).as_matrix()
    np.testing.assert_allclose(data.theta[0], expected, atol=1e-6)
    assert (data.theta[1:] == torch.eye(3)).all() and (data.betas[1] == 0).all()
    np.testing.assert_allclose(data.keypoints_2d[:, :25], openpose[..., :2].astype(np.float32))
    np.testing.assert_allclose(data.confidence_2d[0, 25:], part[0, :, 2].astype(np.float32))
    assert data.confidence_2d.max() == 1
    assert data.confidence_2d[1, 30] == 0 and (data.keypoints_2d[1, 30] == 0).all()
    np.testing.assert_allclose(data.keypoints_3d[:, 25:], joints[..., :3].astype(np.float32))
    assert not data.confidence_3d[:, :25].any()


def test_prohmr(tmp_path):
    stored = base(
        imgname=np.array([b"a.jpg", b"b.jpg", b"c.jpg"]),
        scale=np.array([[100.0, 200], [300, 200], [50, 50]]),
        body_keypoints_2d=random(0, 3, 25, 3),
        extra_keypoints_2d=random(1, 3, 19, 3),
        body_keypoints_3d=random(2, 3, 25, 4),
        extra_keypoints_3d=random(3, 3, 19, 4),
        body_pose=random(4, 3, 72),
        has_body_pose=np.array([1.0, 0, 1]),
        betas=random(5, 3, 10),
        has_betas=np.array([0.0, 0, 1]),
        has_pose_3d=np.array([1, 1, 0]),
    )
    data = read_spin(save(tmp_path / "a.npz", stored))
    assert data.images[1] == "b.jpg"
    # ProHMR's scale is in pixels.
    torch.testing.assert_close(data.size, torch.tensor([200.0, 300, 50]))
    assert data.has_theta.tolist() == [True, False, True]
    assert data.has_betas.tolist() == [False, False, True]
    extra = stored["extra_keypoints_2d"].astype(np.float32)
    np.testing.assert_allclose(data.keypoints_2d[:, 25:44], extra[..., :2])
    assert not data.confidence_2d[:, 44:].any() and data.confidence_2d[:, :44].all()
    assert data.confidence_3d[:2, :44].all() and not data.confidence_3d[2].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imgname": np.array([None, 1, "x"])}, "array 'imgname' holds pickled objects"),
        ({"imgname": np.zeros(3)}, "expected text in imgname, got float64"),
        ({"imgname": np.array([], dtype="U1")}, r"imgname of shape \(N,\), N > 0, got \(0,\)"),
        ({"center": np.zeros((2, 2))}, r"center of shape \(3, 2\), got \(2, 2\)"),
        ({"scale": np.full(3, np.nan)}, r"finite numbers in scale, got one at \[0\]"),
        ({"part": np.zeros((3, 20, 3))}, r"shape \(3, 24, 3\) in part, got float64 \(3, 20, 3\)"),
        ({"openpose": np.zeros((3, 24, 3))}, r"shape \(3, 25, 3\) in openpose"),
        ({"S": np.zeros((3, 24, 3))}, r"shape \(3, 24, 4\) in S"),
        ({"pose": np.zeros((3, 66))}, r"shape \(3, 72\) in pose"),
        ({"gender": np.array(["m"])}, "expected 3 of gender, got 1"),
        ({"pose": np.zeros((3, 72)), "has_smpl": np.ones(2)}, r"has_smpl of shape \(3,\)"),
    ],
)
def test_wrong_files(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_spin(save(tmp_path / "a.npz", base(**changes)))


def test_what_is_needed(tmp_path):
    with pytest.raises(InputError, match="found no center, scale among imgname"):
        read_spin(save(tmp_path / "a.npz", {"imgname": np.array(["a"])}))
