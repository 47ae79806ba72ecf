"""Trained models that ship with the package, and how any trained model is stored."""

from .store import available, average, load, save

__all__ = ["available", "average", "load", "save"]
