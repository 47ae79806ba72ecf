"""`propose-prob train`: train a model of the registry."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from abc import ABC, abstractmethod
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from tqdm import tqdm

from ..configuration import from_dict, to_dict
from ..datasets.cmu17 import load_cmu17
from ..datasets.cmu_body import load_cmu_body
from ..devices import check_device, set_threads
from ..errors import InputError
from ..io.amass import read_amass, read_arrays
from ..io.atomic import check_outputs, locked, write_text
from ..models.registry import REGISTRY, ModelEntry, resolve
from ..training.configs import RunConfig, read_config
from ..training.loop import Trainer, TrainingLoop, ValidationSet, finish
from ..training.parallel import process_group
from ..training.simulation import BodySimulator, Simulator
from ..training.validation import BodyValidation, Scores, Validation
from ..weights.store import load, save
from .output import tell

#: What a training writes to its folder.
_OUTPUTS = (
    ("checkpoint.pt", "best.safetensors", "last.safetensors", "model.safetensors")
    + ("config.json", "fitted.json", "log.csv")
)  # fmt: skip


@dataclass(frozen=True)
class TrainCommand(ABC):
    """Train a model of the registry; a subclass for each kind of data.

    Attributes:
        entry: The model's row of the registry; `train_command` sets it.
        out: Folder for the checkpoint, the log and the trained weights.
        data: `cmu17`, or own data: for models of joints an `.npz` file with `world` (N, 17, 3),
            meters, z up; for models of bodies an AMASS file or a folder of them.
        validation: An `.npz` file of the same form with held-out poses; needed for own data.
        config: A JSON file with any part of the configuration; flags below change it further.
        steps: Batches; of phase 2 where phases alternate.
        seed: Of everything random.
        init: Shipped model or file of `save` to begin with, of the same configuration.
        resume: Continue from the checkpoint in `out`.
        checkpoint_minutes: A kill loses at most this much.
        device: Where to train, `cpu` or `cuda`.
        threads: CPU threads.
    """

    out: Path
    data: str = "cmu17"
    validation: Path | None = None
    config: Path | None = None
    steps: int | None = None
    seed: int | None = None
    init: str | None = None
    resume: bool = False
    checkpoint_minutes: float = 5.0
    device: str = "cpu"
    threads: int = 1

    entry: ClassVar[ModelEntry]

    def default(self) -> RunConfig:
        """The configuration that the flags and the JSON file change."""
        return self.entry.run()

    @abstractmethod
    def sources(self, config: Any) -> tuple[Any, ValidationSet]:
        """What the trainer draws its batches from, and the held-out pairs."""

    def trainer(self, config: Any) -> tuple[Trainer[Any], ValidationSet]:
        """The training of a new model on this command's data, and the held-out pairs."""
        source, validation = self.sources(config)
        return self.entry.trainer(self.model(config), config, source, self.device), validation

    def model(self, config: Any) -> Any:
        """A new model.

        Raises:
            InputError: If sizes and names in its configuration do not go together.
        """
        try:
            return self.entry.model(config.model).to(self.device)
        except ValueError as error:
            raise InputError(f"configuration: {error}") from error

    def run(self) -> None:
        """Trains, fits on held-out poses what is fitted there, then writes `model.safetensors`.

        Raises:
            InputError: If the data, the configuration or the checkpoint cannot be used.
        """
        set_threads(self.threads)
        if not self.checkpoint_minutes >= 0:
            raise InputError(
                f"expected --checkpoint-minutes of at least 0, got {self.checkpoint_minutes}"
            )
        with process_group(self.device) as device:
            dataclasses.replace(self, device=device)._run()

    def _run(self) -> None:
        check_device(self.device)
        config = self.default()
        if self.config is not None:
            config = read_config(self.config, default=config)
        changes = {"steps": self.steps, "seed": self.seed}
        given = {name: value for name, value in changes.items() if value is not None}
        config = from_dict(given, default=config)
        if not self.resume and (self.out / "checkpoint.pt").exists():
            raise InputError(f"{self.out} already holds a training: use --resume, or another --out")
        self._check_outputs()
        torch.manual_seed(config.seed)
        trainer, validation = self.trainer(config)
        run = TrainingLoop(
            trainer,
            validation,
            self.out,
            device=self.device,
            start=self._start(),
            report=_report,
        )
        with locked(self.out, "a training") if run.processes.writes else nullcontext():
            self._train(run, validation, config)

    def _train(self, run: TrainingLoop[Any], validation: ValidationSet, config: RunConfig) -> None:
        if self.resume:
            run.resume()
        elif run.processes.writes and (self.out / "checkpoint.pt").exists():
            raise InputError(f"another training has written to {self.out}: take another --out")
        # Before any writes: all have seen whether there is a checkpoint.
        run.processes.wait()
        if run.processes.writes:
            run.cut_log()
            self._write_config(config)
        with tqdm(
            total=config.steps,
            initial=run.step,
            unit="step",
            disable=not (run.processes.writes and sys.stderr.isatty()),
        ) as bar:

            def progress(done: int) -> None:
                bar.update(done)
                bar.set_postfix({k: f"{v:.3f}" for k, v in run.losses.items()}, refresh=False)

            run.train(checkpoint_minutes=self.checkpoint_minutes, progress=progress)
        if run.processes.writes:
            self._finish(run, validation)

    def inputs(self) -> list[Path | str | None]:
        """Files and folders that are read, besides what a resumed run reads in `out`."""
        # A run is resumed with the configuration that it stored, which stays as it is.
        stored = self.resume and self.config is not None and _same(self.config, self._stored())
        return [self.data, self.validation, self.init, None if stored else self.config]

    def _check_outputs(self) -> None:
        if self.out.is_dir():
            check_outputs([self.out / name for name in _OUTPUTS], self.inputs())

    def _stored(self) -> Path:
        return self.out / "config.json"

    def _start(self) -> Any:
        """The model to begin with, or None."""
        return None if self.init is None else load(self.init, device=self.device)

    def _write_config(self, config: RunConfig) -> None:
        write_text(self._stored(), json.dumps(to_dict(config), indent=2) + "\n")

    def _finish(self, run: TrainingLoop[Any], validation: ValidationSet) -> None:
        best = load(self.out / "best.safetensors", device=self.device)
        fitted = finish(best, validation.to(self.device))
        save(best, self.out / "model.safetensors", half=True)
        fitted |= {"steps": run.step, "seconds": round(run.seconds)}
        write_text(self.out / "fitted.json", json.dumps(fitted, indent=2) + "\n")
        tell(json.dumps(fitted))


class TrainOnJoints(TrainCommand):
    """A model of joints, on poses seen by simulated cameras."""

    def sources(self, config: Any) -> tuple[Simulator, Validation]:
        """Simulated keypoints of the training poses, and of the held-out ones."""
        if self.data == "cmu17":
            world = load_cmu17("train").world
            validation = Validation.from_cmu17(load_cmu17("val"))
        else:
            if self.validation is None:
                raise InputError("own training data needs --validation with held-out poses")
            world = read_world(Path(self.data))
            held_out = Simulator(read_world(self.validation).to(self.device), config.simulator)
            validation = Validation.from_simulator(held_out)
        return Simulator(world.to(self.device), config.simulator), validation


class TrainOnBodies(TrainCommand):
    """A model of bodies, on posed bodies seen by simulated cameras.

    `--data` and `--validation` are AMASS `.npz` files, or folders of them, where not `cmu17`.
    """

    def sources(self, config: Any) -> tuple[BodySimulator, BodyValidation]:
        """Simulated keypoints of the training bodies, and of the held-out ones."""
        if self.data == "cmu17":
            train = load_cmu_body("train")
            theta, shape = train.theta, train.shape
            validation = BodyValidation.from_cmu(load_cmu17("val"), load_cmu_body("val"))
        else:
            if self.validation is None:
                raise InputError("own training data needs --validation with held-out bodies")
            theta, shape = read_bodies(Path(self.data))
            held_out, shapes = (x.to(self.device) for x in read_bodies(self.validation))
            validation = BodyValidation.from_simulator(
                BodySimulator(held_out, shapes, config.simulator)
            )
        simulator = BodySimulator(theta.to(self.device), shape.to(self.device), config.simulator)
        return simulator, validation


#: What trains on each kind of data; images are only imported where they are asked for.
_KINDS = {
    "joints": "cli.train:TrainOnJoints",
    "bodies": "cli.train:TrainOnBodies",
    "images": "cli.train_images:TrainOnImages",
}


def train_command(name: str) -> type[TrainCommand]:
    """The command that trains a model of the registry.

    Args:
        name: Its name there.

    Returns:
        A subclass of what trains on its kind of data, with the registry's summary before the rest
        of that one's description.

    Example:
        >>> train_command("lifting")(Path("out")).default().model.couplings
        8
    """
    entry = REGISTRY[name]
    kind: type[TrainCommand] = resolve(_KINDS[entry.data])
    _, _, notes = inspect.cleandoc(kind.__doc__ or "").partition("\n")
    command = type(
        kind.__name__, (kind,), {"entry": entry, "__doc__": entry.summary + "\n" + notes}
    )
    return dataclass(frozen=True)(command)


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def read_bodies(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Body poses of AMASS `.npz` files.

    Args:
        path: A file, or a folder that is searched with its subfolders.

    Returns:
        Local rotations `(N, 24, 3, 3)`, z up, hands at rest, and average shapes `(N, 10)`: AMASS'
        own coefficients belong to other bodies.

    Raises:
        InputError: If there is no such file, or one cannot be read.
    """
    files = sorted(path.rglob("*.npz")) if path.is_dir() else [path]
    if not files:
        raise InputError(f"{path}: expected AMASS .npz files in this folder, found none")
    theta = torch.cat([read_amass(file).theta for file in files])
    return theta, torch.zeros(len(theta), 10)


def read_world(path: Path) -> torch.Tensor:
    """Poses of an `.npz` file with an array `world`.

    Returns:
        Joints `(N, 17, 3)` in meters, z up, float32.

    Raises:
        InputError: If the file cannot be read or the array has another shape or is not finite.
    """
    try:
        world = read_arrays(path, ("world",))["world"]
    except InputError as error:
        raise InputError(f"{path}: expected an .npz file with an array 'world' ({error})") from None
    if world.ndim != 3 or world.shape[1:] != (17, 3) or len(world) == 0:
        raise InputError(f"{path}: expected 'world' of shape (N, 17, 3), got {world.shape}")
    if world.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected numbers in 'world', got {world.dtype}")
    # What exceeds float32 becomes infinite here.
    with np.errstate(over="ignore"):
        single = world.astype(np.float32)
    if not np.isfinite(single).all():
        frame = int(np.argwhere(~np.isfinite(single))[0, 0])
        raise InputError(f"{path}: expected finite joints, got NaN or infinity in frame {frame}")
    return torch.from_numpy(single)


def _report(step: int, losses: dict[str, float], scores: Scores) -> None:
    parts = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
    tqdm.write(
        f"step {step}: {parts} | val point {scores.point:.1f} mm energy {scores.energy:.2f} mm",
        file=sys.stdout,
    )
    sys.stdout.flush()
