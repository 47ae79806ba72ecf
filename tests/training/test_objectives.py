"""Each loss against a plain loop."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propose_prob.distributions import FlowDistribution
from propose_prob.distributions.flow import diagonal_normal
from propose_prob.training import objectives
from tests.zoo import DISTRIBUTIONS, randn

B, J, L, D = 5, 4, 6, 3


def length(vector):
    return math.sqrt(sum(float(v) ** 2 for v in vector))


def poses(seed=0):
    return randn(B, J, 3, seed=seed), randn(B, J, 3, seed=seed + 1)


def test_recon3d():
    x, y = poses()
    distances = [length(x[b, j] - y[b, j]) for b in range(B) for j in range(J)]
    assert objectives.recon3d(x, y).item() == pytest.approx(sum(distances) / (B * J))
    squares = sum(d * d for d in distances) / (B * J)
    assert objectives.recon3d(x, y, squared=True).item() == pytest.approx(squares)


def test_a_perfect_reconstruction_has_a_finite_gradient():
    x = randn(B, J, 3).requires_grad_()
    loss = objectives.recon3d(x.detach(), x)
    loss.backward()
    assert loss.item() < 1e-5 and x.grad.isfinite().all()


def test_recon2d_counts_visible_joints_only():
    p2d, decoded = randn(B, J, 2), randn(B, J, 2, seed=1)
    visible = torch.rand(B, J, generator=torch.Generator().manual_seed(0)) < 0.5
    every, seen = [], []
    for b in range(B):
        for j in range(J):
            error = sum(abs(float(v)) for v in p2d[b, j] - decoded[b, j])
            every.append(error)
            if visible[b, j]:
                seen.append(error)
    assert objectives.recon2d(p2d, decoded).item() == pytest.approx(sum(every) / len(every))
    expected = sum(seen) / len(seen)
    assert objectives.recon2d(p2d, decoded, visible).item() == pytest.approx(expected)
    hidden = torch.zeros(B, J, dtype=torch.bool)
    assert objectives.recon2d(p2d, decoded, hidden).item() == 0


@torch.no_grad()
def test_negative_log_likelihood_of_a_flow():
    distribution = DISTRIBUTIONS["flow_pagd_affine"].distribution(B)
    w = randn(B, D, seed=2)
    loc, scale = distribution.base_dist.mean, distribution.base_dist.stddev
    total = 0.0
    for b in range(B):
        z, ladj = distribution.transform.inverse_and_ladj(w)
        for i in range(D):
            u = float((z[b, i] - loc[b, i]) / scale[b, i])
            total += 0.5 * u * u + math.log(scale[b, i].item()) + 0.5 * math.log(2 * math.pi)
        total -= ladj[b].item()
    expected = total / (B * D)
    assert objectives.negative_log_likelihood(distribution, w).item() == pytest.approx(expected)


def test_mode_to_mode():
    z, mu = randn(B, D), randn(B, D, seed=1)
    expected = sum(length(z[b] - mu[b]) for b in range(B)) / B
    assert objectives.mode_to_mode(z, mu).item() == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, L])
def test_best_of_m_takes_the_mean_of_the_k_best(k):
    hypotheses, pose = randn(L, B, J, 3), randn(B, J, 3, seed=1)
    total = 0.0
    for b in range(B):
        errors = []
        for h in range(L):
            error = sum(length(hypotheses[h, b, j] - pose[b, j]) for j in range(J)) / J
            errors.append((error, h))
        best = [h for _, h in sorted(errors)[:k]]
        mean = sum(hypotheses[h, b] for h in best) / k
        total += sum(length(mean[j] - pose[b, j]) for j in range(J)) / J
    value = objectives.best_of_m(hypotheses, pose, k=k)
    assert value.item() == pytest.approx(total / B)


def test_best_of_m_moves_only_the_best():
    hypotheses, pose = randn(L, B, J, 3).requires_grad_(), randn(B, J, 3, seed=1)
    objectives.best_of_m(hypotheses, pose, k=2).backward()
    moved = (hypotheses.grad != 0).flatten(2).any(-1)
    assert (moved.sum(0) == 2).all()


@pytest.mark.parametrize("k", [0, L + 1])
def test_best_of_m_refuses_an_impossible_k(k):
    with pytest.raises(ValueError, match=f"expected 1 <= k <= {L} hypotheses, got k = {k}"):
        objectives.best_of_m(randn(L, B, J, 3), randn(B, J, 3), k=k)


def test_random_hypothesis():
    hypotheses, pose = randn(L, B, J, 3), randn(B, J, 3, seed=1)
    expected = objectives.recon3d(hypotheses[0], pose)
    assert torch.equal(objectives.random_hypothesis(hypotheses, pose), expected)


@pytest.mark.parametrize("count", [2, 3, 6, 7])
def test_energy_score(count):
    hypotheses, pose = randn(count, B, J, 3), randn(B, J, 3, seed=1)

    def distance(a, b):
        joints = [length(a[j] - b[j]) for j in range(J)]
        return 0.5 * (sum(joints) / J + math.sqrt(sum(d * d for d in joints) / J))

    total = 0.0
    for b in range(B):
        error = sum(distance(hypotheses[h, b], pose[b]) for h in range(count)) / count
        pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
        spread = sum(distance(hypotheses[i, b], hypotheses[j, b]) for i, j in pairs) / len(pairs)
        total += error - 0.5 * spread
    assert objectives.energy_score(hypotheses, pose).item() == pytest.approx(total / B)


def test_the_energy_score_is_least_at_the_truth():
    """Poses of a known distribution; a narrower, wider or shifted distribution scores worse."""
    generator = torch.Generator().manual_seed(0)
    pose = torch.randn(40_000, 1, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(4, 40_000, 1, 3, generator=generator, dtype=torch.float64)

    def score(scale, shift):
        return objectives.energy_score(scale * noise + shift, pose).item()

    truth = score(1.0, 0.0)
    for scale, shift in ((0.6, 0.0), (0.8, 0.0), (1.25, 0.0), (1.6, 0.0), (1.0, 0.2), (1.0, -0.2)):
        assert score(scale, shift) > truth


def test_the_energy_score_sees_dependence_between_joints():
    generator = torch.Generator().manual_seed(0)

    def together(*shape):
        one = torch.randn(*shape, 1, 3, generator=generator, dtype=torch.float64)
        return one.expand(*shape, 8, 3)

    n = 20_000
    apart = torch.randn(4, n, 8, 3, generator=generator, dtype=torch.float64)
    pose = together(n)
    score = objectives.energy_score
    assert score(together(4, n), pose) < score(apart, pose) - 0.005


def test_the_energy_score_needs_two_hypotheses():
    with pytest.raises(ValueError, match="expected at least 2 hypotheses on axis 0, got 1"):
        objectives.energy_score(randn(1, B, J, 3), randn(B, J, 3))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
def test_the_gate_opens_with_its_probability(threshold):
    generator = torch.Generator().manual_seed(0)
    n = 3000
    share = sum(objectives.gate(threshold, generator) for _ in range(n)) / n
    assert share == pytest.approx(1 - threshold, abs=4 * math.sqrt(0.25 / n))
    assert threshold not in (0.0, 1.0) or share == 1 - threshold


def test_the_gate_leaves_the_global_state_alone():
    state = torch.get_rng_state()
    objectives.gate(0.5, torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())


def test_discriminator_and_generator_losses():
    real = torch.tensor([0.1, 0.3])
    fake = torch.tensor([0.2, 0.9])
    expected = (0.1 + 0.3) / 2 + (max(0, 0.5 - 0.2) + max(0, 0.5 - 0.9)) / 2
    value = objectives.discriminator_loss(real, fake, margin=0.5)
    assert value.item() == pytest.approx(expected)
    assert objectives.generator_loss(fake).item() == pytest.approx(0.55)
    # Beyond the margin a fake pose no longer moves the discriminator.
    fake.requires_grad_()
    objectives.discriminator_loss(real, fake, margin=0.5).backward()
    assert fake.grad.tolist() == [-0.5, 0.0]


def test_pulling_away():
    codes = randn(B, D)
    total = 0.0
    for i in range(B):
        for j in range(B):
            if i != j:
                dot = sum(float(a * b) for a, b in zip(codes[i], codes[j], strict=True))
                total += (dot / (length(codes[i]) * length(codes[j]))) ** 2
    assert objectives.pulling_away(codes).item() == pytest.approx(total / (B * (B - 1)))


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(1, 6), st.floats(0.01, 100))
def test_pulling_away_lies_between_0_and_1_and_knows_no_scale(seed, count, size, factor):
    codes = randn(count, size, seed=seed)
    value = objectives.pulling_away(codes).item()
    assert -1e-12 <= value <= 1 + 1e-12
    assert objectives.pulling_away(factor * codes).item() == pytest.approx(value, abs=1e-9)


def test_pulling_away_at_its_bounds():
    assert objectives.pulling_away(torch.eye(4)).item() == pytest.approx(0, abs=1e-6)
    assert objectives.pulling_away(torch.ones(4, 3)).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="expected at least 2 codes on axis 0, got 1"):
        objectives.pulling_away(torch.ones(1, 3))


def test_kl_to_standard():
    loc, log_scale = randn(B, D), 0.5 * randn(B, D, seed=1)
    total = 0.0
    for b in range(B):
        for i in range(D):
            mean, variance = float(loc[b, i]), math.exp(2 * float(log_scale[b, i]))
            total += 0.5 * (variance + mean**2 - 1 - math.log(variance))
    distribution = diagonal_normal(loc, log_scale.exp())
    assert objectives.kl_to_standard(distribution).item() == pytest.approx(total / (B * D))
    standard = diagonal_normal(torch.zeros(B, D), torch.ones(B, D))
    assert objectives.kl_to_standard(standard).item() == pytest.approx(0, abs=1e-6)


def test_the_likelihood_of_other_distributions_counts_too():
    distribution = diagonal_normal(randn(B, D), torch.ones(B, D).double())
    w = randn(B, D, seed=2)
    value = objectives.negative_log_likelihood(distribution, w)
    torch.testing.assert_close(value, -distribution.log_prob(w).mean() / D)
    assert not isinstance(distribution, FlowDistribution)
