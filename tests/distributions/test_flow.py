import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from propose_prob.distributions import FlowDistribution
from propose_prob.distributions.flow import diagonal_normal, standard_parameters
from propose_prob.transforms import DiagonalAffine, Identity, LULinear
from tests.zoo import BASES, TRANSFORMS, gaussian_case, randn

N = 20_000


def monte_carlo_kl(p, q):
    """Estimate and its standard error."""
    torch.manual_seed(0)
    x = p.sample((N,))
    ratio = p.log_prob(x) - q.log_prob(x)
    return ratio.mean(0), ratio.std(0) / math.sqrt(N)


def gaussian(seed, *batch, features=3):
    loc = 0.5 * randn(*batch, features, seed=seed)
    return diagonal_normal(loc, (0.3 * randn(*batch, features, seed=seed + 1)).exp())


def test_a_linear_flow_is_a_multivariate_normal():
    lower = torch.tensor([[1.0, 0.0], [0.7, 1.0]], dtype=torch.float64)
    upper = torch.tensor([[2.0, -0.5], [0.0, 0.5]], dtype=torch.float64)
    base = gaussian(0, features=2)
    distribution = FlowDistribution(
        base, LULinear(lower, upper, torch.ones(2, dtype=torch.float64))
    )
    matrix = lower @ upper
    expected = MultivariateNormal(
        matrix @ base.mean + 1, matrix @ base.variance.diag_embed() @ matrix.mT
    )
    x = distribution.sample((100,))
    torch.testing.assert_close(distribution.log_prob(x), expected.log_prob(x))
    torch.testing.assert_close(distribution.mode, expected.mode)


def test_several_transforms_are_chained():
    shift = DiagonalAffine(torch.ones(3), torch.zeros(3))
    distribution = FlowDistribution(
        dist.Normal(torch.zeros(3), 1.0).to_event(1), [shift, Identity(), shift]
    )
    assert distribution.mode.tolist() == [2.0, 2.0, 2.0]
    assert len(distribution.transforms) == 1 and len(distribution.transform.parts) == 3


def test_the_base_grows_to_the_contexts_batch():
    distribution = FlowDistribution(gaussian(0), Identity(), batch_shape=torch.Size([2, 4]))
    assert distribution.batch_shape == (2, 4)
    assert distribution.sample().shape == (2, 4, 3)
    # Never smaller than what it has already.
    distribution = FlowDistribution(gaussian(0, 5, 1), Identity(), batch_shape=torch.Size([4]))
    assert distribution.batch_shape == (5, 4)


@pytest.mark.parametrize("name", BASES)
def test_kl_between_gaussians_is_closed_and_right(name):
    case = gaussian_case(name, 3)
    p, q = case.distribution(2, seed=0), case.distribution(2, seed=7)
    if name in ("pagd", "variational_pilgd"):
        p, q = (
            diagonal_normal(distribution.mean, distribution.stddev.clamp(0.5, 2))
            for distribution in (p, q)
        )
    kl = kl_divergence(p, q)
    assert kl.shape == (2,)
    assert (kl >= 0).all() and torch.equal(kl_divergence(p, p), torch.zeros_like(kl))
    estimate, error = monte_carlo_kl(p, q)
    assert ((kl - estimate).abs() <= 4 * error + 1e-12).all()


@pytest.mark.parametrize("name", ["affine_5", "spline_5", "stack_affine"])
def test_kl_of_flows_with_one_transform_is_that_of_the_bases(name):
    transform = TRANSFORMS[name].build(randn(3))
    base_p, base_q = gaussian(0, 2, features=5), gaussian(5, 2, features=5)
    p, q = FlowDistribution(base_p, transform), FlowDistribution(base_q, transform)
    kl = kl_divergence(p, q)
    torch.testing.assert_close(kl, kl_divergence(base_p, base_q))
    assert kl.shape == (2,)
    estimate, error = monte_carlo_kl(p, q)
    assert ((kl - estimate).abs() <= 4 * error).all()
    # Also after expand, and for a distribution with itself.
    torch.testing.assert_close(kl_divergence(p.expand((3, 2)), q.expand((3, 2))), kl.expand(3, 2))
    assert torch.equal(kl_divergence(p, p), torch.zeros_like(kl))


def test_kl_of_flows_with_other_transforms_names_the_alternative():
    base = gaussian(0, features=5)
    p = FlowDistribution(base, TRANSFORMS["affine_5"].build(randn(3)))
    for q in (
        FlowDistribution(base, TRANSFORMS["affine_5"].build(randn(3))),
        FlowDistribution(base, [p.transform.parts[0], Identity()]),
    ):
        with pytest.raises(NotImplementedError, match=r"estimate it with p.rsample_and_log_prob"):
            kl_divergence(p, q)


@pytest.mark.parametrize(
    ("base", "transforms", "message"),
    [
        (Normal(0.0, 1.0), Identity(), r"event_shape \(d,\), got \(\)"),
        (
            Independent(Normal(torch.zeros(2, 3), 1.0), 2),
            Identity(),
            r"event_shape \(d,\), got \(2, 3\)",
        ),
        (Independent(Normal(torch.zeros(3), 1.0), 1), [], "at least one transform, got none"),
    ],
)
def test_bad_input(base, transforms, message):
    with pytest.raises(ValueError, match=message):
        FlowDistribution(base, transforms)


def test_standard_parameters_of_nested_distributions():
    loc, scale = standard_parameters(gaussian(0, 4).expand((2, 4)))
    assert loc.shape == scale.shape == (2, 4, 3)
    wrong = dist.Laplace(torch.zeros(3), 1.0).to_event(1)
    with pytest.raises(TypeError, match="expected a diagonal normal base"):
        standard_parameters(wrong)
    with pytest.raises(TypeError, match="expected a diagonal normal base"):
        standard_parameters(dist.Normal(torch.zeros(3), 1.0))


def test_validation_can_be_switched_off():
    base = dist.Normal(torch.zeros(3), torch.ones(3), validate_args=False).to_event(1)
    distribution = FlowDistribution(base, Identity(), validate_args=False)
    assert distribution.log_prob(torch.full((3,), math.nan)).isnan()
    assert distribution.expand((2,))._validate_args is False
