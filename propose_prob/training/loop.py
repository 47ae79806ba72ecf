"""The training loop: phases in turn, average weights, log, checkpoints, resume."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..data.simulate import Simulator
from ..errors import InputError
from ..models.propose import ProPose
from ..weights.store import save
from .checkpoint import read_checkpoint, write_checkpoint
from .config import TrainConfig, to_dict
from .propose import ProPoseTrainer
from .validation import Scores, Validation

_LOG_FIELDS = (
    "step", "seconds", "recon3d", "kl", "adversarial", "discriminator", "best_of", "random",
    "energy", "recon2d", "nll", "mode_to_mode", "val_point_mm", "val_energy_mm",
)  # fmt: skip


class Run:
    """A training run in a folder.

    The folder holds `checkpoint.pt` (everything, for `resume`), `best.safetensors` (the average
    weights of the best validation energy score), `last.safetensors` and `log.csv`.

    Args:
        config: The run.
        simulator: Source of training pairs.
        validation: Held-out pairs; chooses the weights that are kept, never trained on.
        folder: Where to write; made if missing.
        device: Where to train.
        start: Model of the same configuration whose weights the run begins with.
        report: Called with (step, losses, scores) after each validation.
    """

    def __init__(
        self,
        config: TrainConfig,
        simulator: Simulator,
        validation: Validation,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        start: ProPose | None = None,
        report: Callable[[int, dict[str, float], Scores], None] | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.device = torch.device(device)
        self.validation = validation.to(device)
        self.report = report
        torch.manual_seed(config.seed)
        model = ProPose(config.model).to(device)
        self.trainer = ProPoseTrainer(model, config, simulator, device)
        if start is None:
            self.trainer.fit_standardiser()
        else:
            _copy_weights(start, model)
        self.average = AveragedModel(
            model, multi_avg_fn=get_ema_multi_avg_fn(config.average), use_buffers=False
        )
        self.step = 0
        self.seconds = 0.0
        self.best = math.inf
        self.losses: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def model(self) -> ProPose:
        """The averaged model, in evaluation mode, with the buffers of the trained one."""
        average = cast(ProPose, self.average.module)
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
        saved = begun = time.monotonic()
        before = self.seconds
        scores = Scores(math.nan, math.nan)
        while self.step < self.config.steps:
            done = self._round()
            self.seconds = before + time.monotonic() - begun
            if progress is not None:
                progress(done)
            end = self.step >= self.config.steps
            if (
                end
                or self.step // self.config.validate != (self.step - done) // self.config.validate
            ):
                scores = self._validate()
            if end or time.monotonic() - saved > 60 * checkpoint_minutes:
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
            "generator": trainer.generator.get_state(),
            "gate": trainer.gate_generator.get_state(),
            **{name: part.state_dict() for name, part in self._parts().items()},
        }
        write_checkpoint(state, self.folder / "checkpoint.pt")

    def resume(self) -> None:
        """Continues from `checkpoint.pt`, to the same numbers as an unbroken run.

        Raises:
            InputError: If there is none, or it is of another configuration.
        """
        state = read_checkpoint(self.folder / "checkpoint.pt")
        if state["config"] != to_dict(self.config):
            ours, theirs = to_dict(self.config), state["config"]
            changed = sorted(key for key in ours if ours[key] != theirs.get(key))
            raise InputError(
                f"the checkpoint in {self.folder} is of another configuration: "
                f"{', '.join(changed)} differ"
            )
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.average.load_state_dict(state["average"])
        self.step, self.seconds, self.best = state["step"], state["seconds"], state["best"]
        self.losses = state["losses"]
        torch.set_rng_state(state["rng"])
        if self._on_gpu and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.trainer.generator.set_state(state["generator"])
        self.trainer.gate_generator.set_state(state["gate"])
        self._cut_log()

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def _parts(self) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "model": trainer.model,
            "discriminator": trainer.discriminator,
            "optimiser1": trainer.optimiser1,
            "optimiser2": trainer.optimiser2,
            "optimiser_d": trainer.optimiser_d,
        }

    def _round(self) -> int:
        """One turn of both phases (Algorithm 1), or one end-to-end batch; returns its steps."""
        config, trainer = self.config, self.trainer
        warmup = max(1, int(config.warmup * config.steps))
        cosine = 0.5 * (1 + math.cos(math.pi * self.step / config.steps))
        trainer.set_rate(max(0.003, min(1.0, (self.step + 1) / warmup) * cosine))
        if config.schedule == "end_to_end":
            rounds = [trainer.step_end_to_end]
            done = 1
        else:
            rounds = [trainer.step1] * config.phase1 + [trainer.step2] * config.phase2
            done = config.phase2
        for i, step in enumerate(rounds):
            for name, value in step().items():
                self.losses[name] = 0.98 * self.losses.get(name, value) + 0.02 * value
            if i % 2 == 1 or len(rounds) == 1:
                self.average.update_parameters(trainer.model)
        self.step += done
        return done

    def _validate(self) -> Scores:
        model = self.model
        self.validation.fit_noise_scale(model)
        scores = self.validation.scores(model)
        save(model, self.folder / "last.safetensors")
        if scores.energy < self.best:
            self.best = scores.energy
            save(model, self.folder / "best.safetensors")
        self._log(scores)
        if self.report is not None:
            self.report(self.step, self.losses, scores)
        return scores

    def _log(self, scores: Scores) -> None:
        path = self.folder / "log.csv"
        new = not path.exists()
        row = {"step": self.step, "seconds": round(self.seconds, 1), **self.losses}
        row |= {"val_point_mm": scores.point, "val_energy_mm": scores.energy}
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, _LOG_FIELDS, restval="")
            if new:
                writer.writeheader()
            writer.writerow(row)

    def _cut_log(self) -> None:
        """Drops rows that a killed run logged after its last checkpoint."""
        path = self.folder / "log.csv"
        if path.exists():
            with path.open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= self.step]
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, _LOG_FIELDS)
                writer.writeheader()
                writer.writerows(rows)


def _copy_weights(start: ProPose, model: ProPose) -> None:
    if start.config != model.config:
        raise InputError(
            f"expected to start from a model of this configuration, {model.config}, "
            f"got {start.config}"
        )
    model.load_state_dict(start.state_dict())
    # Fitted to the finished model, and fitted again to this run's.
    model.flow.base.temperature.fill_(1.0)


def finish(model: ProPose, validation: Validation) -> dict[str, float]:
    """Fits observation noise and temperature on held-out pairs, the last step of a training.

    Returns:
        The fitted values and the scores, for the model card.
    """
    validation.fit_noise_scale(model)
    temperature = validation.fit_temperature(model)
    scores = validation.scores(model)
    return {
        "temperature": temperature,
        "noise_mm": 1e3 * model.noise_scale.mean().item(),
        "val_calibration_error": validation.calibration_error(model),
        "val_point_mm": scores.point,
        "val_energy_mm": scores.energy,
    }
