"""Training: simulation, objectives, trainers, loop, checkpoints."""

from .simulation import Simulator, SimulatorConfig

__all__ = ["Simulator", "SimulatorConfig"]
