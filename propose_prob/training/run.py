"""Training from the command line: `propose-prob train propose`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..data.cmu17 import load_cmu17
from ..data.simulate import Simulator
from ..devices import check_device
from ..errors import InputError
from ..weights.store import load, save
from .config import TrainConfig, from_dict, read_config, to_dict
from .loop import Run, finish
from .validation import Scores, Validation


@dataclass(frozen=True)
class TrainCommand:
    """Train ProPose on motion capture, seen by simulated cameras.

    Attributes:
        out: Folder for the checkpoint, the log and the trained weights.
        data: `cmu17`, or an `.npz` file with `world` (N, 17, 3): joints in metres, z up.
        validation: An `.npz` file of the same form with held-out poses; needed for own data.
        config: A JSON file with any part of the configuration; flags below change it further.
        steps: Batches of phase 2, or of the only phase end to end.
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

    def run(self) -> None:
        """Trains, then fits observation noise and temperature, then writes `model.safetensors`.

        Raises:
            InputError: If the data, the configuration or the checkpoint cannot be used.
        """
        torch.set_num_threads(self.threads)
        check_device(self.device)
        config = TrainConfig() if self.config is None else read_config(self.config)
        changes = {"steps": self.steps, "seed": self.seed}
        given = {name: value for name, value in changes.items() if value is not None}
        config = from_dict(given, default=config)
        if not self.resume and (self.out / "checkpoint.pt").exists():
            raise InputError(f"{self.out} already holds a training: use --resume, or another --out")
        simulator, validation = self._data(config)
        start = None if self.init is None else load(self.init, device=self.device)
        run = Run(
            config, simulator, validation, self.out, device=self.device, start=start, report=_report
        )
        if self.resume:
            run.resume()
        (self.out / "config.json").write_text(json.dumps(to_dict(config), indent=2) + "\n")
        with tqdm(
            total=config.steps, initial=run.step, unit="step", disable=not sys.stderr.isatty()
        ) as bar:

            def progress(done: int) -> None:
                bar.update(done)
                bar.set_postfix({k: f"{v:.3f}" for k, v in run.losses.items()}, refresh=False)

            run.train(checkpoint_minutes=self.checkpoint_minutes, progress=progress)
        best = load(self.out / "best.safetensors", device=self.device)
        fitted = finish(best, validation.to(self.device))
        save(best, self.out / "model.safetensors", half=True)
        fitted |= {"steps": run.step, "seconds": round(run.seconds)}
        (self.out / "fitted.json").write_text(json.dumps(fitted, indent=2) + "\n")
        print(json.dumps(fitted))

    def _data(self, config: TrainConfig) -> tuple[Simulator, Validation]:
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


def read_world(path: Path) -> torch.Tensor:
    """Poses of an `.npz` file with an array `world`.

    Returns:
        Joints `(N, 17, 3)` in metres, z up, float32.

    Raises:
        InputError: If the file cannot be read or the array has another shape or is not finite.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            world = file["world"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected an .npz file with an array 'world' ({error})") from None
    if world.ndim != 3 or world.shape[1:] != (17, 3) or len(world) == 0:
        raise InputError(f"{path}: expected 'world' of shape (N, 17, 3), got {world.shape}")
    if not np.isfinite(world).all():
        frame = int(np.argwhere(~np.isfinite(world))[0, 0])
        raise InputError(f"{path}: expected finite joints, got NaN or infinity in frame {frame}")
    return torch.from_numpy(world.astype(np.float32))


def _report(step: int, losses: dict[str, float], scores: Scores) -> None:
    parts = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
    tqdm.write(
        f"step {step}: {parts} | val point {scores.point:.1f} mm energy {scores.energy:.2f} mm",
        file=sys.stdout,
    )
    sys.stdout.flush()
