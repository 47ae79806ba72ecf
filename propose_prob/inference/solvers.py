"""Batched Levenberg-Marquardt, L-BFGS and Adam for independent minimization problems.

Every problem has its own damping, step length and stop. One evaluation serves all that are not yet
solved, wherever each of them is in its own run; solved ones are left out of the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .problem import Linearized, Problems

__all__ = ["PRECISION", "Report", "Solution", "adam", "lbfgs", "levenberg_marquardt"]

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
    that change never lead uphill. A problem whose matrix cannot be factorized is damped more, and
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
    at = rows.linearize(u)
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
            at = rows.linearize(result.u[active])
            gradient, matrix = at.gradient, at.matrix
        elif bool(better.any()):
            part: Linearized = problems.select(index[active[better]]).linearize(
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


#: Armijo and curvature constants of the weak Wolfe conditions.
_DECREASE, _CURVATURE = 1e-4, 0.9
#: Evaluations of one line search after which its direction is given up.
_SEARCH = 25
#: Steps after which a Gauss-Newton matrix is renewed.
_RENEWED = 10


def lbfgs(
    problems: Problems,
    u: Tensor,
    index: Tensor,
    *,
    max_steps: int,
    tolerance: float,
    report: Report,
    curved: bool = False,
    memory: int = 10,
) -> Solution:
    """L-BFGS with a line search to the weak Wolfe conditions, each problem on its own.

    Source: Nocedal and Wright, "Numerical optimization" (2006), algorithm 7.4, with the bisection
    of Lewis and Overton, "Nonsmooth optimization via quasi-Newton methods" (2013), sec. 2.2, whose
    cuts are placed by interpolation. While one problem searches its line, others take new
    directions: no evaluation waits.

    With `curved` the first guess of the inverse Hessian (its section 7.2 leaves it free) is that of
    the Gauss-Newton matrix, in place of a multiple of the identity. It is renewed only every so
    many steps: a run takes about as many as Levenberg-Marquardt's, each at the price of a gradient.

    Args:
        problems: The problems.
        u: Where to begin, `(n, d)`.
        index: Which problems, `(n,)`.
        max_steps: Most steps of each problem.
        tolerance: A problem is solved when its quadratic model promises less than this times
            `max(1, |objective|)`.
        report: Told how many problems were just finished.
        curved: Whether to begin with the Gauss-Newton matrix; the sites need residual form.
        memory: Number of remembered steps.
    """
    result = Solution.at(u)
    active = torch.arange(len(u), device=u.device)
    rows = problems.select(index)
    factor = u.new_zeros(len(u), 0, 0)
    if curved:
        at = rows.linearize(u)
        value, gradient, factor = at.objective, at.gradient, _factor(at.matrix)
    else:
        value, gradient = rows.gradient(u)
    result.objective = value.clone()
    state = _Search.begin(result.u.clone(), value, gradient, factor, memory)
    for _ in range(max_steps * 3):
        solved, stuck = state.finished(tolerance)
        done = solved | stuck | (result.steps[active] >= max_steps)
        if bool(done.any()):
            result.converged[active] = solved
            report(int(done.sum()))
            keep = ~done
            active = active[keep]
            if not len(active):
                return result
            state = state.take(keep)
            rows = problems.select(index[active])
        if curved:
            stale = state.stale()
            if bool(stale.any()):
                part = problems.select(index[active[stale]]).linearize(state.u[stale])
                state.renew(stale, _factor(part.matrix))
        found, slope = rows.gradient(state.trial())
        accepted = state.advance(found, slope)
        moved = active[accepted]
        result.u[moved], result.objective[moved] = state.u[accepted], state.value[accepted]
        result.steps[moved] += 1
    result.converged[active] = state.finished(tolerance)[0]
    report(len(active))
    return result


@dataclass
class _Search:
    """State of L-BFGS for n problems: place, remembered steps, and the line being searched."""

    u: Tensor
    value: Tensor
    gradient: Tensor
    steps: Tensor
    changes: Tensor
    curvature: Tensor
    direction: Tensor
    slope: Tensor
    length: Tensor
    low: Tensor
    high: Tensor
    tried: Tensor
    restarts: Tensor
    factor: Tensor
    age: Tensor

    @classmethod
    def begin(
        cls, u: Tensor, value: Tensor, gradient: Tensor, factor: Tensor, memory: int
    ) -> _Search:
        n, d = u.shape
        zero = torch.zeros_like(value)
        state = cls(
            u, value, gradient.nan_to_num(),
            u.new_zeros(n, memory, d), u.new_zeros(n, memory, d), u.new_zeros(n, memory),
            torch.zeros_like(u), zero, zero.clone(), zero.clone(), zero.clone(),
            torch.zeros_like(value, dtype=torch.long), torch.zeros_like(value, dtype=torch.long),
            factor, torch.zeros_like(value, dtype=torch.long),
        )  # fmt: skip
        state._aim(torch.ones_like(value, dtype=torch.bool))
        return state

    def take(self, keep: Tensor) -> _Search:
        """The state of some problems."""
        return _Search(*(x[keep] for x in vars(self).values()))

    def trial(self) -> Tensor:
        """Where to evaluate next, `(n, d)`."""
        return self.u + self.length[:, None] * self.direction

    def stale(self) -> Tensor:
        """Which are about to search along a direction of an old Gauss-Newton matrix, `(n,)`."""
        return (self.tried == 0) & (self.age >= _RENEWED)

    def renew(self, which: Tensor, factor: Tensor) -> None:
        """Take a new factor for some problems."""
        self.factor[which], self.age[which] = factor, 0
        self._aim(which)

    def finished(self, tolerance: float) -> tuple[Tensor, Tensor]:
        """Which are solved, and which cannot go on, `(n,)` each."""
        limit = tolerance * self.value.abs().clamp_min(1)
        # Without curvature the direction has no scale to promise anything by.
        promised = -0.5 * self.slope
        scaled = self.curvature[:, -1] > 0
        fresh = (self.tried == 0) & (scaled | bool(self.factor.shape[-1]))
        still = (self.gradient == 0).all(-1)
        stuck = (self.tried >= _SEARCH) & (self.restarts > 0)
        solved = (fresh & (promised <= limit)) | still
        return solved | (stuck & (promised <= PRECISION * limit)), stuck

    def advance(self, value: Tensor, gradient: Tensor) -> Tensor:
        """Takes in one evaluation of the trial; returns which problems made a step, `(n,)`."""
        length = self.length
        slope = (gradient * self.direction).sum(-1)
        usable = value.isfinite() & gradient.isfinite().all(-1)
        lower = usable & (value <= self.value + _DECREASE * length * self.slope)
        flat = lower & (slope >= _CURVATURE * self.slope)
        self.tried += 1
        # A search that ends without the curvature condition still may have gone down.
        accepted = flat | (lower & (self.tried >= _SEARCH))
        self.high = torch.where(lower, self.high, length)
        self.low = torch.where(lower & ~flat, length, self.low)
        width = self.high - self.low
        # The parabola through both values and the slope at the start, kept inside the bracket.
        bend = value - self.value - length * self.slope
        cut = -0.5 * self.slope * length.square() / bend
        cut = torch.where(usable & (self.low == 0) & (bend > 0), cut, self.low + 0.5 * width)
        inside = torch.minimum(torch.maximum(cut, self.low + 0.1 * width), self.low + 0.5 * width)
        self.length = torch.where(self.high.isinf(), 2 * self.low, inside)
        failed = ~accepted & (self.tried >= _SEARCH)
        if bool(accepted.any()):
            self._remember(accepted, length, value, gradient)
        # A direction that leads nowhere is forgotten with the steps that made it, once.
        again = failed & (self.restarts == 0)
        self.curvature[again] = 0
        self.restarts += again
        if bool((accepted | again).any()):
            self._aim(accepted | again)
        return accepted

    def _remember(self, moved: Tensor, length: Tensor, value: Tensor, gradient: Tensor) -> None:
        step = length[moved, None] * self.direction[moved]
        change = gradient[moved] - self.gradient[moved]
        product = (step * change).sum(-1)
        size = step.norm(dim=-1) * change.norm(dim=-1)
        curved = product > torch.finfo(step.dtype).eps * size
        inverse = torch.where(curved, 1 / product, 0)
        for name, new in (("steps", step), ("changes", change), ("curvature", inverse)):
            old = getattr(self, name)
            rolled = torch.cat([old[moved, 1:], new[:, None]], 1)
            wide = curved.reshape(-1, *(1,) * (rolled.ndim - 1))
            old[moved] = torch.where(wide, rolled, old[moved])
        self.u[moved] += step
        self.value[moved], self.gradient[moved] = value[moved], gradient[moved]
        self.restarts[moved] = 0
        self.age[moved] += 1

    def _aim(self, which: Tensor) -> None:
        """New directions, from the two loops over the remembered steps."""
        gradient, inverse = self.gradient[which], self.curvature[which]
        steps, changes = self.steps[which], self.changes[which]
        q, shares = gradient, []
        for i in reversed(range(inverse.shape[1])):
            share = inverse[:, i] * (steps[:, i] * q).sum(-1)
            q = q - share[:, None] * changes[:, i]
            shares.append(share)
        # The first step has length 1 at most: the numbers are standardized.
        first = 1 / gradient.norm(dim=-1).clamp_min(1)
        if self.factor.shape[-1]:
            q = torch.cholesky_solve(q[..., None], self.factor[which])[..., 0]
        else:
            known = inverse[:, -1] > 0
            squares = changes[:, -1].square().sum(-1)
            q = q * torch.where(known, 1 / (inverse[:, -1] * squares), first)[:, None]
        for i, share in enumerate(reversed(shares)):
            back = inverse[:, i] * (changes[:, i] * q).sum(-1)
            q = q + (share - back)[:, None] * steps[:, i]
        slope = -(gradient * q).sum(-1)
        downhill = slope < 0
        q = torch.where(downhill[:, None], q, first[:, None] * gradient)
        self.direction[which] = -q
        self.slope[which] = -(gradient * q).sum(-1)
        self.length[which], self.low[which], self.high[which] = 1.0, 0.0, torch.inf
        self.tried[which] = 0


def _factor(matrix: Tensor) -> Tensor:
    """Cholesky factors of Gauss-Newton matrices; the identity's where there is none."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    # Directions that nothing depends on, such as the turn of all cameras together, stay still.
    share = max(10 * torch.finfo(matrix.dtype).eps, 1e-9)
    floor = share * diagonal.amax(-1, keepdim=True).expand_as(diagonal)
    factor, info = torch.linalg.cholesky_ex(matrix + floor.diag_embed())
    good = (info == 0) & factor.isfinite().flatten(1).all(-1)
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return torch.where(good[:, None, None], factor, eye)
