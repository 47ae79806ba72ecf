"""Several views of one person: `python benchmarks/fuse.py OUT [--model NAME ...]`.

CMU17's rigs of 4 known cameras and its noisy 2D. For 2, 3 and 4 views and each model: one view
alone, averaging, fusion without and with the cameras, and plain triangulation (DLT), which needs no
model. Errors of joints relative to the root, mm, mean over instants of each action and then over
actions; PA after similarity alignment. Uncalibrated poses are measured in every view's axes,
calibrated ones in the world's. Writes `OUT/fuse.json` and `OUT/fuse.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from propose_prob.bodies import SkeletonBody
from propose_prob.datasets import load_cmu17
from propose_prob.datasets.cmu17 import FOCAL
from propose_prob.evaluation import pa_mpjpe
from propose_prob.geometry.alignment import procrustes
from propose_prob.geometry.rotations import matrix_from_6d
from propose_prob.tasks.fusion import Cameras, ViewEvidence, fuse_views, pose_prior
from propose_prob.weights import load

SPLITS = ("test_seen", "test_subject03")
#: Standard deviation of a keypoint: the data's 5 px, in half image widths.
KEYPOINT = 0.01
#: Views of each count: with two, opposite-ish and neighboring pairs would differ, so take the
#: first cameras of every rig.
COUNTS = (2, 3, 4)


def triangulate(p2d: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Joints `(B, J, 3)` from keypoints `(B, V, J, 2)`: DLT, the null vector of `A`.

    Source: Hartley and Zisserman, "Multiple View Geometry" (2004), section 12.2.
    """
    camera = torch.cat([rotation, translation[..., None]], -1)[:, :, None]
    rays = p2d[..., None] / FOCAL
    rows = (rays * camera[..., 2:, :] - camera[..., :2, :]).movedim(1, 2).flatten(2, 3)
    point = torch.linalg.svd(rows).Vh[..., -1, :]
    return point[..., :3] / point[..., 3:]


class Scores:
    """Mean over actions of both errors."""

    def __init__(self, actions: list[str]) -> None:
        self.actions = actions
        self.rows: dict[str, dict[str, float]] = {}

    def add(self, name: str, pose: Tensor, truth: Tensor, **more: float) -> None:
        """Add a method's poses `(B, ..., J, 3)`."""
        pose, truth = pose - pose[..., :1, :], truth.expand_as(pose)
        errors = {
            "mpjpe": (pose - truth).norm(dim=-1).mean(-1),
            "pa_mpjpe": pa_mpjpe(pose, truth),
        }
        row = dict(more)
        for key, value in errors.items():
            groups = defaultdict(list)
            for action, error in zip(
                self.actions, value.reshape(len(value), -1).mean(1).tolist(), strict=True
            ):
                groups[action].append(error)
            row[key] = 1e3 * sum(sum(v) / len(v) for v in groups.values()) / len(groups)
        self.rows[name] = row


def averaged(points: Tensor) -> Tensor:
    """Mean of poses `(B, V, J, 3)` aligned to the first, in each view's axes again."""
    mean = points[:, 0]
    for _ in range(3):
        mean = procrustes(points, mean[:, None], scale=False).mean(1)
    return procrustes(mean[:, None].expand_as(points), points, scale=False)


def measure(model: Any, split: str, frames: int, views: int, prior: Any, body: Any) -> dict:
    """All methods on `views` views."""
    data = load_cmu17(split)
    rows = torch.linspace(0, len(data) - 1, frames).long().unique()
    rotation = data.cam_R[data.rig_id[rows], :views]
    translation = data.cam_t[data.rig_id[rows], :views]
    p2d, p3d = data.p2d("noisy")[rows, :views], data.p3d()[rows, :views]
    world = data.world[rows] - data.world[rows, :1]
    actions = data.action_of_frames()
    scores = Scores([actions[row] for row in rows.tolist()])
    scores.add("DLT, calibrated", triangulate(p2d, rotation, translation), world)
    with torch.no_grad():
        if body is None:
            distribution, shape = model.conditional(p2d, focal=FOCAL), None
        else:
            estimate = model.estimate(p2d, focal=FOCAL)
            distribution, shape = estimate.distribution, estimate.shape.mean(1)
    joints = (lambda x: x) if body is None else (lambda x: posed(body, matrix_from_6d(x), shape))
    points = distribution.point_estimate
    single = joints(points)
    scores.add("one view", single, p3d)
    scores.add("average of aligned joints, uncalibrated", averaged(single), p3d)
    scores.add("average of joints, calibrated", (single @ rotation).mean(1), world)
    if body is not None:
        scores.add("average of rotations, uncalibrated", joints(mean_rotations(points)), p3d)
    cameras = Cameras(rotation, translation, FOCAL)
    evidence = ViewEvidence(
        p2d, KEYPOINT, body=None if body is None else (lambda m: posed(body, m, shape))
    )
    runs: dict[str, dict[str, Any]] = {
        "fused, uncalibrated": {} if body is None else {"agreement": 0.05},
        "fused, calibrated": {"cameras": cameras},
        "fused, calibrated, with keypoints": {"cameras": cameras, "evidence": evidence},
    }
    if body is None:
        once = {"prior": "once", "marginal": prior}
        runs["fused, uncalibrated, prior once"] = once
        runs["fused, calibrated, prior once"] = {"cameras": cameras, **once}
    for name, options in runs.items():
        start = time.perf_counter()
        fused = fuse_views(distribution, **options)
        more = {
            "seconds": time.perf_counter() - start,
            "converged": fused.converged.float().mean().item(),
        }
        if "cameras" in options:
            scores.add(name, joints(fused.pose[:, None])[:, 0], world, **more)
        else:
            scores.add(name, joints(fused.in_views), p3d, **more)
    return scores.rows


def posed(body: SkeletonBody, matrices: Tensor, shape: Tensor) -> Tensor:
    """Root-relative joints of bodies with rotations `(B, ..., 24, 3, 3)`."""
    extra = matrices.ndim - 4
    joints = body.regress(body(matrices, shape.reshape(len(shape), *[1] * extra, -1)))
    return joints - joints[..., :1, :]


def mean_rotations(sixd: Tensor) -> Tensor:
    """Body rotations averaged over views and projected to SO(3), each view's own orientation."""
    from propose_prob.geometry.rotations import nearest_rotation, sixd_from_matrix

    mean = matrix_from_6d(sixd[:, :, 1:]).mean(1, keepdim=True)
    rotation, _ = nearest_rotation(mean)
    rest = sixd_from_matrix(rotation).expand(-1, sixd.shape[1], -1, -1)
    return torch.cat([sixd[:, :, :1], rest], 2)


def main() -> None:
    """Measures everything and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", action="append", help="default: propose-cmu17")
    parser.add_argument("--frames", type=int, default=200, help="instants of each split")
    parser.add_argument("--views", type=int, nargs="+", default=COUNTS)
    args = parser.parse_args()
    torch.manual_seed(0)
    train = load_cmu17("train").p3d()
    prior = pose_prior(train.flatten(0, 1)[::7])
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "frames": args.frames}
    for name in args.model or ["propose-cmu17"]:
        model = load(name).eval()
        body = SkeletonBody() if hasattr(model, "estimate") else None
        for split in SPLITS:
            for views in args.views:
                key = f"{Path(name).name}, {split}, {views} views"
                results[key] = measure(model, split, args.frames, views, prior, body)
                print(key, json.dumps(results[key], indent=1), flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "fuse.json").write_text(json.dumps(results, indent=1))
    (args.out / "fuse.md").write_text(markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """One table for each model, split and number of views."""
    lines = [f"{results['frames']} instants a split, noisy 2D, {results['threads']} thread(s)."]
    for key, rows in results.items():
        if not isinstance(rows, dict):
            continue
        alone = rows["one view"]["pa_mpjpe"]
        lines += ["", f"**{key}**", "", "| method | MPJPE mm | PA-MPJPE mm | of one view | s |",
                  "|---|---|---|---|---|"]  # fmt: skip
        for name, row in rows.items():
            seconds = f"{row['seconds']:.1f}" if "seconds" in row else ""
            lines.append(
                f"| {name} | {row['mpjpe']:.1f} | {row['pa_mpjpe']:.1f} | "
                f"{row['pa_mpjpe'] / alone:.2f} | {seconds} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
