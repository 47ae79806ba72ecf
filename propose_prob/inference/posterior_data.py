"""Posteriors as ArviZ `InferenceData`, with named joints and coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..results.inference_data import _inference_data
from ..results.schema import AXES, IMAGE_AXES
from .posteriors import Posterior

__all__ = ["posterior_to_inference_data"]

_LAST: dict[int, tuple[str, Sequence[str]]] = {
    2: ("image_axis", IMAGE_AXES),
    3: ("axis", AXES),
    6: ("sixd", ("x1", "x2", "x3", "y1", "y2", "y3")),
}
"""Names of the last axis of an event `(J, n)`."""


def posterior_to_inference_data(
    posterior: Posterior,
    *,
    joint_names: Mapping[str, Sequence[str]] | None = None,
    item: Sequence[int | str] | None = None,
    seed: int = 0,
    attrs: Mapping[str, str | int | float] | None = None,
) -> Any:
    """A posterior as ArviZ `InferenceData`.

    ArviZ knows no weights: weighted draws are resampled (systematically, so that each occurs as
    often as its weight says, to the nearest whole number) and lie in one chain.

    Args:
        posterior: From `posterior`.
        joint_names: Names of the J joints of sites with events `(J, n)`, by site. Their dimension
            is `joint`, or `site_joint` where sites have different joints; the last dimension is
            `axis`, `image_axis` or `sixd`, for n of 3, 2 and 6.
        item: Names of the B problems; their numbers by default.
        seed: Of the resampling.
        attrs: What to store about the run.

    Returns:
        `arviz.InferenceData` with `posterior`, `posterior_predictive` (of the observed sites that
        can be sampled), `prior`, `observed_data`, and `constant_data`: `effective_sample_size` and,
        where there is one, `k_hat` or `r_hat`, for each item.

    Raises:
        InputError: If the names do not fit the sites.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> from propose_prob.inference import posterior
        >>> def model(seen):
        ...     with pyro.plate("problems", len(seen)):
        ...         x = pyro.sample("pose", dist.Normal(torch.zeros(2, 3), 1.0).to_event(2))
        ...         pyro.sample("seen", dist.Normal(x, 1.0).to_event(2), obs=seen)
        >>> found = posterior(model, torch.ones(1, 2, 3), method="laplace", num_samples=50)
        >>> names = {"pose": ["hip", "knee"], "seen": ["hip", "knee"]}
        >>> data = posterior_to_inference_data(found, joint_names=names)
        >>> data.posterior["pose"].sel(joint="knee", axis="z").shape
        (1, 50, 1)
    """
    names = {site: list(joints) for site, joints in (joint_names or {}).items()}
    _, count = posterior.log_weights.shape
    items = [str(x) for x in (range(count) if item is None else item)]
    if len(items) != count:
        raise InputError(f"expected {count} names in item, got {len(items)}")
    events = {
        name: tuple(distribution.event_shape)
        for name, distribution in posterior.distributions.items()
    }
    events |= {name: tuple(x.shape[1:]) for name, x in posterior.observed.items()}
    unknown = set(names) - set(events)
    if unknown:
        raise InputError(
            f"joint_names: expected sites of {', '.join(events)}, got {', '.join(sorted(unknown))}"
        )
    same = len({tuple(joints) for joints in names.values()}) <= 1
    coords: dict[str, Any] = {"item": items}
    dims: dict[str, tuple[str, ...]] = {}
    for site, event in events.items():
        dims[site] = tuple(f"{site}_dim_{i}" for i in range(len(event)))
        if site not in names:
            continue
        if len(event) != 2 or len(names[site]) != event[0]:
            raise InputError(
                f"joint_names: site {site!r} has events of shape {event}, got "
                f"{len(names[site])} names"
            )
        joint = "joint" if same else f"{site}_joint"
        last, labels = _LAST.get(event[1], (f"{site}_dim_1", range(event[1])))
        dims[site] = (joint, last)
        coords[joint] = names[site]
        coords[last] = list(labels)

    chosen = _systematic(posterior.log_weights, seed)

    def variable(site: str, x: Tensor, resample: bool) -> Any:
        if resample:
            wide = chosen.reshape(*chosen.shape, *(1,) * (x.ndim - 2))
            x = x.gather(0, wide.to(x.device).expand_as(x))
            x = x.unflatten(0, (posterior.chains, -1))
        else:
            x = x[None]
        values = x.detach().cpu().numpy()
        return ("chain", "draw", "item", *dims[site]), values, {}

    groups: dict[str, dict[str, Any]] = {
        "posterior": {
            s: variable(s, distribution.draws, True)
            for s, distribution in posterior.distributions.items()
        },
        "posterior_predictive": {s: variable(s, x, True) for s, x in posterior.predictive.items()},
        "prior": {s: variable(s, x, False) for s, x in posterior.prior.items()},
        "observed_data": {
            s: (("item", *dims[s]), x.detach().cpu().numpy(), {})
            for s, x in posterior.observed.items()
        },
        "constant_data": {
            name: (("item",), x.cpu().numpy(), {"long_name": about})
            for name, x, about in (
                ("effective_sample_size", posterior.effective_sample_size, "draws worth"),
                ("k_hat", posterior.k_hat, "Pareto shape of the weights"),
                ("r_hat", posterior.r_hat, "largest split R-hat"),
            )
            if x is not None
        },
    }
    groups = {name: group for name, group in groups.items() if group}
    about = {"method": posterior.method} | dict(attrs or {})
    return _inference_data(groups, coords, {}, about)


def _systematic(log_weights: Tensor, seed: int) -> Tensor:
    """Numbers of draws `(S, B)`, each as often as its weight says."""
    weights = log_weights.double().exp().cpu().numpy()
    draws, count = weights.shape
    generator = np.random.default_rng(seed)
    chosen = np.empty((draws, count), dtype=np.int64)
    if np.allclose(weights, 1 / draws, rtol=1e-6):
        # Equal weights keep the draws in their order, and with it their chains.
        chosen[:] = np.arange(draws)[:, None]
        return torch.from_numpy(chosen)
    for problem in range(count):
        edges = np.cumsum(weights[:, problem])
        points = (np.arange(draws) + generator.random()) / draws * edges[-1]
        picked = np.minimum(np.searchsorted(edges, points, side="right"), draws - 1)
        chosen[:, problem] = generator.permutation(picked)
    return torch.from_numpy(chosen)
