"""Data-parallel training under torchrun.

Every process draws the same whole batch and keeps its own rows, so that data and checkpoints do not
depend on the number of processes; gradients are averaged before they are clipped and applied.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..devices import environment_number, launched_as
from ..errors import InputError

__all__ = ["Processes", "SharedTrainer", "launched", "process_group"]

Batch = TypeVar("Batch")


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

    def share(self, trainer: Any) -> None:
        """Makes a trainer that is prepared train together with those of the other processes.

        Args:
            trainer: A `Trainer` that takes its rows of each batch (`SharedTrainer`).

        Raises:
            InputError: If its batches cannot be shared out evenly.
        """
        if self.count == 1:
            return
        size = trainer.config.batch_size
        if size % self.count:
            raise InputError(
                f"batch_size {size} cannot be shared out evenly to {self.count} processes"
            )
        for part in trainer.parts().values():
            if isinstance(part, nn.Module):
                for tensor in part.state_dict().values():
                    dist.broadcast(tensor, 0)
                _Averager(part, self.count)

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

    @abstractmethod
    def _draw(self) -> Any:
        """The next batch, the same in every process."""

    def _batch(self) -> Any:
        """This process's rows of the next batch."""
        return self.processes.rows(self._draw(), self.config.batch_size)


class _Averager:
    """Averages the gradients of a module over processes at the end of each backward pass.

    One collective call for each pass: the parameters' gradients, and which of them have one, lie
    behind one another. A parameter without a gradient here may have one elsewhere.
    """

    def __init__(self, module: nn.Module, count: int) -> None:
        self.parameters = [p for p in module.parameters() if p.is_floating_point()]
        self.count = count
        self.queued = False
        for parameter in self.parameters:
            parameter.register_post_accumulate_grad_hook(self._queue)

    def _queue(self, parameter: Tensor) -> None:
        if not self.queued:
            self.queued = True
            torch.autograd.Variable._execution_engine.queue_callback(self._average)

    @torch.no_grad()
    def _average(self) -> None:
        self.queued = False
        grads = [p.grad for p in self.parameters]
        has = torch.tensor([float(g is not None) for g in grads], device=self.parameters[0].device)
        flat = [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(self.parameters, grads, strict=True)
        ]
        together = torch.cat([has, *flat])
        dist.all_reduce(together)
        anywhere, *means = together.split([len(has), *(len(f) for f in flat)])
        for parameter, mean, known in zip(self.parameters, means, anywhere.tolist(), strict=True):
            if known:
                parameter.grad = (mean / self.count).view_as(parameter)


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
    # optimisers do: the group's threads would outlive it, and abort the process as it ends
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
