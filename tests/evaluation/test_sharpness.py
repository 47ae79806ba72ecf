import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from propose_prob.evaluation.sharpness import SpreadErrorHistogram


def pairs(seed=0, count=3000, noise=0.5):
    rng = np.random.default_rng(seed)
    spread = np.exp(rng.normal(-3, 0.6, count))
    error = spread * np.exp(rng.normal(0, noise, count))
    return torch.from_numpy(spread), torch.from_numpy(error)


def fill(*batches, **options):
    histogram = SpreadErrorHistogram(**options)
    for batch in batches:
        histogram.update(*batch)
    return histogram


def sparsification(key, error, steps=20):
    ordered = error[np.argsort(key)]
    kept = [len(error) - round(len(error) * step / steps) for step in range(steps)]
    return np.array([ordered[:n].mean() for n in kept])


@pytest.mark.parametrize("noise", [0.1, 0.5, 1.0])
def test_correlation_and_curves_are_those_of_all_items(noise):
    spread, error = pairs(noise=noise)
    result = fill((spread, error)).compute()
    spread, error = spread.numpy(), error.numpy()
    assert result.spearman == pytest.approx(stats.spearmanr(spread, error).statistic, abs=2e-3)
    by_spread, by_error = sparsification(spread, error), sparsification(error, error)
    np.testing.assert_allclose(result.by_spread, by_spread, rtol=0.03)
    np.testing.assert_allclose(result.by_error, by_error, rtol=0.01)
    gap = np.append((by_spread - by_error) / error.mean(), 0)
    assert result.ause == pytest.approx(np.trapezoid(gap, dx=0.05), abs=3e-3)
    order = np.argsort(spread)
    np.testing.assert_allclose(result.spread, spread[order].reshape(10, -1).mean(1), rtol=0.05)
    np.testing.assert_allclose(result.error, error[order].reshape(10, -1).mean(1), rtol=0.05)


def test_correlation_of_the_cells_is_exactly_scipys():
    spread, error = pairs(count=500)
    histogram = fill((spread, error), bins=12, low=0.01, high=0.3)
    cells = [histogram._cell(value).numpy() for value in (spread, error)]
    expected = stats.spearmanr(*cells).statistic
    assert histogram.compute().spearman == pytest.approx(expected, abs=1e-12)


def test_no_information_is_no_correlation_and_random_removal():
    spread, error = pairs(count=20_000)
    shuffled = error[torch.randperm(20_000, generator=torch.Generator().manual_seed(0))]
    result = fill((spread, shuffled)).compute()
    assert abs(result.spearman) < 0.03
    assert (result.by_spread / result.by_spread[0] - 1).abs().max() < 0.1


def test_errors_turn_every_one_scale_alone():
    """Correlation and the area have no unit."""
    spread, error = pairs()
    one, other = fill((spread, error)).compute(), fill((spread, 10 * error)).compute()
    assert other.spearman == pytest.approx(one.spearman, abs=2e-3)
    assert other.ause == pytest.approx(one.ause, abs=5e-3)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**31), cut=st.integers(0, 200))
def test_streaming_merging_and_order(seed, cut):
    spread, error = pairs(seed, 200)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
    whole = fill((spread, error)).compute()
    merged = fill((spread[:cut], error[:cut]))
    merged.merge(fill((spread[cut:], error[cut:])))
    for other in (merged.compute(), fill((spread[order], error[order])).compute()):
        assert other.spearman == pytest.approx(whole.spearman)
        assert other.ause == pytest.approx(whole.ause)
        torch.testing.assert_close(other.by_spread, whole.by_spread)


def test_masked_items_do_not_count():
    spread, error = pairs(count=100)
    bad = torch.full_like(spread, torch.nan)
    mask = torch.arange(200) < 100
    masked = fill((torch.cat([spread, bad]), torch.cat([error, bad]), mask)).compute()
    assert masked.count == 100
    assert masked.spearman == fill((spread, error)).compute().spearman


def test_nothing_is_not_a_number():
    result = SpreadErrorHistogram().compute()
    assert np.isnan(result.spearman) and np.isnan(result.ause) and result.count == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fill((torch.ones(3), torch.ones(2))), "of one shape"),
        (lambda: fill((-torch.ones(3), torch.ones(3))), "negative value or NaN"),
        (lambda: fill((torch.ones(3), torch.full((3,), torch.nan))), "negative value or NaN"),
        (lambda: SpreadErrorHistogram(bins=1), "bins >= 2"),
        (lambda: SpreadErrorHistogram().merge(SpreadErrorHistogram(bins=9)), "same grid"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
