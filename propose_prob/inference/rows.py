"""Rows of a model: the same program over some of its independent problems.

A Pyro model over B problems holds tensors with B rows in its arguments, in what it closes over, and
deep within laws. To drop problems that are solved, or to bound memory, the program has to run on
some rows only. Its data structures are copied for that, with the rows taken out of every tensor
that has them; networks, bodies and other modules are shared by all problems and stay as they are.
"""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

__all__ = ["Replace", "row_tensors", "take_rows"]


class Replace:
    """Copies a structure with its tensors and modules replaced, and leaves the original alone.

    Looks into lists, tuples, dictionaries, dataclasses, `functools.partial`, what functions close
    over, and laws and transforms. Everything else is opaque and comes back as it is. What occurs
    twice is copied once.

    Args:
        tensor: Gives the replacement of a tensor that is no parameter of a module; its second
            argument tells whether the tensor belongs to a transform.
        parameter: Gives the replacement of a parameter that a law holds.
        module: Gives the replacement of a module.
        rows: Old and new number of rows: batch shapes of laws that start with the one start with
            the other in the copy.
    """

    def __init__(
        self,
        tensor: Callable[[Tensor, bool], Tensor],
        *,
        parameter: Callable[[Tensor], Tensor] = lambda x: x.detach(),
        module: Callable[[nn.Module], nn.Module] = lambda x: x,
        rows: tuple[int, int] | None = None,
    ) -> None:
        self._tensor = tensor
        self._parameter = parameter
        self._module = module
        self._rows = rows
        # With the original, so that no other object gets its id.
        self._done: dict[int, tuple[Any, Any]] = {}

    def __call__(self, x: Any, *, in_transform: bool = False) -> Any:
        """The copy; the original where nothing in it is replaced and nothing can be."""
        if id(x) in self._done:
            return self._done[id(x)][1]
        if isinstance(x, Tensor):
            shared = isinstance(x, nn.Parameter)
            return self._keep(x, self._parameter(x) if shared else self._tensor(x, in_transform))
        if isinstance(x, nn.Module):
            return self._keep(x, self._module(x))
        if isinstance(x, (list, tuple)) and not isinstance(x, torch.Size):
            parts = [self(part, in_transform=in_transform) for part in x]
            if isinstance(x, tuple) and hasattr(x, "_fields"):
                return self._keep(x, type(x)(*parts))
            return self._keep(x, type(x)(parts))
        if isinstance(x, dict):
            items = {key: self(part, in_transform=in_transform) for key, part in x.items()}
            return self._keep(x, items)
        if isinstance(x, functools.partial):
            function, arguments = self(x.func), self(list(x.args), in_transform=in_transform)
            return self._keep(x, functools.partial(function, *arguments, **self(x.keywords)))
        if isinstance(x, types.MethodType):
            return self._keep(x, types.MethodType(x.__func__, self(x.__self__)))
        if isinstance(x, types.FunctionType):
            return self._function(x)
        if isinstance(x, (Distribution, Transform)) or (
            dataclasses.is_dataclass(x) and not isinstance(x, type)
        ):
            return self._object(x)
        return x

    def _keep(self, old: Any, new: Any) -> Any:
        self._done[id(old)] = (old, new)
        return new

    def _object(self, x: Any) -> Any:
        new = self._keep(x, object.__new__(type(x)))
        inside = isinstance(x, Transform)
        for name, value in vars(x).items():
            if name == "_inv" and not isinstance(value, Transform):
                value = None  # A weak reference to the inverse, made again on demand.
            new.__dict__[name] = self(value, in_transform=inside)
        if isinstance(x, Distribution):
            # A trial step that leaves the support is refused, and must not end the whole batch.
            new.__dict__["_validate_args"] = False
            if self._rows is not None and x.batch_shape[:1] == (self._rows[0],):
                batch = torch.Size((self._rows[1], *x.batch_shape[1:]))
                new.__dict__["_batch_shape"] = batch
        return new

    def _function(self, x: types.FunctionType) -> Any:
        if not x.__closure__:
            return x
        cells = [types.CellType() for _ in x.__closure__]
        new = types.FunctionType(
            x.__code__, x.__globals__, x.__name__, x.__defaults__, tuple(cells)
        )
        new.__kwdefaults__ = x.__kwdefaults__
        self._keep(x, new)
        for old, cell in zip(x.__closure__, cells, strict=True):
            try:
                cell.cell_contents = self(old.cell_contents)
            except ValueError:  # Not assigned yet.
                continue
        return new


def row_tensors(x: Any, count: int) -> list[Tensor]:
    """Tensors in a structure that may hold one row for each of `count` problems.

    Whether they do is for `problems.Problems` to find out: a tensor of `count` joints looks alike.
    """
    found: list[Tensor] = []

    def tensor(x: Tensor, in_transform: bool) -> Tensor:
        # Whole numbers of transforms are permutations of elements, not data.
        if x.ndim and len(x) == count and (x.is_floating_point() or not in_transform):
            found.append(x)
        return x

    Replace(tensor)(x)
    return found


def take_rows(x: Any, index: Tensor, *, count: int, rows: set[int]) -> Any:
    """A structure with some of its problems, in the order of `index`.

    Args:
        x: Model and arguments.
        index: Which problems, `(n,)`.
        count: Number of problems in `x`.
        rows: Ids of the tensors that have one row for each problem.
    """

    def tensor(x: Tensor, in_transform: bool) -> Tensor:
        x_detached = x.detach()
        return x_detached.index_select(0, index.to(x.device)) if id(x) in rows else x_detached

    return Replace(tensor, rows=(count, len(index)))(x)
