import math

import pytest
import torch

from propose_prob.errors import InputError
from propose_prob.geometry.rotations import (
    axis_angle_from_matrix,
    geodesic_distance,
    matrix_from_6d,
    matrix_from_axis_angle,
    sixd_from_matrix,
)
from propose_prob.tasks import generic_prior
from propose_prob.tasks.priors import AngleDistribution, _exponential


def angles(*shape, scale=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e-3, 0.1, 3.0])
def test_the_exponential_is_that_of_rotations_and_smooth(scale):
    v = angles(20, 3, scale=scale)
    torch.testing.assert_close(_exponential(v), matrix_from_axis_angle(v), atol=1e-10, rtol=0)
    v.requires_grad_()
    assert torch.autograd.gradcheck(_exponential, v)
    assert torch.autograd.gradgradcheck(_exponential, v)


def test_density_and_samples_are_of_the_rotation_vectors():
    center = matrix_from_axis_angle(angles(4, 3, scale=1.0))
    spread = torch.full((4, 3), 0.2, dtype=torch.float64)
    distribution = AngleDistribution(center, spread)
    v = angles(5, 4, 3, scale=0.2)
    value = sixd_from_matrix(center @ matrix_from_axis_angle(v))
    expected = torch.distributions.Normal(0.0, spread).log_prob(v).sum((-1, -2))
    torch.testing.assert_close(distribution.log_prob(value), expected, atol=1e-6, rtol=0)
    assert (distribution.log_prob(distribution.mode) > distribution.log_prob(value)).all()
    torch.manual_seed(0)
    drawn = axis_angle_from_matrix(center.mT @ matrix_from_6d(distribution.sample((4000,))))
    torch.testing.assert_close(drawn.std(0), spread, rtol=0.06, atol=0)
    assert distribution.expand((2, 3)).sample().shape == (2, 3, 4, 6)
    assert (
        distribution.log_prob_kind == "exact"
        and distribution.rsample().shape == distribution.event_shape == (4, 6)
    )


def test_the_generic_prior_is_that_of_the_poses_it_is_given():
    center = matrix_from_axis_angle(angles(6, 3, scale=0.5, seed=1))
    spread = torch.linspace(0.05, 0.5, 18, dtype=torch.float64).reshape(6, 3)
    poses = center @ matrix_from_axis_angle(spread * angles(4000, 6, 3, scale=1.0))
    distribution = generic_prior(3, theta=poses)
    assert distribution.batch_shape == (3,) and distribution.mode.dtype == torch.float64
    found = matrix_from_6d(distribution.mode)[0]
    assert (geodesic_distance(found, center)[1:] < 0.05).all()
    width = distribution.base_dist.stddev[0].reshape(6, 3)
    torch.testing.assert_close(width[1:], spread[1:], rtol=0.15, atol=0)
    # The orientation is free, about an upright person who faces the camera.
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    torch.testing.assert_close(found[0], facing)
    assert (width[0] == math.pi).all()


@pytest.mark.parametrize(
    ("batch", "options", "message"),
    [
        (0, {}, "batch of at least 1"),
        (1, {"spread": 0.0}, "spread > 0"),
        (1, {"joints": 0}, "at least one joint"),
        (1, {"theta": torch.eye(3)}, r"theta of shape \(N, K, 3, 3\) with N >= 2, got \(3, 3\)"),
    ],
)
def test_wrong_input_is_named(batch, options, message):
    with pytest.raises(InputError, match=message):
        generic_prior(batch, **options)
