"""Configuration of a training of ProHMR from images."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from ..data.images import AugmentConfig
from ..models.prohmr import ProHMRConfig
from .config import BodyLossConfig, RunConfig

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Types of numbers that the image encoder's products may have."""


@dataclass(frozen=True)
class ImageLossConfig(BodyLossConfig):
    """Weights of the losses of ProHMR from images; 0 leaves a term out.

    2D distances are in half sides of the crop.

    Attributes:
        keypoints: L1 distance of the joints that an encoder with `joint_maps` finds in the image.
        maps: Cross-entropy of its maps.
    """

    mode2d: float = 0.6
    sample2d: float = 0.3
    samples: int = 2
    keypoints: float = 2.0
    maps: float = 0.5


@dataclass(frozen=True)
class ImageTrainConfig(RunConfig):
    """A training run of ProHMR from images; `known_intrinsics` has no use here.

    Attributes:
        rate: Peak learning rate.
        only_2d: Share of the items whose body in 3D is held back, as if only keypoints were known.
        copies: 0 trains everything. Otherwise the image network rests: it looks once at so many
            augmented copies of every image, and only what follows it is trained, on what it saw.
        distil: Of these steps the first so many, in which contexts learn to be those of a keypoint
            model (`image_law.LawTrainer`).
        precision: Of the image encoder's products: `"float32"`, or `"bfloat16"` where the hardware
            has them.
        model: Sizes and variants of the model.
        loss: Weights of the losses.
        augment: What varies in the images.
    """

    batch_size: int = 64
    rate: float = 1e-3
    only_2d: float = 0.0
    copies: int = 0
    distil: int = 0
    precision: str = "float32"
    model: ProHMRConfig = field(
        default_factory=lambda: ProHMRConfig(
            encoder="image",
            backbone="resnet18",
            backbone_width=32,
            joint_maps=True,
            image=128,
        )
    )
    loss: ImageLossConfig = field(default_factory=ImageLossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"expected a precision of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        if self.distil and not self.copies:
            raise ValueError("distil is for an image network that rests: set copies")
        if self.model.encoder != "image":
            raise ValueError(f"expected the encoder 'image', got {self.model.encoder!r}")
