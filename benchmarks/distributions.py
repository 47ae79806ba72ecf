"""All distributions in one table on CMU17: `python benchmarks/distributions.py --out DIR`.

Every distribution under the same conditions: val, test_seen and test_subject03; exact and noisy 2D;
0, 1 and 4 random joints hidden (the same ones for every distribution); intrinsics known; 200
samples of the distribution itself. Each cell is written to `DIR/cells` when it is done and is not
measured again unless the weights or the settings change, so a broken-off run goes on. At the end
`DIR/distributions.md` holds the tables and `DIR/distributions.json` all numbers. `--only-tables`
writes them from the cells that there are.

Standard errors count clips as what was drawn, for frames of a clip tell nearly the same. Whether a
distribution is as good as the best is judged by its difference from the best, frame by frame, in
the same way: within two standard errors of that difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from propose_prob.datasets.cmu17 import load_cmu17
from propose_prob.evaluation import CMU17Set, energy_scores, mpjpe
from propose_prob.evaluation.calibration import Calibration, calibration_hits
from propose_prob.evaluation.conditions import Condition, prepare
from propose_prob.evaluation.scores import nll_per_coordinate
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.io.atomic import write_text
from propose_prob.models import ProHMR, ProHMRJoints
from propose_prob.weights import available, load

SPLITS = ("val", "test_seen", "test_subject03")
KINDS = ("exact", "noisy")
HIDDEN = (0, 1, 4)
DISTRIBUTIONS = {
    "propose-cmu17": "ProPose",
    "prohmr-lifting-cmu17": "lifting flow",
    "regression-cmu17": "regression",
    "mixture-cmu17": "mixture",
    "cvae-cmu17": "CVAE",
    "diffusion-cmu17": "diffusion",
    "prohmr-cmu17": "ProHMR, body",
}
MEASURES = ("estimate", "best", "energy", "ece", "nll")
TITLES = {
    "estimate": "estimate (mm)",
    "best": "best of {samples} (mm)",
    "energy": "energy score (mm)",
    "ece": "ECE (signed)",
    "nll": "NLL (nats/coordinate)",
}
#: The density of one pose in so many is asked for, the same ones of every distribution: estimates
#: are slow.
_DENSITY = 7


def main() -> None:
    """Measures what is missing and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stride", type=int, default=48, help="one frame in so many, four views")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    shipped = [distribution for distribution in DISTRIBUTIONS if distribution in available()]
    parser.add_argument("--distributions", nargs="+", default=shipped, help="names, or NAME=FILE")
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=SPLITS)
    parser.add_argument("--hidden", nargs="+", type=int, default=HIDDEN)
    parser.add_argument("--intrinsics", choices=("known", "unknown"), default="known")
    parser.add_argument("--only-tables", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.out / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    files = dict(_named(distribution) for distribution in arguments.distributions)
    settings = {name: getattr(arguments, name) for name in ("stride", "samples", "seed")}
    cells: dict[tuple[str, str, str, int], dict[str, Any]] = {}
    for distribution, file in files.items():
        key = {**settings, "weights": _digest(file)}
        model = None
        for split in arguments.splits:
            for kind in KINDS:
                for hidden in arguments.hidden:
                    blind = "" if arguments.intrinsics == "known" else "-unknown"
                    path = folder / f"{distribution}-{split}-{kind}-{hidden}{blind}.json"
                    cell = json.loads(path.read_text()) if path.exists() else None
                    if cell is None or cell["key"] != key:
                        if arguments.only_tables:
                            continue
                        model = model or _load(file)
                        found = measure(
                            model, split, kind, hidden, intrinsics=arguments.intrinsics, **settings
                        )
                        cell = {"key": key, **found}
                        write_text(path, json.dumps(cell))
                        print(distribution, split, kind, hidden, _line(cell), flush=True)
                    cells[distribution, split, kind, hidden] = cell
    results = {place: summary(cell) for place, cell in cells.items()}
    text = tables(cells, results, {**settings, "intrinsics": arguments.intrinsics})
    stored = [
        {**dict(zip(("distribution", "split", "2d", "hidden"), place, strict=True)), **result}
        for place, result in results.items()
    ]
    for name, content in (
        ("distributions.md", text),
        ("distributions.json", json.dumps(stored, indent=1)),
    ):
        write_text(arguments.out / name, content + "\n")
    print(text)


def _named(distribution: str) -> tuple[str, str]:
    name, given, file = distribution.partition("=")
    return (name, file) if given else (distribution, distribution)


def _digest(file: str) -> str:
    shipped = resources.files("propose_prob.weights").joinpath(f"{file}.safetensors")
    source = shipped if shipped.is_file() else Path(file)
    return hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def _load(file: str) -> Any:
    model = load(file)
    return ProHMRJoints(model).eval() if isinstance(model, ProHMR) else model


@torch.no_grad()
def measure(
    model: Any,
    split: str,
    kind: str,
    hidden: int,
    *,
    stride: int,
    samples: int,
    seed: int,
    intrinsics: Literal["known", "unknown"] = "known",
) -> dict[str, Any]:
    """One cell: sums over the frames of each clip, so that errors of means can be told later."""
    data, source = load_cmu17(split), CMU17Set(load_cmu17(split), kind, stride)
    condition = Condition(intrinsics, hidden, seed)
    torch.manual_seed(seed)
    clips: dict[str, dict[str, Any]] = {}
    density, drawn, spent = "none", 0, 0.0
    for batch in source.batches(64):
        item = prepare(batch, H36M_17, H36M_17, condition)
        began = time.process_time()
        distribution = model.conditional(
            item.p2d, item.confidence, focal=item.told_focal, center=item.told_center
        )
        hypotheses = distribution.sample((samples,))
        spent += time.process_time() - began
        drawn += samples * len(item)
        values = {
            "estimate": 1e3 * mpjpe(distribution.point_estimate, item.target),
            "best": 1e3 * mpjpe(hypotheses, item.target).amin(0),
            "energy": 1e3 * energy_scores(hypotheses, item.target).joints.mean(-1),
        }
        hits = calibration_hits(hypotheses, item.target)[..., 1:]
        density = getattr(distribution, "log_prob_kind", "exact")
        scored = torch.full((len(item),), math.nan)
        if density != "none":
            few = slice(0, None, _DENSITY)
            part = model.conditional(
                item.p2d[few],
                item.confidence[few],
                focal=None if item.told_focal is None else item.told_focal[few],
                center=item.told_center[few] if torch.is_tensor(item.told_center) else (0.0, 0.0),
            )
            scored[few] = nll_per_coordinate(part.log_prob(item.target[few]), 17)
        for row, label in enumerate(item.sequence):
            clip = clips.setdefault(label.split(" rig ")[0], _empty(hits.shape[-1]))
            for name, value in values.items():
                clip[name].append(float(value[row]))
            clip["nll"].append(float(scored[row]))
            clip["hits"] += hits[:, row].long()
    for clip in clips.values():
        clip["hits"] = clip["hits"].tolist()
        clip["nll"] = [None if math.isnan(value) else value for value in clip["nll"]]
    frames = len(range(0, len(data), stride))
    return {
        "clips": clips, "density": density, "poses": 4 * frames, "per_second": drawn / spent
    }  # fmt: skip


def _empty(joints: int) -> dict[str, Any]:
    return {"estimate": [], "best": [], "energy": [], "nll": [],
            "hits": torch.zeros(21, joints, dtype=torch.long)}  # fmt: skip


# --- means and their errors -----------------------------------------------------------------------


def summary(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Means over poses with their standard errors by clip."""
    out: dict[str, Any] = {"poses": cell["poses"], "clips": len(cell["clips"])}
    out |= {"density": cell["density"], "per_second": cell["per_second"]}
    clips = list(cell["clips"].values())
    for name in ("estimate", "best", "energy", "nll"):
        value, error = _mean([clip[name] for clip in clips])
        out[name], out[f"{name}_se"] = value, error
    found = _calibration(clips)
    out["ece"], out["ece_signed"] = found.error, found.signed
    out["ece_se"] = _jackknife(clips, lambda some: _calibration(some).error)
    return out


def _mean(groups: Sequence[Sequence[float | None]]) -> tuple[float, float]:
    """Mean over everything, and its standard error where groups are what was drawn."""
    kept = [[v for v in group if v is not None] for group in groups]
    kept = [group for group in kept if group]
    count = sum(map(len, kept))
    if count == 0:
        return math.nan, math.nan
    mean = sum(map(sum, kept)) / count
    if len(kept) < 2:
        return mean, math.nan
    square = sum(sum(v - mean for v in group) ** 2 for group in kept)
    return mean, math.sqrt(square * len(kept) / (len(kept) - 1)) / count


def _calibration(clips: Iterable[Mapping[str, Any]]) -> Calibration:
    clips = list(clips)
    hits = torch.stack([torch.as_tensor(clip["hits"]) for clip in clips]).sum(0).double()
    count = sum(len(clip["estimate"]) for clip in clips)
    return Calibration.from_frequencies(hits / count, torch.full((hits.shape[1],), count))


def _jackknife(
    clips: Sequence[Mapping[str, Any]], score: Callable[[Sequence[Mapping[str, Any]]], float]
) -> float:
    """Standard error of a score by leaving out one clip at a time."""
    count = len(clips)
    if count < 2:
        return math.nan
    left = Tensor([score([*clips[:i], *clips[i + 1 :]]) for i in range(count)])
    return float(((count - 1) * left.var(correction=0)).sqrt())


def as_good(cell: Mapping[str, Any], best: Mapping[str, Any], name: str) -> bool:
    """Whether a distribution is within two standard errors of the best one, by their difference."""
    pairs = [(clip, best["clips"][label]) for label, clip in cell["clips"].items()]
    if name == "ece":

        def gap(some: Sequence[Mapping[str, Any]]) -> float:
            ours, theirs = zip(*((pair["ours"], pair["theirs"]) for pair in some), strict=True)
            return _calibration(ours).error - _calibration(theirs).error

        both = [{"ours": ours, "theirs": theirs} for ours, theirs in pairs]
        return gap(both) <= 2 * _jackknife(both, gap)
    differences = [
        [
            None if a is None or b is None else a - b
            for a, b in zip(ours[name], theirs[name], strict=True)
        ]
        for ours, theirs in pairs
    ]
    mean, error = _mean(differences)
    return mean <= 2 * error


# --- tables ---------------------------------------------------------------------------------------


def tables(
    cells: Mapping[tuple[str, str, str, int], Mapping[str, Any]],
    results: Mapping[tuple[str, str, str, int], Mapping[str, Any]],
    settings: Mapping[str, Any],
) -> str:
    """A table for each split, and how often each distribution is best or as good."""
    distributions = list(dict.fromkeys(place[0] for place in results))
    wins = {distribution: dict.fromkeys(MEASURES, 0) for distribution in distributions}
    blocks, places = [], 0
    for split in SPLITS:
        lines = _header(settings["samples"])
        for kind in KINDS:
            for hidden in sorted({place[3] for place in results}):
                rows = [
                    distribution
                    for distribution in distributions
                    if (distribution, split, kind, hidden) in results
                ]
                if not rows:
                    continue
                places += 1
                marked = _best(rows, split, kind, hidden, cells, results)
                for distribution in rows:
                    result = results[distribution, split, kind, hidden]
                    for name in MEASURES:
                        wins[distribution][name] += distribution in marked[name]
                    cell = f"{kind}, {hidden} hidden" if distribution == rows[0] else ""
                    lines.append(_row(cell, distribution, result, marked))
        if len(lines) > 2:
            first = next(r for place, r in results.items() if place[1] == split)
            title = f"### {split}: {first['poses']} poses of {first['clips']} clips"
            blocks.append("\n".join([title, "", *lines]))
    lines = [
        f"| distribution | {' | '.join(TITLES[n].format(**settings) for n in MEASURES)} | "
        f"hypotheses/s |",
        "|---" * (len(MEASURES) + 2) + "|",
    ]
    for distribution in distributions:
        speeds = sorted(r["per_second"] for place, r in results.items() if place[0] == distribution)
        counts = " | ".join(f"{wins[distribution][name]} of {places}" for name in MEASURES)
        lines.append(
            f"| {DISTRIBUTIONS.get(distribution, distribution)} | {counts} | "
            f"{speeds[len(speeds) // 2]:,.0f} |"
        )
    head = (
        f"One frame in {settings['stride']}, four views, S = {settings['samples']} samples of the "
        f"distribution, seed {settings['seed']}, intrinsics {settings['intrinsics']}. Standard "
        f"errors (±) "
        "by clip. Bold: best, or within two standard errors of the best by the paired difference. "
        "NLL: one pose in "
        f"{_DENSITY}; an estimated bound is no smaller than the distribution's own NLL, in "
        f"expectation."
    )
    count = (
        "How often each distribution is best, or within noise of the best, and median speed of "
        "one core:"
    )
    return "\n\n".join([head, count, "\n".join(lines), *blocks])


def _header(samples: int) -> list[str]:
    titles = ["2D", "distribution", *(TITLES[name].format(samples=samples) for name in MEASURES)]
    return [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]


def _best(
    rows: Sequence[str],
    split: str,
    kind: str,
    hidden: int,
    cells: Mapping[tuple[str, str, str, int], Mapping[str, Any]],
    results: Mapping[tuple[str, str, str, int], Mapping[str, Any]],
) -> dict[str, set[str]]:
    marked = {}
    for name in MEASURES:
        having = [
            distribution
            for distribution in rows
            if math.isfinite(results[distribution, split, kind, hidden][name])
        ]
        if not having:
            marked[name] = set()
            continue
        best = min(
            having, key=lambda distribution: results[distribution, split, kind, hidden][name]
        )
        marked[name] = {
            distribution
            for distribution in having
            if distribution == best
            or as_good(
                cells[distribution, split, kind, hidden], cells[best, split, kind, hidden], name
            )
        }
    return marked


def _row(
    place: str, distribution: str, result: Mapping[str, Any], marked: Mapping[str, set[str]]
) -> str:
    row = [place, DISTRIBUTIONS.get(distribution, distribution)]
    for name in MEASURES:
        value = result[name]
        if not math.isfinite(value):
            row.append("-")
            continue
        digits = {"ece": 3, "nll": 2}.get(name, 1)
        text = f"{value:.{digits}f}"
        text = f"**{text}**" if distribution in marked[name] else text
        text += f" ± {result[f'{name}_se']:.{digits}f}"
        if name == "ece":
            text += f" ({result['ece_signed']:+.3f})"
        if name == "nll" and result["density"] != "exact":
            text += f" ({result['density']})"
        row.append(text)
    return f"| {' | '.join(row)} |"


def _line(cell: Mapping[str, Any]) -> str:
    result = summary(cell)
    return ", ".join(f"{name} {result[name]:.3f}" for name in (*MEASURES, "per_second"))


if __name__ == "__main__":
    main()
