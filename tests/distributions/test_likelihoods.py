import math

import pyro
import pytest
import torch
from scipy.stats import multivariate_t

from propose_prob.distributions import JointLikelihood, KeypointLikelihood, PointLikelihood
from propose_prob.errors import InputError
from tests.zoo import randn

KINDS = ("gaussian", "student_t", "geman_mcclure")
every_kind = pytest.mark.parametrize("kind", KINDS)


def distribution(kind, *batch, joints=3, seed=0, **options):
    points = randn(*batch, joints, 2, seed=seed)
    confidence = torch.linspace(0.3, 1.0, joints, dtype=torch.float64)
    return KeypointLikelihood(points, confidence, scale=2.0, kind=kind, **options)


def test_gaussian_equals_torch():
    p = distribution("gaussian", 4)
    value = randn(4, 3, 2, seed=1)
    expected = torch.distributions.Normal(p.points, (p.scale / p.confidence)[..., None])
    torch.testing.assert_close(p.log_prob(value), expected.log_prob(value).sum((-2, -1)))


@pytest.mark.parametrize("dims", [2, 3])
def test_student_t_equals_scipy(dims):
    value = randn(5, 1, dims)
    points, confidence = randn(1, dims, seed=1), torch.full((1,), 0.5).double()
    p = PointLikelihood(points, confidence, scale=1.5, kind="student_t", dof=3.0)
    oracle = multivariate_t(points[0].numpy(), 3.0**2 * torch.eye(dims).numpy(), df=3.0)
    found = p.log_prob(value).numpy()
    assert found == pytest.approx(oracle.logpdf(value[:, 0].numpy()), rel=1e-10)


def test_geman_mcclure_is_a_normal_distribution_near_and_flat_far_away():
    points = torch.zeros(1, 2).double()
    p = PointLikelihood(points, scale=2.0, kind="geman_mcclure", threshold=3.0)
    near = torch.tensor([[0.01, 0.0]]).double()
    assert p.log_prob(near).item() == pytest.approx(-0.5 * (0.01 / 2) ** 2, rel=1e-4)
    far = torch.tensor([[1e6, 0.0]]).double()
    assert p.log_prob(far).item() == pytest.approx(-0.5 * 9, rel=1e-4)
    assert p.log_prob_kind == "unnormalised" and not p.has_rsample
    with pytest.raises(NotImplementedError, match="student_t"):
        p.sample()


@pytest.mark.parametrize("kind", ["gaussian", "student_t"])
def test_samples_fit_the_density(kind):
    torch.manual_seed(0)
    p = PointLikelihood(torch.tensor([[1.0, -2.0]]), torch.tensor([0.5]), scale=1.0, kind=kind)
    radius = (p.sample((4000,)) - p.points).norm(dim=-1)[:, 0].sort().values
    # The radius of an isotropic bivariate distribution in closed form.
    square = (radius / 2) ** 2
    below = 1 - (torch.exp(-square / 2) if kind == "gaussian" else (1 + square / 4) ** -2.0)
    gap = (below - torch.linspace(0, 1, 4000)).abs().max()
    assert gap < 1.63 / math.sqrt(4000)


@every_kind
def test_batched_equals_looped_and_expanded(kind):
    p = distribution(kind, 2, 4)
    value = randn(5, 2, 4, 3, 2, seed=2)
    whole = p.log_prob(value)
    assert whole.shape == (5, 2, 4)
    one = KeypointLikelihood(p.points[1, 2], p.confidence[1, 2], scale=2.0, kind=kind)
    torch.testing.assert_close(whole[:, 1, 2], one.log_prob(value[:, 1, 2]))
    wide = one.expand((7,))
    assert wide.batch_shape == (7,) and isinstance(wide, KeypointLikelihood)
    torch.testing.assert_close(
        wide.log_prob(value[0, 1, 2]), one.log_prob(value[0, 1, 2]).expand(7)
    )


@every_kind
def test_missing_points_contribute_nothing(kind):
    points = randn(4, 2).requires_grad_()
    confidence = torch.tensor([1.0, 0.0, 1.0, 0.5]).double()
    value = randn(4, 2, seed=1)
    value[2] = torch.nan
    found = KeypointLikelihood(points, confidence, scale=0.5, kind=kind).log_prob(value)
    pick = [0, 3]
    alone = KeypointLikelihood(points[pick], confidence[pick], scale=0.5, kind=kind)
    torch.testing.assert_close(found, alone.log_prob(value[pick]))
    (gradient,) = torch.autograd.grad(found, points)
    assert gradient.isfinite().all() and (gradient[[1, 2]] == 0).all() and (gradient[0] != 0).all()
    p = KeypointLikelihood(points, confidence, scale=0.5, kind=kind)
    assert (p.residuals(value).unflatten(-1, (4, 2))[[1, 2]] == 0).all()


@every_kind
def test_weighted_residuals_have_the_gradient_of_the_density(kind):
    p = distribution(kind, joints=4, threshold=1.5)
    value = (3 * randn(4, 2, seed=3)).requires_grad_()
    (exact,) = torch.autograd.grad(-p.log_prob(value), value)
    r = p.residuals(value)
    (found,) = torch.autograd.grad(0.5 * (p.weights(r.detach()) * r.square()).sum(), value)
    torch.testing.assert_close(found, exact)


@every_kind
def test_as_a_site(kind):
    def model():
        with pyro.plate("people", 4):
            pyro.sample("seen", distribution(kind), obs=randn(4, 3, 2))

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["seen"]["log_prob"].shape == (4,)


def test_joints_are_masked():
    known = torch.tensor([True, False])
    p = JointLikelihood(torch.zeros(2, 3), known, scale=0.1)
    expected = torch.distributions.Normal(0.0, 0.1).log_prob(torch.tensor(0.05)) * 3
    value = torch.tensor([[0.05, 0.05, 0.05], [torch.nan, 9.0, 9.0]])
    torch.testing.assert_close(p.log_prob(value), expected)
    assert p.sample()[1].isnan().all() and p.sample()[0].isfinite().all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"projected": torch.zeros(3, 3)}, r"projected of shape \(..., J, 2\), got \(3, 3\)"),
        ({"confidence": torch.ones(4)}, r"confidence of shape \(..., 3\), got \(4,\)"),
        ({"confidence": torch.tensor([1.0, -1.0, 1.0])}, "confidence >= 0"),
        ({"confidence": torch.tensor([1.0, torch.nan, 1.0])}, "confidence >= 0"),
        ({"scale": 0.0}, "scale > 0"),
        ({"scale": torch.ones(2)}, r"scale of shape \(..., 3\), got \(2,\)"),
        ({"kind": "huber"}, "got 'huber'"),
        ({"dof": 0.0}, "dof > 0"),
        ({"projected": torch.zeros(3, 2, dtype=torch.long)}, "floating-point"),
    ],
)
def test_bad_arguments(changes, words):
    settings = {"projected": torch.zeros(3, 2), "scale": 1.0} | changes
    with pytest.raises(InputError, match=words):
        KeypointLikelihood(settings.pop("projected"), settings.pop("confidence", None), **settings)


def test_values_of_another_shape():
    with pytest.raises(InputError, match=r"values of shape \(..., 3, 2\), got \(4, 2\)"):
        distribution("gaussian").log_prob(torch.zeros(4, 2))
