import copy

import pytest
import torch
from torch import nn

from propose_prob.datasets.clips import EvaluationBatch
from propose_prob.distributions import (
    FlowDistribution,
    PoseFlowDistribution,
    PushforwardDistribution,
)
from propose_prob.distributions.flow import VectorToJoints, diagonal_normal
from propose_prob.distributions.recalibration import BaseRecalibration
from propose_prob.errors import InputError
from propose_prob.evaluation.fit_recalibration import recalibrate_base
from propose_prob.geometry.skeletons import Skeleton
from propose_prob.models import ProHMR, ProHMRConfig
from propose_prob.transforms import DiagonalAffine
from tests.zoo import randn

FOUR = Skeleton("four", ("root", "left", "right", "head"), (-1, 0, 0, 0), (0, 2, 1, 3), (None,) * 4)


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = ProHMRConfig(flow_width=16, width=16, context=8, couplings=2)
    return ProHMR(config).double().eval().requires_grad_(False)


def test_the_base_is_widened_and_nothing_else(model):
    p2d = randn(5, 17, 2)
    plain = model.conditional(p2d, focal=1.0)
    model.calibration.log_temperature.fill_(0.4)
    distribution = model.conditional(p2d, focal=1.0)
    torch.testing.assert_close(distribution.mode, plain.mode)
    torch.testing.assert_close(distribution.entropy(), plain.entropy() + 144 * 0.4)
    x = plain.sample()
    z = plain.flow.transform.inv(plain.to_pose.inv(x))
    base = plain.flow.base_dist
    gap = (z - base.mean) / base.stddev
    change = 0.5 * gap.square().sum(-1) * (1 - torch.tensor(-0.8).exp()) - 144 * 0.4
    torch.testing.assert_close(distribution.log_prob(x), plain.log_prob(x) + change)
    asked = model.conditional(p2d, focal=1.0, recalibrated=False)
    torch.testing.assert_close(asked.entropy(), plain.entropy())


def test_what_the_temperature_depends_on(model):
    p2d, confidence = randn(2, 17, 2), torch.ones(2, 17).double()
    confidence[1, :4] = 0
    plain = model.conditional(p2d, confidence).flow.base_dist
    model.calibration.slopes[:2] = torch.tensor([0.1, 0.2])
    for focal, log in ((None, 0.0), (1.5, 0.1)):
        before = plain if focal is None else None
        distribution = model.conditional(p2d, confidence, focal=focal)
        if before is None:
            asked = model.conditional(p2d, confidence, focal=focal, recalibrated=False)
            before = asked.flow.base_dist
        factor = (distribution.flow.base_dist.stddev / before.stddev).log()
        expected = torch.tensor([log, log + 0.2 * 4 * 4 / 17]).double()
        torch.testing.assert_close(factor, expected[:, None].expand(2, 144))
    model.calibration.slopes.copy_(torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0, 0.0]))
    factor = (model.conditional(p2d, confidence).flow.base_dist.stddev / plain.stddev).log()
    expected = (0.5 * plain.stddev.log().mean(-1)).clamp(-1.0986123, 1.0986123)
    torch.testing.assert_close(factor, expected[:, None].expand(2, 144))
    model.calibration.slopes.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.1, 0.2]))
    for focal, slope in ((None, 0.1), (1.5, 0.3)):
        features = model.recalibration_features(p2d, confidence, focal=focal)
        assert features.shape == (2, 6)
        asked = model.conditional(p2d, confidence, focal=focal, recalibrated=False)
        before = asked.flow.base_dist.stddev
        after = model.conditional(p2d, confidence, focal=focal).flow.base_dist.stddev
        expected = slope * features[:, 4:5].expand(2, 144)
        torch.testing.assert_close((after / before).log(), expected)
    model.calibration.log_temperature.fill_(50.0)
    wide = model.conditional(p2d, confidence).flow.base_dist.stddev / plain.stddev
    torch.testing.assert_close(wide, torch.full_like(wide, 3.0))


def test_stored_with_the_weights_and_absent_from_old_files(model):
    model.calibration.log_temperature.fill_(0.3)
    other = copy.deepcopy(model)
    other.calibration.reset()
    assert not other.calibration.fitted
    other.load_state_dict(model.state_dict())
    assert other.calibration.log_temperature == model.calibration.log_temperature
    old = {key: v for key, v in model.state_dict().items() if "calibration" not in key}
    other.load_state_dict(old)
    assert not other.calibration.fitted


class Lifter(nn.Module):
    """Joints by a flow whose stated spread is wrong, more so where it is small."""

    def __init__(self, *, exact=True):
        super().__init__()
        self.calibration = BaseRecalibration()
        self.exact = exact

    def conditional(self, p2d, confidence=None, *, focal=None, center=(0.0, 0.0)):
        true = 0.05 * p2d[:, 1, :1].sigmoid()
        # True spread to the power of a half, times a factor.
        claimed = (true.sqrt() * 0.12).expand(-1, 9)
        base = diagonal_normal(torch.zeros_like(claimed), claimed)
        one = DiagonalAffine(torch.zeros(9), torch.zeros(9))
        distribution = PoseFlowDistribution(FlowDistribution(base, one), VectorToJoints())
        if self.calibration.fitted:
            features = self.recalibration_features(p2d, confidence, focal=focal)
            distribution = self.calibration(distribution, features)
        return (
            PushforwardDistribution(distribution, lambda x: x, (4, 3))
            if self.exact
            else distribution
        )

    def recalibration_features(self, p2d, confidence=None, *, focal=None, center=(0.0, 0.0)):
        claimed = (0.05 * p2d[:, 1, :1].sigmoid()).sqrt() * 0.12
        base = diagonal_normal(torch.zeros(len(p2d), 9), claimed.expand(-1, 9))
        one = DiagonalAffine(torch.zeros(9), torch.zeros(9))
        distribution = PoseFlowDistribution(FlowDistribution(base, one), VectorToJoints())
        return self.calibration.features(
            distribution, confidence, focal is not None, torch.zeros(len(p2d))
        )


class Set:
    name, split, keypoints, skeleton, stride = "toy", "val", "exact", FOUR, 1

    def __init__(self, count=400):
        generator = torch.Generator().manual_seed(0)
        self.p2d = 2 * torch.randn(count, 4, 2, generator=generator)
        self.p3d = torch.randn(count, 4, 3, generator=generator)
        self.p3d *= 0.05 * self.p2d[:, 1, :1, None].sigmoid()
        self.p3d[:, 0] = 0

    def batches(self, size):
        for part in torch.arange(len(self.p2d)).split(size):
            count = len(part)
            yield EvaluationBatch(
                p2d=self.p2d[part],
                confidence=torch.ones(count, 4),
                p3d=self.p3d[part],
                focal=torch.ones(count),
                center=torch.zeros(count, 2),
                action=["a"] * count,
                sequence=["s"] * count,
                frame=part,
                valid=torch.ones(count, dtype=torch.bool),
            )


def test_wrong_spreads_are_found_and_put_right():
    model, data = Lifter(), Set()
    state = torch.get_rng_state()
    recalibrate_base(model, model, [data], skeleton=FOUR, samples=40, hidden=(0,))
    assert torch.equal(torch.get_rng_state(), state)
    distribution = model.conditional(
        data.p2d, torch.ones(400, 4), focal=torch.ones(400)
    ).distribution
    found = distribution.flow.base_dist.stddev[:, 0]
    true = 0.05 * data.p2d[:, 1, 0].sigmoid()
    # Within the limits of the temperature.
    inside = (true > 0.004) & (true < 0.045)
    torch.testing.assert_close(found[inside], true[inside], rtol=0.12, atol=0)


def test_a_distribution_of_another_kind_is_refused():
    with pytest.raises(InputError, match="body's joints, got PoseFlow"):
        model = Lifter(exact=False)
        recalibrate_base(model, model, [Set(8)], skeleton=FOUR, samples=4)
