"""What fitting shows on CMU17's bodies: `python benchmarks/fit.py OUT [--model NAME]`.

The truth is the retargeted body's own joints, and so is the 2D: a body of the right rotations makes
no error. Writes `OUT/fit.json` and `OUT/fit.md`: PA-MPJPE of the distribution's mode, of the fit
with the distribution as prior, and of the same fit, from the same start, with independent normal
distributions of the joint angles in its place: of the training poses' mean and spread, and N(0, I)
about the T pose. The standard deviation of the keypoints is chosen on `val` for each kind of 2D and
each prior.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from prohmr import body_split

from propose_prob.bodies import SkeletonBody
from propose_prob.datasets import load_cmu_body
from propose_prob.datasets.cmu17 import FOCAL
from propose_prob.evaluation import mpjpe, pa_mpjpe
from propose_prob.geometry.rotations import matrix_from_6d
from propose_prob.tasks import fit, generic_prior
from propose_prob.weights import load

SPLITS = ("test_seen", "test_subject03")
PRIORS = ("distribution", "training angles", "N(0, I)")

#: Standard deviations of a keypoint, half image widths, from which val chooses.
CANDIDATES = {"exact": (0.001, 0.002, 0.004), "noisy": (0.004, 0.006, 0.01, 0.02, 0.04)}


@dataclasses.dataclass(frozen=True)
class Part:
    """Every `stride`-th frame of a split from all four cameras, with the estimates of it."""

    p2d: torch.Tensor
    truth: torch.Tensor
    estimate: Any

    @classmethod
    def of(cls, model: Any, split: str, keypoints: str, stride: int) -> Part:
        """Take frames, and ask the model."""
        data = body_split(split)
        rows = torch.arange(0, len(data), stride)
        data = dataclasses.replace(
            data, world=data.world[rows], rig_id=data.rig_id[rows], noise=data.noise[rows]
        )
        p2d, truth = data.p2d(keypoints).flatten(0, 1), data.p3d().flatten(0, 1)
        return cls(p2d, truth, model.estimate(p2d, focal=FOCAL))

    def errors(self, joints: torch.Tensor) -> dict[str, float]:
        """Mean errors, mm."""
        relative = joints - joints[:, :1]
        return {
            "pa_mpjpe": 1000 * pa_mpjpe(relative, self.truth).mean().item(),
            "mpjpe": 1000 * mpjpe(relative, self.truth).mean().item(),
        }

    def mode(self) -> dict[str, float]:
        """Errors of the distribution's mode with the estimated shape."""
        body = SkeletonBody()
        theta = matrix_from_6d(self.estimate.distribution.mode)
        return self.errors(body.regress(body(theta, self.estimate.shape)))

    def fitted(self, prior: str, scale: float, train: torch.Tensor, solver: str) -> dict[str, Any]:
        """Errors of a fit."""
        distribution = self.estimate.distribution
        if prior == "training angles":
            distribution = generic_prior(len(self.p2d), theta=train)
        elif prior == "N(0, I)":
            distribution = generic_prior(len(self.p2d), spread=1.0)
        begin = time.perf_counter()
        result = fit(
            distribution, self.p2d, start=self.estimate, focal=FOCAL, scale=scale, solver=solver
        )
        seconds = time.perf_counter() - begin
        return {
            **self.errors(result.joints),
            "scale": scale,
            "converged": result.converged.float().mean().item(),
            "reprojection": (result.projected - self.p2d).norm(dim=-1).mean().item(),
            "fits_per_second": len(self.p2d) / seconds,
        }


def main() -> None:
    """Measures everything and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="prohmr-cmu17")
    parser.add_argument("--stride", type=int, default=20)
    parser.add_argument("--val-stride", type=int, default=40, help="where scales are chosen")
    parser.add_argument("--solver", default="auto")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = load(arguments.model)
    train = load_cmu_body("train").theta[::20]
    scales = tune(model, arguments.val_stride, train, arguments.solver)
    rows = []
    for split in SPLITS:
        for keypoints in ("exact", "noisy"):
            part = Part.of(model, split, keypoints, arguments.stride)
            row: dict[str, Any] = {"split": split, "keypoints": keypoints, "items": len(part.p2d)}
            row["mode"] = part.mode()
            for prior in PRIORS:
                row[prior] = part.fitted(prior, scales[keypoints][prior], train, arguments.solver)
            rows.append(row)
            print(table([row]), flush=True)
    result = {"model": arguments.model, "stride": arguments.stride, "scales": scales, "rows": rows}
    (arguments.out / "fit.json").write_text(json.dumps(result, indent=1))
    (arguments.out / "fit.md").write_text(
        f"{arguments.model}, every {arguments.stride}th frame, four cameras, known intrinsics, "
        f"solver {arguments.solver}; PA-MPJPE in mm over 17 joints.\n\n{table(rows)}\n"
        f"Scales in half image widths, chosen on every {arguments.val_stride}th frame of val: "
        f"{json.dumps(scales)}\n"
    )


def tune(model: Any, stride: int, train: torch.Tensor, solver: str) -> dict[str, dict[str, float]]:
    """The scale with the smallest PA-MPJPE on val for each kind of 2D and each prior."""
    best: dict[str, dict[str, float]] = {}
    for keypoints, candidates in CANDIDATES.items():
        part = Part.of(model, "val", keypoints, stride)
        best[keypoints] = {}
        for prior in PRIORS:
            found = {s: part.fitted(prior, s, train, solver)["pa_mpjpe"] for s in candidates}
            best[keypoints][prior] = min(found, key=lambda s: found[s])
            print(keypoints, prior, found, flush=True)
    return best


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| split | 2D | items | mode | fit, distribution | change | fit, training angles | fit, "
        "N(0, I) "
        "| converged | fits a second |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        mode, distribution = row["mode"]["pa_mpjpe"], row["distribution"]["pa_mpjpe"]
        lines.append(
            f"| {row['split']} | {row['keypoints']} | {row['items']} | {mode:.1f} | "
            f"{distribution:.1f} "
            f"| {100 * (distribution / mode - 1):+.0f} % | "
            f"{row['training angles']['pa_mpjpe']:.1f} "
            f"| {row['N(0, I)']['pa_mpjpe']:.1f} | {100 * row['distribution']['converged']:.0f} % "
            f"| {row['distribution']['fits_per_second']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
