"""Solvers for batches of independent minimisation problems.

Every problem has its own damping, step length and stop. One evaluation serves all that are not yet
solved, wherever each of them is in its own run; solved ones are left out of the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .problems import Linearised, Problems

__all__ = ["PRECISION", "Report", "Solution", "adam", "levenberg_marquardt"]

#: A run that cannot go on at working precision counts as converged if the decrease that its model
#: still promises is this many tolerances at most.
PRECISION = 1e3

Report = Callable[[int], None]


@dataclass
class Solution:
    """Where n problems ended.

    Attributes:
        u: Numbers `(n, d)`.
        objective: `(n,)`.
        steps: Accepted steps `(n,)`.
        converged: `(n,)`.
    """

    u: Tensor
    objective: Tensor
    steps: Tensor
    converged: Tensor

    @staticmethod
    def at(u: Tensor) -> Solution:
        """The start of a run."""
        n = len(u)
        return Solution(
            u.clone(),
            torch.full((n,), torch.inf, dtype=u.dtype, device=u.device),
            torch.zeros(n, dtype=torch.long, device=u.device),
            torch.zeros(n, dtype=torch.bool, device=u.device),
        )


def levenberg_marquardt(
    problems: Problems,
    u: Tensor,
    index: Tensor,
    *,
    max_steps: int,
    tolerance: float,
    report: Report,
) -> Solution:
    """Levenberg-Marquardt on the residual form, robust kernels by reweighting.

    Source: Madsen, Nielsen and Tingleff, "Methods for non-linear least squares problems" (2004),
    sec. 3.2, with Marquardt's scaling. Steps are judged on the objective itself, so that weights
    that change never lead uphill. A problem whose matrix cannot be factorised is damped more, and
    given up as not converged when no damping helps.

    Args:
        problems: The problems.
        u: Where to begin, `(n, d)`.
        index: Which problems, `(n,)`.
        max_steps: Most steps tried for each problem.
        tolerance: A problem is solved when a step is expected to lower the objective by less than
            this times `max(1, |objective|)`.
        report: Told how many problems were just finished.
    """
    result = Solution.at(u)
    active = torch.arange(len(u), device=u.device)
    rows = problems.select(index)
    at = rows.linearise(u)
    result.objective = at.objective
    gradient, matrix = at.gradient, at.matrix
    damping = torch.full_like(at.objective, 1e-2)
    growth = torch.full_like(damping, 2.0)
    for _ in range(max_steps):
        here, value = result.u[active], result.objective[active]
        step, promised, usable = _damped_step(matrix, gradient, damping)
        trial = here - step
        found = rows.objective(torch.where(usable[:, None], trial, here))
        gain = (value - found) / promised
        better = usable & (found < value)
        moved = active[better]
        result.u[moved], result.objective[moved] = trial[better], found[better]
        result.steps[moved] += 1
        limit = tolerance * value.abs().clamp_min(1)
        solved = usable & (promised <= limit) & (damping <= 1)
        # Where nothing is gained although much was promised, the objective is at its precision.
        worn = ~better & (damping > 1e8)
        result.converged[active] = solved | (worn & (promised <= PRECISION * limit))
        damping = torch.where(
            better,
            damping * (1 - (2 * gain.clamp(0, 1) - 1) ** 3).clamp_min(1 / 3),
            damping * growth,
        )
        growth = torch.where(better, 2.0, 2 * growth)
        keep = ~(solved | worn)
        if not bool(keep.all()):
            report(int((~keep).sum()))
            active, damping, growth = active[keep], damping[keep], growth[keep]
            gradient, matrix, better = gradient[keep], matrix[keep], better[keep]
            if not len(active):
                return result
            rows = problems.select(index[active])
        if bool(better.all()):
            at = rows.linearise(result.u[active])
            gradient, matrix = at.gradient, at.matrix
        elif bool(better.any()):
            part: Linearised = problems.select(index[active[better]]).linearise(
                result.u[active[better]]
            )
            gradient[better], matrix[better] = part.gradient, part.matrix
    report(len(active))
    return result


def _damped_step(
    matrix: Tensor, gradient: Tensor, damping: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Step `(n, d)`, the decrease that the model promises `(n,)`, and where both can be used."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    floor = torch.finfo(matrix.dtype).eps * diagonal.amax(-1, keepdim=True)
    extra = damping[:, None] * torch.maximum(diagonal, floor)
    factor, info = torch.linalg.cholesky_ex(matrix + extra.diag_embed())
    step = torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    promised = 0.5 * (step * (extra * step + gradient)).sum(-1)
    usable = (info == 0) & step.isfinite().all(-1) & (promised >= 0)
    return step, torch.where(usable, promised, torch.inf), usable


def adam(
    problems: Problems,
    u: Tensor,
    index: Tensor,
    *,
    max_steps: int,
    tolerance: float,
    report: Report,
    rate: float = 0.1,
    window: int = 50,
) -> Solution:
    """Adam (Kingma and Ba, 2015) with a rate that falls to 0 over the steps; the best place counts.

    Args:
        problems: The problems.
        u: Where to begin, `(n, d)`.
        index: Which problems, `(n,)`.
        max_steps: Steps of each problem.
        tolerance: A problem is solved when its best objective fell by less than this times
            `max(1, |objective|)` in the last `window` steps.
        report: Told how many problems were just finished.
        rate: Learning rate at the start.
        window: See `tolerance`.
    """
    result = Solution.at(u)
    active = torch.arange(len(u), device=u.device)
    rows = problems.select(index)
    place, first, second = u.clone(), torch.zeros_like(u), torch.zeros_like(u)
    before = torch.full_like(result.objective, torch.inf)
    for step in range(1, max_steps + 1):
        value, gradient = rows.gradient(place)
        better = active[value < result.objective[active]]
        kept = value < result.objective[active]
        result.u[better], result.objective[better] = place[kept], value[kept]
        result.steps[active] += 1
        gradient = gradient.nan_to_num()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient.square()
        fall = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / max_steps)).item())
        move = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        place = place - rate * fall * move
        if step % window == 0:
            best = result.objective[active]
            done = before[active] - best <= tolerance * best.abs().clamp_min(1)
            result.converged[active] = done
            before[active] = best
            if bool(done.any()):
                report(int(done.sum()))
                active = active[~done]
                if not len(active):
                    return result
                rows = problems.select(index[active])
                place, first, second = place[~done], first[~done], second[~done]
    report(len(active))
    return result
