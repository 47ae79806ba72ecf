"""The ablations of ProPose's Tables 4-7 on CMU17, each with the same small budget.

Run: `python benchmarks/ablations.py OUT [--steps 5000] [--only NAME ...]`. Every variant trains
with the same seed, number of steps and (small) sizes. Results are added to `OUT/ablations.json`; a
variant that is already there is skipped, so that the run can be broken off and continued.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from propose_prob.configuration import from_dict
from propose_prob.datasets.cmu17 import FOCAL, load_cmu17
from propose_prob.evaluation import Protocol
from propose_prob.evaluation.evaluator import Evaluator
from propose_prob.models.propose import ProPose
from propose_prob.training.configs import TrainConfig
from propose_prob.training.loop import TrainingLoop
from propose_prob.training.simulation import Simulator
from propose_prob.training.trainers import ProPoseTrainer
from propose_prob.training.validation import Validation
from propose_prob.weights import load

SMALL = {"width": 256, "decoder_width": 160, "flow_width": 96, "code": 96}
PAPER = {"best_of": 1.0, "random": 1.0, "energy": 0.0, "adversarial": 0.02}

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "vae": {"model": {"pilgd": "vae"}},
    "standard-base": {"model": {"base": "standard"}},
    "end-to-end": {"schedule": "end_to_end"},
    "no-m2m": {"loss": {"mode_to_mode": 0.0}},
    "no-bi": {"loss": {"best_of": 0.0, "random": 0.0}},
    "no-nll": {"schedule": "end_to_end", "loss": {"nll": 0.0}},
    "no-adversarial": {"loss": {"adversarial": 0.0}},
    "energy": {"loss": {"best_of": 0.0, "random": 0.0, "energy": 1.0}},
}


def configuration(name: str, steps: int) -> TrainConfig:
    """The configuration of a variant."""
    base = from_dict(
        {"steps": steps, "validate": steps, "average": 0.995, "model": SMALL, "loss": PAPER},
        default=TrainConfig(),
    )
    return from_dict(VARIANTS[name], default=base)


@torch.no_grad()
def evaluate(model: ProPose, split: str, stride: int) -> dict[str, float]:
    """Numbers of one split: exact 2D, unknown intrinsics, every `stride`-th frame, 200 samples."""
    data = load_cmu17(split)
    protocol = Protocol(
        "cmu17", split, keypoints="exact", num_samples=200, samples="hypotheses",
        frame_stride=stride,
    )  # fmt: skip
    evaluator = Evaluator(protocol)
    p2d = data.p2d()[::stride].flatten(0, 1)
    p3d = data.p3d()[::stride].flatten(0, 1)
    torch.manual_seed(0)
    for chosen in torch.arange(len(p2d)).split(128):
        distribution = model.conditional(p2d[chosen])
        evaluator.update(
            distribution.hypotheses((200,)),
            distribution.point_estimate,
            p3d[chosen],
            torch.ones(len(chosen), 17, dtype=torch.bool),
            p2d=p2d[chosen],
            focal=FOCAL,
        )
    m = evaluator.report().items
    return {
        "point": m.point_mpjpe, "point_pa": m.point_pa_mpjpe, "best200": m.best_mpjpe,
        "best200_pa": m.best_pa_mpjpe, "energy": m.energy_joint, "ece": m.ece,
        "ece_signed": m.ece_signed,
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """The results as a Markdown table: for each split estimate, best of 200, energy, ECE."""
    splits = ("val", "test_seen", "test_subject03")
    lines = [
        "| variant | " + " | ".join(f"{split}" for split in splits) + " |",
        "|---|" + "---|" * len(splits),
    ]
    for name, row in results.items():
        cells = [
            f"{m['point']:.1f} / {m['best200']:.1f} / {m['energy']:.1f} / "
            f"{m['ece']:.3f} ({m['ece_signed']:+.3f})"
            for m in (row[split] for split in splits)
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Trains and measures all variants, or those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--stride", type=int, default=10)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    results_path = arguments.out / "ablations.json"
    results = json.loads(results_path.read_text()) if results_path.exists() else {}
    for name in arguments.only:
        if name in results:
            continue
        config = configuration(name, arguments.steps)
        simulator = Simulator(load_cmu17("train").world, config.simulator)
        validation = Validation.from_cmu17(load_cmu17("val"))
        torch.manual_seed(config.seed)
        trainer = ProPoseTrainer(ProPose(config.model), config, simulator)
        run = TrainingLoop(trainer, validation, arguments.out / name)
        run.train()
        model = load(arguments.out / name / "best.safetensors")
        results[name] = {
            "steps": arguments.steps,
            "seconds": round(run.seconds),
            **{
                split: evaluate(model, split, arguments.stride)
                for split in ("val", "test_seen", "test_subject03")
            },
        }
        results_path.write_text(json.dumps(results, indent=2) + "\n")
        print(name, json.dumps(results[name]), flush=True)
    (arguments.out / "ablations.md").write_text(table(results))


if __name__ == "__main__":
    main()
