import copy
import pickle

import pytest
import torch
import zuko
from torch.distributions import AffineTransform

from propose_prob.conditional import (
    PAGD,
    PILGD,
    ActNorm,
    ConditionalCoupling,
    ConditionalFlow,
    FixedPermutation,
    LULinearModule,
    StandardBase,
    coupling_stack,
    glow_stack,
)
from propose_prob.conditional.flows import ComposedTransform
from propose_prob.conditional.gaussian import VariationalPILGD
from propose_prob.distributions import FlowDistribution
from propose_prob.nn import ConditionalMLP, ResidualMLP
from tests.zoo import CONTEXT, TRANSFORMS, VECTOR_DISTRIBUTIONS, flow_module, randn

MODULES = {name: case for name, case in TRANSFORMS.items() if case.learned}
every_module = pytest.mark.parametrize(
    "case", [*MODULES.values(), *VECTOR_DISTRIBUTIONS.values()], ids=str
)
every_distribution = pytest.mark.parametrize("case", VECTOR_DISTRIBUTIONS.values(), ids=str)


def apply(module, c, x):
    """What a module says of a value: the transform's output, or the distribution's density."""
    made = module(c)
    if hasattr(made, "log_prob"):
        return made.log_prob(x)
    return torch.cat([part.reshape(-1) for part in made.call_and_ladj(x)])


def inputs(case):
    features = case.event_shape[0] if hasattr(case, "event_shape") else case.features
    return randn(4, CONTEXT), randn(4, features, seed=1)


@every_distribution
def test_every_parameter_gets_a_gradient_from_the_likelihood(case):
    c, x = inputs(case)
    case.module.zero_grad()
    loss = -case.build(c).log_prob(x).sum()
    parameters = dict(case.module.named_parameters())
    if case.name == "standard":
        assert not parameters and not loss.requires_grad
        return
    loss.backward()
    for name, parameter in parameters.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all() and (parameter.grad != 0).any(), name
    case.module.zero_grad()


@pytest.mark.parametrize("case", MODULES.values(), ids=str)
def test_every_parameter_of_a_transform_gets_a_gradient(case):
    c, x = inputs(case)
    case.module.zero_grad()
    y, ladj = case.build(c).call_and_ladj(x)
    total = (y * randn(*y.shape, seed=2)).sum() + ladj.sum()
    if total.requires_grad:
        total.backward()
    for name, parameter in case.module.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), name
    case.module.zero_grad()


@every_module
def test_state_dict_round_trip(case):
    c, x = inputs(case)
    other = copy.deepcopy(case.module)
    with torch.no_grad():
        for value in [*other.parameters(), *other.buffers()]:
            value.copy_(torch.zeros_like(value))
    other.load_state_dict(case.module.state_dict())
    assert torch.equal(apply(other, c, x), apply(case.module, c, x))


@every_module
def test_deepcopy_and_pickle_give_an_equal_and_separate_module(case):
    c, x = inputs(case)
    expected = apply(case.module, c, x).detach()
    for other in (copy.deepcopy(case.module), pickle.loads(pickle.dumps(case.module))):
        assert torch.equal(apply(other, c, x), expected)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1)
        assert torch.equal(apply(case.module, c, x), expected)


@every_module
def test_train_and_eval_agree_without_dropout(case):
    c, x = inputs(case)
    expected = apply(case.module, c, x)
    case.module.train()
    try:
        assert torch.equal(apply(case.module, c, x), expected)
    finally:
        case.module.eval()


@every_distribution
def test_a_distribution_keeps_nothing_in_its_module(case):
    before = {key: value.clone() for key, value in case.module.state_dict().items()}
    case.distribution(2).sample((3,))
    after = case.module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@every_distribution
def test_conditional_is_another_name_for_a_call(case):
    c, x = inputs(case)
    distribution, same = case.module.conditional(c), case.module(c)
    assert torch.equal(distribution.log_prob(x), same.log_prob(x))


# --- Gaussians ----------------------------------------------------------------------------------


def constant(*values):
    return lambda c: torch.tensor(values, dtype=c.dtype).expand(*c.shape[:-1], len(values))


class Fixed(torch.nn.Module):
    def __init__(self, *values):
        super().__init__()
        self.values = values

    def forward(self, c):
        return constant(*self.values)(c)


def test_pilgd_by_hand():
    distribution = PILGD(Fixed(0.0, 1e9, 2.0), scale=0.3, clamp=2.0)(torch.zeros(4, 5))
    torch.testing.assert_close(distribution.mean[0], torch.tensor([0.0, 2.0, 1.0]))
    torch.testing.assert_close(distribution.stddev, torch.full((4, 3), 0.3))


def test_the_vae_by_hand():
    distribution = VariationalPILGD(Fixed(7.0, 1e9), clamp=1.5)(torch.zeros(5))
    assert distribution.mean.item() == 7.0
    assert distribution.stddev.log().item() == pytest.approx(1.5)


def test_pagd_clamps_the_log_scale_and_knows_its_temperature():
    pagd = PAGD(Fixed(0.0, 1e9, 0.0, -1e9), clamp=2.0)
    distribution = pagd(torch.zeros(5))
    torch.testing.assert_close(distribution.mean, torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(distribution.stddev.log(), torch.tensor([0.0, -2.0]))
    pagd.temperature.fill_(3.0)
    torch.testing.assert_close(pagd(torch.zeros(5)).stddev, 3 * distribution.stddev)
    assert "temperature" in pagd.state_dict()


def test_the_standard_base_has_the_contexts_batch():
    base = StandardBase(3)
    assert base().batch_shape == ()
    distribution = base(torch.zeros(2, 4, 7))
    assert distribution.batch_shape == (2, 4) and distribution.event_shape == (3,)
    assert (distribution.mean == 0).all() and (distribution.stddev == 1).all()
    base.temperature.fill_(2.0)
    assert (base(torch.zeros(7)).stddev == 2).all()


# --- flows --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["additive", "affine", "spline"])
def test_couplings_start_as_the_identity(kind):
    t = ConditionalCoupling(5, CONTEXT, kind=kind, width=8).double()(randn(CONTEXT))
    x = randn(10, 5, seed=1)
    y, ladj = t.call_and_ladj(x)
    if kind == "spline":
        # Equal bins, but end slopes of one: close to the identity.
        torch.testing.assert_close(y, x, atol=0.3, rtol=0)
    else:
        assert torch.equal(y, x) and (ladj == 0).all()


def test_linear_maps_start_as_the_identity():
    x = randn(10, 4)
    stack = ComposedTransform([ActNorm(4), LULinearModule(4)]).double()
    torch.testing.assert_close(stack(None)(x), x)


def test_actnorm_whitens_each_element_once():
    values = 3 * randn(500, 4) + 7
    norm = ActNorm(4).double()
    assert not norm.fitted
    norm.fit(values)
    latent = norm().inv(values)
    torch.testing.assert_close(latent.mean(0), torch.zeros(4).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(latent.std(0), torch.ones(4).double())
    assert norm.fitted
    other = ActNorm(4).double()
    other.load_state_dict(norm.state_dict())
    assert other.fitted
    assert copy.deepcopy(norm).fitted and pickle.loads(pickle.dumps(norm)).fitted


def test_actnorm_survives_a_constant_element():
    norm = ActNorm(2)
    norm.fit(torch.tensor([[1.0, 5.0], [2.0, 5.0]]))
    assert norm().inv(torch.tensor([1.0, 5.0])).isfinite().all()


def test_a_stack_fits_each_actnorm_to_what_reaches_it_and_never_again():
    stack = glow_stack(4, CONTEXT, couplings=3, width=8, blocks=1).double()
    for parameter in stack.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(0))
    c, values = randn(400, CONTEXT), 5 * randn(400, 4, seed=1) - 2
    stack.fit_actnorm(values, c)
    x = values
    for module in reversed(stack.transforms):
        if isinstance(module, ActNorm):
            x = module(c).inv(x)
            torch.testing.assert_close(x.std(0), torch.ones(4).double())
        else:
            x = module(c).inv(x)
    fitted = {key: value.clone() for key, value in stack.state_dict().items()}
    stack.fit_actnorm(100 * values, c)
    assert all(torch.equal(fitted[key], value) for key, value in stack.state_dict().items())


def test_permutations_are_seeded_and_leave_the_global_state_alone():
    state = torch.get_rng_state()
    a, b, c = (FixedPermutation(32, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(a.order, b.order) and not torch.equal(a.order, c.order)
    assert torch.equal(a.order[a.inverse_order], torch.arange(32))


def test_the_contexts_part_is_computed_once():
    module = flow_module("pagd", "affine", 4).double()
    calls = []
    for network in module.transform.modules():
        if isinstance(network, ConditionalMLP):
            network.context.register_forward_hook(lambda _m, args, _o: calls.append(args[0].shape))
    distribution = module(randn(5, CONTEXT))
    distribution.rsample((200,))
    distribution.log_prob(distribution.sample((10,)))
    assert calls == [torch.Size([5, CONTEXT])] * 2


def test_a_split_first_layer_equals_a_joint_one():
    network = ConditionalMLP(2, 3, 4, width=8).double()
    x, c = randn(6, 1, 2), randn(5, 3, seed=1)
    joint = torch.cat([network.value.weight, network.context.weight], 1)
    hidden = torch.cat([x.expand(6, 5, 2), c.expand(6, 5, 3)], -1) @ joint.mT
    hidden = network.blocks(hidden + network.context.bias)
    expected = network.output(torch.nn.functional.silu(hidden))
    torch.testing.assert_close(network(x, c), expected)
    torch.testing.assert_close(network.bind(c)(x), expected)


def test_zukos_modules_drop_in():
    """A zuko base, and a zuko transform between ours."""
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(4), torch.ones(4), buffer=True
    )
    middle = zuko.lazy.UnconditionalTransform(
        AffineTransform, torch.ones(4), 2 * torch.ones(4), event_dim=1, buffer=True
    )
    coupling = ConditionalCoupling(4, CONTEXT, width=8)
    flow = ConditionalFlow(base, ComposedTransform([coupling, middle]))
    distribution = flow(torch.zeros(5, CONTEXT))
    assert isinstance(distribution, FlowDistribution) and distribution.batch_shape == (5,)
    x, log_prob = distribution.rsample_and_log_prob((3,))
    torch.testing.assert_close(log_prob, distribution.log_prob(x))
    assert not distribution.constant_ladj


def test_a_flow_without_context():
    flow = ConditionalFlow(StandardBase(4), ComposedTransform([ActNorm(4), LULinearModule(4)]))
    distribution = flow()
    assert distribution.batch_shape == () and distribution.sample((3,)).shape == (3, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConditionalCoupling(1, 3), "expected features >= 2 to split in two, got 1"),
        (
            lambda: ConditionalCoupling(4, 3, kind="cubic"),
            "expected a coupling of additive, affine, spline, got 'cubic'",
        ),
        (lambda: coupling_stack(4, 3, kind="cubic"), "got 'cubic'"),
        (lambda: PILGD(Fixed(0.0), scale=0.0), "expected scale > 0, got 0.0"),
        (lambda: PILGD(Fixed(0.0), clamp=-1.0), "expected clamp > 0, got -1.0"),
        (lambda: PILGD(Fixed(0.0), scale=float("nan")), "expected scale > 0, got nan"),
        (lambda: VariationalPILGD(Fixed(0.0), clamp=0.0), "expected clamp > 0, got 0.0"),
        (lambda: PAGD(Fixed(0.0), clamp=0.0), "expected clamp > 0, got 0.0"),
        (lambda: PILGD(Fixed(0.0))(None), r"expected a context of shape \(..., m\), got None"),
        (lambda: PAGD(Fixed(0.0))(None), r"expected a context of shape \(..., m\), got None"),
        (lambda: ConditionalCoupling(4, 3)(None), r"expected a context of shape \(..., m\)"),
        (lambda: ActNorm(3).fit(torch.zeros(1, 3)), "expected at least 2 values on axis 0, got 1"),
        (lambda: coupling_stack(4, 3, couplings=0)(torch.zeros(3)), "at least one transform"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_residual_mlps_take_any_batch():
    network = ResidualMLP(3, 2, width=8, blocks=1)
    assert network(torch.zeros(2, 5, 3)).shape == (2, 5, 2)
    assert network(torch.zeros(3)).shape == (2,)
