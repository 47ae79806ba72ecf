"""Networks: residual MLPs whose context part is computed once, and image encoders."""

from .image import ImageEncoder, ImageReading
from .mlp import ConditionalMLP, ResidualMLP, zero_output
from .resnet import ResNet, load_backbone, resnet18, resnet50

__all__ = [
    "ConditionalMLP",
    "ImageEncoder",
    "ImageReading",
    "ResNet",
    "ResidualMLP",
    "load_backbone",
    "resnet18",
    "resnet50",
    "zero_output",
]
