"""Trained models that ship with the package, and how any trained model is stored."""

from .store import available, load, save

__all__ = ["available", "load", "save"]
