"""Smoothing of videos: `python benchmarks/smooth.py OUT [--model NAME ...]`.

CMU17's sequences at 30 frames per second, one camera, noisy 2D. Errors of joints relative to the
root before and after: MPJPE (mm) and acceleration error (mm per frame squared), mean over
sequences; then with 30 % of the frames dropped at random and filled, where "before" joins the
frames left by straight lines. First the scale of accelerations is varied on `val`, where the
library's default was chosen; last come seconds for 100 to 10,000 frames. Writes `OUT/smooth.json`
and `OUT/smooth.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from propose_prob.datasets import load_cmu17
from propose_prob.datasets.cmu17 import FOCAL
from propose_prob.evaluation import pa_mpjpe
from propose_prob.evaluation.motion_errors import acceleration_error
from propose_prob.tasks.smoothing import smooth, typical_acceleration
from propose_prob.weights import load

SPLITS = ("test_seen", "test_subject03")
DROPPED = 0.3


def interpolated(poses: Tensor, frames: Tensor) -> Tensor:
    """Straight lines between the poses `(N, J, 3)` of some frames, as many as those span."""
    times = torch.arange(int(frames[-1]) + 1)
    after = torch.searchsorted(frames, times)
    before = (after - 1).clamp(min=0)
    span = (frames[after] - frames[before]).clamp(min=1)
    part = ((times - frames[before]) / span)[:, None, None]
    return (1 - part) * poses[before] + part * poses[after]


def errors(pose: Tensor, truth: Tensor) -> dict[str, float]:
    """All errors of one sequence, mm."""
    return {
        "mpjpe": 1e3 * (pose - truth).norm(dim=-1).mean().item(),
        "pa_mpjpe": 1e3 * pa_mpjpe(pose, truth).mean().item(),
        "acceleration": 1e3 * acceleration_error(pose, truth).mean().item(),
    }


def sequences_of(
    split: str, count: int, frames: int, camera: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Noisy 2D and 3D poses of some sequences, evenly from all that are longer than a second."""
    data = load_cmu17(split)
    p2d, p3d = data.p2d("noisy"), data.p3d()
    found = [s for s in data.seq_id.unique().tolist() if (data.seq_id == s).sum() > 30]
    places = torch.linspace(0, len(found) - 1, min(count, len(found))).long().unique()
    for place in places.tolist():
        index = (data.seq_id == found[place]).nonzero()[:, 0]
        rig = data.rig_id[index]
        index = index[(rig == rig[0])][:frames]
        yield p2d[index, camera], p3d[index, camera]


def vary(
    model: Any, scales: list[float], sequences: int, frames: int, camera: int
) -> dict[str, dict[str, float]]:
    """Errors on val for each scale of accelerations, mean over sequences."""
    rows: dict[str, list[dict[str, float]]] = {}
    for seen, truth in sequences_of("val", sequences, frames, camera):
        with torch.no_grad():
            distribution = model.conditional(seen, focal=FOCAL)
        rows.setdefault("frame by frame", []).append(errors(distribution.point_estimate, truth))
        for scale in scales:
            pose = smooth(distribution, acceleration=scale).pose
            rows.setdefault(f"{scale:g} m/s^2", []).append(errors(pose, truth))
    return mean(rows)


def mean(rows: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over sequences."""
    return {
        name: {key: sum(e[key] for e in listed) / len(listed) for key in listed[0]}
        for name, listed in rows.items()
    }


def accuracy(model: Any, split: str, sequences: int, frames: int, camera: int) -> dict[str, Any]:
    """Mean over sequences of each row's errors."""
    rows: dict[str, list[dict[str, float]]] = {}
    for seen, truth in sequences_of(split, sequences, frames, camera):
        with torch.no_grad():
            distribution = model.conditional(seen, focal=FOCAL)
        smoothed = smooth(distribution)
        keep = torch.rand(len(seen)) >= DROPPED
        keep[0] = keep[-1] = True
        kept = keep.nonzero()[:, 0]
        with torch.no_grad():
            fewer = model.conditional(seen[kept], focal=FOCAL)
        filled = smooth(fewer, frames=kept)
        for name, pose in (
            ("frame by frame", distribution.point_estimate),
            ("smoothed", smoothed.pose),
            ("30 % dropped, straight lines", interpolated(fewer.point_estimate, kept)),
            ("30 % dropped, smoothed", filled.pose),
        ):
            rows.setdefault(name, []).append(errors(pose, truth))
        print(split, {k: v[-1] for k, v in rows.items()}, smoothed.steps, flush=True)
    return mean(rows)


def timing(model: Any, lengths: list[int], steps: int) -> dict[str, dict[str, float]]:
    """Seconds of `steps` steps on sequences of each length, test frames one after the other."""
    data = load_cmu17("test_seen")
    seen = data.p2d("noisy")[:, 0]
    rows = {}
    for count in lengths:
        index = torch.arange(count) % len(seen)
        with torch.no_grad():
            distribution = model.conditional(seen[index], focal=FOCAL)
        start = time.perf_counter()
        smooth(distribution, max_steps=steps, tolerance=1e-9)
        seconds = time.perf_counter() - start
        rows[str(count)] = {"seconds": seconds, "milliseconds_a_frame": 1e3 * seconds / count}
        print(count, rows[str(count)], flush=True)
    return rows


def main() -> None:
    """Measures everything and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", action="append", help="default: propose-cmu17")
    parser.add_argument("--sequences", type=int, default=8, help="of each split")
    parser.add_argument("--frames", type=int, default=150, help="most frames of a sequence")
    parser.add_argument("--camera", type=int, default=1)
    parser.add_argument("--scales", type=float, nargs="*", default=[2.0, 5.0, 10.0, 20.0, 40.0])
    parser.add_argument("--lengths", type=int, nargs="*", default=[100, 300, 1000, 3000, 10000])
    parser.add_argument("--steps", type=int, default=3, help="of the timing")
    args = parser.parse_args()
    train = load_cmu17("train")
    scale = typical_acceleration(train.world - train.world[:, :1], fps=30.0, sequence=train.seq_id)
    results: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "typical_acceleration": scale[1:].log().mean().exp().item(),
        "accuracy": {},
        "timing": {},
    }
    for name in args.model or ["propose-cmu17"]:
        model = load(name).eval()
        short = Path(name).name
        if args.scales:
            key = f"{short}, val, scale of accelerations"
            results["accuracy"][key] = vary(
                model, args.scales, args.sequences, args.frames, args.camera
            )
            print(key, json.dumps(results["accuracy"][key], indent=1), flush=True)
        for split in SPLITS if args.sequences else ():
            torch.manual_seed(0)
            results["accuracy"][f"{short}, {split}"] = accuracy(
                model, split, args.sequences, args.frames, args.camera
            )
        if args.lengths:
            results["timing"][short] = timing(model, args.lengths, args.steps)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "smooth.json").write_text(json.dumps(results, indent=1))
    (args.out / "smooth.md").write_text(markdown(results, args.steps))


def markdown(results: dict[str, Any], steps: int) -> str:
    """Tables of errors and of times."""
    lines = []
    for key, rows in results["accuracy"].items():
        lines += [f"**{key}**, noisy 2D, mm, and mm per frame squared", "",
                  "| | MPJPE | PA-MPJPE | acceleration |", "|---|---|---|---|"]  # fmt: skip
        for name, row in rows.items():
            lines.append(
                f"| {name} | {row['mpjpe']:.1f} | {row['pa_mpjpe']:.1f} | "
                f"{row['acceleration']:.1f} |"
            )
        lines.append("")
    for key, rows in results["timing"].items():
        lines += [f"**{key}**, {steps} steps, {results['threads']} thread(s)", "",
                  "| frames | s | ms a frame |", "|---|---|---|"]  # fmt: skip
        for count, row in rows.items():
            lines.append(f"| {count} | {row['seconds']:.1f} | {row['milliseconds_a_frame']:.1f} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
