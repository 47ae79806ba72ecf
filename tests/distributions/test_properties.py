import itertools
import math

import pytest
import torch
from pyro.distributions.testing.gof import auto_goodness_of_fit
from pyro.distributions.torch_distribution import TorchDistributionMixin
from scipy import stats

from tests.zoo import (
    BASES,
    DECODED_DISTRIBUTIONS,
    DISTRIBUTIONS,
    EXACT_DISTRIBUTIONS,
    FLOW_DISTRIBUTIONS,
    FLOWS,
    SHAPES,
    base_coordinates,
    decoded_case,
    flow_case,
    gaussian_case,
    randn,
)

every_distribution = pytest.mark.parametrize("case", DISTRIBUTIONS.values(), ids=str)
every_flow = pytest.mark.parametrize("case", FLOW_DISTRIBUTIONS.values(), ids=str)

#: p-values below this count as a failure; the seeds are fixed, so a green test stays green.
FAILURE_RATE = 1e-3


@every_distribution
@pytest.mark.parametrize("batch", SHAPES, ids=str)
def test_shapes_and_batched_equals_looped(case, batch):
    c = randn(*batch, case.context)
    distribution = case.build(c)
    assert distribution.batch_shape == batch
    assert distribution.event_shape == case.event_shape
    looped = [case.build(row) for row in c.reshape(-1, case.context)]
    for sample in SHAPES:
        x = distribution.sample(sample)
        assert x.shape == sample + batch + case.event_shape
        log_prob = distribution.log_prob(x)
        assert log_prob.shape == sample + batch
        if not case.exact and len(sample) == 1:
            continue
        columns = x.reshape(*sample, -1, *case.event_shape).unbind(len(sample))
        expected = [one.log_prob(column) for one, column in zip(looped, columns, strict=True)]
        expected = torch.stack(expected, -1).reshape(log_prob.shape)
        torch.testing.assert_close(log_prob, expected)


@every_distribution
def test_a_value_without_batch_meets_every_context(case):
    distribution = case.distribution(2, 3)
    x = distribution.sample()[0, 0]
    torch.testing.assert_close(
        distribution.log_prob(x), distribution.log_prob(x.expand(2, 3, *case.event_shape))
    )
    # As in a mixture: one value against a row of components.
    x = distribution.sample((4,))[:, :, :1]
    torch.testing.assert_close(
        distribution.log_prob(x), distribution.log_prob(x.expand(4, 2, 3, *case.event_shape))
    )


@every_distribution
@pytest.mark.parametrize(
    ("batch", "larger"), [((), (2, 3)), ((1,), (4,)), ((3,), (2, 3)), ((2, 3), (5, 2, 3))]
)
def test_expand(case, batch, larger):
    distribution = case.distribution(*batch)
    expanded = distribution.expand(torch.Size(larger))
    assert type(expanded) is type(distribution)
    assert expanded.batch_shape == larger and expanded.event_shape == distribution.event_shape
    x = expanded.sample((2,))
    assert x.shape == (2, *larger, *case.event_shape)
    torch.testing.assert_close(expanded.log_prob(x), distribution.log_prob(x))
    if case.gradients:
        assert expanded.rsample().shape == (*larger, *case.event_shape)
    again = expanded.expand((7, *larger))
    assert again.sample().shape == (7, *larger, *case.event_shape)
    if case.constant:
        torch.testing.assert_close(expanded.mode, distribution.mode.expand_as(expanded.mode))
    if case.flow:
        value, log_prob = expanded.rsample_and_log_prob((2,))
        assert value.shape == x.shape and log_prob.shape == (2, *larger)


@every_distribution
@pytest.mark.parametrize("expanded", [False, True], ids=["context", "expanded"])
def test_samples_of_different_contexts_are_independent(case, expanded):
    torch.manual_seed(0)
    n = 4000
    c = randn(case.context)
    # Equal contexts: any dependence shows as a correlation, undisturbed by differences in
    # distribution.
    distribution = case.build(c).expand((2, 3)) if expanded else case.build(c.expand(2, 3, -1))
    x = distribution.sample((n,)).flatten(3) if case.event_shape[1:] else distribution.sample((n,))
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-9)
    contexts = x.flatten(1, 2).unbind(1)
    for a, b in itertools.combinations(contexts, 2):
        assert (a * b).mean(0).abs().max() < 5 / math.sqrt(n)
    first, second = distribution.sample(), distribution.sample()
    assert not torch.equal(first, second)


@pytest.mark.parametrize("case", EXACT_DISTRIBUTIONS.values(), ids=str)
def test_samples_fit_the_density(case):
    torch.manual_seed(0)
    distribution = case.distribution()
    x = distribution.sample((7000,))
    shaped = getattr(distribution, "base_distribution", distribution)
    flat = shaped.to_pose.inv(x) if hasattr(shaped, "to_pose") else x
    assert goodness_of_fit(flat, distribution.log_prob(x)) > FAILURE_RATE
    if not case.gradients:
        return  # Mixtures have no base.
    # The base coordinates are independent standard normals.
    z = base_coordinates(distribution, x)
    for column in z.unbind(-1):
        assert stats.kstest(column.detach().numpy(), "norm").pvalue > FAILURE_RATE
    radius = z.square().sum(-1).detach().numpy()
    assert stats.kstest(radius, "chi2", args=(z.shape[-1],)).pvalue > FAILURE_RATE


@pytest.mark.parametrize("rotated", [False, True])
def test_samples_of_a_decoded_distribution_fit_its_density(rotated):
    torch.manual_seed(0)
    case = decoded_case(joints=2, latent=2, rotated=rotated)
    distribution = case.distribution()
    x = distribution.sample((5000,))
    assert (x[:, distribution.root] == 0).all()
    assert goodness_of_fit(x[:, 1], distribution.log_prob(x)) > FAILURE_RATE


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("features", [1, 2])
def test_the_density_of_a_gaussian_integrates_to_one(name, features):
    distribution = gaussian_case(name, features).distribution()
    axes = [torch.linspace(-9, 9, 801, dtype=torch.float64) * s for s in distribution.stddev]
    axes = [axis + m for axis, m in zip(axes, distribution.mean, strict=True)]
    assert integral(distribution, axes) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("base", "kind"), FLOWS)
def test_the_density_of_a_flow_integrates_to_one(base, kind):
    torch.manual_seed(0)
    distribution = flow_case(base, kind, 2).distribution()
    x = distribution.sample((4000,))
    margin = 0.6 * (x.amax(0) - x.amin(0))
    low, high = x.amin(0) - margin, x.amax(0) + margin
    axes = [torch.linspace(a, b, 500, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    assert integral(distribution, axes) == pytest.approx(1, abs=2e-3)


def test_the_density_of_a_decoded_distribution_integrates_to_one():
    case = decoded_case(joints=2, latent=2)
    distribution = case.distribution()
    x = distribution.sample((2000,))[:, 1]
    axes = []
    for low, high in zip(x.amin(0) - 0.5, x.amax(0) + 0.5, strict=True):
        count = int((high - low) / 0.15) + 2
        axes.append(torch.linspace(low, high, count, dtype=torch.float64))
    grid = torch.cartesian_prod(*axes)
    event = torch.stack([torch.zeros_like(grid), grid], 1)
    with torch.no_grad():
        parts = [distribution.estimate_log_prob(p, num_particles=512) for p in event.split(2048)]
        density = torch.cat([part.log_prob.exp() for part in parts])
    volume = math.prod(float(axis[1] - axis[0]) for axis in axes)
    assert float(density.sum() * volume) == pytest.approx(1, abs=5e-3)


@torch.no_grad()
def goodness_of_fit(x, log_prob):
    """p-value of samples `(n, d)` under a density, by nearest neighbors in whitened space."""
    factor = torch.linalg.cholesky(x.T.cov())
    white = torch.linalg.solve_triangular(factor, x.T, upper=False).T
    return auto_goodness_of_fit(white, (log_prob + factor.diagonal().log().sum()).exp())


@torch.no_grad()
def integral(distribution, axes):
    """Trapezoidal rule on a grid; the density has vanished at its border."""
    grid = torch.cartesian_prod(*axes).reshape(-1, len(axes))
    volume = math.prod(float(axis[1] - axis[0]) for axis in axes)
    return float(distribution.log_prob(grid).exp().sum() * volume)


@every_flow
def test_a_sample_with_its_density_in_one_pass(case):
    distribution = case.distribution(2, 3)
    x, log_prob = distribution.rsample_and_log_prob((5,))
    assert x.requires_grad and log_prob.requires_grad
    torch.testing.assert_close(log_prob, distribution.log_prob(x), rtol=1e-6, atol=1e-6)
    torch.manual_seed(3)
    alone = distribution.rsample((5,))
    torch.manual_seed(3)
    assert torch.equal(alone, distribution.rsample_and_log_prob((5,))[0])


@every_flow
def test_the_entropy_is_the_mean_surprise(case):
    distribution = case.distribution(2)
    if not case.constant:
        with pytest.raises(NotImplementedError, match="no closed form"):
            distribution.entropy()
        return
    torch.manual_seed(0)
    _x, log_prob = distribution.rsample_and_log_prob((20_000,))
    assert distribution.entropy().shape == (2,)
    error = (-log_prob).std(0) / math.sqrt(len(log_prob))
    assert ((distribution.entropy() + log_prob.mean(0)).abs() < 5 * error).all()


@every_flow
def test_constant_log_determinants(case):
    distribution = case.distribution()
    assert distribution.constant_ladj is case.constant
    x = distribution.sample((50,))
    z = base_coordinates(distribution, x)
    ladj = distribution.log_prob(x) + 0.5 * z.square().sum(-1)
    assert (ladj.std() < 1e-9) == case.constant


@pytest.mark.parametrize("case", [c for c in DISTRIBUTIONS.values() if c.constant], ids=str)
def test_the_mode_beats_perturbations(case):
    distribution = case.distribution(2, 3)
    mode = distribution.mode
    assert mode.shape == (2, 3, *case.event_shape)
    best = distribution.log_prob(mode)
    for scale in (1e-3, 0.1, 1.0):
        noise = scale * randn(200, 2, 3, *case.event_shape, seed=2)
        assert (distribution.log_prob(mode + noise) < best).all()
    assert (distribution.log_prob(distribution.sample((200,))) < best).all()


@pytest.mark.parametrize(
    "case", [c for c in FLOW_DISTRIBUTIONS.values() if not c.constant], ids=str
)
def test_a_flow_without_a_closed_mode_says_so(case):
    distribution = case.distribution(2)
    with pytest.raises(NotImplementedError, match=r"use \.centre .* or a numerical MAP"):
        _ = distribution.mode
    assert distribution.center.shape == (2, *case.event_shape)
    torch.testing.assert_close(
        base_coordinates(distribution, distribution.center), torch.zeros_like(distribution.center)
    )


@pytest.mark.parametrize("case", DECODED_DISTRIBUTIONS.values(), ids=str)
def test_a_decoded_distribution_has_no_closed_mode_but_a_point_estimate(case):
    distribution = case.distribution(2)
    with pytest.raises(NotImplementedError, match=r"use \.point_estimate"):
        _ = distribution.mode
    assert distribution.point_estimate.shape == (2, *case.event_shape)
    torch.testing.assert_close(
        distribution.point_estimate, distribution.decode(distribution.latent.center)
    )


@every_distribution
def test_what_a_distribution_says_it_knows(case):
    distribution = case.distribution()
    assert distribution.has_rsample is case.gradients
    assert isinstance(distribution, TorchDistributionMixin)
    assert distribution.support.event_dim == len(case.event_shape)
    assert distribution.support.check(distribution.sample((3,))).all()
    if case.flow:
        assert distribution.log_prob_kind == "exact"
    if not case.exact:
        assert distribution.log_prob_kind == "bound"
    assert repr(distribution)


@every_distribution
def test_gradients_reach_value_context_and_parameters(case):
    c = randn(case.context).requires_grad_()
    x = case.build(c).sample((4,)).requires_grad_()
    case.build(c).log_prob(x).sum().backward()
    assert x.grad.isfinite().all() and (x.grad != 0).any()
    if case.name != "standard":
        assert c.grad.isfinite().all() and (c.grad != 0).any()
        c.grad = None
    if case.gradients and case.name != "standard":
        case.build(c).rsample((4,)).square().sum().backward()
        assert c.grad.isfinite().all() and (c.grad != 0).any()
    assert all(p.grad.isfinite().all() for p in case.module.parameters() if p.grad is not None)
    case.module.zero_grad()


@every_distribution
def test_sample_has_no_gradient_and_seeds_decide(case):
    distribution = case.distribution(2)
    torch.manual_seed(1)
    x = distribution.sample((3,))
    torch.manual_seed(1)
    assert torch.equal(x, distribution.sample((3,)))
    assert not x.requires_grad


@every_distribution
def test_float32(case):
    c = randn(5, case.context)
    distribution = case.build(c)
    torch.manual_seed(0)
    x = distribution.sample()
    log_prob = distribution.log_prob(x)
    module = case.module
    # The zoo's modules are shared: give the dtype back.
    try:
        distribution32 = (module.float(), case.build(c.float()))[1]
        for value in (distribution32.sample((2,)), distribution32.log_prob(x.float())):
            assert value.dtype == torch.float32
        if case.gradients:
            assert distribution32.rsample().dtype == torch.float32
        log_prob32 = distribution32.log_prob(x.float())
        if case.flow:
            assert distribution32.rsample_and_log_prob()[1].dtype == torch.float32
    finally:
        module.double()
    torch.testing.assert_close(log_prob32.double(), log_prob, rtol=2e-3, atol=2e-3)


@pytest.mark.gpu
@every_distribution
def test_device(case):
    c = randn(2, case.context)
    distribution = case.build(c)
    x = distribution.sample()
    expected = distribution.log_prob(x)
    try:
        case.module.cuda()
        moved = case.build(c.cuda())
        value = moved.log_prob(x.cuda())
        assert value.device.type == moved.sample().device.type == "cuda"
    finally:
        case.module.cpu()
    torch.testing.assert_close(value.cpu(), expected)


@every_distribution
def test_values_are_validated(case):
    distribution = case.distribution(2)
    wrong = torch.zeros(2, *case.event_shape[:-1], case.event_shape[-1] + 1, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"event_shape|right-most"):
        distribution.log_prob(wrong)
    bad = torch.full((2, *case.event_shape), math.nan, dtype=torch.float64)
    with pytest.raises(ValueError, match="support"):
        distribution.log_prob(bad)
