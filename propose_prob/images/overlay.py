"""Overlays of a body's surface on its photograph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import InputError
from ..geometry.camera import project
from ..geometry.skeletons import H36M_17
from .raster import rasterize, vertex_normals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PhotoContent", "overlay_body", "photo_figure"]


@torch.no_grad()
def overlay_body(
    image: npt.NDArray[np.uint8],
    vertices: Tensor,
    faces: Tensor,
    *,
    focal: float,
    center: tuple[float, float],
    color: tuple[float, float, float] = (0.55, 0.75, 0.95),
    alpha: float = 0.8,
) -> npt.NDArray[np.uint8]:
    """Draws a surface over an image, lit from the camera.

    Args:
        image: RGB `(H, W, 3)`.
        vertices: Surface `(V, 3)`, meters, camera axes, in front of the camera.
        faces: Triangles `(F, 3)`.
        focal: Focal length, pixels.
        center: Principal point, pixels; the middle of the first pixel is at (0.5, 0.5).
        color: Of the surface, sRGB in 0..1.
        alpha: How much of the image it covers where it is, 0..1.

    Returns:
        The picture `(H, W, 3)`.

    Raises:
        InputError: If the image is not 8-bit RGB.

    Example:
        >>> from propose_prob.bodies import load_open_body
        >>> body = load_open_body()
        >>> upright = torch.eye(3).repeat(24, 1, 1)
        >>> upright[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
        >>> surface = body(upright, None, torch.tensor([0.0, 0.0, 4.0])).vertices
        >>> blank = np.full((64, 48, 3), 255, np.uint8)
        >>> drawn = overlay_body(blank, surface, body.faces, focal=100.0, center=(24.0, 32.0))
        >>> bool((drawn[32, 24] < 255).any()), bool((drawn[0, 0] == 255).all())
        (True, True)
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(
            f"expected an 8-bit image (H, W, 3), got {image.dtype} of shape {image.shape}"
        )
    points = project(vertices, focal=focal, center=vertices.new_tensor(center))
    size = (image.shape[0], image.shape[1])
    seen = rasterize(points, vertices[:, 2], faces, size=size)
    normal = normalize(seen.interpolate(vertex_normals(vertices, faces), faces), dim=-1)
    # From the camera, and some from above: y points down.
    bright = 0.35 + 0.5 * (-normal[:, 2]).clamp_min(0) + 0.15 * (1 - normal[:, 1]) / 2
    painted = (bright[:, None] * vertices.new_tensor(color)).clamp(0, 1).numpy()
    result = image.astype(np.float32)
    hit = (seen.face >= 0).numpy()
    result[hit] += alpha * (255 * painted - result[hit])
    return (result + 0.5).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class PhotoContent:
    """What the picture of a fit to a photograph shows; meters are in camera axes.

    Attributes:
        image: RGB `(H, W, 3)`, uint8.
        p2d: Keypoints `(J, 2)`, pixels.
        seen: Which were detected `(J,)`.
        box: Middle `(2,)` and side of the crop that the model saw, pixels.
        focal: Focal length, pixels.
        center: Principal point, pixels.
        faces: Triangles of the body `(F, 3)`.
        mode: Surface of the distribution's mode `(V, 3)`, meters.
        draws: Human3.6M-17 joints of draws of the distribution `(S, 17, 3)`, meters.
        fitted: Surface of the fit `(V, 3)`, meters.
        credit: Of the photo.
    """

    image: npt.NDArray[np.uint8]
    p2d: Tensor
    seen: Tensor
    box: tuple[Tensor, float]
    focal: float
    center: tuple[float, float]
    faces: Tensor
    mode: Tensor
    draws: Tensor
    fitted: Tensor
    credit: str


def photo_figure(content: PhotoContent) -> Figure:
    """Photo with keypoints, the distribution's mode and draws, the fit, and the fit from the side.

    Args:
        content: What is shown.

    Returns:
        A figure of four panels.

    Raises:
        InputError: If matplotlib is not installed.
    """
    from ..plotting.figures import require_matplotlib

    require_matplotlib()
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    image, camera = content.image, {"focal": content.focal, "center": content.center}
    height, width = image.shape[:2]
    figure = Figure(figsize=(13, 13 / 4 * height / width + 0.6), layout="constrained")
    axes = figure.subplots(1, 4)
    mode = overlay_body(image, content.mode, content.faces, **camera)  # type: ignore[arg-type]
    fitted = overlay_body(image, content.fitted, content.faces, **camera)  # type: ignore[arg-type]
    middle = content.fitted.mean(0)
    turned = (content.fitted - middle) @ content.fitted.new_tensor(
        [[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    ) + middle
    blank = np.full_like(image, 245)
    side = overlay_body(blank, turned, content.faces, alpha=1.0, **camera)  # type: ignore[arg-type]
    titles = (
        "keypoints and crop",
        "distribution: mode and draws",
        "fit to the keypoints",
        "from the right",
    )
    for axis, shown, title in zip(axes, (image, mode, fitted, side), titles, strict=True):
        axis.imshow(shown, extent=(0, width, height, 0))
        axis.set_title(title, fontsize=10)
        axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    points = content.p2d[content.seen]
    for axis in (axes[0], axes[2]):
        axis.scatter(points[:, 0], points[:, 1], s=9, color="tab:orange", zorder=3)
    (x, y), half = content.box[0].tolist(), 0.5 * content.box[1]
    axes[0].add_patch(
        Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, color="tab:orange")
    )
    lines = project(
        content.draws, focal=content.focal, center=content.draws.new_tensor(content.center)
    )
    for draw in lines:
        for joint, parent in enumerate(H36M_17.parents):
            if parent >= 0:
                ends = draw[[joint, parent]]
                axes[1].plot(ends[:, 0], ends[:, 1], color="tab:red", alpha=0.12, linewidth=1)
    if content.credit:
        axes[0].set_xlabel(content.credit, fontsize=7)
    return figure
