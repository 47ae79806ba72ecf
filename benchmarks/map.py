"""MAP estimates of body fits: quality and time, `python benchmarks/map.py OUT [--model NAME]`.

Writes `OUT/map.json` and `OUT/map.md`. Bodies from CMU17's `test_seen` and `test_subject03` are
seen by random cameras with noisy 2D keypoints; a fit moves pose, shape and translation. Solved by
this package, by scipy one problem at a time, and by one torch LBFGS over the summed batch as ProHMR
was published (30 x 20 iterations, strong-Wolfe search, gradients of the weights on, the
distribution built again for each evaluation) and with that waste removed. A problem counts as
solved when it ends within 1 % of the lowest energy (half the sum of squares, of the robust kernel
where there is one) that any method found for it. `--case nonlinear` does the same on a strongly
non-linear random flow.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from propose_prob.bodies import SkeletonBody
from propose_prob.conditional import ConditionalFlow, StandardBase, glow_stack
from propose_prob.datasets import load_cmu_body
from propose_prob.distributions import KeypointLikelihood, PoseFlowDistribution
from propose_prob.distributions.flow import VectorToRotations
from propose_prob.geometry.camera import look_at, project
from propose_prob.geometry.rotations import matrix_from_6d, matrix_from_axis_angle, sixd_from_matrix
from propose_prob.inference import map_estimate
from propose_prob.models import ProHMR, ProHMRConfig

FOCAL, CENTER, NOISE, SPREAD = 1145.0, 500.0, 5.0, 0.3
SPLITS = ("test_seen", "test_subject03")


class Fits(NamedTuple):
    """A set of problems.

    Attributes:
        distribution: Builds the distribution of the pose again, for some rows.
        keypoints: `(B, 17, 2)`, pixels.
        place: Where the translation is expected, `(B, 3)`.
    """

    distribution: Callable[[slice], PoseFlowDistribution]
    keypoints: Tensor
    place: Tensor


def film(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rotations in camera axes, joints' keypoints, translations and camera turns of frames."""
    generator = torch.Generator().manual_seed(seed)
    body = SkeletonBody()
    parts = [load_cmu_body(split) for split in SPLITS]
    chosen = [torch.randperm(len(p), generator=generator)[: math.ceil(count / 2)] for p in parts]
    theta, shape, moved = (
        torch.cat([getattr(p, name)[c] for p, c in zip(parts, chosen, strict=True)])[:count]
        for name in ("theta", "shape", "translation")
    )
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    offset = torch.stack([5 * angle.cos(), 5 * angle.sin(), torch.full_like(angle, 0.5)], -1)
    root = body(theta, shape, moved).joints[:, 0]
    camera = look_at(root + offset, root)
    turned = torch.cat([(camera.rotation @ theta[:, 0])[:, None], theta[:, 1:]], 1)
    place = camera.apply(root[:, None])[:, 0] - body(turned, shape).joints[:, 0]
    joints = body.regress(body(turned, shape, place))
    noise = NOISE * torch.randn(count, 17, 2, generator=generator)
    return turned, project(joints, focal=FOCAL, center=CENTER) + noise, place, camera.rotation


def body_fits(model: ProHMR | None, count: int, seed: int, nonlinear: bool) -> Fits:
    """Problems with a trained model's distributions, or with random weights around the data."""
    theta, keypoints, place, _ = film(count, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    if model is not None:
        return Fits(
            lambda rows: model.conditional(keypoints[rows], focal=FOCAL, center=(CENTER, CENTER)),
            keypoints,
            place,
        )
    tilt = 0.3 * torch.randn(count, 3, generator=generator)
    facing = theta[:, 0] @ matrix_from_axis_angle(tilt)
    context = torch.randn(count, 64, generator=generator)
    poses = torch.cat(
        [matrix_from_axis_angle(0.2 * torch.randn(count, 1, 3, generator=generator)),
         theta[:, 1:]], 1
    )  # fmt: skip
    torch.manual_seed(seed)
    kind = "affine" if nonlinear else "additive"
    flow = ConditionalFlow(
        StandardBase(144), glow_stack(144, 64, kind=kind, width=ProHMRConfig().flow_width)
    )
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "network.output" in name:
                gain = 1.0 if nonlinear else 0.3
                parameter.normal_(0, gain / math.sqrt(parameter.shape[-1]))
        vectors = sixd_from_matrix(poses).flatten(1)
        vectors = vectors + 0.05 * torch.randn(vectors.shape, generator=generator)
        flow.transform.fit_actnorm(vectors, context)
    return Fits(
        lambda rows: PoseFlowDistribution(flow(context[rows]), VectorToRotations(facing[rows])),
        keypoints,
        place,
    )


BODY = SkeletonBody()


def likelihood(theta: Tensor, shape: Tensor, place: Tensor) -> KeypointLikelihood:
    """The distribution of the keypoints given a posed body."""
    joints = BODY.regress(BODY(matrix_from_6d(theta), shape, place))
    seen = project(joints, focal=FOCAL, center=CENTER)
    return KeypointLikelihood(seen, scale=NOISE, kind="student_t", validate_args=False)


def program(distribution: PoseFlowDistribution, keypoints: Tensor, place: Tensor) -> None:
    """The fit as a Pyro model."""
    with pyro.plate("problems", len(keypoints)):
        theta = pyro.sample("theta", distribution)
        shape = pyro.sample("shape", dist.Normal(keypoints.new_zeros(10), 1.0).to_event(1))
        moved = pyro.sample("translation", dist.Normal(place, SPREAD).to_event(1))
        pyro.sample("keypoints", likelihood(theta, shape, moved), obs=keypoints)


def energy(
    distribution: PoseFlowDistribution, keypoints: Tensor, place: Tensor, u: Tensor
) -> Tensor:
    """The same program written out: its energy `(B,)`, without constants."""
    base = distribution.flow.base_dist
    z, shape, moved = u.split([144, 10, 3], -1)
    theta = distribution.to_pose(distribution.flow.transform(base.mean + base.stddev * z))
    seen = likelihood(theta, shape, place + SPREAD * moved)
    return 0.5 * u.square().sum(-1) + seen.log_prob(seen.mean) - seen.log_prob(keypoints)


def ours(fits: Fits, rows: slice, solver: str) -> Tensor:
    """Solved by this package."""
    distribution = fits.distribution(rows)
    found = map_estimate(
        program, distribution, fits.keypoints[rows], fits.place[rows], solver=solver
    )
    return torch.cat([found.base[name] for name in ("theta", "shape", "translation")], -1)


def torch_lbfgs(fits: Fits, rows: slice, published: bool) -> Tensor:
    """One LBFGS over the sum of the batch."""
    keypoints, place = fits.keypoints[rows], fits.place[rows]
    u = torch.zeros(len(keypoints), 157, requires_grad=True)
    optimizer = torch.optim.LBFGS([u], max_iter=20, line_search_fn="strong_wolfe")
    with torch.no_grad():
        hoisted = fits.distribution(rows)

    def closure() -> Tensor:
        optimizer.zero_grad()
        distribution = fits.distribution(rows) if published else hoisted
        loss = energy(distribution, keypoints, place, u).sum()
        if published:
            loss.backward()
        else:
            (u.grad,) = torch.autograd.grad(loss, u)
        return loss

    for _ in range(30):
        optimizer.step(closure)
    return u.detach()


def scipy_lbfgs(fits: Fits, rows: slice) -> Tensor:
    """Scipy's L-BFGS-B, one problem at a time."""
    from scipy.optimize import minimize

    found = []
    for row in range(rows.start, rows.stop):
        one = slice(row, row + 1)
        with torch.no_grad():
            distribution = fits.distribution(one)

        def function(
            x: Any, one: slice = one, distribution: Any = distribution
        ) -> tuple[float, Any]:
            u = torch.from_numpy(x).float()[None].requires_grad_()
            value = energy(distribution, fits.keypoints[one], fits.place[one], u).sum()
            (gradient,) = torch.autograd.grad(value, u)
            return value.item(), gradient[0].double().numpy()

        options = {"maxiter": 2000, "maxfun": 3000}
        result = minimize(function, np.zeros(157), jac=True, method="L-BFGS-B", options=options)
        found.append(torch.from_numpy(result.x).float())
    return torch.stack(found)


METHODS: dict[str, Callable[[Fits, slice], Tensor]] = {
    "ours, auto": lambda fits, rows: ours(fits, rows, "auto"),
    "ours, lbfgs": lambda fits, rows: ours(fits, rows, "lbfgs"),
    "ours, lm": lambda fits, rows: ours(fits, rows, "lm"),
    "ours, adam": lambda fits, rows: ours(fits, rows, "adam"),
    "scipy, one at a time": scipy_lbfgs,
    "torch LBFGS, published": lambda fits, rows: torch_lbfgs(fits, rows, True),
    "torch LBFGS, waste removed": lambda fits, rows: torch_lbfgs(fits, rows, False),
}


def measure(fits: Fits, batch: int, methods: list[str]) -> dict[str, dict[str, Any]]:
    """Energies `(B,)`, seconds and seconds of CPU time of each method.

    CPU time (of all threads) also tells something on a machine that has other work.
    """
    results: dict[str, dict[str, Any]] = {}
    count = len(fits.keypoints)
    for name in methods:
        energies, seconds, busy = [], 0.0, 0.0
        for begin in range(0, count, batch):
            rows = slice(begin, min(begin + batch, count))
            started, working = time.perf_counter(), time.process_time()
            u = METHODS[name](fits, rows)
            seconds += time.perf_counter() - started
            busy += time.process_time() - working
            with torch.no_grad():
                distribution = fits.distribution(rows)
                energies.append(energy(distribution, fits.keypoints[rows], fits.place[rows], u))
        found = torch.cat(energies)
        results[name] = {"energy": found, "seconds": seconds, "cpu_seconds": busy}
        print(f"{name}: {seconds:.1f} s, of the CPU {busy:.1f} s", flush=True)
    return results


def main() -> None:
    """Measures and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", help="a ProHMR: shipped name or file; random weights if none")
    parser.add_argument("--case", nargs="+", default=["body", "nonlinear"])
    parser.add_argument("--problems", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = None
    if arguments.model is not None:
        from propose_prob.weights import load

        model = load(arguments.model)
        model.requires_grad_(True)
    rows: list[dict[str, Any]] = []
    for case in arguments.case:
        pooled: dict[str, dict[str, list[Any]]] = {
            name: {"energy": [], "seconds": [], "cpu_seconds": []} for name in arguments.methods
        }
        for seed in range(arguments.seeds):
            fits = body_fits(
                model if case == "body" else None, arguments.problems, seed, case == "nonlinear"
            )
            for name, found in measure(fits, arguments.batch, arguments.methods).items():
                for key, value in found.items():
                    pooled[name][key].append(value)
        energies = {name: torch.cat(found["energy"]) for name, found in pooled.items()}
        best = torch.stack(list(energies.values())).nan_to_num(nan=math.inf).amin(0)
        for name, found in pooled.items():
            excess = energies[name] / best - 1
            rows.append(
                {
                    "case": case,
                    "method": name,
                    "within_1_percent": (excess <= 0.01).float().mean().item(),
                    "median_energy": energies[name].median().item(),
                    "worst_excess": excess.max().item(),
                    "seconds": sum(found["seconds"]),
                    "cpu_seconds": sum(found["cpu_seconds"]),
                    "problems": len(best),
                }
            )
    lines = [
        f"{arguments.problems} problems x {arguments.seeds} seeds, batches of {arguments.batch}, "
        f"{arguments.threads} thread(s), model {arguments.model or 'random weights'}.",
        "",
        "| case | method | within 1 % | median energy | seconds | CPU seconds "
        "| CPU time / ours, auto |",
        "|---|---|---|---|---|---|---|",
    ]
    reference = {r["case"]: r["cpu_seconds"] for r in rows if r["method"] == "ours, auto"}
    for row in rows:
        ratio = row["cpu_seconds"] / reference.get(row["case"], math.nan)
        lines.append(
            f"| {row['case']} | {row['method']} | {100 * row['within_1_percent']:.1f} % "
            f"| {row['median_energy']:.1f} | {row['seconds']:.1f} "
            f"| {row['cpu_seconds']:.1f} | {ratio:.2f} |"
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) for key, value in vars(arguments).items()}
    (arguments.out / "map.json").write_text(
        json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n"
    )
    (arguments.out / "map.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
