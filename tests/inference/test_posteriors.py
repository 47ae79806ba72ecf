import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from propose_prob.distributions import KeypointLikelihood
from propose_prob.errors import InputError
from propose_prob.inference import posterior, posterior_to_inference_data
from tests.zoo import decoded_case, flow_case, lifting_case, randn

#: Draws for each method; NUTS draws depend on each other.
METHODS = {
    "importance": {"num_samples": 2000},
    "prior": {"method": "importance", "proposal": "prior", "num_samples": 8000},
    "laplace": {"method": "laplace", "num_samples": 2000},
    "nuts": {"method": "nuts", "num_samples": 150, "warmup": 50},
}
every_method = pytest.mark.parametrize("name", METHODS)


def drawn(name, model, *args, **options):
    return posterior(model, *args, **(METHODS[name] | options))


def linear(count=2):
    matrix, loc = randn(3, 2), randn(count, 2, seed=1)
    seen = randn(count, 3, seed=2)

    def model(loc, seen):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", dist.Normal(loc, 0.8).to_event(1))
            pyro.sample("seen", dist.Normal(x @ matrix.mT, 0.7).to_event(1), obs=seen)

    precision = torch.eye(2).double() / 0.8**2 + matrix.mT @ matrix / 0.7**2
    right = loc / 0.8**2 + seen @ matrix / 0.7**2
    return model, (loc, seen), torch.linalg.solve(precision, right.mT).mT, precision.inverse()


@every_method
def test_linear_gaussian_problems_have_their_posterior(name):
    model, args, mean, covariance = linear()
    found = drawn(name, model, *args)
    distribution = found.distributions["x"]
    effective = found.effective_sample_size[:, None]
    error = (distribution.mean - mean) / (covariance.diagonal() / effective).sqrt()
    assert error.abs().max() < 4
    ratio = distribution.variance / covariance.diagonal()
    assert ((ratio - 1).abs() < 6 * (2 / effective).sqrt()).all()
    assert (effective > 50).all() and distribution.batch_shape == (2,)
    if found.k_hat is not None:
        assert (found.k_hat < 0.7).all()


def test_methods_agree_where_the_posterior_is_no_normal_distribution():
    case = flow_case("pagd", "affine", 3)
    distribution = case.distribution(1)
    seen = distribution.sample().detach() + 0.5

    def model(seen):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", distribution)
            pyro.sample("seen", dist.StudentT(4.0, x, 0.5).to_event(1), obs=seen)

    means = {}
    for name in ("importance", "prior", "nuts"):
        short = {"num_samples": 100, "warmup": 30} if name == "nuts" else {}
        found = drawn(name, model, seen, **short)
        spread = found.distributions["x"].variance.sqrt()
        means[name] = (
            found.distributions["x"].mean,
            spread / found.effective_sample_size[:, None].sqrt(),
        )
    for name in ("prior", "nuts"):
        gap = (means[name][0] - means["importance"][0]).abs()
        assert (gap < 4 * torch.hypot(means[name][1], means["importance"][1])).all()
    assert all(p.grad is None for p in case.module.parameters())


@every_method
def test_sites_with_a_bounded_support(name):
    """A Gamma prior with exponential observations: a Gamma posterior."""
    seen = torch.tensor([[0.5, 0.7, 1.5, 0.2]]).double()

    def model(seen):
        with pyro.plate("problems", len(seen)):
            rate = pyro.sample("rate", dist.Gamma(seen.new_tensor(3.0), 2.0))
            pyro.sample(
                "seen", dist.Exponential(rate[..., None].expand(-1, 4)).to_event(1), obs=seen
            )

    found = drawn(name, model, seen)
    distribution = found.distributions["rate"]
    exact = torch.distributions.Gamma(7.0, 2 + seen.sum())
    if name == "laplace":
        # Normal in the logarithm: not the distribution itself, and k-hat says how near.
        assert distribution.mean.item() == pytest.approx(exact.mean.item(), rel=0.1)
    else:
        error = exact.stddev / found.effective_sample_size.sqrt()
        assert abs(distribution.mean.item() - exact.mean.item()) < 4 * error.item()
    assert (distribution.draws > 0).all()


def test_k_hat_warns_of_a_proposal_that_does_not_fit():
    seen = torch.full((1, 8), 6.0).double()

    def model(seen):
        with pyro.plate("problems", len(seen)):
            x = pyro.sample("x", dist.Normal(seen.new_zeros(8), 1.0).to_event(1))
            pyro.sample("seen", dist.Normal(x, 0.1).to_event(1), obs=seen)

    prior = posterior(model, seen, proposal="prior", num_samples=500)
    fitting = posterior(model, seen, num_samples=500)
    assert prior.k_hat > 0.7 and prior.effective_sample_size < 20
    assert fitting.k_hat < 0.7 and fitting.effective_sample_size > 200


def test_draws_depend_on_the_seed_only():
    model, args, _, _ = linear()
    state = torch.get_rng_state()
    first, again, other = (posterior(model, *args, num_samples=40, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.base["x"], again.base["x"])
    assert not torch.equal(first.base["x"], other.base["x"])
    parts = posterior(model, *args, num_samples=40, seed=1, batch_size=7)
    torch.testing.assert_close(parts.distributions["x"].mean, first.distributions["x"].mean)


def test_a_model_of_fixed_size():
    seen = randn(2, 3)

    def model():
        with pyro.plate("problems", 2):
            x = pyro.sample("x", dist.Normal(torch.zeros(3).double(), 1.0).to_event(1))
            pyro.sample("seen", dist.Normal(x, 1.0).to_event(1), obs=seen)

    found = posterior(model, num_samples=300)
    torch.testing.assert_close(found.distributions["x"].mean, seen / 2, atol=0.25, rtol=0)


@pytest.mark.parametrize("case", [lifting_case(), decoded_case()], ids=str)
def test_distributions_of_poses_after_more_evidence(case):
    distribution = case.distribution(2)
    truth = distribution.hypotheses()
    joints = case.event_shape[0]

    def model(distribution, keypoints):
        with pyro.plate("problems", len(keypoints)):
            pose = pyro.sample("pose", distribution)
            seen = KeypointLikelihood(pose[..., :2], scale=0.05, kind="student_t")
            pyro.sample("keypoints", seen, obs=keypoints)

    found = posterior(model, distribution, truth[..., :2], num_samples=400)
    pose = found.distributions["pose"]
    assert pose.batch_shape == (2,) and pose.event_shape == (joints, 3)
    before = (found.prior["pose"] - truth)[..., :2].norm(dim=-1).mean()
    after = (pose.sample((100,)) - truth)[..., :2].norm(dim=-1).mean()
    assert after < 0.5 * before
    assert found.predictive["keypoints"].shape == (400, 2, joints, 2)


# --- ArviZ ----------------------------------------------------------------------------------------


def keypoint_model(keypoints, kind="gaussian"):
    with pyro.plate("problems", len(keypoints)):
        zero = keypoints.new_zeros(2, 3)
        pose = pyro.sample("pose", dist.Normal(zero, 1.0).to_event(2))
        scale = pyro.sample("scale", dist.LogNormal(keypoints.new_zeros(()), 0.1))
        seen = KeypointLikelihood(scale[..., None, None] * pose[..., :2], scale=0.3, kind=kind)
        pyro.sample("keypoints", seen, obs=keypoints)


def arviz():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz


def test_groups_with_named_joints():
    keypoints = randn(3, 2, 2)
    keypoints[1, 1] = torch.nan
    found = posterior(keypoint_model, keypoints, num_samples=300)
    names = {"pose": ["hip", "knee"], "keypoints": ["hip", "knee"]}
    data = posterior_to_inference_data(found, joint_names=names, item=["a", "b", "c"])
    assert set(data.groups()) == {
        "posterior", "posterior_predictive", "prior", "observed_data", "constant_data",
    }  # fmt: skip
    assert data.posterior["pose"].dims == ("chain", "draw", "item", "joint", "axis")
    assert data.prior["pose"].shape == (1, 300, 3, 2, 3)
    assert data.posterior["scale"].dims == ("chain", "draw", "item")
    x = data.posterior["pose"].sel(item="a", joint="knee", axis="y")
    weighted = found.distributions["pose"].mean[0, 1, 1].item()
    assert float(x.mean()) == pytest.approx(weighted, abs=0.05)
    predictive = data.posterior_predictive["keypoints"]
    assert predictive.dims[-2:] == ("joint", "image_axis")
    np.testing.assert_array_equal(data.observed_data["keypoints"].values, keypoints.numpy())
    np.testing.assert_allclose(data.constant_data["k_hat"], found.k_hat.numpy())
    assert data.attrs["method"] == "importance"
    assert len(arviz().summary(data, var_names=["scale"], kind="stats")) == 3


def test_kinds_without_samples_have_no_predictive_group():
    found = posterior(lambda k: keypoint_model(k, "geman_mcclure"), randn(1, 2, 2), num_samples=60)
    data = posterior_to_inference_data(found)
    assert "posterior_predictive" not in data.groups()
    assert data.posterior["pose"].dims[-2:] == ("pose_dim_0", "pose_dim_1")


def test_chains_of_nuts():
    model, args, _, _ = linear(1)
    found = posterior(model, *args, method="nuts", num_samples=60, warmup=30, chains=2)
    data = posterior_to_inference_data(found)
    assert data.posterior["x"].shape == (2, 60, 1, 2)
    np.testing.assert_array_equal(
        data.posterior["x"].values[1, :, 0], found.distributions["x"].draws[60:, 0].numpy()
    )
    assert found.r_hat < 1.2 and "r_hat" in data.constant_data


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"joint_names": {"x": ["a"]}}, "site 'x' has events of shape"),
        ({"joint_names": {"y": ["a"]}}, "sites of x, seen, got y"),
        ({"item": ["a"]}, "2 names in item, got 1"),
    ],
)
def test_wrong_names(settings, words):
    model, args, _, _ = linear()
    found = posterior(model, *args, method="laplace", num_samples=10)
    with pytest.raises(InputError, match=words):
        posterior_to_inference_data(found, **settings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "gibbs"}, "got 'gibbs'"),
        ({"proposal": "uniform"}, "got 'uniform'"),
        ({"num_samples": 1}, "num_samples >= 2"),
        ({"chains": 2}, "one chain for method='importance'"),
    ],
)
def test_wrong_options(options, words):
    model, args, _, _ = linear()
    with pytest.raises(InputError, match=words):
        posterior(model, *args, **options)
