import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propose_prob.errors import InputError
from propose_prob.geometry.camera import look_at, project, root_translation

SEEDS = st.integers(0, 2**31)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(SEEDS, st.floats(0.5, 5e3), st.floats(-1e3, 1e3))
def test_projection_by_hand(seed, focal, center):
    points = randn(seed, 4, 3) + torch.tensor([0.0, 0.0, 10.0])
    result = project(points, focal=focal, center=center)
    for (x, y, z), (u, v) in zip(points.tolist(), result.tolist(), strict=True):
        assert u == pytest.approx(focal * x / z + center)
        assert v == pytest.approx(focal * y / z + center)


def test_one_focal_length_for_each_pose():
    points = randn(0, 2, 5, 3) + torch.tensor([0.0, 0.0, 10.0])
    focal = torch.tensor([1.0, 2.0], dtype=torch.float64)
    both = project(points, focal=focal[:, None, None])
    torch.testing.assert_close(both[1], 2 * project(points[1], focal=1.0))


def test_behind_the_camera_is_finite_and_far_out():
    points = torch.tensor([[1.0, 0.5, -2.0], [1.0, 0.5, 0.0], [1.0, 0.5, 2.0]], requires_grad=True)
    result = project(points, focal=1.0)
    assert result.isfinite().all()
    assert (result[:2] > 10).all()
    result.sum().backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()


@given(SEEDS)
def test_look_at(seed):
    position, target = 4 * randn(seed, 2, 6, 3)
    camera = look_at(position, target)
    eye = torch.eye(3, dtype=torch.float64).expand(6, 3, 3)
    torch.testing.assert_close(camera.rotation @ camera.rotation.transpose(-1, -2), eye)
    torch.testing.assert_close(
        torch.linalg.det(camera.rotation), torch.ones(6, dtype=torch.float64)
    )
    distance = torch.linalg.vector_norm(target - position, dim=-1)
    seen = camera.apply(torch.stack([position, target, target + torch.tensor([0, 0, 1.0])], dim=-2))
    assert seen[:, 0].abs().max() < 1e-9
    torch.testing.assert_close(seen[:, 1, 2], distance)
    assert seen[:, 1, :2].abs().max() < 1e-9
    assert seen[:, 2, 0].abs().max() < 1e-9  # no roll: up stays vertical
    assert (seen[:, 2, 1] < 0).all()  # and y points down


def test_right_stays_right():
    camera = look_at(torch.tensor([0.0, -4.0, 1.0]), torch.tensor([0.0, 0.0, 1.0]))
    seen = camera.apply(torch.tensor([[1.0, 0.0, 1.0]]))
    torch.testing.assert_close(seen, torch.tensor([[1.0, 0.0, 4.0]]))


def test_another_up():
    y_up = torch.tensor([0.0, 1.0, 0.0])
    camera = look_at(torch.tensor([0.0, 1.0, 4.0]), torch.tensor([0.0, 1.0, 0.0]), up=y_up)
    seen = camera.apply(torch.tensor([[1.0, 2.0, 0.0]]))
    torch.testing.assert_close(seen, torch.tensor([[1.0, -1.0, 4.0]]))


def placed(seed, batch=(), joints=17):
    pose = 0.4 * randn(seed, *batch, joints, 3)
    place = randn(seed + 1, *batch, 3) + torch.tensor([0.0, 0.0, 6.0])
    return pose, place


@given(SEEDS, st.sampled_from([(), (1,), (2, 3)]), st.floats(0.5, 5e3))
def test_translation_is_recovered(seed, batch, focal):
    pose, place = placed(seed, batch)
    p2d = project(pose + place.unsqueeze(-2), focal=focal, center=7.0)
    found = root_translation(pose, p2d, focal=focal, center=7.0)
    torch.testing.assert_close(found, place, rtol=1e-7, atol=1e-7)


@given(SEEDS)
def test_translation_solves_the_least_squares_problem(seed):
    pose, place = placed(seed, joints=9)
    noise = randn(seed + 2, 9, 2)
    p2d = project(pose + place, focal=500.0) + noise
    visible = torch.arange(9) < 6
    p2d[6:] = math.nan
    found = root_translation(pose, p2d, focal=500.0, visible=visible)
    rows, right = [], []
    for joint in range(6):
        for axis in range(2):
            row = [0.0, 0.0, -p2d[joint, axis].item() / 500]
            row[axis] = 1.0
            rows.append(row)
            right.append(-row[2] * pose[joint, 2].item() - pose[joint, axis].item())
    matrix = torch.tensor(rows, dtype=torch.float64)
    expected = torch.linalg.lstsq(matrix, torch.tensor(right, dtype=torch.float64)).solution
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(root_translation(pose, p2d, focal=500.0), found)


def test_translation_broadcasts_over_hypotheses():
    pose, place = placed(0, (2,))
    p2d = project(pose + place.unsqueeze(-2), focal=2.0)
    hypotheses = pose + 0.01 * randn(5, 7, 2, 17, 3)
    found = root_translation(hypotheses, p2d, focal=2.0)
    assert found.shape == (7, 2, 3)
    torch.testing.assert_close(found[3, 1], root_translation(hypotheses[3, 1], p2d[1], focal=2.0))
    assert (found - place).abs().max() < 1


def test_translation_gradient():
    pose, place = placed(2, joints=5)
    p2d = project(pose + place, focal=2.0)
    p2d[4] = math.nan
    pose.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: root_translation(p, p2d, focal=2.0), (pose,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    pose, place = (value.to(dtype) for value in placed(0))
    p2d = project(pose + place, focal=1145.0)
    assert p2d.dtype == root_translation(pose, p2d, focal=1145.0).dtype == dtype


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: project(torch.zeros(2), focal=1.0), ValueError, r"\(\.\.\., 3\), got \(2,\)"),
        (lambda: project(torch.zeros(3), focal=1.0, near=0.0), ValueError, "near > 0, got 0"),
        (lambda: look_at(torch.zeros(2), torch.ones(3)), ValueError, "expected position of shape"),
        (lambda: look_at(torch.zeros(3), torch.zeros(3)), ValueError, "has a length"),
        (
            lambda: look_at(torch.zeros(3), torch.tensor([0, 0, 2.0])),
            ValueError,
            "not parallel to up",
        ),
        (
            lambda: root_translation(torch.zeros(17, 3), torch.zeros(16, 2), focal=1.0),
            ValueError,
            r"the same J, got \(17, 3\) and \(16, 2\)",
        ),
        (
            lambda: root_translation(
                torch.zeros(4, 3), torch.zeros(4, 2), focal=1.0, visible=torch.ones(3) > 0
            ),
            ValueError,
            r"visible of shape \(\.\.\., 4\), got \(3,\)",
        ),
        (
            lambda: root_translation(
                torch.zeros(2, 4, 3), torch.full((2, 4, 2), math.nan), focal=1.0
            ),
            InputError,
            r"batch index \(0,\) has 0",
        ),
        (
            lambda: root_translation(torch.randn(4, 3), torch.full((4, 2), 0.3), focal=1.0),
            InputError,
            "lie in one image point",
        ),
    ],
)
def test_wrong_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
