"""Every distribution as a Pyro distribution: sites, plates, masks, mixtures and inference."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, init_to_value
from pyro.infer.reparam import TransformReparam

from tests.zoo import (
    DISTRIBUTIONS,
    EXACT_DISTRIBUTIONS,
    FLOW_DISTRIBUTIONS,
    base_coordinates,
    decoded_case,
    randn,
)

every_distribution = pytest.mark.parametrize("case", DISTRIBUTIONS.values(), ids=str)
every_flow = pytest.mark.parametrize("case", FLOW_DISTRIBUTIONS.values(), ids=str)


@pytest.fixture(autouse=True)
def clean():
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    yield
    pyro.clear_param_store()


@every_distribution
def test_a_site_inside_plates(case):
    distribution = case.distribution(2, 3)

    def model():
        with pyro.plate("people", 3, dim=-1), pyro.plate("frames", 2, dim=-2):
            return pyro.sample("x", distribution)

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["x"]
    assert site["value"].shape == (2, 3, *case.event_shape)
    assert site["log_prob"].shape == (2, 3)
    torch.testing.assert_close(site["log_prob"], distribution.log_prob(site["value"]))


@every_distribution
def test_a_plate_expands_a_single_distribution(case):
    distribution = case.distribution()

    def model():
        with pyro.plate("samples", 5):
            return pyro.sample("x", distribution)

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    x = trace.nodes["x"]["value"]
    assert x.shape == (5, *case.event_shape)
    assert len({tuple(row.flatten().tolist()) for row in x}) == 5
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], distribution.log_prob(x))


@every_distribution
def test_particles_in_front_of_a_plate(case):
    distribution = case.distribution(3)

    def model():
        with pyro.plate("people", 3):
            return pyro.sample("x", distribution)

    with pyro.plate("particles", 4, dim=-2):
        assert model().shape == (4, 3, *case.event_shape)


@every_distribution
def test_to_event_mask_and_expand(case):
    distribution = case.distribution(2, 3)
    x = distribution.sample()
    log_prob = distribution.log_prob(x)
    event = distribution.to_event(1)
    assert event.batch_shape == (2,) and event.event_shape == (3, *case.event_shape)
    torch.testing.assert_close(event.log_prob(x), log_prob.sum(-1))
    mask = torch.tensor([[True, False, True], [False, False, True]])
    masked = distribution.mask(mask)
    torch.testing.assert_close(masked.log_prob(x), log_prob * mask)
    assert distribution.expand_by([4]).sample().shape == (4, 2, 3, *case.event_shape)


@every_distribution
def test_as_components_of_a_mixture(case):
    components = case.distribution(2, 3)
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    mixture = dist.MixtureSameFamily(dist.Categorical(weights.expand(2, 3)), components)
    x = mixture.sample((4,))
    assert x.shape == (4, 2, *case.event_shape)
    each = components.log_prob(x[:, :, None].expand(4, 2, 3, *case.event_shape))
    torch.testing.assert_close(mixture.log_prob(x), (each + weights.log()).logsumexp(-1))


@pytest.mark.parametrize("name", ["pagd", "flow_pagd_affine", "flow_pagd_spline", "decoded"])
def test_autodelta_climbs_to_a_denser_place(name):
    case = DISTRIBUTIONS[name]
    distribution = case.frozen_distribution(2)
    start = distribution.sample()
    anchor = distribution.sample()

    def model():
        with pyro.plate("people", 2):
            x = pyro.sample("x", distribution)
            noise = dist.Normal(x, 0.5).to_event(len(case.event_shape))
            pyro.sample("seen", noise, obs=anchor)

    guide = AutoDelta(model, init_loc_fn=init_to_value(values={"x": start}))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.02}), Trace_ELBO())
    losses = [svi.step() for _ in range(25)]
    assert losses[-1] < losses[0]
    assert guide.median()["x"].shape == start.shape


@pytest.mark.parametrize("name", ["pagd", "flow_standard_glow_additive"])
def test_autodelta_finds_the_closed_mode(name):
    distribution = DISTRIBUTIONS[name].frozen_distribution(2)
    start = distribution.mode.detach() + 0.3 * randn(*distribution.mode.shape)

    def model():
        with pyro.plate("people", 2):
            pyro.sample("x", distribution)

    guide = AutoDelta(model, init_loc_fn=init_to_value(values={"x": start}))
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.985}), Trace_ELBO())
    for _ in range(200):
        svi.step()
    found = guide.median()["x"]
    assert (distribution.log_prob(distribution.mode) - distribution.log_prob(found) < 0.05).all()


@pytest.mark.parametrize("name", ["pagd", "flow_pagd_affine"])
def test_nuts_recovers_the_base(name):
    distribution = DISTRIBUTIONS[name].frozen_distribution()
    x = run_nuts(lambda: pyro.sample("x", distribution), samples=120, start=distribution.sample())
    assert x.shape == (120, 3)
    z = base_coordinates(distribution, x)
    assert z.mean(0).abs().max() < 0.5
    assert ((z.std(0) > 0.6) & (z.std(0) < 1.5)).all()


def test_nuts_runs_on_a_decoded_distribution():
    distribution = decoded_case(joints=2, latent=2).frozen_distribution()
    x = run_nuts(
        lambda: pyro.sample("x", distribution),
        samples=8,
        start=distribution.point_estimate,
        depth=3,
    )
    assert x.shape == (8, 2, 3)
    # The root has no density: it must not drift.
    assert (x[:, 0] == 0).all()
    assert x.isfinite().all() and (x.std(0)[1] > 0).all()


def run_nuts(model, *, samples, start, depth=5):
    kernel = NUTS(model, max_tree_depth=depth, init_strategy=init_to_value(values={"x": start}))
    warmup = max(6, samples // 3)
    mcmc = MCMC(
        kernel,
        num_samples=samples,
        warmup_steps=warmup,
        disable_progbar=True,
        disable_validation=False,
    )
    mcmc.run()
    return mcmc.get_samples()["x"]


@every_flow
def test_transform_reparam_moves_a_site_to_the_base(case):
    distribution = case.distribution(2)

    def model():
        with pyro.plate("people", 2):
            return pyro.sample("x", distribution)

    moved = poutine.reparam(model, config={"x": TransformReparam()})
    trace = poutine.trace(moved).get_trace()
    z, x = trace.nodes["x_base"], trace.nodes["x"]
    assert z["value"].shape == (2, *distribution.base_dist.event_shape)
    standard = (z["value"] - distribution.base_dist.mean) / distribution.base_dist.stddev
    expected = base_coordinates(distribution, x["value"])
    torch.testing.assert_close(standard, expected, rtol=1e-5, atol=1e-5)
    trace.compute_log_prob()
    torch.testing.assert_close(z["log_prob"], distribution.base_dist.log_prob(z["value"]))


def test_map_in_latent_space_through_reparam():
    distribution = FLOW_DISTRIBUTIONS["flow_pagd_affine"].frozen_distribution()
    moved = poutine.reparam(
        lambda: pyro.sample("x", distribution), config={"x": TransformReparam()}
    )
    guide = AutoDelta(moved)
    svi = SVI(moved, guide, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.985}), Trace_ELBO())
    for _ in range(300):
        svi.step()
    z = guide.median()["x_base"]
    torch.testing.assert_close(z, distribution.base_dist.mode.detach(), atol=0.02, rtol=0)
    torch.testing.assert_close(distribution.transform(z), distribution.center, atol=0.1, rtol=0)


@pytest.mark.parametrize("case", EXACT_DISTRIBUTIONS.values(), ids=str)
def test_as_a_guide_with_reparametrized_gradients(case):
    distribution = case.distribution()

    def model():
        zero = torch.zeros(case.event_shape).double()
        pyro.sample("x", dist.Normal(zero, 1.0).to_event(zero.dim()))

    def guide():
        pyro.sample("x", distribution)

    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=0)
    loss = elbo.differentiable_loss(model, guide)
    assert loss.isfinite()
    assert loss.requires_grad == any(p.requires_grad for p in case.module.parameters())
