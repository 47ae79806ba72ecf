import math

import pyro.distributions as dist
import pytest
import torch

from propose_prob.bodies import SkeletonBody
from propose_prob.distributions import FlowDistribution, PoseFlowDistribution
from propose_prob.distributions.flow import VectorToJoints, diagonal_normal
from propose_prob.errors import InputError
from propose_prob.geometry.rotations import (
    geodesic_distance,
    matrix_from_6d,
    matrix_from_axis_angle,
)
from propose_prob.tasks import complete, generic_prior
from propose_prob.tasks.priors import AngleDistribution
from propose_prob.transforms import LULinear

B, JOINTS = 2, 4
D = 3 * (JOINTS - 1)


def correlated(seed=0):
    """A normal over 4 joints with correlated elements, with its mean and covariance."""
    generator = torch.Generator().manual_seed(seed)
    lower = torch.eye(D) + 0.5 * torch.randn(D, D, generator=generator).tril(-1)
    upper = torch.diag(0.2 + 0.1 * torch.rand(D, generator=generator))
    loc = torch.randn(B, D, generator=generator)
    flow = FlowDistribution(
        diagonal_normal(loc, torch.ones(B, D)), LULinear(lower, upper, torch.zeros(D))
    )
    matrix = lower @ upper
    distribution = PoseFlowDistribution(flow, VectorToJoints())
    return distribution, loc @ matrix.mT, matrix @ matrix.mT


def conditioned(mean, covariance, elements, values, scale):
    """Textbook mean and covariance of a normal distribution given some elements with noise."""
    gain = covariance[:, elements] @ torch.linalg.inv(
        covariance[elements][:, elements] + scale**2 * torch.eye(len(elements))
    )
    new_mean = mean + (values - mean[:, elements]) @ gain.mT
    return new_mean, covariance - gain @ covariance[elements]


@pytest.mark.parametrize("method", ["importance", "laplace"])
def test_a_correlated_normal_distribution_is_conditioned_as_the_textbook_does(method):
    distribution, mean, covariance = correlated()
    known = torch.full((B, JOINTS, 3), torch.nan)
    known[:, 2] = torch.tensor([[0.3, -0.2, 0.5], [0.0, 0.1, -0.3]])
    completed = complete(distribution, known, scale=0.05, method=method, num_samples=2000)
    expected, spread = conditioned(mean, covariance, [3, 4, 5], known[:, 2], 0.05)
    found = completed.distribution.mean[:, 1:].flatten(1)
    count = completed.effective_sample_size[:, None]
    assert ((found - expected).abs() < 5 * (spread.diagonal() / count).sqrt() + 1e-4).all()
    variance = completed.distribution.variance[:, 1:].flatten(1)
    torch.testing.assert_close(variance, spread.diagonal().expand(B, D), rtol=0.2, atol=1e-5)
    assert (completed.k_hat < 0.7).all()
    assert completed.distribution.sample((3,)).shape == (3, B, JOINTS, 3)
    assert (completed.distribution.mean[:, 0] == 0).all()
    torch.testing.assert_close(completed.joints.mean, completed.distribution.mean)


def test_a_free_place_is_found_and_takes_the_evidence_of_one_joint_away():
    distribution, mean, covariance = correlated()
    place = torch.tensor([1.0, 0.5, 4.0])
    known = torch.full((B, JOINTS, 3), torch.nan)
    known[:, 2] = mean.reshape(B, 3, 3)[:, 1] + place
    alone = complete(distribution, known, free_place=True, num_samples=2000)
    # One joint in an unknown place tells nearly nothing about the pose.
    spread = covariance.diagonal().sqrt()
    assert ((alone.distribution.mean[:, 1:].flatten(1) - mean).abs() < 0.2 * spread).all()
    known = torch.cat([torch.zeros(B, 1, 3), mean.reshape(B, 3, 3)], 1) + place
    fixed = complete(distribution, known, free_place=True, scale=0.02, num_samples=1000)
    offset = fixed.posterior.distributions["offset"].mean
    assert ((offset - place).abs() < 0.03).all()
    torch.testing.assert_close(fixed.joints.mean, known, atol=0.03, rtol=0)


SPREAD = 0.15


def upright():
    """A distribution of people who face the camera with arms out, and bodies that it is about."""
    center = torch.eye(3).repeat(2, 24, 1, 1)
    center[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    distribution = AngleDistribution(center, torch.full((2, 24, 3), SPREAD))
    generator = torch.Generator().manual_seed(0)
    angles = SPREAD * torch.randn(2, 24, 3, generator=generator)
    return distribution, center @ matrix_from_axis_angle(angles)


def test_markers_on_a_body_move_the_joints_they_sit_on():
    body = SkeletonBody()
    distribution, theta = upright()
    joints = body(theta).joints
    joints = joints - joints[:, :1]
    known = torch.full_like(joints, torch.nan)
    names = ["L_Elbow", "L_Wrist", "R_Knee", "R_Ankle", "Neck"]
    rows = [body.joint_names.index(name) for name in names]
    known[:, rows] = joints[:, rows]
    completed = complete(distribution, known, body=body, shape=torch.zeros(10), num_samples=300)
    before = body(matrix_from_6d(distribution.mode)).joints
    before = (before - before[:, :1] - joints).norm(dim=-1)
    after = (completed.joints.mean - joints).norm(dim=-1)
    assert (after[:, rows] < 0.03).all()
    assert after[:, rows].mean() < 0.2 * before[:, rows].mean()
    # What hangs on a known joint follows it.
    hand = body.joint_names.index("L_Hand")
    assert (after[:, hand] < 0.6 * before[:, hand]).all()
    assert completed.distribution.event_shape == (24, 6)


def test_an_orientation_of_a_bone_is_obeyed_to_its_scale():
    body = SkeletonBody()
    distribution, theta = upright()
    rotations = body(theta).rotations
    bone = body.joint_names.index("R_Elbow")
    measured = torch.full_like(rotations, torch.nan)
    measured[:, bone] = rotations[:, bone]
    scale = 0.05
    completed = complete(
        distribution,
        orientations=measured,
        shape=torch.zeros(10),
        orientation_scale=scale,
        num_samples=600,
    )
    drawn = body(matrix_from_6d(completed.distribution.draws)).rotations[:, :, bone]
    square = geodesic_distance(drawn, rotations[:, bone].expand_as(drawn)).square()
    # Three angles of the scale each, which the distribution, about twice as wide in all, narrows
    # little.
    found = (completed.distribution.weights * square).sum(0).sqrt()
    assert (found / (math.sqrt(3) * scale) - 1).abs().max() < 0.2
    assert (completed.k_hat < 0.8).all()


def test_a_distribution_of_draws_is_the_same_for_the_same_seed():
    distribution, _mean, _ = correlated()
    known = torch.full((B, JOINTS, 3), torch.nan)
    known[:, 1] = 0.1
    first, second = (complete(distribution, known, num_samples=50, seed=4) for _ in range(2))
    assert torch.equal(first.distribution.draws, second.distribution.draws)


NORMAL = dist.Normal(torch.zeros(B, JOINTS, 3), 0.3).to_event(2)
KNOWN = torch.zeros(B, JOINTS, 3)


@pytest.mark.parametrize(
    ("distribution", "arguments", "message"),
    [
        (NORMAL, {}, "expected known joints or orientations, got neither"),
        (NORMAL, {"known": KNOWN[0]}, r"known of shape \(4, J, 3\), got \(4, 3\)"),
        (NORMAL, {"known": KNOWN[:1]}, r"batch shape \(1,\), got \(2,\)"),
        (NORMAL, {"known": KNOWN * torch.nan}, "nothing is known of pose 0"),
        (NORMAL, {"known": KNOWN / 0 + torch.inf}, "infinite|nothing is known"),
        (NORMAL, {"known": KNOWN, "scale": 0.0}, "expected scales > 0"),
        (NORMAL, {"known": KNOWN, "body": SkeletonBody()}, "go with a distribution of rotations"),
        (NORMAL, {"orientations": torch.eye(3).expand(B, 24, 3, 3)}, "go with a distribution of"),
        (NORMAL, {"known": KNOWN, "method": "guess"}, "'guess'"),
        (
            dist.Normal(torch.zeros(2, 5), 1.0).to_event(1), {"known": KNOWN},
            r"joints \(J, 3\) or 6D rotations \(K, 6\), got event shape \(5,\)",
        ),
        (generic_prior(2), {"known": KNOWN, "joint_set": "cmu_31"}, "the joint set 'cmu_31'"),
        (generic_prior(2), {"known": KNOWN}, "4|24"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(distribution, arguments, message):
    with pytest.raises(InputError, match=message):
        complete(distribution, **arguments)
