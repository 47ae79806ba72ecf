import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from propose_prob.evaluation import CalibrationCurve, energy_scores, mpjpe
from propose_prob.evaluation.calibration import LEVELS, Calibration, calibration_hits
from propose_prob.evaluation.metrics import best_of

seeds = st.integers(0, 2**32 - 1)


def gaussian(width, *, num_samples=50, items=2000, joints=16, seed=0):
    """Samples of a distribution ``width`` times as wide as the one that the truth comes from."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(items, joints, 3, generator=generator)
    scale = torch.rand(items, joints, 3, generator=generator) + 0.1
    noise = torch.randn(num_samples, items, joints, 3, generator=generator)
    target = center + scale * torch.randn(items, joints, 3, generator=generator)
    return center + width * scale * noise, target


def calibrate(samples, target, mask=None, **options):
    curve = CalibrationCurve(samples.shape[2], **options)
    curve.update(samples, target, mask)
    return curve.compute()


def reference(samples, target, mask):
    """The definition, item by item, in numpy."""
    levels = np.arange(21) / 20
    frequencies = np.full((21, target.shape[1]), np.nan)
    for j in range(target.shape[1]):
        inside = []
        for b in np.flatnonzero(mask[:, j]):
            median = np.median(samples[:, b, j], axis=0)
            errors = np.linalg.norm(samples[:, b, j] - median, axis=-1)
            inside.append(np.quantile(errors, levels) >= np.linalg.norm(target[b, j] - median))
        if inside:
            frequencies[:, j] = np.mean(inside, axis=0)
    gap = np.nanmedian(frequencies, axis=1) - levels
    return frequencies, np.abs(gap).mean(), gap.mean()


@pytest.mark.parametrize("num_samples", [1, 2, 20, 21, 50])
def test_calibration_equals_numpy(num_samples):
    samples, target = gaussian(0.8, num_samples=num_samples, items=40, joints=7)
    samples, target = samples.double(), target.double()
    mask = torch.rand(40, 7, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[:, 2] = False
    result = calibrate(samples, target, mask)
    frequencies, error, signed = reference(samples.numpy(), target.numpy(), mask.numpy())
    np.testing.assert_allclose(result.frequencies.numpy(), frequencies)
    assert result.error == pytest.approx(error) and result.signed == pytest.approx(signed)
    assert result.counts.tolist() == mask.sum(0).tolist()


def test_levels_are_twenty_steps():
    assert tuple(np.round(np.arange(21) * 0.05, 2)) == LEVELS


def test_samples_of_the_truth_are_calibrated():
    for num_samples, error in ((50, 0.0165), (200, 0.005)):
        result = calibrate(*gaussian(1.0, num_samples=num_samples))
        assert result.error == pytest.approx(error, abs=0.006)
        assert result.signed == pytest.approx(-error, abs=0.008)


def test_the_sign_tells_too_narrow_from_too_wide():
    narrow, wide = calibrate(*gaussian(0.5)), calibrate(*gaussian(2.0))
    assert narrow.signed < -0.15 and narrow.error > 0.15
    assert wide.signed > 0.15 and wide.error > 0.15


def test_the_best_of_many_rewards_the_wrong_spread_and_proper_scores_do_not():
    minimum, energy, calibration = {}, {}, {}
    for width in (0.5, 0.75, 1.0, 1.5):
        samples, target = gaussian(width, num_samples=200, items=300)
        minimum[width] = best_of(mpjpe(samples, target), 200).mean().item()
        scores = energy_scores(samples, target)
        energy[width] = (scores.joints.mean().item(), scores.pose.mean().item())
        calibration[width] = calibrate(samples, target).error
    assert min(minimum, key=minimum.get) == 0.5
    assert minimum[0.5] < 0.95 * minimum[1.0]
    for part in (0, 1):
        assert min(energy, key=lambda width, part=part: energy[width][part]) == 1.0
    assert min(calibration, key=calibration.get) == 1.0


def test_a_fixed_root_counts_only_when_left_in():
    samples, target = gaussian(0.5, items=200, joints=2)
    samples = torch.cat([torch.zeros_like(samples[:, :, :1]), samples], dim=2)
    target = torch.cat([torch.zeros_like(target[:, :1]), target], dim=1)
    without = calibrate(samples[:, :, 1:], target[:, 1:])
    excluded = calibrate(samples, target, fixed_joints=(0,))
    assert excluded.error == without.error and excluded.signed == without.signed
    assert excluded.frequencies[:, 0].isnan().all()
    assert calibrate(samples, target).frequencies[:, 0].eq(1).all()


def test_masks_separate_seen_from_hidden_joints():
    good, target = gaussian(1.0, items=1500, joints=8)
    mask = torch.rand(1500, 8, generator=torch.Generator().manual_seed(1)) < 0.5
    center = good.mean(0)
    samples = torch.where(mask[..., None], good, center + 0.4 * (good - center))
    seen, hidden = calibrate(samples, target, mask), calibrate(samples, target, ~mask)
    assert seen.error < 0.04 and hidden.signed < -0.2
    assert (seen.counts + hidden.counts == 1500).all()


@settings(max_examples=15, deadline=None)
@given(seed=seeds, cuts=st.lists(st.integers(0, 30), max_size=3))
def test_streaming_equals_one_batch(seed, cuts):
    samples, target = gaussian(0.9, num_samples=11, items=30, joints=4, seed=seed)
    mask = torch.rand(30, 4, generator=torch.Generator().manual_seed(seed)) < 0.7
    bounds = [0, *sorted(cuts), 30]
    curve = CalibrationCurve(4)
    for start, stop in itertools.pairwise(bounds):
        curve.update(samples[:, start:stop], target[start:stop], mask[start:stop])
    whole, streamed = calibrate(samples, target, mask), curve.compute()
    assert torch.equal(whole.counts, streamed.counts)
    torch.testing.assert_close(
        whole.frequencies, streamed.frequencies, rtol=0, atol=0, equal_nan=True
    )


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_order_of_samples_and_items_does_not_matter(seed):
    samples, target = gaussian(0.9, num_samples=12, items=20, joints=4, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    order, items = torch.randperm(12, generator=generator), torch.randperm(20, generator=generator)
    shuffled = calibration_hits(samples[order][:, items], target[items])
    assert torch.equal(shuffled, calibration_hits(samples, target)[:, items])


def test_quarter_turns_do_not_matter():
    """The coordinatewise median commutes with exchanges of axes (not with every rotation)."""
    samples, target = gaussian(0.9, num_samples=15, items=50, joints=4)
    turn = torch.from_numpy(Rotation.from_euler("xyz", [90, 180, 270], degrees=True).as_matrix())
    turn = turn.round().float()
    turned = calibration_hits(samples @ turn.T, target @ turn.T)
    assert (turned != calibration_hits(samples, target)).float().mean() < 0.001


def test_balanced_weighs_groups_equally():
    curves, parts = [], []
    for items, width in ((10, 0.5), (400, 1.5)):
        samples, target = gaussian(width, num_samples=20, items=items, joints=3)
        curve = CalibrationCurve(3)
        curve.update(samples, target)
        curves.append(curve)
        parts.append(curve.frequencies())
    result = CalibrationCurve.balanced(curves)
    torch.testing.assert_close(result.frequencies, (parts[0] + parts[1]) / 2)
    assert result.counts.tolist() == [410] * 3


def test_processes_are_merged():
    samples, target = gaussian(0.9, num_samples=11, items=30, joints=4)
    one, two = CalibrationCurve(4), CalibrationCurve(4)
    one.update(samples[:, :7], target[:7])
    two.update(samples[:, 7:], target[7:])
    one.merge(two)
    whole = calibrate(samples, target)
    assert torch.equal(one.compute().frequencies, whole.frequencies)
    assert torch.equal(one.compute().counts, whole.counts)
    with pytest.raises(ValueError, match="same joints"):
        one.merge(CalibrationCurve(4, fixed_joints=(0,)))


def test_nothing_measured_is_not_a_number():
    result = CalibrationCurve(3).compute()
    assert isinstance(result, Calibration) and np.isnan(result.error) and np.isnan(result.signed)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CalibrationCurve(3, fixed_joints=(3,)), "between 0 and 2, got 3"),
        (lambda: calibrate(torch.zeros(5, 2, 3), torch.zeros(2, 3)), r"\(S, B, J, 3\)"),
        (lambda: calibrate(torch.zeros(5, 2, 3, 3), torch.zeros(2, 4, 3)), r"\(2, 4, 3\)"),
        (
            lambda: calibrate(torch.zeros(5, 2, 3, 3), torch.zeros(2, 3, 3), torch.ones(3)),
            r"mask of shape \(B, J\)",
        ),
        (
            lambda: CalibrationCurve(3).update(torch.zeros(5, 2, 4, 3), torch.zeros(2, 4, 3)),
            r"hits of shape \(21, B, 3\)",
        ),
        (lambda: CalibrationCurve.balanced([]), "at least one calibration curve"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
