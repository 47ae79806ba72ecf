import copy
import pickle

import pytest
import torch
from torch.distributions import Independent

from propose_prob.conditional import StandardBase
from propose_prob.conditional.gaussian import VariationalPILGD
from propose_prob.distributions import DecodedPoseDistribution, FlowDistribution
from propose_prob.errors import InputError
from propose_prob.models import ConditionalVAE, LiftingFlow, ProHMR, ProPose, ProPoseConfig
from propose_prob.models.base import KeypointModel
from propose_prob.models.discriminators import PoseDiscriminator
from propose_prob.models.evidence import Evidence, keypoint_evidence
from tests.zoo import MODELS, PROPOSE_VARIANTS, SHAPES, randn, small_propose

every_model = pytest.mark.parametrize("name", MODELS)
every_propose = pytest.mark.parametrize("name", PROPOSE_VARIANTS)

JOINTS = 4


def answer(model):
    """Something of every part of a model, as one vector."""
    if isinstance(model, PoseDiscriminator):
        energy, code = model(randn(5, 9), randn(5, 14, seed=1))
        return torch.cat([energy, code.flatten()])
    if isinstance(model, ProHMR):
        custom = model.config.encoder == "custom"
        x = randn(5, 7) if custom else keypoint_evidence(randn(5, 3, 2), joints=3).features
        distribution = model.given(x)
        heads = model.shape_and_camera(model.encoder(x))
        density = distribution.log_prob(randn(5, 2, 6, seed=2))
        return torch.cat([part.flatten() for part in (distribution.center, density, *heads)])
    if isinstance(model, LiftingFlow):
        distribution = model.conditional(randn(5, 3, 2))
        return torch.cat(
            [distribution.center.flatten(), distribution.log_prob(randn(5, 3, 3, seed=2))]
        )
    if isinstance(model, KeypointModel):
        return baseline_answer(model)
    features = keypoint_evidence(randn(5, JOINTS, 2), joints=JOINTS).features
    distribution = model.conditional(randn(5, JOINTS, 2))
    pilgd = model.embed(randn(5, JOINTS - 1, 3, seed=1), features)
    decoded2d = model.decoder2d(model.encoder2d(features))
    density = distribution.latent.log_prob(randn(5, 3, seed=2))
    parts = (
        distribution.point_estimate,
        density,
        pilgd.mean,
        pilgd.stddev,
        decoded2d,
        distribution.scale,
    )
    return torch.cat([part.flatten() for part in parts])


def baseline_answer(model):
    distribution = model.conditional(randn(5, 3, 2))
    parts = [distribution.point_estimate]
    if distribution.log_prob_kind == "none":
        with torch.random.fork_rng():
            torch.manual_seed(0)
            parts.append(distribution.rsample((2,)))
    else:
        parts.append(distribution.log_prob(randn(5, 3, 3, seed=2)))
    if isinstance(model, ConditionalVAE):
        features = keypoint_evidence(randn(5, 3, 2), joints=3).features
        recognized = model.embed(randn(5, 2, 3, seed=1), features)
        parts += [recognized.mean, recognized.stddev]
    return torch.cat([part.flatten() for part in parts])


@every_model
def test_every_parameter_matters(name):
    model = MODELS[name]()
    total = (answer(model) * randn(len(answer(model)), seed=2)).sum()
    total.backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and (parameter.grad != 0).any(), key


@every_model
def test_state_dict_round_trip(name):
    model = MODELS[name]()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for value in [*other.parameters(), *other.buffers()]:
            value.copy_(torch.zeros_like(value))
    other.load_state_dict(model.state_dict())
    assert torch.equal(answer(other), answer(model))


@every_model
def test_deepcopy_and_pickle(name):
    model = MODELS[name]()
    expected = answer(model).detach()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(answer(other), expected)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1)
        assert torch.equal(answer(model), expected)


@every_model
def test_train_and_eval_agree_without_dropout(name):
    model = MODELS[name]()
    assert torch.equal(answer(model.train()), answer(model.eval()))


@every_model
def test_float32(name):
    model = MODELS[name]()
    expected = answer(model).detach()
    assert expected.dtype == torch.float64
    model.float()
    if isinstance(model, PoseDiscriminator):
        energy, code = model(randn(5, 9).float(), randn(5, 14, seed=1).float())
        value = torch.cat([energy, code.flatten()])
    else:
        config = model.config
        if getattr(config, "encoder", None) == "custom":
            distribution = model.given(randn(5, 7).float())
        else:
            joints = config.keypoints if isinstance(model, ProHMR) else config.joints
            distribution = model.conditional(randn(5, joints, 2).float())
        value = distribution.point_estimate.flatten()
        expected = expected[: len(value)]
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), expected, rtol=1e-4, atol=1e-4)


def test_dropout_acts_in_training_only():
    model = small_propose(dropout=0.5)
    assert torch.equal(answer(model), answer(model))
    assert not torch.equal(answer(model.train()), answer(model))


# --- the distribution
# ------------------------------------------------------------------------------------


@every_propose
@pytest.mark.parametrize("batch", SHAPES, ids=str)
def test_shapes(name, batch):
    distribution = MODELS[name]().conditional(randn(*batch, JOINTS, 2))
    assert isinstance(distribution, DecodedPoseDistribution)
    assert isinstance(distribution.latent, FlowDistribution)
    assert distribution.batch_shape == batch and distribution.event_shape == (JOINTS, 3)
    assert distribution.hypotheses((7,)).shape == (7, *batch, JOINTS, 3)
    assert distribution.point_estimate.shape == (*batch, JOINTS, 3)
    assert distribution.log_prob(distribution.sample((2,))).shape == (2, *batch)
    assert (distribution.sample((2,))[..., 0, :] == 0).all()


@every_propose
def test_batched_equals_looped(name):
    model = MODELS[name]()
    p2d = randn(2, 3, JOINTS, 2)
    confidence = torch.ones(2, 3, JOINTS).double()
    confidence[0, 1, 2] = 0
    distribution = model.conditional(p2d, confidence)
    x = distribution.sample()
    for i in range(2):
        for j in range(3):
            one = model.conditional(p2d[i, j], confidence[i, j])
            torch.testing.assert_close(one.point_estimate, distribution.point_estimate[i, j])
            if i == 0 and j < 2:
                torch.testing.assert_close(one.log_prob(x[i, j]), distribution.log_prob(x)[i, j])


def test_a_call_is_conditional():
    model = small_propose()
    p2d = randn(3, JOINTS, 2)
    torch.testing.assert_close(
        model(p2d).point_estimate, model.conditional(p2d).point_estimate, rtol=0, atol=0
    )


def test_missing_joints_by_nan_and_by_confidence_are_the_same():
    model = small_propose()
    p2d = randn(3, JOINTS, 2)
    confidence = torch.ones(3, JOINTS).double()
    confidence[:, 2] = 0
    nan = p2d.clone()
    nan[:, 2] = torch.nan
    junk = p2d.clone()
    junk[:, 2] = 1e6
    answers = [
        model.conditional(nan).point_estimate,
        model.conditional(p2d, confidence).point_estimate,
        model.conditional(nan, confidence).point_estimate,
        model.conditional(junk, confidence).point_estimate,
    ]
    assert all(torch.equal(answers[0], other) for other in answers)
    assert answers[0].isfinite().all()
    assert not torch.allclose(answers[0], model.conditional(p2d).point_estimate, atol=1e-4)


def test_without_a_focal_length_place_and_size_do_not_matter():
    model = small_propose()
    p2d = randn(3, JOINTS, 2)
    moved = 37.0 * p2d + torch.tensor([100.0, -50.0])
    torch.testing.assert_close(
        model.conditional(moved).point_estimate, model.conditional(p2d).point_estimate
    )


def test_with_a_focal_length_units_do_not_matter_but_the_place_does():
    model = small_propose()
    p2d = 100 * randn(3, JOINTS, 2) + 300
    center = torch.tensor([320.0, 240.0]).double()
    distribution = model.conditional(p2d, focal=500.0, center=center)
    same = model.conditional(p2d / 500, focal=1.0, center=center / 500)
    torch.testing.assert_close(distribution.point_estimate, same.point_estimate)
    each = model.conditional(p2d, focal=torch.tensor([500.0] * 3), center=center.expand(3, 2))
    torch.testing.assert_close(distribution.point_estimate, each.point_estimate)
    elsewhere = model.conditional(p2d + 400, focal=500.0, center=center)
    assert not torch.allclose(distribution.point_estimate, elsewhere.point_estimate, atol=1e-3)


def test_the_rotation_turns_the_networks_pose_into_camera_axes():
    model = small_propose()
    evidence = keypoint_evidence(randn(3, JOINTS, 2), joints=JOINTS, focal=2.0)
    distribution = model.distribution(evidence)
    plain = model.distribution(Evidence(evidence.features, None))
    expected = plain.point_estimate @ evidence.rotation
    torch.testing.assert_close(distribution.point_estimate, expected)


def test_hypotheses_of_a_seed_are_reproducible():
    model = small_propose()
    distribution = model.conditional(randn(2, JOINTS, 2))
    torch.manual_seed(0)
    first = distribution.hypotheses((5,))
    torch.manual_seed(0)
    assert torch.equal(first, distribution.hypotheses((5,)))


# --- its parts ----------------------------------------------------------------------------------


def test_standardize_and_the_decoder_use_the_buffers():
    model = small_propose()
    joints = randn(5, JOINTS - 1, 3)
    expected = (joints.flatten(-2) - model.pose_mean) / model.pose_std
    torch.testing.assert_close(model.standardize(joints), expected)
    features = randn(5, 14)
    decode = model.bind_decoder(features)
    w = randn(7, 5, 3, seed=1)
    before = decode(w)
    assert before.shape == (7, 5, JOINTS - 1, 3)
    model.pose_mean += 1
    torch.testing.assert_close(model.bind_decoder(features)(w), before + 1)


def test_the_context_runs_once_for_all_hypotheses():
    model = small_propose()
    calls = []
    model.decoder.trunk.register_forward_hook(lambda _m, args, _o: calls.append(args[0].shape))
    model.encoder2d.register_forward_hook(lambda _m, args, _o: calls.append(args[0].shape))
    distribution = model.conditional(randn(3, JOINTS, 2))
    distribution.hypotheses((50,))
    distribution.sample((50,))
    assert calls == [torch.Size([3, 14])] * 2


def test_embed_is_the_pilgd():
    model = small_propose()
    distribution = model.embed(randn(5, JOINTS - 1, 3), randn(5, 14, seed=1))
    assert isinstance(distribution, Independent) and distribution.event_shape == (3,)
    assert (distribution.stddev == model.config.pilgd_scale).all()
    assert distribution.mean.abs().max() < model.config.pilgd_clamp
    # Several poses for one evidence.
    many = model.embed(randn(7, 5, JOINTS - 1, 3), randn(5, 14, seed=1))
    assert many.batch_shape == (7, 5)


def test_variants_have_their_parts():
    assert isinstance(small_propose(pilgd="vae").pilgd, VariationalPILGD)
    assert isinstance(small_propose(base="standard").flow.base, StandardBase)
    assert small_propose(coupling="additive").conditional(randn(JOINTS, 2)).latent.constant_ladj
    assert not small_propose().conditional(randn(JOINTS, 2)).latent.constant_ladj


def test_the_default_model_has_the_papers_joints_and_is_small():
    model = ProPose()
    assert model.config == ProPoseConfig()
    distribution = model.conditional(torch.randn(2, 17, 2))
    assert distribution.event_shape == (17, 3)
    assert sum(p.numel() for p in model.parameters()) < 10e6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda m: m.conditional(torch.zeros(5, 2)),
            r"expected keypoints of shape \(\.\.\., 4, 2\), got \(5, 2\)",
        ),
        (lambda m: m.conditional(torch.zeros(4, 3)), r"got \(4, 3\)"),
        (lambda m: m.conditional(torch.zeros(2)), r"got \(2,\)"),
        (
            lambda m: m.conditional(torch.full((3, 4, 2), torch.nan)),
            "batch index 0 has 0 visible joints of 4; at least 2 are needed",
        ),
        (
            lambda m: m.conditional(randn(3, 4, 2), torch.ones(3, 5)),
            r"expected confidence of shape \(3, 4\), got \(3, 5\)",
        ),
        (
            lambda m: m.conditional(randn(3, 4, 2), torch.full((3, 4), torch.nan)),
            "got NaN for joint 0 at batch index 0",
        ),
        (lambda m: m.conditional(randn(3, 4, 2), focal=0.0), "expected a focal length > 0"),
        (lambda m: m.conditional(torch.zeros(3, 4, 2)), "has no size"),
    ],
)
def test_bad_keypoints(make, message):
    with pytest.raises(InputError, match=message):
        make(small_propose())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pilgd": "gan"}, "expected pilgd 'gaussian' or 'vae', got 'gan'"),
        ({"base": "cauchy"}, "expected base 'pagd' or 'standard', got 'cauchy'"),
        ({"coupling": "cubic"}, "got 'cubic'"),
        ({"latent": 1}, "expected features >= 2"),
    ],
)
def test_bad_configurations(options, message):
    with pytest.raises(ValueError, match=message):
        ProPose(ProPoseConfig(**options))


# --- the discriminator --------------------------------------------------------------------------


def test_the_energy_is_the_reconstruction_error_of_an_autoencoder():
    model = MODELS["discriminator"]()
    pose, features = randn(5, 9), randn(5, 14, seed=1)
    energy, code = model(pose, features)
    assert energy.shape == (5,) and code.shape == (5, 4)
    assert (energy >= 0).all()
    decoded = model.decoder(torch.cat([code, features], -1))
    torch.testing.assert_close(energy, ((decoded - pose) ** 2).mean(-1))
