"""Inference over laws, and its results as files and ArviZ objects."""

from .export import to_inference_data
from .streams import open_writer

__all__ = ["open_writer", "to_inference_data"]
