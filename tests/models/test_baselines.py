"""The face that all baselines share; distributions and parameters are the zoo's."""

import pytest
import torch

from propose_prob.errors import InputError
from propose_prob.models import ConditionalVAE, MixtureDensity, RegressionBaseline, ScoreDiffusion
from propose_prob.models.baselines import DiffusionConfig, MixtureConfig
from propose_prob.models.evidence import Evidence, keypoint_evidence
from propose_prob.weights import load, save
from tests.zoo import BASELINES, SHAPES, randn, small_baseline

every_baseline = pytest.mark.parametrize("name", BASELINES)

KINDS = {"regression": "exact", "mixture": "exact", "cvae": "bound", "diffusion": "none"}


@every_baseline
@pytest.mark.parametrize("batch", SHAPES, ids=str)
def test_it_answers_with_a_distribution_over_poses(name, batch):
    model = small_baseline(name)
    distribution = model.conditional(randn(*batch, 3, 2))
    assert distribution.batch_shape == batch and distribution.event_shape == (3, 3)
    assert distribution.log_prob_kind == KINDS[name]
    for x in (distribution.sample((7,)), distribution.hypotheses((7,))):
        assert x.shape == (7, *batch, 3, 3) and (x[..., 0, :] == 0).all()
    assert distribution.point_estimate.shape == (*batch, 3, 3)
    assert torch.equal(model(randn(*batch, 3, 2)).point_estimate, distribution.point_estimate)


@every_baseline
def test_missing_joints_by_nan_and_by_confidence_are_the_same(name):
    model = small_baseline(name)
    p2d, confidence = randn(4, 3, 2), torch.ones(4, 3).double()
    confidence[:, 2] = 0
    nan = p2d.clone()
    nan[:, 2] = torch.nan
    hidden = model.conditional(p2d, confidence).point_estimate
    assert torch.equal(model.conditional(nan).point_estimate, hidden)
    assert not torch.allclose(hidden, model.conditional(p2d).point_estimate, atol=1e-4)


@every_baseline
def test_the_rotation_turns_the_networks_pose_into_camera_axes(name):
    model = small_baseline(name)
    evidence = keypoint_evidence(randn(4, 3, 2), joints=3, focal=2.0)
    distribution, plain = (
        model.distribution(evidence),
        model.distribution(Evidence(evidence.features, None)),
    )
    turn = evidence.rotation
    torch.testing.assert_close(distribution.point_estimate, plain.point_estimate @ turn)
    torch.manual_seed(0)
    x = distribution.sample((5,))
    torch.manual_seed(0)
    torch.testing.assert_close(x, plain.sample((5,)) @ turn)
    if distribution.log_prob_kind == "exact":
        torch.testing.assert_close(distribution.log_prob(x), plain.log_prob(x @ turn.mT))


@every_baseline
def test_units_are_those_of_the_poses_it_was_fitted_to(name):
    model = small_baseline(name)
    joints = 0.1 + torch.tensor([0.2, 0.5, 1.0]).double() * randn(500, 2, 3)
    model.fit_standardizer(joints)
    unit = model.standardiser()
    z = unit.inv(joints.flatten(-2))
    torch.testing.assert_close(z.mean(0), torch.zeros(6).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(6).double(), atol=1e-6, rtol=0)


@every_baseline
def test_weights_round_trip(name, tmp_path):
    model = small_baseline(name).float()
    save(model, tmp_path / "m.safetensors")
    other = load(tmp_path / "m.safetensors")
    assert type(other) is type(model) and other.config == model.config
    p2d = torch.randn(4, 3, 2)
    assert torch.equal(other.conditional(p2d).point_estimate, model.conditional(p2d).point_estimate)


@every_baseline
def test_wrong_keypoints(name):
    with pytest.raises(InputError, match=r"\(\.\.\., 3, 2\), got \(4, 2\)"):
        small_baseline(name).conditional(torch.zeros(4, 2))


def test_default_sizes_are_comparable():
    kinds = (RegressionBaseline, MixtureDensity, ConditionalVAE, ScoreDiffusion)
    for model in (kind().eval() for kind in kinds):
        assert model.config.width == 640 and model.config.blocks == 2
        assert model.conditional(torch.randn(2, 17, 2)).sample().shape == (2, 17, 3)
        assert 1e6 < sum(p.numel() for p in model.parameters()) < 5e6


def test_only_the_regression_has_one_spread_for_all():
    p2d = randn(2, 3, 2)
    distribution = small_baseline("regression").conditional(p2d)
    torch.testing.assert_close(distribution.entropy()[0], distribution.entropy()[1])
    scale = small_baseline("mixture").conditional(p2d).kernels.component_distribution.stddev
    assert not torch.allclose(scale[0], scale[1], rtol=1e-3, atol=0)


def test_wrong_configurations():
    with pytest.raises(ValueError, match="at least one kernel"):
        MixtureDensity(MixtureConfig(kernels=0))
    with pytest.raises(ValueError, match="at least 2 steps"):
        ScoreDiffusion(DiffusionConfig(steps=1))


def test_a_batch_is_denoised_as_its_items_are():
    model = small_baseline("diffusion")
    features, x = randn(5, 11), randn(4, 5, 6, seed=1)
    level = randn(4, 5, 1, seed=2).exp()
    together = model.bind_denoiser(features)(x, level)
    for i in range(4):
        for j in range(5):
            one = model.bind_denoiser(features[j])(x[i, j], level[i, j, 0])
            torch.testing.assert_close(one, together[i, j])
