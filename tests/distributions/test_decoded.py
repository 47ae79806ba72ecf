"""The decoded distribution against a linear-Gaussian instance, whose density is known."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from propose_prob.distributions import DecodedPoseDistribution, FlowDistribution
from propose_prob.distributions.flow import diagonal_normal
from propose_prob.transforms import Identity, LULinear
from tests.zoo import perturbed, randn, small_propose

SIZES = ((2, 1), (2, 3), (5, 2), (17, 24))


class Oracle:
    """`w ~ N(mu, S)`, decoder `A w + b`, noise of each joint: `x ~ N(A mu + b, A S A' + D)`."""

    def __init__(
        self, joints, latent, *, batch=(), rotation=None, root=0, scale=None, encoder=True
    ):
        n = 3 * (joints - 1)
        self.matrix = 0.3 * randn(n, latent, seed=1)
        self.offset = 0.2 * randn(n, seed=2)
        self.loc = 0.5 * randn(*batch, latent, seed=3)
        self.spread = (0.3 * randn(*batch, latent, seed=4)).exp()
        self.scale = 0.03 + 0.1 * torch.linspace(0, 1, joints - 1, dtype=torch.float64)
        if scale is not None:
            self.scale = torch.full_like(self.scale, scale)
        for tensor in (self.matrix, self.offset, self.loc, self.spread, self.scale):
            tensor.requires_grad_()
        self.rotation = rotation
        self.root = root
        pseudo_inverse = torch.linalg.pinv(self.matrix.detach())

        def encode(x):
            return (x.flatten(-2) - self.offset.detach()) @ pseudo_inverse.mT

        self.encoder = encode if encoder else None
        self.latent = FlowDistribution(diagonal_normal(self.loc, self.spread), Identity())

    def distribution(self, **options):
        return DecodedPoseDistribution(
            self.latent,
            lambda w: (w @ self.matrix.mT + self.offset).unflatten(-1, (-1, 3)),
            self.scale,
            encoder=self.encoder,
            rotation=self.rotation,
            root=self.root,
            **options,
        )

    def marginal(self):
        noise = self.scale.square().repeat_interleave(3).diag_embed()
        covariance = (self.matrix * self.spread[..., None, :].square()) @ self.matrix.mT + noise
        return MultivariateNormal(self.loc @ self.matrix.mT + self.offset, covariance)

    def log_prob(self, x):
        joints = torch.cat([x[..., : self.root, :], x[..., self.root + 1 :, :]], -2)
        if self.rotation is not None:
            joints = torch.einsum("ij,...ni->...nj", self.rotation, joints)
        return self.marginal().log_prob(joints.flatten(-2))


def rotation():
    q, _ = torch.linalg.qr(randn(3, 3, seed=9))
    return q * torch.linalg.det(q)


@pytest.mark.parametrize(("joints", "latent"), SIZES)
@pytest.mark.parametrize("rotated", [False, True])
def test_log_prob_is_the_analytic_density(joints, latent, rotated):
    torch.manual_seed(0)
    oracle = Oracle(joints, latent, batch=(2,), rotation=rotation() if rotated else None)
    distribution = oracle.distribution(num_particles=4096)
    x = distribution.sample((3,))
    with torch.no_grad():
        error = (distribution.log_prob(x) - oracle.log_prob(x)) / joints
    assert error.abs().max() < 1e-2


@pytest.mark.parametrize("root", [0, 2, 4])
def test_the_root_may_be_any_joint(root):
    oracle = Oracle(5, 3, root=root, rotation=rotation())
    distribution = oracle.distribution(num_particles=1024)
    x = distribution.sample((4,))
    assert (x[:, root] == 0).all() and (x[:, 0 if root else 1] != 0).all()
    torch.testing.assert_close(distribution.log_prob(x), oracle.log_prob(x), atol=2e-2, rtol=0)
    # The root row carries no density.
    moved = x.clone()
    moved[:, root] += 5
    assert torch.equal(distribution.log_prob(moved), distribution.log_prob(x))


def test_it_needs_no_encoder_and_a_poor_one_does_no_harm():
    x = Oracle(5, 4).distribution().sample((4,))
    for encoder in (True, False):
        oracle = Oracle(5, 4, encoder=encoder)
        log_prob = oracle.distribution(num_particles=2048).log_prob(x)
        torch.testing.assert_close(log_prob, oracle.log_prob(x), atol=2e-2, rtol=0)
    oracle.encoder = lambda x: torch.full((*x.shape[:-2], 4), 30.0, dtype=torch.float64)
    log_prob = oracle.distribution(num_particles=2048).log_prob(x)
    torch.testing.assert_close(log_prob, oracle.log_prob(x), atol=2e-2, rtol=0)


@torch.no_grad()
def test_a_lower_bound_on_average_that_tightens():
    torch.manual_seed(0)
    oracle = Oracle(17, 24)
    distribution = oracle.distribution()
    x = distribution.sample((10,))
    exact = oracle.log_prob(x)
    gaps = []
    for particles, seeds in ((1, range(20)), (4, range(20)), (16, range(10)), (1024, range(2))):
        estimates = [
            distribution.estimate_log_prob(x, num_particles=particles, noise_seed=seed).log_prob
            for seed in seeds
        ]
        gaps.append(float((exact - torch.stack(estimates)).mean()))
    # The proposal is exact here up to its wide part, so few particles already come close.
    assert gaps[0] > 0.2
    assert all(-0.05 < gap < 0.05 for gap in gaps[1:]) and abs(gaps[-1]) < 2e-3


@torch.no_grad()
def test_a_lower_bound_where_nothing_is_linear():
    torch.manual_seed(0)
    # A decoder that folds: the Laplace proposal is far from exact.
    distribution = perturbed(small_propose(), scale=1.0).conditional(randn(4, 2))
    x = distribution.sample((60,))
    reference = distribution.estimate_log_prob(x, num_particles=4096).log_prob
    gaps = []
    for particles in (1, 8, 64):
        estimates = [
            distribution.estimate_log_prob(x, num_particles=particles, noise_seed=seed).log_prob
            for seed in range(10)
        ]
        gaps.append(float((reference - torch.stack(estimates)).mean()))
    assert gaps[0] > gaps[1] > gaps[2] > -0.01
    assert gaps[0] > 0.2


def test_effective_sample_size_is_reported():
    oracle = Oracle(5, 2)
    distribution = oracle.distribution(num_particles=256)
    x = distribution.sample((3, 4))
    estimate = distribution.estimate_log_prob(x)
    assert estimate.num_particles == 256
    ess = estimate.effective_sample_size
    assert ess.shape == estimate.log_prob.shape == (3, 4)
    # The target is exactly the Laplace distribution; only the wide part of the proposal costs.
    assert ((ess > 0.5 * 256) & (ess <= 256)).all()
    assert not ess.requires_grad
    assert torch.equal(estimate.log_prob, distribution.log_prob(x))
    # One particle is its own sample.
    one = distribution.estimate_log_prob(x, num_particles=1).effective_sample_size
    torch.testing.assert_close(one, torch.ones_like(one))


@torch.no_grad()
def test_deterministic_for_a_noise_seed():
    oracle = Oracle(5, 3)
    distribution = oracle.distribution(num_particles=16)
    x = distribution.sample((3,))
    torch.manual_seed(1)
    first = distribution.log_prob(x)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(first, distribution.log_prob(x))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first, oracle.distribution(num_particles=16, noise_seed=0).log_prob(x))
    other = oracle.distribution(num_particles=16, noise_seed=1).log_prob(x)
    assert (other != first).all()
    assert torch.equal(other, distribution.estimate_log_prob(x, noise_seed=1).log_prob)
    assert torch.equal(distribution.expand((3,)).log_prob(x), first)


@pytest.mark.parametrize("rotated", [False, True])
def test_gradients_are_the_analytic_ones(rotated):
    torch.manual_seed(0)
    oracle = Oracle(5, 3, rotation=rotation() if rotated else None)
    distribution = oracle.distribution(num_particles=4096)
    x = distribution.sample((4,)).requires_grad_()
    wanted = (x, oracle.scale, oracle.matrix, oracle.offset, oracle.loc, oracle.spread)
    ours = torch.autograd.grad(distribution.log_prob(x).sum(), wanted)
    exact = torch.autograd.grad(oracle.log_prob(x).sum(), wanted)
    for a, b in zip(ours, exact, strict=True):
        torch.testing.assert_close(a, b, rtol=0.03, atol=0.03 * float(b.abs().max()))


def test_samples_have_the_marginals_moments():
    torch.manual_seed(0)
    oracle = Oracle(4, 3)
    x = oracle.distribution().sample((40_000,))[:, 1:].flatten(1)
    marginal = oracle.marginal()
    white = torch.linalg.solve_triangular(
        marginal.scale_tril, (x - marginal.mean).mT, upper=False
    ).mT
    torch.testing.assert_close(
        white.mean(0), torch.zeros(9, dtype=torch.float64), atol=0.03, rtol=0
    )
    torch.testing.assert_close(white.T.cov(), torch.eye(9, dtype=torch.float64), atol=0.05, rtol=0)


def test_hypotheses_are_free_of_noise():
    oracle = Oracle(5, 2)
    distribution = oracle.distribution()
    poses = distribution.hypotheses((50,))
    assert poses.shape == (50, 5, 3) and not poses.requires_grad
    centred = poses[:, 1:].flatten(1) - oracle.offset
    assert torch.linalg.matrix_rank(centred, rtol=1e-9) == 2
    assert torch.linalg.matrix_rank(distribution.sample((50,))[:, 1:].flatten(1), rtol=1e-9) == 12


def test_point_estimate_is_the_decoded_centre():
    oracle = Oracle(5, 2, batch=(3,))
    expected = oracle.marginal().mean.unflatten(-1, (-1, 3))
    torch.testing.assert_close(oracle.distribution().point_estimate[:, 1:], expected)
    assert oracle.distribution().point_estimate.shape == (3, 5, 3)


def test_a_rotation_for_each_context():
    model = small_propose()
    p2d = randn(2, 4, 2)
    distribution = model.conditional(p2d, focal=2.0)
    assert distribution.rotation.shape == (2, 3, 3)
    for i in range(2):
        alone = model.conditional(p2d[i], focal=2.0)
        x = distribution.sample((3,))[:, i]
        torch.testing.assert_close(alone.point_estimate, distribution.point_estimate[i])
        torch.testing.assert_close(
            alone.log_prob(x), distribution.log_prob(x[:, None].expand(-1, 2, -1, -1))[:, i]
        )


def test_a_curved_decoder_by_quadrature():
    """Not only linear instances: a bent curve in space, integrated over its one latent."""
    scale = torch.tensor([0.2], dtype=torch.float64)
    base = diagonal_normal(torch.tensor([0.3], dtype=torch.float64), torch.ones(1).double())

    def decoder(w):
        return torch.stack([w[..., 0].cos(), w[..., 0].sin(), 0.3 * w[..., 0] ** 2], -1)[
            ..., None, :
        ]

    distribution = DecodedPoseDistribution(
        FlowDistribution(base, LULinear(*_one_by_one())), decoder, scale, num_particles=1024
    )
    torch.manual_seed(0)
    x = distribution.sample((20,))
    w = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    log_joint = distribution.latent.log_prob(w)[:, None] - 0.5 * (
        (decoder(w)[:, None] - x[None, :, 1:]) / scale[:, None]
    ).square().sum((-2, -1))
    expected = (
        log_joint.logsumexp(0) + math.log(24 / 4000) - 3 * math.log(0.2 * math.sqrt(2 * math.pi))
    )
    assert (distribution.log_prob(x) - expected).abs().median() < 1e-2
    # A second branch of the posterior, far from the Laplace distribution's, can only be missed from
    # below.
    assert (distribution.log_prob(x) - expected).max() < 0.05


def _one_by_one():
    one = torch.ones(1, 1, dtype=torch.float64)
    return one, 1.5 * one, torch.zeros(1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"root": 5}, ValueError, r"expected root in 0\.\.4, got 5"),
        ({"root": -1}, ValueError, r"expected root in 0\.\.4, got -1"),
        ({"num_particles": 0}, ValueError, "expected num_particles >= 1, got 0"),
        (
            {"scale": torch.ones(2, 4)},
            ValueError,
            r"expected scale of shape \(J - 1,\), got \(2, 4\)",
        ),
        ({"scale": -torch.ones(4)}, ValueError, "scale"),
    ],
)
def test_bad_input(options, error, message):
    oracle = Oracle(5, 2)
    arguments = {"scale": oracle.scale} | options
    with pytest.raises(error, match=message):
        DecodedPoseDistribution(oracle.latent, oracle.distribution().decoder, **arguments)


def test_bad_numbers_of_particles():
    distribution = Oracle(5, 2).distribution()
    with pytest.raises(ValueError, match="expected num_particles >= 1, got 0"):
        distribution.estimate_log_prob(distribution.sample(), num_particles=0)


def test_the_base_must_be_a_diagonal_normal():
    latent = FlowDistribution(torch.distributions.Independent(
        torch.distributions.Laplace(torch.zeros(2), 1.0), 1), Identity())  # fmt: skip
    with pytest.raises(TypeError, match="expected a diagonal normal base"):
        DecodedPoseDistribution(latent, lambda w: w, torch.ones(4))
