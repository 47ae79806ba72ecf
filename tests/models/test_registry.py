"""The registry, and that a row in it is all that a model needs to be trained, stored and known."""

import dataclasses
import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from propose_prob import weights
from propose_prob.cli import app, train
from propose_prob.configuration import count
from propose_prob.datasets.cmu17 import load_cmu17
from propose_prob.models import registry
from propose_prob.models.baselines import RegressionBaseline, RegressionConfig
from propose_prob.models.registry import REGISTRY, STORED, ModelEntry
from propose_prob.training.configs import RegressionTrainConfig
from propose_prob.weights import store
from tests.zoo import MODELS, randn, small_model

every_row = pytest.mark.parametrize("name", REGISTRY)


@every_row
def test_a_row_fits_together(name):
    entry = REGISTRY[name]
    run = entry.run()
    assert type(run.model) is entry.config
    assert issubclass(entry.model, torch.nn.Module)
    for method in ("prepare", "set_rate", "updates", "parts", "generators"):
        assert callable(getattr(entry.trainer, method))
    command = train.train_command(name)
    assert command("out").default() == run
    assert command.__doc__.startswith(entry.summary)
    assert entry.summary.startswith("Train ") and entry.summary.endswith(".")


def test_weights_are_known_by_the_class_of_their_model():
    assert [entry.model.__name__ for entry in STORED.values()] == list(STORED)
    assert STORED["ProHMR"] is REGISTRY["prohmr"]


@every_row
def test_the_zoo_has_every_model(name):
    built = {type(build()) for key, build in MODELS.items() if key in REGISTRY}
    assert REGISTRY[name].model in built


class Toy(RegressionBaseline):
    """A model of its own, as someone would add it."""


@dataclasses.dataclass(frozen=True)
class ToyConfig(RegressionConfig):
    width: int = count(16)


@dataclasses.dataclass(frozen=True)
class ToyTrainConfig(RegressionTrainConfig):
    model: ToyConfig = dataclasses.field(default_factory=ToyConfig)


@pytest.fixture
def toy(monkeypatch):
    """A module and a row, and nothing else."""
    module = ModuleType("propose_prob.models.toy")
    for kind in (Toy, ToyConfig, ToyTrainConfig):
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = ModelEntry(
        "models.toy:Toy",
        "models.toy:ToyConfig",
        "training.trainers:LikelihoodTrainer",
        "models.toy:ToyTrainConfig",
        "joints",
        "Train a toy.",
    )
    for user in (registry, train):
        monkeypatch.setattr(user, "REGISTRY", {**REGISTRY, "toy": entry})
    monkeypatch.setattr(store, "STORED", {**STORED, "Toy": entry})
    return entry


def test_a_row_is_enough_to_train_store_and_list_a_model(toy, tmp_path, capsys):
    world = tmp_path / "world.npz"
    np.savez(world, world=load_cmu17("val").world[::400].numpy())
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"batch_size": 4, "validate": 2, "model": {"blocks": 1}}))
    out = tmp_path / "out"
    options = ["--out", out, "--data", world, "--validation", world, "--config", config]
    args = ["train", "toy", *options, "--steps", 2]
    assert app.main([str(arg) for arg in args]) == 0, capsys.readouterr().err
    model = weights.load(out / "model.safetensors")
    assert type(model) is Toy and model.config == ToyConfig(blocks=1)
    assert small_model(toy)(randn(3, 2)).mode.shape == (3, 3)
    assert app.main(["train", "--help"]) == 0
    assert "Train a toy." in capsys.readouterr().out
    assert app.main(["train", "top"]) == 2
    assert "toy), got 'top'" in capsys.readouterr().err
