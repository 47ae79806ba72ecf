"""The silhouette's distribution: a density, its sampler, and what it does to a pose."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from propose_prob.bodies import load_open_body
from propose_prob.distributions.likelihoods import SilhouetteLikelihood, silhouette_pixels
from propose_prob.errors import InputError
from propose_prob.geometry.camera import project
from propose_prob.geometry.rotations import matrix_from_axis_angle
from propose_prob.images.raster import rasterize


def distribution(count=1, **options):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(2, 5, 2, generator=generator, dtype=torch.float64) * 10 + 5
    weights = torch.tensor([1.0, 2.0, 1.0, 3.0, 1.0], dtype=torch.float64)
    options = {"scale": torch.tensor([1.0, 2.0]), "size": (20, 20), "outliers": 0.2} | options
    return SilhouetteLikelihood(points, count, weights=weights, **options)


def test_it_integrates_to_one():
    # No cell lies across the border of the image.
    edges = torch.linspace(-10.1, 30.1, 202, dtype=torch.float64)
    grid = torch.cartesian_prod(edges, edges)
    for outliers in (0.0, 0.2):
        mass = (
            distribution(outliers=outliers).log_prob(grid[:, None, None].expand(-1, 2, 1, 2)).exp()
        )
        torch.testing.assert_close(
            mass.sum(0) * 0.2**2, torch.ones(2, dtype=torch.float64), atol=3e-3, rtol=0
        )


def test_samples_have_its_moments_and_pixels_are_independent():
    one = distribution(count=3)
    torch.manual_seed(0)
    samples = one.sample((20_000,))
    assert samples.shape == (20_000, 2, 3, 2)
    mean = 0.8 * (one.weights[:, None] * one.points).sum(-2) + 0.2 * 10
    torch.testing.assert_close(samples.mean((0, 2)), mean, atol=0.1, rtol=0)
    # The entropy is the mean of -log p, and that of the distribution of pixels is their sum.
    single = distribution().log_prob(samples[:, :, :1]).mean(0)
    torch.testing.assert_close(one.log_prob(samples).mean(0), 3 * single, atol=0.1, rtol=0.02)


def test_shapes_expand_and_work_in_pyro():
    one = distribution(count=4)
    assert one.batch_shape == (2,) and one.event_shape == (4, 2)
    wide = one.expand((3, 2))
    value = torch.rand(4, 2, dtype=torch.float64) * 20
    torch.testing.assert_close(wide.log_prob(value), one.log_prob(value).expand(3, 2))
    assert one.log_prob_kind == "exact"

    def model():
        with pyro.plate("people", 2):
            return pyro.sample("pixels", one)

    trace = pyro.poutine.trace(model).get_trace()
    assert trace.nodes["pixels"]["value"].shape == (2, 4, 2)
    assert torch.isfinite(trace.log_prob_sum())


def test_outside_the_image_only_the_person_counts():
    far = torch.tensor([[-30.0, -30.0]], dtype=torch.float64)
    assert (distribution().log_prob(far) < -50).all()
    inside = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    assert (distribution().log_prob(inside) > math.log(0.2 / 400) - 1e-6).all()


def test_pixels_are_spread_evenly():
    mask = torch.zeros(60, 80, dtype=torch.bool)
    mask[10:50, 5:25] = True
    mask[20:30, 25:75] = True
    pixels = silhouette_pixels(mask, 130)
    assert mask[pixels[:, 1].long(), pixels[:, 0].long()].all()
    arm = (pixels[:, 0] > 25).float().mean()
    assert float(arm) == pytest.approx(500 / 1300, abs=0.02)
    # No part of the mask is far from a chosen pixel.
    middles = mask.nonzero().flip(-1) + 0.5
    assert torch.cdist(middles, pixels).amin(1).max() < 5
    assert len(silhouette_pixels(mask, 5000)) == 5000


def test_a_silhouette_finds_an_arm_that_no_keypoint_shows():
    """A Pyro program: a normal over one elbow's angle, keypoints without the arm, the mask."""
    body = load_open_body()
    light = body.only("h36m_17")
    faces, rest = body.faces, body(torch.eye(3).expand(24, 3, 3)).vertices
    a, b, c = rest[faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1)
    generator = torch.Generator().manual_seed(0)
    rows = torch.multinomial(area, 600, replacement=True, generator=generator)
    place = torch.tensor([0.0, 0.0, 4.0])
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    eye = torch.eye(3).expand(22, 3, 3)

    def posed(angle, whole):
        turn = torch.stack([torch.zeros_like(angle), torch.zeros_like(angle), angle], -1)
        elbow = matrix_from_axis_angle(turn)[None]
        theta = torch.cat([upright[None], eye[:17], elbow, eye[:5]])
        return whole(theta, None, place)

    def camera(points):
        return project(points, focal=120.0, center=64.0)

    truth = posed(torch.tensor(-1.2), body).vertices
    mask = rasterize(camera(truth), truth[:, 2], faces, size=(128, 128)).face >= 0
    pixels = silhouette_pixels(mask, 150)
    joints = camera(light.regress(posed(torch.tensor(-1.2), light)))
    seen = torch.tensor([1.0] * 17)
    seen[12:14] = 0

    def model(with_mask):
        angle = pyro.sample("angle", dist.Normal(torch.zeros(1), 0.7).to_event(1))[0]
        output = posed(angle, body if with_mask else light)
        places = camera((body if with_mask else light).regress(output))
        error = dist.Normal(places, 2.0).mask(seen[:, None] > 0).to_event(2)
        pyro.sample("keypoints", error, obs=joints)
        if with_mask:
            corners = camera(output.vertices[faces[rows]].mean(1))
            silhouette = SilhouetteLikelihood(corners, 150, scale=2.5, size=(128, 128))
            pyro.sample("pixels", silhouette, obs=pixels)

    def best(with_mask):
        angles = torch.linspace(-2, 2, 41)
        scores = []
        for angle in angles:
            conditioned = pyro.condition(model, {"angle": angle[None]})
            scores.append(pyro.poutine.trace(conditioned).get_trace(with_mask).log_prob_sum())
        return float(angles[torch.stack(scores).argmax()])

    assert abs(best(False)) < 0.06
    assert best(True) == pytest.approx(-1.2, abs=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.0}, "scale > 0"),
        ({"size": (0.0, 5.0)}, "a size > 0"),
        ({"outliers": 1.0}, r"\[0, 1\)"),
        ({"count": 0}, "count >= 1"),
    ],
)
def test_wrong_input_is_named(options, message):
    with pytest.raises(InputError, match=message):
        distribution(**options)


def test_wrong_shapes_are_named():
    with pytest.raises(InputError, match="points of shape"):
        SilhouetteLikelihood(torch.zeros(4, 3), 2, scale=1.0, size=(9, 9))
    with pytest.raises(InputError, match="weights"):
        SilhouetteLikelihood(torch.zeros(4, 2), 2, scale=1.0, size=(9, 9), weights=torch.ones(3))
    with pytest.raises(InputError, match="pixels of shape"):
        distribution().log_prob(torch.zeros(3, 2))
    with pytest.raises(InputError, match="mask"):
        silhouette_pixels(torch.zeros(3, 3, dtype=torch.bool), 4)
    with pytest.raises(InputError, match="at least 1"):
        silhouette_pixels(torch.ones(3, 3, dtype=torch.bool), 0)
