"""Training of the distributions to compare with, by the same loop."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from propose_prob.cli.train import train_command
from propose_prob.configuration import from_dict, to_dict
from propose_prob.datasets.cmu17 import load_cmu17
from propose_prob.models.evidence import Evidence
from propose_prob.models.registry import REGISTRY
from propose_prob.training.loop import TrainingLoop, finish
from propose_prob.training.simulation import Simulator
from propose_prob.training.trainers import SingleTrainer
from propose_prob.training.validation import Validation
from propose_prob.weights.store import load
from tests.training.descent import falls, losses_of_small_steps

pytestmark = pytest.mark.usefixtures("few_validation_pairs")

TINY = {"steps": 12, "batch_size": 8, "validate": 4}
ENCODER = {"width": 16, "blocks": 1}

#: Sizes of a small model, by name in the registry.
KINDS: dict[str, dict[str, int]] = {
    "regression": {},
    "mixture": {"kernels": 2},
    "cvae": {"latent": 4, "context": 8, "decoder_width": 8, "decoder_blocks": 1},
    "diffusion": {"steps": 4, "context": 8, "denoiser_width": 8, "denoiser_blocks": 1},
}

every_kind = pytest.mark.parametrize("kind", KINDS)


def make_trainer(kind: str, **changes: object) -> SingleTrainer:
    entry, sizes = REGISTRY[kind], KINDS[kind]
    config = from_dict({**TINY, "model": {**ENCODER, **sizes}, **changes}, default=entry.run())
    simulator = Simulator(load_cmu17("val").world[::40], config.simulator)
    torch.manual_seed(config.seed)
    return entry.trainer(entry.model(config.model), config, simulator)


def make_run(folder: Path, kind: str, **changes: object) -> TrainingLoop:
    trainer = make_trainer(kind, **changes)
    return TrainingLoop(trainer, Validation.from_simulator(trainer.simulator, items=20), folder)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


@every_kind
def test_every_parameter_gets_a_gradient(kind: str) -> None:
    trainer = make_trainer(kind)
    trainer.prepare(2)
    losses = trainer.losses(trainer._draw())
    assert tuple(losses) == trainer.terms
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in trainer.model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert (parameter.grad != 0).any(), name


@every_kind
def test_small_steps_lower_the_loss_of_their_batch(kind: str) -> None:
    trainer = make_trainer(kind)
    trainer.prepare(2)
    assert falls(losses_of_small_steps(trainer, trainer.step))


@every_kind
def test_resuming_continues_to_the_same_numbers(tmp_path: Path, kind: str) -> None:
    whole = make_run(tmp_path / "whole", kind)
    whole.train()
    broken = make_run(tmp_path / "broken", kind)
    while broken.step < 6:
        broken._round()
    broken.checkpoint()
    broken._round()
    torch.manual_seed(999)
    again = make_run(tmp_path / "broken", kind)
    again.resume()
    again.train()
    ours = weights(again.model)
    for name, value in weights(whole.model).items():
        assert torch.equal(value, ours[name]), name
    with (tmp_path / "broken" / "log.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [8, 12]


@every_kind
def test_either_loss_may_be_left_out(kind: str) -> None:
    for term in make_trainer(kind).terms:
        trainer = make_trainer(kind, loss={term: 0.0})
        assert term not in trainer.step()


@pytest.mark.parametrize("kind", ["mixture", "cvae"])
def test_command_trains_and_writes_a_model(tmp_path: Path, kind: str) -> None:
    trainer = make_trainer(kind, steps=2, validate=2)
    world = trainer.simulator.pose.numpy()
    np.savez(tmp_path / "own.npz", world=world)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(trainer.config)))
    command = train_command(kind)(
        out=tmp_path / "out",
        data=str(tmp_path / "own.npz"),
        validation=tmp_path / "own.npz",
        config=tmp_path / "config.json",
    )
    command.run()
    assert load(tmp_path / "out" / "model.safetensors").config == trainer.config.model
    fitted = json.loads((tmp_path / "out" / "fitted.json").read_text())
    assert fitted["steps"] == 2
    assert ("noise_mm" in fitted) == (kind == "cvae")


@every_kind
def test_a_temperature_is_fitted_where_there_is_one(tmp_path: Path, kind: str) -> None:
    run = make_run(tmp_path, kind)
    model = run.model
    before = weights(model)
    temperature = finish(model, run.validation)["temperature"]
    if kind in ("regression", "cvae"):
        assert model.flow.base.temperature == pytest.approx(temperature)
    else:
        assert temperature == 1.0
        assert all(torch.equal(value, before[name]) for name, value in weights(model).items())


def test_the_bound_that_is_trained_is_one() -> None:
    trainer = make_trainer("cvae", batch_size=64)
    trainer.prepare(2)
    model = trainer.model.eval()
    with torch.no_grad():
        model.log_noise.fill_(-1.0)
        pairs = trainer._draw()
        units = model.standardiser.log_scale.mean()
        bound = -48 * (trainer.losses(pairs)["elbo"] + units)
        root = torch.zeros(64, 1, 3)
        distribution = model.distribution(Evidence(pairs.features, None))
        density = distribution.log_prob(torch.cat([root, pairs.joints], 1)).mean()
    assert bound < density < bound + 20


def test_the_regressions_spread_becomes_that_of_its_residuals() -> None:
    trainer = make_trainer("regression", batch_size=256, rate=0.05, loss={"point": 0.0})
    trainer.prepare(2)
    model = trainer.model
    for parameter in model.flow.base.network.parameters():
        parameter.requires_grad_(False)
    pairs = trainer._draw()
    for _ in range(200):
        loss = trainer.losses(pairs)["nll"]
        trainer.optimizer.zero_grad()
        loss.backward()
        trainer.optimizer.step()
    distribution = model.eval().distribution(Evidence(pairs.features, None))
    residual = (pairs.joints - distribution.mode[:, 1:]).square().mean(0).sqrt()
    spread = distribution.flow.base_dist.stddev[0] * model.standardiser.log_scale.exp()
    torch.testing.assert_close(spread.reshape(16, 3), residual, rtol=0.1, atol=0)
