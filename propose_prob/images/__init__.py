"""Poses from images: encoders, crops, renders and their training; needs the extra `images`."""

from .crops import crop_keypoints
from .overlay import overlay_body

__all__ = ["crop_keypoints", "overlay_body"]
