"""Tasks: what users want from a law, solved over many people and frames."""

from .lift import Lift, LiftedBatch, PoseModel, Skipped, lift

__all__ = ["Lift", "LiftedBatch", "PoseModel", "Skipped", "lift"]
