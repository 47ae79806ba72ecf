"""Posteriors of batches of independent problems, as weighted samples."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..distributions import EmpiricalDistribution
from ..errors import InputError
from .map import solve
from .problem import Problems

__all__ = ["Method", "Posterior", "Proposal", "posterior"]

Method = Literal["importance", "nuts", "laplace"]
Proposal = Literal["prior", "laplace"]

#: Shares of the proposal's parts: the Laplace approximation, and a Student-t distribution about it.
_SHARES = (0.8, 0.2)
_DOF, _WIDTH = 5.0, 1.2


@dataclass(frozen=True)
class Posterior:
    """S weighted draws from the posterior of B problems.

    Attributes:
        distributions: Weighted draws of latent and `pyro.deterministic` sites as distributions with
            batch shape `(B,)`; the draws of different sites belong together.
        base: The numbers that were drawn, `(S, B, d)` by latent site; see `MapResult.base`.
        log_weights: Normalized over draws, `(S, B)`.
        effective_sample_size: Of how many independent draws they are worth, `(B,)`: Kish's of the
            weights, and ArviZ's smallest of any number for NUTS.
        k_hat: Pareto shape of the importance weights, `(B,)` (Vehtari et al., "Pareto smoothed
            importance sampling", 2024): below 0.7 the weights can be trusted. For `"laplace"` it
            tells how far the approximation can be. None for NUTS.
        r_hat: Largest split R-hat of any number, `(B,)`, for NUTS with several chains.
        method: How they were drawn.
        chains: Number of chains; draws lie chain after chain.
        prior: Draws from the prior, `(S, B, *event)` by site.
        predictive: An observation for each draw, `(S, B, *event)` by observed site that can be
            sampled; they share the draws' weights.
        observed: What was observed, `(B, *event)` by site.

    Example:
        >>> import pyro
        >>> from pyro.distributions import Normal
        >>> def model(observed):
        ...     x = pyro.sample("x", Normal(torch.zeros(1), 1.0))
        ...     pyro.sample("seen", Normal(x, 1.0), obs=observed)
        >>> result = posterior(model, torch.tensor([2.0]), num_samples=500)
        >>> bool((result.distributions["x"].mean - 1).abs() < 0.3)
        True
    """

    distributions: dict[str, EmpiricalDistribution]
    base: dict[str, Tensor]
    log_weights: Tensor
    effective_sample_size: Tensor
    k_hat: Tensor | None
    r_hat: Tensor | None
    method: Method
    chains: int
    prior: dict[str, Tensor]
    predictive: dict[str, Tensor]
    observed: dict[str, Tensor]


def posterior(
    model: Callable[..., Any],
    *args: Any,
    method: Method = "importance",
    num_samples: int = 1000,
    proposal: Proposal = "laplace",
    warmup: int = 300,
    chains: int = 1,
    batch_size: int = 1024,
    max_steps: int = 500,
    dtype: torch.dtype | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Posterior:
    """Draw from the posterior of the latent sites of a Pyro model.

    The model is as in `map_estimate`: B independent problems. Everything happens in the latent
    space: draws of the standardized base variables of the distributions, mapped to values. Of
    decoded distributions
    these are noise-free decodings, so that the posterior is that of their latent.

    * `"importance"`: self-normalized importance sampling with Pareto-smoothed weights. The proposal
      is the prior, or around the MAP estimate the Laplace approximation mixed with a Student-t
      distribution of the same shape, whose tails keep the weights bounded where the posterior is no
      normal distribution.
    * `"nuts"`: Pyro's no-U-turn sampler, problem by problem, in coordinates that the curvature at
      the MAP estimate makes round.
    * `"laplace"`: the normal distribution with the MAP estimate's curvature. `k_hat` judges it.

    Args:
        model: Pyro model.
        args: Its arguments.
        method: How to draw.
        num_samples: S, draws for each problem; for NUTS of each chain.
        proposal: Of importance sampling.
        warmup: Steps in which NUTS adapts, for each chain.
        chains: Number of NUTS chains.
        batch_size: Most draws that are evaluated at once.
        max_steps: Most steps of the search for the MAP estimate.
        dtype: To work in another precision; see `map_estimate`.
        seed: Of the draws; the global random state is left alone.
        progress: Whether NUTS shows its bars.

    Returns:
        The draws.

    Raises:
        InputError: If the model does not keep to the contract or an option is out of range.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(seen):
        ...     with pyro.plate("problems", len(seen)):
        ...         x = pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        ...         pyro.sample("seen", dist.Normal(x, 1.0).to_event(1), obs=seen)
        >>> found = posterior(model, torch.ones(3, 2), method="laplace", num_samples=50)
        >>> found.distributions["x"].sample((7,)).shape
        torch.Size([7, 3, 2])
    """
    for name, given, options in (
        ("method", method, get_args(Method)),
        ("proposal", proposal, get_args(Proposal)),
    ):
        if given not in options:
            raise InputError(f"expected {name} to be one of {options}, got {given!r}")
    for name, number, least in (
        ("num_samples", num_samples, 2), ("warmup", warmup, 1), ("chains", chains, 1),
        ("batch_size", batch_size, 1), ("max_steps", max_steps, 1),
    ):  # fmt: skip
        if number < least:
            raise InputError(f"expected {name} >= {least}, got {number}")
    if chains > 1 and method != "nuts":
        raise InputError(f"expected one chain for method={method!r}, got {chains}: not a chain")
    with _own_randomness():
        torch.manual_seed(seed)
        problems = Problems(model, args, space="posterior", dtype=dtype)
        before = _prior(problems, num_samples, batch_size)
        prior = _evaluate(problems, before, batch_size)
        k_hat = r_hat = None
        if method == "importance" and proposal == "prior":
            u, found = before, prior
            log_weights, k_hat = _smooth(prior.log_likelihood)
        else:
            center, factor = _laplace(problems, max_steps)
            if method == "nuts":
                u = _nuts(problems, center, factor, num_samples, warmup, chains, progress)
            else:
                u, log_q = _propose(center, factor, num_samples, method == "importance")
            found = _evaluate(problems, u, batch_size)
            log_weights = found.log_density.new_full(u.shape[:2], -math.log(len(u)))
            if method != "nuts":
                smoothed, k_hat = _smooth(found.log_density - log_q)
                log_weights = smoothed if method == "importance" else log_weights
    distributions = {
        name: EmpiricalDistribution(x, log_weights, event_dim=x.ndim - 2)
        for name, x in found.values.items()
    }
    effective = 1 / (2 * log_weights).exp().sum(0)
    if method == "nuts":
        effective, r_hat = _chain_statistics(u, chains)
    return Posterior(
        distributions=distributions,
        base=problems.latents(u),
        log_weights=log_weights,
        effective_sample_size=effective,
        k_hat=k_hat,
        r_hat=r_hat,
        method=method,
        chains=chains,
        prior=prior.values,
        predictive=found.predictive,
        observed=found.observed,
    )


@dataclass(frozen=True)
class _Draws:
    """Densities `(S, B)`, values and observations `(S, B, *event)` of draws."""

    log_density: Tensor
    log_likelihood: Tensor
    values: dict[str, Tensor]
    predictive: dict[str, Tensor]
    observed: dict[str, Tensor]


def _parts(problems: Problems, draws: int, batch_size: int) -> tuple[Tensor, ...]:
    """Numbers of the problems for `draws` draws of all, in parts to be run at once."""
    everything = torch.arange(problems.count, device=problems.start.device)
    # A model that cannot be cut runs once for each draw.
    return everything.repeat(draws).split(batch_size if problems.separable else problems.count)


def _prior(problems: Problems, draws: int, batch_size: int) -> Tensor:
    """Draws `(S, B, d)` from the latent sites' distributions."""
    drawn = [problems.prior(index) for index in _parts(problems, draws, batch_size)]
    return torch.cat(drawn).unflatten(0, (draws, problems.count))


@torch.no_grad()
def _evaluate(problems: Problems, u: Tensor, batch_size: int) -> _Draws:
    """Runs the model for draws `(S, B, d)`."""
    draws, count = u.shape[:2]
    parts = _parts(problems, draws, batch_size)
    numbers = u.flatten(0, 1).split([len(index) for index in parts])
    densities, likelihoods, records, sampled = [], [], [], []
    # What is drawn afterwards must not depend on the size of the parts.
    with _own_randomness():
        for rows, part in zip(parts, numbers, strict=True):
            record = problems.select(rows).run(part)
            densities.append(record.log_density)
            likelihoods.append(record.log_likelihood)
            records.append(record.values)
            drawn = {}
            for name in record.observed:
                try:
                    drawn[name] = record.distributions[name].sample()
                except NotImplementedError:
                    continue  # Not a normalized distribution.
            sampled.append(drawn)

    def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {
            name: torch.cat([part[name] for part in parts]).unflatten(0, (draws, count))
            for name in parts[0]
        }

    everything = torch.arange(count, device=u.device)
    return _Draws(
        torch.cat(densities).unflatten(0, (draws, count)),
        torch.cat(likelihoods).unflatten(0, (draws, count)),
        joined(records),
        joined(sampled),
        problems.select(everything).run(u[0]).observed,
    )


def _laplace(problems: Problems, max_steps: int) -> tuple[Tensor, Tensor]:
    """MAP estimate `(B, d)` and Cholesky factor of the precision about it, `(B, d, d)`."""
    double = problems.start.dtype == torch.float64
    found = solve(
        problems,
        [problems.start],
        "lbfgs" if problems.without_residuals else "gauss-newton+lbfgs",
        batch_size=problems.count,
        max_steps=max_steps,
        tolerance=1e-9 if double else 1e-6,
        report=lambda n: None,
    )
    index = torch.arange(problems.count, device=found.u.device)
    matrix = problems.select(index).hessian(found.u)
    values, vectors = torch.linalg.eigh(matrix)
    # Robust kernels bend downwards beyond their outliers: such directions count by their size.
    floor = 1e-6 * values.abs().amax(-1, keepdim=True)
    values = torch.maximum(values.abs(), floor)
    precision = (vectors * values[:, None]) @ vectors.mT
    return found.u, torch.linalg.cholesky(precision)


def _propose(center: Tensor, factor: Tensor, draws: int, mixed: bool) -> tuple[Tensor, Tensor]:
    """Draws `(S, B, d)` about the MAP estimate, with their log-densities `(S, B)`."""
    count, d = center.shape
    noise = torch.randn(draws, count, d, dtype=center.dtype, device=center.device)
    if mixed:
        half = torch.full_like(noise[..., :1], 0.5 * _DOF)
        heavy = _WIDTH * (half / torch._standard_gamma(half)).sqrt()
        tail = torch.rand_like(heavy) < _SHARES[1]
        noise = torch.where(tail, heavy, 1) * noise
    square = noise.square().sum(-1)
    log_q = -0.5 * square - 0.5 * d * math.log(2 * math.pi)
    if mixed:
        shape = 0.5 * (_DOF + d)
        constant = (
            math.lgamma(shape) - math.lgamma(0.5 * _DOF)
            - 0.5 * d * math.log(_DOF * math.pi) - d * math.log(_WIDTH)
        )  # fmt: skip
        heavy_q = constant - shape * torch.log1p(square / (_DOF * _WIDTH**2))
        log_q = torch.logaddexp(log_q + math.log(_SHARES[0]), heavy_q + math.log(_SHARES[1]))
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return center + _unwhiten(factor, noise), log_q + log_det


def _unwhiten(factor: Tensor, noise: Tensor) -> Tensor:
    """Noise `(S, B, d)` with the covariance whose precision has this Cholesky factor."""
    columns = noise.movedim(0, -1)
    return torch.linalg.solve_triangular(factor.mT, columns, upper=True).movedim(-1, 0)


def _smooth(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Pareto-smoothed normalized log-weights `(S, B)` and k-hat `(B,)`."""
    arviz = _arviz()
    log_weights = log_weights.nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    lowest = log_weights.isneginf().all(0)
    if bool(lowest.any()):
        raise InputError(
            f"problem {int(lowest.nonzero()[0])}: no draw has a density above zero; "
            "take more samples or the other proposal"
        )
    # The smallest weights have no influence, and ArviZ has no use for infinities.
    floor = log_weights.amax(0) - 700
    clipped = torch.maximum(log_weights, floor).double()
    smoothed, k_hat = arviz.psislw(clipped.mT.cpu().numpy())
    back = torch.as_tensor(smoothed).to(log_weights).mT
    return back - back.logsumexp(0), torch.as_tensor(k_hat).to(log_weights).reshape(-1)


def _nuts(
    problems: Problems,
    center: Tensor,
    factor: Tensor,
    draws: int,
    warmup: int,
    chains: int,
    progress: bool,
) -> Tensor:
    """Draws `(chains * S, B, d)`."""
    from pyro.infer import MCMC, NUTS

    done = []
    for problem in range(problems.count):
        index = torch.tensor([problem], device=center.device)
        rows = problems.select(index)
        middle, root = center[index], factor[index]

        def place(v: Tensor, middle: Tensor = middle, root: Tensor = root) -> Tensor:
            return middle + _unwhiten(root, v[:, None])[:, 0]

        def potential(values: dict[str, Tensor], place: Any = place, rows: Any = rows) -> Tensor:
            return -rows.run(place(values["v"][None])).log_density[0]

        parts = []
        for _ in range(chains):
            mcmc = MCMC(
                NUTS(potential_fn=potential),
                num_samples=draws,
                warmup_steps=warmup,
                initial_params={"v": torch.randn_like(middle[0])},
                disable_progbar=not progress,
            )
            mcmc.run()
            v = mcmc.get_samples()["v"]
            parts.append(middle + _unwhiten(root, v[:, None])[:, 0])
        done.append(torch.cat(parts))
    return torch.stack(done, 1)


def _chain_statistics(u: Tensor, chains: int) -> tuple[Tensor, Tensor | None]:
    """Smallest effective sample size and largest R-hat of any number, `(B,)` each."""
    arviz = _arviz()
    numbers = u.unflatten(0, (chains, -1)).double().cpu().numpy()
    effective, r_hat = [], []
    for problem in range(u.shape[1]):
        data = arviz.convert_to_dataset({"u": numbers[:, :, problem]})
        effective.append(float(arviz.ess(data)["u"].min()))
        if chains > 1:
            r_hat.append(float(arviz.rhat(data)["u"].max()))
    return (
        torch.tensor(effective).to(u),
        torch.tensor(r_hat).to(u) if chains > 1 else None,
    )


def _own_randomness() -> AbstractContextManager[None]:
    """Leaves the global random state as it was."""
    device = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    return torch.random.fork_rng(device)


def _arviz() -> Any:
    with warnings.catch_warnings():
        # Once a day ArviZ announces its next major version, which the dependencies exclude.
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    return arviz
