"""Bodies with no more of a surface than some joints need."""

from __future__ import annotations

import copy

import torch

from .body import Body
from .mesh import MeshBody

__all__ = ["for_joints"]


def for_joints(body: Body, joint_set: str) -> Body:
    """The body with no more of its surface than a joint set is computed from.

    A joint set looks at some tens of ten thousand vertices: skinning the others is nearly all of
    the work of a fit or a training step.

    Args:
        body: Any body; one without a surface is given back as it is.
        joint_set: One of the body's regressors.

    Returns:
        A body that shares the given one's numbers, for `regress(..., joint_set)` alone.
    """
    if not isinstance(body, MeshBody):
        return body
    buffers = dict(body.named_buffers(recurse=False))
    used = buffers[f"_{joint_set}_used"]
    light = copy.copy(body)
    light._buffers = dict(body._buffers)
    for name in ("_template", "_weights", "_shape_directions"):
        if buffers.get(name) is not None:
            light._buffers[name] = buffers[name][used]
    if buffers.get("_pose_directions") is not None:
        columns = buffers["_pose_directions"].unflatten(-1, (-1, 3))[:, used]
        light._buffers["_pose_directions"] = columns.flatten(1)
    light._buffers[f"_{joint_set}_used"] = torch.arange(len(used), device=used.device)
    light._buffers["faces"] = None
    light.regressors = (joint_set,)
    return light
