"""Maximum a posteriori estimates of batches of independent problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError
from .coordinates import Space
from .problem import Problems
from .solvers import Report, Solution, adam, lbfgs, levenberg_marquardt

__all__ = ["MapResult", "Solver", "map_estimate", "solve"]

Solver = Literal["auto", "lm", "lbfgs", "adam"]

#: Steps after which a problem that is not solved bends so much that other valleys are looked for.
_EASY = 15
#: Most steps of a run with the Gauss-Newton matrix, before one without it takes over.
_SHORT = 100


@dataclass(frozen=True)
class MapResult:
    """The most probable values of B problems.

    Attributes:
        values: Values of latent and `pyro.deterministic` sites, `(B, *event)` by site.
        base: The numbers that were moved, `(B, d)` by latent site: standardized base variables of
            distributions that have them, else unconstrained numbers. `init` takes them as
            `name_base`.
        log_density: Log-density that was maximized, `(B,)`, nats.
        steps: Steps taken, `(B,)`, of the best start.
        converged: Whether the best start ended at a stationary point, `(B,)`.
        solver: What solved it.

    Example:
        >>> import pyro
        >>> from pyro.distributions import Normal
        >>> def model():
        ...     return pyro.sample("x", Normal(torch.tensor([3.0]), 1.0))
        >>> result = map_estimate(model)
        >>> result.values["x"].tolist(), result.converged.tolist()
        ([3.0], [True])
    """

    values: dict[str, Tensor]
    base: dict[str, Tensor]
    log_density: Tensor
    steps: Tensor
    converged: Tensor
    solver: str


def map_estimate(
    model: Callable[..., Any],
    *args: Any,
    space: Literal["latent", "event"] = "latent",
    solver: Solver = "auto",
    init: Mapping[str, Tensor] | None = None,
    batch_size: int | None = None,
    max_steps: int = 500,
    tolerance: float | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> MapResult:
    r"""Find the most probable values of the latent sites of a Pyro model.

    **The model** describes B problems that are independent of each other. Every site, latent or
    observed, has batch shape `(B,)`: the problems are the one batch axis, as in
    `with pyro.plate("problems", len(keypoints)):`, and all else is in the event (`.to_event`). The
    log-density of a problem is the sum of its sites'. What differs between problems may be in the
    arguments, in what the model closes over, or within distributions: tensors with B rows. Sizes
    should be read off them (`len(keypoints)`, `distribution.batch_shape[0]`): then problems that
    are solved are dropped, and `batch_size` bounds memory. A model with the number B written into
    it runs as a whole.

    **The space** matters, because a maximum of a density depends on the coordinates.
    `space="latent"` maximizes over the standardized base variables :math:`e` of the distributions,
    :math:`\log N(e; 0, I) + \log p(\text{observed} | x(e))`, as ProHMR (eq. 11) and ProPose do: a
    flow's volume then pulls at nothing, and distributions without a density over poses (decoded
    ones: their values are noise-free decodings) have one here. `space="event"` maximizes the
    density of the
    values, :math:`\log p(x)` in place of :math:`\log N(e; 0, I)`. Both agree where the
    log-determinant of every distribution is constant. Sites that are no image of a normal
    distribution move in the unconstrained numbers of their support, and count with the density of
    their value in both spaces (no Jacobian).

    **The solver** `"lm"` (Levenberg-Marquardt) needs sites whose log-density is a sum of squares,
    robust kernels included; `"lbfgs"` and `"adam"` take any. `"auto"` wants the best minimum and
    then time. Where every site has residual form it runs L-BFGS that begins with the Gauss-Newton
    matrix; a problem for which that took many steps bends strongly and may have several minima, so
    L-BFGS with small first steps tries it again, and the better of both is kept. Where a site has
    no residual form it runs plain L-BFGS.

    Each problem has its own damping, step length and stop, so its answer does not depend on which
    others share the batch (beyond rounding, which differs between batch sizes). Gradients go to the
    latents only: tensors that the model holds are detached, and no parameter gets a `.grad`.

    Args:
        model: Pyro model.
        args: Its arguments.
        space: Which density is maximized.
        solver: How.
        init: Where to begin, by latent site: values `(B, *event)`, or under `name_base` the numbers
            of `MapResult.base`. With one axis more in front, `(S, B, ...)`, S starts, the best of
            which is kept for each problem. Other sites begin at the mode or center of their
            distribution.
        batch_size: Most problems that are solved at once; None for all.
        max_steps: Most steps of each solver.
        tolerance: A problem is solved when the decrease of the objective that is still to be
            expected is below this times `max(1, |objective|)`; by default 1e-6 in float32 and 1e-9
            in float64.
        dtype: To solve in another precision: all tensors and modules that the model holds are
            copied and cast.
        progress: Whether to show a bar.

    Returns:
        The estimate.

    Raises:
        InputError: If the model does not keep to the above, an option is out of range, `init` does
            not fit, a site has no residual form for `"lm"`, or the density at every start of a
            problem is zero or NaN.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(seen):
        ...     with pyro.plate("problems", len(seen)):
        ...         x = pyro.sample("x", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        ...         pyro.sample("seen", dist.Normal(x, 1.0).to_event(1), obs=seen)
        >>> result = map_estimate(model, torch.ones(5, 3))
        >>> result.values["x"].shape, bool(result.converged.all())
        (torch.Size([5, 3]), True)
        >>> bool((result.values["x"] - 0.5).abs().max() < 1e-3)
        True
    """
    _check_options(space, solver, batch_size, max_steps, tolerance)
    problems = Problems(model, args, space=space, dtype=dtype)
    count = problems.count
    if tolerance is None:
        tolerance = 1e-9 if problems.start.dtype == torch.float64 else 1e-6
    if batch_size is not None and batch_size < count and not problems.separable:
        raise InputError(
            f"batch_size={batch_size}: this model cannot be run on some of its {count} problems; "
            "read sizes such as the plate's off its arguments, and keep what differs between "
            "problems in tensors, distributions, dataclasses or closures"
        )
    without = problems.without_residuals
    if solver == "lm" and without:
        raise InputError(
            f"solver='lm' needs sites with residual form; {', '.join(without)} have none in the "
            f"{space} space (use 'lbfgs' or 'auto')"
        )
    chosen = "gauss-newton+lbfgs" if solver == "auto" and not without else solver
    chosen = "lbfgs" if chosen == "auto" else chosen
    starts = _starts(problems, dict(init or {}))
    size = batch_size or count
    with _bar(progress, count * len(starts)) as report:
        best = solve(
            problems, starts, chosen,
            batch_size=size, max_steps=max_steps, tolerance=tolerance, report=report,
        )  # fmt: skip
    parts = []
    with torch.no_grad():
        for index in torch.arange(count, device=problems.start.device).split(size):
            parts.append(problems.select(index).run(best.u[index]).values)
    return MapResult(
        values={name: torch.cat([part[name] for part in parts]) for name in parts[0]},
        base=problems.latents(best.u),
        log_density=-best.objective,
        steps=best.steps,
        converged=best.converged,
        solver=chosen,
    )


def solve(
    problems: Problems,
    starts: list[Tensor],
    solver: str,
    *,
    batch_size: int,
    max_steps: int,
    tolerance: float,
    report: Report,
) -> Solution:
    """The best of several starts `(B, d)` for each problem.

    Args:
        problems: The problems.
        starts: At least one.
        solver: `"lm"`, `"lbfgs"`, `"adam"` or `"gauss-newton+lbfgs"`.
        batch_size: Most problems at once.
        max_steps: See `map_estimate`.
        tolerance: See `map_estimate`.
        report: Told how many problems were just finished.

    Raises:
        InputError: If the density at every start of a problem is zero or NaN.
    """
    best = Solution.at(problems.start)
    for index in torch.arange(problems.count, device=best.u.device).split(batch_size):
        for start in starts:
            found = _solve(
                problems, start[index], index, solver,
                max_steps=max_steps, tolerance=tolerance, report=report,
            )  # fmt: skip
            _keep_better(best, found, index)
    bad = ~best.objective.isfinite()
    if bool(bad.any()):
        raise InputError(
            f"problem {int(bad.nonzero()[0])}: the density is zero or not a number at every start; "
            "are the observations finite, and do they lie in their distributions' support?"
        )
    return best


def _solve(
    problems: Problems,
    u: Tensor,
    index: Tensor,
    solver: str,
    *,
    max_steps: int,
    tolerance: float,
    report: Report,
) -> Solution:
    settings: dict[str, Any] = {
        "max_steps": max_steps, "tolerance": tolerance, "report": report,
    }  # fmt: skip
    single = {"lm": levenberg_marquardt, "lbfgs": lbfgs, "adam": adam}
    if solver in single:
        return single[solver](problems, u, index, **settings)
    short = settings | {"max_steps": min(max_steps, _SHORT)}
    found = lbfgs(problems, u, index, curved=True, **short)
    hard = (~found.converged | (found.steps > _EASY)).nonzero()[:, 0]
    if not len(hard):
        return found
    quiet = settings | {"report": lambda n: None}
    # Big early steps can end in another, worse, valley than small ones do.
    other = lbfgs(problems, u[hard], index[hard], **quiet)
    lower = other.objective < found.objective[hard]
    for name, value in vars(other).items():
        getattr(found, name)[hard[lower]] = value[lower]
    for options in ({"curved": True, "max_steps": min(max_steps, _SHORT)}, {}):
        left = (~found.converged).nonzero()[:, 0]
        if len(left):
            polished = lbfgs(problems, found.u[left], index[left], **(quiet | options))
            polished.steps += found.steps[left]
            for name, value in vars(polished).items():
                getattr(found, name)[left] = value
    return found


def _keep_better(best: Solution, found: Solution, index: Tensor) -> None:
    # Between two that are as good, one that converged is preferred.
    old = best.objective[index]
    equal = old.isfinite() & ((found.objective - old).abs() <= 1e-6 * old.abs().clamp_min(1))
    wins = torch.where(equal, found.converged & ~best.converged[index], found.objective < old)
    where = index[wins]
    best.u[where], best.objective[where] = found.u[wins], found.objective[wins]
    best.steps[where], best.converged[where] = found.steps[wins], found.converged[wins]


def _starts(problems: Problems, init: dict[str, Tensor]) -> list[Tensor]:
    if not init:
        return [problems.start]
    events = {slot.name: slot.event_shape for slot in problems.slots}
    counts = set()
    for name, value in init.items():
        axes = 2 if name not in events else 1 + len(events[name])
        if value.ndim == axes + 1:
            counts.add(len(value))
    if len(counts) > 1 or 0 in counts:
        raise InputError(f"init: expected the same number of starts everywhere, got {counts}")
    starts = []
    for number in range(max(counts, default=1)):
        chosen = {}
        for name, value in init.items():
            axes = 2 if name not in events else 1 + len(events[name])
            chosen[name] = value[number] if value.ndim == axes + 1 else value
        starts.append(problems.encode(chosen))
    return starts


def _check_options(
    space: Space, solver: str, batch_size: int | None, max_steps: int, tolerance: float | None
) -> None:
    if space not in ("latent", "event"):
        raise InputError(f"expected space 'latent' or 'event', got {space!r}")
    if solver not in get_args(Solver):
        raise InputError(f"expected solver to be one of {get_args(Solver)}, got {solver!r}")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"expected batch_size >= 1, got {batch_size}")
    if max_steps < 1:
        raise InputError(f"expected max_steps >= 1, got {max_steps}")
    if tolerance is not None and not tolerance > 0:
        raise InputError(f"expected tolerance > 0, got {tolerance}")


@contextmanager
def _bar(show: bool, total: int) -> Iterator[Report]:
    if not show:
        yield lambda n: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc="map", unit="problem") as bar:
        yield lambda n: bar.update(n) and None
