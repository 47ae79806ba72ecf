"""Figures and pages of poses and their uncertainty; they need the extra `plot` or `view`."""

from .diagnostics import draw_calibration
from .figures import draw_keypoints, draw_poses
from .html_report import report_page
from .viewer import write_viewer

__all__ = ["draw_calibration", "draw_keypoints", "draw_poses", "report_page", "write_viewer"]
