"""Figures and pages of poses and their uncertainty; they need the extra `plot` or `view`."""

from .diagnostics import draw_calibration, draw_ellipsoids
from .figures import draw_keypoints, draw_poses
from .html_report import report_page
from .surface import draw_surface
from .viewer import write_viewer

__all__ = [
    "draw_calibration",
    "draw_ellipsoids",
    "draw_keypoints",
    "draw_poses",
    "draw_surface",
    "report_page",
    "write_viewer",
]
