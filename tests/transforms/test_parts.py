import pytest
import torch
from torch.distributions.transforms import (
    AbsTransform,
    CorrCholeskyTransform,
    ExpTransform,
    TanhTransform,
)

from propose_prob.transforms import (
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    DiagonalAffine,
    Identity,
    LULinear,
    Permutation,
    VectorTransform,
)
from tests.zoo import TRANSFORMS, randn


def test_permutation_by_hand():
    t = Permutation(torch.tensor([2, 0, 1]))
    assert t(torch.tensor([10.0, 20.0, 30.0])).tolist() == [30.0, 10.0, 20.0]
    assert t.inv(torch.tensor([30.0, 10.0, 20.0])).tolist() == [10.0, 20.0, 30.0]


def test_linear_by_hand():
    lower = torch.tensor([[1.0, 0.0], [2.0, 1.0]])
    upper = torch.tensor([[3.0, 1.0], [0.0, 5.0]])
    t = LULinear(lower, upper, torch.tensor([1.0, -1.0]))
    y, ladj = t.call_and_ladj(torch.tensor([1.0, 1.0]))
    assert y.tolist() == [5.0, 12.0]
    assert ladj.item() == pytest.approx(torch.tensor(15.0).log().item())


def test_couplings_by_hand():
    def network(resting):
        return torch.cat([10 * resting, torch.zeros_like(resting)], -1)

    t = AffineCoupling(network, 1)
    assert t(torch.tensor([1.0, 2.0])).tolist() == [1.0, 12.0]
    swapped = AffineCoupling(network, 1, swap=True)
    assert swapped(torch.tensor([1.0, 2.0])).tolist() == [21.0, 2.0]
    additive = AdditiveCoupling(lambda r: 10 * r, 1, swap=True)
    assert additive(torch.tensor([1.0, 2.0])).tolist() == [21.0, 2.0]


@pytest.mark.parametrize("name", ["additive_5", "affine_5", "spline_5", "affine_5_swap"])
def test_a_coupling_leaves_the_resting_half_alone(name):
    case = TRANSFORMS[name]
    x = randn(5, seed=1)
    moved = case.build(randn(3))(x) != x
    assert moved.sum() == case.features - case.module.resting
    assert moved.tolist() == sorted(moved.tolist(), reverse=case.module.swap)


def test_affine_log_scales_keep_to_the_clamp():
    t = AffineCoupling(lambda r: torch.full((2,), 1e6), 1, clamp=0.7)
    assert t.call_and_ladj(torch.zeros(2))[1].item() == pytest.approx(0.7, abs=1e-4)


def test_splines_are_the_identity_outside_their_range():
    x = torch.tensor([0.3, 0.1, 7.0, -6.0], dtype=torch.float64)
    t = TRANSFORMS["spline_4"].build(randn(3))
    assert torch.equal(t(x)[2:], x[2:])


def test_a_chain_runs_first_to_last():
    double = DiagonalAffine(torch.zeros(1), torch.tensor([2.0]).log())
    shift = DiagonalAffine(torch.ones(1), torch.zeros(1))
    assert Chain([double, shift])(torch.tensor([3.0])).item() == pytest.approx(7.0)
    assert Chain([shift, double])(torch.tensor([3.0])).item() == pytest.approx(8.0)


def test_a_chain_is_constant_only_when_all_its_parts_are():
    assert Chain([Identity(), Identity()]).constant_ladj
    assert not Chain([Identity(), TanhTransform()]).constant_ladj


def test_torchs_elementwise_transforms_count_as_vectors():
    t = Chain([ExpTransform(), Identity()])
    x = randn(4, 3)
    y, ladj = t.call_and_ladj(x)
    torch.testing.assert_close(y, x.exp())
    torch.testing.assert_close(ladj, x.sum(-1))
    torch.testing.assert_close(t.inverse_and_ladj(y)[1], -x.sum(-1))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "expected at least one transform, got none"),
        ([AbsTransform()], "transform 0: expected a bijection"),
        (
            [Identity(), CorrCholeskyTransform()],
            "transform 1: expected a bijection of vectors",
        ),
    ],
)
def test_bad_chains(parts, message):
    with pytest.raises(ValueError, match=message):
        Chain(parts)


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError):
        VectorTransform()
