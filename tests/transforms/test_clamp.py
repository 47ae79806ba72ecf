import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propose_prob.transforms import soft_clamp


@given(st.floats(-1e6, 1e6), st.floats(0.1, 10))
def test_equation_5(t, alpha):
    value = soft_clamp(torch.tensor(t, dtype=torch.float64), alpha).item()
    assert value == pytest.approx(2 * alpha / math.pi * math.atan(t / alpha))
    assert abs(value) <= alpha


def test_is_odd_increasing_and_of_slope_two_over_pi_at_zero():
    t = torch.linspace(-20, 20, 1001, dtype=torch.float64, requires_grad=True)
    value = soft_clamp(t, 2.0)
    torch.testing.assert_close(value, -value.flip(0))
    assert (value.diff() > 0).all()
    (slope,) = torch.autograd.grad(value.sum(), t)
    assert slope[500].item() == pytest.approx(2 / math.pi)
    assert slope.max() == slope[500]


def test_infinity_goes_to_the_bound():
    bound = soft_clamp(torch.tensor([-math.inf, math.inf], dtype=torch.float64), 1.5)
    torch.testing.assert_close(bound, torch.tensor([-1.5, 1.5], dtype=torch.float64))
