"""The training loop: phases, weight averaging, log, checkpoints, resuming."""

from __future__ import annotations

import csv
import io
import math
import textwrap
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..configuration import to_dict
from ..distributions.recalibration import BaseRecalibration, Recalibration
from ..errors import InputError
from ..io.atomic import write_text
from ..io.files import read_text
from ..weights.store import save
from .checkpoint import read_checkpoint, write_checkpoint
from .configs import RunConfig
from .parallel import Processes
from .validation import Scores

Model = TypeVar("Model", bound=nn.Module)


#: Bytes; a row has a hundred or two.
_LONGEST_LOG = 1 << 28


class Trainer(Protocol[Model]):
    """What a run needs of a model's training: its losses and which parameters they move.

    Attributes:
        model: The model that is trained, in place.
        config: The run.
        terms: Names of the losses, the columns of the log.
    """

    model: Model
    config: Any
    terms: tuple[str, ...]

    @property
    def steps_per_round(self) -> int:
        """How many steps a round counts as."""

    def prepare(self) -> None:
        """Fits what is fitted to data before the first step."""

    def set_rate(self, factor: float) -> None:
        """Sets all learning rates to `factor` times their peak."""

    def updates(self) -> list[Callable[[], dict[str, float]]]:
        """The updates of one round, each giving its losses by name."""

    def parts(self) -> dict[str, Any]:
        """Everything with a `state_dict`, by name."""

    def generators(self) -> dict[str, torch.Generator]:
        """Everything random, by name."""

    def shared(self) -> AbstractContextManager[None]:
        """While this lasts, updates are those of all processes of the run together."""


class ValidationSet(Protocol):
    """What a run is watched by."""

    def to(self, device: torch.device | str) -> Any:
        """The same pairs on another device."""

    def fit(self, model: Any) -> None:
        """Sets what is fitted on held-out pairs each time the model is scored."""

    def fit_temperature(self, model: Any) -> float:
        """Sets the base's temperature, and returns it."""

    def scores(self, model: Any) -> Scores:
        """Scores of a model in evaluation mode."""

    def calibration_error(self, model: Any) -> float:
        """Calibration error of its distributions."""


class TrainingLoop(Generic[Model]):
    """A training run in a folder.

    The folder holds `checkpoint.pt` (everything, for `resume`), `best.safetensors` (the average
    weights of the best validation energy score), `last.safetensors` and `log.csv`. Inside a process
    group (`parallel.process_group`) all processes train one model; the first one validates and
    writes.

    Args:
        trainer: The model's training; its configuration is the run's.
        validation: Held-out pairs; chooses the weights that are kept, never trained on.
        folder: Where to write; made if missing.
        device: Where model and data live.
        start: Model of the same configuration whose weights the run begins with.
        report: Called with (step, losses, scores) after each validation.
    """

    def __init__(
        self,
        trainer: Trainer[Model],
        validation: ValidationSet,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        start: Model | None = None,
        report: Callable[[int, dict[str, float], Scores], None] | None = None,
    ) -> None:
        self.trainer = trainer
        self.config: RunConfig = trainer.config
        self.folder = folder
        self.device = torch.device(device)
        self.validation = validation.to(device)
        self.report = report
        if start is None:
            trainer.prepare()
        else:
            _copy_weights(start, trainer.model)
        self.processes = Processes.current()
        self.processes.check(self.config.batch_size)
        self.processes.align(*(p for p in trainer.parts().values() if isinstance(p, nn.Module)))
        self.processes.reseed(self.config.seed, 0)
        self.average = AveragedModel(
            trainer.model, multi_avg_fn=get_ema_multi_avg_fn(self.config.average), use_buffers=False
        )
        self.step = 0
        self.seconds = 0.0
        self.best = math.inf
        self.losses: dict[str, float] = {}
        self._rows: list[dict[str, Any]] = []
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def model(self) -> Model:
        """The averaged model, in evaluation mode, with the buffers of the trained one."""
        average = cast(Model, self.average.module)
        for name, buffer in self.trainer.model.named_buffers():
            average.get_buffer(name).copy_(buffer)
        return average.eval()

    def train(
        self,
        *,
        checkpoint_minutes: float = 5.0,
        progress: Callable[[int], None] | None = None,
    ) -> Scores:
        """Trains to the end of the run and keeps the best weights.

        Args:
            checkpoint_minutes: A kill loses at most this much.
            progress: Called with the number of steps done since the last call.

        Returns:
            Scores of the last validation; NaN where there was nothing left to train.
        """
        if self.processes.writes:
            self.cut_log()
        saved = begun = time.monotonic()
        before = self.seconds
        scores = Scores(math.nan, math.nan)
        with self.trainer.shared():
            while self.step < self.config.steps:
                done = self._round()
                self.seconds = before + time.monotonic() - begun
                if progress is not None:
                    progress(done)
                end = self.step >= self.config.steps
                every = self.config.validate
                if end or self.step // every != (self.step - done) // every:
                    scores = self._validate()
                if self.processes.writes and (
                    end or time.monotonic() - saved > 60 * checkpoint_minutes
                ):
                    self.checkpoint()
                    saved = time.monotonic()
        return scores

    def checkpoint(self) -> None:
        """Writes `checkpoint.pt`."""
        trainer = self.trainer
        state: dict[str, Any] = {
            "format": "propose_prob.checkpoint/1",
            "config": to_dict(self.config),
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "losses": self.losses,
            "average": self.average.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self._on_gpu else None,
            "generators": {n: g.get_state() for n, g in trainer.generators().items()},
            "parts": {name: part.state_dict() for name, part in trainer.parts().items()},
        }
        write_checkpoint(state, self.folder / "checkpoint.pt")

    def resume(self) -> None:
        """Continues from `checkpoint.pt`, to the same numbers as an unbroken run.

        Raises:
            InputError: If there is none, or it is of another configuration.
        """
        path = self.folder / "checkpoint.pt"
        state = read_checkpoint(path)
        ours, theirs = to_dict(self.config), state.get("config")
        if not isinstance(theirs, dict):
            raise InputError(f"{path}: expected a checkpoint with a configuration, got none")
        if theirs != ours:
            changed = sorted(key for key in ours if ours[key] != theirs.get(key))
            raise InputError(
                f"the checkpoint in {self.folder} is of another configuration: "
                f"{', '.join(changed)} differ"
            )
        try:
            self._restore(state)
        # What torch raises where a state is not one of these parts.
        except (AttributeError, IndexError, LookupError, RuntimeError, TypeError) as error:
            reason = textwrap.shorten(str(error), 160) or type(error).__name__
            raise InputError(
                f"{path}: expected the state of this training, got another ({reason})"
            ) from None
        # What it holds may be wrong in a way that this alone tells.
        except ValueError as error:
            raise InputError(f"{path}: {textwrap.shorten(str(error), 160)}") from None
        self.processes.reseed(self.config.seed, self.step)
        if self.processes.writes:
            self.cut_log()

    def _restore(self, state: dict[str, Any]) -> None:
        counted = _counted(state, self.config.steps + self.trainer.steps_per_round)
        for name in ("parts", "generators"):
            if not isinstance(state[name], dict):
                raise ValueError(f"expected {name} by name, got {type(state[name]).__name__}")
        for name, part in self.trainer.parts().items():
            part.load_state_dict(state["parts"][name])
        self.average.load_state_dict(state["average"])
        self.step, self.seconds, self.best, self.losses = counted
        torch.set_rng_state(state["rng"])
        if self._on_gpu and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        for name, generator in self.trainer.generators().items():
            generator.set_state(state["generators"][name])

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def _round(self) -> int:
        """One turn of both phases (Algorithm 1), or one end-to-end batch; returns its steps."""
        config, trainer = self.config, self.trainer
        warmup = max(1, int(config.warmup * config.steps))
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / config.steps))
        trainer.set_rate(max(0.003, min(1.0, (self.step + 1) / warmup) * cosine))
        rounds = trainer.updates()
        for i, step in enumerate(rounds):
            for name, value in step().items():
                self.losses[name] = 0.98 * self.losses.get(name, value) + 0.02 * value
            if i % 2 == 1 or len(rounds) == 1:
                self.average.update_parameters(trainer.model)
        self.step += trainer.steps_per_round
        return trainer.steps_per_round

    def _validate(self) -> Scores:
        losses = self.processes.mean(self.losses)
        if not self.processes.writes:
            return Scores(math.nan, math.nan)
        model = self.model
        self.validation.fit(model)
        scores = self.validation.scores(model)
        save(model, self.folder / "last.safetensors")
        if scores.energy < self.best:
            self.best = scores.energy
            save(model, self.folder / "best.safetensors")
        self._log(scores, losses)
        if self.report is not None:
            self.report(self.step, losses, scores)
        return scores

    def _log(self, scores: Scores, losses: dict[str, float]) -> None:
        row = {"step": self.step, "seconds": round(self.seconds, 1), **losses}
        row |= {"val_point_mm": scores.point, "val_energy_mm": scores.energy}
        self._rows.append(row)
        self._write_log()

    def _write_log(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._log_fields(), restval="")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self.folder / "log.csv", text.getvalue())

    def _log_fields(self) -> list[str]:
        return ["step", "seconds", *self.trainer.terms, "val_point_mm", "val_energy_mm"]

    def cut_log(self) -> None:
        """Drops rows that a killed run logged after its last checkpoint, or without one.

        Raises:
            InputError: If the folder holds another log.
        """
        path = self.folder / "log.csv"
        if not path.exists():
            return
        rows = _read_log(path, self._log_fields())
        self._rows = [row for row in rows if int(row["step"]) <= self.step]
        if len(self._rows) < len(rows):
            self._write_log()


def _counted(state: dict[str, Any], most: int) -> tuple[int, float, float, dict[str, float]]:
    """Steps, seconds, best score and losses of a checkpoint.

    Raises:
        ValueError: If one is not a number that a run could have come to.
        KeyError: If one is missing.
    """
    step, seconds, best, losses = (state[name] for name in ("step", "seconds", "best", "losses"))
    if type(step) is not int or not 0 <= step <= most:
        raise ValueError(f"expected a step of 0 to {most}, got {step!r}")
    if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
        raise ValueError(f"expected seconds of at least 0, got {seconds!r}")
    if type(best) not in (int, float) or not best > -math.inf:
        raise ValueError(f"expected a number as best score, got {best!r}")
    if not isinstance(losses, dict) or not all(
        type(name) is str and type(value) is float for name, value in losses.items()
    ):
        raise ValueError("expected losses as numbers by name")
    return step, float(seconds), float(best), dict(losses)


def _read_log(path: Path, fields: list[str]) -> list[dict[str, Any]]:
    """The rows of a log.

    Raises:
        InputError: If it is not one of this training.
    """
    text = read_text(path, "the log of a training", most=_LONGEST_LOG)
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = list(reader)
        names = reader.fieldnames
        whole = all(None not in row and None not in row.values() for row in rows)
        steps = [int(row["step"]) for row in rows] if names == fields and whole else None
    except (ValueError, csv.Error):
        steps = None
    if steps is None:
        raise InputError(
            f"{path}: expected the log of such a training, with columns {', '.join(fields)}; take "
            "another --out, or move the file away"
        )
    return rows


def _copy_weights(start: nn.Module, model: nn.Module) -> None:
    ours, theirs = getattr(model, "config", None), getattr(start, "config", None)
    if type(start) is not type(model) or ours != theirs:
        raise InputError(
            f"expected to start from a model of this configuration, {ours}, got {theirs}"
        )
    model.load_state_dict(start.state_dict())
    # Fitted to the finished model, and fitted again to this run's.
    for name, buffer in model.named_buffers():
        if name.endswith("base.temperature"):
            buffer.fill_(1.0)
    for module in model.modules():
        if isinstance(module, (Recalibration, BaseRecalibration)):
            module.reset()


def finish(model: Model, validation: ValidationSet) -> dict[str, float]:
    """Fits on held-out pairs what is fitted there, the last step of a training.

    The base's temperature, and of a decoded distribution the observation noise.

    Returns:
        The fitted values and the scores, for the model card.
    """
    validation.fit(model)
    temperature = validation.fit_temperature(model)
    scores = validation.scores(model)
    fitted = {
        "temperature": temperature,
        "val_calibration_error": validation.calibration_error(model),
        "val_point_mm": scores.point,
        "val_energy_mm": scores.energy,
    }
    noise = getattr(model, "noise_scale", None)
    return fitted if noise is None else fitted | {"noise_mm": 1e3 * noise.mean().item()}
