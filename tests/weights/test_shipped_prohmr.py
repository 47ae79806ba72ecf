"""ProHMR's shipped models keep their promises on real motion that they were never trained on."""

import dataclasses

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from propose_prob.bodies import SkeletonBody
from propose_prob.datasets import load_cmu17, load_cmu_body
from propose_prob.datasets.cmu17 import FOCAL
from propose_prob.evaluation import CalibrationCurve, mpjpe, pa_mpjpe
from propose_prob.geometry.rotations import matrix_from_6d
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.inference import map_estimate
from propose_prob.models import LiftingFlow, ProHMR
from propose_prob.weights import available, load


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
    distribution = lifting.conditional(p2d, focal=FOCAL)
    torch.manual_seed(0)
    samples = distribution.sample((200,))
    curve = CalibrationCurve(17, fixed_joints=(0,))
    curve.update(samples, p3d)
    assert 1e3 * mpjpe(distribution.mode, p3d).mean() < 28
    assert 1e3 * mpjpe(samples, p3d).amin(0).mean() < 18
    assert curve.compute().error < 0.10


def test_lifting_density_tells_left_from_right(lifting, poses):
    p2d, p3d = poses
    distribution = lifting.conditional(p2d, focal=FOCAL)
    swapped = distribution.log_prob(p3d[:, list(H36M_17.mirror)])
    assert (distribution.log_prob(p3d) > swapped).float().mean() >= 0.98


@torch.no_grad()
def test_body_pose_stays_where_its_card_says(prohmr, bodies):
    p2d, p3d = bodies
    estimate = prohmr.estimate(p2d, focal=FOCAL)
    body = SkeletonBody()

    def joints(sixd):
        return body.regress(body(matrix_from_6d(sixd), estimate.shape))

    torch.manual_seed(0)
    point = pa_mpjpe(joints(estimate.distribution.mode), p3d)
    best = pa_mpjpe(joints(estimate.distribution.sample((25,))), p3d).amin(0)
    assert 1e3 * point.mean() < 25
    assert 1e3 * best.mean() < 25
    ranks = torch.stack([estimate.distribution.entropy(), point]).argsort(-1).argsort(-1).double()
    assert torch.corrcoef(ranks)[0, 1] > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prohmr-cmu17", "prohmr-lifting-cmu17"])
def test_the_mode_is_the_best_of_200_restarts_on_real_inputs(name, poses):
    model, p2d = load(name).requires_grad_(False), poses[0][:20]
    distribution = model.conditional(p2d, focal=FOCAL)
    root = distribution.event_shape == (17, 3)
    torch.manual_seed(0)
    draws = distribution.sample((200,))[:, :, int(root) :].flatten(2)
    # Whitened by the samples' own covariance: ascent then takes tens of steps.
    mean = draws.mean(0)
    factor = torch.linalg.cholesky(
        (draws - mean).flatten(0, 1).T.cov() + 1e-6 * torch.eye(draws.shape[-1])
    )
    start = torch.linalg.solve_triangular(factor, (draws - mean).mT, upper=False).mT
    width = start.std(0)

    def program(distribution, mean, width):
        with pyro.plate("restarts", len(mean)):
            with poutine.mask(mask=False):
                free = dist.Normal(torch.zeros_like(mean), 1.0).to_event(1)
                y = pyro.sample("y", free)
            pose = (mean + (width * y) @ factor.to(y).T).unflatten(
                -1, (-1, distribution.event_shape[-1])
            )
            if root:
                pose = torch.cat([torch.zeros_like(pose[:, :1]), pose], 1)
            pyro.factor("density", distribution.log_prob(pose))

    # All restarts at once, each with its own steps and stop; then the best of each input exactly.
    distributions = model.conditional(p2d.repeat(200, 1, 1), focal=FOCAL)
    found = map_estimate(
        program, distributions, mean.repeat(200, 1), width.repeat(200, 1), solver="lbfgs",
        init={"y": (start / width).flatten(0, 1)}, batch_size=1000, tolerance=1e-5,
    )  # fmt: skip
    assert found.converged.float().mean() > 0.99
    ends = found.log_density.unflatten(0, (200, 20))
    best = found.values["y"].unflatten(0, (200, 20))[ends.argmax(0), torch.arange(20)].double()
    exact = model.double().conditional(p2d.double(), focal=FOCAL)
    mean, width = mean.double(), width.double()
    refined = map_estimate(program, exact, mean, width, solver="lbfgs", init={"y": best})
    at_mode = exact.log_prob(exact.mode)
    assert (ends <= at_mode + 1e-2).all()
    assert (refined.log_density <= at_mode + 1e-8).all()
    torch.testing.assert_close(refined.log_density, at_mode, atol=1e-4, rtol=0)
