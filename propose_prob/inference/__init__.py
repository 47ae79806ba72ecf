"""Inference over programs of distributions: MAP, Laplace, importance sampling, NUTS."""

from .map import map_estimate
from .posterior_data import posterior_to_inference_data
from .posteriors import Posterior, posterior

__all__ = ["Posterior", "map_estimate", "posterior", "posterior_to_inference_data"]
