"""Procedural backgrounds and occluders of renders."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def background(rng: np.random.Generator, size: int) -> Image:
    """A random picture `(size, size, 3)`, linear colors in 0..1.

    A gradient, smooth noise, bricks or stripes, often with shapes in front, often out of focus.
    """
    kind = rng.integers(4)
    image = (_gradient, _noise, _bricks, _stripes)[kind](rng, size)
    if rng.random() < 0.5:
        for _ in range(rng.integers(1, 16)):
            shape = soft_shape(
                rng, size, rng.uniform(0, size, 2), rng.uniform(0.03, 0.35, 2) * size
            )
            image = image + shape[..., None] * (_texture(rng, size) - image)
    if rng.random() < 0.5:
        image = _blur(image, int(rng.integers(1, 4)))
    return image


def floor(rng: np.random.Generator, places: Image) -> Image:
    """Colors `(..., 3)` of a floor at places `(..., 2)`, meters: tiles, boards or plain."""
    colors = _colors(rng, 2)
    turn = rng.uniform(0, np.pi)
    c, s = np.cos(turn), np.sin(turn)
    turned = places @ np.array([[c, -s], [s, c]], np.float32) / rng.uniform(0.3, 1.5)
    kind = rng.integers(3)
    if kind == 0:
        share = (np.floor(turned).sum(-1) % 2).astype(np.float32)
    elif kind == 1:
        share = 0.5 + 0.5 * np.sin(6 * turned[..., 0]) * np.sin(0.7 * turned[..., 1] + 2)
    else:
        share = np.zeros(places.shape[:-1], np.float32)
    grain = rng.normal(0, 0.03, places.shape[:-1]).astype(np.float32)
    mixed = colors[0] + (share * rng.uniform(0.1, 1))[..., None] * (colors[1] - colors[0])
    return (mixed * (1 + grain[..., None])).clip(0, 1).astype(np.float32)


def occluder(
    rng: np.random.Generator, size: int, center: npt.NDArray[np.floating], reach: float
) -> tuple[Image, Image]:
    """Something in front of a place.

    Args:
        rng: Source of randomness.
        size: Side of the image, pixels.
        center: What it should hide `(2,)`, pixels.
        reach: About how large, pixels.

    Returns:
        Colors `(size, size, 3)` and how much of each pixel is hidden `(size, size)`.
    """
    middle = center + rng.normal(0, 0.25 * reach, 2)
    half = reach * rng.uniform(0.4, 1.1, 2)
    return _texture(rng, size), soft_shape(rng, size, middle, half)


def soft_shape(
    rng: np.random.Generator,
    size: int,
    center: npt.NDArray[np.floating],
    half: npt.NDArray[np.floating],
) -> Image:
    """A turned box or ellipse, 1 inside and 0 outside, with edges one pixel wide."""
    turn = rng.uniform(0, np.pi)
    c, s = np.cos(turn), np.sin(turn)
    grid = np.arange(size, dtype=np.float32) + 0.5
    x, y = grid[None] - center[0], grid[:, None] - center[1]
    u, v = np.abs(c * x + s * y), np.abs(c * y - s * x)
    if rng.random() < 0.5:
        inside = np.minimum(half[0] - u, half[1] - v)
    else:
        ratio = np.sqrt((u / half[0]) ** 2 + (v / half[1]) ** 2)
        inside = (1 - ratio) * half.min()
    return (inside + 0.5).clip(0, 1).astype(np.float32)


def _colors(rng: np.random.Generator, count: int) -> Image:
    gray, loud = rng.uniform(0.05, 0.95, (count, 1)), rng.beta(1, 2, (count, 1))
    return (((1 - loud) * gray + loud * rng.random((count, 3))) ** 2.2).astype(np.float32)


def _texture(rng: np.random.Generator, size: int) -> Image:
    if rng.random() < 0.5:
        return np.broadcast_to(_colors(rng, 1), (size, size, 3)).astype(np.float32)
    return (_gradient, _noise, _stripes)[rng.integers(3)](rng, size)


def _gradient(rng: np.random.Generator, size: int) -> Image:
    colors = _colors(rng, 2)
    turn = rng.uniform(0, 2 * np.pi)
    grid = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    share = (np.cos(turn) * grid[None] + np.sin(turn) * grid[:, None] + 0.5).clip(0, 1)
    return colors[0] + share[..., None] * (colors[1] - colors[0])


def _noise(rng: np.random.Generator, size: int) -> Image:
    image = np.zeros((size, size, 3), np.float32)
    weight, total = 1.0, 0.0
    fade = rng.uniform(0.4, 0.8)
    grid = np.linspace(0, 1, size, dtype=np.float32)
    for cells in (3, 6, 13, 29, 61):
        coarse = rng.random((cells + 1, cells + 1, 3)).astype(np.float32)
        place = grid * (cells - 1e-3)
        low = place.astype(int)
        share = (place - low).astype(np.float32)
        rows = coarse[low] + share[:, None, None] * (coarse[low + 1] - coarse[low])
        image += weight * (rows[:, low] + share[:, None] * (rows[:, low + 1] - rows[:, low]))
        total += weight
        weight *= fade
    colors = _colors(rng, 3)
    share = ((image / total - 0.5) * rng.uniform(1, 2.5) + 0.5).clip(0, 1)
    mixed = colors[0] + share[..., :1] * (colors[1] - colors[0])
    return mixed + 0.5 * share[..., 1:2] * (colors[2] - mixed)


def _bricks(rng: np.random.Generator, size: int) -> Image:
    brick, mortar = _colors(rng, 2)
    height = rng.uniform(0.04, 0.16) * size
    width = height * rng.uniform(1.5, 3.5)
    grid = np.arange(size, dtype=np.float32)
    row = np.floor(grid / height)
    x = grid[None] / width + 0.5 * (row[:, None] % 2)
    column = np.floor(x)
    edge = np.minimum(
        (x - column) * width, np.broadcast_to((grid / height - row)[:, None] * height, x.shape)
    )
    shade = 1 + 0.25 * np.sin(12.9898 * row[:, None] + 78.233 * column + rng.uniform(0, 6))
    wall = np.where((edge < 1.2)[..., None], mortar, brick * shade[..., None])
    return wall.clip(0, 1).astype(np.float32)


def _stripes(rng: np.random.Generator, size: int) -> Image:
    colors = _colors(rng, 2)
    turn, wave = rng.uniform(0, np.pi), rng.uniform(0.1, 0.9)
    grid = np.arange(size, dtype=np.float32)
    phase = wave * (np.cos(turn) * grid[None] + np.sin(turn) * grid[:, None])
    share = (rng.uniform(1, 8) * np.sin(phase)).clip(-1, 1) * 0.5 + 0.5
    return (colors[0] + share[..., None] * (colors[1] - colors[0])).astype(np.float32)


def _blur(image: Image, reach: int) -> Image:
    """Box filter of `2 reach + 1` pixels, edges repeated."""
    for axis in (0, 1):
        width = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
        padded = np.pad(image, width, mode="edge")
        image = np.mean(
            [np.take(padded, range(i, i + image.shape[axis]), axis) for i in range(2 * reach + 1)],
            axis=0,
        ).astype(np.float32)
    return image
