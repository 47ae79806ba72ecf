"""Plots of calibration and sharpness on matplotlib axes.

Numbers come in as `propose_prob.evaluation` gives them; lengths go in in meters (or millimeters
where the report has them so) and are drawn in millimeters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..evaluation.calibration import LEVELS, Calibration
from ..evaluation.sharpness import SpreadError
from ..geometry.skeletons import Skeleton
from .figures import FAINT, HIDDEN, INK, SEEN, SIDES, VIEWS, Array, View, sides

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

__all__ = [
    "draw_best_of",
    "draw_calibration",
    "draw_ellipsoids",
    "draw_pit",
    "draw_sparsification",
    "draw_spread_error",
]

#: Colors of lines that stand beside each other, apart for color-blind readers too.
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_calibration(ax: Axes, curves: Mapping[str, Calibration], *, joints: bool = True) -> None:
    """Calibration curves: how often the truth lies within each quantile of the distribution.

    Above the diagonal a distribution is too wide, below it too narrow.

    Args:
        ax: Where to draw.
        curves: Calibrations by name, for instance `Report.calibration`; those of nothing are left
            out.
        joints: Whether the first one's joints are drawn as thin lines.

    Raises:
        InputError: If no curve has a number.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from propose_prob.evaluation import CalibrationCurve
        >>> curve, draws = CalibrationCurve(17), torch.randn(51, 40, 17, 3)
        >>> curve.update(draws[1:], draws[0], torch.ones(40, 17, dtype=torch.bool))
        >>> draw_calibration(Figure().subplots(), {"all": curve.compute()})
    """
    shown = {name: c for name, c in curves.items() if np.isfinite(c.error)}
    if not shown:
        raise InputError("expected at least one calibration curve with items, got none")
    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", zorder=1)
    if joints:
        frequencies = next(iter(shown.values())).frequencies.numpy()
        ax.plot(LEVELS, frequencies, color=SEEN, linewidth=0.6, alpha=0.45, zorder=2)
    for color, (name, c) in zip(_LINES, shown.items(), strict=False):
        label = f"{name}: ECE {c.error:.3f} ({c.signed:+.3f})"
        ax.plot(LEVELS, c.curve.numpy(), color=color, linewidth=2, label=label, zorder=3)
    ax.text(0.04, 0.66, "too wide", color=FAINT, transform=ax.transAxes)
    ax.text(0.70, 0.36, "too narrow", color=FAINT, transform=ax.transAxes)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xlabel("quantile of the distribution")
    ax.set_ylabel("share of truths within it")
    ax.legend(loc="upper left", frameon=False, fontsize="small")


def draw_pit(ax: Axes, density: Tensor) -> None:
    """PIT histogram of each camera axis, mean over joints; flat is right.

    A bump in the middle means too wide, a bowl too narrow, a slope biased.

    Args:
        ax: Where to draw.
        density: Heights of the bins for each coordinate `(bins, J, 3)`, as `PITHistogram.compute`
            gives them; joints without any, and the root, should be NaN or left out.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from propose_prob.evaluation.coverage import PITHistogram
        >>> pit, draws = PITHistogram(17), torch.randn(51, 40, 17, 3)
        >>> pit.update(draws[1:], draws[0])
        >>> draw_pit(Figure().subplots(), pit.compute())
    """
    heights = density.nanmean(1).numpy()
    edges = np.linspace(0, 1, len(heights) + 1)
    ax.axhline(1, color=FAINT, linewidth=1, linestyle="--", zorder=1)
    for axis, (name, color) in enumerate(zip(("across", "down", "depth"), _LINES, strict=False)):
        ax.stairs(heights[:, axis], edges, color=color, linewidth=1.8, label=name, zorder=2)
    ax.set(xlim=(0, 1), ylim=(0, max(2.0, 1.25 * float(np.nanmax(heights)))))
    ax.set_xlabel("place of the truth in the distribution of its coordinate")
    ax.set_ylabel("density (1 is right)")
    ax.legend(loc="upper center", ncols=3, frameon=False, fontsize="small")


def draw_best_of(ax: Axes, curves: Mapping[str, Mapping[int, float]]) -> None:
    """Expected error of the best of m hypotheses, m on a logarithmic axis.

    Args:
        ax: Where to draw.
        curves: Errors in mm by m, by name, as `Report.best_of` has them.

    Raises:
        InputError: If there is no curve.

    Example:
        >>> from matplotlib.figure import Figure
        >>> draw_best_of(Figure().subplots(), {"mine": {1: 50.0, 10: 35.0, 200: 25.0}})
    """
    if not curves:
        raise InputError("expected at least one curve, got none")
    for color, (name, curve) in zip(_LINES, curves.items(), strict=False):
        ax.plot(list(curve), list(curve.values()), color=color, marker="o", markersize=3.5,
                linewidth=1.6, label=name)  # fmt: skip
    counts = sorted({m for curve in curves.values() for m in curve})
    ax.set_xscale("log")
    ax.set_xticks(counts, [str(m) for m in counts])
    ax.minorticks_off()
    ax.set_ylim(bottom=0)
    ax.set_xlabel("hypotheses that compete, m")
    ax.set_ylabel("expected best MPJPE (mm)")
    ax.legend(frameon=False, fontsize="small")


def draw_spread_error(ax: Axes, result: SpreadError) -> None:
    """Mean error against mean spread of groups of equally many joints.

    A distribution whose spread is right on average lies on the line: the root mean square distance
    of the truth to the mean of a right distribution is its spread, and the mean distance of a
    Gaussian in three dimensions is 0.92 of that.

    Args:
        ax: Where to draw.
        result: As `SpreadErrorHistogram.compute` gives it, in meters.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from propose_prob.evaluation.sharpness import SpreadErrorHistogram
        >>> histogram, spread = SpreadErrorHistogram(), torch.rand(2000)
        >>> histogram.update(spread, spread * torch.rand(2000))
        >>> draw_spread_error(Figure().subplots(), histogram.compute())
    """
    spread, error = 1000 * result.spread.numpy(), 1000 * result.error.numpy()
    largest = 1.08 * float(max(spread.max(), error.max()))
    ax.plot([0, largest], [0, 0.92 * largest], color=FAINT, linewidth=1, linestyle="--", zorder=1)
    ax.plot(spread, error, color=_LINES[0], marker="o", markersize=5, linewidth=1.2, zorder=2)
    ax.text(0.04, 0.93, f"rank correlation {result.spearman:.2f}", color=INK,
            transform=ax.transAxes, va="top")  # fmt: skip
    ax.set(xlim=(0, largest), ylim=(0, largest), aspect="equal")
    ax.set_xlabel("spread of the distribution (mm)")
    ax.set_ylabel("error of the mean of samples (mm)")


def draw_sparsification(ax: Axes, result: SpreadError) -> None:
    """Error of what is left when the most uncertain joints are taken away.

    Args:
        ax: Where to draw.
        result: As `SpreadErrorHistogram.compute` gives it, in meters.

    Example:
        >>> import torch
        >>> from matplotlib.figure import Figure
        >>> from propose_prob.evaluation.sharpness import SpreadErrorHistogram
        >>> histogram, spread = SpreadErrorHistogram(), torch.rand(2000)
        >>> histogram.update(spread, spread * torch.rand(2000))
        >>> draw_sparsification(Figure().subplots(), histogram.compute())
    """
    removed = 100 * result.removed.numpy()
    curves = (
        ("largest spread first", result.by_spread, _LINES[0], "-"),
        ("largest error first (the best there is)", result.by_error, INK, "--"),
    )
    for name, values, color, style in curves:
        ax.plot(removed, 1000 * values.numpy(), color=color, linestyle=style, label=name)
    ax.fill_between(removed, 1000 * result.by_error.numpy(), 1000 * result.by_spread.numpy(),
                    color=_LINES[0], alpha=0.12, linewidth=0)  # fmt: skip
    start = 1000 * float(result.by_spread[0])
    ax.axhline(start, color=FAINT, linewidth=1, linestyle=":", label="at random")
    ax.set(xlim=(0, 100), ylim=(0, 1.28 * start))
    ax.set_xlabel("joints taken away (%)")
    ax.set_ylabel("mean error of the rest (mm)")
    ax.legend(title=f"area between: {result.ause:.3f} of the mean", frameon=False, fontsize="small",
              title_fontsize="small", loc="upper right")  # fmt: skip


def draw_ellipsoids(
    ax: Axes,
    samples: Array,
    skeleton: Skeleton,
    *,
    view: View,
    visible: Array | None = None,
    truth: Array | None = None,
    deviations: float = 2.0,
) -> None:
    """The spread of each joint as the shadow of its ellipsoid, around the mean pose.

    The ellipsoid holds the points within `deviations` standard deviations along every direction;
    an orthographic view of it is the ellipse of the covariance of the two coordinates seen.

    Args:
        ax: Where to draw.
        samples: Samples of one pose `(S, J, 3)`, meters, camera axes.
        skeleton: The joint set.
        view: From where, as in `draw_poses`.
        visible: Joints that were seen in 2D `(J,)`; the ellipses of others have the color of
            hidden joints.
        truth: The true pose `(J, 3)`, drawn as crosses.
        deviations: Half axes in standard deviations.

    Raises:
        InputError: If the view is unknown, a shape is wrong or there are fewer than two samples.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from propose_prob.geometry import H36M_17
        >>> samples = np.random.default_rng(0).normal(size=(50, 17, 3))
        >>> draw_ellipsoids(Figure().subplots(), samples, H36M_17, view="side")
    """
    from matplotlib.patches import Ellipse

    if view not in VIEWS:
        raise InputError(f"expected view to be one of {tuple(VIEWS)}, got {view!r}")
    if samples.ndim != 3 or samples.shape[1:] != (skeleton.num_joints, 3) or len(samples) < 2:
        raise InputError(
            f"expected at least 2 samples (S, {skeleton.num_joints}, 3), got {samples.shape}"
        )
    (across, across_sign), (up, up_sign), across_label, up_label = VIEWS[view]
    signs = np.array([across_sign, up_sign])
    flat = samples[..., [across, up]] * signs
    center = flat.mean(0)
    side = sides(skeleton)
    for child, parent in skeleton.bones:
        color = SIDES[side[child]]
        ax.plot(*center[[child, parent]].T, color=color, linewidth=2, zorder=2)
    for joint in range(skeleton.num_joints):
        values, vectors = np.linalg.eigh(np.cov(flat[:, joint].T))
        width, height = 2 * deviations * np.sqrt(values.clip(0))
        angle = float(np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0])))
        hidden = visible is not None and not visible[joint]
        color = HIDDEN if hidden else SIDES[side[joint]]
        ax.add_patch(
            Ellipse(
                (float(center[joint, 0]), float(center[joint, 1])),
                float(width),
                float(height),
                angle=angle,
                facecolor=color,
                edgecolor=color,
                alpha=0.28,
                zorder=3,
            )
        )
    if truth is not None:
        true = truth[:, [across, up]] * signs
        ax.scatter(true[:, 0], true[:, 1], marker="x", s=22, color=INK, linewidth=1.2, zorder=4)
    ax.set_aspect("equal", adjustable="box")
    ax.autoscale_view()
    ax.set_xlabel(across_label)
    ax.set_ylabel(up_label)
