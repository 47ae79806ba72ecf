"""Render sets on disk: resumable writing and memory-mapped reading."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..configuration import from_dict, to_dict
from ..errors import InputError, short
from ..io.amass import read_arrays, real
from ..io.archives import map_npy
from ..io.atomic import atomic_file, locked, write_text
from ..io.files import read_json
from .renderer import TRUTH, RenderConfig, Renderer

__all__ = ["RenderSet", "load_renders", "render_set"]

#: Items of a shard: what a kill loses at most.
_SHARD = 250
_FORMAT = "propose_prob.renders/1"
#: What is stored of each person, and of what kind it is where it is no floating-point number.
_SHAPES: dict[str, tuple[int, ...]] = {
    "theta": (24, 3, 3),
    "shape": (10,),
    "translation": (3,),
    "focal": (),
    "joints": (17, 3),
    "keypoints": (17, 2),
    "visible": (17,),
    "occluded": (17,),
    "frame": (),
}
_KINDS = {"visible": "b", "occluded": "b", "frame": "i"}


def render_set(
    config: RenderConfig,
    count: int,
    folder: str | Path,
    *,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Renders the first items of a set, as far as they are not there yet.

    Writes `folder/split/`: `config.json`, and for every 250 items `NNNNN.images.npy`
    (N, S, S, 3) uint8 and `NNNNN.truth.npz` with the other fields of `RenderedPerson`; the second
    file is written last. Nothing in them is pickled. What a killed run left half-written is made
    anew; a larger `count` later goes on where the first ended, to the same items.

    Args:
        config: What is rendered.
        count: How many items.
        folder: Where to; made if missing.
        progress: Called with the number of items done since the last call.

    Returns:
        The split's folder.

    Raises:
        InputError: If `count` is not positive, the folder holds a set of another configuration, or
            another process renders into it.
    """
    if count < 1:
        raise InputError(f"expected a count of at least 1, got {count}")
    target = Path(folder) / config.split
    target.mkdir(parents=True, exist_ok=True)
    with locked(target, "a rendering"):
        _render(config, count, target, progress)
    return target


def _render(
    config: RenderConfig, count: int, target: Path, progress: Callable[[int], None] | None
) -> None:
    wanted = {"format": _FORMAT, **to_dict(config)}
    stored = _read_config(target) if (target / "config.json").exists() else None
    if stored is not None and stored != wanted:
        changed = sorted(key for key in wanted if wanted[key] != stored.get(key))
        raise InputError(
            f"{target} holds renders of another configuration ({', '.join(changed)} differ): "
            "choose another folder"
        )
    write_text(target / "config.json", json.dumps(wanted, indent=2))
    renderer = Renderer(config)
    for shard in range((count + _SHARD - 1) // _SHARD):
        first, last = shard * _SHARD, min((shard + 1) * _SHARD, count)
        done = _stored(target, shard)
        if done < last - first:
            _render_shard(renderer, target, shard, range(first, last), progress)
        elif progress is not None:
            progress(last - first)


@dataclasses.dataclass(frozen=True, eq=False)
class RenderSet:
    """N rendered people, the images left on disk.

    Attributes:
        config: What they were drawn from.
        theta: `(N, 24, 3, 3)`; this and the rest as in `RenderedPerson`.
        shape: `(N, 10)`.
        translation: `(N, 3)`.
        focal: `(N,)`.
        joints: `(N, 17, 3)`.
        keypoints: `(N, 17, 2)`.
        visible: `(N, 17)`.
        occluded: `(N, 17)`.
        frame: `(N,)`.
        shards: The images, memory-mapped, 250 to a shard `(250, S, S, 3)`.
    """

    config: RenderConfig
    theta: Tensor
    shape: Tensor
    translation: Tensor
    focal: Tensor
    joints: Tensor
    keypoints: Tensor
    visible: Tensor
    occluded: Tensor
    frame: Tensor
    shards: tuple[npt.NDArray[np.uint8], ...]

    def __len__(self) -> int:
        return len(self.theta)

    def images(self, rows: Tensor) -> Tensor:
        """Images `(B, S, S, 3)`, uint8, of the given rows `(B,)`."""
        chosen = [self.shards[row // _SHARD][row % _SHARD] for row in rows.tolist()]
        return torch.from_numpy(np.stack(chosen))


def load_renders(folder: str | Path, split: str = "train") -> RenderSet:
    """Opens a set that `render_set` wrote, or as much of it as is there.

    Args:
        folder: The folder given to `render_set`.
        split: Which split's set.

    Raises:
        InputError: If there is none, or a file is not what was written.
    """
    target = Path(folder) / split
    if not (target / "config.json").is_file():
        raise InputError(
            f"{target}: expected a set of renders, found none; "
            f"make one with propose-prob render --split {split} --out {folder}"
        )
    stored = _read_config(target)
    stored.pop("format")
    try:
        config = from_dict(stored, default=RenderConfig())
    except InputError as error:
        raise InputError(
            f"{target / 'config.json'}: not of a set of renders ({short(str(error))})"
        ) from None
    images, truths = [], []
    shard = 0
    while (path := target / f"{shard:05d}.truth.npz").is_file():
        truth = _read_truth(path)
        pictures = _open_images(target, shard, config.size, len(truth["theta"]))
        truths.append(truth)
        images.append(pictures)
        shard += 1
    if not images:
        raise InputError(f"{target}: expected renders, found no finished shard")
    if any(len(part) != _SHARD for part in images[:-1]):
        raise InputError(f"{target}: expected {_SHARD} images in all shards but the last")
    fields = {n: torch.from_numpy(np.concatenate([t[n] for t in truths])) for n in TRUTH}
    return RenderSet(config=config, shards=tuple(images), **fields)


def _render_shard(
    renderer: Renderer,
    target: Path,
    shard: int,
    indices: range,
    progress: Callable[[int], None] | None,
) -> None:
    size = renderer.config.size
    images = np.empty((len(indices), size, size, 3), np.uint8)
    truths: dict[str, list[npt.NDArray[np.generic]]] = {name: [] for name in TRUTH}
    for row, index in enumerate(indices):
        item = renderer(index)
        images[row] = item.image
        for name in TRUTH:
            truths[name].append(getattr(item, name).numpy())
        if progress is not None:
            progress(1)
    # A truth vouches for its images: the old one goes before they change.
    truth_path = target / f"{shard:05d}.truth.npz"
    truth_path.unlink(missing_ok=True)
    with atomic_file(target / f"{shard:05d}.images.npy") as file:
        np.save(file, images)
    stacked = {name: np.stack(values) for name, values in truths.items()}
    with atomic_file(truth_path) as file:
        np.savez_compressed(file, **stacked)  # type: ignore[arg-type]


def _stored(target: Path, shard: int) -> int:
    """How many items of a shard are on disk."""
    path = target / f"{shard:05d}.truth.npz"
    return len(_read_truth(path)["frame"]) if path.is_file() else 0


def _read_truth(path: Path) -> dict[str, npt.NDArray[Any]]:
    """What is stored of the people of a shard besides their images.

    Raises:
        InputError: If it is not as `render_set` stores it.
    """
    stored = read_arrays(path, TRUTH)
    count = stored["frame"].shape[:1]
    for name, values in stored.items():
        shape, kind = (*count, *_SHAPES[name]), _KINDS.get(name, "f")
        if not count or values.shape != shape or values.dtype.kind != kind:
            raise InputError(
                f"{path}: expected {name} as renders have it, got {values.dtype} {values.shape}"
            )
        if kind == "f":
            stored[name] = real(path, name, values)
    return stored


def _open_images(target: Path, shard: int, size: int, count: int) -> npt.NDArray[np.uint8]:
    path = target / f"{shard:05d}.images.npy"
    images = map_npy(path)
    if images.shape != (count, size, size, 3) or images.dtype != np.uint8:
        raise InputError(
            f"{path}: expected uint8 images of shape {(count, size, size, 3)}, "
            f"got {images.dtype} {images.shape}"
        )
    return images


def _read_config(target: Path) -> dict[str, Any]:
    path = target / "config.json"
    values = read_json(path)
    if not isinstance(values, dict) or values.get("format") != _FORMAT:
        raise InputError(f"{path}: expected the configuration of a set of renders ({_FORMAT})")
    return values
