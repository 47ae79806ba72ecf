"""NUTS against importance sampling on real inputs: `python benchmarks/posterior.py OUT`.

Three models' distributions of noisy 2D from test_seen, each with 3D evidence that the distribution
has not seen: a wrist's depth (the lifting flow), both wrists' places (ProPose's decoded
distribution), both ankles' places under a robust kernel (ProHMR's distribution of rotations, a body
in between). If both are right, the means of a coordinate differ by as much as their Monte Carlo
errors say: the root mean square of the differences in units of those errors is about 1. Writes
`OUT/posterior.json` and `OUT/posterior.md`.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from propose_prob.datasets import load_cmu17
from propose_prob.datasets.cmu17 import FOCAL
from propose_prob.distributions import JointLikelihood
from propose_prob.geometry.rotations import matrix_from_6d
from propose_prob.inference import posterior
from propose_prob.models import ProHMRJoints
from propose_prob.weights import load

FRAME, CAMERA = 2500, 0
WRISTS, ANKLES = [13, 16], [3, 6]


class Case(NamedTuple):
    """A program with its observations.

    Attributes:
        name: What it is.
        program: The Pyro model; its site `joints` or `pose` holds joints.
        observed: Its arguments.
        site: Where the joints are.
    """

    name: str
    program: Callable[..., None]
    observed: tuple[Tensor, ...]
    site: str


def cases() -> list[Case]:
    """The three."""
    data = load_cmu17("test_seen")
    p2d, truth = data.p2d("noisy")[FRAME, CAMERA][None], data.p3d()[FRAME, CAMERA][None]

    def only(joints: list[int]) -> Tensor:
        mask = torch.zeros(17, dtype=torch.bool)
        mask[joints] = True
        return mask

    with torch.no_grad():
        lifting = load("prohmr-lifting-cmu17").conditional(p2d, focal=FOCAL)
        decoded = load("propose-cmu17").conditional(p2d, focal=FOCAL)
        prohmr = load("prohmr-cmu17")
        estimate = getattr(prohmr, "model", prohmr).estimate(p2d, focal=FOCAL)
    body = ProHMRJoints(getattr(prohmr, "model", prohmr)).body

    def depth(seen: Tensor) -> None:
        with pyro.plate("people", len(seen)):
            pose = pyro.sample("pose", lifting)
            pyro.sample("depth", dist.Normal(pose[:, WRISTS[1], 2], 0.02), obs=seen)

    def wrists(seen: Tensor) -> None:
        with pyro.plate("people", len(seen)):
            pose = pyro.sample("pose", decoded)
            pyro.sample("wrists", JointLikelihood(pose, only(WRISTS), scale=0.03), obs=seen)

    def ankles(seen: Tensor) -> None:
        with pyro.plate("people", len(seen)):
            theta = matrix_from_6d(pyro.sample("theta", estimate.distribution))
            joints = body.regress(body(theta, estimate.shape))
            joints = pyro.deterministic("joints", joints - joints[:, :1], event_dim=2)
            distribution = JointLikelihood(joints, only(ANKLES), scale=0.03, kind="student_t")
            pyro.sample("ankles", distribution, obs=seen)

    return [
        Case("lifting flow, a wrist's depth", depth, (truth[:, WRISTS[1], 2],), "pose"),
        Case("decoded distribution, two wrists", wrists, (truth,), "pose"),
        Case("body distribution, two ankles, Student-t", ankles, (truth,), "joints"),
    ]


def moments(found: Any, site: str) -> tuple[Tensor, Tensor]:
    """Mean and its Monte Carlo error of the joints' coordinates but the root's, `(48,)` each."""
    values = found.distributions[site].draws[:, 0, 1:].flatten(1)
    weight = found.log_weights[:, 0].exp()[:, None]
    mean = (weight * values).sum(0)
    if found.method == "importance":
        # Of a self-normalized estimate.
        return mean, (weight.square() * (values - mean).square()).sum(0).sqrt()
    import arviz

    chains = values.unflatten(0, (found.chains, -1)).double().numpy()
    error = arviz.mcse(arviz.convert_to_dataset({"x": chains}), method="mean")["x"]
    return mean, torch.as_tensor(error.to_numpy()).to(mean)


def main() -> None:
    """Measures and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--draws", type=int, default=400, help="of NUTS, after half as many of warm-up"
    )
    parser.add_argument("--weighted", type=int, default=10_000, help="of importance sampling")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    rows: list[dict[str, Any]] = []
    for case in cases():
        row: dict[str, Any] = {"case": case.name}
        means = {}
        for method, draws in (("importance", args.weighted), ("nuts", args.draws)):
            options = {"warmup": args.draws // 2} if method == "nuts" else {}
            start = time.process_time()
            found = posterior(
                case.program, *case.observed, method=method, num_samples=draws, **options
            )
            row[f"{method}_seconds"] = time.process_time() - start
            row[f"{method}_ess"] = found.effective_sample_size.item()
            if found.k_hat is not None:
                row["k_hat"] = found.k_hat.item()
            means[method] = moments(found, case.site)
            deviation = found.distributions[case.site].draws[:, 0, 1:].flatten(1).std(0)
        gap = means["nuts"][0] - means["importance"][0]
        error = (means["nuts"][1].square() + means["importance"][1].square()).sqrt()
        row["rms_of_errors"] = (gap / error).square().mean().sqrt().item()
        row["largest_of_errors"] = (gap / error).abs().max().item()
        row["mean_gap_mm"] = 1e3 * gap.abs().mean().item()
        row["mean_deviation_mm"] = 1e3 * deviation.mean().item()
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "posterior.json").write_text(json.dumps(rows, indent=1))
    lines = [
        "| case | k-hat | effective draws, importance | NUTS | gap of the means, mm | of a "
        "deviation of, mm | gap in Monte Carlo errors, RMS | largest of 48 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['case']} | {r['k_hat']:.2f} | {r['importance_ess']:.0f} of {args.weighted} "
            f"| {r['nuts_ess']:.0f} of {args.draws} | {r['mean_gap_mm']:.1f} "
            f"| {r['mean_deviation_mm']:.0f} | {r['rms_of_errors']:.2f} "
            f"| {r['largest_of_errors']:.1f} |"
        )
    (args.out / "posterior.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
