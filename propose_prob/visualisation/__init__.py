"""Figures of poses and their uncertainty; they need the extra `plot`."""

from .demo import DemoContent, demo_figure
from .diagnostics import (
    draw_best_of,
    draw_calibration,
    draw_ellipsoids,
    draw_pit,
    draw_sparsification,
    draw_spread_error,
)
from .figures import draw_keypoints, draw_poses, draw_spread
from .report import report_page
from .surface import draw_surface
from .viewer import write_viewer

__all__ = [
    "DemoContent",
    "demo_figure",
    "draw_best_of",
    "draw_calibration",
    "draw_ellipsoids",
    "draw_keypoints",
    "draw_pit",
    "draw_poses",
    "draw_sparsification",
    "draw_spread",
    "draw_spread_error",
    "draw_surface",
    "report_page",
    "write_viewer",
]
