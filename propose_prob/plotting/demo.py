"""Figure of `propose-prob demo`: a detection, its hypotheses from two sides, uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..geometry.skeletons import Skeleton
from .figures import (
    CLOUD,
    FAINT,
    HIDDEN,
    INK,
    SEEN,
    SIDES,
    VIEWS,
    View,
    draw_keypoints,
    draw_poses,
    draw_spread,
    require_matplotlib,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["DemoContent", "demo_figure"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class DemoContent:
    """What the demonstration's figure shows.

    Attributes:
        image: Photo `(H, W, 3)`.
        p2d: Keypoints `(J, 2)` in the photo's pixels.
        visible: Which of them were seen, `(J,)`.
        reprojected: Hypotheses projected into the photo `(S, J, 2)`, pixels.
        poses: Hypotheses `(S, J, 3)`, meters.
        point: Point estimate `(J, 3)`, meters.
        spread: Spread of each joint `(J,)`, meters.
        radius: Radius that holds 90 % of the draws `(J,)`, meters.
        skeleton: The joint set.
        model: Name of the model.
        credit: Credit line of the photo.

    Example:
        >>> from propose_prob.geometry import H36M_17
        >>> poses = 0.3 * np.random.default_rng(0).normal(size=(20, 17, 3))
        >>> seen = 100 + 50 * poses[..., :2]
        >>> content = DemoContent(
        ...     image=np.ones((200, 200, 3)), p2d=seen.mean(0), visible=np.ones(17, bool),
        ...     reprojected=seen, poses=poses, point=poses.mean(0), spread=poses.std(0).max(-1),
        ...     radius=2 * poses.std(0).max(-1), skeleton=H36M_17, model="mine", credit="",
        ... )
        >>> content.skeleton.num_joints
        17
    """

    image: Array
    p2d: Array
    visible: Array
    reprojected: Array
    poses: Array
    point: Array
    spread: Array
    radius: Array
    skeleton: Skeleton
    model: str
    credit: str


def demo_figure(content: DemoContent) -> Figure:
    """The figure of `propose-prob demo`: photo, two views of the hypotheses, spread per joint.

    Args:
        content: What to show.

    Returns:
        The figure; `savefig` writes it without any display.

    Raises:
        InputError: If matplotlib is missing.

    Example:
        >>> from propose_prob.geometry import H36M_17
        >>> poses = 0.3 * np.random.default_rng(0).normal(size=(20, 17, 3))
        >>> seen = 100 + 50 * poses[..., :2]
        >>> content = DemoContent(
        ...     image=np.ones((200, 200, 3)), p2d=seen.mean(0), visible=np.ones(17, bool),
        ...     reprojected=seen, poses=poses, point=poses.mean(0), spread=poses.std(0).max(-1),
        ...     radius=2 * poses.std(0).max(-1), skeleton=H36M_17, model="mine", credit="",
        ... )
        >>> len(demo_figure(content).axes)
        4
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    width, height = 13.95, 6.15
    bottom, tall = 1.0, 3.9
    with rc_context(_STYLE):
        figure = Figure(figsize=(width, height), facecolor="white")
        photo, front, aside, bars = (
            figure.add_axes((left / width, bottom / height, wide / width, tall / height))
            for left, wide in ((0.2, 3.9), (4.75, 2.98), (8.03, 2.98), (12.0, 1.8))
        )
        _photo_panel(photo, content)
        _view_panels(front, aside, content, ratio=2.98 / tall)
        _spread_panel(bars, content)
        _texts(figure, content)
    return figure


_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.edgecolor": "#C4C9CF",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E8EBEE",
    "grid.linewidth": 0.8,
    "xtick.color": "#C4C9CF",
    "ytick.color": "#C4C9CF",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def _head(ax: Axes, title: str, subtitle: str, *, shift: float = 0.0) -> None:
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(title, (0, 1), (shift, 23), fontsize=11.5, fontweight="bold", color=INK, **style)
    ax.annotate(subtitle, (0, 1), (shift, 9), fontsize=9, color=FAINT, **style)


def _photo_panel(ax: Axes, content: DemoContent) -> None:
    import matplotlib.patheffects as effects

    hidden = np.flatnonzero(~content.visible)
    ax.imshow(content.image, interpolation="lanczos")
    cloud = content.reprojected[:, hidden].reshape(-1, 2)
    ax.scatter(cloud[:, 0], cloud[:, 1], s=4, color=CLOUD, alpha=0.45, linewidth=0, zorder=2)
    draw_keypoints(ax, content.p2d, content.skeleton, visible=content.visible)
    high, wide = content.image.shape[:2]
    # A square as wide as the photo, around the person.
    center = (np.nanmin(content.p2d[:, 1]) + np.nanmax(content.p2d[:, 1])) / 2
    top = float(np.clip(center - wide / 2, 0, max(high - wide, 0)))
    ax.set_xlim(0, wide)
    ax.set_ylim(min(top + wide, high), top)
    ax.set_axis_off()
    places = content.reprojected[:, hidden].mean(0)
    right = float(places[:, 0].max()) + 0.09 * wide if len(hidden) else 0.0
    rows = _apart(places[:, 1], 0.045 * wide)
    for joint, place, row in zip(hidden, places, rows.tolist(), strict=True):
        ax.annotate(
            content.skeleton.joint_names[joint],
            xy=(float(place[0]), float(place[1])),
            xytext=(right, row),
            color="white",
            fontsize=9.5,
            fontweight="bold",
            va="center",
            path_effects=[effects.withStroke(linewidth=2.6, foreground=HIDDEN)],
            arrowprops={"arrowstyle": "-", "color": CLOUD, "linewidth": 1.0, "shrinkB": 6},
            zorder=5,
        )
    seen, count = int(content.visible.sum()), content.skeleton.num_joints
    _head(
        ax,
        "2D keypoints",
        f"{seen} of {count} joints seen; named: where the hypotheses put the others",
    )


def _apart(values: Array, gap: float) -> Array:
    """Values in the same order, moved so that neighbors are at least `gap` apart."""
    order = np.argsort(values)
    moved = values[order].astype(float)
    for index in range(1, len(moved)):
        moved[index] = max(moved[index], moved[index - 1] + gap)
    moved -= (moved - values[order]).mean() if len(moved) else 0.0
    result = np.empty_like(moved)
    result[order] = moved
    return result


def _view_panels(front: Axes, aside: Axes, content: DemoContent, *, ratio: float) -> None:
    from matplotlib.ticker import MultipleLocator

    # A few far hypotheses may leave the picture; the others and the estimate fill it.
    low, top = (
        bound(np.stack([np.quantile(content.poses, q, axis=0), content.point]), axis=(0, 1))
        for q, bound in ((0.03, np.min), (0.97, np.max))
    )
    middle, extent = (low + top) / 2, top - low
    half = 1.08 * max(extent[1], extent[0] / ratio, extent[2] / ratio) / 2
    titles: tuple[tuple[Axes, View, str, str], ...] = (
        (front, "camera", "3D, as the camera sees it", f"thin: {len(content.poses)} hypotheses"),
        (aside, "side", "3D, from the side", "bold: point estimate"),
    )
    for ax, view, title, subtitle in titles:
        draw_poses(
            ax,
            content.poses,
            content.skeleton,
            view=view,
            point=content.point,
            visible=content.visible,
        )
        center = middle[VIEWS[view][0][0]]
        ax.set_xlim(center - half * ratio, center + half * ratio)
        ax.set_ylim(-middle[1] - half, -middle[1] + half)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MultipleLocator(0.5))
        ax.grid()
        _head(ax, title, subtitle)
    aside.set_ylabel("")
    aside.tick_params(labelleft=False)


def _spread_panel(ax: Axes, content: DemoContent) -> None:
    draw_spread(
        ax, content.spread, content.skeleton, visible=content.visible, radius=content.radius
    )
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    _head(ax, "Uncertainty", "bar: spread; tick: 90 % of draws within", shift=-62)


def _texts(figure: Figure, content: DemoContent) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    width, height = figure.get_size_inches()
    left = 0.2 / width
    figure.text(
        left,
        1 - 0.45 / height,
        f"{len(content.poses)} 3D hypotheses from one 2D detection",
        fontsize=16,
        fontweight="bold",
        color=INK,
    )
    handles: list[Any] = [
        Line2D([], [], color=color, linewidth=2.8, label=side) for side, color in SIDES.items()
    ]
    handles += [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="o",
            markerfacecolor="white",
            markeredgecolor=HIDDEN,
            markeredgewidth=1.8,
            label="joint not seen",
        ),
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(4.65 / width, 0.02),
        ncols=4,
        frameon=False,
        columnspacing=1.6,
        handlelength=1.6,
    )
    figure.legend(
        handles=[Patch(color=SEEN, label="seen"), Patch(color=HIDDEN, label="not seen")],
        loc="lower left",
        bbox_to_anchor=(11.05 / width, 0.02),
        ncols=2,
        frameon=False,
        columnspacing=1.2,
        handlelength=1.2,
    )
    figure.text(left, 0.22 / height, content.credit, fontsize=8.5, color=FAINT)
    figure.text(
        left,
        0.45 / height,
        f"Model: {content.model}, not told the camera",
        fontsize=8.5,
        color=FAINT,
    )
