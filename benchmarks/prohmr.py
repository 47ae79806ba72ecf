"""What ProHMR shows on CMU17's bodies: `python benchmarks/prohmr.py OUT [--model NAME]`.

The truth is the retargeted body's own joints, and so is the 2D: a body of the right rotations makes
no error. Writes `OUT/prohmr.json` and `OUT/prohmr.md`: accuracy and calibration of the joints for
exact and noisy 2D with and without intrinsics, and how well the distribution's entropy tells hard
inputs from easy ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch

from propose_prob.bodies import SkeletonBody
from propose_prob.datasets import CMU17, load_cmu17, load_cmu_body
from propose_prob.datasets.cmu17 import FOCAL
from propose_prob.evaluation import CMU17Set, Protocol, evaluate, pa_mpjpe
from propose_prob.geometry.rotations import geodesic_distance, matrix_from_6d
from propose_prob.models import ProHMR, ProHMRJoints
from propose_prob.weights import load

SPLITS = ("val", "test_seen", "test_subject03")


def body_split(split: str) -> CMU17:
    """CMU17's cameras and noise, with retargeted bodies' joints in place of the capture's."""
    data, bodies, body = load_cmu17(split), load_cmu_body(split), SkeletonBody()
    joints = body.regress(body(bodies.theta, bodies.shape, bodies.translation))
    return dataclasses.replace(data, world=joints)


def accuracy(model: ProHMR, split: str, stride: int, samples: int, **fields: Any) -> dict[str, Any]:
    """One row: a report's item means."""
    protocol = Protocol(
        "CMU17 bodies",
        split,
        num_samples=samples,
        samples="distribution",
        frame_stride=stride,
        **fields,
    )
    data = CMU17Set(body_split(split), fields["keypoints"], stride)
    report = evaluate(ProHMRJoints(model), data, protocol)
    return {"protocol": protocol.describe(), **dataclasses.asdict(report.items)}


@torch.no_grad()
def entropy(model: ProHMR, split: str, stride: int) -> dict[str, float]:
    """Rank correlation of entropy with the mode's errors, exact 2D, known intrinsics."""
    data, bodies = body_split(split), load_cmu_body(split)
    body = SkeletonBody()
    entropies, pa, turned = [], [], []
    for frame in torch.arange(0, len(data), stride).split(64):
        part = dataclasses.replace(
            data, world=data.world[frame], rig_id=data.rig_id[frame], noise=None
        )
        p2d, p3d = part.p2d().flatten(0, 1), part.p3d().flatten(0, 1)
        estimate = model.estimate(p2d, focal=FOCAL)
        theta = matrix_from_6d(estimate.distribution.mode)
        joints = body.regress(body(theta, estimate.shape))
        entropies.append(estimate.distribution.entropy())
        pa.append(pa_mpjpe(joints - joints[:, :1], p3d))
        truth = bodies.theta[frame][:, None].expand(-1, 4, -1, -1, -1).flatten(0, 1)
        turned.append(geodesic_distance(theta[:, 1:22], truth[:, 1:22]).mean(-1))
    values = [torch.cat(v) for v in (entropies, pa, turned)]
    ranks = [v.argsort().argsort().double() for v in values]
    correlation = torch.corrcoef(torch.stack(ranks))
    return {
        "spearman_pa": correlation[0, 1].item(),
        "spearman_rotation": correlation[0, 2].item(),
        "entropy_sd_nats": values[0].std().item(),
        "rotation_error_degrees": torch.rad2deg(values[2]).mean().item(),
    }


def main() -> None:
    """Measures everything and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="prohmr-cmu17")
    parser.add_argument("--stride", type=int, default=10)
    parser.add_argument("--splits", nargs="*", choices=SPLITS, default=list(SPLITS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    model = load(arguments.model)
    rows, ranks = [], {}
    for split in arguments.splits:
        for keypoints in ("exact", "noisy"):
            for intrinsics in ("known", "unknown"):
                fields = {"keypoints": keypoints, "intrinsics": intrinsics}
                row = accuracy(model, split, arguments.stride, 25, **fields)
                rows.append({"split": split, "hidden": 0, **fields, **row})
                print(split, fields, round(row["point_pa_mpjpe"], 1), flush=True)
        fields = {"keypoints": "exact", "intrinsics": "known", "hidden_joints": 4}
        row = accuracy(model, split, arguments.stride, 25, **fields)
        rows.append({"split": split, "hidden": 4, **fields, **row})
        ranks[split] = entropy(model, split, arguments.stride)
    stored = json.dumps({"rows": rows, "entropy": ranks}, indent=1)
    (arguments.out / "prohmr.json").write_text(stored)
    (arguments.out / "prohmr.md").write_text(table(rows, ranks))


def table(rows: list[dict[str, Any]], ranks: dict[str, dict[str, float]]) -> str:
    """Both tables as Markdown."""
    lines = [
        f"{rows[0]['protocol']}",
        "",
        "| split | 2D | intrinsics | hidden | PA mode | PA best of 25 | MPJPE mode | best of 25 | "
        "ECE | signed | reprojection, px | spread seen / hidden |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| {r['split']} | {r['keypoints']} | {r['intrinsics']} | {r['hidden']} "
            f"| {r['point_pa_mpjpe']:.1f} | {r['best_pa_mpjpe']:.1f} | {r['point_mpjpe']:.1f} "
            f"| {r['best_mpjpe']:.1f} | {r['ece']:.3f} | {r['ece_signed']:+.3f} "
            f"| {r['reprojection']:.1f} | {r['spread_seen']:.0f} / {r['spread_hidden']:.0f} |"
        )
    lines += [
        "",
        "| split | Spearman of entropy with PA-MPJPE | with rotation error | rotation error, deg | "
        "standard deviation of entropy, nats |",
        "|---|---|---|---|---|",
    ]
    for split, r in ranks.items():
        lines.append(
            f"| {split} | {r['spearman_pa']:.2f} | {r['spearman_rotation']:.2f} "
            f"| {r['rotation_error_degrees']:.1f} | {r['entropy_sd_nats']:.1f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
