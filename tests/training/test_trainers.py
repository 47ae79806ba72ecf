"""Algorithm 1: each phase moves its own parameters and no others."""

import dataclasses
import itertools

import pytest
import torch

from propose_prob.models import ProPose, ProPoseConfig
from propose_prob.training.configs import LossConfig, TrainConfig
from propose_prob.training.simulation import Simulator
from propose_prob.training.trainers import ProPoseTrainer, prepare
from tests.training.descent import falls, losses_of_small_steps

SMALL = {
    "latent": 6, "couplings": 2, "flow_width": 8, "code": 8, "width": 16, "blocks": 1,
    "decoder_width": 16, "decoder_blocks": 1,
}  # fmt: skip

#: Every term, and the gate always open.
EVERYTHING = LossConfig(best_of=0.5, random=0.5, adversarial=0.1, gate=0.0, hypotheses=4)


def make_trainer(loss=EVERYTHING, *, schedule="alternate", seed=0, **variant):
    torch.manual_seed(seed)
    config = TrainConfig(
        schedule=schedule,
        batch_size=8,
        rate1=1e-2,
        rate2=1e-2,
        seed=seed,
        model=ProPoseConfig(**(SMALL | variant)),
        loss=loss,
    )
    world = 0.3 * torch.randn(30, 17, 3)
    trainer = ProPoseTrainer(ProPose(config.model), config, Simulator(world))
    trainer.prepare(2)
    # Couplings start as the identity, where half of their parameters have no gradient yet.
    with torch.no_grad():
        for parameter in trainer.model.flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return trainer


def groups_of(trainer):
    """Parameters by the part of Algorithm 1 that they belong to."""
    model = trainer.model
    parts = {
        "g": model.pilgd,
        "k": model.decoder,
        "q": model.encoder2d,
        "v": model.decoder2d,
        "h": model.flow.base,
        "f": model.flow.transform,
        "discriminator": trainer.discriminator,
    }
    return {part: {f"{part}.{n}": p for n, p in m.named_parameters()} for part, m in parts.items()}


def moved_parts(trainer, step):
    """Parts whose parameters all moved; fails if only some of a part's did."""
    groups = groups_of(trainer)
    before = {n: p.detach().clone() for group in groups.values() for n, p in group.items()}
    step()
    moved = set()
    for part, group in groups.items():
        still = [n for n, p in group.items() if torch.equal(before[n], p)]
        assert not still or len(still) == len(group), f"{part} moved, but not {still}"
        if group and not still:
            moved.add(part)
    return moved


def without_discriminator_step(trainer):
    trainer._discriminator_step = lambda pairs: torch.zeros(())
    return trainer


def test_the_groups_hold_every_parameter_once():
    trainer = make_trainer()
    groups = trainer.parameter_groups()
    grouped = [id(p) for p in itertools.chain(*groups.values())]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in trainer.model.parameters()}


def test_phase_1_moves_g_and_k_only():
    trainer = without_discriminator_step(make_trainer())
    assert moved_parts(trainer, trainer.step1) == {"g", "k"}


def test_phase_2_moves_q_v_h_and_f_only():
    trainer = make_trainer()
    assert moved_parts(trainer, trainer.step2) == {"q", "v", "h", "f"}


def test_end_to_end_moves_all_but_the_discriminator():
    trainer = without_discriminator_step(make_trainer(schedule="end_to_end"))
    assert moved_parts(trainer, trainer.step_end_to_end) == {"g", "k", "q", "v", "h", "f"}


def test_the_discriminator_moves_by_its_own_step_only():
    trainer = make_trainer()
    pairs = trainer._draw()
    step = trainer._discriminator_step
    assert moved_parts(trainer, lambda: step(pairs)) == {"discriminator"}
    # It takes no part in the other steps' gradients either.
    assert all(p.grad is None for p in trainer.model.parameters())
    assert moved_parts(trainer, trainer.step1) == {"g", "k", "discriminator"}


def test_without_the_adversarial_term_the_discriminator_rests():
    trainer = make_trainer(dataclasses.replace(EVERYTHING, adversarial=0.0))
    assert moved_parts(trainer, trainer.step1) == {"g", "k"}
    assert "discriminator" not in trainer.step1()


def test_each_objective_reaches_the_parts_it_should():
    """The gradients of single terms, not of their sum."""
    trainer = make_trainer()
    pairs = trainer._draw()
    model = trainer.model
    groups = groups_of(trainer)
    pilgd = model.embed(pairs.joints, pairs.features)
    terms = trainer._generator_losses(pairs)
    terms |= trainer._flow_losses(pairs, pilgd.sample(), pilgd.mean.detach())
    expected = {
        "recon3d": {"g", "k"},
        "adversarial": {"g", "k", "discriminator"},
        "best_of": {"k", "q", "h", "f"},
        "random": {"k", "q", "h", "f"},
        "energy": {"k", "q", "h", "f"},
        "recon2d": {"q", "v"},
        "nll": {"q", "h", "f"},
        "mode_to_mode": {"q", "h", "f"},
    }
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        reached = set()
        for part, group in groups.items():
            gradients = torch.autograd.grad(
                term, list(group.values()), retain_graph=True, allow_unused=True
            )
            if any(g is not None and (g != 0).any() for g in gradients):
                reached.add(part)
        assert reached == expected[name], name


@pytest.mark.parametrize(("step", "other"), [("step1", "phase2"), ("step2", "phase1")])
def test_a_phase_gives_the_others_parameters_no_gradient(step, other):
    trainer = make_trainer()
    getattr(trainer, step)()
    for group, parameters in trainer.parameter_groups().items():
        assert all((p.grad is None) == (group == other) for p in parameters)


@pytest.mark.parametrize("step", ["step1", "step2"])
def test_a_phase_leaves_every_parameter_trainable(step):
    trainer = make_trainer()
    getattr(trainer, step)()
    assert all(p.requires_grad for p in trainer.model.parameters())


TERMS = {
    "all": {},
    "without_m2m": {"mode_to_mode": 0.0},
    "without_bidirectional": {"best_of": 0.0, "random": 0.0, "energy": 0.0},
    "the_papers_bidirectional": {"energy": 0.0},
    "without_adversarial": {"adversarial": 0.0},
    "gate_closed": {"gate": 1.1},
}


@pytest.mark.parametrize("schedule", ["alternate", "end_to_end"])
@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize(
    "variant", [{}, {"pilgd": "vae"}, {"base": "standard"}, {"coupling": "spline"}], ids=str
)
def test_every_variant_runs(schedule, terms, variant):
    trainer = make_trainer(
        dataclasses.replace(EVERYTHING, **TERMS[terms]), schedule=schedule, **variant
    )
    if schedule == "alternate":
        losses = trainer.step1() | trainer.step2()
    else:
        losses = trainer.step_end_to_end()
    expected = {"recon3d", "recon2d", "nll", "mode_to_mode", "best_of", "random", "energy"}
    expected |= {"adversarial", "discriminator"}
    expected -= {name for name, weight in TERMS[terms].items() if weight == 0}
    if terms == "without_adversarial":
        expected -= {"discriminator"}
    if terms == "gate_closed":
        expected -= {"best_of", "random", "energy"}
    if variant.get("pilgd") == "vae":
        expected |= {"kl"}
    assert losses.keys() == expected
    assert all(isinstance(v, float) and v == v for v in losses.values())


def test_end_to_end_runs_without_the_nll():
    loss = dataclasses.replace(EVERYTHING, nll=0.0)
    trainer = without_discriminator_step(make_trainer(loss, schedule="end_to_end"))
    losses = trainer.step_end_to_end()
    assert "nll" not in losses


def test_equal_seeds_give_equal_numbers():
    logs, weights = [], []
    for _ in range(2):
        trainer = make_trainer(seed=3)
        torch.manual_seed(7)
        logs.append([trainer.step1(), trainer.step2(), trainer.step1()])
        weights.append(torch.cat([p.flatten() for p in trainer.model.parameters()]))
    assert logs[0] == logs[1] and torch.equal(*weights)


@pytest.mark.parametrize("step", ["step1", "step2", "step_end_to_end"])
def test_small_steps_lower_the_loss_of_their_batch(step):
    trainer = make_trainer(dataclasses.replace(EVERYTHING, adversarial=0.0))
    assert falls(losses_of_small_steps(trainer, getattr(trainer, step)))


def test_a_broken_loss_stops_the_run_before_it_spoils_the_weights():
    trainer = make_trainer()
    trainer.model.pose_std.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        trainer.step1()
    assert all(p.isfinite().all() for p in trainer.model.parameters())


def test_set_rate():
    trainer = make_trainer()
    trainer.set_rate(0.25)
    for optimizer in (trainer.optimizer1, trainer.optimizer2, trainer.optimizer_d):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(2.5e-3)


def test_the_standardizer_whitens_each_coordinate():
    trainer = make_trainer()
    trainer.prepare(50)
    joints = torch.cat([trainer._draw().joints for _ in range(50)])
    standard = trainer.model.standardize(joints)
    torch.testing.assert_close(standard.mean(0), torch.zeros(48), atol=0.25, rtol=0)
    torch.testing.assert_close(standard.std(0), torch.ones(48), atol=0.25, rtol=0)


def test_pairs_are_in_the_evidences_axes():
    trainer = make_trainer()
    batch = trainer.simulator(6, torch.Generator().manual_seed(0))
    known = torch.tensor([True, False] * 3)
    pairs = prepare(batch.p2d, batch.confidence, batch.p3d, known)
    plain = prepare(batch.p2d, batch.confidence, batch.p3d, torch.zeros(6, dtype=torch.bool))
    assert pairs.joints.shape == (6, 16, 3)
    torch.testing.assert_close(plain.joints, batch.p3d[:, 1:])
    torch.testing.assert_close(pairs.joints[~known], batch.p3d[~known, 1:])
    # Told the intrinsics, the pose is turned, not changed.
    assert not torch.allclose(pairs.joints[known], plain.joints[known], atol=1e-4)
    torch.testing.assert_close(pairs.joints.norm(dim=-1), plain.joints.norm(dim=-1))
    # The pose that the distribution answers with is back in the camera's axes.
    distribution = trainer.model.eval().conditional(batch.p2d, batch.confidence, focal=1.0)
    turned = distribution._from_event(batch.p3d)
    torch.testing.assert_close(turned[known], pairs.joints[known], rtol=1e-4, atol=1e-5)
    assert torch.equal(pairs.visible, batch.confidence > 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "random"}, "expected schedule 'alternate' or 'end_to_end', got 'random'"),
        ({"loss": LossConfig(nll=0.0)}, "without the NLL the flow only learns end to end"),
    ],
)
def test_bad_configurations(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**options)
