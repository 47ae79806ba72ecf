"""Rasterization of meshes by a z-buffer in plain torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["Raster", "rasterize", "vertex_normals"]


class Raster(NamedTuple):
    """What each pixel of an image sees.

    Attributes:
        face: Row of the face in front `(H, W)`, int64; -1 where there is none.
        weights: Of the face's three corners `(H, W, 3)`, true in space and not only in the image:
            an attribute of the vertices is seen as `(weights[..., None] * a[faces[face]]).sum(-2)`.
        depth: Of what is seen `(H, W)`, in the unit of the depths given; infinite where nothing is.
    """

    face: Tensor
    weights: Tensor
    depth: Tensor

    def interpolate(self, values: Tensor, faces: Tensor) -> Tensor:
        """Vertices' values `(V, C)` at the pixels that see the surface, `(P, C)`, row by row."""
        hit = self.face >= 0
        corners = values[faces[self.face[hit]]]
        return (self.weights[hit][..., None] * corners).sum(-2)


def rasterize(
    points: Tensor, depth: Tensor, faces: Tensor, *, size: tuple[int, int], perspective: bool = True
) -> Raster:
    """Finds the face that each pixel's middle sees.

    Every pair of a face and a pixel in the face's bounding box is tested at once; the nearest hit
    wins. The work grows with the image's area covered and with the number of faces, so small faces,
    as of bodies, are what this is good at. Faces with a corner at or behind depth 0 are left out.

    Args:
        points: Image points of the vertices `(V, 2)`, pixels; the middle of the first pixel is at
            (0.5, 0.5), y down.
        depth: Of the vertices `(V,)`, positive in front.
        faces: Triangles `(F, 3)`, rows of the vertices; both sides are seen.
        size: Height and width of the image.
        perspective: Whether the points are projections of a pinhole camera; otherwise they are
            those of an orthographic one, and any depth is in front.

    Returns:
        Face, weights and depth of each pixel.

    Raises:
        InputError: If a shape does not fit or the image is empty.

    Example:
        >>> corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
        >>> seen = rasterize(corners, torch.ones(3), torch.tensor([[0, 1, 2]]), size=(4, 4))
        >>> int((seen.face == 0).sum())
        10
    """
    if points.ndim != 2 or points.shape[1] != 2 or depth.shape != points.shape[:1]:
        raise InputError(
            f"expected points (V, 2) and depth (V,), got {tuple(points.shape)} and "
            f"{tuple(depth.shape)}"
        )
    if faces.ndim != 2 or faces.shape[1] != 3 or min(size) < 1:
        raise InputError(
            f"expected faces (F, 3) and an image, got {tuple(faces.shape)} and size {size}"
        )
    height, width = size
    corners, z = points[faces], depth[faces]
    low = (corners.amin(1) - 0.5).ceil().clamp_min(0)
    limit = corners.new_tensor([width - 1.0, height - 1.0])
    high = torch.minimum((corners.amax(1) - 0.5).floor(), limit)
    extent = (high - low + 1).clamp_min(0)
    if perspective:
        extent = extent * (z > 0).all(1, keepdim=True)
    # NaN marks nothing as seen.
    extent = torch.nan_to_num(extent, 0.0, 0.0, 0.0).long()
    kept = (extent.prod(-1) > 0).nonzero()[:, 0]
    extent, corners, z, low = extent[kept], corners[kept], z[kept], low[kept]
    count = extent.prod(-1)
    row = torch.repeat_interleave(torch.arange(len(kept), device=points.device), count)
    within = torch.arange(len(row), device=points.device) - (count.cumsum(0) - count)[row]
    across = extent[row, 0]
    x = low[row, 0] + within % across
    y = low[row, 1] + torch.div(within, across, rounding_mode="floor")
    weights = _barycentric(torch.stack([x, y], -1) + 0.5, corners[row])
    inside = (weights >= 0).all(-1)
    weights, row, x, y = weights[inside], row[inside], x[inside], y[inside]
    z = z[row]
    if perspective:
        # 1 / z is linear in the image.
        weights = weights / z
        seen = 1 / weights.sum(-1)
        weights = weights * seen[:, None]
    else:
        seen = (weights * z).sum(-1)
    pixel = y.long() * width + x.long()
    nearest = seen.new_full((height * width,), torch.inf)
    nearest = nearest.scatter_reduce(0, pixel, seen, "amin")
    front = seen == nearest[pixel]
    pixel, row, weights = pixel[front], row[front], weights[front]
    face = torch.full((height * width,), -1, dtype=torch.long, device=points.device)
    # Where two faces tie, the later one wins for both.
    winner = face.scatter_reduce(0, pixel, torch.arange(len(row), device=row.device), "amax")
    hit = winner >= 0
    face[hit] = kept[row[winner[hit]]]
    image_weights = weights.new_zeros(height * width, 3)
    image_weights[hit] = weights[winner[hit]]
    return Raster(
        face.view(height, width), image_weights.view(height, width, 3), nearest.view(height, width)
    )


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals of a surface's vertices, means of the faces' weighted by their areas.

    Args:
        vertices: `(V, 3)`.
        faces: `(F, 3)`, anticlockwise seen from outside in right-handed axes.

    Returns:
        Normals `(V, 3)`; zero where a vertex is of no face.
    """
    a, b, c = vertices[faces].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total.index_add_(0, faces[:, corner], normal)
    return torch.nn.functional.normalize(total, dim=-1)


def _barycentric(pixels: Tensor, corners: Tensor) -> Tensor:
    """Weights `(P, 3)` of triangles' corners `(P, 3, 2)` at points `(P, 2)`; NaN of no area."""
    a, b, c = corners.unbind(1)
    ab, ac, ap = b - a, c - a, pixels - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    v = (ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) / area
    w = (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / area
    return torch.stack([1 - v - w, v, w], -1)
