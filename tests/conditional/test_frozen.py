"""Frozen copies: the same distributions, whatever is asked of them."""

import copy
import pickle

import pytest
import torch

from propose_prob.conditional import (
    ActNorm,
    ConditionalCoupling,
    ConditionalFlow,
    FixedPermutation,
    LULinearModule,
    StandardBase,
    coupling_stack,
    freeze,
    glow_stack,
)
from propose_prob.conditional.flows import ComposedTransform, IdentityTransform, InverseTransform
from propose_prob.nn import ConditionalMLP
from propose_prob.nn.fused import FrozenLinear
from propose_prob.weights import available, load, save
from tests.zoo import perturbed

D, M = 6, 3


def _without_blocks():
    relu = ConditionalCoupling(D, M, blocks=0, activation="relu", swap=True)
    return ComposedTransform([ActNorm(D), relu, FixedPermutation(D, seed=0)])


def _nothing_before():
    plain = ConditionalCoupling(D, M, activation="relu", last_activation=False, width=256, blocks=1)
    return ComposedTransform([IdentityTransform(), plain, LULinearModule(D)])


STACKS = {
    "glow": lambda: glow_stack(D, M, width=16),
    "affine": lambda: coupling_stack(D, M, width=16),
    "spline": lambda: coupling_stack(D, M, kind="spline", couplings=3, width=16),
    "inverse": lambda: InverseTransform(glow_stack(D, M, kind="affine", width=16)),
    "without blocks": _without_blocks,
    "nothing before": _nothing_before,
    "nothing at all": lambda: ComposedTransform([IdentityTransform()]),
}


@pytest.fixture(params=STACKS)
def flow(request):
    module = ConditionalFlow(StandardBase(D), STACKS[request.param]())
    # Small steps: a product of random triangular matrices is badly conditioned.
    return perturbed(module, scale=0.3).float()


@pytest.mark.parametrize("contexts", [(), (5,), (2, 3)])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("samples", [(), (100,)])
def test_values_densities_and_inverses_are_the_same(flow, contexts, grad, samples):
    c = torch.randn(*contexts, M, generator=torch.Generator().manual_seed(0))
    z = torch.randn(*samples, *contexts, D, generator=torch.Generator().manual_seed(1))
    distribution, frozen = flow(c), freeze(flow)(c)
    with torch.set_grad_enabled(grad):
        x, ladj = distribution.transform.call_and_ladj(z)
        y, other = frozen.transform.call_and_ladj(z)
        torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(other, ladj, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(frozen.transform.inv(x), z, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(
            frozen.log_prob(x), distribution.log_prob(x), rtol=1e-4, atol=1e-3
        )
    assert frozen.constant_ladj == distribution.constant_ladj


def test_derivatives_with_respect_to_values_and_contexts_are_the_same(flow):
    c, x = torch.randn(4, M, requires_grad=True), torch.randn(70, 4, D, requires_grad=True)
    grads = [
        torch.autograd.grad(module(c).log_prob(x).sum(), (c, x), materialize_grads=True)
        for module in (flow, freeze(flow))
    ]
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)


def test_forward_mode_and_vmap_see_plain_operators(flow):
    c, x, v = torch.randn(M), torch.randn(80, D), torch.randn(80, D)
    frozen = freeze(flow)
    with torch.no_grad():
        expected = torch.func.jvp(flow(c).transform, (x,), (v,))[1]
        found = torch.func.jvp(frozen(c).transform, (x,), (v,))[1]
        mapped = torch.func.vmap(frozen(c).transform)(x)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(mapped, flow(c).transform(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["silu", "relu"])
@pytest.mark.parametrize("skip", [False, True])
def test_large_networks_use_the_fused_kernels_and_agree(activation, skip):
    network = ConditionalMLP(8, 4, 300, width=320, skip=skip, activation=activation)
    holder = freeze(torch.nn.ModuleList([network]))
    x, c = torch.randn(500, 8), torch.randn(4)
    with torch.no_grad():
        found = holder[0](x, c)
        torch.testing.assert_close(found, network(x, c), rtol=1e-4, atol=1e-4)
    assert holder[0].first[0]._packed is not None, "the fused kernel was not used"


def test_packed_weights_follow_changes_and_conversions():
    linear = FrozenLinear(torch.nn.Linear(320, 320)).requires_grad_(False)
    x = torch.randn(500, 320)
    with torch.no_grad():
        before = linear(x, fused=True)
        linear.weight.mul_(2)
        plain = torch.nn.functional.linear(x, linear.weight, linear.bias)
        torch.testing.assert_close(linear(x, fused=True), plain, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(before, plain)
        double = copy.deepcopy(linear).double()
        torch.testing.assert_close(double(x.double(), fused=True).float(), plain, atol=1e-4, rtol=0)
        stored = pickle.loads(pickle.dumps(linear))
        torch.testing.assert_close(stored(x, fused=True), plain, rtol=1e-4, atol=1e-4)


def test_the_original_is_left_alone():
    flow = ConditionalFlow(StandardBase(D), glow_stack(D, M, width=16)).train()
    state = {k: v.clone() for k, v in flow.state_dict().items()}
    frozen = freeze(flow)
    assert flow.training and all(p.requires_grad for p in flow.parameters())
    assert not frozen.training and not any(p.requires_grad for p in frozen.parameters())
    assert flow.state_dict().keys() == state.keys()


@pytest.mark.parametrize("name", [n for n in available() if "image" not in n])
def test_shipped_models_give_the_same_distributions(name):
    model = load(name)
    frozen = freeze(model)
    p2d = 100 * torch.randn(3, 17, 2, generator=torch.Generator().manual_seed(0)) + 500
    found = []
    for each in (model, frozen):
        torch.manual_seed(0)
        distribution = each.conditional(p2d, focal=1000.0, center=(500.0, 500.0))
        draws = distribution.sample((70,))
        found.append((draws, distribution.point_estimate, distribution.log_prob(draws[0])))
    for ours, theirs, limit in zip(*found, (1e-5, 1e-5, 1e-2), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=limit)


def test_a_frozen_model_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match="save the model it was made from"):
        save(freeze(load("propose-cmu17")), tmp_path / "frozen.safetensors")
    assert not list(tmp_path.iterdir())


def test_networks_tell_which_activations_they_know():
    with pytest.raises(ValueError, match="silu, relu, got 'tanh'"):
        ConditionalMLP(2, 2, 2, activation="tanh")
