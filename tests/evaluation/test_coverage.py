import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from propose_prob.distributions import FlowDistribution
from propose_prob.distributions.flow import diagonal_normal
from propose_prob.evaluation.coverage import PITHistogram, RankHistogram, rank_among
from propose_prob.transforms import DiagonalAffine
from tests.zoo import FLOW_DISTRIBUTIONS


def draws(width=1.0, *, samples=49, items=3000, joints=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples + 1, items, joints, 3, generator=generator)
    return width * x[1:], x[0]


def pit(samples, target, mask=None, **options):
    histogram = PITHistogram(target.shape[1], **options)
    histogram.update(samples, target, mask)
    return histogram


def test_the_right_distribution_is_flat_for_few_and_many_samples():
    for samples in (2, 49, 50):
        density = pit(*draws(samples=samples), bins=10).compute()
        counts = density.numpy() * 3000 / 10
        p = stats.chisquare(counts.reshape(10, -1), axis=0).pvalue
        assert p.min() > 1e-3


def test_shapes_tell_too_wide_too_narrow_and_biased():
    wide, narrow = (pit(*draws(w)).compute().mean((1, 2)) for w in (2.0, 0.5))
    assert wide[9:11].mean() > 1.3 and wide[0] < 0.5
    assert narrow[0] > 2 and narrow[9:11].mean() < 0.7
    samples, target = draws()
    moved = pit(samples, target + 1).compute().mean((1, 2))
    assert moved[-1] > 2 and moved[0] < 0.5


def test_coverage_equals_numpy_quantiles():
    samples, target = draws(0.7, samples=999, items=400)
    coverage = pit(samples, target, levels=(0.5, 0.9)).coverage()
    for row, level in enumerate((0.5, 0.9)):
        low, high = np.quantile(samples.numpy(), [(1 - level) / 2, (1 + level) / 2], axis=0)
        inside = ((low <= target.numpy()) & (target.numpy() <= high)).mean(0)
        np.testing.assert_allclose(coverage.frequencies[row], inside, atol=0.01)
    exact = 2 * stats.norm.cdf(0.7 * stats.norm.ppf(0.95)) - 1
    assert coverage.axes[1].mean() == pytest.approx(exact, abs=0.03)
    table = coverage.to_table().splitlines()
    assert table[0].split() == ["interval", "x", "y", "z"] and table[2].split()[0] == "90%"


def test_masked_joints_do_not_count():
    samples, target = draws(items=50)
    mask = torch.ones(50, 2, dtype=torch.bool)
    mask[:, 1] = False
    samples[:, :, 1] = torch.nan
    histogram = pit(samples, target, mask)
    assert histogram.compute()[:, 1].isnan().all()
    assert histogram.coverage().counts.tolist() == [50, 0]
    assert histogram.coverage().axes.isfinite().all()


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), cut=st.integers(0, 40))
def test_streaming_and_merging(seed, cut):
    samples, target = draws(items=40, seed=seed)
    whole, parts = pit(samples, target), PITHistogram(2)
    parts.update(samples[:, :cut], target[:cut])
    parts.update(samples[:, cut:], target[cut:])
    torch.testing.assert_close(parts.compute(), whole.compute(), atol=0, rtol=0)
    one, two = pit(samples, target, seed=1), pit(samples, target, seed=2)
    expected = (one.compute() + two.compute()) / 2
    one.merge(two)
    torch.testing.assert_close(one.compute(), expected)
    assert one.coverage().counts.tolist() == [80, 80]


def test_ranks_equal_scipy_and_ties_are_random():
    samples, target = draws(samples=9, items=40)
    ranks = rank_among(samples, target)
    stacked = np.concatenate([target[None].numpy(), samples.numpy()])
    np.testing.assert_array_equal(ranks, stats.rankdata(stacked, axis=0)[0] - 1)
    tied = rank_among(torch.zeros(4, 5000), torch.zeros(5000))
    assert np.bincount(tied, minlength=5).min() > 850


@pytest.mark.parametrize("name", ["flow_pagd_affine", "flow_pagd_glow_additive"])
def test_sbc_of_an_exact_distribution_is_uniform_and_finds_a_wrong_one(name):
    torch.manual_seed(0)
    distribution = FLOW_DISTRIBUTIONS[name].frozen_distribution(600)
    samples, truth = distribution.sample((19,)), distribution.sample()

    def sbc(value):
        density = rank_among(distribution.log_prob(samples), distribution.log_prob(value))
        return RankHistogram(19, bins=20), density

    histogram, ranks = sbc(truth)
    histogram.update(ranks)
    result = histogram.compute()
    assert result.count == 600
    assert stats.chi2.sf(float(result.chi2), 19) > 1e-3
    center = distribution.center
    histogram, ranks = sbc(center + 0.5 * (truth - center))
    histogram.update(ranks)
    assert stats.chi2.sf(float(histogram.compute().chi2), 19) < 1e-6


def test_sbc_sees_what_marginals_do_not():
    """Coordinates in the wrong order have uniform marginals, but not a uniform density's rank."""
    torch.manual_seed(0)
    scale = torch.tensor([1.0, 1.0])
    lower = torch.tensor([[1.0, 0.0], [0.9, 0.436]])
    base = torch.distributions.MultivariateNormal(torch.zeros(2), scale_tril=lower)
    flow = FlowDistribution(diagonal_normal(torch.zeros(2), scale), DiagonalAffine(scale, scale))
    assert flow.log_prob(torch.zeros(2)).isfinite()
    truth = base.sample((4000,)) * torch.tensor([1.0, -1.0])
    samples = base.sample((19, 4000))
    marginal, density = RankHistogram(19, shape=(2,)), RankHistogram(19)
    marginal.update(rank_among(samples, truth))
    density.update(rank_among(base.log_prob(samples), base.log_prob(truth)))
    assert marginal.compute().distance.max() < 0.03 < 0.2 < density.compute().distance


def test_rank_histograms_are_merged():
    one, two = RankHistogram(9, bins=5), RankHistogram(9, bins=5)
    one.update(torch.tensor([0, 1, 2]))
    two.update(torch.tensor([9]))
    one.merge(two)
    assert one.compute().density.tolist() == [2.5, 1.25, 0, 0, 1.25]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RankHistogram(20, bins=20), "divide num_samples"),
        (lambda: RankHistogram(19).update(torch.tensor([20])), "between 0 and S = 19"),
        (lambda: RankHistogram(19).update(torch.zeros(2, 2).long()), "ranks of shape"),
        (lambda: RankHistogram(19).merge(RankHistogram(39)), "same samples"),
        (lambda: rank_among(torch.zeros(3, 2), torch.zeros(3)), "samples of shape"),
        (lambda: PITHistogram(3, bins=1), "bins >= 2"),
        (lambda: PITHistogram(3, levels=(1.0,)), "between 0 and 1"),
        (lambda: PITHistogram(3).merge(PITHistogram(2)), "same joints"),
        (lambda: PITHistogram(3).update(*draws(items=2)), "expected 3 joints, got 2"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
