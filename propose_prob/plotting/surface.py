"""Matplotlib drawing of a body's surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .figures import VIEWS, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_surface"]

Array = npt.NDArray[Any]


def draw_surface(
    ax: Axes,
    vertices: Array,
    faces: Array,
    *,
    image: Array | None = None,
    view: View = "camera",
    color: str = "#9DB8C9",
    alpha: float = 1.0,
) -> None:
    """Draw a closed surface: triangles that face the viewer, the farthest first, lit from there.

    Args:
        ax: Where to draw.
        vertices: `(V, 3)`, camera axes (x right, y down, z forward); meters.
        faces: Triangles `(F, 3)`, counter-clockwise from outside as SMPL's are.
        image: Where the camera sees the vertices, `(V, 2)`: then these are drawn, over a photo for
            instance, in the data units of `ax`, whose y axis may point down.
        view: From where, without `image`.
        color: Color of a triangle that faces the viewer.
        alpha: Opacity of the whole.

    Raises:
        InputError: If a shape does not fit.

    Example:
        >>> import torch
        >>> import matplotlib.pyplot as plt
        >>> from propose_prob.bodies import load_open_body
        >>> body = load_open_body()
        >>> vertices = body(torch.eye(3).expand(24, 3, 3)).vertices
        >>> figure, axis = plt.subplots()
        >>> draw_surface(axis, vertices.numpy(), body.faces.numpy())
        >>> plt.close(figure)
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgb

    for name, value, width in (("vertices", vertices, 3), ("faces", faces, 3), ("image", image, 2)):
        if value is not None and (value.ndim != 2 or value.shape[1] != width):
            raise InputError(f"expected {name} of shape (N, {width}), got {value.shape}")
    if image is not None and len(image) != len(vertices):
        raise InputError(f"expected image of {len(vertices)} vertices, got {len(image)}")
    triangles = vertices[faces]
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    middle = triangles.mean(1)
    if image is not None:
        sight, points = np.array([0.0, 0.0, 1.0]), image
        # Which way a triangle winds in the image tells its side, whatever the camera.
        first, second = (points[faces[:, k]] - points[faces[:, 0]] for k in (1, 2))
        near = first[:, 0] * second[:, 1] < first[:, 1] * second[:, 0]
    else:
        (right, right_sign), (up, up_sign), _, _ = VIEWS[view]
        axes = np.eye(3)
        across, upwards = right_sign * axes[right], up_sign * axes[up]
        points = np.stack([vertices @ across, vertices @ upwards], -1)
        sight = np.cross(upwards, across)
        near = normal @ sight < 0
    shown = np.flatnonzero(near)
    shown = shown[np.argsort(-(middle[shown] @ sight), kind="stable")]
    shade = 0.35 + 0.65 * np.clip(-(normal[shown] @ sight), 0, 1)[:, None]
    colors = np.clip(shade * np.array(to_rgb(color)), 0, 1)
    collection = PolyCollection(
        list(points[faces[shown]]), facecolors=colors, edgecolors=colors, linewidths=0.3,
        alpha=alpha, zorder=2,
    )  # fmt: skip
    ax.add_collection(collection)
    if image is None:
        ax.autoscale_view()
        ax.set_aspect("equal")
