import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from propose_prob.datasets.clips import EvaluationBatch
from propose_prob.distributions import RecalibratedDistribution
from propose_prob.distributions.recalibration import Recalibration, joint_groups
from propose_prob.errors import InputError
from propose_prob.evaluation import recalibrate
from propose_prob.evaluation.fit_recalibration import RecalibratedModel, _golden_section
from propose_prob.geometry.skeletons import Skeleton
from tests.zoo import small_propose

FOUR = Skeleton("four", ("root", "left", "right", "head"), (-1, 0, 0, 0), (0, 2, 1, 3), (None,) * 4)


class Set:
    """Keypoints and poses in memory."""

    name, split, keypoints, skeleton, stride = "toy", "val", "exact", FOUR, 1

    def __init__(self, p2d, p3d, *, valid=True):
        self.p2d, self.p3d, self.valid = p2d, p3d, valid

    def batches(self, size):
        for start in range(0, len(self.p2d), size):
            part = slice(start, start + size)
            count = len(self.p2d[part])
            yield EvaluationBatch(
                p2d=self.p2d[part],
                confidence=torch.ones(count, 4, dtype=self.p2d.dtype),
                p3d=self.p3d[part],
                focal=None,
                center=None,
                action=["a"] * count,
                sequence=["s"] * count,
                frame=torch.arange(len(self.p2d))[part],
                valid=torch.full((count,), self.valid),
            )


class Guesser(nn.Module):
    """Normal distributions around zero whose stated spread is wrong by a factor for each joint."""

    def __init__(self, factor, *, slot=False):
        super().__init__()
        self.factor = torch.tensor(factor)
        if slot:
            self.calibration = Recalibration(joint_groups(FOUR))
        self.calls = 0

    def conditional(
        self, p2d, confidence=None, *, focal=None, center=(0.0, 0.0), recalibrated=True
    ):
        self.calls += 1
        scale = (0.1 * self.factor)[:, None].expand(*p2d.shape[:-1], 3)
        hidden = (confidence == 0)[..., None]
        scale = torch.where(hidden, 0.5 * scale, scale)
        distribution = dist.Normal(torch.zeros_like(scale), scale).to_event(2)
        slot = getattr(self, "calibration", None)
        return (
            distribution
            if slot is None or not recalibrated
            else slot(distribution, p2d, confidence, focal=focal, center=center)
        )


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    p3d = 0.1 * torch.randn(300, 4, 3, generator=generator)
    p3d[:, 0] = 0
    return Set(100 * torch.randn(300, 4, 2, generator=generator), p3d)


@pytest.mark.parametrize("slot", [False, True])
def test_wrong_spreads_are_found_and_put_right(data, slot):
    model = Guesser([1.0, 2.0, 2.0, 0.8], slot=slot)
    state = torch.get_rng_state()
    result = recalibrate(model, [data], skeleton=FOUR, samples=50, hidden=(0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    factor = result.model.conditional(data.p2d, torch.ones(300, 4)).temperature.mean(0)
    torch.testing.assert_close(factor[1:], torch.tensor([0.5, 0.5, 1.25]), rtol=0.07, atol=0)
    # Hidden joints claim half of the spread that they have.
    headless = torch.tensor([1.0, 1.0, 1.0, 0.0]).expand(300, 4)
    factor = result.model.conditional(data.p2d, headless).temperature.mean(0)
    assert factor[3] == pytest.approx(2.5, rel=0.1)
    assert list(result.before) == list(result.after)
    assert list(result.before) == [
        "val exact, intrinsics unknown",
        "val exact, intrinsics unknown, 1 hidden",
    ]
    for name, before in result.before.items():
        after = result.after[name]
        assert after.energy < before.energy
        assert after.ece < 0.05
    assert result.before["val exact, intrinsics unknown"].ece > 0.1
    assert result.nll is None
    table = result.to_table()
    assert all(name in table for name in result.before) and "best of 50" in table
    if slot:
        assert result.model is model and result.calibration is model.calibration
    else:
        assert isinstance(result.model, RecalibratedModel) and result.model.model is model
        assert "calibration.slopes" in result.model.state_dict()
    distribution = result.model.conditional(data.p2d[:3], torch.ones(3, 4))
    assert isinstance(distribution, RecalibratedDistribution)
    torch.testing.assert_close(distribution.temperature[:, 1], distribution.temperature[:, 2])
    plain = result.model.conditional(data.p2d[:3], torch.ones(3, 4), recalibrated=False)
    assert not isinstance(plain, RecalibratedDistribution)


def test_a_right_distribution_stays_as_it_is(data):
    result = recalibrate(Guesser([1.0] * 4), [data], skeleton=FOUR, samples=60, hidden=(0,))
    assert (result.calibration.log_temperature.exp() - 1).abs().max() < 0.08
    (before,), (after,) = result.before.values(), result.after.values()
    assert after.best == pytest.approx(before.best, rel=0.05)


def test_fitting_again_starts_anew(data):
    model = Guesser([1.0, 2.0, 2.0, 0.8], slot=True)
    first = recalibrate(model, [data], skeleton=FOUR, samples=40, hidden=(0,)).calibration
    before = first.log_temperature.clone()
    second = recalibrate(model, [data], skeleton=FOUR, samples=40, hidden=(0,)).calibration
    assert second is first
    torch.testing.assert_close(second.log_temperature, before)


def test_observation_noise_is_found_by_the_density():
    torch.manual_seed(0)
    model = small_propose().float().requires_grad_(False)
    model.noise_scale.fill_(0.05)
    p2d = torch.randn(16, 4, 2)
    model.noise_scale.mul_(2)
    p3d = model.conditional(p2d).sample()
    model.noise_scale.div_(2)
    result = recalibrate(
        model, [Set(p2d, p3d)], skeleton=FOUR, samples=20, hidden=(0,), noise_pairs=16
    )
    assert result.calibration.log_noise.exp() == pytest.approx(2, rel=0.3)
    assert result.nll[1] < result.nll[0] - 0.1
    assert "observation noise times" in result.to_table()
    assert torch.equal(model.noise_scale, torch.full((3,), 0.05))
    distribution = result.model.conditional(p2d)
    assert distribution.base_distribution.scale[0] == pytest.approx(
        0.05 * float(result.calibration.log_noise.exp())
    )


def test_golden_section_finds_the_valley():
    found = _golden_section(lambda x: abs(x - 0.7), -2.0, 3.0, steps=25)
    assert math.isclose(found, 0.7, abs_tol=1e-4)


def test_wrong_data_is_named(data):
    model = Guesser([1.0] * 4, slot=True)
    with pytest.raises(InputError, match="at least one data set"):
        recalibrate(model, [], skeleton=FOUR)
    with pytest.raises(InputError, match="at least one valid item, got none"):
        recalibrate(model, [Set(data.p2d, data.p3d, valid=False)], skeleton=FOUR)
    with pytest.raises(InputError, match="toy val: expected at least one item"):
        recalibrate(model, [Set(data.p2d[:0], data.p3d[:0])], skeleton=FOUR)


class Stubborn(Guesser):
    """Applies its recalibration whatever it is asked."""

    def conditional(self, p2d, confidence=None, *, focal=None, center=(0.0, 0.0)):
        return super().conditional(p2d, confidence, focal=focal, center=center)


def test_a_recalibration_that_cannot_be_left_out_is_refused(data):
    with pytest.raises(InputError, match=r"Stubborn.conditional to take recalibrated=False"):
        recalibrate(Stubborn([1.0] * 4, slot=True), [data], skeleton=FOUR)
