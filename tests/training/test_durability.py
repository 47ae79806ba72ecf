"""Trainings that are broken off, started twice, or go on from files that were changed."""

import csv
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from propose_prob.cli import main
from propose_prob.cli.train import train_command
from propose_prob.datasets.cmu17 import load_cmu17
from propose_prob.devices import launched_as
from propose_prob.errors import InputError
from propose_prob.io.atomic import locked
from propose_prob.training import loop
from propose_prob.training.checkpoint import read_checkpoint, write_checkpoint
from propose_prob.training.parallel import process_group

pytestmark = pytest.mark.usefixtures("few_validation_pairs")

CONFIG = {
    "steps": 8,
    "batch_size": 8,
    "validate": 2,
    "model": {"width": 16, "blocks": 1, "flow_width": 8, "couplings": 2, "context": 8},
}
STATE = {"format": "propose_prob.checkpoint/1", "x": torch.arange(1000.0)}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("world.npz", world=load_cmu17("val").world[::400].numpy())
    Path("config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def command(**more):
    world = Path("world.npz")
    given = {"data": str(world), "validation": world, "config": Path("config.json"), **more}
    return train_command("lifting")(Path("out"), **given)


def steps():
    with Path("out/log.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def break_off(monkeypatch, step):
    """Let a training be killed at a step, right after its validation."""
    validate = loop.TrainingLoop._validate

    def killed(self):
        scores = validate(self)
        if self.step >= step:
            raise KeyboardInterrupt
        return scores

    monkeypatch.setattr(loop.TrainingLoop, "_validate", killed)
    return validate


def test_a_checkpoint_with_any_byte_changed_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(STATE, path)
    content = path.read_bytes()
    assert zipfile.is_zipfile(path) and torch.load(path, weights_only=True)["x"].shape == (1000,)
    places = [0, 30, 500, len(content) // 2, *range(len(content) - 110, len(content), 7)]
    for place in [*places, len(content) - 1]:
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(InputError, match="expected a checkpoint") as error:
            read_checkpoint(path)
        assert "\n" not in str(error.value)
    for end in (-1, -64, -90, len(content) // 2):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match="expected a checkpoint"):
            read_checkpoint(path)
    path.write_bytes(content)
    assert torch.equal(read_checkpoint(path)["x"], STATE["x"])


def test_checkpoints_without_a_hash_are_read(tmp_path):
    """Those that earlier versions wrote."""
    torch.save(STATE, tmp_path / "checkpoint.pt")
    assert torch.equal(read_checkpoint(tmp_path / "checkpoint.pt")["x"], STATE["x"])


@pytest.mark.parametrize(
    "changes",
    [
        {"step": float("nan")},
        {"step": -5},
        {"step": 1e300},
        {"step": 10**30},
        {"step": True},
        {"step": None},
        {"seconds": float("nan")},
        {"seconds": -1},
        {"best": float("nan")},
        {"best": "x"},
        {"losses": 3},
        {"losses": {"nll": "x"}},
        {"config": 3},
        {"rng": 3},
        {"rng": torch.zeros(3)},
        {"average": {}},
        {"average": 3},
        {"generators": {}},
        {"parts": {}},
        {"parts": {"model": {}, "optimiser": {}}},
        {"parts": None},
        {"parts": torch.full((3,), torch.nan)},
        {"generators": torch.zeros(3)},
        *({name: ...} for name in ("step", "seconds", "best", "losses", "average", "rng")),
        *({name: ...} for name in ("generators", "parts", "config")),
    ],
    ids=str,
)
def test_a_checkpoint_of_odd_numbers_is_refused_in_one_line(place, capsys, changes, trained):
    state = trained | changes
    state = {name: value for name, value in state.items() if value is not ...}
    Path("out").mkdir()
    write_checkpoint(state, Path("out/checkpoint.pt"))
    with pytest.raises(InputError, match=r"out.checkpoint.pt: ") as error:
        command(resume=True).run()
    assert "\n" not in str(error.value)
    assert os.listdir("out") == ["checkpoint.pt"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, few_validation_pairs):
    """What the checkpoint of a finished training holds."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        np.savez("world.npz", world=load_cmu17("val").world[::400].numpy())
        Path("config.json").write_text(json.dumps(CONFIG))
        command().run()
        return read_checkpoint(Path("out/checkpoint.pt"))


def test_a_restart_before_the_first_checkpoint_logs_each_step_once(place, monkeypatch):
    validate = break_off(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        command().run()
    assert steps() == [2, 4] and not Path("out/checkpoint.pt").exists()
    monkeypatch.setattr(loop.TrainingLoop, "_validate", validate)
    command().run()
    assert steps() == [2, 4, 6, 8]
    assert not [name for name in os.listdir("out") if name.startswith(".")]


def test_a_training_that_runs_is_not_started_again(place, capsys):
    command().run()
    log = Path("out/log.csv").read_text()
    with locked(Path("out"), "a training"):
        for resume in (True, False):
            if not resume:
                Path("out/checkpoint.pt").unlink()
            with pytest.raises(InputError, match="a training is going on in this folder already"):
                command(resume=resume).run()
    assert Path("out/log.csv").read_text() == log


@pytest.mark.parametrize(
    "junk",
    [b"junk", b"\xff\xfe\x00", b"step,seconds\n1,2\n", b"\0\0", b"step\nx\n", b'"' * 200_000],
)
@pytest.mark.parametrize("resume", [True, False])
def test_a_log_that_is_none_is_refused_in_one_line_and_kept(place, junk, resume, trained):
    Path("out").mkdir()
    if resume:
        write_checkpoint(trained, Path("out/checkpoint.pt"))
    Path("out/log.csv").write_bytes(junk)
    with pytest.raises(InputError, match=r"log.csv: expected the log") as error:
        command(resume=resume).run()
    assert "\n" not in str(error.value)
    assert Path("out/log.csv").read_bytes() == junk and not Path("out/config.json").exists()


def test_rows_of_a_log_are_checked(place, trained):
    fields = ",".join(["step", "seconds", "nll", "mode", "energy", "val_point_mm", "val_energy_mm"])
    Path("out").mkdir()
    write_checkpoint(trained, Path("out/checkpoint.pt"))
    for row in ("x,1,1,1,1,1,1", "1,2", "1,1,1,1,1,1,1,1"):
        Path("out/log.csv").write_text(f"{fields}\n{row}\n")
        with pytest.raises(InputError, match=r"log.csv: expected the log"):
            command(resume=True).run()


def test_outputs_of_a_training_are_not_its_inputs(place, capsys):
    command().run()
    for name in ("best.safetensors", "config.json"):
        Path("out/checkpoint.pt").unlink(missing_ok=True)
        before = Path("out", name).read_bytes()
        given = (
            {"init": f"out/{name}"} if name.startswith("best") else {"config": Path("out", name)}
        )
        with pytest.raises(InputError, match="would replace an input"):
            command(**given).run()
        assert Path("out", name).read_bytes() == before


def test_a_training_goes_on_with_the_configuration_that_it_stored(place, capsys):
    command().run()
    command(resume=True, config=Path("out/config.json")).run()
    assert steps() == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "4"}, "got only WORLD_SIZE='4': without RANK a part of the work"),
        ({"RANK": "1"}, "got only RANK='1'"),
        ({"WORLD_SIZE": "four", "RANK": "0"}, "WORLD_SIZE as torchrun sets it"),
        ({"WORLD_SIZE": "0", "RANK": "0"}, "WORLD_SIZE as torchrun sets it"),
        ({"WORLD_SIZE": "-1", "RANK": "0"}, "WORLD_SIZE as torchrun sets it"),
        ({"WORLD_SIZE": "9" * 30, "RANK": "0"}, "WORLD_SIZE as torchrun sets it"),
        ({"WORLD_SIZE": "4", "RANK": "4"}, "RANK as torchrun sets it, a number of 0 to 3, got '4'"),
        ({"WORLD_SIZE": "4", "RANK": "-1"}, "RANK as torchrun sets it"),
        ({"WORLD_SIZE": "4", "RANK": "one"}, "RANK as torchrun sets it"),
        ({"WORLD_SIZE": "4", "RANK": ""}, "RANK as torchrun sets it"),
        ({"WORLD_SIZE": "4", "RANK": "\u0661"}, "RANK as torchrun sets it"),
    ],
)
def test_half_an_environment_of_torchrun_is_refused(place, monkeypatch, capsys, environment, words):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    np.save("walk.npy", np.random.default_rng(0).normal(500, 100, (8, 17, 2)))
    lift = ["lift", "walk.npy", "--skeleton", "h36m_17", "--out", "parts", "--samples", "2"]
    train = ["train", "lifting", "--out", "out"]
    for argv in (lift, train):
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1
    assert not Path("parts").exists() and not Path("out").exists()


def test_a_group_needs_the_rest_of_the_environment(monkeypatch):
    assert launched_as() == (0, 1)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with process_group("cpu") as device:
        assert device == "cpu"
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in (("MASTER_ADDR", None), ("MASTER_PORT", "x"), ("MASTER_PORT", "70000")):
        if value is not None:
            monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
            monkeypatch.setenv(name, value)
        with pytest.raises(InputError, match=name), process_group("cpu"):
            pass
