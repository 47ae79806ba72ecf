"""Matplotlib drawing of keypoints, hypotheses and standard deviations.

3D poses are drawn as orthographic views on plain axes: lengths can be compared along any direction,
which a perspective box of three axes does not allow. matplotlib is imported when a figure is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..geometry.skeletons import Skeleton

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "View",
    "draw_keypoints",
    "draw_poses",
    "draw_spread",
    "require_matplotlib",
]

Array = npt.NDArray[Any]
View = Literal["camera", "side", "top"]

#: Okabe and Ito's palette: blue and vermilion stay apart for color-blind readers.
SIDES = {"left": "#0072B2", "right": "#D55E00", "middle": "#4D4D4D"}
SEEN, HIDDEN, CLOUD = "#7F8C99", "#AA3377", "#FF7AC6"
INK, FAINT = "#22272E", "#8A929B"

#: Horizontal and vertical camera axis of each view, with signs that point right and up.
VIEWS: dict[str, tuple[tuple[int, int], tuple[int, int], str, str]] = {
    "camera": ((0, 1), (1, -1), "across (m)", "up (m)"),
    "side": ((2, 1), (1, -1), "away from the camera (m)", "up (m)"),
    "top": ((0, 1), (2, 1), "across (m)", "away from the camera (m)"),
}


def require_matplotlib() -> None:
    """Check that figures can be made.

    Raises:
        InputError: If matplotlib is missing; names the extra that brings it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError(
            "figures need matplotlib, which is not installed: pip install 'propose_prob[plot]'"
        ) from None


def sides(skeleton: Skeleton) -> list[str]:
    """`"left"`, `"right"` or `"middle"` for each joint."""
    return [
        "middle"
        if skeleton.mirror[joint] == joint
        else ("left" if name.lower().startswith("l") else "right")
        for joint, name in enumerate(skeleton.joint_names)
    ]


def visible_bones(skeleton: Skeleton, visible: Sequence[bool]) -> list[tuple[int, int, bool]]:
    """Bones between visible joints; a missing joint is bridged to its nearest visible ancestor.

    Returns:
        (child, ancestor, whether the bone is direct) for each visible joint that has one.
    """
    bones = []
    for child, parent in skeleton.bones:
        ancestor = parent
        while ancestor != -1 and not visible[ancestor]:
            ancestor = skeleton.parents[ancestor]
        if visible[child] and ancestor != -1:
            bones.append((child, ancestor, ancestor == parent))
    return bones


def draw_keypoints(
    ax: Axes, p2d: Array, skeleton: Skeleton, *, visible: Array, width: float = 2.6
) -> None:
    """Draw a 2D skeleton: left, right and middle colored, bridges over missing joints dashed.

    Args:
        ax: Where to draw, for instance over a photo.
        p2d: Joints `(J, 2)` in the data units of `ax`.
        skeleton: The joint set.
        visible: Which joints to draw, `(J,)` booleans.
        width: Line width in points.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from propose_prob.geometry import H36M_17
        >>> joints = np.random.default_rng(0).normal(size=(17, 2))
        >>> draw_keypoints(Figure().subplots(), joints, H36M_17, visible=np.ones(17, bool))
    """
    import matplotlib.patheffects as effects

    side = sides(skeleton)
    halo = [effects.Stroke(linewidth=width + 2, foreground="white", alpha=0.9), effects.Normal()]
    for child, ancestor, direct in visible_bones(skeleton, visible.tolist()):
        ax.plot(
            *p2d[[child, ancestor]].T,
            color=SIDES[side[child]],
            linewidth=width,
            linestyle="-" if direct else (0, (1.2, 1.0)),
            solid_capstyle="round",
            path_effects=halo if direct else None,
            zorder=3,
        )
    shown = np.flatnonzero(visible)
    ax.scatter(
        p2d[shown, 0],
        p2d[shown, 1],
        s=5.5 * width**2,
        color=[SIDES[side[j]] for j in shown],
        edgecolor="white",
        linewidth=1.2,
        zorder=4,
    )


def draw_poses(
    ax: Axes,
    poses: Array,
    skeleton: Skeleton,
    *,
    view: View,
    point: Array | None = None,
    visible: Array | None = None,
    alpha: float | None = None,
) -> None:
    """Draw pose hypotheses thin and translucent, and an estimate bold, in one orthographic view.

    Args:
        ax: Where to draw; both axes get the same scale, in meters.
        poses: Hypotheses `(S, J, 3)`, meters, camera axes (x right, y down, z forward).
        skeleton: The joint set.
        view: From where: `"camera"`, `"side"` (the camera stands to the left) or `"top"` (the
            camera stands below).
        point: Point estimate `(J, 3)`, drawn bold.
        visible: Joints that were seen in 2D `(J,)`; the others' dots are open.
        alpha: Opacity of a hypothesis; by default the more of them, the less.

    Raises:
        InputError: If the view is unknown or a shape is wrong.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from propose_prob.geometry import H36M_17
        >>> poses = np.random.default_rng(0).normal(size=(50, 17, 3))
        >>> draw_poses(Figure().subplots(), poses, H36M_17, view="camera", point=poses.mean(0))
    """
    import matplotlib.patheffects as effects
    from matplotlib.collections import LineCollection

    if view not in get_args(View):
        raise InputError(f"expected view to be one of {get_args(View)}, got {view!r}")
    if poses.ndim != 3 or poses.shape[1:] != (skeleton.num_joints, 3):
        raise InputError(f"expected poses (S, {skeleton.num_joints}, 3), got {poses.shape}")
    (across, across_sign), (up, up_sign), across_label, up_label = VIEWS[view]
    flat = poses[..., [across, up]] * np.array([across_sign, up_sign])
    side = sides(skeleton)
    opacity = min(1.0, 16 / len(poses)) if alpha is None else alpha
    # Pose by pose, so that no limb of one color always covers the others.
    lines = [pose[[child, parent]] for pose in flat for child, parent in skeleton.bones]
    colors = [SIDES[side[child]] for child, _ in skeleton.bones] * len(poses)
    ax.add_collection(
        LineCollection(lines, colors=colors, linewidths=0.7, alpha=opacity, capstyle="round")
    )
    if point is not None:
        best = point[..., [across, up]] * np.array([across_sign, up_sign])
        halo = [effects.Stroke(linewidth=5.2, foreground="white", alpha=0.95), effects.Normal()]
        for child, parent in skeleton.bones:
            ax.plot(
                *best[[child, parent]].T,
                color=SIDES[side[child]],
                linewidth=2.8,
                solid_capstyle="round",
                path_effects=halo,
                zorder=3,
            )
        seen = np.ones(skeleton.num_joints, bool) if visible is None else visible
        for joint in range(skeleton.num_joints):
            color = SIDES[side[joint]]
            ax.scatter(
                best[joint, 0],
                best[joint, 1],
                s=24,
                facecolor=color if seen[joint] else "white",
                edgecolor="white" if seen[joint] else HIDDEN,
                linewidth=0.9 if seen[joint] else 1.8,
                zorder=4,
            )
    ax.set_aspect("equal", adjustable="box")
    ax.autoscale_view()
    ax.set_xlabel(across_label)
    ax.set_ylabel(up_label)


def draw_spread(
    ax: Axes,
    spread: Array,
    skeleton: Skeleton,
    *,
    visible: Array,
    radius: Array | None = None,
) -> None:
    """Horizontal bars of each joint's spread, from head to feet, seen and hidden joints colored.

    Args:
        ax: Where to draw.
        spread: Spread of each joint `(J,)`, meters; drawn in millimeters.
        skeleton: The joint set; its root is left out.
        visible: Which joints were seen in 2D, `(J,)` booleans.
        radius: Radius that holds 90 % of the draws `(J,)`, meters; drawn as a tick.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from propose_prob.geometry import H36M_17
        >>> draw_spread(Figure().subplots(), np.full(17, 0.05), H36M_17, visible=np.ones(17, bool))
    """
    order = [j for j in _head_to_feet(skeleton) if j != skeleton.root]
    values = 1000 * spread[order]
    colors = [SEEN if visible[j] else HIDDEN for j in order]
    rows = np.arange(len(order))
    ax.barh(rows, values, height=0.66, color=colors, zorder=2)
    ends = values
    if radius is not None:
        ends = np.maximum(values, 1000 * radius[order])
        ax.hlines(rows, values, ends, color=colors, linewidth=1.1, zorder=2)
        ax.scatter(1000 * radius[order], rows, marker="|", s=42, color=INK, linewidth=1.3, zorder=3)
    ax.set_yticks(rows, [skeleton.joint_names[j] for j in order])
    for label, j in zip(ax.get_yticklabels(), order, strict=True):
        label.set_color(INK if visible[j] else HIDDEN)
        label.set_fontweight("normal" if visible[j] else "bold")
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.set_xlim(0, 1.06 * float(ends.max()))
    ax.set_xlabel("mm")


def _head_to_feet(skeleton: Skeleton) -> list[int]:
    """Middle joints from the last to the root, then the arms and the legs, side by side."""
    middle = [j for j in range(skeleton.num_joints) if skeleton.mirror[j] == j]
    pairs = [j for j in range(skeleton.num_joints) if skeleton.mirror[j] != j]
    side = sides(skeleton)
    legs = [j for j in pairs if _below_root(skeleton, j)]
    arms = [j for j in pairs if j not in legs]
    parts = [[j for j in part if side[j] == s] for part in (arms, legs) for s in ("left", "right")]
    return middle[::-1] + [j for part in parts for j in part]


def _below_root(skeleton: Skeleton, joint: int) -> bool:
    while skeleton.mirror[joint] != joint:
        joint = skeleton.parents[joint]
    return joint == skeleton.root
