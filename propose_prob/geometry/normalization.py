"""Normalization of 2D keypoints and its inverse."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

__all__ = [
    "NormalizedKeypoints",
    "as_dtype",
    "denormalize_keypoints",
    "normalize_keypoints",
    "screen_denormalize",
    "screen_normalize",
    "visible_joints",
]


@dataclass(frozen=True)
class NormalizedKeypoints:
    """A 2D pose without its place and size.

    Attributes:
        p2d: Normalized joints `(..., J, 2)`, no unit; exactly 0 where not visible.
        visible: Which joints were seen, `(..., J)` bool.
        center: Mean of the visible joints, `(..., 2)`, in the unit of the input.
        scale: Root mean square distance of the visible joints to it, `(...)`, in the same unit.

    Example:
        >>> p2d = torch.tensor([[10.0, 0.0], [30.0, 0.0], [float("nan"), 0.0]])
        >>> pose = normalize_keypoints(p2d)
        >>> pose.p2d[:, 0].tolist(), pose.visible.tolist(), pose.center.tolist(), pose.scale.item()
        ([-1.0, 1.0, 0.0], [True, True, False], [20.0, 0.0], 10.0)
    """

    p2d: Tensor
    visible: Tensor
    center: Tensor
    scale: Tensor


def _check_p2d(p2d: Tensor) -> None:
    if p2d.ndim < 1 or p2d.shape[-1] != 2:
        raise InputError(f"expected 2D joints of shape (..., 2), got {tuple(p2d.shape)}")
    if not p2d.is_floating_point():
        raise InputError(f"expected floating-point 2D joints, got {p2d.dtype}")


def _where(failed: Tensor) -> tuple[tuple[int, ...], str]:
    """Return the first index at which `failed` holds, and words that name it."""
    index = tuple(failed.nonzero()[0].tolist())
    if not index:
        return index, "the pose"
    return index, f"the pose at batch index {index if len(index) > 1 else index[0]}"


def as_dtype(
    p2d: Tensor, confidence: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Give 2D joints and their confidence in another floating-point type.

    Args:
        p2d: 2D joints `(..., 2)`, floating-point or integers; NaN where not seen.
        confidence: Confidence of any shape, or none.
        dtype: The type of a model's weights, say.

    Returns:
        Both in that type; as they are if they have it.

    Raises:
        InputError: If one is boolean, complex or no tensor, or a coordinate is too large for the
            type.

    Example:
        >>> p2d, _ = as_dtype(torch.tensor([[640, 480]]), None, torch.float32)
        >>> p2d
        tensor([[640., 480.]])
        >>> as_dtype(torch.tensor([[1e5, 1e5]]), None, torch.float16)
        Traceback (most recent call last):
        propose_prob.errors.InputError: expected 2D joints within torch.float16, got 100000.0
    """
    for name, value in (("2D joints", p2d), ("confidence", confidence)):
        if value is None and name == "confidence":
            continue
        if not isinstance(value, Tensor):
            raise InputError(f"expected {name} as a torch tensor, got {type(value).__name__}")
        if value.is_complex() or value.dtype == torch.bool:
            raise InputError(f"expected {name} as numbers, got {value.dtype}")
    if confidence is not None and confidence.dtype != dtype:
        confidence = confidence.to(dtype)
    if p2d.dtype == dtype:
        return p2d, confidence
    cast = p2d.to(dtype)
    # Compiled programs cannot branch on numbers: there, too large ones are the caller's affair.
    if not torch.compiler.is_compiling():
        beyond = p2d.isfinite() & ~cast.isfinite()
        if bool(beyond.any()):
            raise InputError(
                f"expected 2D joints within {dtype}, got {p2d[beyond].flatten()[0].item()}"
            )
    return cast, confidence


def visible_joints(p2d: Tensor, confidence: Tensor | None = None) -> Tensor:
    """Tell which joints were seen: both coordinates finite and a positive confidence.

    Args:
        p2d: 2D joints `(..., J, 2)`.
        confidence: Confidence `(..., J)`; without it only the coordinates count.

    Returns:
        Visibility `(..., J)`, bool.

    Raises:
        InputError: If a shape does not fit or a confidence is NaN.

    Example:
        >>> p2d = torch.tensor([[1.0, 2.0], [float("nan"), 2.0], [3.0, 4.0]])
        >>> visible_joints(p2d, torch.tensor([0.9, 0.9, 0.0]))
        tensor([ True, False, False])
    """
    _check_p2d(p2d)
    visible = p2d.isfinite().all(dim=-1)
    if confidence is None:
        return visible
    if confidence.shape != p2d.shape[:-1]:
        raise InputError(
            f"expected confidence of shape {tuple(p2d.shape[:-1])}, got {tuple(confidence.shape)}"
        )
    unknown = confidence.isnan()
    # Compiled programs cannot branch on numbers: there, wrong ones are the caller's affair.
    if not torch.compiler.is_compiling() and unknown.any():
        *batch, joint = unknown.nonzero()[0].tolist()
        where = f" at batch index {batch[0] if len(batch) == 1 else tuple(batch)}" if batch else ""
        raise InputError(f"expected confidence between 0 and 1, got NaN for joint {joint}{where}")
    return visible & (confidence > 0)


def normalize_keypoints(p2d: Tensor, confidence: Tensor | None = None) -> NormalizedKeypoints:
    """Center a 2D pose on its visible joints and divide it by one scale.

    The center is the mean of the visible joints and the scale their root mean square distance to
    it, the same for both axes, so neither the place nor the distance of the person matters.
    Differentiable in `p2d`.

    Args:
        p2d: 2D joints `(..., J, 2)`, any unit; NaN where not seen.
        confidence: Confidence `(..., J)`; 0 where not seen.

    Returns:
        The normalized pose with what undoes it (see `denormalize_keypoints`).

    Raises:
        InputError: If a shape does not fit, a confidence is NaN, or a pose has fewer than two
            visible joints or all of them in one place; the message names the batch index.

    Example:
        >>> pose = normalize_keypoints(torch.tensor([[100.0, 100.0], [300.0, 100.0]]))
        >>> pose.p2d, pose.scale
        (tensor([[-1.,  0.],
                 [ 1.,  0.]]), tensor(100.))
    """
    if p2d.ndim < 2:
        raise InputError(f"expected 2D poses of shape (..., J, 2), got {tuple(p2d.shape)}")
    visible = visible_joints(p2d, confidence)
    count = visible.sum(dim=-1)
    if not torch.compiler.is_compiling() and (count < 2).any():
        index, where = _where(count < 2)
        raise InputError(
            f"{where} has {int(count[index])} visible joints of {p2d.shape[-2]}; "
            "at least 2 are needed"
        )
    mask = visible.unsqueeze(-1)
    zero = torch.zeros((), dtype=p2d.dtype, device=p2d.device)
    # Masked before the arithmetic: the gradient of a NaN would survive a mask applied after it.
    seen = torch.where(mask, p2d, zero)
    total = count.to(p2d.dtype)
    center = seen.sum(dim=-2) / total.unsqueeze(-1)
    offset = torch.where(mask, seen - center.unsqueeze(-2), zero)
    square = offset.square().sum(dim=(-2, -1)) / total
    largest = seen.detach().abs().amax(dim=(-2, -1))
    rounding = 4 * torch.finfo(p2d.dtype).eps * largest
    flat = (square <= rounding.square()) | ~square.isfinite()
    if not torch.compiler.is_compiling() and flat.any():
        index, where = _where(flat)
        raise InputError(
            f"{where} has no size: its {int(count[index])} visible joints lie in one place "
            "or too far apart"
        )
    scale = square.sqrt()
    return NormalizedKeypoints(offset / scale[..., None, None], visible, center, scale)


def denormalize_keypoints(p2d: Tensor, normalized: NormalizedKeypoints) -> Tensor:
    """Bring normalized 2D joints back to the place and size of a pose.

    Args:
        p2d: Normalized joints `(..., J, 2)`, for instance projected hypotheses `(S, B, J, 2)`;
            leading dimensions broadcast.
        normalized: What `normalize_keypoints` returned for batch shape `(B,)`.

    Returns:
        Joints in the unit that the pose had before, `(..., J, 2)`. A joint that was not visible
        comes back at the center.

    Raises:
        InputError: If the last dimension is not 2.

    Example:
        >>> p2d = torch.tensor([[10.0, 0.0], [30.0, 0.0]])
        >>> pose = normalize_keypoints(p2d)
        >>> torch.allclose(denormalize_keypoints(pose.p2d, pose), p2d)
        True
    """
    _check_p2d(p2d)
    return p2d * normalized.scale[..., None, None] + normalized.center.unsqueeze(-2)


def _half_size(p2d: Tensor, width: float, height: float) -> Tensor:
    _check_p2d(p2d)
    if not (0 < width < float("inf") and 0 < height < float("inf")):
        raise InputError(f"expected a positive image size, got {width} x {height}")
    return p2d.new_tensor([width / 2, height / 2])


def screen_normalize(p2d: Tensor, *, width: float, height: float) -> Tensor:
    """Map pixels to the normalized screen.

    The image center goes to 0 and half the width to 1, on both axes alike.

    Args:
        p2d: Joints `(..., 2)` in pixels, y down.
        width: Image width in pixels.
        height: Image height in pixels.

    Returns:
        Joints `(..., 2)`; x lies in -1..1 inside the image, y in -height/width..height/width. NaN
        stays NaN.

    Raises:
        InputError: If the last dimension is not 2 or the size is not positive.

    Example:
        >>> screen_normalize(torch.tensor([1000.0, 0.0]), width=1000, height=500)
        tensor([ 1.0000, -0.5000])
    """
    half = _half_size(p2d, width, height)
    return (p2d - half) / half[0]


def screen_denormalize(p2d: Tensor, *, width: float, height: float) -> Tensor:
    """Map the normalized screen back to pixels; the inverse of `screen_normalize`.

    Args:
        p2d: Joints `(..., 2)` on the normalized screen.
        width: Image width in pixels.
        height: Image height in pixels.

    Returns:
        Joints `(..., 2)` in pixels.

    Raises:
        InputError: If the last dimension is not 2 or the size is not positive.

    Example:
        >>> screen_denormalize(torch.zeros(2), width=640, height=480).tolist()
        [320.0, 240.0]
    """
    half = _half_size(p2d, width, height)
    return p2d * half[0] + half
