"""The results tables of a model on CMU17: `python benchmarks/results.py OUT [--model NAME]`.

Writes `OUT/results.md` and `OUT/results.json`: every split, exact and noisy 2D, with and without
known intrinsics, four random joints hidden, and what `log_prob` can tell. The same numbers come
from `propose-prob evaluate` with the options named in each row.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from propose_prob.datasets.cmu17 import FOCAL, load_cmu17
from propose_prob.evaluation import PROTOCOLS, CMU17Set, evaluate
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.weights import load

SPLITS = ("val", "test_seen", "test_subject03")


def accuracy(model: nn.Module, split: str, stride: int, **fields: Any) -> dict[str, Any]:
    """One row: everything of a report's item means."""
    protocol = dataclasses.replace(PROTOCOLS["cmu17"], split=split, frame_stride=stride, **fields)
    data = CMU17Set(load_cmu17(split), protocol.keypoints, stride)
    report = evaluate(model, data, protocol)
    return {"protocol": protocol.describe(), **dataclasses.asdict(report.items)}


@torch.no_grad()
def hidden_spread(model: nn.Module, split: str, poses: int) -> float:
    """Spread of four random hidden joints over that of the same joints when they are seen."""
    data = load_cmu17(split)
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(4 * len(data), generator=generator)[:poses]
    p2d = data.p2d().flatten(0, 1)[chosen]
    order = torch.rand(poses, 16, generator=generator).argsort(1) + 1
    hidden = torch.zeros(poses, 17, dtype=torch.bool).scatter(1, order[:, :4], True)

    def spread(confidence: torch.Tensor) -> torch.Tensor:
        samples = model.conditional(p2d, confidence, focal=FOCAL).sample((200,))
        return samples.var(0).sum(-1).sqrt()[hidden].mean()

    return (spread((~hidden).float()) / spread(torch.ones(poses, 17))).item()


@torch.no_grad()
def density(model: nn.Module, split: str, poses: int) -> dict[str, float]:
    """What `log_prob` tells on true poses; with 256 particles where it is an estimate."""
    data = load_cmu17(split)
    chosen = torch.randperm(4 * len(data), generator=torch.Generator().manual_seed(0))[:poses]
    p2d, p3d = data.p2d().flatten(0, 1)[chosen], data.p3d().flatten(0, 1)[chosen]
    ranked, difference, effective, value = [], [], [], []
    for part in torch.arange(poses).split(32):
        distribution = model.conditional(p2d[part], focal=FOCAL)
        x, mirrored = p3d[part], p3d[part][:, list(H36M_17.mirror)]
        if distribution.log_prob_kind == "exact":
            true, swapped = distribution.log_prob(x), distribution.log_prob(mirrored)
        else:
            estimate = distribution.estimate_log_prob(x, num_particles=256)
            again = distribution.estimate_log_prob(x, num_particles=256, noise_seed=1)
            true = estimate.log_prob
            swapped = distribution.estimate_log_prob(mirrored, num_particles=256).log_prob
            difference.append((true - again.log_prob).abs())
            effective.append(estimate.effective_sample_size / 256)
        ranked.append((true > swapped).float())
        value.append(true)
    measured = {
        "poses": poses,
        "true_above_swapped": torch.cat(ranked).mean().item(),
        "nll_per_coordinate": -torch.cat(value).mean().item() / 48,
    }
    if difference:
        measured["median_noise_difference_nats"] = torch.cat(difference).median().item()
        measured["median_effective_share"] = torch.cat(effective).median().item()
    return measured


def main() -> None:
    """Measures and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="propose-cmu17")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--poses", type=int, default=500, help="for spread and density")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load(arguments.model)
    rows: list[tuple[str, dict[str, Any]]] = []
    for split in arguments.splits:
        for keypoints in ("exact", "noisy"):
            for intrinsics in ("known", "unknown"):
                fields = {"keypoints": keypoints, "intrinsics": intrinsics}
                name = f"{split}, {keypoints}, {intrinsics}"
                rows.append((name, accuracy(model, split, arguments.stride, **fields)))
                print(*rows[-1], flush=True)
        fields = {"keypoints": "exact", "intrinsics": "known", "hidden_joints": 4}
        rows.append((f"{split}, exact, known, 4 hidden", accuracy(
            model, split, arguments.stride, **fields
        )))  # fmt: skip
        print(*rows[-1], flush=True)
    extra = {
        split: {
            "hidden_spread_ratio": hidden_spread(model, split, arguments.poses),
            **density(model, split, arguments.poses),
        }
        for split in arguments.splits
    }
    lines = [
        "| split, 2D, intrinsics | estimate | mean | random | best of 10 | best of 200 "
        "| energy | ECE (signed) | reprojection px |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows:
        lines.append(
            f"| {name} | {row['point_mpjpe']:.1f} | {row['mean_mpjpe']:.1f} "
            f"| {row['sample_mpjpe']:.1f} | {row['best10_mpjpe']:.1f} | {row['best_mpjpe']:.1f} "
            f"| {row['energy_joint']:.1f} | {row['ece']:.3f} ({row['ece_signed']:+.3f}) "
            f"| {row['reprojection']:.1f} |"
        )
    lines += [
        "",
        "| split | hidden / seen spread | ECE of hidden joints | true above swapped "
        "| NLL, nats per coordinate (m) | noise sets differ (nats) | effective particles |",
        "|---|---|---|---|---|---|---|",
    ]
    by_name = dict(rows)
    for split, row in extra.items():
        hidden = by_name[f"{split}, exact, known, 4 hidden"]
        lines.append(
            f"| {split} | {row['hidden_spread_ratio']:.2f} | {hidden['ece_hidden']:.3f} "
            f"| {100 * row['true_above_swapped']:.1f} % | {row['nll_per_coordinate']:.2f} "
            + (
                f"| {row['median_noise_difference_nats']:.3f} "
                f"| {100 * row['median_effective_share']:.0f} % |"
                if "median_effective_share" in row
                else "| exact | exact |"
            )
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "results.md").write_text("\n".join(lines) + "\n")
    stored = {"accuracy": by_name, "distribution": extra}
    (arguments.out / "results.json").write_text(json.dumps(stored, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
