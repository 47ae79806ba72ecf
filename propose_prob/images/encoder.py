"""Image encoders: a residual network, and what it sees of a person's joints."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..errors import InputError
from ..nn.mlp import ResidualMLP
from .resnet import ResNet, resnet18, resnet50

__all__ = ["BACKBONES", "ImageEncoder"]

BACKBONES = {"resnet18": resnet18, "resnet50": resnet50}
"""Residual networks by name."""

_MAP_CHANNELS = 48


class ImageReading(NamedTuple):
    """What an encoder reads off images.

    Attributes:
        context: `(B, context)`.
        places: Where the joints are seen `(B, joints, 2)`, -1 and 1 at the image's borders, x right
            and y down; None of an encoder that looks for no joints.
        maps: Logarithm of each joint's map `(B, joints, H', W')`, whose sum is 1; or None.

    Example:
        >>> reading = ImageReading(torch.randn(2, 256), None, None)
        >>> reading.context.shape
        torch.Size([2, 256])
    """

    context: Tensor
    places: Tensor | None
    maps: Tensor | None


class ImageEncoder(nn.Module):
    """Images to contexts of a distribution.

    Without `joints`, as in ProHMR: the network's pooled features, through a linear map where their
    number is not that of the context. With `joints`, the four stages' maps also give a map of
    each joint, whose center of mass is where the joint is seen (Sun et al., "Integral Human Pose
    Regression", ECCV 2018); places, widths and the features found there enter the context. A
    small network that learns from few images needs this: places are learned long before poses.

    Args:
        backbone: One of `BACKBONES`.
        context: Size of the context.
        width: Channels of the backbone's first stage.
        joints: Number of joints to look for, or 0.

    Raises:
        InputError: If the backbone is unknown.

    Example:
        >>> encoder = ImageEncoder("resnet18", 64, width=8, joints=17).eval()
        >>> reading = encoder.read(torch.randn(2, 3, 64, 64))
        >>> reading.context.shape, reading.places.shape, reading.maps.shape
        (torch.Size([2, 64]), torch.Size([2, 17, 2]), torch.Size([2, 17, 16, 16]))
    """

    def __init__(self, backbone: str, context: int, *, width: int = 64, joints: int = 0) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise InputError(f"expected a backbone of {', '.join(BACKBONES)}, got {backbone!r}")
        self.backbone: ResNet = BACKBONES[backbone](width=width)
        self.joints = joints
        features = self.backbone.features
        self.project: nn.Module
        if not joints:
            self.project = nn.Identity() if features == context else nn.Linear(features, context)
            return
        inner = _MAP_CHANNELS
        self.lateral = nn.ModuleList(
            nn.Conv2d(features // 2 ** (3 - stage), inner, 1) for stage in range(4)
        )
        self.smooth = nn.Sequential(
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, 1, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
        )
        self.maps = nn.Conv2d(inner, joints, 1)
        self.project = ResidualMLP(
            features + joints * (4 + inner), context, width=512, blocks=2, dropout=0.1
        )

    def forward(self, images: Tensor) -> Tensor:
        """Contexts `(B, context)` of images `(B, 3, H, W)`; see `ResNet.forward`."""
        return self.read(images).context

    def read(self, images: Tensor) -> ImageReading:
        """Contexts and where the joints are seen.

        Args:
            images: `(B, 3, H, W)`, normalized (`images.crops.normalize_image`).

        Raises:
            InputError: As `ResNet.forward`.
        """
        sight, places, maps = self.look(images)
        if not self.joints:
            return ImageReading(self.project(sight), None, None)
        with torch.autocast(images.device.type, enabled=False):
            return ImageReading(self.project(sight), places, maps)

    def look(self, images: Tensor) -> ImageReading:
        """What `read` makes the contexts from, in their place: `project` comes after it.

        Args:
            images: As of `read`.

        Raises:
            InputError: As `ResNet.forward`.
        """
        stages = self.backbone.maps(images)
        pooled = stages[-1].mean((-2, -1))
        if not self.joints:
            return ImageReading(pooled, None, None)
        merged = self.lateral[3](stages[3])
        for number in (2, 1, 0):
            merged = interpolate(merged, size=stages[number].shape[-2:], mode="nearest")
            merged = merged + self.lateral[number](stages[number])
        merged = self.smooth(merged)
        # Sums over a thousand pixels: in float32 under autocast too.
        with torch.autocast(images.device.type, enabled=False):
            merged, pooled = merged.to(self.maps.weight.dtype), pooled.to(self.maps.weight.dtype)
            maps = self.maps(merged)
            logarithm = maps.flatten(2).log_softmax(-1)
            share = logarithm.exp()
            grid = _grid(maps)
            places = share @ grid
            spread = (share @ grid.square() - places.square()).clamp_min(1e-6).log()
            found = share @ merged.flatten(2).mT
            known = [pooled, places.flatten(1), spread.flatten(1), found.flatten(1)]
            return ImageReading(torch.cat(known, -1), places, logarithm.view_as(maps))


def _grid(maps: Tensor) -> Tensor:
    """Pixels' middles `(H W, 2)` of maps `(B, J, H, W)`, -1 and 1 at the borders."""
    height, width = maps.shape[-2:]
    y = (torch.arange(height, device=maps.device, dtype=maps.dtype) + 0.5) / height * 2 - 1
    x = (torch.arange(width, device=maps.device, dtype=maps.dtype) + 0.5) / width * 2 - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1).flatten(
        0, 1
    )
