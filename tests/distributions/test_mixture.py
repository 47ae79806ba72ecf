"""What is particular to mixtures over poses; the zoo has the rest."""

import pytest
import torch

from propose_prob.distributions import PoseMixtureDistribution
from propose_prob.distributions.flow import VectorToJoints
from tests.zoo import DISTRIBUTIONS, randn


def test_one_kernel_is_a_gaussian():
    loc, scale = randn(4, 1, 6), randn(4, 1, 6, seed=1).exp()
    distribution = PoseMixtureDistribution(torch.zeros(4, 1), loc, scale)
    x = distribution.sample((3,))
    expected = torch.distributions.Normal(loc[:, 0], scale[:, 0]).log_prob(x[..., 1:, :].flatten(2))
    torch.testing.assert_close(distribution.log_prob(x), expected.sum(-1))
    torch.testing.assert_close(distribution.point_estimate[:, 1:].flatten(1), loc[:, 0])
    torch.testing.assert_close(distribution.mean, distribution.point_estimate)


def test_weights_decide_how_often_a_kernel_is_drawn():
    torch.manual_seed(0)
    weights = torch.tensor([0.1, 0.6, 0.3]).double()
    loc = torch.tensor([-5.0, 0.0, 5.0]).double()[:, None].expand(3, 3)
    distribution = PoseMixtureDistribution(weights.log(), loc, torch.full_like(loc, 0.01))
    for x in (distribution.sample((5000,)), distribution.hypotheses((5000,))):
        drawn = torch.stack(
            [((x[:, 1] - center).norm(dim=-1) < 1).float().mean() for center in loc]
        )
        torch.testing.assert_close(drawn.double(), weights, atol=0.03, rtol=0)
    assert (distribution.point_estimate[1] == 0).all()
    torch.testing.assert_close(distribution.mean[1], (weights[:, None] * loc).sum(0))


def test_the_point_estimate_is_the_most_probable_kernel_and_hypotheses_are_kernels():
    distribution = DISTRIBUTIONS["mixture_rotated"].distribution(5, 2)
    means = distribution.kernel_means
    assert means.shape == (3, 5, 2, 3, 3)
    best = distribution.weights.argmax(-1)
    for i in range(5):
        for j in range(2):
            torch.testing.assert_close(distribution.point_estimate[i, j], means[best[i, j], i, j])
    hypotheses = distribution.hypotheses((20,))
    assert hypotheses.shape == (20, 5, 2, 3, 3) and not hypotheses.requires_grad
    assert ((hypotheses[:, None] - means).abs().amax((-1, -2)).amin(1) < 1e-12).all()


def test_the_mean_is_that_of_samples():
    torch.manual_seed(0)
    distribution = DISTRIBUTIONS["mixture_rotated"].frozen_distribution(2)
    torch.testing.assert_close(
        distribution.sample((40_000,)).mean(0), distribution.mean, atol=0.03, rtol=0
    )


def test_it_claims_neither_a_mode_nor_gradients_of_samples():
    distribution = DISTRIBUTIONS["mixture"].distribution()
    with pytest.raises(NotImplementedError, match=r"use \.point_estimate"):
        _ = distribution.mode
    assert not distribution.has_rsample


@pytest.mark.parametrize(
    ("logits", "loc", "scale"), [((2,), (3, 6), (3, 6)), ((3,), (3, 6), (6,)), ((), (6,), (6,))]
)
def test_wrong_shapes(logits, loc, scale):
    with pytest.raises(ValueError, match="expected logits"):
        PoseMixtureDistribution(
            torch.zeros(logits), torch.zeros(loc), torch.ones(scale), VectorToJoints()
        )
