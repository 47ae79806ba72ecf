import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from propose_prob.cli.train import read_world, train_command
from propose_prob.configuration import from_dict, to_dict
from propose_prob.datasets.cmu17 import load_cmu17
from propose_prob.errors import InputError
from propose_prob.models import LiftingFlow, ProPose
from propose_prob.training.checkpoint import read_checkpoint, write_checkpoint
from propose_prob.training.configs import LiftingTrainConfig, RunConfig, TrainConfig, read_config
from propose_prob.training.loop import Trainer, TrainingLoop, finish
from propose_prob.training.simulation import Simulator
from propose_prob.training.trainers import LiftingTrainer, ProPoseTrainer
from propose_prob.training.validation import Validation
from propose_prob.weights.store import load
from tests.training.descent import falls, losses_of_small_steps

pytestmark = pytest.mark.usefixtures("few_validation_pairs")

TINY = {
    "steps": 12,
    "phase1": 2,
    "phase2": 2,
    "batch_size": 8,
    "validate": 4,
    "model": {
        "width": 16, "blocks": 1, "flow_width": 8, "decoder_width": 8, "couplings": 2,
        "code": 8, "latent": 6,
    },
    "loss": {"hypotheses": 3, "adversarial": 0.1},
}  # fmt: skip


TINY_LIFTING = {
    "steps": 12,
    "batch_size": 8,
    "validate": 4,
    "model": {
        "width": 16, "blocks": 1, "flow_width": 8, "couplings": 2, "context": 8,
    },
    "loss": {"energy": 1.0},
}  # fmt: skip

every_kind = pytest.mark.parametrize("kind", ["propose", "lifting"])


def make_trainer(config: RunConfig) -> Trainer:
    simulator = Simulator(load_cmu17("val").world[::40], config.simulator)
    torch.manual_seed(config.seed)
    if isinstance(config, LiftingTrainConfig):
        return LiftingTrainer(LiftingFlow(config.model), config, simulator)
    return ProPoseTrainer(ProPose(config.model), config, simulator)


def make_run(folder: Path, *, kind: str = "propose", **changes: object) -> TrainingLoop:
    if kind == "lifting":
        config = from_dict({**TINY_LIFTING, **changes}, default=LiftingTrainConfig())
    else:
        config = from_dict({**TINY, **changes}, default=TrainConfig())
    trainer = make_trainer(config)
    return TrainingLoop(trainer, Validation.from_simulator(trainer.simulator, items=20), folder)


def weights(run: TrainingLoop) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in run.model.state_dict().items()}


@every_kind
def test_resuming_continues_to_the_same_numbers(tmp_path: Path, kind: str) -> None:
    whole = make_run(tmp_path / "whole", kind=kind)
    whole.train()

    broken = make_run(tmp_path / "broken", kind=kind)
    while broken.step < 6:
        broken._round()
    broken.checkpoint()
    # What a killed run did after its last checkpoint must leave no trace.
    broken._round()
    broken._validate()
    torch.manual_seed(999)

    again = make_run(tmp_path / "broken", kind=kind)
    again.resume()
    assert again.step == 6
    again.train()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name
    with (tmp_path / "broken" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [8, 12]


def test_checkpoints_are_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.pt"
    write_checkpoint({"format": "propose_prob.checkpoint/1", "step": 1}, path)

    def torn(state: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint({"format": "propose_prob.checkpoint/1", "step": 2}, path)
    assert read_checkpoint(path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("content", [b"", b"half a file", b"\x80\x04\x95garbage"])
def test_foreign_checkpoints_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="expected a checkpoint") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "run",))

    path = tmp_path / "checkpoint.pt"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError):
        read_checkpoint(path)
    assert not (tmp_path / "run").exists()


def test_resume_refuses_another_configuration(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.checkpoint()
    with pytest.raises(InputError, match="another configuration: batch_size differ"):
        make_run(tmp_path, batch_size=9).resume()
    with pytest.raises(InputError, match="no checkpoint to resume from"):
        make_run(tmp_path / "empty").resume()


def test_validation_leaves_the_random_state_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    state = torch.get_rng_state()
    first = run.validation.scores(run.model)
    assert torch.equal(torch.get_rng_state(), state)
    assert run.validation.scores(run.model) == first


def test_small_steps_of_the_lifting_flow_lower_the_loss_of_their_batch() -> None:
    trainer = make_trainer(from_dict(TINY_LIFTING, default=LiftingTrainConfig()))
    trainer.prepare(2)
    assert falls(losses_of_small_steps(trainer, trainer.step))


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "end_to_end"},
        {"schedule": "end_to_end", "loss": {"nll": 0.0}},
        {"model": {**TINY["model"], "pilgd": "vae"}},
        {"model": {**TINY["model"], "base": "standard"}},
        {"loss": {"mode_to_mode": 0.0, "energy": 0.0}},
        {"loss": {"best_of": 1.0, "random": 1.0, "energy": 0.0}},
    ],
)
def test_every_ablation_trains(tmp_path: Path, changes: dict) -> None:
    run = make_run(tmp_path, **{"steps": 4, **changes})
    run.train()
    assert all(value.isfinite().all() for value in weights(run).values())


def test_finish_fits_noise_and_temperature(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    model = run.model
    fitted = finish(model, run.validation)
    pairs = run.validation.pairs
    decoded = model.bind_decoder(pairs.features)(model.embed(pairs.joints, pairs.features).mean)
    expected = (decoded - pairs.joints).square().mean((0, 2)).sqrt()
    assert torch.allclose(model.noise_scale, expected)
    assert model.flow.base.temperature == pytest.approx(fitted["temperature"])


def test_command_trains_resumes_and_writes_a_model(tmp_path: Path) -> None:
    world = load_cmu17("val").world[::40].numpy()
    np.savez(tmp_path / "own.npz", world=world)
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    command = train_command("propose")(
        out=tmp_path / "out",
        data=str(tmp_path / "own.npz"),
        validation=tmp_path / "own.npz",
        config=tmp_path / "config.json",
        steps=4,
    )
    command.run()
    assert load(tmp_path / "out" / "model.safetensors").config.latent == 6
    assert json.loads((tmp_path / "out" / "config.json").read_text())["steps"] == 4
    with pytest.raises(InputError, match="already holds a training"):
        command.run()
    train_command("propose")(**{**command.__dict__, "resume": True}).run()


def test_a_device_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--device nowhere cannot be used"):
        train_command("propose")(out=tmp_path / "o", device="nowhere").run()
    assert not (tmp_path / "o").exists()


def test_own_data_is_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs --validation"):
        train_command("propose")(out=tmp_path / "o", data="own.npz").run()
    path = tmp_path / "own.npz"
    path.write_bytes(b"not an archive")
    with pytest.raises(InputError, match="array 'world'"):
        read_world(path)
    np.savez(path, world=np.zeros((3, 16, 3)))
    with pytest.raises(InputError, match=r"\(N, 17, 3\), got \(3, 16, 3\)"):
        read_world(path)
    world = np.zeros((3, 17, 3))
    world[1, 2, 0] = np.nan
    np.savez(path, world=world)
    with pytest.raises(InputError, match="frame 1"):
        read_world(path)


def test_configuration_round_trips_through_json() -> None:
    config = from_dict(
        {"simulator": {"distance": [1, 9]}, "rate1": 1, **TINY}, default=TrainConfig()
    )
    assert config.simulator.distance == (1.0, 9.0)
    assert from_dict(json.loads(json.dumps(to_dict(config))), default=TrainConfig()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"step": 3}, "unknown name 'step'"),
        ({"model": {"depth": 3}}, "unknown name 'model.depth'"),
        ({"steps": "many"}, "steps must be int, got 'many'"),
        ({"model": 3}, "model must be an object"),
        ({"simulator": {"distance": [1]}}, "simulator.distance must be 2 numbers"),
        ({"schedule": "both"}, "'alternate' or 'end_to_end', got 'both'"),
        ({"loss": {"nll": 0.0}}, "the flow only learns end to end"),
    ],
)
def test_wrong_configurations_name_the_entry(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_dict(values, default=TrainConfig())


def test_configuration_files_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    for content in ("{", "[]"):
        path.write_text(content)
        with pytest.raises(InputError, match="JSON"):
            read_config(path, default=TrainConfig())
    with pytest.raises(InputError, match=r"none\.json: cannot be read"):
        read_config(tmp_path / "none.json", default=TrainConfig())
    path.write_text("{}")
    assert read_config(path, default=TrainConfig()) == TrainConfig()


def test_a_run_may_begin_with_trained_weights(tmp_path: Path) -> None:
    first = make_run(tmp_path / "first")
    first.train()
    start = load(tmp_path / "first" / "best.safetensors")
    start.flow.base.temperature.fill_(0.9)
    run = TrainingLoop(
        make_trainer(first.config), first.validation, tmp_path / "second", start=start
    )
    begun = run.model.state_dict()
    assert begun.pop("flow.base.temperature") == 1.0
    assert all(
        torch.equal(value, begun[name])
        for name, value in start.state_dict().items()
        if name in begun
    )
    other = from_dict({"model": {"latent": 5}}, default=first.config)
    with pytest.raises(InputError, match="start from a model of this configuration"):
        TrainingLoop(make_trainer(other), first.validation, tmp_path / "third", start=start)
