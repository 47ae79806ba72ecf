"""Figures of poses and their uncertainty; they need the extra `plot`."""

from .demo import DemoContent, demo_figure
from .figures import draw_keypoints, draw_poses, draw_spread

__all__ = ["DemoContent", "demo_figure", "draw_keypoints", "draw_poses", "draw_spread"]
