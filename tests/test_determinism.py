"""What the same seed gives again, and what only rounding separates."""

import subprocess
import sys

import pytest
import torch

from propose_prob.conditional import freeze
from propose_prob.weights import available, load

NAMES = [name for name in available() if "image" not in name]

AGAIN = """
import hashlib, sys, torch
from propose_prob.weights import load
torch.set_num_threads(1)
model = load(sys.argv[1])
p2d = 100 * torch.randn(3, 17, 2, generator=torch.Generator().manual_seed(0)) + 500
torch.manual_seed(7)
distribution = model.conditional(p2d, focal=1000.0, center=(500.0, 500.0))
draws = distribution.sample((5,))
values = [draws, distribution.point_estimate]
if distribution.log_prob_kind == "exact":
    values.append(distribution.log_prob(draws))
print([hashlib.sha256(value.numpy().tobytes()).hexdigest() for value in values])
"""


def people():
    return 100 * torch.randn(3, 17, 2, generator=torch.Generator().manual_seed(0)) + 500


def draws(model, p2d):
    torch.manual_seed(7)
    with torch.no_grad():
        distribution = model.conditional(p2d)
        return distribution.sample((5,)), distribution.hypotheses((5,)), distribution.point_estimate


def test_another_process_gives_the_same_bits():
    runs = {
        subprocess.run(
            [sys.executable, "-c", AGAIN, "prohmr-lifting-cmu17"],
            check=True, capture_output=True, text=True,
        ).stdout
        for _ in range(2)
    }  # fmt: skip
    assert len(runs) == 1 and runs.pop().count("'") == 6


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits(name):
    model = load(name)
    first = draws(model, people())
    torch.randn(3)
    for one, other in zip(first, draws(model, people()), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_threads_and_freezing_change_no_more_than_rounding(name):
    model, before = load(name), torch.get_num_threads()
    first = draws(model, people())
    try:
        torch.set_num_threads(2)
        threads = draws(model, people())
    finally:
        torch.set_num_threads(before)
    for given in (threads, draws(freeze(model), people())):
        for one, other in zip(first, given, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
