"""Poses from images: encoders, crops, renders, training; photographs need the extra `images`."""

from .crops import crop_keypoints
from .encoder import ImageEncoder
from .overlay import overlay_body
from .render_set import load_renders

__all__ = ["ImageEncoder", "crop_keypoints", "load_renders", "overlay_body"]
