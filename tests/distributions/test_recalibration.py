import copy
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from propose_prob.distributions import RecalibratedDistribution
from propose_prob.distributions.recalibration import Recalibration, joint_groups, point_estimate_of
from propose_prob.geometry.camera import project
from propose_prob.geometry.skeletons import COCO_17, H36M_17
from tests.zoo import (
    decoded_case,
    lifting_case,
    randn,
    small_baseline,
    small_lifting,
    small_propose,
)

T = torch.tensor([1.0, 0.5, 2.0, 1.3], dtype=torch.float64)


def gaussian(*batch, scale=1.0):
    return dist.Normal(randn(*batch, 4, 3), scale).to_event(2)


def test_a_gaussian_becomes_a_gaussian_of_other_spread():
    base = gaussian(2)
    distribution = RecalibratedDistribution(base, T)
    expected = dist.Normal(base.mean, T[:, None].expand(4, 3)).to_event(2)
    x = randn(5, 2, 4, 3, seed=1)
    torch.testing.assert_close(distribution.log_prob(x), expected.log_prob(x))
    torch.testing.assert_close(distribution.mode, base.mode)
    spread = distribution.sample((20_000,)).std(0)
    torch.testing.assert_close(spread, expected.stddev, rtol=0.04, atol=0)
    assert distribution.log_prob_kind == "exact"


def test_a_temperature_for_each_context_widens_the_batch():
    base = gaussian()
    factor = torch.stack([T, 2 * T])
    distribution = RecalibratedDistribution(base, factor)
    assert distribution.batch_shape == (2,) and distribution.sample((3,)).shape == (3, 2, 4, 3)
    x = randn(4, 3)
    each = torch.stack([RecalibratedDistribution(base, row).log_prob(x) for row in factor])
    torch.testing.assert_close(distribution.log_prob(x), each)


def rays(*batch, seed=7):
    return torch.nn.functional.normalize(randn(*batch, 4, 3, seed=seed), dim=-1)


D = torch.tensor([0.7, 1.5, 1.0, 0.4], dtype=torch.float64)


def test_a_gaussian_is_scaled_along_the_line_of_sight_and_across_it():
    base, ray = gaussian(2), rays(2)
    distribution = RecalibratedDistribution(base, T, depth=D, ray=ray)
    outer = ray[..., :, None] * ray[..., None, :]
    matrix = T[:, None, None] * torch.eye(3).double() + (D - T)[:, None, None] * outer
    expected = dist.MultivariateNormal(base.mean, matrix @ matrix.mT).to_event(1)
    x = randn(5, 2, 4, 3, seed=1)
    torch.testing.assert_close(distribution.log_prob(x), expected.log_prob(x))
    torch.testing.assert_close(distribution.without(distribution.moved(x)), x)
    gap = distribution.sample((20_000,)) - base.mean
    for direction, factor in ((ray, D), (torch.linalg.cross(ray, rays(2, seed=9)), T)):
        along = (gap * torch.nn.functional.normalize(direction, dim=-1)).sum(-1)
        torch.testing.assert_close(along.std(0), factor.expand(2, 4), rtol=0.04, atol=0)
    torch.testing.assert_close(
        distribution.stretch, (matrix @ matrix.mT).diagonal(dim1=-2, dim2=-1).sqrt()
    )
    wide = distribution.expand((3, 2))
    torch.testing.assert_close(wide.log_prob(x[:3]), distribution.log_prob(x[:3]))
    assert wide.sample((5,)).shape == (5, 3, 2, 4, 3)


def test_one_factor_needs_no_line_of_sight():
    base = gaussian(2)
    x = randn(2, 4, 3, seed=1)
    with_ray = RecalibratedDistribution(base, T, ray=rays(2))
    torch.testing.assert_close(with_ray.log_prob(x), RecalibratedDistribution(base, T).log_prob(x))


@pytest.mark.parametrize("rotated", [False, True])
def test_everything_a_decoded_distribution_gives_moves_together(rotated):
    base = decoded_case(rotated=rotated).frozen_distribution(3)
    distribution = RecalibratedDistribution(base, T)
    for name in ("sample", "hypotheses"):
        torch.manual_seed(0)
        before = getattr(base, name)((6,))
        torch.manual_seed(0)
        after = getattr(distribution, name)((6,))
        gap = (before - base.point_estimate) * T[:, None]
        torch.testing.assert_close(after, base.point_estimate + gap)
        torch.testing.assert_close(distribution.without(after), before)
        assert (after[..., 0, :] == 0).all()
    torch.testing.assert_close(distribution.point_estimate, base.point_estimate)
    assert (
        distribution.latent is distribution.base_distribution.latent
        and distribution.log_prob_kind == "bound"
    )
    x = distribution.sample()
    expected = base.log_prob(distribution.without(x)) - 3 * T[1:].log().sum()
    torch.testing.assert_close(distribution.log_prob(x), expected)
    found = distribution.estimate_log_prob(x, num_particles=128, noise_seed=3)
    assert found.num_particles == 128 and (found.effective_sample_size > 1).all()
    with pytest.raises(NotImplementedError, match="point_estimate"):
        _ = distribution.mode


def test_the_root_has_no_temperature():
    base = lifting_case().frozen_distribution(2)
    x = base.sample()
    factor = torch.tensor([7.0, 1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(RecalibratedDistribution(base, factor).log_prob(x), base.log_prob(x))


@pytest.mark.parametrize("depth", [None, D])
def test_the_log_determinant_is_autograds(depth):
    distribution = RecalibratedDistribution(gaussian(), T, depth=depth, ray=rays())
    x = randn(4, 3)
    jacobian = torch.autograd.functional.jacobian(distribution.without, x).reshape(12, 12)
    change = distribution.log_prob(x) - distribution.base_distribution.log_prob(
        distribution.without(x)
    )
    torch.testing.assert_close(change, torch.linalg.slogdet(jacobian).logabsdet)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RecalibratedDistribution(dist.Normal(torch.zeros(3), 1).to_event(1), T), "poses"),
        (lambda: RecalibratedDistribution(gaussian(), T[:3]), r"shape \(..., 4\), got \(3,\)"),
        (lambda: RecalibratedDistribution(gaussian(), -T), "temperature"),
        (lambda: RecalibratedDistribution(gaussian(), T, depth=D[:2]), r"depth of shape"),
        (lambda: RecalibratedDistribution(gaussian(), T, depth=-D), "depth"),
        (lambda: RecalibratedDistribution(gaussian(), T, ray=rays()[:2]), r"ray of shape"),
        (lambda: Recalibration([(0, 1), (2,)], parents=(-1, 0)), "3 parents"),
        (lambda: Recalibration([(0, 1)]).learn_builds(randn(3, 2, 3)), "parents"),
        (lambda: Recalibration([(0, 1), (1, 2)]), "in one group"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- the module ---------------------------------------------------------------------------------


class Model(nn.Module):
    """A model with a place for its recalibration, as the library's have it."""

    def __init__(self):
        super().__init__()
        self.inner = small_propose()
        self.calibration = Recalibration([(0,), (1, 2), (3,)], parents=(-1, 0, 0, 1))

    def conditional(
        self, p2d, confidence=None, *, focal=None, center=(0.0, 0.0), recalibrated=True
    ):
        distribution = self.inner.conditional(p2d, confidence, focal=focal, center=center)
        if not recalibrated:
            return distribution
        return self.calibration(distribution, p2d, confidence, focal=focal, center=center)


@pytest.fixture
def model():
    model = Model().double().eval().requires_grad_(False)
    model.calibration.log_temperature.copy_(torch.tensor([[0.0, 0.3, -0.2], [0.1, -0.1, 0.2]]))
    model.calibration.slopes[:, :5] = torch.tensor(
        [[0.1, 0.4, 0.0, 0.05, 0.02], [0.2, 0.3, 0.0, 0.04, 0.01]]
    )
    model.calibration.log_noise.fill_(-0.5)
    return model


def test_groups_join_both_sides():
    for skeleton in (H36M_17, COCO_17):
        groups = joint_groups(skeleton)
        assert sorted(j for group in groups for j in group) == list(range(17))
        assert all({skeleton.mirror[j] for j in group} == set(group) for group in groups)


def test_unfitted_or_left_out_is_the_distribution_itself(model):
    p2d = randn(3, 4, 2)
    distribution = model.conditional(p2d)
    assert isinstance(distribution, RecalibratedDistribution)
    torch.testing.assert_close(
        distribution.base_distribution.scale, model.inner.noise_scale * torch.tensor(-0.5).exp()
    )
    plain = model.conditional(p2d, recalibrated=False)
    assert not isinstance(plain, RecalibratedDistribution)
    fresh = Model().double().eval()
    assert not fresh.calibration.fitted
    assert not isinstance(fresh.conditional(p2d), RecalibratedDistribution)
    # The model's own noise stays what it was.
    assert torch.equal(plain.scale, model.inner.noise_scale)


@pytest.mark.parametrize("build", [small_propose, small_lifting, partial(small_baseline, "cvae")])
def test_every_model_leaves_its_recalibration_out_where_it_is_asked_to(build):
    model = build().requires_grad_(False)
    p2d = randn(3, model.config.joints, 2)
    plain = model.conditional(p2d)
    model.calibration.log_temperature.fill_(0.3)
    assert isinstance(model.conditional(p2d), RecalibratedDistribution)
    asked = model.conditional(p2d, recalibrated=False)
    assert type(asked) is type(plain)
    torch.testing.assert_close(asked.point_estimate, plain.point_estimate)


def test_hidden_joints_and_known_intrinsics_have_their_temperature(model):
    model.calibration.slopes[:, 3:] = 0
    p2d = randn(2, 4, 2) + torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    confidence = torch.ones(2, 4, dtype=torch.float64)
    confidence[1, 3] = 0
    distribution = model.conditional(p2d, confidence)
    plain = distribution.temperature
    assert (distribution.ray == torch.tensor([0.0, 0.0, 1.0])).all()
    deep = torch.tensor([[0.1, -0.1, -0.1, 0.2], [0.1, -0.1, -0.1, 0.5]]).double()
    torch.testing.assert_close(distribution.depth.log(), deep)
    base = torch.tensor([0.0, 0.3, 0.3, -0.2]).double()
    torch.testing.assert_close(plain[0].log(), base)
    torch.testing.assert_close(plain[1].log(), base + torch.tensor([0, 0, 0, 0.4]).double())
    known = model.conditional(p2d, confidence, focal=2.0).temperature
    torch.testing.assert_close(known.log(), plain.log() + 0.1)


@pytest.mark.parametrize("focal", [None, 900.0])
def test_the_residual_guesses_the_detectors_noise(focal):
    """For a distribution whose point estimate is true it is the noise over the person's size."""
    pose = 0.3 * randn(50, 17, 3)
    pose[:, 0] = 0
    distribution = dist.Normal(pose, 0.01).to_event(2)
    calibration = Recalibration(joint_groups(H36M_17)).double()
    # Far away, where weak perspective is exact as well.
    exact = project(pose + torch.tensor([0.5, 0.3, 400.0]), focal=900.0, center=500.0)
    size = (exact - exact.mean(1, keepdim=True)).square().sum(-1).mean(-1).sqrt()
    found = []
    for share in (0.0, 0.01, 0.1):
        noise = share * size[:, None, None] * randn(50, 17, 2, seed=5)
        features, ray = calibration.read(
            point_estimate_of(distribution), exact + noise, focal=focal, center=(500.0, 500.0)
        )
        if share == 0 and focal is not None:
            true = torch.nn.functional.normalize(pose + torch.tensor([0.5, 0.3, 400.0]), dim=-1)
            torch.testing.assert_close(ray, true.expand_as(ray), atol=1e-4, rtol=0)
        assert features.shape == (50, 17, len(Recalibration.FEATURES))
        found.append((features[:, 0, 3] - 3.5).exp().mean())
        assert torch.equal(features[..., 4], features[..., 3] * (focal is not None))
    assert found[0] < 2e-3
    # A two-dimensional Gaussian's mean length is 1.25 times its spread.
    assert found[1] == pytest.approx(0.0125, rel=0.2) and found[2] == pytest.approx(0.125, rel=0.2)


def test_features_do_not_depend_on_the_2d_unit_or_on_hidden_joints(model):
    p2d, confidence = randn(3, 4, 2, seed=2), torch.ones(3, 4).double()
    confidence[0, 1] = 0
    distribution = model.inner.conditional(p2d, confidence)
    feats = model.calibration.read(point_estimate_of(distribution), p2d, confidence)
    spoiled = p2d.clone()
    spoiled[0, 1] = torch.nan
    torch.testing.assert_close(
        model.calibration.read(point_estimate_of(distribution), 7 * spoiled + 3, confidence), feats
    )
    known = model.calibration.read(
        point_estimate_of(distribution), p2d, confidence, focal=1.5, center=(0.1, 0.2)
    )
    scaled = model.calibration.read(
        point_estimate_of(distribution), 100 * spoiled, confidence, focal=150.0, center=(10, 20)
    )
    torch.testing.assert_close(scaled, known)
    assert all(part.isfinite().all() for part in (*feats, *known))
    torch.testing.assert_close(known.ray.norm(dim=-1), torch.ones(3, 4).double())


@pytest.mark.parametrize("focal", [None, 900.0])
def test_a_person_in_one_place_has_finite_temperatures(focal):
    distribution = dist.Normal(randn(2, 17, 3), 0.01).to_event(2)
    calibration = Recalibration(joint_groups(H36M_17)).double()
    p2d = torch.full((2, 17, 2), 300.0).double()
    assert all(
        part.isfinite().all()
        for part in calibration.read(point_estimate_of(distribution), p2d, focal=focal)
    )


def skeletons(factor):
    """Poses of builds whose bones are `factor` (..., 17) times one build's."""
    offsets = 0.3 * torch.nn.functional.normalize(randn(17, 3, seed=4), dim=-1) * factor[..., None]
    joints = [torch.zeros_like(offsets[..., 0, :])]
    for joint in range(1, 17):
        joints.append(joints[H36M_17.parents[joint]] + offsets[..., joint, :])
    return torch.stack(joints, -2)


def test_strange_builds_are_told_from_familiar_ones():
    calibration = Recalibration(joint_groups(H36M_17), parents=H36M_17.parents).double()
    poses = torch.cat([skeletons(torch.full((5, 17), f).double()) for f in (1.0, 1.1)])
    assert (calibration.strangeness(poses) == 0).all()
    calibration.learn_builds(poses)
    logs = calibration.builds[:, 1:].exp()
    torch.testing.assert_close(logs, torch.tensor([[0.3], [0.33]]).double().expand(2, 16))
    assert (calibration.strangeness(poses) < -3).all()
    # All bones 5 % longer than the larger build: the root has none.
    strange = calibration.strangeness(skeletons(torch.full((17,), 1.155).double()))
    expected = 0.5 * torch.tensor(16 / 17).log() + torch.tensor(1.05).log().log() + 3
    torch.testing.assert_close(strange, expected.double(), atol=1e-4, rtol=0)
    calibration.learn_builds(poses[:5])
    assert len(calibration.builds) == 1
    # Stored with the rest, however many there are.
    other = Recalibration(joint_groups(H36M_17), parents=H36M_17.parents).double()
    other.load_state_dict(calibration.state_dict())
    assert torch.equal(other.builds, calibration.builds)
    other.reset()
    assert len(other.builds) == 0


def test_files_with_one_factor_for_all_directions_load_as_what_they_were(model):
    old = {k: v for k, v in model.state_dict().items() if k != "calibration.builds"}
    old["calibration.log_temperature"] = torch.tensor([0.0, 0.3, -0.2]).double()
    old["calibration.slopes"] = torch.tensor([0.1, 0.4, 0.0, 0.05, 0.02]).double()
    model.load_state_dict(old)
    distribution = model.conditional(randn(2, 4, 2), focal=1.0)
    torch.testing.assert_close(distribution.depth, distribution.temperature)
    assert not torch.equal(distribution.depth, torch.ones_like(distribution.depth))


def test_stored_with_the_weights_and_absent_from_old_files(model):
    p2d = randn(3, 4, 2)
    other = Model().double().eval()
    other.load_state_dict(model.state_dict())
    x = model.conditional(p2d).point_estimate
    assert torch.equal(other.conditional(p2d).log_prob(x), model.conditional(p2d).log_prob(x))
    copied = copy.deepcopy(model)
    for name in ("temperature", "depth"):
        ours, theirs = (getattr(m.conditional(p2d), name) for m in (model, copied))
        assert torch.equal(ours, theirs)
    old = {key: v for key, v in model.state_dict().items() if "calibration" not in key}
    other.load_state_dict(old)
    assert not other.calibration.fitted
    torn = {key: v for key, v in model.state_dict().items() if "slopes" not in key}
    with pytest.raises(RuntimeError, match="slopes"):
        other.load_state_dict(torn)


def test_temperatures_stay_within_bounds(model):
    model.calibration.log_temperature.fill_(9.0)
    assert model.conditional(randn(4, 2)).temperature.max() == pytest.approx(3)
