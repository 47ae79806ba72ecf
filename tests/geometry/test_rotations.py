import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation
from torch.func import jacfwd, jacrev, vmap

from propose_prob.errors import InputError
from propose_prob.geometry.rotations import (
    axis_angle_from_matrix,
    geodesic_distance,
    matrix_from_6d,
    matrix_from_axis_angle,
    matrix_from_quaternion,
    quaternion_from_matrix,
    sixd_from_matrix,
)

SEEDS = st.integers(0, 2**31)
DEGENERATE = [
    [0.0, 0, 0, 0, 0, 0],
    [0.0, 0, 0, 1, 2, 3],
    [1.0, 2, 3, 0, 0, 0],
    [1.0, 0, 0, 2, 0, 0],
    [1.0, 2, 3, -2, -4, -6],
    [0.3, -0.1, 0.7, 0.9, -0.3, 2.1],
    [0.0, 0, 1, 0, 0, -1],
    [1e-30, 0, 0, 0, 1e-30, 0],
]


def randn(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def rotations(seed, *shape):
    return matrix_from_6d(randn(seed, *shape, 6))


def assert_rotation(matrix, atol):
    eye = torch.eye(3, dtype=matrix.dtype).expand_as(matrix)
    torch.testing.assert_close(matrix.transpose(-1, -2) @ matrix, eye, atol=atol, rtol=0)
    assert (torch.linalg.det(matrix) > 0).all()


@given(SEEDS)
def test_6d_are_the_first_two_columns(seed):
    matrix = torch.from_numpy(Rotation.random(5, rng=seed).as_matrix())
    numbers = sixd_from_matrix(matrix)
    torch.testing.assert_close(numbers[:, :3], matrix[:, :, 0])
    torch.testing.assert_close(numbers[:, 3:], matrix[:, :, 1])
    torch.testing.assert_close(matrix_from_6d(numbers), matrix)
    # Lengths, and the second column's part along the first, do not matter.
    first, second = 3 * numbers[:, :3], 0.1 * numbers[:, 3:] - 5 * numbers[:, :3]
    torch.testing.assert_close(matrix_from_6d(torch.cat([first, second], -1)), matrix)


@given(
    hnp.arrays(np.float32, 6, elements=st.floats(-1e4, 1e4, width=32)),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_any_6d_gives_a_rotation_and_a_finite_gradient(numbers, dtype):
    numbers = torch.as_tensor(numbers, dtype=dtype).requires_grad_()
    matrix = matrix_from_6d(numbers)
    assert_rotation(matrix, 1e-5 if dtype == torch.float32 else 1e-12)
    matrix.square().sum().backward()
    assert numbers.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("numbers", DEGENERATE)
def test_degenerate_6d(numbers, dtype):
    numbers = torch.tensor(numbers, dtype=dtype)
    assert_rotation(matrix_from_6d(numbers), 1e-6)
    for jacobian in (jacrev, jacfwd):
        assert jacobian(matrix_from_6d)(numbers).isfinite().all()


def test_nan_in_6d_is_not_hidden():
    numbers = torch.tensor([1.0, math.nan, 0, 0, 1, 0])
    assert matrix_from_6d(numbers).isnan().any()
    assert matrix_from_6d(torch.full((6,), math.nan)).isnan().all()


@given(SEEDS, st.floats(1e-7, 1e-2))
def test_6d_is_continuous(seed, step):
    """Nearby numbers give nearby rotations: at most the step over the distance to degeneracy."""
    numbers, move = randn(seed, 2, 6)
    first, second = numbers[:3], numbers[3:]
    across = second - second @ first / (first @ first) * first
    margin = min(float(first.norm()), float(across.norm())) - 3 * step
    if margin < 0.05:
        return
    move = step * move / move.norm()
    angle = geodesic_distance(matrix_from_6d(numbers), matrix_from_6d(numbers + move))
    stretch = 1 + float(second.norm()) / float(first.norm())
    assert angle <= 2 * stretch * step / margin


def test_6d_has_no_seam_where_axis_angle_jumps():
    angles = torch.linspace(0, 4 * math.pi, 401, dtype=torch.float64)
    matrix = matrix_from_axis_angle(angles.unsqueeze(-1) * torch.tensor([0.0, 0.6, 0.8]).double())
    assert sixd_from_matrix(matrix).diff(dim=0).norm(dim=-1).max() < 0.05
    assert axis_angle_from_matrix(matrix).diff(dim=0).norm(dim=-1).max() > 6


def test_6d_gradient_equals_finite_differences():
    numbers = randn(0, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(matrix_from_6d, (numbers,))
    assert torch.autograd.gradgradcheck(matrix_from_6d, (numbers,))


@given(SEEDS)
def test_equals_scipy(seed):
    reference = Rotation.random(6, rng=seed)
    matrix = torch.from_numpy(reference.as_matrix())
    vector = torch.from_numpy(reference.as_rotvec())
    quaternion = torch.from_numpy(reference.as_quat())
    torch.testing.assert_close(matrix_from_axis_angle(vector), matrix)
    torch.testing.assert_close(axis_angle_from_matrix(matrix), vector)
    torch.testing.assert_close(matrix_from_quaternion(3 * quaternion, "xyzw"), matrix)
    torch.testing.assert_close(matrix_from_quaternion(quaternion.roll(1, -1)), matrix)
    expected = torch.from_numpy(reference.as_quat(canonical=True))
    torch.testing.assert_close(quaternion_from_matrix(matrix, "xyzw"), expected)
    torch.testing.assert_close(quaternion_from_matrix(matrix), expected.roll(1, -1))
    other = Rotation.random(6, rng=seed + 1)
    angle = torch.from_numpy((reference.inv() * other).magnitude())
    torch.testing.assert_close(
        geodesic_distance(matrix, torch.from_numpy(other.as_matrix())), angle
    )


@given(SEEDS, st.floats(0, math.pi), st.sampled_from([torch.float32, torch.float64]))
def test_round_trips_at_any_angle(seed, angle, dtype):
    axis = randn(seed, 3)
    vector = (angle * axis / axis.norm()).to(dtype)
    matrix = matrix_from_axis_angle(vector)
    atol = 2e-6 if dtype == torch.float32 else 1e-12
    assert_rotation(matrix, atol)
    for back in (
        matrix_from_axis_angle(axis_angle_from_matrix(matrix)),
        matrix_from_quaternion(quaternion_from_matrix(matrix)),
        matrix_from_quaternion(quaternion_from_matrix(matrix, "xyzw"), "xyzw"),
        matrix_from_6d(sixd_from_matrix(matrix)),
    ):
        torch.testing.assert_close(back, matrix, atol=atol, rtol=0)
    assert quaternion_from_matrix(matrix)[0] >= 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, 1e-6, 1e-3, 1.0, math.pi - 1e-3, math.pi - 1e-6, math.pi])
def test_geodesic_distance_is_accurate_at_both_ends(dtype, angle):
    start = rotations(0, 20).to(dtype)
    axis = randn(1, 20, 3)
    turn = matrix_from_axis_angle((angle * axis / axis.norm(dim=-1, keepdim=True)).to(dtype))
    expected = torch.full((20,), angle, dtype=dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    result = geodesic_distance(start, start @ turn)
    torch.testing.assert_close(result, expected, atol=tolerance, rtol=0)
    torch.testing.assert_close(geodesic_distance(start @ turn, start), result)


@given(SEEDS)
def test_geodesic_distance_is_a_distance(seed):
    one, two, three = rotations(seed, 3)
    assert geodesic_distance(one, one) == 0
    assert geodesic_distance(one, three) <= (
        geodesic_distance(one, two) + geodesic_distance(two, three) + 1e-9
    )
    turned = rotations(seed + 1)
    torch.testing.assert_close(
        geodesic_distance(turned @ one, turned @ two), geodesic_distance(one, two)
    )


FUNCTIONS = [
    (matrix_from_6d, (6,)),
    (sixd_from_matrix, (3, 3)),
    (matrix_from_axis_angle, (3,)),
    (axis_angle_from_matrix, (3, 3)),
    (matrix_from_quaternion, (4,)),
    (quaternion_from_matrix, (3, 3)),
    (lambda x: geodesic_distance(x, torch.eye(3, dtype=x.dtype)), (3, 3)),
]


@pytest.mark.parametrize(("function", "event"), FUNCTIONS)
@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(function, event, batch, dtype):
    x = rotations(0, *batch) if event == (3, 3) else randn(0, *batch, *event)
    result = function(x.to(dtype))
    assert result.dtype == dtype
    assert result.shape[: len(batch)] == batch
    if batch == (2, 3):
        for i in range(2):
            for j in range(3):
                torch.testing.assert_close(result[i, j], function(x.to(dtype)[i, j]))


# At identity, at half a turn, and elsewhere.
@pytest.mark.parametrize(("function", "event"), FUNCTIONS)
def test_derivatives_under_torch_func(function, event):
    matrix = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, -1.0, -1.0]))]).double()
    matrix = torch.cat([matrix, rotations(0, 3)])
    x = {
        (3, 3): matrix,
        (6,): torch.cat([sixd_from_matrix(matrix), torch.tensor(DEGENERATE).double()]),
        (4,): quaternion_from_matrix(matrix),
        (3,): torch.cat([torch.zeros(1, 3), randn(1, 4, 3)]).double(),
    }[event]
    reverse, forward = vmap(jacrev(function))(x), vmap(jacfwd(function))(x)
    assert reverse.isfinite().all()
    torch.testing.assert_close(reverse, forward)


def test_wrong_input():
    for function, name, event in (
        (matrix_from_6d, "6D numbers", r"\(\.\.\., 6\)"),
        (sixd_from_matrix, "rotation matrices", r"\(\.\.\., 3, 3\)"),
        (matrix_from_axis_angle, "rotation vectors", r"\(\.\.\., 3\)"),
        (axis_angle_from_matrix, "rotation matrices", r"\(\.\.\., 3, 3\)"),
        (matrix_from_quaternion, "quaternions", r"\(\.\.\., 4\)"),
        (quaternion_from_matrix, "rotation matrices", r"\(\.\.\., 3, 3\)"),
    ):
        with pytest.raises(InputError, match=rf"expected {name} of shape {event}, got \(2, 5\)"):
            function(torch.zeros(2, 5))
    with pytest.raises(InputError, match=r"floating-point 6D numbers, got torch.int64"):
        matrix_from_6d(torch.zeros(6, dtype=torch.int64))
    with pytest.raises(InputError, match="order wxyz or xyzw, got 'wzyx'"):
        matrix_from_quaternion(torch.zeros(4), "wzyx")
    with pytest.raises(InputError, match="order wxyz or xyzw"):
        quaternion_from_matrix(torch.eye(3), "zyx")
    with pytest.raises(InputError, match=r"got \(3,\)"):
        geodesic_distance(torch.eye(3), torch.zeros(3))
    assert matrix_from_quaternion(torch.zeros(4)).isnan().any()
