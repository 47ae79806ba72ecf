"""Procedural appearance of rendered bodies: clothes, hair, light and shadow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..bodies.open_body import OpenBody
from .raster import rasterize, vertex_normals

Image = npt.NDArray[np.float32]

#: Samples of a pixel along each axis.
_FINER = 2
#: Side of the shadow map, and how far behind a surface must be to lie in shadow, meters.
_SHADOW_SIZE, _SHADOW_GAP = 160, 0.03
_TORSO, _NECK, _HEAD = (3, 6, 9, 13, 14), 12, 15
_ARMS = ((16, 18, 20, 22), (17, 19, 21, 23))
_LEGS = ((1, 4, 7, 10), (2, 5, 8, 11))

#: Skin from dark to light, sRGB.
_SKINS = ((0.27, 0.17, 0.12), (0.55, 0.37, 0.26), (0.78, 0.58, 0.45), (0.93, 0.76, 0.66))
_HAIRS = ((0.05, 0.04, 0.04), (0.22, 0.13, 0.08), (0.45, 0.28, 0.14), (0.75, 0.6, 0.38), (0.6,) * 3)


class Light(NamedTuple):
    """One far lamp and the light from everywhere.

    Attributes:
        direction: Towards the lamp, camera axes, unit length `(3,)`.
        lamp: Its color times strength `(3,)`.
        ambient: Of the light from above and from below `(2, 3)`.
        up: The world's upward direction in camera axes `(3,)`.
        shadows: Whether surfaces cast shadows.
    """

    direction: Image
    lamp: Image
    ambient: Image
    up: Image
    shadows: bool


@dataclass(frozen=True)
class Look:
    """How a person is dressed.

    Attributes:
        color: Of each vertex `(V, 3)`, linear.
        pattern: Of each vertex, how strongly the pattern changes its color, `(V,)`.
        thickness: How far clothes and hair stand off the skin `(V,)`, meters.
        waves: Wave vectors of the pattern in the rest pose `(2, 3)`, radians a meter.
        stripes: Whether the pattern has hard edges.
    """

    color: Tensor
    pattern: Tensor
    thickness: Tensor
    waves: Tensor
    stripes: bool


class Wardrobe:
    """Dresses the open body: parts from its skinning weights, lengths along its limbs.

    Args:
        body: The body.
    """

    def __init__(self, body: OpenBody) -> None:
        self.rest = body.get_buffer("_template")
        joints = body.get_buffer("_joints")
        self.part = body.get_buffer("_weights").argmax(1)
        self.along_arm = _along(self.rest, joints, self.part, _ARMS)
        self.along_leg = _along(self.rest, joints, self.part, _LEGS)
        self.head = self.rest - joints[_HEAD]
        used = body.get_buffer("_coco_17_used")
        # Left and right eye are the pair that is highest on the face.
        face = self.rest[used]
        self.eyes = face[face[:, 1].argsort(descending=True)[:2]]

    def draw(self, rng: np.random.Generator) -> Look:
        """A random look."""
        part, arm, leg = self.part, self.along_arm, self.along_leg
        height = self.rest[:, 1]
        skin = _between(_SKINS, rng.random())
        color = skin.expand(len(part), 3).clone()
        pattern, thickness = torch.zeros(len(part)), torch.zeros(len(part))
        waist = rng.uniform(-0.03, 0.07)
        torso = _one_of(part, _TORSO) | (part == 0) | (leg < 1)
        trousers = (torso & (height < waist)) | (leg < rng.choice([0.5, 0.9, 1.5, 1.9, 2.05]))
        collar = rng.uniform(0.46, 0.58)
        sleeve = rng.choice([0.0, 0.35, 0.6, 1.0, 1.7, 1.95])
        hem = waist - (rng.uniform(0.05, 0.2) if rng.random() < 0.5 else 0.0)
        bare = (height > collar) & (part != _NECK)
        shirt = (_one_of(part, _TORSO) & ~bare) | (arm < sleeve) | (torso & (height >= hem))
        shirt |= (part == _NECK) & (height < collar)
        shoes = leg.isfinite() & (leg >= rng.choice([1.85, 2.0, 2.0, 9.0]))
        gloves = arm.isfinite() & (arm >= (1.95 if rng.random() < 0.05 else 9.0))
        for worn, thick in ((trousers, 0.012), (shirt, 0.015), (shoes, 0.012), (gloves, 0.004)):
            color[worn] = _cloth(rng)
            thickness[worn] = thick * rng.random()
            pattern[worn] = rng.uniform(0.2, 0.9) if rng.random() < 0.4 else 0.0
        folds = torch.as_tensor(rng.normal(0, 25, (3, 3)), dtype=torch.float32)
        fold = (self.rest @ folds.T + torch.as_tensor(rng.uniform(0, 6, 3)).float()).sin().mean(-1)
        thickness = thickness * (1 + 0.6 * fold)
        if rng.random() < 0.93:
            self._hair(rng, color, thickness)
        eyes = torch.cdist(self.rest, self.eyes).amin(1) < 0.012
        color[eyes] = 0.03
        mouth = (self.head[:, 1] + 0.04).abs() < 0.008
        mouth &= (self.head[:, 0].abs() < 0.022) & (self.head[:, 2] > 0.07) & (part == _HEAD)
        color[mouth] = color[mouth] * torch.tensor([0.8, 0.45, 0.45])
        waves = torch.as_tensor(rng.normal(0, 1, (2, 3)), dtype=torch.float32)
        waves = normalize(waves, dim=-1) * float(rng.uniform(30, 150))
        return Look(color, pattern, thickness, waves, bool(rng.random() < 0.5))

    def _hair(self, rng: np.random.Generator, color: Tensor, thickness: Tensor) -> None:
        _, y, z = self.head.unbind(-1)
        line = rng.uniform(0.055, 0.085)
        length = rng.choice([0.02, -0.03, -0.08])
        back = z < rng.uniform(0.01, 0.035)
        hair = (self.part == _HEAD) & ((y > line + 0.35 * z.clamp_min(0)) | (back & (y > length)))
        shade = _between(_HAIRS, rng.random())
        if rng.random() < 0.12:
            # A cap or a scarf.
            shade = _cloth(rng)
        color[hair] = shade
        thickness[hair] = rng.uniform(0.004, 0.025)


def draw_light(rng: np.random.Generator, up: Image) -> Light:
    """A random lamp above the horizon and on the camera's side more often than not.

    Args:
        rng: Source of randomness.
        up: The world's upward direction in camera axes `(3,)`.
    """
    side = rng.normal(0, 1, 3)
    direction = side + np.array([0.0, 0.0, -0.6]) + rng.uniform(0.3, 1.6) * up
    direction -= min(0.0, float(direction @ up) - 0.1) * up
    warm = 1 + rng.uniform(-0.15, 0.15) * np.array([1.0, 0.0, -1.0])
    lamp = rng.uniform(0.5, 1.3) * warm
    sky = rng.uniform(0.15, 0.6) * (1 + rng.uniform(-0.12, 0.12, 3))
    ground = rng.uniform(0.3, 0.9) * sky
    return Light(
        (direction / np.linalg.norm(direction)).astype(np.float32),
        lamp.astype(np.float32),
        np.stack([sky, ground]).astype(np.float32),
        up.astype(np.float32),
        bool(rng.random() < 0.6),
    )


def paint(
    vertices: Tensor,
    faces: Tensor,
    rest: Tensor,
    look: Look,
    light: Light,
    *,
    focal: float,
    size: int,
) -> tuple[Image, Image, ShadowMap | None]:
    """Paints a posed body as a camera at the origin sees it, principal point in the middle.

    Lambert's distribution for the lamp, a hemisphere for the rest, a shadow map.

    Args:
        vertices: Posed surface `(V, 3)`, meters, camera axes.
        faces: `(F, 3)`.
        rest: The surface in the rest pose, to which the pattern sticks.
        look: Clothes.
        light: Light.
        focal: Focal length, pixels.
        size: Side of the image, pixels.

    Returns:
        Linear color `(size, size, 3)`, 0 beside the body; share of each pixel that it covers
        `(size, size)`; the shadow map where there are shadows.
    """
    # Camera axes have y down: faces are anticlockwise from outside in them as well.
    normals = vertex_normals(vertices, faces)
    vertices = vertices + look.thickness[:, None] * normals
    fine = _FINER * size
    depth = vertices[:, 2]
    points = vertices[:, :2] / depth[:, None] * (_FINER * focal) + 0.5 * fine
    seen = rasterize(points, depth, faces, size=(fine, fine))
    values = torch.cat([normals, vertices, rest, look.color, look.pattern[:, None]], -1)
    normal, place, at_rest, color, pattern = seen.interpolate(values, faces).split(
        [3, 3, 3, 3, 1], -1
    )
    wave = (at_rest @ look.waves.T).sin()
    wave = wave[:, :1] * wave[:, 1:].sign() if not look.stripes else (4 * wave[:, :1]).clamp(-1, 1)
    color = color * (1 - 0.5 * pattern * (1 + wave))
    normal = normalize(normal, dim=-1)
    direction, up = torch.from_numpy(light.direction), torch.from_numpy(light.up)
    lit = (normal @ direction).clamp_min(0)
    shadow = None
    if light.shadows:
        shadow = ShadowMap(vertices, faces, direction)
        lit = lit * shadow.lit(place + 0.01 * normal)
    ambient = torch.from_numpy(light.ambient)
    share = 0.5 * (1 + normal @ up)[:, None]
    sky = share * ambient[0] + (1 - share) * ambient[1]
    color = color * (lit[:, None] * torch.from_numpy(light.lamp) + sky)
    image = torch.zeros(fine, fine, 4)
    image[seen.face >= 0] = torch.cat([color, torch.ones_like(color[:, :1])], -1)
    image = image.view(size, _FINER, size, _FINER, 4).mean((1, 3))
    return image[..., :3].numpy(), image[..., 3].numpy(), shadow


class ShadowMap:
    """Which places a far lamp reaches.

    Args:
        vertices: Surface that casts shadows `(V, 3)`.
        faces: `(F, 3)`.
        direction: Towards the lamp `(3,)`.
    """

    def __init__(self, vertices: Tensor, faces: Tensor, direction: Tensor) -> None:
        helper = torch.eye(3)[int(direction.abs().argmin())]
        x = normalize(torch.linalg.cross(direction, helper), dim=0)
        self.axes = torch.stack([x, torch.linalg.cross(direction, x), -direction])
        seen = vertices @ self.axes.T
        low, high = seen[:, :2].amin(0), seen[:, :2].amax(0)
        self.low, self.scale = low, (_SHADOW_SIZE - 2) / (high - low).max()
        raster = rasterize(
            (seen[:, :2] - low) * self.scale + 1,
            seen[:, 2],
            faces,
            size=(_SHADOW_SIZE, _SHADOW_SIZE),
            perspective=False,
        )
        self.depth = raster.depth

    def lit(self, places: Tensor) -> Tensor:
        """1 where the lamp is seen from `(P, 3)`, else 0."""
        seen = places @ self.axes.T
        pixel = ((seen[:, :2] - self.low) * self.scale + 1).long()
        inside = ((pixel >= 0) & (pixel < _SHADOW_SIZE)).all(-1)
        pixel = pixel.clamp(0, _SHADOW_SIZE - 1)
        first = self.depth[pixel[:, 1], pixel[:, 0]]
        return (~inside | (seen[:, 2] < first + _SHADOW_GAP)).float()


def _along(
    rest: Tensor, joints: Tensor, part: Tensor, limbs: tuple[tuple[int, ...], ...]
) -> Tensor:
    """How far along a limb each vertex is: 1 at the second joint, 2 from the third on; else inf."""
    along = torch.full((len(rest),), torch.inf)
    for upper, lower, *ends in limbs:
        for number, (start, end) in enumerate(((upper, lower), (lower, ends[0]))):
            bone = joints[end] - joints[start]
            share = ((rest - joints[start]) @ bone / (bone @ bone)).clamp(0, 1)
            along = torch.where(part == start, number + share, along)
        last = _one_of(part, tuple(ends))
        bone = joints[ends[0]] - joints[lower]
        beyond = ((rest - joints[ends[0]]) @ bone / (bone @ bone)).clamp_min(0)
        along = torch.where(last, 2 + beyond, along)
    return along


def _one_of(part: Tensor, joints: tuple[int, ...]) -> Tensor:
    return torch.isin(part, torch.tensor(joints))


def _between(colors: tuple[tuple[float, ...], ...], share: float) -> Tensor:
    """A mixture of neighbors, linear."""
    place = share * (len(colors) - 1)
    low = min(int(place), len(colors) - 2)
    pair = torch.tensor(colors[low : low + 2])
    return ((1 - (place - low)) * pair[0] + (place - low) * pair[1]) ** 2.2


def _cloth(rng: np.random.Generator) -> Tensor:
    """A random color, linear: grays and muted ones more often than loud ones."""
    gray, loud = rng.uniform(0.05, 0.95), rng.beta(1, 2)
    color = (1 - loud) * gray + loud * rng.random(3)
    return torch.as_tensor(color.clip(0.02, 0.95) ** 2.2, dtype=torch.float32)
