"""ProHMR's shipped models keep their promises on real motion that they were never trained on."""

import dataclasses

import pytest
import torch

from propose_prob import available, load
from propose_prob.bodies import SkeletonBody
from propose_prob.data import load_cmu17, load_cmu_body
from propose_prob.data.cmu17 import FOCAL
from propose_prob.evaluation import CalibrationCurve, mpjpe, pa_mpjpe
from propose_prob.models import LiftingFlow, ProHMR
from propose_prob.pose.rotations import matrix_from_6d
from propose_prob.pose.skeleton import H36M_17


def chosen(data, count=200):
    return torch.randperm(4 * len(data), generator=torch.Generator().manual_seed(0))[:count]


@pytest.fixture(scope="module")
def lifting() -> LiftingFlow:
    return load("prohmr-lifting-cmu17")


@pytest.fixture(scope="module")
def prohmr() -> ProHMR:
    return load("prohmr-cmu17")


@pytest.fixture(scope="module")
def poses():
    data = load_cmu17("test_seen")
    rows = chosen(data)
    return data.p2d().flatten(0, 1)[rows], data.p3d().flatten(0, 1)[rows]


@pytest.fixture(scope="module")
def bodies():
    """Keypoints of bodies, and their joints: the body's own, so that both can agree exactly."""
    data, recorded, body = load_cmu17("test_seen"), load_cmu_body("test_seen"), SkeletonBody()
    world = body.regress(body(recorded.theta, recorded.shape, recorded.translation))
    data = dataclasses.replace(data, world=world)
    rows = chosen(data)
    return data.p2d().flatten(0, 1)[rows], data.p3d().flatten(0, 1)[rows]


def test_both_are_listed_and_frozen(lifting, prohmr):
    assert {"prohmr-cmu17", "prohmr-lifting-cmu17"} <= set(available())
    for model in (lifting, prohmr):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())


def test_lifting_stays_where_its_card_says(lifting, poses):
    p2d, p3d = poses
    law = lifting.conditional(p2d, focal=FOCAL)
    torch.manual_seed(0)
    samples = law.sample((200,))
    curve = CalibrationCurve(17, fixed_joints=(0,))
    curve.update(samples, p3d)
    assert 1e3 * mpjpe(law.mode, p3d).mean() < 28
    assert 1e3 * mpjpe(samples, p3d).amin(0).mean() < 18
    assert curve.compute().error < 0.10


def test_lifting_density_tells_left_from_right(lifting, poses):
    p2d, p3d = poses
    law = lifting.conditional(p2d, focal=FOCAL)
    swapped = law.log_prob(p3d[:, list(H36M_17.mirror)])
    assert (law.log_prob(p3d) > swapped).float().mean() >= 0.98


@torch.no_grad()
def test_body_pose_stays_where_its_card_says(prohmr, bodies):
    p2d, p3d = bodies
    estimate = prohmr.estimate(p2d, focal=FOCAL)
    body = SkeletonBody()

    def joints(sixd):
        return body.regress(body(matrix_from_6d(sixd), estimate.shape))

    torch.manual_seed(0)
    point = pa_mpjpe(joints(estimate.law.mode), p3d)
    best = pa_mpjpe(joints(estimate.law.sample((25,))), p3d).amin(0)
    assert 1e3 * point.mean() < 25
    assert 1e3 * best.mean() < 25
    ranks = torch.stack([estimate.law.entropy(), point]).argsort(-1).argsort(-1).double()
    assert torch.corrcoef(ranks)[0, 1] > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prohmr-cmu17", "prohmr-lifting-cmu17"])
def test_the_mode_is_the_best_of_200_restarts_on_real_inputs(name, poses):
    model = load(name).double()
    law = model.conditional(poses[0][:20].double(), focal=FOCAL)
    torch.manual_seed(0)
    # Whitened by the samples' own covariance: gradient ascent then takes tens of steps.
    draws = law.sample((2000,))
    shape = draws.shape[2:]
    if shape == (17, 3):
        draws = draws[:, :, 1:]
    flat = draws.flatten(2)
    mean, spread = flat.mean(0), flat - flat.mean(0)
    covariance = torch.einsum("nbi,nbj->bij", spread, spread) / len(flat)
    factor = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(flat.shape[-1]))
    start = torch.linalg.solve_triangular(factor, spread[:200, ..., None], upper=False)[..., 0]
    y = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([y], max_iter=200, history_size=10, tolerance_grad=1e-6)

    def log_density():
        x = mean + (factor @ y[..., None])[..., 0]
        pose = x.unflatten(-1, (-1, shape[-1]))
        if shape == (17, 3):
            pose = torch.cat([torch.zeros_like(pose[:, :, :1]), pose], 2)
        return law.log_prob(pose)

    def loss():
        optimiser.zero_grad()
        value = -log_density().sum()
        value.backward()
        return value

    optimiser.step(loss)
    best = log_density().detach().amax(0)
    at_mode = law.log_prob(law.mode)
    assert (best <= at_mode + 1e-8).all()
    torch.testing.assert_close(best, at_mode, atol=1e-4, rtol=0)
