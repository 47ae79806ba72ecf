"""Rendered people with known bodies: images of the open body in poses of CMU17, by seed.

What takes the place of photographs with motion capture, which cannot be shipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..bodies.open_body import load_open_body
from ..configuration import check_ranges, count, pair, share
from ..datasets.cmu_body import load_cmu_body
from ..errors import InputError
from ..geometry.camera import project
from ..geometry.rotations import matrix_from_axis_angle
from .render_body import Light, ShadowMap, Wardrobe, draw_light, paint
from .render_scene import background, floor, occluder

__all__ = ["RenderConfig", "RenderedPerson", "Renderer"]

_SPLITS = ("train", "val", "test_seen", "test_subject03")
#: Limbs that occluders are put in front of, as joints of Human3.6M-17.
_LIMBS = ((2, 3), (5, 6), (12, 13), (15, 16), (2, 3, 5, 6), (11, 12, 13), (14, 15, 16), (9, 10))
_ARMS = [13, 14, 16, 17, 18, 19, 20, 21, 22, 23]
_GAMMA = 1 / 2.2


@dataclass(frozen=True)
class RenderConfig:
    """What a set of renders is drawn from; with an item's number it determines the item.

    Attributes:
        split: Whose poses; see `load_cmu_body`.
        seed: Of everything random.
        size: Side of the square images, pixels.
        occluded: Share of the images in which something stands in front of one or two limbs.
        mix: Share of the images whose arms are those of another frame; 0 keeps to recorded poses.
        distance: Nearest and farthest pelvis, meters.
        pitch: Lowest and highest camera pitch, degrees; negative looks down.
        wide: Share of the cameras with a pitch of -50 to 30 degrees and much roll.
    """

    split: str = "train"
    seed: int = count(0, low=0, long=True)
    size: int = count(128, low=32, high=1024)
    occluded: float = share(0.35)
    mix: float = share(0.0)
    distance: tuple[float, float] = pair((2.5, 8.0), low=1.0, high=1000.0)
    pitch: tuple[float, float] = pair((-18.0, 4.0), low=-90.0, high=90.0)
    wide: float = share(0.1)

    def __post_init__(self) -> None:
        if self.split not in _SPLITS:
            raise InputError(f"expected a split of {', '.join(_SPLITS)}, got {self.split!r}")
        check_ranges(self)


@dataclass(frozen=True, eq=False)
class RenderedPerson:
    """One image with what is in it.

    The camera is the crop's own: its axis goes through the image's middle, x right, y down.

    Attributes:
        image: sRGB `(size, size, 3)`, uint8.
        theta: Local rotations `(24, 3, 3)`, the first one in camera axes.
        shape: Shape coefficients `(10,)` of the open body.
        translation: Of the body, `(3,)`, meters, camera axes.
        focal: Focal length, pixels `()`; the principal point is the image's middle.
        joints: Human3.6M-17 joints `(17, 3)`, meters, camera axes.
        keypoints: The same in the image `(17, 2)`, pixels; the first pixel's middle is (0.5, 0.5).
        visible: Which lie in the image with nothing put in front of them, `(17,)`. A joint that
            only the person's own body hides counts as visible, as annotators see it.
        occluded: Which have something put in front of them `(17,)`.
        frame: Row of `load_cmu_body(split)`, `()`.
    """

    image: npt.NDArray[np.uint8]
    theta: Tensor
    shape: Tensor
    translation: Tensor
    focal: Tensor
    joints: Tensor
    keypoints: Tensor
    visible: Tensor
    occluded: Tensor
    frame: Tensor


#: Names of what is stored of an item besides its image.
TRUTH = tuple(field.name for field in fields(RenderedPerson) if field.name != "image")


class Renderer:
    """Renders the items of a set, each by its number.

    Args:
        config: What they are drawn from.

    Example:
        >>> item = Renderer(RenderConfig("val", size=64))(7)
        >>> item.image.shape, item.keypoints.shape
        ((64, 64, 3), torch.Size([17, 2]))
    """

    def __init__(self, config: RenderConfig | None = None) -> None:
        self.config = config or RenderConfig()
        self.poses = load_cmu_body(self.config.split)
        self.body = load_open_body()
        self.wardrobe = Wardrobe(self.body)

    @torch.no_grad()
    def __call__(self, index: int) -> RenderedPerson:
        """Item `index` of the set, on the CPU.

        Raises:
            InputError: If the index is negative.
        """
        if index < 0:
            raise InputError(f"expected an item's number from 0 on, got {index}")
        config, size = self.config, self.config.size
        rng = np.random.default_rng([config.seed, _SPLITS.index(config.split), index])
        frame = int(rng.integers(len(self.poses)))
        theta = self.poses.theta[frame]
        if rng.random() < config.mix:
            theta = theta.clone()
            theta[_ARMS] = self.poses.theta[int(rng.integers(len(self.poses)))][_ARMS]
        shape = torch.as_tensor(rng.normal(0, 1, 10).clip(-2.5, 2.5), dtype=torch.float32)
        turn, shift = self._camera(rng)
        theta = torch.cat([(turn @ theta[0])[None], theta[1:]])
        output = self.body(theta, shape)
        if output.vertices is None or self.body.faces is None:
            raise InputError("expected a body with a surface")
        # A limb of a close person can reach behind the camera: step back until it does not.
        shift[2] += (0.5 - (output.vertices[:, 2] + shift[2]).min()).clamp_min(0)
        aim, half = _crop(rng, output.vertices + shift)
        turn = aim @ turn
        theta[0] = aim @ theta[0]
        root = output.joints[0]
        translation = aim @ (root + shift) - root
        vertices = (output.vertices + shift) @ aim.T
        joints = (self.body.regress(output) + shift) @ aim.T
        focal = 0.5 * size / half
        light = draw_light(rng, turn[:, 2].numpy().astype(np.float64))
        look = self.wardrobe.draw(rng)
        color, cover, shadow = paint(
            vertices, self.body.faces, self.wardrobe.rest, look, light, focal=focal, size=size
        )
        image = _behind(rng, size, focal, vertices, light, shadow)
        image = image * (1 - cover[..., None]) + color
        keypoints = project(joints, focal=focal, center=0.5 * size)
        image, hidden = self._occlude(rng, image, keypoints.numpy())
        inside = ((keypoints > 0) & (keypoints < size)).all(-1)
        return RenderedPerson(
            image=_develop(rng, image),
            theta=theta,
            shape=shape,
            translation=translation,
            focal=torch.tensor(focal),
            joints=joints,
            keypoints=keypoints,
            visible=inside & ~hidden,
            occluded=hidden,
            frame=torch.tensor(frame),
        )

    def _camera(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """World axes to camera axes, and where the pelvis is then."""
        config = self.config
        wide = rng.random() < config.wide
        pitch = rng.uniform(-50, 30) if wide else rng.uniform(*config.pitch)
        roll = rng.normal(0, 10 if wide else 2)
        upright = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
        angles = torch.zeros(3, 3)
        angles[0, 2], angles[1, 0] = math.radians(roll), math.radians(pitch)
        angles[2, 2] = float(rng.uniform(0, 2 * math.pi))
        rolled, pitched, turned = matrix_from_axis_angle(angles)
        distance = float(rng.uniform(*config.distance))
        return rolled @ pitched @ upright @ turned, torch.tensor([0.0, 0.0, distance])

    def _occlude(
        self, rng: np.random.Generator, image: npt.NDArray[np.float32], keypoints: npt.NDArray
    ) -> tuple[npt.NDArray[np.float32], Tensor]:
        hidden = np.zeros(len(keypoints), bool)
        if rng.random() < self.config.occluded:
            for _ in range(rng.integers(1, 3)):
                limb = keypoints[list(_LIMBS[rng.integers(len(_LIMBS))])]
                reach = 0.6 * np.ptp(limb, axis=0).max() + 0.05 * len(image)
                front, share = occluder(rng, len(image), limb.mean(0), reach)
                image = image + share[..., None] * (rng.uniform(0.4, 1.1) * front - image)
                pixel = keypoints.astype(int).clip(0, len(image) - 1)
                hidden |= share[pixel[:, 1], pixel[:, 0]] > 0.5
        return image, torch.from_numpy(hidden)


def _crop(rng: np.random.Generator, vertices: Tensor) -> tuple[Tensor, float]:
    """The turn to a camera that looks at the crop's middle, and the tangent of its half width.

    The square holds the surface with a margin; size and middle are as uncertain as a detector's.
    """
    seen = vertices[:, :2] / vertices[:, 2:]
    low, high = seen.amin(0), seen.amax(0)
    half = 0.5 * float((high - low).max())
    jitter = torch.as_tensor(rng.normal(0, 0.05, 2).clip(-0.12, 0.12), dtype=torch.float32)
    x, y = (0.5 * (low + high) + half * jitter).tolist()
    # The smallest rotation that brings the ray onto the axis.
    ray = np.array([x, y, 1.0]) / math.sqrt(x * x + y * y + 1)
    axis = np.cross(ray, [0.0, 0.0, 1.0])
    sine = float(np.linalg.norm(axis))
    angle = math.atan2(sine, ray[2])
    aim = matrix_from_axis_angle(torch.as_tensor(axis / max(sine, 1e-9) * angle).float())
    return aim, half * float(np.exp(np.clip(rng.normal(0.14, 0.08), -0.05, 0.35)))


def _behind(
    rng: np.random.Generator,
    size: int,
    focal: float,
    vertices: Tensor,
    light: Light,
    shadow: ShadowMap | None,
) -> npt.NDArray[np.float32]:
    """Linear background: a wall and, where the camera stands above it, often a floor."""
    image = background(rng, size) * np.float32(rng.uniform(0.4, 1.1))
    up = torch.from_numpy(light.up)
    height = float((vertices @ up).min())
    if height > -0.2 or rng.random() < 0.35:
        return image
    grid = (torch.arange(size) + 0.5 - 0.5 * size) / focal
    rays = torch.stack([*torch.meshgrid(grid, grid, indexing="xy"), torch.ones(size, size)], -1)
    drop = rays @ up
    far = float(vertices[:, 2].max()) + float(rng.uniform(0.2, 5))
    depth = torch.where(drop < -1e-3, height / drop.clamp(max=-1e-3), torch.inf)
    seen = depth < far
    places = rays[seen] * depth[seen][:, None]
    across = torch.linalg.cross(up, torch.tensor([0.0, 0.0, 1.0]))
    across = torch.nn.functional.normalize(across, dim=0)
    axes = torch.stack([across, torch.linalg.cross(up, across)])
    lit = torch.full((len(places),), max(0.0, float(light.direction @ light.up)))
    if shadow is not None:
        lit = lit * shadow.lit(places + 0.02 * up)
    bright = lit[:, None].numpy() * light.lamp + light.ambient[0]
    image[seen.numpy()] = floor(rng, (places @ axes.T).numpy()) * bright
    return image


def _develop(rng: np.random.Generator, image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Linear light to an 8-bit sRGB image with a sensor's noise."""
    bright = (image * rng.uniform(0.75, 1.25)).clip(0, 1) ** _GAMMA
    noisy = bright + rng.uniform(0, 0.025) * rng.normal(0, 1, image.shape)
    return (255 * noisy.clip(0, 1) + 0.5).astype(np.uint8)
