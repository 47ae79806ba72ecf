import pyro
import pytest
import torch

from propose_prob.distributions import EmpiricalDistribution
from propose_prob.errors import InputError
from tests.zoo import randn


def test_weighted_moments():
    draws, log_weights = randn(50, 4, 2, 3), 5 + randn(50, 4, seed=1)
    distribution = EmpiricalDistribution(draws, log_weights, event_dim=2)
    assert distribution.batch_shape == (4,) and distribution.event_shape == (2, 3)
    w = log_weights.exp() / log_weights.exp().sum(0)
    torch.testing.assert_close(distribution.mean, torch.einsum("sb,sbij->bij", w, draws))
    spread = torch.einsum("sb,sbij->bij", w, (draws - distribution.mean) ** 2)
    torch.testing.assert_close(distribution.variance, spread)
    torch.testing.assert_close(distribution.effective_sample_size, 1 / (w**2).sum(0))


def test_equal_weights_are_worth_all_draws():
    distribution = EmpiricalDistribution(randn(50, 4, 3), event_dim=1)
    torch.testing.assert_close(distribution.effective_sample_size, torch.full((4,), 50.0).double())
    torch.testing.assert_close(distribution.point_estimate, distribution.draws.mean(0))


def test_samples_follow_the_weights_of_their_batch_element():
    torch.manual_seed(0)
    draws = torch.tensor([[0.0, 10.0], [1.0, 11.0]])
    weights = torch.tensor([[0.2, 0.9], [0.8, 0.1]])
    distribution = EmpiricalDistribution(draws, weights.log(), event_dim=0)
    found = distribution.sample((4000,))
    assert found.shape == (4000, 2) and set(found[:, 1].tolist()) == {10.0, 11.0}
    torch.testing.assert_close(found.mean(0), torch.tensor([0.8, 10.1]), atol=0.03, rtol=0)
    assert distribution.sample((2, 3)).shape == (2, 3, 2) and distribution.sample().shape == (2,)
    assert distribution.hypotheses((5,)).shape == (5, 2)


def test_draws_with_an_axis_stay_together():
    draws = randn(6, 2, 3, 3)
    distribution = EmpiricalDistribution(draws, event_dim=2)
    for b in range(2):
        for sample in distribution.sample((20,))[:, b]:
            assert (draws[:, b] == sample).all(-1).all(-1).any()


def test_expand_and_plates():
    distribution = EmpiricalDistribution(randn(6, 2, 3), randn(6, 2, seed=1), event_dim=1)
    wide = distribution.expand((5, 2))
    torch.testing.assert_close(wide.mean, distribution.mean.expand(5, 2, 3))
    assert wide.sample((4,)).shape == (4, 5, 2, 3)
    with pyro.plate("inner", 2, dim=-1), pyro.plate("outer", 3, dim=-2):
        assert pyro.sample("x", distribution).shape == (3, 2, 3)


def test_it_has_no_density():
    distribution = EmpiricalDistribution(randn(6, 3), event_dim=1)
    assert distribution.log_prob_kind == "none"
    with pytest.raises(NotImplementedError, match="no density"):
        distribution.log_prob(torch.zeros(3))


@pytest.mark.parametrize(
    ("draws", "weights", "words"),
    [
        (torch.zeros(3), None, r"2 of an event, got shape \(3,\)"),
        (torch.zeros(0, 2, 3), None, "axis of draws"),
        (torch.zeros(5, 4, 2, 3), torch.zeros(5), r"log_weights of shape \(5, 4\), got \(5,\)"),
        (torch.full((5, 2, 3), torch.nan), None, "got NaN"),
        (torch.zeros(5, 4, 2, 3), torch.full((5, 4), -torch.inf), r"index \(0,\): weights"),
    ],
)
def test_bad_arguments(draws, weights, words):
    with pytest.raises(InputError, match=words):
        EmpiricalDistribution(draws, weights, event_dim=2)
