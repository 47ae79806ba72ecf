"""Batches of independent problems, and evaluation of a program on some of them.

A Pyro model over B problems holds tensors with B rows in its arguments, in what it closes over, and
deep within distributions. To drop problems that are solved, or to bound memory, the program has to
run on some rows only. Its data structures are copied for that, with the rows taken out of every
tensor that has them; networks, bodies and other modules are shared by all problems and stay as they
are.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform

from ..errors import InputError
from .coordinates import Coordinates, Space
from .sites import (
    InitMessenger,
    LatentSite,
    LogDensityMessenger,
    ModelTrace,
    SiteDiscovery,
    shape_message,
)

__all__ = ["Linearized", "Problems", "Replace", "Rows", "row_tensors", "take_rows"]


class Replace:
    """Copies a structure with its tensors and modules replaced, and leaves the original alone.

    Looks into lists, tuples, dictionaries, dataclasses, `functools.partial`, what functions close
    over, and distributions and transforms. Everything else is opaque and comes back as it is. What
    occurs twice is copied once.

    Args:
        tensor: Gives the replacement of a tensor that is no parameter of a module; its second
            argument tells whether the tensor belongs to a transform.
        parameter: Gives the replacement of a parameter that a distribution holds.
        module: Gives the replacement of a module.
        rows: Old and new number of rows: batch shapes of distributions that start with the one
            start with the other in the copy.
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


#: Products of problems and derivative directions that are computed at once.
_PASS = 8192


@dataclass(frozen=True)
class Linearized:
    """Objective, gradient and Gauss-Newton matrix of n problems at a place.

    Attributes:
        objective: `-log_density`, `(n,)`.
        gradient: `(n, d)`.
        matrix: `J^T J` of the weighted residuals, `(n, d, d)`.
    """

    objective: Tensor
    gradient: Tensor
    matrix: Tensor


class Rows:
    """Some of the problems, ready to be evaluated.

    Not made directly; see `Problems.select`.
    """

    def __init__(self, problems: Problems, index: Tensor) -> None:
        self._problems = problems
        self._index = index
        self._whole = problems.separable is False
        self._call = problems.call if self._whole else problems.take(index)

    def run(self, u: Tensor, *, residuals: bool = False) -> ModelTrace:
        """Runs the model at `u` `(n, d)`."""
        if not self._whole:
            return self._problems.run(self._call, u, residuals=residuals)
        # A model that cannot be cut runs as a whole; the other problems stay at the start.
        full = self._problems.start.index_put((self._index,), u)
        record = self._problems.run(self._call, full, residuals=residuals)
        pick = self._index
        return ModelTrace(
            record.log_density[pick],
            record.log_likelihood[pick],
            {name: value[pick] for name, value in record.values.items()},
            {name: value[pick] for name, value in record.observed.items()},
            record.distributions,
            [residual[pick] for residual in record.residuals],
            record.diagonal[pick],
            record.without,
        )

    def objective(self, u: Tensor) -> Tensor:
        """`-log_density` `(n,)` without gradient; infinite where it is NaN."""
        with torch.no_grad():
            return _finite(-self.run(u).log_density)

    def gradient(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Objective `(n,)` and gradient `(n, d)`; not finite is infinite, with gradient NaN."""
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            objective = -self.run(u).log_density
            (gradient,) = torch.autograd.grad(objective.sum(), u)
        return _finite(objective.detach()), gradient

    def linearize(self, u: Tensor) -> Linearized:
        """Objective, gradient and Gauss-Newton matrix."""
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            record = self.run(u, residuals=True)
            residual = torch.cat([u.new_zeros(len(u), 0), *record.residuals], -1)
            rows = _derivative_rows(residual, u)
        u, diagonal = u.detach(), record.diagonal
        gradient = diagonal * u + (rows.mT @ residual.detach()[..., None])[..., 0]
        matrix = rows.mT @ rows + diagonal.diag_embed()
        return Linearized(_finite(-record.log_density.detach()), gradient, matrix)

    def hessian(self, u: Tensor) -> Tensor:
        """Exact second derivatives of the objective, `(n, d, d)`."""
        u = u.detach().requires_grad_()
        with torch.enable_grad():
            objective = -self.run(u).log_density
            (gradient,) = torch.autograd.grad(objective.sum(), u, create_graph=True)
            rows = _derivative_rows(gradient, u)
        return 0.5 * (rows + rows.mT)


class Problems:
    """A model whose sites all have batch shape `(B,)`: B problems that share nothing but networks.

    The model runs once to find its sites. Then it is found out which tensors that it holds have one
    row for each problem: those of which problem i sees row i alone. With them the model can be cut
    to some of its problems (`separable`); a model that builds something of fixed size B on every
    run, such as a plate with a number written into it, cannot, and always runs as a whole.

    Args:
        model: Pyro model.
        args: Its arguments.
        space: Which density is meant.
        dtype: Type of all floating-point tensors and modules; a copy of them is cast. None leaves
            them as they are.

    Raises:
        InputError: If a site has another batch shape, is discrete, or its log-density is not
            finite where inference begins; if the problems depend on each other; if the model has no
            latent site.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        args: tuple[Any, ...],
        *,
        space: Space,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.space: Space = space
        whole: tuple[Callable[..., Any], tuple[Any, ...]] = (model, args)
        if dtype is not None:
            whole = _cast(whole, dtype)
        self._rows: set[int] = set()
        self._kept = whole
        self.call = take_rows(whole, torch.arange(0), count=-1, rows=set())
        found = SiteDiscovery(space)
        with torch.no_grad(), _quiet(), found:
            self.call[0](*self.call[1])
        self.slots = found.slots
        if not self.slots:
            raise InputError("expected a model with a latent site, got none: all are observed")
        self.count: int = found.shapes[self.slots[0].name][0]
        for name, shape in found.shapes.items():
            if shape != (self.count,):
                raise InputError(shape_message(name, shape, self.count))
        self.start = torch.cat(found.starts, -1)
        self.size = self.start.shape[-1]
        self.separable: bool = self._find_rows(whole)

    def select(self, index: Tensor) -> Rows:
        """Some problems `(n,)`; numbers may repeat only where the model is separable."""
        return Rows(self, index)

    def take(self, index: Tensor) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Model and arguments of some problems."""
        if self.count == 1 and len(index) == 1:
            return self.call
        return take_rows(self._kept, index, count=self.count, rows=self._rows)

    def run(
        self, call: tuple[Callable[..., Any], tuple[Any, ...]], u: Tensor, *, residuals: bool
    ) -> ModelTrace:
        """Runs a model with its arguments at `u` `(n, d)`."""
        model, args = call
        handler = LogDensityMessenger(u, self.slots, self.space, residuals)
        with _quiet(), handler:
            model(*args)
        return handler.record

    @property
    def without_residuals(self) -> list[str]:
        """Sites whose density has no residual form."""
        index = torch.zeros(1, dtype=torch.long, device=self.start.device)
        # Normalizations that depend on latents show only while gradients are recorded.
        u = self.start[index].requires_grad_()
        with torch.enable_grad():
            return self.select(index).run(u, residuals=True).without

    def latents(self, u: Tensor) -> dict[str, Tensor]:
        """Columns of `u` `(..., d)` by site."""
        return {slot.name: u[..., slot.part] for slot in self.slots}

    def encode(self, values: dict[str, Tensor]) -> Tensor:
        """Numbers `(B, d)` of event values `(B, *event)`, or of base values under `name_base`.

        Sites that are not given are where inference begins by default, given those before them.

        Raises:
            InputError: If there is no such site, or a shape does not fit.
        """
        known = {s.name for s in self.slots} | {s.name + "_base" for s in self.slots}
        for name in values:
            if name not in known:
                latent = ", ".join(s.name for s in self.slots)
                raise InputError(f"init: expected latent sites of {latent}, got {name!r}")

        def choose(slot: LatentSite, place: Coordinates, distribution: Any) -> Tensor:
            name, base = slot.name, slot.name + "_base"
            if base in values:
                return _fitting(base, values[base], (self.count, slot.size), self.start)
            if name in values:
                wanted = (self.count, *slot.event_shape)
                return place.inverse(_fitting(name, values[name], wanted, self.start))
            return place.start()

        return self._choose(choose)

    def prior(self, index: Tensor) -> Tensor:
        """Numbers `(n, d)` of a draw of the latent sites for each problem of `index`.

        Of a model that is not separable, `index` has to be all problems.
        """

        def choose(slot: LatentSite, place: Coordinates, distribution: Any) -> Tensor:
            if place.standard:
                return torch.randn_like(self.start[index, slot.part])
            return place.inverse(distribution.sample())

        return self._choose(choose, index if self.separable else None)

    def _choose(
        self, choose: Callable[[LatentSite, Coordinates, Any], Tensor], index: Tensor | None = None
    ) -> Tensor:
        start = self.start if index is None else self.start[index]
        handler = InitMessenger(start, self.slots, self.space, choose)
        model, args = self.call if index is None else self.take(index)
        with torch.no_grad(), _quiet(), handler:
            model(*args)
        return handler.u

    def _find_rows(self, whole: Any) -> bool:
        """Finds the tensors with one row a problem; returns whether the model can be cut."""
        found = row_tensors(whole, self.count)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.start.shape, generator=generator, dtype=torch.float64)
        # Not at the start itself, where a mode may hide what depends on what.
        u = (self.start + 0.1 * noise.to(self.start)).requires_grad_()
        leaves = {id(x): x.detach().requires_grad_() for x in found if x.is_floating_point()}
        probe = Replace(lambda x, inside: leaves.get(id(x), x.detach()))(whole)
        with torch.enable_grad():
            each = self.run(probe, u, residuals=False).log_density.unbind()
        # Of a single problem any tensor of length 1 may be a row: trying it out must do.
        single = self.count == 1
        shared = set() if single else self._shared(each, u, leaves)
        self._rows = {id(x) for x in found} - shared
        # Another number of rows than the whole has, or a size that is written in would pass.
        pick = torch.tensor([self.count - 1, 0, 0][: 2 if self.count == 3 else 3], device=u.device)
        try:
            with torch.no_grad():
                alone = self.run(self.take(pick), u[pick], residuals=False).log_density
        except (RuntimeError, ValueError, IndexError):
            return False
        together = torch.stack(each).detach()[pick]
        near = (alone - together).abs() <= 1e-3 * (1 + together.abs())
        return bool((near | ~together.isfinite()).all())

    def _shared(self, each: tuple[Tensor, ...], u: Tensor, leaves: dict[int, Tensor]) -> set[int]:
        """Ids of the tensors of which a problem sees more than its own row."""
        shared: set[int] = set()
        inputs = [u, *leaves.values()]
        for problem in {0, self.count // 2, self.count - 1}:
            others = torch.arange(self.count, device=u.device) != problem
            given = torch.autograd.grad(each[problem], inputs, retain_graph=True, allow_unused=True)
            if given[0] is not None and bool((given[0][others].abs() > 0).any()):
                raise InputError(
                    f"the log-density of problem {problem} depends on the latents of others; "
                    "expected problems that are independent of each other"
                )
            for key, gradient in zip(leaves, given[1:], strict=True):
                if gradient is not None and bool((gradient[others].abs() > 0).any()):
                    shared.add(key)
        return shared


@contextmanager
def _quiet() -> Iterator[None]:
    """Skip checks of values: a step out of the support is refused, it is no error."""
    with pyro.validation_enabled(False):
        yield


def _cast(x: Any, dtype: torch.dtype) -> Any:
    def tensor(x: Tensor) -> Tensor:
        x = x.detach()
        return x.to(dtype) if x.is_floating_point() else x

    def module(x: nn.Module) -> nn.Module:
        return copy.deepcopy(x).to(dtype)

    return Replace(lambda x, inside: tensor(x), parameter=tensor, module=module)(x)


def _derivative_rows(y: Tensor, u: Tensor) -> Tensor:
    """Jacobians `(n, m, d)` of `y` `(n, m)`, each row of which depends on its row of `u` alone."""
    n, m, d = *y.shape, u.shape[-1]
    if not m or not y.requires_grad:
        return y.new_zeros(n, m, d)
    if m > 2 * d:
        # The transposed product is linear in its cotangent: its derivative gives columns.
        cotangent = torch.zeros_like(y, requires_grad=True)
        (pulled,) = torch.autograd.grad(y, u, cotangent, create_graph=True)
        return _batched(pulled, cotangent, d).mT
    return _batched(y, u, m)


def _batched(y: Tensor, x: Tensor, count: int) -> Tensor:
    n = len(y)
    basis = torch.eye(count, dtype=y.dtype, device=y.device)[:, None].expand(count, n, count)
    parts = [
        torch.autograd.grad(y, x, part, retain_graph=True, is_grads_batched=True)[0].movedim(0, 1)
        for part in basis.split(max(1, _PASS // max(n, 1)))
    ]
    return torch.cat(parts, 1)


def _finite(objective: Tensor) -> Tensor:
    return objective.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)


def _fitting(name: str, value: Tensor, wanted: tuple[int, ...], like: Tensor) -> Tensor:
    if tuple(value.shape) != wanted:
        raise InputError(f"init: expected {name} of shape {wanted}, got {tuple(value.shape)}")
    if not bool(value.isfinite().all()):
        raise InputError(f"init: {name} is not finite")
    return value.to(like)
