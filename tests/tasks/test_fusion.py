import pyro.distributions as dist
import pytest
import torch

from propose_prob.distributions import PushforwardDistribution
from propose_prob.errors import InputError
from propose_prob.geometry.camera import project
from propose_prob.geometry.rotations import (
    geodesic_distance,
    matrix_from_6d,
    matrix_from_axis_angle,
    sixd_from_matrix,
)
from propose_prob.models import LiftingConfig, ProHMR, ProHMRConfig, ProPose, ProPoseConfig
from propose_prob.tasks.fusion import Cameras, ViewEvidence, fuse_views, pose_prior

B, V, J = 3, 3, 5


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rotations(*shape, seed=9):
    return matrix_from_axis_angle(2 * draw(*shape, 3, seed=seed))


def normal_views(seed=0):
    loc = draw(B, V, J, 3, seed=seed)
    loc[:, :, 0] = 0
    return loc, 0.05 + 0.1 * draw(B, V, J, 3, seed=seed + 1).abs()


def normal(loc, scale):
    return dist.Normal(loc, scale).to_event(2)


FACING = Cameras(torch.eye(3, dtype=torch.float64).expand(V, 3, 3))


def test_calibrated_normal_distributions_give_their_product():
    loc, scale = normal_views()
    fused = fuse_views(normal(loc, scale), cameras=FACING)
    weight = 1 / scale.square()
    expected = (weight * loc).sum(1) / weight.sum(1)
    assert fused.converged.all() and fused.translation is None
    torch.testing.assert_close(fused.pose, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(fused.in_views, fused.pose[:, None].expand(B, V, J, 3))


def test_prior_counted_once_is_the_posterior_of_the_likelihoods():
    # p(x) = N(0, 1), p(c_v | x) = N(c_v; x, s): posteriors are conjugate.
    seen, s = draw(B, V, J, 3), 0.5
    seen[:, :, 0] = 0
    distribution = normal(seen / (1 + s**2), torch.full_like(seen, s / (1 + s**2) ** 0.5))
    prior = normal(torch.zeros(J, 3, dtype=torch.float64), 1.0)
    once = fuse_views(distribution, cameras=FACING, prior="once", marginal=prior)
    torch.testing.assert_close(once.pose, seen.sum(1) / (V + s**2), rtol=0, atol=1e-5)
    twice = fuse_views(distribution, cameras=FACING)
    torch.testing.assert_close(twice.pose, seen.sum(1) / (V + V * s**2), rtol=0, atol=1e-5)


def test_missing_views_do_not_count():
    loc, scale = normal_views()
    seen = torch.tensor([[True, True, True], [True, False, True], [False, True, False]])
    weight = seen[..., None, None] / scale.square()
    expected = (weight * loc).sum(1) / weight.sum(1)
    fused = fuse_views(normal(loc, scale), seen=seen, cameras=FACING)
    torch.testing.assert_close(fused.pose, expected, rtol=0, atol=1e-4)
    # Nor without cameras, whatever their distributions say.
    two = fuse_views(normal(loc[:, :2], scale[:, :2]))
    masked = fuse_views(normal(loc, scale), seen=torch.tensor([True, True, False]))
    torch.testing.assert_close(masked.pose, two.pose, rtol=0, atol=1e-3)


def test_turning_a_known_camera_changes_nothing():
    loc, scale = normal_views()
    # Round distributions turn with their poses.
    scale = scale.mean((-2, -1), keepdim=True).expand_as(scale)
    turn = rotations(B, V)
    straight = fuse_views(normal(loc, scale), cameras=FACING)
    turned = fuse_views(normal(loc @ turn.mT, scale), cameras=Cameras(turn))
    torch.testing.assert_close(turned.pose, straight.pose, rtol=0, atol=1e-5)
    torch.testing.assert_close(turned.in_views, straight.pose[:, None] @ turn.mT, atol=1e-5, rtol=0)


def test_free_cameras_are_found():
    pose = draw(B, 1, J, 3)
    pose[:, :, 0] = 0
    turn = rotations(B, V)
    seen = pose @ turn.mT
    fused = fuse_views(normal(seen, torch.full_like(seen, 0.05)))
    torch.testing.assert_close(fused.in_views, seen, rtol=0, atol=1e-4)
    torch.testing.assert_close(fused.pose, seen[:, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(
        fused.rotation @ fused.rotation[:, :1].mT, turn @ turn[:, :1].mT, rtol=0, atol=1e-4
    )


def tiny(kind):
    torch.manual_seed(0)
    if kind == "decoded":
        model = ProPose(
            ProPoseConfig(latent=6, couplings=2, flow_width=16, code=16, width=16, blocks=1,
                          decoder_width=16, decoder_blocks=1)
        )  # fmt: skip
    elif kind == "flow":
        model = ProHMR.lifting(LiftingConfig(couplings=2, flow_width=16, width=16, context=16))
    else:
        model = ProHMR(ProHMRConfig(couplings=2, flow_width=16, width=16, context=16))
    return model.double().eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["decoded", "flow", "body"])
def test_one_view_gives_its_own_answer(kind):
    distribution = tiny(kind).conditional(draw(2, 1, 17, 2))
    fused = fuse_views(distribution)
    torch.testing.assert_close(fused.in_views, distribution.point_estimate, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["decoded", "flow", "body"])
def test_order_and_company_do_not_matter(kind):
    model, p2d = tiny(kind), draw(2, V, 17, 2)
    cameras = Cameras(rotations(2, V))
    options = {"max_steps": 1000, "cameras": cameras}
    fused = fuse_views(model.conditional(p2d), **options)
    assert fused.converged.all()
    order = torch.tensor([2, 0, 1])
    again = fuse_views(
        model.conditional(p2d[:, order]),
        cameras=Cameras(cameras.rotation[:, order]),
        max_steps=1000,
    )
    torch.testing.assert_close(again.log_density, fused.log_density, rtol=0, atol=1e-3)
    torch.testing.assert_close(again.pose, fused.pose, rtol=0, atol=2e-3)
    alone = fuse_views(
        model.conditional(p2d[1]), cameras=Cameras(cameras.rotation[1]), max_steps=1000
    )
    assert alone.pose.shape == fused.pose.shape[1:]
    torch.testing.assert_close(alone.log_density, fused.log_density[1], rtol=0, atol=1e-3)
    # A sequence of distributions is the same as a batch axis.
    listed = fuse_views([model.conditional(p2d[:, v]) for v in range(V)], **options)
    torch.testing.assert_close(listed.log_density, fused.log_density, rtol=0, atol=1e-3)


def test_distributions_of_different_models_fuse():
    p2d = draw(2, 17, 2)
    distributions = [tiny("decoded").conditional(p2d), tiny("flow").conditional(p2d)]
    cameras = Cameras(torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
    fused = fuse_views(distributions, cameras=cameras, max_steps=20)
    assert fused.pose.shape == (2, 17, 3) and fused.pose.isfinite().all()


def body_views(count=2):
    """Normal distributions over rotations: views of one body that disagree."""
    body = matrix_from_axis_angle(0.5 * draw(1, 1, 6, 3))
    own = matrix_from_axis_angle(0.1 * draw(count, V, 6, 3, seed=3)) @ body
    own[:, :, 0] = rotations(count, V)
    return normal(
        sixd_from_matrix(own), torch.full((count, V, 6, 6), 0.1, dtype=torch.float64)
    ), own


def test_bodies_agree_up_to_the_tolerance():
    distribution, own = body_views()
    near = fuse_views(distribution, agreement=1e-3)
    loose = fuse_views(distribution, agreement=100.0)
    spread = [
        geodesic_distance(matrix_from_6d(x.in_views[:, :, 1:]), x.rotations[:, None, 1:]).max()
        for x in (near, loose)
    ]
    assert spread[0] < 0.01 < spread[1]
    torch.testing.assert_close(loose.in_views, sixd_from_matrix(own), rtol=0, atol=1e-3)
    # Orientations stay free.
    assert geodesic_distance(matrix_from_6d(near.in_views[:, :, 0]), own[:, :, 0]).max() < 0.05
    exact = fuse_views(distribution)
    between = geodesic_distance(exact.rotations[:, 1:], near.rotations[:, 1:])
    assert between.max() < 0.02


def test_keypoints_sharpen_a_calibrated_pose():
    pose = 0.5 * draw(B, J, 3)
    pose[:, 0] = 0
    rotation, translation = rotations(V), torch.tensor([[0.0, 0.0, 5.0]]).double().expand(V, 3)
    root = 0.3 * draw(B, 3, seed=4)
    points = (pose + root[:, None])[:, None] @ rotation.mT + translation[:, None]
    p2d = project(points, focal=1000.0, center=500.0)
    p2d[0, 0, 2] = torch.nan
    p2d[1, 1, 3] += 400.0
    distribution = normal((pose + 0.1 * draw(B, J, 3, seed=5))[:, None] @ rotation.mT,
                 torch.full((B, V, J, 3), 0.1, dtype=torch.float64))  # fmt: skip
    cameras = Cameras(rotation, translation, 1000.0, torch.tensor([500.0, 500.0]))
    fused = fuse_views(distribution, cameras=cameras, evidence=ViewEvidence(p2d, 1.0), solver="lm")
    truth = pose.clone()
    assert (fused.pose - truth)[:, 1:].norm(dim=-1).max() < 0.01
    torch.testing.assert_close(fused.translation, root, rtol=0, atol=0.01)


def test_a_prior_is_fitted_to_examples():
    poses = draw(500, J, 3)
    distribution = pose_prior(poses)
    relative = poses - poses[:, :1]
    assert distribution.log_prob(relative).mean() > distribution.log_prob(3 * relative).mean()
    distribution = normal(
        relative[:2, None] + torch.zeros(1, V, 1, 1), torch.full((2, V, J, 3), 0.5)
    )
    fused = fuse_views(distribution, prior="once", marginal=pose_prior(poses))
    assert fused.converged.all() and fused.pose.abs().max() < 10
    with pytest.raises(InputError, match="more than 12 poses"):
        pose_prior(poses[:12])


def test_wrong_input_is_named():
    loc, scale = normal_views()
    distribution = normal(loc, scale)
    marginal = normal(torch.zeros(J, 3), 1.0)
    flat = normal(torch.zeros(V, J, 2), 1.0)
    known = Cameras(FACING.rotation)
    seen = torch.ones(B, V, dtype=torch.bool)
    seen[1] = False
    cases = [
        (distribution, {"prior": "once"}, "marginal"),
        (distribution, {"marginal": marginal}, "marginal"),
        (distribution, {"prior": "never"}, "prior"),
        (distribution, {"seen": torch.ones(B, V + 1, dtype=torch.bool)}, "seen as bool"),
        (distribution, {"seen": seen}, "1 has none"),
        (distribution, {"cameras": Cameras(torch.eye(3).expand(V + 1, 3, 3))}, "cameras.rotation"),
        (distribution, {"agreement": 0.1}, "agreement is for distributions over rotations"),
        (distribution, {"evidence": ViewEvidence(torch.zeros(V, J, 2), 1.0)}, "need cameras"),
        (
            distribution,
            {"cameras": known, "evidence": ViewEvidence(torch.zeros(V, J, 2), 1.0)},
            "focal",
        ),
        (flat, {}, "joints"),
        ([], {}, "at least one view"),
        ([distribution, flat], {}, "one batch and event shape"),
        (normal(torch.zeros(J, 3), 1.0), {}, "batch shape"),
        (
            PushforwardDistribution(distribution, lambda x: x, (J, 3)),
            {},
            "distributions with a density",
        ),
    ]
    for distributions, options, words in cases:
        with pytest.raises(InputError, match=words):
            fuse_views(distributions, **options)
