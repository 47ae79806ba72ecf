import functools
import itertools

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.optimize import minimize

from propose_prob.distributions import KeypointLikelihood, PointLikelihood
from propose_prob.errors import InputError
from propose_prob.inference import map_estimate
from propose_prob.inference.problem import Problems
from propose_prob.inference.solvers import lbfgs, levenberg_marquardt
from tests.zoo import (
    DISTRIBUTIONS,
    FLOW_DISTRIBUTIONS,
    decoded_case,
    flow_case,
    lifting_case,
    randn,
    recalibrated_case,
    rotations_case,
    small_propose,
)

SOLVERS = ("lm", "lbfgs", "auto")
every_solver = pytest.mark.parametrize("solver", SOLVERS)


def linear(count=5, size=4, rows=6):
    """A linear-Gaussian model with its posterior mean."""
    matrix, loc, scale = randn(rows, size), randn(count, size, seed=1), randn(size, seed=2).exp()
    noise = randn(rows, seed=3).exp()
    seen = randn(count, rows, seed=4)

    def model(loc, seen):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", dist.Normal(loc, scale).to_event(1))
            pyro.sample("seen", dist.Normal(x @ matrix.mT, noise).to_event(1), obs=seen)

    precision = (scale**-2).diag() + matrix.mT @ (matrix / noise[:, None] ** 2)
    right = loc / scale**2 + (seen / noise**2) @ matrix
    return model, (loc, seen), torch.linalg.solve(precision, right.mT).mT


def curved(count=6, *, kind="gaussian", noise=0.2):
    """Angles of a planar arm whose joints are seen: a problem with several minima."""
    angles = randn(count, 3, seed=5)

    def arm(x):
        total = x.cumsum(-1)
        return torch.stack([total.cos(), total.sin()], -1).cumsum(-2)

    seen = arm(angles) + noise * randn(count, 3, 2, seed=6)

    def model(seen):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", dist.Normal(seen.new_zeros(3), 1.0).to_event(1))
            pyro.sample("seen", PointLikelihood(arm(x), scale=noise, kind=kind), obs=seen)

    return model, seen, arm


@every_solver
def test_linear_gaussian_problems_have_their_posterior_mean(solver):
    model, args, mean = linear()
    found = map_estimate(model, *args, solver=solver)
    torch.testing.assert_close(found.values["x"], mean, atol=1e-4, rtol=0)
    assert found.converged.all()


def test_one_gauss_newton_step_solves_a_linear_problem():
    model, args, _mean = linear()
    found = map_estimate(model, *args, solver="lm")
    assert (found.steps <= 8).all()


@pytest.mark.parametrize("noise", [1e-3, 1.0])
def test_one_factorization_serves_a_whole_run(noise):
    model, seen, _ = curved(noise=noise)
    problems = Problems(model, (seen,), space="latent")
    index = torch.arange(len(seen))
    settings = {"max_steps": 200, "tolerance": 1e-9, "report": lambda n: None}
    plain = lbfgs(problems, problems.start, index, **settings)
    found = lbfgs(problems, problems.start, index, curved=True, **settings)
    assert found.converged.all()
    assert (found.steps.float().mean() < plain.steps.float().mean()) or noise > 0.1
    model, args, _mean = linear()
    problems = Problems(model, args, space="latent")
    found = lbfgs(problems, problems.start, torch.arange(5), curved=True, **settings)
    assert (found.steps <= 2).all() and found.converged.all()


def test_adam_comes_near():
    model, args, mean = linear()
    found = map_estimate(model, *args, solver="adam", max_steps=800, tolerance=1e-7)
    torch.testing.assert_close(found.values["x"], mean, atol=0.02, rtol=0)


@every_solver
@pytest.mark.parametrize("kind", ["gaussian", "student_t", "geman_mcclure"])
def test_as_good_as_scipy(solver, kind):
    model, seen, arm = curved(kind=kind)
    found = map_estimate(model, seen, solver=solver)
    for i in range(len(seen)):

        def energy(x, i=i):
            x = torch.from_numpy(x).requires_grad_()
            distribution = PointLikelihood(arm(x), scale=0.2, kind=kind)
            value = 0.5 * x.square().sum() - distribution.log_prob(seen[i])
            return value.item(), torch.autograd.grad(value, x)[0].numpy()

        oracle = minimize(energy, np.zeros(3), jac=True, method="BFGS").fun
        ours = energy(found.values["x"][i].numpy())[0]
        # Another valley may be found, but none that is not a minimum.
        local = minimize(energy, found.values["x"][i].numpy(), jac=True, method="BFGS").fun
        assert ours == pytest.approx(local, rel=1e-5, abs=1e-5)
        if solver == "auto":
            assert ours <= oracle + 1e-3 * abs(oracle)


@every_solver
def test_alone_as_in_a_batch(solver):
    model, seen, _ = curved(8)
    whole = map_estimate(model, seen, solver=solver)
    for i in (0, 3, 7):
        alone = map_estimate(model, seen[i : i + 1], solver=solver)
        torch.testing.assert_close(alone.log_density[0], whole.log_density[i], atol=1e-4, rtol=1e-4)
        assert alone.steps[0] == whole.steps[i]


@every_solver
def test_chunks_change_nothing(solver):
    model, seen, _ = curved(7)
    whole = map_estimate(model, seen, solver=solver)
    parts = map_estimate(model, seen, solver=solver, batch_size=3, progress=False)
    torch.testing.assert_close(parts.values["x"], whole.values["x"], atol=1e-5, rtol=0)
    assert (parts.steps == whole.steps).all()


def test_float32_and_float64():
    model, seen, _ = curved()
    exact = map_estimate(model, seen)
    single = map_estimate(model, seen.float())
    assert single.values["x"].dtype == torch.float32
    torch.testing.assert_close(single.log_density.double(), exact.log_density, rtol=1e-4, atol=1e-4)
    cast = map_estimate(model, seen.float(), dtype=torch.float64)
    assert cast.values["x"].dtype == torch.float64
    torch.testing.assert_close(cast.log_density, exact.log_density, rtol=1e-6, atol=1e-6)


def test_modules_are_cast_without_touching_them():
    distribution = flow_case("pagd", "affine", 3)
    module = distribution.module.float()
    x = randn(2, 3).float()

    def model(c, seen):
        with pyro.plate("problems", len(seen)):
            w = pyro.sample("w", module(c))
            pyro.sample("seen", dist.Normal(w, 0.1).to_event(1), obs=seen)

    found = map_estimate(model, x, x, dtype=torch.float64)
    assert found.values["w"].dtype == torch.float64
    assert all(p.dtype == torch.float32 for p in module.parameters())


# --- spaces --------------------------------------------------------------------------------------


def seen_model(distribution, seen, scale=0.3):
    event = len(distribution.event_shape)

    def model():
        with pyro.plate("problems", distribution.batch_shape[0]):
            x = pyro.sample("x", distribution)
            pyro.sample("seen", dist.Normal(x, scale).to_event(event), obs=seen)

    return model


@pytest.mark.parametrize(
    "case", [flow_case("pagd", "additive", 3), lifting_case(), rotations_case()], ids=str
)
def test_spaces_agree_where_the_log_determinant_is_constant(case):
    distribution = case.distribution(3)
    seen = distribution.sample() + 0.1
    model = seen_model(distribution, seen.detach())
    latent, event = (map_estimate(model, space=space) for space in ("latent", "event"))
    torch.testing.assert_close(latent.values["x"], event.values["x"], atol=1e-3, rtol=0)
    difference = latent.log_density - event.log_density
    # They differ by the distribution's own constant.
    base = distribution.base_dist
    while hasattr(base, "base_dist"):
        base = base.base_dist
    assert difference.isfinite().all()


def test_spaces_differ_where_it_is_not():
    distribution = flow_case("pagd", "affine", 3).distribution(3)
    model = seen_model(distribution, distribution.sample().detach(), scale=1.0)
    latent, event = (map_estimate(model, space=space) for space in ("latent", "event"))
    assert (latent.values["x"] - event.values["x"]).abs().max() > 1e-2

    def density(x):
        return distribution.log_prob(x) + dist.Normal(x, 1.0).to_event(1).log_prob(seen)

    seen = pyro.poutine.trace(model).get_trace().nodes["seen"]["value"]
    torch.testing.assert_close(event.log_density, density(event.values["x"]).detach())
    assert (density(event.values["x"]) >= density(latent.values["x"]) - 1e-6).all()


@pytest.mark.parametrize("name", ["flow_pagd_spline", "flow_standard_affine", "pagd"])
def test_event_space_finds_modes(name):
    distribution = DISTRIBUTIONS[name].distribution(4)

    def model():
        with pyro.plate("problems", 4):
            pyro.sample("x", distribution)

    found = map_estimate(model, space="event")
    around = found.values["x"] + 0.05 * randn(50, 4, *distribution.event_shape)
    assert (distribution.log_prob(around).max(0).values <= found.log_density + 1e-4).all()
    torch.testing.assert_close(found.log_density, distribution.log_prob(found.values["x"]).detach())


@pytest.mark.parametrize("name", ["decoded", "decoded_rotated", "recalibrated_decoded"])
def test_decoded_distributions_move_in_their_latent(name):
    distribution = DISTRIBUTIONS[name].distribution(3)
    seen = distribution.point_estimate.detach() + 0.3 * randn(3, 4, 3)
    found = map_estimate(seen_model(distribution, seen))
    assert found.base["x"].shape == (3, 3)
    assert (found.values["x"][:, 0] == 0).all()
    error = (found.values["x"] - seen)[:, 1:].norm(dim=-1).mean()
    assert error < (distribution.point_estimate - seen)[:, 1:].norm(dim=-1).mean()
    # The prior alone is best at its center.
    with torch.no_grad():
        start = map_estimate(lambda: pyro.sample("x", distribution), max_steps=5)
    torch.testing.assert_close(start.values["x"], distribution.point_estimate.detach())


def test_a_recalibrated_exact_distribution():
    distribution = recalibrated_case(lifting_case()).distribution(3)
    model = seen_model(distribution, distribution.sample().detach())
    latent, event = (map_estimate(model, space=space) for space in ("latent", "event"))
    torch.testing.assert_close(latent.values["x"], event.values["x"], atol=1e-3, rtol=0)


def test_constrained_sites_stay_in_their_support():
    seen = torch.tensor([[2.0], [30.0]]).double()

    def model(seen):
        with pyro.plate("problems", len(seen)):
            rate = pyro.sample("rate", dist.Gamma(seen.new_tensor(3.0), 0.5))
            pyro.sample("seen", dist.Exponential(rate[..., None]).to_event(1), obs=seen)

    found = map_estimate(model, seen)
    # (a - 1 + 1) / (b + y)
    torch.testing.assert_close(found.values["rate"], 3 / (0.5 + seen[:, 0]), rtol=1e-4, atol=0)
    assert found.solver == "lbfgs"


def test_a_scale_that_is_latent_is_no_least_squares_problem():
    seen = randn(3, 20)

    def model(seen):
        with pyro.plate("problems", len(seen)):
            scale = pyro.sample("log_scale", dist.Normal(seen.new_zeros(()), 10.0)).exp()
            distribution = dist.Normal(seen.new_zeros(20), scale[..., None]).to_event(1)
            pyro.sample("seen", distribution, obs=seen)

    with pytest.raises(InputError, match="seen have none"):
        map_estimate(model, seen, solver="lm")
    found = map_estimate(model, seen)
    expected = seen.square().mean(-1).sqrt().log()
    torch.testing.assert_close(found.values["log_scale"], expected, atol=0.01, rtol=0)


# --- what is particular ---------------------------------------------------------------------------


def test_an_outlier_moves_a_robust_estimate_little():
    truth = torch.tensor([[1.0, -1.0]]).double()
    seen = truth + 0.05 * randn(10, 2)
    seen[0] = 60.0

    def model(seen, kind):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", dist.Normal(seen.new_zeros(2), 10.0).to_event(1))
            points = x[..., None, :].expand(*x.shape[:-1], 10, 2)
            pyro.sample("seen", KeypointLikelihood(points, scale=0.1, kind=kind), obs=seen)

    errors = {}
    for kind in ("gaussian", "student_t", "geman_mcclure"):
        start = {"x": seen.median(0).values[None]}
        for solver in ("lm", "lbfgs"):
            found = map_estimate(
                functools.partial(model, kind=kind), seen[None], solver=solver, init=start
            )
            errors[kind, solver] = (found.values["x"] - truth).abs().max().item()
    assert errors["gaussian", "lm"] > 5
    assert all(error < 0.1 for (kind, _), error in errors.items() if kind != "gaussian")


def test_missing_points_do_not_matter():
    model, seen, _arm = curved(2)
    seen[0, 2] = torch.nan
    found = map_estimate(model, seen)
    assert found.values["x"].isfinite().all()
    # The last angle is not seen at all: the prior's center.
    assert found.values["x"][0, 2].abs() < 1e-4


def test_the_best_of_several_starts_is_kept():
    def model(seen):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", dist.Normal(seen.new_zeros(1), 4.0).to_event(1))
            pyro.sample("seen", dist.Normal(x**2 - x, 0.5).to_event(1), obs=seen)

    seen = torch.tensor([[6.0], [12.0]]).double()
    wrong = {"x": torch.full((2, 1), 5.0).double()}
    starts = {"x": torch.tensor([[[5.0], [5.0]], [[-2.0], [-3.0]]]).double()}
    one = map_estimate(model, seen, init=wrong, solver="lbfgs")
    both = map_estimate(model, seen, init=starts, solver="lbfgs")
    assert (one.values["x"] > 0).all() and (both.values["x"] < 0).all()
    assert (both.log_density > one.log_density).all()
    again = map_estimate(model, seen, init={"x_base": both.base["x"]})
    torch.testing.assert_close(again.values["x"], both.values["x"], atol=1e-4, rtol=0)
    assert (again.steps <= 3).all()


def test_init_of_poses_of_flows_and_decoded_distributions():
    for distribution in (
        lifting_case().distribution(2),
        small_propose().conditional(randn(2, 4, 2)),
    ):
        target = distribution.hypotheses()
        model = seen_model(distribution, target, scale=0.05)
        found = map_estimate(model, init={"x": target}, max_steps=50)
        assert found.log_density.isfinite().all()


def test_convergence_is_reported():
    model, seen, _ = curved()
    short = map_estimate(model, seen, solver="lbfgs", max_steps=1)
    assert not short.converged.any() and (short.steps <= 1).all()
    long = map_estimate(model, seen, solver="lbfgs")
    assert long.converged.all() and (long.steps > 1).all()


def test_a_matrix_that_cannot_be_factorized_is_left_to_lbfgs():
    """The square root's derivative is infinite at 0, so Gauss-Newton's matrix is not finite."""

    def model(seen):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", dist.Normal(seen.new_ones(1), 1.0).to_event(1))
            shifted = torch.where(x > 0.5, x, x.sqrt())
            pyro.sample("seen", dist.Normal(shifted, 0.1).to_event(1), obs=seen)

    seen = torch.tensor([[0.9], [1.2]]).double()
    broken = {"x": torch.tensor([[0.0], [1.0]]).double()}
    alone = map_estimate(model, seen, init=broken, solver="lm")
    assert not alone.converged[0] and alone.converged[1]
    starts = {"x": torch.stack([broken["x"], torch.ones(2, 1).double()])}
    both = map_estimate(model, seen, init=starts)
    assert both.converged.all()
    exact = (1 + 100 * seen) / 101
    torch.testing.assert_close(both.values["x"], exact, atol=1e-4, rtol=0)


def test_a_direction_without_curvature_does_not_stop_the_others():
    """Two latents of which only the sum is seen, and flat priors: a singular matrix."""

    def model(seen):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", dist.Normal(seen.new_zeros(2), 1e6).to_event(1))
            pyro.sample("seen", dist.Normal(x.sum(-1, keepdim=True), 1.0).to_event(1), obs=seen)

    found = map_estimate(model, torch.tensor([[3.0], [5.0]]), solver="lm")
    torch.testing.assert_close(
        found.values["x"].sum(-1), torch.tensor([3.0, 5.0]), atol=1e-3, rtol=0
    )


def test_what_is_closed_over_is_taken_along():
    case = lifting_case()
    distribution = case.distribution(6)
    seen = distribution.sample().detach()
    model = seen_model(distribution, seen)
    problems = Problems(model, (), space="latent")
    assert problems.separable
    index = torch.tensor([4, 1])
    u = randn(6, problems.size)
    whole = problems.select(torch.arange(6)).objective(u)
    torch.testing.assert_close(problems.select(index).objective(u[index]), whole[index])


def test_shared_tensors_of_the_same_length_are_not_cut():
    """Three problems, three joints: confidence and scale per joint look like rows."""
    scale = torch.tensor([0.1, 1.0, 10.0]).double()
    seen = randn(3, 3, 2)

    def model(seen):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", dist.Normal(seen.new_zeros(3, 2), 1.0).to_event(2))
            pyro.sample("seen", KeypointLikelihood(x, scale=scale), obs=seen)

    assert Problems(model, (seen,), space="latent").separable
    found = map_estimate(model, seen, batch_size=2)
    expected = seen / (1 + scale[:, None] ** 2)
    torch.testing.assert_close(found.values["x"], expected, atol=1e-4, rtol=0)


def test_a_model_of_fixed_size_runs_as_a_whole():
    seen = randn(4, 3)

    def model():
        with pyro.plate("problems", 4):
            x = pyro.sample("x", dist.Normal(torch.zeros(3).double(), 1.0).to_event(1))
            pyro.sample("seen", dist.Normal(x, 1.0).to_event(1), obs=seen)

    assert not Problems(model, (), space="latent").separable
    for solver in SOLVERS:
        found = map_estimate(model, solver=solver)
        torch.testing.assert_close(found.values["x"], seen / 2, atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="batch_size=2: this model cannot be run on some"):
        map_estimate(model, batch_size=2)


def test_weights_get_no_gradients():
    case = FLOW_DISTRIBUTIONS["lifting"]
    distribution = case.distribution(2)
    assert any(p.requires_grad for p in case.module.parameters())
    found = map_estimate(seen_model(distribution, distribution.sample().detach()))
    assert not found.values["x"].requires_grad and not found.log_density.requires_grad
    assert all(p.grad is None for p in case.module.parameters())


def test_masks_scales_and_deterministic_sites():
    seen = randn(4, 2)
    mask = torch.tensor([True, False, True, True])

    def model(seen, mask):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", dist.Normal(seen.new_zeros(2), 1.0).to_event(1))
            pyro.deterministic("double", 2 * x, event_dim=1)
            with pyro.poutine.mask(mask=mask), pyro.poutine.scale(scale=3.0):
                pyro.sample("seen", dist.Normal(x, 1.0).to_event(1), obs=seen)

    for solver in SOLVERS:
        found = map_estimate(model, seen, mask, solver=solver)
        expected = torch.where(mask[:, None], 0.75 * seen, 0)
        torch.testing.assert_close(found.values["x"], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.values["double"], 2 * found.values["x"])


def test_more_residuals_than_latents():
    """The Jacobian by columns instead of rows."""
    model, args, _mean = linear(3, size=2, rows=9)
    problems = Problems(model, args, space="latent")
    rows = problems.select(torch.arange(3))
    u = randn(3, 2, seed=8)
    at = rows.linearize(u)
    torch.testing.assert_close(at.matrix, rows.hessian(u))
    value, gradient = rows.gradient(u)
    torch.testing.assert_close(at.gradient, gradient)
    torch.testing.assert_close(at.objective, value)


def test_levenberg_marquardt_goes_downhill_only():
    model, seen, _ = curved(8, noise=0.05)
    problems = Problems(model, (seen,), space="latent")
    index = torch.arange(8)
    values = [
        levenberg_marquardt(
            problems, problems.start, index, max_steps=n, tolerance=1e-9, report=lambda n: None
        ).objective
        for n in (1, 2, 4, 8, 16)
    ]
    for before, after in itertools.pairwise(values):
        assert (after <= before).all()


# --- wrong models ---------------------------------------------------------------------------------


def single(seen):
    x = pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.sample("seen", dist.Normal(x, 1.0).to_event(1), obs=seen)


def mismatch(seen):
    with pyro.plate("problems", 4):
        x = pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))
    pyro.sample("seen", dist.Normal(x, 1.0), obs=seen)


def discrete(seen):
    with pyro.plate("problems", 4):
        pyro.sample("x", dist.Bernoulli(0.5))


def coupled(seen):
    with pyro.plate("problems", len(seen)):
        x = pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("seen", dist.Normal(x - x.mean(0), 1.0).to_event(1), obs=seen)


def observed(seen):
    with pyro.plate("problems", len(seen)):
        pyro.sample("seen", dist.Normal(seen, 1.0).to_event(1), obs=seen)


def impossible(seen):
    with pyro.plate("problems", len(seen)):
        x = pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("seen", dist.Normal(x / 0 * 0, 1.0).to_event(1), obs=seen)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (single, r"site 'x': expected batch shape \(B,\).* got \(\)"),
        (mismatch, r"site 'seen': expected batch shape \(4,\).* got \(4, 3\)"),
        (discrete, "site 'x': expected a continuous distribution, got Bernoulli"),
        (coupled, "problem . depends on the latents of others"),
        (observed, "expected a model with a latent site"),
        (impossible, "problem 0: the density is zero or not a number"),
    ],
)
def test_wrong_models(model, words):
    with pytest.raises(InputError, match=words):
        map_estimate(model, torch.randn(4, 3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"space": "pose"}, "got 'pose'"),
        ({"solver": "newton"}, "got 'newton'"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"max_steps": 0}, "max_steps >= 1"),
        ({"tolerance": 0.0}, "tolerance > 0"),
        ({"init": {"y": torch.zeros(5, 4)}}, "latent sites of x, got 'y'"),
        ({"init": {"x": torch.zeros(4, 4)}}, r"x of shape \(5, 4\), got \(4, 4\)"),
        ({"init": {"x": torch.full((5, 4), torch.nan)}}, "x is not finite"),
        (
            {"init": {"x": torch.zeros(2, 5, 4), "x_base": torch.zeros(3, 5, 4)}},
            "same number of starts",
        ),
    ],
)
def test_wrong_options(options, words):
    model, args, _ = linear()
    with pytest.raises(InputError, match=words):
        map_estimate(model, *args, **options)


def test_a_decoded_distribution_without_an_encoder_takes_base_values():
    distribution = decoded_case().distribution(2)
    distribution.encoder = None
    model = seen_model(distribution, distribution.sample().detach())
    with pytest.raises(InputError, match="give 'x_base' instead"):
        map_estimate(model, init={"x": distribution.sample().detach()})
    assert map_estimate(model, init={"x_base": torch.zeros(2, 3)}).converged.any()
