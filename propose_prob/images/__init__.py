"""Poses from images: encoders, crops, renders, training; photographs need the extra `images`."""

from .crops import crop_keypoints
from .overlay import overlay_body

__all__ = ["crop_keypoints", "overlay_body"]
