import pytest
import torch
from torch.distributions import constraints

from propose_prob.transforms import VectorTransform
from tests.zoo import CONTEXT, SHAPES, TRANSFORMS, randn

cases = pytest.mark.parametrize("case", TRANSFORMS.values(), ids=str)
exact = {"rtol": 1e-7, "atol": 1e-7}


@cases
def test_round_trip(case):
    t = case.build(randn(CONTEXT))
    x = 2 * randn(20, case.features, seed=1)
    torch.testing.assert_close(t.inv(t(x)), x, **exact)
    torch.testing.assert_close(t(t.inv(x)), x, **exact)


@cases
def test_log_determinant_is_autograds_both_ways(case):
    t = case.build(randn(CONTEXT))
    x = 2 * randn(8, case.features, seed=1)
    y, ladj = t.call_and_ladj(x)
    by_autograd = [torch.autograd.functional.jacobian(t, row).slogdet()[1] for row in x]
    torch.testing.assert_close(ladj, torch.stack(by_autograd), **exact)
    z, inverse_ladj = t.inverse_and_ladj(y)
    by_autograd = [torch.autograd.functional.jacobian(t.inv, row).slogdet()[1] for row in y]
    torch.testing.assert_close(inverse_ladj, torch.stack(by_autograd), **exact)
    torch.testing.assert_close(inverse_ladj, -ladj, **exact)
    torch.testing.assert_close(z, x, **exact)


@cases
def test_the_one_pass_agrees_with_torchs_interface(case):
    t = case.build(randn(CONTEXT))
    x = randn(8, case.features, seed=1)
    y, ladj = t.call_and_ladj(x)
    assert torch.equal(y, t(x))
    torch.testing.assert_close(ladj, t.log_abs_det_jacobian(x, y))
    z, inverse_ladj = t.inverse_and_ladj(y)
    assert torch.equal(z, t.inv(y))
    torch.testing.assert_close(inverse_ladj, t.inv.log_abs_det_jacobian(y, x))


@cases
@pytest.mark.parametrize("sample", SHAPES, ids=str)
@pytest.mark.parametrize("batch", SHAPES, ids=str)
def test_shapes_and_batched_equals_looped(case, sample, batch):
    c = randn(*batch, CONTEXT)
    x = randn(*sample, *batch, case.features, seed=1)
    t = case.build(c)
    y, ladj = t.call_and_ladj(x)
    back, inverse_ladj = t.inverse_and_ladj(y)
    assert y.shape == back.shape == x.shape
    assert ladj.shape == inverse_ladj.shape == sample + batch
    shared = c.expand(*sample, *batch, CONTEXT).reshape(-1, CONTEXT)
    rows = zip(x.reshape(-1, case.features), shared, strict=True)
    looped = [case.build(one).call_and_ladj(row) for row, one in rows]
    torch.testing.assert_close(y.reshape(-1, case.features), torch.stack([v for v, _ in looped]))
    torch.testing.assert_close(ladj.reshape(-1), torch.stack([v for _, v in looped]))
    torch.testing.assert_close(back, x, **exact)


@pytest.mark.parametrize("case", [case for case in TRANSFORMS.values() if case.contextual], ids=str)
def test_a_value_without_batch_meets_a_batch_of_contexts(case):
    t = case.build(randn(2, 3, CONTEXT))
    x = randn(case.features, seed=1)
    full = x.expand(2, 3, case.features)
    for method in (t.call_and_ladj, t.inverse_and_ladj):
        y, ladj = method(x)
        expected_y, expected_ladj = method(full)
        torch.testing.assert_close(y, expected_y)
        torch.testing.assert_close(ladj.expand(2, 3), expected_ladj)
        assert y.shape == (2, 3, case.features)


@pytest.mark.parametrize("case", [case for case in TRANSFORMS.values() if case.contextual], ids=str)
def test_the_context_matters(case):
    x = randn(case.features, seed=1)
    assert not torch.allclose(
        case.build(randn(CONTEXT))(x), case.build(randn(CONTEXT, seed=2))(x), atol=1e-3
    )


@cases
def test_constant_log_determinant_is_a_promise_kept(case):
    t = case.build(randn(CONTEXT))
    assert t.constant_ladj is case.constant
    ladj = t.call_and_ladj(2 * randn(50, case.features, seed=1))[1]
    assert (ladj.std() < 1e-12) == case.constant


@cases
def test_gradients_reach_value_and_context(case):
    c = randn(CONTEXT).requires_grad_()
    x = randn(5, case.features, seed=1).requires_grad_()
    for method in ("call_and_ladj", "inverse_and_ladj"):
        y, ladj = getattr(case.build(c), method)(x)
        weight = randn(*y.shape, seed=3)
        inputs = (x, c) if case.contextual else (x,)
        gradients = torch.autograd.grad((y * weight).sum() + ladj.sum(), inputs)
        assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


@cases
def test_is_a_torch_transform(case):
    t = case.build(randn(CONTEXT))
    assert isinstance(t, VectorTransform)
    assert t.bijective
    assert t.domain.event_dim == t.codomain.event_dim == 1
    assert t.domain is constraints.real_vector
    assert t.with_cache(1) is t
    assert t.inv.inv is t
    assert t.forward_shape((7, case.features)) == (7, case.features)


@pytest.mark.parametrize("case", [case for case in TRANSFORMS.values() if case.learned], ids=str)
def test_float32(case):
    module = case.module
    c, x = randn(7, CONTEXT), randn(7, case.features, seed=1)
    y, ladj = module(c).call_and_ladj(x)
    # The zoo's modules are shared: give the dtype back.
    try:
        t = module.float()(c.float())
        y32, ladj32 = t.call_and_ladj(x.float())
        back, inverse_ladj32 = t.inverse_and_ladj(y32)
    finally:
        module.double()
    for value in (y32, ladj32, back, inverse_ladj32):
        assert value.dtype == torch.float32
    torch.testing.assert_close(y32.double(), y, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ladj32.double(), ladj, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back, x.float(), rtol=1e-3, atol=1e-3)


@cases
def test_values_far_out_stay_finite(case):
    t = case.build(1e3 * randn(CONTEXT))
    y, ladj = t.call_and_ladj(1e3 * randn(8, case.features, seed=1))
    assert y.isfinite().all() and ladj.isfinite().all()
