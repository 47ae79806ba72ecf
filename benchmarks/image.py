"""What ProHMR from pixels shows on renders: `python benchmarks/image.py OUT [--renders DIR]`.

Renders of poses that were never trained on, made first where `DIR` does not hold them. Writes
`OUT/image.json`, `OUT/image.md` and `OUT/occlusion.png`:

* accuracy and calibration of the distribution on each split;
* how much wider the distribution is where something stands in front of the legs, or of a forearm;
* fits to the 2D keypoints under the image's distribution and under normal distributions of the
  joint angles, from the same start, with keypoints missing or wrong. The keypoints have a normal
  error of 1 pixel of the crop; a wrong one is moved by a further 15. The standard deviation that a
  fit assumes is chosen on val for each kind of 2D and each prior.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from propose_prob.bodies import load_open_body
from propose_prob.datasets import load_cmu_body
from propose_prob.evaluation import CalibrationCurve, energy_scores, mpjpe, pa_mpjpe
from propose_prob.geometry.rotations import matrix_from_6d
from propose_prob.images.crops import normalize_image
from propose_prob.images.render_set import RenderSet, load_renders, render_set
from propose_prob.images.renderer import RenderConfig
from propose_prob.models import BodyEstimate, ProHMR
from propose_prob.tasks import fit, generic_prior
from propose_prob.weights import load

SPLITS = ("val", "test_seen", "test_subject03")
PRIORS = ("image distribution", "training angles", "N(0, 0.4^2)")

#: Kinds of 2D: share of the keypoints that are missing, and that are wrong.
KINDS = {
    "all": (0.0, 0.0),
    "25 % missing": (0.25, 0.0),
    "50 % missing": (0.5, 0.0),
    "25 % wrong": (0.0, 0.25),
    "50 % wrong": (0.0, 0.5),
}
NOISE, WRONG = 1.0, 15.0
CANDIDATES = (1.0, 2.0, 4.0)

#: The right forearm: elbow and wrist of Human3.6M-17.
FOREARM = (15, 16)
#: Joints whose spread is shown; in the pelvis' axes the hips do not move.
SHOWN = {
    "knees": (2, 5),
    "ankles": (3, 6),
    "right elbow": (15,),
    "right wrist": (16,),
    "left elbow": (12,),
    "left wrist": (13,),
    "head": (10,),
}


class People:
    """Rows of a set of renders, and what the model says about them.

    Args:
        model: The model.
        renders: The set.
        rows: Which of them.
    """

    def __init__(self, model: ProHMR, renders: RenderSet, rows: Tensor) -> None:
        self.images = renders.images(rows).permute(0, 3, 1, 2).float() / 255
        self.focal, self.size = renders.focal[rows], renders.config.size
        self.truth = relative(renders.joints[rows])
        self.keypoints, self.occluded = renders.keypoints[rows], renders.occluded[rows]
        self.body = load_open_body().only("h36m_17")
        self.model = model
        self.estimate = self.ask(self.images)

    def ask(self, images: Tensor) -> BodyEstimate:
        """The model's answer to images `(B, 3, S, S)`."""
        return self.model.estimate_images(normalize_image(images))

    def joints(self, sixd: Tensor, shape: Tensor) -> Tensor:
        """Root-relative joints `(..., 17, 3)` of 6D rotations."""
        return relative(self.body.regress(self.body(matrix_from_6d(sixd), shape)))

    def samples(self, estimate: BodyEstimate, count: int, *, turned: bool = True) -> Tensor:
        """Joints of draws `(count, B, 17, 3)` in camera axes, or else in the pelvis' own."""
        torch.manual_seed(0)
        sixd = estimate.distribution.sample((count,))
        if not turned:
            sixd = sixd.clone()
            sixd[..., 0, :] = sixd.new_tensor([1.0, 0, 0, 0, 1, 0])
        return self.joints(sixd, estimate.shape)

    def errors(self, joints: Tensor) -> dict[str, float]:
        """Mean errors, mm."""
        return {
            "pa_mpjpe": 1000 * pa_mpjpe(relative(joints), self.truth).mean().item(),
            "mpjpe": 1000 * mpjpe(relative(joints), self.truth).mean().item(),
        }

    def accuracy(self) -> dict[str, float]:
        """The distribution's mode, the best of 25 draws, calibration with 100."""
        mode = self.joints(self.estimate.distribution.mode, self.estimate.shape)
        draws = self.samples(self.estimate, 100)
        curve = CalibrationCurve(17, fixed_joints=(0,))
        curve.update(draws, self.truth)
        result = curve.compute()
        spread = draws.std(0).norm(dim=-1)[:, 1:]
        hidden = self.occluded[:, 1:]
        best = pa_mpjpe(draws[:25], self.truth).amin(0).mean().item()
        return {
            **{f"mode_{name}": value for name, value in self.errors(mode).items()},
            "best_25_pa_mpjpe": 1000 * best,
            "best_25_mpjpe": 1000 * mpjpe(draws[:25], self.truth).amin(0).mean().item(),
            "energy": 1000 * energy_scores(draws, self.truth)[0][:, 1:].mean().item(),
            "ece": result.error,
            "ece_signed": result.signed,
            "spread_seen": 1000 * spread[~hidden].mean().item(),
            "spread_hidden": 1000 * spread[hidden].mean().item(),
            "error_seen": 1000 * (mode - self.truth).norm(dim=-1)[:, 1:][~hidden].mean().item(),
            "error_hidden": 1000 * (mode - self.truth).norm(dim=-1)[:, 1:][hidden].mean().item(),
        }

    def with_forearm_hidden(self) -> Tensor:
        """The images with a gray disc in front of the right forearm."""
        ends = self.keypoints[:, list(FOREARM)]
        middle = ends.mean(1)[:, None, None]
        reach = 0.5 * (ends[:, 0] - ends[:, 1]).norm(dim=-1) + 7
        grid = torch.arange(self.size) + 0.5
        pixels = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), -1)
        inside = (pixels - middle).norm(dim=-1) < reach[:, None, None]
        return torch.where(inside[:, None], 0.4, self.images)

    def forearm_apart(self) -> Tensor:
        """Rows of people whose right forearm is in front of no other joint, nor beside one."""
        others = [joint for joint in range(17) if joint not in (14, *FOREARM)]
        forearm = self.keypoints[:, list(FOREARM)]
        gap = torch.cdist(forearm, self.keypoints[:, others]).amin((1, 2))
        inside = ((forearm > 4) & (forearm < self.size - 4)).all(-1).all(-1)
        return ((gap > 9) & inside).nonzero()[:, 0]

    def with_legs_hidden(self) -> Tensor:
        """The images with everything gray from below the hips on."""
        below = torch.arange(self.size) + 0.5 > self.keypoints[:, [1, 4], 1].amax(1)[:, None] + 4
        return torch.where(below[:, None, :, None], 0.4, self.images)

    def legs_below(self) -> Tensor:
        """Rows of people whose ankles are below the hips, and whose wrists are above them."""
        height = self.keypoints[..., 1]
        hips = height[:, [1, 4]].amax(1)
        below = (height[:, [3, 6]].amin(1) > hips + 15) & (height[:, [13, 16]].amax(1) < hips)
        return below.nonzero()[:, 0]

    def occlusion(self, images: Tensor) -> tuple[dict[str, float], Tensor]:
        """Spread of joints in the pelvis' axes in other images of these people, over their own."""
        hidden = self.ask(images)
        draws = [self.samples(estimate, 100, turned=False) for estimate in (self.estimate, hidden)]
        before, after = (d.std(0).norm(dim=-1)[:, 1:] for d in draws)
        ratio = (after / before).log().mean(0)
        rows = {
            name: float(ratio[[joint - 1 for joint in joints]].mean().exp())
            for name, joints in SHOWN.items()
        }
        entropy = (
            (hidden.distribution.entropy() - self.estimate.distribution.entropy()).mean().item()
        )
        both = torch.stack([self.samples(estimate, 30) for estimate in (self.estimate, hidden)])
        return {**rows, "entropy_gain_nats": entropy, "people": float(len(self.images))}, both

    def detections(self, kind: str) -> tuple[Tensor, Tensor]:
        """Keypoints as a detector gives them, and which are there."""
        missing, wrong = KINDS[kind]
        generator = torch.Generator().manual_seed(1)
        shape = self.keypoints.shape[:2]
        order = torch.rand(shape, generator=generator).argsort(-1)
        noise = torch.randn((*shape, 2), generator=generator)
        far = torch.randn((*shape, 2), generator=generator)
        p2d = self.keypoints + NOISE * noise
        p2d = p2d + WRONG * far * (order < round(17 * wrong))[..., None]
        return p2d, (order >= round(17 * missing)).float()

    def fitted(self, kind: str, prior: str, scale: float, train: Tensor) -> dict[str, Any]:
        """Errors of a fit."""
        p2d, confidence = self.detections(kind)
        distribution: Any = self.estimate.distribution
        if prior != "image distribution":
            distribution = generic_prior(
                len(p2d), theta=train if prior == "training angles" else None
            )
        begin = time.perf_counter()
        middle = 0.5 * self.size
        result = fit(
            distribution,
            p2d,
            confidence,
            body=self.body,
            start=self.estimate,
            focal=self.focal,
            center=(middle, middle),
            scale=scale,
            solver="lm",
            max_steps=60,
        )
        seconds = time.perf_counter() - begin
        return {**self.errors(result.joints), "scale": scale, "per_second": len(p2d) / seconds}


def relative(joints: Tensor) -> Tensor:
    """Joints from their root."""
    return joints - joints[..., :1, :]


def main() -> None:
    """Measures everything and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="prohmr-image-cmu17")
    parser.add_argument("--renders", type=Path)
    parser.add_argument("--items", type=int, default=1000, help="of each split, for accuracy")
    parser.add_argument("--fits", type=int, default=100, help="people fitted of each test split")
    parser.add_argument("--val-fits", type=int, default=40, help="people who choose the scales")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    folder = arguments.renders or arguments.out / "renders"
    model = load(arguments.model)
    sets = {split: renders(folder, split, arguments.items, occluded=0.35) for split in SPLITS}
    result: dict[str, Any] = {"accuracy": {}, "occlusion": {}, "fits": {}}
    with torch.no_grad():
        for split, data in sets.items():
            people = People(model, data, torch.arange(min(arguments.items, len(data))))
            result["accuracy"][split] = people.accuracy()
            print(split, result["accuracy"][split], flush=True)
        for split in SPLITS[1:]:
            plain = renders(folder / "plain", split, 300, occluded=0.0)
            everyone = People(model, plain, torch.arange(len(plain)))
            legs = People(model, plain, everyone.legs_below())
            arm = People(model, plain, everyone.forearm_apart())
            found, draws = legs.occlusion(legs.with_legs_hidden())
            result["occlusion"][f"{split}, legs"] = found
            result["occlusion"][f"{split}, right forearm"] = arm.occlusion(
                arm.with_forearm_hidden()
            )[0]
            print(split, result["occlusion"], flush=True)
            if split == "test_seen":
                picture(legs, draws, arguments.out / "occlusion.png")
        train = load_cmu_body("train").theta[::20]
    chosen = People(model, sets["val"], torch.arange(arguments.val_fits))
    scales = {kind: tune(chosen, kind, train) for kind in KINDS}
    result["scales"] = scales
    for split in SPLITS[1:]:
        people = People(model, sets[split], torch.arange(arguments.fits))
        mode = people.errors(
            people.joints(people.estimate.distribution.mode, people.estimate.shape)
        )
        rows: dict[str, Any] = {}
        for kind in KINDS:
            rows[kind] = {
                prior: people.fitted(kind, prior, scales[kind][prior], train) for prior in PRIORS
            }
            print(
                split, kind, {p: round(r["pa_mpjpe"], 1) for p, r in rows[kind].items()}, flush=True
            )
        result["fits"][split] = {"mode": mode, **rows}
    (arguments.out / "image.json").write_text(json.dumps(result, indent=1))
    (arguments.out / "image.md").write_text(table(result))


def renders(folder: Path, split: str, count: int, *, occluded: float) -> RenderSet:
    """A set, made where it is not there."""
    if not (folder / split / "config.json").exists():
        render_set(RenderConfig(split, occluded=occluded), count, folder)
    return load_renders(folder, split)


def tune(people: People, kind: str, train: Tensor) -> dict[str, float]:
    """The scale with the smallest PA-MPJPE for each prior."""
    best = {}
    for prior in PRIORS:
        found = {s: people.fitted(kind, prior, s, train)["pa_mpjpe"] for s in CANDIDATES}
        best[prior] = min(found, key=lambda s: found[s])
        print("val", kind, prior, {s: round(e, 1) for s, e in found.items()}, flush=True)
    return best


def picture(people: People, draws: Tensor, path: Path) -> None:
    """Three people with and without their legs hidden, and where 30 draws put the legs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = range(0, len(people.images), max(1, len(people.images) // 3))[:3]
    shown = (people.images, people.with_legs_hidden())
    figure, axes = plt.subplots(2, 6, figsize=(12, 4.2), layout="constrained")
    limbs = ([6, 5, 4, 0, 1, 2, 3], [13, 12, 11, 8, 14, 15, 16])
    for column, row in enumerate(rows):
        for line in range(2):
            left, right = axes[line, 2 * column], axes[line, 2 * column + 1]
            left.imshow(shown[line][row].permute(1, 2, 0))
            for limb, color in zip(limbs, ("tab:red", "tab:blue"), strict=True):
                for pose in draws[line, :30, row]:
                    right.plot(pose[limb, 0], pose[limb, 1], color=color, alpha=0.2)
                truth = people.truth[row, limb]
                right.plot(truth[:, 0], truth[:, 1], color="black", linewidth=2)
            right.set(xlim=(-1.1, 1.1), ylim=(1.1, -1.1), aspect="equal")
            for axis in (left, right):
                axis.set(xticks=[], yticks=[])
    axes[0, 1].set_title("30 draws: legs red,\narms blue, truth black", fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def table(result: dict[str, Any]) -> str:
    """All tables as Markdown."""
    lines = [
        "| split | PA mode | PA best of 25 | MPJPE mode | best of 25 | energy | ECE | signed "
        "| spread seen / hidden | error seen / hidden |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for split, r in result["accuracy"].items():
        lines.append(
            f"| {split} | {r['mode_pa_mpjpe']:.1f} | {r['best_25_pa_mpjpe']:.1f} "
            f"| {r['mode_mpjpe']:.1f} | {r['best_25_mpjpe']:.1f} | {r['energy']:.1f} "
            f"| {r['ece']:.3f} | {r['ece_signed']:+.3f} "
            f"| {r['spread_seen']:.0f} / {r['spread_hidden']:.0f} "
            f"| {r['error_seen']:.0f} / {r['error_hidden']:.0f} |"
        )
    lines += ["", f"| split, hidden | people | {' | '.join(SHOWN)} | entropy, nats |"]
    lines += ["|---|" + "---|" * (len(SHOWN) + 2)]
    for case, r in result["occlusion"].items():
        ratios = " | ".join(f"{r[name]:.2f}" for name in SHOWN)
        lines.append(f"| {case} | {r['people']:.0f} | {ratios} | {r['entropy_gain_nats']:+.1f} |")
    lines += ["", f"| split | keypoints | mode | {' | '.join(f'fit, {p}' for p in PRIORS)} |"]
    lines += ["|---|---|---|" + "---|" * len(PRIORS)]
    for split, rows in result["fits"].items():
        for kind in KINDS:
            cells = " | ".join(f"{rows[kind][prior]['pa_mpjpe']:.1f}" for prior in PRIORS)
            lines.append(f"| {split} | {kind} | {rows['mode']['pa_mpjpe']:.1f} | {cells} |")
    lines += ["", f"Scales, pixels: {json.dumps(result['scales'])}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
