"""Readers of keypoints and motion, camera simulation, and the CMU17 benchmark."""

from .cmu17 import CMU17, load_cmu17
from .keypoints import Keypoints, KeypointStream, read_keypoints
from .simulate import Simulator, SimulatorConfig

__all__ = [
    "CMU17",
    "KeypointStream",
    "Keypoints",
    "Simulator",
    "SimulatorConfig",
    "load_cmu17",
    "read_keypoints",
]
