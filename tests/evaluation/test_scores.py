import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from scipy.spatial.transform import Rotation

from propose_prob.evaluation import energy_scores
from propose_prob.evaluation.scores import crps, joint_spread, nll_per_coordinate

seeds = st.integers(0, 2**32 - 1)


def draw(seed, num_samples=9, batch=4, joints=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(num_samples, batch, joints, 3, generator=generator, dtype=dtype)
    return samples, torch.randn(batch, joints, 3, generator=generator, dtype=dtype)


def energy_reference(samples, target):
    """Energy score of (S, D) samples by scipy."""
    return cdist(samples, target[None]).mean() - pdist(samples).mean() / 2


@pytest.mark.parametrize("num_samples", [2, 9, 10])
def test_energy_scores_equal_scipy(num_samples):
    samples, target = draw(0, num_samples)
    joints, pose = energy_scores(samples, target)
    for b in range(4):
        x, y = samples[:, b].numpy(), target[b].numpy()
        whole = energy_reference(x.reshape(num_samples, -1), y.reshape(-1))
        assert math.isclose(pose[b].item(), whole, rel_tol=1e-12)
        for j in range(5):
            expected = energy_reference(x[:, j], y[j])
            assert math.isclose(joints[b, j].item(), expected, rel_tol=1e-10)


def test_masked_energy_scores_are_those_of_the_kept_joints():
    samples, target = draw(0)
    mask = torch.tensor([[1, 1, 0, 0, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 1, 0, 0, 0]]).bool()
    samples[:, ~mask] = torch.nan
    joints, pose = energy_scores(samples, target, mask=mask)
    assert (joints.isnan() == ~mask).all() and pose[2].isnan()
    for b in (0, 1, 3):
        kept = samples[:, b][:, mask[b]].numpy().reshape(9, -1)
        expected = energy_reference(kept, target[b][mask[b]].numpy().reshape(-1))
        assert math.isclose(pose[b].item(), expected, rel_tol=1e-12)


def test_chunks_do_not_change_the_scores(monkeypatch):
    samples, target = draw(0, batch=7)
    mask = torch.rand(7, 5, generator=torch.Generator().manual_seed(1)) < 0.7
    whole, masked = energy_scores(samples, target), energy_scores(samples, target, mask=mask)
    monkeypatch.setattr("propose_prob.evaluation.scores._CPU_CHUNK", 9 * 5 * 2)
    for a, b in zip(energy_scores(samples, target), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    for a, b in zip(energy_scores(samples, target, mask=mask), masked, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, equal_nan=True)


def test_a_point_distribution_scores_its_error():
    _, target = draw(0)
    joints, pose = energy_scores(torch.zeros(6, 4, 5, 3, dtype=torch.float64), target)
    torch.testing.assert_close(joints, target.norm(dim=-1))
    torch.testing.assert_close(pose, target.flatten(1).norm(dim=-1))


def test_energy_score_is_unbiased():
    """The mean over many draws of S = 3 equals the score from many samples."""
    generator = torch.Generator().manual_seed(0)
    target = torch.ones(1, 1, 3).expand(20000, 1, 3)
    few = energy_scores(torch.randn(3, 20000, 1, 3, generator=generator), target).pose
    many = energy_scores(torch.randn(4000, 1, 1, 3, generator=generator), target[:1]).pose
    assert abs(few.mean() - many[0]) < 0.03


@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_scores_forget_sample_order_and_turn_with_the_pose(seed):
    samples, target = draw(seed)
    rotation = torch.from_numpy(Rotation.random(random_state=seed % 2**31).as_matrix())
    generator = torch.Generator().manual_seed(seed)
    order, items = torch.randperm(9, generator=generator), torch.randperm(4, generator=generator)
    before = energy_scores(samples, target)
    shuffled = energy_scores(samples[order][:, items], target[items])
    turned = energy_scores(samples @ rotation.T, target @ rotation.T)
    for a, b, c in zip(before, shuffled, turned, strict=True):
        torch.testing.assert_close(a[items], b)
        torch.testing.assert_close(a, c)
    torch.testing.assert_close(joint_spread(samples @ rotation.T), joint_spread(samples))


def test_spread_equals_numpy():
    samples, _ = draw(0)
    expected = np.sqrt(samples.numpy().var(0).sum(-1))
    np.testing.assert_allclose(joint_spread(samples).numpy(), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: energy_scores(torch.zeros(1, 2, 5, 3), torch.zeros(2, 5, 3)), "at least 2 sampl"),
        (lambda: energy_scores(torch.zeros(4, 5, 3), torch.zeros(5, 3)), r"\(S, B, J, 3\)"),
        (lambda: energy_scores(torch.zeros(4, 2, 5, 3), torch.zeros(2, 4, 3)), r"\(2, 4, 3\)"),
        (
            lambda: energy_scores(
                torch.zeros(4, 2, 5, 3), torch.zeros(2, 5, 3), mask=torch.ones(2, 4)
            ),
            r"mask of shape \(B, J\) = \(2, 5\), got \(2, 4\)",
        ),
        (lambda: joint_spread(torch.zeros(4, 5, 2)), r"\(S, ..., J, 3\)"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_crps_equals_the_plain_double_sum_and_the_integral():
    samples, target = draw(0)
    x, y = samples.numpy(), target.numpy()
    count = len(x)
    distance = np.abs(x[:, None] - x[None]).sum((0, 1)) / (count * (count - 1))
    expected = np.abs(x - y).mean(0) - distance / 2
    np.testing.assert_allclose(crps(samples, target).numpy(), expected, atol=1e-12)
    # The integral of the squared gap of distribution functions pairs samples with themselves too.
    grid = np.linspace(-30, 30, 600_001)
    cdf = (x[:, 0, 0, 0][:, None] <= grid).mean(0)
    integral = np.trapezoid((cdf - (y[0, 0, 0] <= grid)) ** 2, grid)
    pairs = np.abs(x[:, None, 0, 0, 0] - x[None, :, 0, 0, 0]).mean() / 2
    biased = np.abs(x[:, 0, 0, 0] - y[0, 0, 0]).mean() - pairs
    assert integral == pytest.approx(biased, abs=1e-3)


def test_crps_of_a_gaussian_is_the_known_number():
    from scipy.stats import norm

    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(4000, 1, 50, 3, generator=generator, dtype=torch.float64)
    target = torch.linspace(-3, 3, 50).double()[:, None].expand(1, 50, 3)
    y = target.numpy()
    expected = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(crps(samples, target), expected, atol=0.08)


def test_crps_finds_the_true_spread_and_ignores_order_and_offset():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(50, 700, 4, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(700, 4, 3, generator=generator, dtype=torch.float64)
    score = {width: float(crps(width * x, y).mean()) for width in (0.5, 0.8, 1.0, 1.25, 2.0)}
    assert min(score, key=score.get) == 1.0
    order = torch.randperm(50, generator=generator)
    torch.testing.assert_close(crps(x[order], y), crps(x, y))
    torch.testing.assert_close(crps(x + 100, y + 100), crps(x, y))
    single = crps((x + 100).float(), (y + 100).float())
    torch.testing.assert_close(single.double(), crps(x, y), atol=1e-4, rtol=0)


def test_nll_has_units():
    distribution = torch.distributions.Normal(torch.zeros(48).double(), 0.02)
    x = distribution.sample((500,))
    value = nll_per_coordinate(distribution.log_prob(x).sum(-1), 17)
    assert float(value.mean()) == pytest.approx(float(distribution.entropy()[0]), abs=0.02)
    millimeters = torch.distributions.Normal(torch.zeros(48).double(), 20.0)
    other = nll_per_coordinate(millimeters.log_prob(1000 * x).sum(-1), 17)
    torch.testing.assert_close(other - value, torch.full((500,), np.log(1000)).double())
    with pytest.raises(ValueError, match="at least 2 joints, got 1"):
        nll_per_coordinate(value, 1)
    with pytest.raises(ValueError, match="at least 2 samples"):
        crps(torch.zeros(1, 2, 5, 3), torch.zeros(2, 5, 3))
