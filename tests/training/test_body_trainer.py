"""Training of ProHMR: every loss, items without a body, and the loop around them."""

import dataclasses
import math

import pytest
import torch

from propose_prob.bodies import SkeletonBody
from propose_prob.geometry.camera import project
from propose_prob.geometry.rotations import geodesic_distance, matrix_from_axis_angle
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.models import ProHMR, ProHMRConfig
from propose_prob.models.evidence import camera_in_keypoints, weak_to_translation
from propose_prob.training import objectives
from propose_prob.training.body_trainer import ProHMRTrainer, prepare_bodies
from propose_prob.training.configs import BodyLossConfig, BodyTrainConfig
from propose_prob.training.loop import TrainingLoop, finish
from propose_prob.training.simulation import BodySimulator, SimulatorConfig, mirror_theta
from propose_prob.training.validation import BodyValidation
from tests.training.descent import falls, losses_of_small_steps

SMALL = ProHMRConfig(
    couplings=2, flow_width=16, flow_blocks=1, context=16, width=16, blocks=1, dropout=0.0
)


def recorded(count=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    theta = matrix_from_axis_angle(0.3 * torch.randn(count, 24, 3, generator=generator))
    # Upright, z up: the body's y axis goes to z.
    upright = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    theta[:, 0] = upright @ matrix_from_axis_angle(
        torch.tensor([0.0, 1, 0]) * 6 * torch.rand(count, 1, generator=generator)
    )
    return theta, 0.5 * torch.randn(count, 10, generator=generator)


def simulator(**options):
    return BodySimulator(*recorded(), SimulatorConfig(**options))


def trainer(loss=None, **options):
    torch.manual_seed(0)
    config = BodyTrainConfig(batch_size=8, model=SMALL, loss=loss or BodyLossConfig(), **options)
    return ProHMRTrainer(ProHMR(config.model), config, simulator(missing=0.3))


def test_simulated_bodies_project_to_their_keypoints():
    batch = simulator(noisy=0.0, missing=0.0)(50, torch.Generator().manual_seed(1))
    body = SkeletonBody()
    joints = body.regress(body(batch.theta, batch.shape, batch.translation))
    torch.testing.assert_close(project(joints, focal=1.0), batch.p2d, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(joints - joints[:, :1], batch.p3d, atol=1e-5, rtol=1e-4)
    assert (joints[..., 2] > 0.3).all()
    # The head is above the pelvis in an image whose y points down.
    head = H36M_17.index("Head")
    assert (batch.p2d[:, head, 1] < batch.p2d[:, 0, 1]).float().mean() > 0.9


def test_a_mirrored_body_has_mirrored_joints():
    theta, _ = recorded()
    body = SkeletonBody()
    joints = body.regress(body(theta))
    mirrored = body.regress(body(mirror_theta(theta)))
    flipped = joints[:, list(H36M_17.mirror)] * torch.tensor([-1.0, 1, 1])
    torch.testing.assert_close(mirrored, flipped, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mirror_theta(mirror_theta(theta)), theta)


@pytest.mark.parametrize("known", [False, True])
def test_prepared_bodies_are_seen_as_their_evidence_says(known):
    batch = simulator(noisy=0.0, missing=0.0)(20, torch.Generator().manual_seed(1))
    told = torch.full((20,), known)
    pairs = prepare_bodies(batch, told, torch.ones(20, dtype=torch.bool))
    body = SkeletonBody()
    joints = body.regress(body(pairs.theta, pairs.shape))
    relative = joints[:, 1:] - joints[:, :1]
    torch.testing.assert_close(relative, pairs.joints, atol=1e-5, rtol=1e-4)
    angle = geodesic_distance(pairs.theta[:, 0], batch.theta[:, 0])
    assert (angle > 1e-3).all() == known


def test_the_true_camera_explains_the_keypoints():
    batch = simulator(noisy=0.0, missing=0.0)(20, torch.Generator().manual_seed(1))
    known = torch.zeros(20, dtype=torch.bool)
    pairs = prepare_bodies(batch, known, ~known)
    z = batch.translation[:, 2:]
    center, scale = pairs.evidence.center, pairs.evidence.scale[:, None]
    weak = torch.cat([1 / (z * scale), (batch.translation[:, :2] / z - center) / scale], -1)
    place = weak_to_translation(camera_in_keypoints(weak, pairs.evidence))
    torch.testing.assert_close(place, batch.translation, atol=1e-4, rtol=1e-4)
    subject = trainer()
    joints = subject._joints(pairs.theta, pairs.shape)
    assert subject._keypoints(pairs, joints, place) < 1e-4


def test_every_loss_is_there_and_moves_the_model():
    subject = trainer(BodyLossConfig(adversarial=0.1))
    subject.prepare(2)
    before = {n: p.clone() for n, p in subject.model.named_parameters()}
    losses = [subject.step() for _ in range(3)]
    assert losses[0].keys() == set(subject.terms)
    assert all(math.isfinite(value) for value in losses[-1].values())
    still = [n for n, p in subject.model.named_parameters() if torch.equal(p, before[n])]
    assert not still


@pytest.mark.parametrize("term", [f.name for f in dataclasses.fields(BodyLossConfig)])
def test_a_loss_of_weight_zero_is_left_out(term):
    if term in ("samples", "noise"):
        pytest.skip("not the weight of a loss")
    subject = trainer(dataclasses.replace(BodyLossConfig(adversarial=0.1), **{term: 0.0}))
    assert term not in subject.step()


def test_items_without_a_body_teach_through_their_keypoints_alone():
    subject = trainer()
    batch = subject.simulator(8, torch.Generator().manual_seed(1))
    none = torch.zeros(8, dtype=torch.bool)
    pairs = prepare_bodies(batch, none, none)
    # What is not annotated may be anything.
    hollow = dataclasses.replace(
        pairs,
        theta=torch.full_like(pairs.theta, math.nan),
        shape=torch.full_like(pairs.shape, math.nan),
        joints=torch.full_like(pairs.joints, math.nan),
    )
    losses, _ = subject.losses(hollow)
    for name in ("nll", "mode3d", "rotation", "shape"):
        assert losses[name] == 0, name
    assert "energy" not in losses
    torch.stack(list(losses.values())).sum().backward()
    gradients = [p.grad for p in subject.model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any((gradient != 0).any() for gradient in gradients)


def test_a_mixed_batch_counts_only_annotated_items():
    has = torch.tensor([True, False, True])
    values = torch.tensor([[1.0, 3.0], [math.nan, 5.0], [2.0, 4.0]])
    assert objectives.masked_mean(values, has) == 2.5
    assert objectives.masked_mean(values[[0, 2]]) == 2.5


def test_the_losses_know_the_truth():
    theta, _ = recorded(5)
    sixd = theta[..., :2].mT.flatten(-2)
    assert objectives.orthogonality(sixd) < 1e-10
    assert objectives.orthogonality(2 * sixd) == pytest.approx(0.5 * 9, rel=1e-4)
    assert objectives.rotation_error(theta, theta) == 0
    p2d = torch.randn(5, 17, 2)
    visible = torch.rand(5, 17) < 0.7
    wrong = torch.where(visible[..., None], p2d, torch.full_like(p2d, 99.0))
    assert objectives.keypoints2d(p2d, wrong, visible) == 0
    assert objectives.keypoints2d(p2d, p2d + 0.5, visible) == pytest.approx(1.0, rel=1e-5)
    real, fake = torch.ones(4, 3), torch.zeros(4, 3)
    assert objectives.lsgan_discriminator_loss(real, fake) == 0
    assert objectives.lsgan_generator_loss(real) == 0
    assert objectives.lsgan_generator_loss(fake) == 3


def test_small_steps_lower_the_loss_of_their_batch():
    subject = trainer(BodyLossConfig(adversarial=0.0))
    subject.prepare(2)
    assert falls(losses_of_small_steps(subject, subject.step))


def test_a_run_resumes_and_finishes(tmp_path):
    def make():
        config = BodyTrainConfig(
            steps=12, batch_size=16, validate=6, average=0.9, rate=3e-3, model=SMALL,
            only_2d=0.3,
        )  # fmt: skip
        torch.manual_seed(0)
        source = simulator(missing=0.2)
        held_out = BodyValidation.from_simulator(source, items=40)
        return TrainingLoop(
            ProHMRTrainer(ProHMR(SMALL), config, source), held_out, tmp_path / "run"
        )

    run = make()
    while run.step < 8:
        run._round()
    run.checkpoint()
    expected = [run._round() and run.losses["mode3d"] for _ in range(3)][-1]
    again = make()
    again.resume()
    assert [again._round() and again.losses["mode3d"] for _ in range(3)][-1] == expected
    assert again.train() == again.validation.scores(again.model)
    model = again.model
    fitted = finish(model, again.validation)
    assert model.flow.base.temperature == pytest.approx(fitted["temperature"])
