from pathlib import Path

import numpy as np
import pytest
import torch

from propose_prob.bodies import SkeletonBody
from propose_prob.datasets import cmu_body
from propose_prob.datasets.cmu17 import SPLITS, load_cmu17
from propose_prob.datasets.cmu_body import _unwind, load_cmu_body, pack_cmu_body
from propose_prob.errors import InputError
from propose_prob.geometry.rotations import geodesic_distance, matrix_from_axis_angle
from propose_prob.geometry.skeletons import SMPL_24


@pytest.mark.parametrize("split", SPLITS)
def test_the_body_lands_on_the_motion_capture(split):
    data, truth = load_cmu_body(split), load_cmu17(split)
    assert len(data) == len(truth)
    body = SkeletonBody()
    joints = body.regress(body(data.theta, data.shape, data.translation))
    error = (joints - truth.world).norm(dim=-1)
    assert error.mean() < 0.007
    assert error.mean(dim=1).max() < 0.015
    assert error.max() < 0.08


def test_rotations_are_rotations_and_shapes_are_plausible():
    data = load_cmu_body("val")
    eye = torch.eye(3).expand_as(data.theta)
    torch.testing.assert_close(data.theta @ data.theta.mT, eye, atol=1e-5, rtol=0)
    assert data.shape.abs().max() < 2.5
    assert data.performer.unique().tolist() == [0, 1]
    assert len(data.shape.unique(dim=0)) == 2
    assert (data.theta[:, 22:] == torch.eye(3)).all()


@pytest.mark.parametrize("split", SPLITS)
def test_limbs_are_not_twisted_and_do_not_flip(split):
    data, truth = load_cmu_body(split), load_cmu17(split)
    same = (truth.seq_id[1:] == truth.seq_id[:-1]) & (truth.rig_id[1:] == truth.rig_id[:-1])
    speed = geodesic_distance(data.theta[1:], data.theta[:-1])[same].rad2deg()
    # The recordings' own glitches, mostly of the right hand, are no more than this share.
    assert (speed > 45).float().mean(dim=0).max() < 0.003
    for name, limit in (
        ("Knee", 160),
        ("Elbow", 155),
        ("Collar", 45),
        ("Ankle", 90),
        ("Wrist", 90.1),
    ):
        for side in "LR":
            turn = data.theta[:, SMPL_24.index(f"{side}_{name}")]
            angle = geodesic_distance(turn, torch.eye(3)).rad2deg()
            assert angle.quantile(0.999) < limit, (side, name)
    # Knees bend backwards only: about the thigh's own x axis.
    for side in "LR":
        knee = data.theta[:, SMPL_24.index(f"{side}_Knee")]
        assert knee[:, 1, 2].quantile(0.99) < 0.2


def test_there_is_no_such_split():
    with pytest.raises(InputError, match="train, val, test_seen, test_subject03, got 'test'"):
        load_cmu_body("test")


def test_packing_keeps_angles_and_places(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(400, 24, 3, generator=generator, dtype=torch.float64)
    theta = matrix_from_axis_angle(steps.cumsum(0) * 0.3)
    theta[:, 22:] = torch.eye(3, dtype=torch.float64)
    translation = 6 * torch.rand(400, 3, generator=generator, dtype=torch.float64) - 3
    shape = torch.randn(2, 10, generator=generator)
    performer = torch.arange(400) // 200
    pack_cmu_body(tmp_path / "cmu_body_val.npz", theta, translation, shape, performer)
    monkeypatch.setattr(cmu_body, "shipped_file", lambda name: tmp_path / Path(name).name)
    data = load_cmu_body("val")
    assert geodesic_distance(data.theta.double(), theta).max() < np.deg2rad(0.1)
    assert (data.translation - translation).abs().max() < 2e-4
    assert (data.shape == shape[performer]).all()
    assert [p.name for p in tmp_path.iterdir()] == ["cmu_body_val.npz"]


def test_what_does_not_fit_is_refused(tmp_path):
    theta = torch.eye(3).repeat(2, 24, 1, 1)
    far = torch.tensor([[0.0, 0, 0], [7.0, 0, 0]])
    with pytest.raises(ValueError, match="7 does not fit"):
        pack_cmu_body(tmp_path / "a.npz", theta, far, torch.zeros(1, 10), torch.zeros(2).long())


def test_unwinding_goes_through_half_a_turn():
    angles = np.linspace(0, 1.9 * np.pi, 50)
    axis = np.array([0.6, 0.0, 0.8])
    wrapped = np.where(angles > np.pi, angles - 2 * np.pi, angles)[:, None, None] * axis
    np.testing.assert_allclose(_unwind(wrapped)[:, 0], angles[:, None] * axis, atol=1e-12)


def test_the_files_are_small():
    folder = Path(__file__).parents[2] / "propose_prob" / "data"
    assert sum(path.stat().st_size for path in folder.glob("cmu_body_*.npz")) < 3e6
