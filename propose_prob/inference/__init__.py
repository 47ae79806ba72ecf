"""Inference over laws, and its results as files and ArviZ objects."""

from .export import to_inference_data
from .map import MapResult, Solver, map_estimate
from .posterior import Method, Posterior, Proposal, posterior
from .posterior_data import posterior_to_inference_data
from .stored import StoredResult, read_result
from .streams import open_writer

__all__ = [
    "MapResult",
    "Method",
    "Posterior",
    "Proposal",
    "Solver",
    "StoredResult",
    "map_estimate",
    "open_writer",
    "posterior",
    "posterior_to_inference_data",
    "read_result",
    "to_inference_data",
]
