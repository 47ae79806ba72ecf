"""Options shared by several commands."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from .. import __version__
from ..devices import check_device, set_threads
from ..errors import InputError
from .output import printable

__all__ = [
    "DEFAULT_MODEL",
    "Runtime",
    "RuntimeOptions",
    "at_least",
    "model_file",
    "model_name",
    "prepare_drawing",
    "progress",
    "run_attributes",
]

DEFAULT_MODEL = "propose-cmu17"

T = TypeVar("T")


@dataclass(frozen=True)
class RuntimeOptions:
    """Where a command runs.

    Attributes:
        threads: CPU threads. More of them pay only on idle cores: on a busy machine they are
            slower.
        device: Where the model runs: cpu, cuda, cuda:1, ...
        seed: Seed of everything random: the same command prints the same numbers.
    """

    threads: int = 1
    device: str = "cpu"
    seed: int = 0

    def load(self, model: str) -> Any:
        """Set up torch and load a model.

        Args:
            model: Name of a shipped model or path of a file.

        Returns:
            The model on the device, in evaluation mode; one of body pose as a lifter of joints.

        Raises:
            InputError: If the device cannot be used or the model cannot be loaded.
        """
        at_least(self.seed, 0, "--seed")
        import torch

        from ..weights import load

        set_threads(self.threads)
        check_device(self.device)
        loaded = load(model, device=self.device)
        # Afterwards: building the model draws initial weights that loading replaces.
        torch.manual_seed(self.seed)
        from ..models import ProHMR, ProHMRJoints

        if isinstance(loaded, ProHMR):
            loaded = ProHMRJoints(loaded).to(self.device).eval()
        return loaded


Runtime = Annotated[RuntimeOptions, tyro.conf.arg(name="")]
"""`RuntimeOptions` as a field of a command, its options without a prefix."""


def at_least(value: float, least: float, option: str) -> None:
    """Check a number given on the command line.

    Raises:
        InputError: If `value` is smaller than `least`.
    """
    if not value >= least:
        raise InputError(f"expected {option} of at least {least}, got {value}")


def progress(items: Iterable[T] | None, *, total: int | None, unit: str) -> Any:
    """A progress bar on the standard error, silent where that is not a terminal."""
    from tqdm import tqdm

    return tqdm(items, total=total, unit=unit, disable=None, file=sys.stderr, dynamic_ncols=True)


def prepare_drawing() -> None:
    """Have matplotlib draw as the user set it up, whatever lies in the working folder.

    Raises:
        InputError: If matplotlib is missing.
    """
    from ..plotting.figures import require_matplotlib

    require_matplotlib()
    # It takes its settings from the working folder first, which may be full of others' data, and
    # among them are programs to run.
    if Path("matplotlibrc").exists():
        import matplotlib

        matplotlib.rcdefaults()


def model_file(model: str) -> Path:
    """The file that a model is read from: one that ships with the package, or the path itself."""
    shipped = resources.files("propose_prob.weights") / f"{Path(model).name}.safetensors"
    # Packages that are read from an archive are unpacked by no one who installs this one.
    if Path(model).name == model and shipped.is_file():
        return Path(str(shipped))
    return Path(model)


def model_name(model: str) -> str:
    """A model as output files name it: its name, or its file's name without folders."""
    return printable(Path(model).name)


def run_attributes(model: str, protocol: str) -> dict[str, str | int | float]:
    """What every output file says about how it was made."""
    import torch

    return {
        "model": model_name(model),
        "protocol": protocol,
        "propose_prob_version": __version__,
        "torch_version": str(torch.__version__),
        "inference_library": "propose_prob",
    }
