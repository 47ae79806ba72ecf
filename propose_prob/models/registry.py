"""The models of this library by name: class, configuration, trainer.

Whatever lists models reads this table: stored weights, `propose-prob train`, messages about unknown
models, and the tests that every model goes through. Rows hold dotted names, resolved where they are
used, so that loading weights does not import training and the core never imports `images`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

__all__ = ["ENCODERS", "REGISTRY", "STORED", "ModelEntry", "resolve"]


@dataclass(frozen=True)
class ModelEntry:
    """A row of the registry; names are dotted, `module:attribute`, within this package.

    Attributes:
        model_path: The model's class; built from its configuration alone.
        config_path: The dataclass of its sizes and variants.
        trainer_path: The class that trains it (`training.loop.Trainer`).
        run_path: The dataclass of a training run, with the model's configuration as `model`.
        data: What it is trained on: simulated keypoints of joints or of bodies, or images.
        summary: The first line of `propose-prob train NAME --help`.

    Example:
        >>> REGISTRY["propose"].model.__name__, REGISTRY["propose"].config().latent
        ('ProPose', 48)
    """

    model_path: str
    config_path: str
    trainer_path: str
    run_path: str
    data: Literal["joints", "bodies", "images"]
    summary: str

    @property
    def model(self) -> type[nn.Module]:
        """The model's class."""
        return resolve(self.model_path)

    @property
    def config(self) -> type[Any]:
        """Its configuration."""
        return resolve(self.config_path)

    @property
    def trainer(self) -> type[Any]:
        """The class that trains it."""
        return resolve(self.trainer_path)

    @property
    def run(self) -> type[Any]:
        """The configuration of a training run."""
        return resolve(self.run_path)


#: By the name that `propose-prob train` knows them by.
REGISTRY: Mapping[str, ModelEntry] = MappingProxyType(
    {
        "propose": ModelEntry(
            "models.propose:ProPose",
            "models.propose:ProPoseConfig",
            "training.trainers:ProPoseTrainer",
            "training.configs:TrainConfig",
            "joints",
            "Train ProPose: 2D keypoints to a decoded distribution over 3D joints.",
        ),
        "lifting": ModelEntry(
            "models.lifting_flow:LiftingFlow",
            "models.lifting_flow:LiftingConfig",
            "training.trainers:LiftingTrainer",
            "training.configs:LiftingTrainConfig",
            "joints",
            "Train ProHMR's lifting flow: 2D keypoints to an exact distribution over 3D joints.",
        ),
        "prohmr": ModelEntry(
            "models.prohmr:ProHMR",
            "models.prohmr:ProHMRConfig",
            "training.body_trainer:ProHMRTrainer",
            "training.configs:BodyTrainConfig",
            "bodies",
            "Train ProHMR: 2D keypoints to an exact distribution over a body's joint rotations.",
        ),
        "image": ModelEntry(
            "models.prohmr:ProHMR",
            "models.prohmr:ProHMRConfig",
            "images.training:ImageTrainer",
            "images.training:ImageTrainConfig",
            "images",
            "Train ProHMR from pixels: an image to an exact distribution over a body's joint "
            "rotations.",
        ),
        "regression": ModelEntry(
            "models.baselines:RegressionBaseline",
            "models.baselines:RegressionConfig",
            "training.trainers:LikelihoodTrainer",
            "training.configs:RegressionTrainConfig",
            "joints",
            "Train the regression baseline: one Gaussian of fixed variance over 3D joints.",
        ),
        "mixture": ModelEntry(
            "models.baselines:MixtureDensity",
            "models.baselines:MixtureConfig",
            "training.trainers:LikelihoodTrainer",
            "training.configs:MixtureTrainConfig",
            "joints",
            "Train the mixture density baseline: a few Gaussian kernels over 3D joints.",
        ),
        "cvae": ModelEntry(
            "models.baselines:ConditionalVAE",
            "models.baselines:VariationalConfig",
            "training.trainers:VariationalTrainer",
            "training.configs:VariationalTrainConfig",
            "joints",
            "Train the variational baseline: a decoded distribution over 3D joints, normal latent.",
        ),
        "diffusion": ModelEntry(
            "models.baselines:ScoreDiffusion",
            "models.baselines:DiffusionConfig",
            "training.trainers:DiffusionTrainer",
            "training.configs:DiffusionTrainConfig",
            "joints",
            "Train the diffusion baseline: 3D joints denoised in a few steps, no density.",
        ),
    }
)


def _by_class() -> dict[str, ModelEntry]:
    stored: dict[str, ModelEntry] = {}
    for entry in REGISTRY.values():
        stored.setdefault(entry.model_path.rpartition(":")[2], entry)
    return stored


#: By the class name that stored weights carry; the first row of a class counts.
STORED: Mapping[str, ModelEntry] = MappingProxyType(_by_class())

#: Encoders that live outside the core, by the name that `ProHMRConfig.encoder` gives them.
ENCODERS: Mapping[str, str] = MappingProxyType({"image": "images.encoder:ImageEncoder"})


def resolve(path: str) -> Any:
    """The object of a dotted name `module:attribute` within this package.

    Example:
        >>> resolve("models.propose:ProPoseConfig")().latent
        48
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(f"..{module}", __package__), name)
