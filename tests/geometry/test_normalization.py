import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propose_prob.errors import InputError
from propose_prob.geometry.normalization import (
    denormalize_keypoints,
    normalize_keypoints,
    screen_denormalize,
    screen_normalize,
    visible_joints,
)

SEEDS = st.integers(0, 2**31)
BATCHES = st.sampled_from([(), (1,), (3,), (2, 3)])


def poses(seed, batch=(), joints=17):
    generator = torch.Generator().manual_seed(seed)
    pose = torch.randn(*batch, joints, 2, dtype=torch.float64, generator=generator)
    confidence = torch.rand(*batch, joints, dtype=torch.float64, generator=generator)
    confidence[..., 2:] *= torch.rand(*batch, joints - 2, generator=generator) > 0.4
    return 300 * pose + 500, confidence


@given(SEEDS, BATCHES)
def test_round_trip_and_definition(seed, batch):
    p2d, confidence = poses(seed, batch)
    result = normalize_keypoints(p2d, confidence)
    visible = confidence > 0
    assert torch.equal(result.visible, visible)
    assert (result.p2d[~visible] == 0).all()
    torch.testing.assert_close(denormalize_keypoints(result.p2d, result)[visible], p2d[visible])
    count = visible.sum(-1)
    assert (result.p2d.sum(-2) / count.unsqueeze(-1)).abs().max() < 1e-12
    torch.testing.assert_close(
        result.p2d.square().sum((-1, -2)) / count, torch.ones(batch, dtype=torch.float64)
    )


@given(SEEDS, BATCHES)
def test_batched_equals_looped(seed, batch):
    p2d, confidence = poses(seed, batch)
    result = normalize_keypoints(p2d, confidence)
    for index in itertools.product(*map(range, batch)):
        single = normalize_keypoints(p2d[index], confidence[index])
        torch.testing.assert_close(single.p2d, result.p2d[index])
        torch.testing.assert_close(single.scale, result.scale[index])


@given(SEEDS, st.floats(0.1, 10), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_place_and_size_do_not_matter(seed, size, x, y):
    p2d, confidence = poses(seed)
    moved = p2d * size + torch.tensor([x, y], dtype=torch.float64)
    torch.testing.assert_close(
        normalize_keypoints(moved, confidence).p2d,
        normalize_keypoints(p2d, confidence).p2d,
        rtol=1e-8,
        atol=1e-8,
    )


@given(SEEDS)
def test_what_was_not_seen_does_not_matter(seed):
    p2d, confidence = poses(seed)
    hidden = confidence == 0
    expected = normalize_keypoints(p2d, confidence)
    for value in (math.nan, math.inf, 0.0, -1e9):
        other = p2d.clone()
        other[hidden] = value
        result = normalize_keypoints(other, confidence)
        assert torch.equal(result.p2d, expected.p2d)
        assert torch.equal(result.scale, expected.scale)


def test_one_scale_for_both_axes():
    result = normalize_keypoints(torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0], [4.0, 2.0]]))
    assert result.center.tolist() == [2, 1]
    assert result.scale.item() == pytest.approx(math.sqrt(5))
    assert result.p2d[3].tolist() == pytest.approx([2 / math.sqrt(5), 1 / math.sqrt(5)])


def test_nan_coordinates_count_as_missing():
    p2d, _ = poses(0)
    p2d[4, 1] = math.nan
    result = normalize_keypoints(p2d)
    assert result.visible.tolist() == [joint != 4 for joint in range(17)]
    assert result.p2d[4].tolist() == [0, 0]


def test_gradient():
    p2d, confidence = poses(1, (2,), joints=6)
    confidence[:, 5] = 0
    p2d[0, 5] = math.nan
    confidence[:, :5] = 1
    p2d[1, 5] = 0

    def seen_part(seen):
        full = torch.cat([seen, p2d[:, 5:]], dim=1)
        result = normalize_keypoints(full, confidence)
        return result.p2d, result.center, result.scale

    assert torch.autograd.gradcheck(seen_part, (p2d[:, :5].clone().requires_grad_(),))
    whole = p2d.clone().requires_grad_()
    normalize_keypoints(whole, confidence).p2d.square().sum().backward()
    assert whole.grad is not None
    assert (whole.grad[:, 5] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    result = normalize_keypoints(poses(0)[0].to(dtype))
    assert result.p2d.dtype == result.center.dtype == result.scale.dtype == dtype


def test_denormalize_broadcasts_over_samples():
    p2d, confidence = poses(3, (2,))
    result = normalize_keypoints(p2d, confidence)
    samples = torch.randn(5, 2, 17, 2, dtype=torch.float64)
    back = denormalize_keypoints(samples, result)
    assert back.shape == samples.shape
    torch.testing.assert_close(back[4, 1], samples[4, 1] * result.scale[1] + result.center[1])


@given(SEEDS, st.floats(1, 1e4), st.floats(1, 1e4))
def test_screen_round_trip(seed, width, height):
    p2d, _ = poses(seed, (2,))
    back = screen_denormalize(
        screen_normalize(p2d, width=width, height=height), width=width, height=height
    )
    torch.testing.assert_close(back, p2d)


def test_screen_corners():
    corners = torch.tensor([[0.0, 0.0], [1000.0, 500.0], [500.0, 250.0], [math.nan, 0.0]])
    result = screen_normalize(corners, width=1000, height=500)
    assert result[:3].tolist() == [[-1, -0.5], [1, 0.5], [0, 0]]
    assert result[3, 0].isnan()


def one_seen(batch):
    confidence = torch.ones(*batch, 17)
    confidence[..., -1, 1:] = 0
    return confidence


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: normalize_keypoints(torch.zeros(2)), r"\(\.\.\., J, 2\), got \(2,\)"),
        (lambda: normalize_keypoints(torch.zeros(17, 3)), r"\(\.\.\., 2\), got \(17, 3\)"),
        (lambda: normalize_keypoints(torch.zeros(17, 2).int()), "floating-point"),
        (
            lambda: normalize_keypoints(torch.randn(3, 17, 2), one_seen((3,))),
            "the pose at batch index 2 has 1 visible joints of 17; at least 2 are needed",
        ),
        (
            lambda: normalize_keypoints(torch.randn(2, 3, 17, 2), one_seen((2, 3))),
            r"batch index \(0, 2\) has 1 visible",
        ),
        (
            lambda: normalize_keypoints(torch.full((17, 2), math.nan)),
            "the pose has 0 visible joints",
        ),
        (
            lambda: normalize_keypoints(torch.full((4, 17, 2), 333.3)),
            "batch index 0 has no size: its 17",
        ),
        (lambda: normalize_keypoints(torch.zeros(17, 2)), "the pose has no size"),
        (
            lambda: normalize_keypoints(torch.randn(17, 2), torch.full((17,), math.nan)),
            "expected confidence between 0 and 1, got NaN for joint 0$",
        ),
        (
            lambda: normalize_keypoints(torch.randn(2, 17, 2), torch.full((2, 17), math.nan)),
            "got NaN for joint 0 at batch index 0",
        ),
        (
            lambda: visible_joints(torch.randn(2, 17, 2), torch.ones(17)),
            r"confidence of shape \(2, 17\), got \(17,\)",
        ),
        (lambda: screen_normalize(torch.zeros(3), width=1, height=1), r"got \(3,\)"),
        (lambda: screen_normalize(torch.zeros(2), width=0, height=5), "got 0 x 5"),
        (lambda: screen_denormalize(torch.zeros(2), width=5, height=math.nan), "got 5 x nan"),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
