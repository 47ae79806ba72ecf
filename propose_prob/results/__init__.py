"""Results as files and as ArviZ objects: one schema, one writer, one reader."""

from .inference_data import to_inference_data
from .reader import StoredResult, read_result
from .writer import open_writer

__all__ = ["StoredResult", "open_writer", "read_result", "to_inference_data"]
