"""Recalibrates a model on val of CMU17: `python benchmarks/recalibrate.py MODEL OUT.safetensors`.

Fitted on exact and noisy 2D of val and on exact 2D of val's poses with other builds (bone lengths
times log-normal factors, as in training): the two performers of val are those of train, and a
distribution that is honest about them alone would be too sure of anybody else. Test splits are not
looked at. Prints what changed. A body model (ProHMR) gets a temperature of its base, fitted on
exact and noisy 2D of its own bodies' joints.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch
from prohmr import body_split

from propose_prob.datasets import CMU17, load_cmu17
from propose_prob.evaluation import CMU17Set, recalibrate
from propose_prob.evaluation.fit_recalibration import recalibrate_base
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.models import ProHMR, ProHMRJoints
from propose_prob.weights import load, save


def with_other_builds(data: CMU17, *, bone_sd: float, size_sd: float, seed: int = 0) -> CMU17:
    """Every frame with a build of its own; joints' positions stay relative to the pelvis."""
    generator = torch.Generator().manual_seed(seed)
    world, parents, mirror = data.world, H36M_17.parents, list(H36M_17.mirror)
    log = bone_sd * torch.randn(len(world), 17, generator=generator)
    # Both sides of a body are alike.
    pair = torch.minimum(torch.arange(17), torch.tensor(mirror))
    log = log[:, pair] + size_sd * torch.randn(len(world), 1, generator=generator)
    bones = (world - world[:, [max(p, 0) for p in parents]]) * log.exp()[..., None]
    joints = [world[:, 0]]
    for joint in range(1, 17):
        joints.append(joints[parents[joint]] + bones[:, joint])
    return dataclasses.replace(data, world=torch.stack(joints, 1))


def main() -> None:
    """Fits, prints the report and writes the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--stride", type=int, default=20)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--builds", type=int, default=20, help="stride of other builds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, val = load(arguments.model), load_cmu17("val")
    if isinstance(model, ProHMR):
        data = body_split("val")
        sets = [CMU17Set(data, kind, arguments.stride) for kind in ("exact", "noisy")]
        recalibrate_base(ProHMRJoints(model), model, sets, samples=arguments.samples)
        calibration = model.calibration
        print("log temperature", calibration.log_temperature.item())
        print("slopes", dict(zip(calibration.FEATURES, calibration.slopes.tolist(), strict=True)))
        save(model, arguments.out, half=True)
        return
    other = with_other_builds(val, bone_sd=0.05, size_sd=0.03)
    sets = [
        CMU17Set(val, "exact", arguments.stride),
        CMU17Set(val, "noisy", arguments.stride),
        CMU17Set(dataclasses.replace(other, split="val, other builds"), "exact", arguments.builds),
    ]
    familiar = load_cmu17("train").world[::50]
    report = recalibrate(model, sets, familiar=familiar, samples=arguments.samples, progress=print)
    print(report.to_table())
    save(model, arguments.out, half=True)


if __name__ == "__main__":
    main()
