"""Results as files and as ArviZ objects: one schema, one writer, one reader."""

from .inference_data import to_inference_data
from .reader import read_result
from .writer import open_writer

__all__ = ["open_writer", "read_result", "to_inference_data"]
