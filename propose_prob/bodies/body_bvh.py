"""Body poses as BVH files, for Blender and other animation programs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.skeletons import SMPL_24
from ..io.bvh import write_bvh
from ..io.motion import Motion
from .body import Body
from .skeleton_body import SkeletonBody

__all__ = ["write_body_bvh"]

#: Rotations that take the axes of poses to BVH's: y up.
_UPRIGHT = {
    "camera": ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
    "y_up": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "z_up": ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
}


def write_body_bvh(
    path: str | Path,
    theta: Tensor,
    *,
    translation: Tensor | None = None,
    body: Body | None = None,
    shape: Tensor | None = None,
    frame_rate: float = 30.0,
    axes: str = "camera",
) -> list[Path]:
    """Write body poses as BVH: one file for a motion, one file for each sample of several.

    Blender makes one armature of each file. Import with scale 0.01 (see `write_bvh`); bones have
    the body's joint names.

    Args:
        path: The file to write. With samples, `_000` and so on go before its ending.
        theta: Local rotations in SMPL's convention, `(T, K, 3, 3)`, or `(S, T, K, 3, 3)` for S
            samples.
        translation: `(T, 3)`, for all samples alike, or `(S, T, 3)`, meters, in the axes of
            `theta`'s root; at the origin by default.
        body: Its rest joints give the bones; `SkeletonBody()` by default.
        shape: Shape of the body, `(num_shape,)`; average by default.
        frame_rate: Frames a second.
        axes: The world that the root's rotation is in: `"camera"` (y down, z forward), `"z_up"` (as
            `load_cmu_body`) or `"y_up"`. The files have y up.

    Returns:
        The files written.

    Raises:
        InputError: If a shape does not fit, a number is not finite, or `axes` is unknown.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> samples = torch.eye(3).expand(2, 10, 24, 3, 3)
        >>> [p.name for p in write_body_bvh(Path(folder.name) / "walk.bvh", samples)]
        ['walk_000.bvh', 'walk_001.bvh']
        >>> folder.cleanup()
    """
    path = Path(path)
    body = SkeletonBody() if body is None else body
    if axes not in _UPRIGHT:
        raise InputError(f"expected axes of {', '.join(_UPRIGHT)}, got {axes!r}")
    if theta.ndim not in (4, 5):
        raise InputError(
            f"expected theta of shape (T, {body.num_joints}, 3, 3) or with samples before it, "
            f"got {tuple(theta.shape)}"
        )
    batch = theta.shape[:-3]
    where = torch.zeros(*batch, 3) if translation is None else translation
    if where.shape not in ((*batch, 3), (batch[-1], 3)):
        raise InputError(f"expected translation of shape {(*batch, 3)}, got {tuple(where.shape)}")
    with torch.no_grad():
        theta = theta.detach().cpu().double()
        where = where.detach().cpu().double().expand(*batch, 3)
        motions = theta if theta.ndim == 5 else theta[None]
        wheres = where if theta.ndim == 5 else where[None]
        names = [path]
        if theta.ndim == 5:
            names = [path.with_stem(f"{path.stem}_{s:03d}") for s in range(len(theta))]
        for name, some, place in zip(names, motions, wheres, strict=True):
            write_bvh(name, _body_motion(body, some, place, shape, frame_rate, axes))
    return names


def _body_motion(
    body: Body,
    theta: Tensor,
    translation: Tensor,
    shape: Tensor | None,
    frame_rate: float,
    axes: str,
) -> Motion:
    joints, parents = body.num_joints, list(body.parents)
    device = next((buffer.device for buffer in body.buffers()), torch.device("cpu"))
    identity = torch.eye(3, device=device).expand(joints, 3, 3)
    rest = body(identity, None if shape is None else shape.to(device)).joints.cpu().double()
    offsets = rest - rest[parents]
    upright = theta.new_tensor(_UPRIGHT[axes])
    full = torch.eye(3, dtype=theta.dtype).repeat(len(theta), joints, 1, 1)
    if theta.shape[1:] not in ((joints, 3, 3), (SMPL_24.num_joints, 3, 3)):
        raise InputError(f"expected theta of shape (T, {joints}, 3, 3), got {tuple(theta.shape)}")
    shared = theta.shape[1] if theta.shape[1] == joints else 22
    full[:, :shared] = theta[:, :shared]
    full[:, 0] = upright @ full[:, 0]
    return Motion(
        bone_names=body.joint_names,
        parents=body.parents,
        offsets=offsets,
        # A leaf goes on as its own bone does, so that Blender shows where it points.
        ends=offsets / 2,
        rest_rotations=torch.eye(3, dtype=theta.dtype).repeat(joints, 1, 1),
        rotations=full,
        translation=(rest[0] + translation) @ upright.T,
        frame_rate=frame_rate,
    )
