"""Distributions of diffusion models: against denoisers whose distribution is known."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from scipy import stats

from propose_prob.distributions import DiffusionPoseDistribution, RecalibratedDistribution
from propose_prob.distributions.diffusion import noise_levels
from propose_prob.transforms import DiagonalAffine
from tests.zoo import SAMPLED_DISTRIBUTIONS, SHAPES, randn

every_distribution = pytest.mark.parametrize("case", SAMPLED_DISTRIBUTIONS.values(), ids=str)

UNIT = DiagonalAffine(torch.zeros(3).double(), torch.zeros(3).double())


def gaussian_distribution(mean, deviation, *, steps=20, largest=20.0):
    """Clean vectors are `N(mean, deviation^2)`: their denoiser is linear."""

    def denoise(x, level):
        share = deviation**2 / (deviation**2 + level**2)
        return mean + share * (x - mean)

    levels = noise_levels(steps, largest=largest, smallest=0.002).double()
    return DiffusionPoseDistribution(denoise, levels, UNIT)


def test_a_gaussian_comes_back():
    torch.manual_seed(0)
    mean = torch.tensor([1.0, -2.0, 0.5]).double()
    deviation = torch.tensor([0.05, 0.3, 1.0]).double()
    distribution = gaussian_distribution(mean, deviation, steps=30)
    x = distribution.sample((4000,))[:, 1]
    for column, m, s in zip(x.T, mean, deviation, strict=True):
        assert stats.kstest(column.numpy(), "norm", args=(m, s)).pvalue > 1e-3
    torch.testing.assert_close(distribution.point_estimate[1], mean, atol=0.01, rtol=0)


def test_a_distribution_of_two_peaks_comes_back():
    torch.manual_seed(0)
    centers, weights, s = torch.tensor([-1.0, 1.0]).double(), torch.tensor([0.3, 0.7]), 0.1

    def denoise(x, level):
        total = s**2 + level**2
        log = weights.log() - 0.5 * (x[..., None] - centers) ** 2 / total
        means = centers + s**2 / total * (x[..., None] - centers)
        return (log.softmax(-1) * means).sum(-1)

    levels = noise_levels(30, largest=20.0, smallest=0.01).double()
    x = DiffusionPoseDistribution(denoise, levels, UNIT).sample((4000,))[:, 1]
    torch.testing.assert_close(
        (x > 0).double().mean(0), torch.full((3,), 0.7).double(), atol=0.03, rtol=0
    )
    assert ((x.abs() - 1).abs() < 0.5).double().mean() > 0.99
    torch.testing.assert_close(
        (x.abs() - 1).std(0), torch.full((3,), s).double(), atol=0.01, rtol=0
    )


def test_more_steps_come_nearer_by_the_second_order():
    # The equation's solution for a Gaussian: the offset from the mean shrinks with the deviation.
    mean, deviation, largest = torch.tensor([0.4, 0.4, 0.4]).double(), 0.2, 20.0
    start = torch.full((3,), 3.0).double()
    exact = mean + (start - mean) * deviation / math.hypot(deviation, largest)
    errors = []
    for steps in (10, 20, 40):
        distribution = gaussian_distribution(mean, deviation, steps=steps)
        errors.append(float((distribution._denoise(start) - exact).abs().max()))
    assert errors[0] > 2.5 * errors[1] > 6 * errors[2]


@every_distribution
@pytest.mark.parametrize("batch", SHAPES, ids=str)
def test_shapes_and_batched_equals_looped(case, batch):
    c = randn(*batch, case.context)
    distribution = case.build(c)
    assert distribution.batch_shape == batch and distribution.event_shape == case.event_shape
    assert distribution.hypotheses((2,)).shape == (2, *batch, *case.event_shape)
    assert distribution.point_estimate.shape == (*batch, *case.event_shape)
    x = distribution.sample((4,))
    assert x.shape == (4, *batch, *case.event_shape) and not x.requires_grad
    assert (x[..., 0, :] == 0).all() and distribution.support.check(x).all()
    start = randn(*batch, 6, seed=3)
    together = distribution.to_pose(distribution._denoise(start)).reshape(-1, 3, 3)
    rows = zip(c.reshape(-1, case.context), start.reshape(-1, 6), strict=True)
    alone = [(one := case.build(row)).to_pose(one._denoise(s)) for row, s in rows]
    torch.testing.assert_close(together, torch.stack(alone))


@every_distribution
def test_expand_and_plates(case):
    distribution = case.distribution(3)
    larger = distribution.expand((2, 3))
    assert larger.sample((5,)).shape == (5, 2, 3, *case.event_shape)
    torch.testing.assert_close(larger.point_estimate[1], distribution.point_estimate)
    x = case.distribution().expand((2,)).sample()
    assert not torch.equal(x[0], x[1])

    def model():
        with pyro.plate("people", 3, dim=-1), pyro.plate("frames", 2, dim=-2):
            return pyro.sample("x", distribution)

    assert poutine.trace(model).get_trace().nodes["x"]["value"].shape == (2, 3, *case.event_shape)


@every_distribution
def test_gradients_reach_context_and_parameters(case):
    c = randn(case.context).requires_grad_()
    case.build(c).rsample((4,)).square().sum().backward()
    assert c.grad.isfinite().all() and (c.grad != 0).any()
    for name, parameter in case.module.named_parameters():
        assert parameter.grad.isfinite().all() and (parameter.grad != 0).any(), name
    case.module.zero_grad()


@every_distribution
def test_a_seed_decides(case):
    distribution = case.distribution(2)
    torch.manual_seed(1)
    x = distribution.sample((3,))
    torch.manual_seed(1)
    assert torch.equal(x, distribution.sample((3,)))


def test_it_claims_no_density():
    distribution = SAMPLED_DISTRIBUTIONS["diffusion"].distribution()
    assert distribution.log_prob_kind == "none"
    with pytest.raises(NotImplementedError, match="score its samples"):
        distribution.log_prob(distribution.sample())
    # Its spread can be scaled like any other distribution's, still without a density.
    wide = RecalibratedDistribution(distribution, torch.full((3,), 2.0).double())
    assert wide.log_prob_kind == "none" and wide.sample((2,)).shape == (2, 3, 3)


def test_noise_levels():
    levels = noise_levels(5, largest=8.0, smallest=0.5)
    assert len(levels) == 5 and (levels.diff() < 0).all()
    torch.testing.assert_close(levels[[0, -1]], torch.tensor([8.0, 0.5]))
    for steps, largest, smallest in ((1, 8.0, 0.5), (5, 0.5, 8.0), (5, 8.0, 0.0)):
        with pytest.raises(ValueError, match="at least 2 steps"):
            noise_levels(steps, largest=largest, smallest=smallest)
    for wrong in (torch.ones(3), torch.tensor([1.0]), torch.tensor([1.0, 2.0])):
        with pytest.raises(ValueError, match="falling noise levels"):
            DiffusionPoseDistribution(lambda x, s: x, wrong, UNIT)
