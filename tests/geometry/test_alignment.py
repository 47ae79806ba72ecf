import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from propose_prob.geometry.alignment import procrustes

SEEDS = st.integers(0, 2**31)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def reference(source, target, weights, *, scale):
    """A second way: scipy's rotation, then scale and translation by least squares."""
    share = weights / weights.sum()
    a, b = source - share @ source, target - share @ target
    rotation, _ = Rotation.align_vectors(b, a, weights=share)
    turned = rotation.apply(a)
    factor = (share[:, None] * turned * b).sum() / (share[:, None] * a * a).sum() if scale else 1.0
    return factor * turned + share @ target


@pytest.mark.filterwarnings("ignore:Optimal rotation is not uniquely:UserWarning")
@given(SEEDS, st.booleans())
def test_equals_scipy(seed, scale):
    source, target = randn(seed, 2, 9, 3)
    target = target + 0.5 * source
    weights = randn(seed + 1, 9).abs() + 0.1
    result = procrustes(source, target, scale=scale, weights=weights)
    expected = reference(source.numpy(), target.numpy(), weights.numpy(), scale=scale)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-9)


@given(SEEDS, st.floats(0.1, 10))
def test_undoes_a_similarity(seed, size):
    pose = randn(seed, 17, 3)
    rotation = torch.from_numpy(Rotation.random(rng=seed).as_matrix())
    moved = size * pose @ rotation.T + randn(seed + 1, 3)
    torch.testing.assert_close(procrustes(pose, moved), moved)
    torch.testing.assert_close(
        procrustes(pose, moved / size, scale=False), moved / size, rtol=1e-7, atol=1e-7
    )


@given(SEEDS, st.booleans())
def test_never_mirrors(seed, scale):
    pose = randn(seed, 17, 3)
    mirrored = pose * pose.new_tensor([-1.0, 1.0, 1.0])
    result = procrustes(pose, mirrored, scale=scale)
    assert (result - mirrored).square().sum() > 1e-3
    a, b = pose - pose.mean(0), result - result.mean(0)
    handed = torch.linalg.det(torch.linalg.lstsq(a, b).solution)
    assert handed > 0


@given(SEEDS, st.booleans())
def test_no_rigid_perturbation_is_better(seed, scale):
    source, target = randn(seed, 2, 8, 3)
    weights = randn(seed + 1, 8).abs()
    best = procrustes(source, target, scale=scale, weights=weights)

    def loss(pose):
        return (weights.unsqueeze(-1) * (pose - target).square()).sum()

    turns = torch.from_numpy(Rotation.from_rotvec(0.05 * randn(seed + 2, 20, 3)).as_matrix())
    center = best.mean(0)
    others = (best - center) @ turns.transpose(-1, -2) + center + 0.02 * randn(seed + 3, 20, 1, 3)
    assert all(loss(best) <= loss(other) + 1e-9 for other in others)


@given(SEEDS)
def test_left_out_joints_do_not_count(seed):
    source, target = randn(seed, 2, 10, 3)
    mask = torch.ones(10, dtype=torch.bool)
    mask[7:] = False
    broken = target.clone()
    broken[7:] = math.nan
    result = procrustes(source, broken, weights=mask)
    torch.testing.assert_close(result[:7], procrustes(source[:7], target[:7]))
    assert result.isfinite().all()


def test_broadcasts_and_equals_the_loop():
    source, target = randn(0, 5, 2, 17, 3), randn(1, 2, 17, 3)
    weights = randn(2, 2, 17).abs()
    result = procrustes(source, target, weights=weights)
    assert result.shape == (5, 2, 17, 3)
    for s in range(5):
        for b in range(2):
            torch.testing.assert_close(
                result[s, b], procrustes(source[s, b], target[b], weights=weights[b])
            )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [True, False])
def test_degenerate_poses_stay_finite(dtype, scale):
    line = torch.linspace(0, 1, 5, dtype=dtype).unsqueeze(-1) * torch.ones(3, dtype=dtype)
    point = torch.full((5, 3), 0.3, dtype=dtype)
    plane = randn(0, 5, 3).to(dtype) * line.new_tensor([1, 1, 0])
    for source in (line, point, plane, torch.zeros_like(line)):
        for target in (line, point, plane, -plane, torch.zeros_like(line)):
            result = procrustes(source, target, scale=scale)
            assert result.isfinite().all()
            assert result.dtype == dtype
            torch.testing.assert_close(result.mean(0), target.mean(0))
    torch.testing.assert_close(procrustes(line, -line), -line)
    torch.testing.assert_close(procrustes(point, plane), plane.mean(0).expand(5, 3))


def test_two_dimensions():
    pose = randn(0, 8, 2)
    turned = pose @ pose.new_tensor([[0.0, 1.0], [-1.0, 0.0]])
    torch.testing.assert_close(procrustes(pose, turned), turned)
    mirrored = pose * pose.new_tensor([-1.0, 1.0])
    assert (procrustes(pose, mirrored) - mirrored).abs().max() > 0.1


def test_gradient():
    source, target = randn(3, 2, 6, 3)
    inputs = (source.requires_grad_(), target.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: procrustes(a, b), inputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(4, 3), torch.zeros(5, 3)), r"\(J, D\), got \(4, 3\) and \(5, 3\)"),
        ((torch.zeros(4, 4), torch.zeros(4, 4)), "2 or 3 coordinates in the last dimension, got 4"),
        ((torch.zeros(4, 3), torch.zeros(4, 3), torch.ones(3)), r"weights of shape \(\.\.\., 4\)"),
        ((torch.zeros(4, 3), torch.zeros(4, 3), torch.zeros(4)), "positive sum"),
        ((torch.zeros(4, 3), torch.zeros(4, 3), -torch.ones(4)), "weights >= 0"),
        ((torch.zeros(4, 3), torch.full((4, 3), math.nan)), "expected finite coordinates"),
    ],
)
def test_wrong_input(arguments, message):
    source, target, *weights = arguments
    with pytest.raises(ValueError, match=message):
        procrustes(source, target, weights=weights[0] if weights else None)
