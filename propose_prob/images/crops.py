"""Square crops of people: from a box or from keypoints, and back to the image.

**Whose axes.** A network that sees only a crop cannot know where in the image it was cut. What it
says about a body is therefore in the axes of *the crop's own camera*: the camera at the same place
that looks straight at the crop's middle (x right, y down, z forward), with the crop's middle as
principal point. `Crops.aim` turns from the image's camera to it where intrinsics are known; without
them, the two are taken to be the same, as usual. An affine crop equals that camera's picture to
first order in the angle between the two.

Pixels are counted so that the middle of the first one is at (0.5, 0.5), y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample

from ..errors import InputError
from ..geometry.camera import rectify
from ..geometry.normalization import visible_joints

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Crops", "crop_boxes", "crop_keypoints"]
__all__ += ["normalize_image"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's channels, RGB in 0..1 (torchvision, `models` documentation)."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Their standard deviation."""


#: Pixels that are averaged at a time.
_PIXELS = 2**22


@dataclass(frozen=True, eq=False)
class Crops:
    """B square crops.

    Attributes:
        images: `(B, 3, S, S)`, RGB in 0..1.
        middle: Middle of each crop in the image `(B, 2)`, pixels.
        side: Side of each crop in the image `(B,)`, pixels.

    Example:
        >>> crops = crop_boxes(torch.rand(3, 80, 60), torch.tensor([[10.0, 10, 50, 70]]), size=32)
        >>> crops.images.shape, crops.middle.tolist()
        (torch.Size([1, 3, 32, 32]), [[30.0, 40.0]])
    """

    images: Tensor
    middle: Tensor
    side: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Side of the crops' own pixels, S."""
        return self.images.shape[-1]

    def to_crop(self, points: Tensor) -> Tensor:
        """Points of the image `(B, J, 2)` in the pixels of the crops."""
        scale = (self.size / self.side)[:, None, None]
        return (points - self.middle[:, None]) * scale + 0.5 * self.size

    def to_image(self, points: Tensor) -> Tensor:
        """Points of the crops `(B, J, 2)` in the pixels of the image."""
        scale = (self.side / self.size)[:, None, None]
        return (points - 0.5 * self.size) * scale + self.middle[:, None]

    def aim(self, focal: Tensor | float, center: Tensor | tuple[float, float]) -> Tensor:
        """The turn `(B, 3, 3)` from the image's camera axes to those of the crops' cameras.

        Args:
            focal: Focal length, pixels of the image, a number or `(B,)`.
            center: Principal point, pixels of the image, `(2,)` or `(B, 2)`.
        """
        length = torch.as_tensor(focal, dtype=self.middle.dtype, device=self.middle.device)
        middle = torch.as_tensor(center, dtype=self.middle.dtype, device=self.middle.device)
        seen = torch.ones_like(self.middle[:, :1], dtype=torch.bool)
        return rectify(
            self.middle[:, None], seen, focal=length[..., None, None], center=middle[..., None, :]
        )[1]


def crop_boxes(image: Tensor, boxes: Tensor, *, size: int, margin: float = 1.2) -> Crops:
    """Cuts squares around boxes; where they reach beyond the image, they are black.

    Sampling is bilinear. Where pixels are merged, the image is first averaged over blocks that
    keep at least one pixel for each of the crop's, so that nothing is skipped (antialias).

    Args:
        image: `(3, H, W)`, RGB, uint8 or floating-point in 0..1.
        boxes: Left, top, right and bottom `(B, 4)`, pixels.
        size: Side of the crops, pixels.
        margin: How many times the longer side of its box a crop's side is.

    Returns:
        The crops.

    Raises:
        InputError: If a shape is wrong, a box is empty or not finite, or the size or the margin is
            not positive.

    Example:
        >>> boxes = torch.tensor([[50.0, 40.0, 150.0, 240.0]])
        >>> crops = crop_boxes(torch.rand(3, 480, 640), boxes, size=64)
        >>> crops.images.shape, crops.side.round()
        (torch.Size([1, 3, 64, 64]), tensor([240.]))
    """
    _check_image(image)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"expected boxes of shape (B, 4), got {tuple(boxes.shape)}")
    boxes = boxes.to(torch.float32)
    extent = boxes[:, 2:] - boxes[:, :2]
    bad = ~(extent.isfinite() & (extent > 0)).all(-1) | ~boxes.isfinite().all(-1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise InputError(
            "expected finite boxes with left < right and top < bottom; box "
            f"{row} is {boxes[row].tolist()}"
        )
    if size < 1 or not 0 < margin < float("inf"):
        raise InputError(f"expected size >= 1 and margin > 0, got {size} and {margin}")
    middle, side = 0.5 * (boxes[:, :2] + boxes[:, 2:]), margin * extent.amax(-1)
    images = (
        torch.stack([_cut(image, middle[row], float(side[row]), size) for row in range(len(boxes))])
        if len(boxes)
        else _unit(image[:, :0, :0]).new_zeros(0, 3, size, size)
    )
    return Crops(images, middle.to(image.device), side.to(image.device))


def crop_keypoints(
    image: Tensor,
    p2d: Tensor,
    confidence: Tensor | None = None,
    *,
    size: int,
    margin: float = 1.3,
) -> Crops:
    """Cuts squares around the joints that are seen.

    The box of the joints is smaller than that of the body: hands, feet and the crown of the head
    stick out, so the margin is larger than that of a box.

    Args:
        image: `(3, H, W)`; see `crop_boxes`.
        p2d: Keypoints `(B, J, 2)`, pixels; NaN means not seen.
        confidence: `(B, J)`; 0 means not seen.
        size: Side of the crops, pixels.
        margin: How many times the longer side of the joints' box a crop's side is.

    Returns:
        The crops.

    Raises:
        InputError: As `crop_boxes`, or if fewer than two joints of a person are seen.

    Example:
        >>> p2d = torch.tensor([[[10.0, 10.0], [50.0, 70.0]]])
        >>> crop_keypoints(torch.rand(3, 80, 60), p2d, size=32).images.shape
        torch.Size([1, 3, 32, 32])
    """
    if p2d.ndim != 3 or p2d.shape[-1] != 2:
        raise InputError(f"expected keypoints of shape (B, J, 2), got {tuple(p2d.shape)}")
    seen = visible_joints(p2d, confidence)
    few = seen.sum(-1) < 2
    if bool(few.any()):
        person = int(few.nonzero()[0])
        raise InputError(
            f"at least 2 visible joints are needed to crop; person {person} has "
            f"{int(seen[person].sum())}"
        )
    mask = seen[..., None]
    low = torch.where(mask, p2d, torch.inf).amin(1)
    high = torch.where(mask, p2d, -torch.inf).amax(1)
    # Joints in one column still make a box.
    grow = 1e-3 + 0.01 * (high - low).amax(-1, keepdim=True)
    return crop_boxes(image, torch.cat([low - grow, high + grow], -1), size=size, margin=margin)


def normalize_image(images: Tensor) -> Tensor:
    """Images `(..., 3, H, W)` in 0..1 as networks trained on ImageNet expect them.

    Raises:
        InputError: If there are not three channels or the numbers are not floating-point.

    Example:
        >>> normalize_image(torch.full((3, 1, 1), 0.485))[0].abs().max() < 1e-6
        tensor(True)
    """
    if images.ndim < 3 or images.shape[-3] != 3 or not images.is_floating_point():
        raise InputError(
            f"expected floating-point images of shape (..., 3, H, W), got {tuple(images.shape)} of "
            f"{images.dtype}"
        )
    mean, std = images.new_tensor(IMAGENET_MEAN), images.new_tensor(IMAGENET_STD)
    return (images - mean[:, None, None]) / std[:, None, None]


def _cut(image: Tensor, middle: Tensor, side: float, size: int) -> Tensor:
    block = max(1, int(side / size))
    height, width = image.shape[-2:]
    # Only the part that is seen, with a rim that the blocks and the interpolation reach into.
    rim = 0.5 * side + 2 * block
    x0, y0 = (int(max(0, float(m) - rim)) // block * block for m in middle)
    x1, y1 = (
        int(min(limit, max(0, float(m) + rim + block)))
        for m, limit in zip(middle, (width, height), strict=True)
    )
    if x1 <= x0 or y1 <= y0:
        return _unit(image[:, :0, :0]).new_zeros(3, size, size)
    part = _averaged(image[None, :, y0:y1, x0:x1], block)
    # In units of the part's own half width, whose last block may be cut short.
    full = part.new_tensor([part.shape[-1] * block, part.shape[-2] * block])
    offset = (2 * (middle.to(part) - part.new_tensor([x0, y0])) / full - 1)[:, None]
    rows = torch.cat([torch.diag(side / full), offset], 1)
    grid = affine_grid(rows[None], [1, 3, size, size], align_corners=False)
    return grid_sample(part, grid, padding_mode="zeros", align_corners=False)[0]


def _averaged(part: Tensor, block: int) -> Tensor:
    """Means over blocks of an image `(1, 3, H, W)`, some rows at a time.

    As floating-point numbers, a whole photograph would take gigabytes.
    """
    if block == 1:
        return _unit(part)
    strip = block * max(1, _PIXELS // (block * part.shape[-1]))
    strips = [
        avg_pool2d(_unit(rows), block, ceil_mode=True, count_include_pad=False)
        for rows in part.split(strip, dim=-2)
    ]
    return torch.cat(strips, dim=-2)


def _unit(image: Tensor) -> Tensor:
    """Floating-point pixels in 0..1."""
    return image.float() / 255 if image.dtype == torch.uint8 else image


def _check_image(image: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3 or min(image.shape[1:]) < 1:
        raise InputError(f"expected an image of shape (3, H, W), got {tuple(image.shape)}")
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise InputError(f"expected uint8 or floating-point pixels, got {image.dtype}")
