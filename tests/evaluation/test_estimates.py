import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation

from propose_prob.evaluation.estimates import coordinate_median, estimate, geometric_median

seeds = st.integers(0, 2**31)


def draw(seed, samples=15, items=3, joints=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(samples, items, joints, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("samples", [1, 2, 7, 8])
def test_mean_and_median_equal_numpy(samples):
    x = draw(0, samples)
    np.testing.assert_allclose(estimate(x, "mean"), x.numpy().mean(0))
    np.testing.assert_allclose(estimate(x, "median"), np.median(x.numpy(), 0))
    assert torch.equal(estimate(x, "sample"), x[0])
    assert torch.equal(estimate(x, "geometric_median"), geometric_median(x))


def test_geometric_median_equals_a_numerical_search():
    x = draw(1)
    x[:, 0, 0] *= torch.tensor([100.0, 1.0, 0.01])
    found = geometric_median(x, steps=500).numpy()
    for item, joint in np.ndindex(3, 4):
        points = x[:, item, joint].numpy()

        def cost(m, points=points):
            return np.linalg.norm(points - m, axis=-1).mean()

        best = minimize(cost, points.mean(0), method="Nelder-Mead", options={"xatol": 1e-9}).fun
        assert cost(found[item, joint]) <= best * (1 + 1e-6)


def test_a_sample_that_holds_the_majority_is_the_geometric_median():
    x = draw(2, samples=9)
    x[4:] = x[4]
    torch.testing.assert_close(geometric_median(x), x[4])
    # One sample at the start of the search must not hold it there.
    line = torch.tensor([0.0, 0.0, 1.0, 5.0, 5.0])[:, None, None] * torch.ones(3)
    line = line + torch.tensor([[0, 1, 0], [0, -1, 0], [0, 0, 0], [3, 0, 0], [3, 0, 1.0]])[:, None]
    found = geometric_median(line.double(), steps=500)
    for shift in (1e-3, -1e-3):
        for axis in range(3):
            other = found.clone()
            other[..., axis] += shift
            cost = [torch.linalg.vector_norm(line - m, dim=-1).mean() for m in (found, other)]
            assert cost[0] < cost[1]


def test_samples_in_one_place_stay_there():
    x = torch.full((5, 2, 3, 3), 0.7)
    torch.testing.assert_close(geometric_median(x), x[0])


def test_nobody_in_the_batch_changes_anothers_answer():
    x = draw(3)
    x[:, 1] *= 1e3
    torch.testing.assert_close(
        geometric_median(x)[:1], geometric_median(x[:, :1]), rtol=0, atol=1e-12
    )


@settings(max_examples=15)
@given(seed=seeds)
def test_order_and_rotation_do_not_matter(seed):
    x = draw(seed)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(seed))
    turn = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
    torch.testing.assert_close(geometric_median(x[order]), geometric_median(x))
    turned = geometric_median(x @ turn.T, steps=300)
    torch.testing.assert_close(turned, geometric_median(x, steps=300) @ turn.T, rtol=0, atol=1e-5)
    assert torch.equal(coordinate_median(x[order]), coordinate_median(x))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: estimate(torch.zeros(3, 2, 3), "mode"), "got 'mode'"),
        (lambda: estimate(torch.zeros(3, 2, 2), "mean"), r"\(S, ..., J, 3\)"),
        (lambda: geometric_median(torch.zeros(0, 2, 3)), r"\(S, ..., J, 3\)"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
