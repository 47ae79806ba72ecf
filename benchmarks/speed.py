"""Speed beside other packages: `python benchmarks/speed.py OUT [--only NAME ...]`.

Writes `OUT/speed.json` and `OUT/speed.md`. The peers are installed with `pip install nflows FrEIA
normflows`. What is compared is called in turn, many times over, and medians are divided, so that a
busy machine slows both. With one thread the clock is the thread's own (time on the processor), with
more it is the wall's. A product of two square matrices of size 1024 is timed in the same turns: its
rate is what the machine gives, and the fraction of it that a flow reaches follows from its number
of multiplications. Where the table says so, both flows have the same weights, and their poses from
the same noise are compared first.
"""

# Functions are called in the turn in which they are made.
# ruff: noqa: B023

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import peers
import torch
from torch import Tensor, nn

import propose_prob
from propose_prob.conditional import ConditionalFlow, StandardBase, coupling_stack, freeze
from propose_prob.models import Sampler

SAMPLES = 200
SIDE = 1024


class Clock:
    """Times functions in turns.

    Args:
        threads: Threads of torch.
        repeats: Turns.
    """

    def __init__(self, threads: int, repeats: int) -> None:
        self.now = time.thread_time if threads == 1 else time.perf_counter
        self.repeats = repeats
        self.square = torch.randn(SIDE, SIDE)
        self.out = torch.empty(SIDE, SIDE)

    def turns(self, **functions: Callable[[], Any]) -> tuple[dict[str, float], float]:
        """Median seconds of each, and the rate of the matrix product in GFLOP/s."""
        functions["product"] = lambda: torch.mm(self.square, self.square, out=self.out)
        times: dict[str, list[float]] = {name: [] for name in functions}
        for function in functions.values():
            function()
        for _ in range(self.repeats):
            for name, function in functions.items():
                begun = self.now()
                function()
                times[name].append(self.now() - begun)
        medians = {name: statistics.median(values) for name, values in times.items()}
        return medians, 2 * SIDE**3 / medians.pop("product") / 1e9


def multiplications(flow: nn.Module) -> int:
    """Multiplications for each pose of a frozen flow: all its weights but those of the context."""
    return sum(
        buffer.numel()
        for name, buffer in flow.named_buffers()
        if buffer.dim() == 2 and ".context." not in name and "inverse_matrix" not in name
    )


def same_weights(
    clock: Clock, name: str, peer: peers.Peer, d: int, context: int, goal: float
) -> Iterator[dict]:
    """A peer's flow against ours with its weights."""
    assert peer.ours is not None
    plain = peer.ours()
    ours = freeze(plain)
    for batch in (1, 16):
        c, noise = torch.randn(batch, context), torch.randn(batch, SAMPLES, d)
        z = noise.movedim(0, 1).contiguous()
        with torch.no_grad():
            theirs = peer.sample(c, noise)
            gap = (ours(c).transform(z).movedim(0, 1) - theirs).norm() / theirs.norm()
            seconds, rate = clock.turns(
                peer=lambda: peer.sample(c, noise),
                plain=lambda: plain(c).transform(z),
                frozen=lambda: ours(c).transform(z),
            )
        poses = batch * SAMPLES
        work = 2e-9 * multiplications(ours) * poses
        yield {
            "what": f"sampling, {name}, {batch} x {SAMPLES}",
            "peer": peer.package,
            "same_weights": True,
            "relative_difference": gap.item(),
            "peer_ms": 1e3 * seconds["peer"],
            "ours_ms": 1e3 * seconds["frozen"],
            "ratio": seconds["peer"] / seconds["frozen"],
            "ratio_not_frozen": seconds["peer"] / seconds["plain"],
            "goal": goal,
            "product_gflops": rate,
            "fraction_of_product": work / seconds["frozen"] / rate,
        }


def same_sizes(
    clock: Clock,
    name: str,
    peer: peers.Peer,
    flow: ConditionalFlow,
    d: int,
    context: int,
    goal: float | None,
) -> Iterator[dict]:
    """A peer's flow against one of ours with hidden layers of the same number and size."""
    peers.disturb(flow)
    ours = freeze(flow.eval())
    for batch in (1, 16):
        c, noise = torch.randn(batch, context), torch.randn(batch, SAMPLES, d)
        with torch.no_grad():
            seconds, rate = clock.turns(
                peer=lambda: peer.sample(c, noise),
                plain=lambda: flow(c).sample((SAMPLES,)),
                frozen=lambda: ours(c).sample((SAMPLES,)),
            )
        yield {
            "what": f"sampling, {name}, {batch} x {SAMPLES}",
            "peer": peer.package,
            "same_weights": False,
            "peer_ms": 1e3 * seconds["peer"],
            "ours_ms": 1e3 * seconds["frozen"],
            "ratio": seconds["peer"] / seconds["frozen"],
            "ratio_not_frozen": seconds["peer"] / seconds["plain"],
            "goal": goal,
            "product_gflops": rate,
        }


def shipped(clock: Clock) -> Iterator[dict]:
    """Hypotheses of the shipped lifting models, evidence to poses, against the published size."""
    peer = peers.prohmr(48, 1024)
    for name in ("prohmr-lifting-cmu17", "propose-cmu17"):
        model = propose_prob.load(name)
        ours = freeze(model)
        sampler = torch.compile(Sampler(ours), fullgraph=True, dynamic=False)
        for batch in (1, 16):
            c, noise = torch.randn(batch, 1024), torch.randn(batch, SAMPLES, 48)
            p2d = 100 * torch.randn(batch, 17, 2) + 500
            seen, size = torch.ones(batch, 17), Sampler(ours).noise_size()
            with torch.no_grad():
                seconds, rate = clock.turns(
                    peer=lambda: peer.sample(c, noise),
                    plain=lambda: model.conditional(p2d).sample((SAMPLES,)),
                    frozen=lambda: ours.conditional(p2d).sample((SAMPLES,)),
                    compiled=lambda: sampler(p2d, seen, torch.randn(SAMPLES, batch, size)),
                )
            yield {
                "what": f"{name}, keypoints to poses, against the published lifting flow alone, "
                f"{batch} x {SAMPLES}",
                "peer": peer.package,
                "same_weights": False,
                "peer_ms": 1e3 * seconds["peer"],
                "ours_ms": 1e3 * seconds["frozen"],
                "ratio": seconds["peer"] / seconds["frozen"],
                "ratio_not_frozen": seconds["peer"] / seconds["plain"],
                "ratio_compiled": seconds["peer"] / seconds["compiled"],
                "goal": 10.0 if name.startswith("prohmr") else None,
                "product_gflops": rate,
                "poses_a_second": batch * SAMPLES / seconds["frozen"],
            }


def training(clock: Clock, batch: int = 64) -> Iterator[dict]:
    """A step of maximum likelihood, each with AdamW as its users write it."""
    for name, peer, d, context in (
        ("ProHMR's lifting flow", peers.prohmr(48, 1024), 48, 1024),
        ("GLOW of Wehrbein et al.", peers.wehrbein(), 48, 56),
    ):
        assert peer.ours is not None
        flow = peer.ours().train()
        c, x = torch.randn(batch, context), torch.randn(batch, d)
        trained = [p for p in peer.module.parameters() if p.is_floating_point()]
        theirs = torch.optim.AdamW(trained, lr=1e-5)
        own = torch.optim.AdamW(flow.parameters(), lr=1e-5, fused=True)

        def step(
            loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, *, move: bool = True
        ) -> None:
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            if move:
                optimizer.step()

        losses = {
            "peer": (lambda peer=peer, c=c, x=x: peer.loss(c, x), theirs),
            "ours": (lambda flow=flow, c=c, x=x: -flow(c).log_prob(x).mean(), own),
        }
        seconds, rate = clock.turns(
            **{who: lambda loss=loss, o=o: step(loss, o) for who, (loss, o) in losses.items()},
            **{
                f"{who} without update": lambda loss=loss, o=o: step(loss, o, move=False)
                for who, (loss, o) in losses.items()
            },
        )
        yield {
            "what": f"training step, {name}, batch {batch}",
            "peer": peer.package,
            "same_weights": True,
            "peer_ms": 1e3 * seconds["peer"],
            "ours_ms": 1e3 * seconds["ours"],
            "ratio": seconds["peer"] / seconds["ours"],
            "ratio_without_update": seconds["peer without update"] / seconds["ours without update"],
            "goal": 1.1,
            "product_gflops": rate,
        }


_FIRST = (
    "import torch, propose_prob\n"
    "torch.set_num_threads(1)\n"
    "model = propose_prob.load('propose-cmu17')\n"
    "model.conditional(torch.randn(17, 2)).sample((200,))\n"
)


def cold_start(clock: Clock) -> Iterator[dict]:
    """First hypotheses in a new process, against the import of torch alone; processor time."""
    times: dict[str, list[float]] = {"torch": [], "import": [], "first": []}
    programs = {"torch": "import torch", "import": "import propose_prob.models", "first": _FIRST}
    for _ in range(clock.repeats):
        for name, program in programs.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", program], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    medians = {name: statistics.median(values) for name, values in times.items()}
    yield {
        "what": "first 200 hypotheses from a cold start, in units of `import torch`",
        "peer": "torch",
        "same_weights": False,
        "peer_ms": 1e3 * medians["torch"],
        "ours_ms": 1e3 * medians["first"],
        "import_ms": 1e3 * medians["import"],
        "ratio": medians["first"] / medians["torch"],
        "goal": 2.0,
        "at_most": True,
    }


def distributions(clock: Clock) -> Iterator[dict]:
    """What the shipped models take, frozen and not, for each number of contexts and samples."""
    for name in (name for name in propose_prob.available() if "image" not in name):
        model = propose_prob.load(name)
        ours = freeze(model)
        for batch in (1, 16, 64, 1024):
            p2d = 100 * torch.randn(batch, 17, 2) + 500
            distributions = {"plain": model.conditional(p2d), "frozen": ours.conditional(p2d)}
            value = distributions["plain"].sample()
            cases: dict[str, Callable[[Any], Any]] = {
                "conditional": lambda distribution: None,
                "sample (1,)": lambda distribution: distribution.sample((1,)),
                "point estimate": lambda distribution: (
                    distribution.base_distribution.point_estimate
                    if hasattr(distribution, "base_distribution")
                    else distribution.point_estimate
                ),
            }
            if batch < 1024:
                cases["sample (200,)"] = lambda distribution: distribution.sample((SAMPLES,))
            if distributions["plain"].log_prob_kind == "exact" or batch <= 16:
                cases["log_prob"] = lambda distribution: distribution.log_prob(value)
            if hasattr(distributions["plain"], "rsample_and_log_prob") and batch < 1024:
                cases["rsample_and_log_prob (200,)"] = lambda distribution: (
                    distribution.rsample_and_log_prob((SAMPLES,))
                )
            for case, run in cases.items():
                functions = {
                    who: lambda run=run, distribution=distribution: run(distribution)
                    for who, distribution in distributions.items()
                }
                if case == "conditional":
                    functions = {
                        "plain": lambda: model.conditional(p2d),
                        "frozen": lambda: ours.conditional(p2d),
                    }
                with torch.no_grad():
                    seconds, _ = clock.turns(**functions)
                yield {
                    "what": f"{name}, {case}, {batch} contexts",
                    "plain_ms": 1e3 * seconds["plain"],
                    "frozen_ms": 1e3 * seconds["frozen"],
                }


def comparisons(clock: Clock, only: list[str]) -> Iterator[dict]:
    """All comparisons, or those named."""
    affine = coupling_stack(48, 1024, couplings=4, width=1024, blocks=1)
    spline = coupling_stack(48, 128, kind="spline", couplings=4, width=256, blocks=2)
    parts: dict[str, Callable[[], Iterator[dict]]] = {
        "lifting": lambda: same_weights(
            clock, "ProHMR's lifting flow", peers.prohmr(48, 1024), 48, 1024, 1.35
        ),
        "smpl": lambda: same_weights(
            clock, "ProHMR's SMPL flow", peers.prohmr(144, 2048), 144, 2048, 1.6
        ),
        "glow": lambda: same_weights(
            clock, "GLOW of Wehrbein et al.", peers.wehrbein(), 48, 56, 2.0
        ),
        "nice": lambda: same_sizes(
            clock, "NICE, context 1024", peers.zuko_nice(),
            ConditionalFlow(StandardBase(48), affine), 48, 1024, 1.5,
        ),
        "spline": lambda: same_sizes(
            clock, "coupling splines, context 128", peers.normflows_spline(),
            ConditionalFlow(StandardBase(48), spline), 48, 128, None,
        ),
        "shipped": lambda: shipped(clock),
        "training": lambda: training(clock),
        "start": lambda: cold_start(clock),
    }  # fmt: skip
    for name, part in parts.items():
        if not only or name in only:
            yield from part()


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    lines = [
        f"{report['processor']}, torch {report['torch']}, {report['threads']} thread(s), medians "
        f"of {report['repeats']} turns.",
        "",
        "| | against | theirs, ms | ours, ms | ratio | goal | fraction of the product's rate |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in report["comparisons"]:
        goal, fraction = row.get("goal"), row.get("fraction_of_product")
        met = "" if goal is None else f"{'<=' if row.get('at_most') else '>='} {goal:g}"
        lines.append(
            f"| {row['what']}{', same weights' if row['same_weights'] else ''} | {row['peer']} | "
            f"{row['peer_ms']:.1f} | {row['ours_ms']:.1f} | {row['ratio']:.2f} | {met} | "
            f"{'' if fraction is None else f'{fraction:.2f}'} |"
        )
    if report["distributions"]:
        lines += ["", "| | as loaded, ms | frozen, ms |", "|---|---|---|"]
        lines += [
            f"| {r['what']} | {r['plain_ms']:.2f} | {r['frozen_ms']:.2f} |"
            for r in report["distributions"]
        ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """Name of the processor, where Linux tells it."""
    path = Path("/proc/cpuinfo")
    names = [x for x in path.read_text().splitlines() if "model name" in x] if path.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--only", nargs="*", default=[], help="comparisons, or distributions")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    # Of the peers, about operators that torch renames.
    warnings.simplefilter("ignore")
    clock = Clock(args.threads, args.repeats)
    report: dict[str, Any] = {
        "processor": processor(),
        "torch": torch.__version__,
        "threads": args.threads,
        "repeats": args.repeats,
        "comparisons": [],
        "distributions": [],
    }
    args.out.mkdir(parents=True, exist_ok=True)
    wanted = [("comparisons", comparisons(clock, args.only))]
    if not args.only or "distributions" in args.only:
        wanted.append(("distributions", distributions(clock)))
    for name, rows in wanted:
        for row in rows:
            report[name].append(row)
            print(json.dumps(row), flush=True)
            (args.out / "speed.json").write_text(json.dumps(report, indent=1) + "\n")
            (args.out / "speed.md").write_text(markdown(report))


if __name__ == "__main__":
    main()
