"""Data-parallel training under torchrun.

Every process draws the same whole batch and keeps its own rows, so that data and checkpoints do not
depend on the number of processes; gradients are averaged before they are clipped and applied.
"""

from __future__ import annotations

import dataclasses
import gc
import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..devices import environment_number, launched_as
from ..errors import InputError

__all__ = ["Processes", "SharedTrainer", "launched", "process_group"]

Batch = TypeVar("Batch")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """The processes of a run.

    Attributes:
        rank: Number of this one.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Processes:
        """Those of the process group that was set up, or this one alone."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def writes(self) -> bool:
        """Whether this process validates, reports and writes files."""
        return self.rank == 0

    def check(self, batch_size: int) -> None:
        """Whether batches can be shared out evenly.

        Raises:
            InputError: If they cannot.
        """
        if batch_size % self.count:
            raise InputError(
                f"batch_size {batch_size} cannot be shared out evenly to {self.count} processes"
            )

    def align(self, *modules: nn.Module) -> None:
        """Gives modules of all processes the parameters and buffers of the first one."""
        if self.count > 1:
            for module in modules:
                for tensor in module.state_dict().values():
                    dist.broadcast(tensor, 0)

    def rows(self, batch: Batch, size: int) -> Batch:
        """This process's rows of a batch: of each of its tensors of that many rows."""
        return batch if self.count == 1 else _rows(batch, slice(self.rank, size, self.count), size)

    def reseed(self, seed: int, step: int) -> None:
        """Gives dropout and sampling of the processes other than the first their own numbers."""
        if self.rank:
            torch.manual_seed(hash((seed, step, self.rank)) % 2**63)

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The mean over processes of values by name; all processes have to call it."""
        if self.count == 1:
            return values
        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, values)
        names = {name: None for each in found for name in each}
        return {
            name: sum(own := [each[name] for each in found if name in each]) / len(own)
            for name in names
        }

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


class SharedTrainer(ABC):
    """A trainer whose batches all processes draw alike, each to train on its own rows.

    Attributes:
        config: The run.
        processes: Those of the group that there is when the trainer is made.
    """

    config: Any

    def __init__(self) -> None:
        self.processes = Processes.current()
        self._shared: dict[nn.Module, DistributedDataParallel] = {}

    @abstractmethod
    def parts(self) -> dict[str, Any]:
        """Everything with a `state_dict`."""

    @contextmanager
    def shared(self) -> Iterator[None]:
        """While this lasts, steps average gradients over processes."""
        if self.processes.count > 1:
            for part in self.parts().values():
                if isinstance(part, nn.Module):
                    # Losses differ from step to step, and phases move different parameters.
                    self._shared[part] = DistributedDataParallel(
                        _Forward(part), find_unused_parameters=True, broadcast_buffers=False
                    )
        try:
            yield
        finally:
            # They hold the group, whose threads may not outlive it; see `process_group`.
            self._shared.clear()
            if self.processes.count > 1:
                gc.collect()

    @abstractmethod
    def _draw(self) -> Any:
        """The next batch, the same in every process."""

    def _batch(self) -> Any:
        """This process's rows of the next batch."""
        return self.processes.rows(self._draw(), self.config.batch_size)

    def _together(self, module: nn.Module, losses: Callable[..., Value], *args: Any) -> Value:
        """Losses of which one backward pass averages the gradients of a module over processes.

        Args:
            module: A part of this trainer; of others that the losses depend on, gradients stay
                those of this process.
            losses: Gives tensors, all of which go into what is differentiated, or are detached.
            *args: Its arguments.
        """
        if self.processes.count == 1:
            return losses(*args)
        return self._shared[module](losses, *args)


class _Forward(nn.Module):
    """Makes any function of a module its forward pass, which is what torch prepares for."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, function: Callable[..., Value], *args: Any) -> Value:
        return function(*args)


def _rows(value: Any, rows: slice, size: int) -> Any:
    """The same structure with some rows of each tensor whose first axis is the batch."""
    if isinstance(value, Tensor):
        return value[rows] if value.dim() and len(value) == size else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_rows(field, rows, size) for field in value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {
            f.name: _rows(getattr(value, f.name), rows, size) for f in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    return value


def launched() -> bool:
    """Whether `torchrun` started this process as one of several.

    Raises:
        InputError: If `WORLD_SIZE` and `RANK` are not as it sets them.
    """
    return launched_as()[1] > 1


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """The process group of `torchrun`, where there is one: gloo on CPUs, nccl on GPUs.

    Args:
        device: `cpu` or `cuda`.

    Yields:
        The device of this process: on GPUs, the one of its local rank.

    Raises:
        InputError: If the environment is not as `torchrun` sets it.
    """
    if not launched():
        yield device
        return
    if "MASTER_ADDR" not in os.environ:
        raise InputError("expected the environment to set MASTER_ADDR, as torchrun does, got none")
    environment_number("MASTER_PORT", 0, 65535)
    # Its functions' defaults hold the group that there is when it is first imported, which the
    # optimizers do: the group's threads would outlive it, and abort the process as it ends
    # (pytorch/pytorch#190489).
    importlib.import_module("torch.distributed.nn.functional")
    on_gpu = device.startswith("cuda")
    if on_gpu:
        device = f"cuda:{environment_number('LOCAL_RANK', 0, launched_as()[1] - 1)}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield device
        # None takes its connections down while another one still writes results.
        dist.barrier()
    finally:
        dist.destroy_process_group()
