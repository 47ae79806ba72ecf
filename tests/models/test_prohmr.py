"""What is particular to ProHMR and its lifting variant; the zoo has the rest."""

import math

import pytest
import torch
from torch import nn

from propose_prob.errors import InputError
from propose_prob.geometry.camera import project, rectify
from propose_prob.geometry.rotations import matrix_from_6d
from propose_prob.models import LiftingFlow, ProHMR, ProHMRConfig
from propose_prob.models.evidence import weak_to_translation
from tests.zoo import randn, small_lifting, small_prohmr


def test_the_mode_is_the_best_that_gradient_ascent_finds():
    torch.manual_seed(0)
    for model, joints in ((small_prohmr().requires_grad_(False), 3), (small_lifting(), 3)):
        distribution = model.requires_grad_(False).conditional(randn(4, joints, 2))
        start = distribution.flow.sample((20,)) + 0.5 * randn(
            20, 4, distribution.flow.event_shape[0]
        )
        x = start.clone().requires_grad_()
        optimizer = torch.optim.LBFGS([x], lr=0.5, max_iter=400, line_search_fn="strong_wolfe")

        def loss(x=x, distribution=distribution, optimizer=optimizer):
            optimizer.zero_grad()
            value = -distribution.flow.log_prob(x).sum()
            value.backward()
            return value

        optimizer.step(loss)
        best = distribution.flow.log_prob(x).max(0).values
        at_mode = distribution.log_prob(distribution.mode)
        assert (best <= at_mode + 1e-8).all()
        torch.testing.assert_close(best, at_mode, atol=1e-4, rtol=0)


def test_the_base_decides_whether_inputs_differ_in_entropy():
    p2d = randn(6, 3, 2)
    own = small_prohmr().conditional(p2d).entropy()
    fixed = small_prohmr(base="standard").conditional(p2d).entropy()
    assert own.std() > 1e-3
    torch.testing.assert_close(fixed, fixed[:1].expand(6), atol=1e-10, rtol=0)


def test_known_intrinsics_turn_the_orientation_with_the_camera():
    model = small_prohmr()
    p2d, focal, center = 100 * randn(5, 3, 2), 800.0, (50.0, -20.0)
    distribution = model.conditional(p2d, focal=focal, center=center)
    _, rotation = rectify(
        p2d,
        torch.ones(5, 3, dtype=torch.bool),
        focal=torch.tensor(focal).double(),
        center=torch.tensor(center).double(),
    )
    features = model.estimate(p2d, focal=focal, center=center)
    inner = features.distribution.to_pose.inv(distribution.mode).unflatten(-1, (-1, 6))
    expected = rotation.mT @ matrix_from_6d(inner[:, 0])
    torch.testing.assert_close(matrix_from_6d(distribution.mode[:, 0]), expected)
    torch.testing.assert_close(distribution.mode[:, 1:], inner[:, 1:])


@pytest.mark.parametrize("focal", [None, 900.0])
def test_the_camera_sees_the_body_where_the_keypoints_are(focal):
    model = small_prohmr()
    p2d = 30 * randn(5, 3, 2) + 400
    estimate = model.estimate(p2d, focal=focal, center=(350.0, 300.0))
    assert estimate.shape.shape == (5, 2)
    assert (estimate.camera[:, 0] > 0).all()
    if focal is None:
        assert estimate.translation is None
        return
    assert (estimate.translation[:, 2] > 0).all()
    center = torch.tensor([350.0, 300.0]).double()
    seen = project(estimate.translation, focal=focal, center=center)
    torch.testing.assert_close(seen, estimate.camera[:, 1:])
    depth = focal / estimate.camera[:, 0]
    torch.testing.assert_close(depth, estimate.translation[:, 2])


def test_scaling_and_moving_keypoints_scales_and_moves_the_camera():
    model = small_prohmr()
    p2d = randn(4, 3, 2)
    one, other = model.estimate(p2d), model.estimate(7 * p2d + 3)
    torch.testing.assert_close(other.camera[:, 0], 7 * one.camera[:, 0])
    torch.testing.assert_close(other.camera[:, 1:], 7 * one.camera[:, 1:] + 3)
    torch.testing.assert_close(other.distribution.mode, one.distribution.mode)


def test_weak_perspective_becomes_full_perspective():
    # 200 px per meter seen with a focal length of 1000 px: 5 m away.
    camera = torch.tensor([200.0, 520.0, 480.0])
    place = weak_to_translation(camera, focal=1000.0, center=(500.0, 500.0))
    torch.testing.assert_close(place, torch.tensor([0.1, -0.1, 5.0]))


def test_an_encoder_is_given_exactly_where_it_is_asked_for():
    with pytest.raises(ValueError, match="expected a module as encoder"):
        ProHMR(ProHMRConfig(encoder="custom"))
    with pytest.raises(ValueError, match="expected a module as encoder"):
        ProHMR(encoder=nn.Identity())
    with pytest.raises(ValueError, match=r"expected encoder .keypoints., .image. or .custom."):
        ProHMRConfig(encoder="text")
    with pytest.raises(ValueError, match="'pagd' or 'standard'"):
        ProHMR(ProHMRConfig(base="other"))
    custom = small_prohmr(encoder="custom")
    with pytest.raises(InputError, match=r"use \.given"):
        custom.conditional(randn(2, 3, 2))
    assert custom.given(randn(2, 7)).batch_shape == (2,)


def test_missing_keypoints_may_hold_anything():
    model = small_prohmr(keypoints=5)
    p2d = randn(2, 5, 2)
    p2d[0, 4] = math.nan
    confidence = torch.ones(2, 5).double()
    confidence[1, 3] = 0
    p2d[1, 3] = 1e6
    mode = model.conditional(p2d, confidence).mode
    assert mode.isfinite().all()
    p2d[1, 3] = -3.0
    assert torch.equal(model.conditional(p2d, confidence).mode, mode)


def test_wrong_keypoints_are_named():
    with pytest.raises(InputError, match=r"\(\.\.\., 3, 2\), got \(2, 4, 2\)"):
        small_prohmr().conditional(randn(2, 4, 2))


def test_lifting_is_reached_from_prohmr():
    assert isinstance(ProHMR.lifting(), LiftingFlow)
