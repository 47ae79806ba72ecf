"""Readers of keypoints and motion, camera simulation, and the CMU17 benchmark."""

from .amass import AmassMotion, read_amass
from .cmu17 import CMU17, load_cmu17
from .cmu_body import CMUBody, load_cmu_body
from .crops import Crops, crop_boxes, crop_keypoints, normalise_image
from .keypoints import Keypoints, KeypointStream, read_keypoints
from .motion import Motion, read_amc, read_bvh, write_body_bvh, write_bvh
from .simulate import Simulator, SimulatorConfig
from .spin import SpinDataset, read_spin

__all__ = [
    "CMU17",
    "AmassMotion",
    "CMUBody",
    "Crops",
    "KeypointStream",
    "Keypoints",
    "Motion",
    "Simulator",
    "SimulatorConfig",
    "SpinDataset",
    "crop_boxes",
    "crop_keypoints",
    "load_cmu17",
    "load_cmu_body",
    "normalise_image",
    "read_amass",
    "read_amc",
    "read_bvh",
    "read_keypoints",
    "read_spin",
    "write_body_bvh",
    "write_bvh",
]
