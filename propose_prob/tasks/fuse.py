"""Fusion: the laws of several views of one person at one instant, solved for one pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from ..distributions.likelihoods import Kernel
from ..errors import InputError
from ..inference import Solver, map_estimate
from ..pose.normalise import visible_joints
from ..pose.rotations import matrix_from_6d, sixd_from_matrix
from .views import (
    Evidence,
    Group,
    Views,
    align,
    kabsch,
    place_root,
    pose_prior,
    program,
    root_of,
    turn_pose,
)

__all__ = ["Cameras", "Fused", "Prior", "ViewEvidence", "fuse_views", "pose_prior"]

Prior = Literal["sum", "once"]


@dataclass(frozen=True, eq=False)
class Cameras:
    """Known cameras; leading axes broadcast to `(B, V)`.

    Attributes:
        rotation: World to camera axes, `(..., V, 3, 3)`.
        translation: The world's origin seen from the camera, `(..., V, 3)`, metres; needed for
            keypoints.
        focal: Focal length in the unit of the keypoints, a number, `(..., V)`, or `(..., V, 2)` for
            both axes; needed for keypoints.
        center: Principal point, `(..., V, 2)` or `(2,)`.

    Example:
        >>> Cameras(torch.eye(3).expand(4, 3, 3)).rotation.shape
        torch.Size([4, 3, 3])
    """

    rotation: Tensor
    translation: Tensor | None = None
    focal: Tensor | float | None = None
    center: Tensor | tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, eq=False)
class ViewEvidence:
    """Keypoints of all views, to be reprojected onto.

    Attributes:
        keypoints: `(..., V, J, 2)`; NaN where not seen.
        scale: Standard deviation of a keypoint at confidence 1, in its unit.
        confidence: `(..., V, J)`.
        kernel: How fast evidence against far keypoints grows.
        body: For laws over rotations: maps matrices `(B, K, 3, 3)` to the J joints `(B, J, 3)`
            relative to their root, metres.

    Example:
        >>> import pyro.distributions as dist
        >>> views = dist.Normal(torch.randn(2, 17, 3), 0.1).to_event(2)
        >>> place = torch.tensor([[0.0, 0, 4], [1, 0, 4]])
        >>> cameras = Cameras(torch.eye(3).expand(2, 3, 3), place, 1000.0)
        >>> evidence = ViewEvidence(100 * torch.randn(2, 17, 2), scale=5.0)
        >>> fuse_views(views, cameras=cameras, evidence=evidence, max_steps=5).translation.shape
        torch.Size([3])
    """

    keypoints: Tensor
    scale: float
    confidence: Tensor | None = None
    kernel: Kernel = "student_t"
    body: Any = None


@dataclass(frozen=True, eq=False)
class Fused:
    """The pose that several views agree on; leading axis B only where the laws had it.

    Attributes:
        pose: Fused joints `(B, J, 3)`, metres, root-relative, or 6D rotations `(B, K, 6)` of which
            the first is the orientation. In world axes where cameras are known, else in those of
            the first view seen.
        in_views: The pose in each view's axes, `(B, V, *event)`; of eq. 12 each view's own.
        rotation: From the axes of `pose` to each view's, `(B, V, 3, 3)`.
        translation: Where the root stands in the world, `(B, 3)`, where keypoints were given.
        log_density: Log-density that was maximised, `(B,)`, up to a constant.
        converged: `(B,)`.

    Example:
        >>> import pyro.distributions as dist
        >>> views = dist.Normal(torch.randn(3, 17, 3), 0.1).to_event(2)
        >>> fused = fuse_views(views, cameras=Cameras(torch.eye(3).expand(3, 3, 3)))
        >>> fused.pose.shape, bool(fused.converged), fused.translation
        (torch.Size([17, 3]), True, None)
    """

    pose: Tensor
    in_views: Tensor
    rotation: Tensor
    translation: Tensor | None
    log_density: Tensor
    converged: Tensor

    @property
    def rotations(self) -> Tensor:
        """The pose as rotation matrices `(B, K, 3, 3)`.

        Raises:
            InputError: If the pose is one of joints.
        """
        return matrix_from_6d(self.pose)


def fuse_views(
    laws: Any,
    *,
    seen: Tensor | None = None,
    cameras: Cameras | None = None,
    evidence: ViewEvidence | None = None,
    prior: Prior = "sum",
    marginal: Any = None,
    agreement: float | None = None,
    solver: Solver = "auto",
    max_steps: int = 500,
    batch_size: int | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> Fused:
    r"""Fuse the laws of V views of one person, for any number B of instants.

    **What is multiplied.** Each view's law is a law of the same pose `x`, in the view's own axes:

    .. math:: \log p(x) = \sum_v \log p_v(R_v x | c_v)

    with `R_v` the camera's rotation where it is known, and free (any rotation about any axis) where
    it is not. Laws with an exact density enter with it; a decoded law with its base variables `e_v`
    and its observation noise, :math:`\log N(e_v; 0, I) + \log N(R_v x; f_v(e_v), \sigma^2)`.

    **The prior.** Each law is a posterior, :math:`p_v(x | c_v) \propto p(c_v | x)\, p(x)`, and
    views are independent given the pose; so the posterior given all of them is
    :math:`\prod_v p_v(x | c_v) / p(x)^{V - 1}`. `prior="once"` does that, with `marginal` as
    `p(x)`, in each view's axes with the power (V - 1) / V so that no view is special. `prior="sum"`
    is the paper's plain sum, which counts the prior V times: it is pulled towards usual poses, but
    never asks for more than the laws know. With few or timid laws a quotient may have no maximum;
    `converged` tells.

    **Rotations.** Without cameras and with `agreement`, laws over rotations `(K, 6)` follow
    ProHMR's eq. 12: each view has its own pose, and the body's rotation matrices (all but the
    orientation) are near their mean, :math:`\lambda \sum_v ||R^b_v - \bar R^b||^2` with
    :math:`\lambda = 1 / (2\, \text{agreement}^2)`; `pose` is the mean, made rotations. Without
    `agreement` all views share one body pose exactly, the limit of it.

    **Keypoints.** With `evidence`, calibrated cameras see the fused pose at a place that is found
    as well. The laws know of the keypoints already, so this counts them twice, as ProHMR's fitting
    (eq. 11) does: a law is a guess of where joints project, and the keypoints are sharper.

    Solved by `map_estimate`, each instant on its own: alone or in a batch, the answer is the same.

    Args:
        laws: A law whose last batch axis is the views, `(V,)` or `(B, V)`, or a sequence of V laws
            with batch shape `()` or `(B,)`, of different models if you like. Over root-relative
            joints `(J, 3)` or rotations `(K, 6)`, in camera axes.
        seen: Which views there are, `(V,)` or `(B, V)`; the laws of others, which have to be finite
            all the same, do not count.
        cameras: Known cameras.
        evidence: Keypoints to reproject onto; needs cameras with translations and focal lengths.
        prior: How often the prior counts.
        marginal: For `"once"`: law of poses in camera axes, over all inputs, batch shape `()`;
            `pose_prior` fits one.
        agreement: For rotations: standard deviation of a matrix's number between views, for
            instance 0.05.
        solver: As of `map_estimate`. The base variables of decoded laws pull at one pose from all
            views: `"lbfgs"` alone takes more than 200 steps there.
        max_steps: As of `map_estimate`.
        batch_size: Instants solved at once.
        dtype: As of `map_estimate`.
        progress: Whether to show a bar.

    Returns:
        The fused pose.

    Raises:
        InputError: If shapes do not fit, an instant has no view, or options contradict each other.

    Example:
        >>> import pyro.distributions as dist
        >>> views = dist.Normal(torch.randn(3, 17, 3), torch.tensor([0.1, 0.2, 0.4])[:, None, None])
        >>> fused = fuse_views(views.to_event(2), cameras=Cameras(torch.eye(3).expand(3, 3, 3)))
        >>> fused.pose.shape, fused.in_views.shape
        (torch.Size([17, 3]), torch.Size([3, 17, 3]))
    """
    if prior not in get_args(Prior):
        raise InputError(f"expected prior to be one of {get_args(Prior)}, got {prior!r}")
    if (prior == "once") != (marginal is not None):
        raise InputError("expected a marginal law exactly where prior is 'once'")
    groups, single = _groups(laws)
    batch = groups[0].law.batch_shape[0]
    views = sum(group.views for group in groups)
    points = torch.cat([_centre(group) for group in groups], 1).detach()
    seen = _seen(seen, batch, views, points)
    root = root_of(groups[0].law)
    if agreement is not None and (root >= 0 or cameras is not None or prior == "once"):
        raise InputError(
            "agreement is for laws over rotations without cameras, and the plain sum of laws"
        )
    if agreement is not None and not agreement > 0:
        raise InputError(f"expected agreement > 0, got {agreement}")
    if cameras is None:
        rotation = _orientations(points, seen)
    else:
        rotation = _expand("cameras.rotation", cameras.rotation, (batch, views, 3, 3), points)
    weight = seen.to(points.dtype)[..., None, None]
    start = (weight * turn_pose(points, rotation.mT)).sum(1) / weight.sum(1)
    data = Views(
        groups=groups,
        seen=seen,
        rotation=rotation,
        calibrated=cameras is not None,
        start=start,
        width=points.new_full((batch, 1, 1), 0.05),
        agreement=agreement,
        prior=marginal,
        evidence=_evidence(evidence, cameras, start, rotation, seen, root),
        root=root,
    )
    found = map_estimate(
        program, data, solver=solver, max_steps=max_steps, batch_size=batch_size, dtype=dtype,
        progress=progress,
    )  # fmt: skip
    values = found.values
    if agreement is not None:
        in_views = values["in_views"]
        rotation = _orientations(in_views, seen)
        mean = values["mean"]
        body = kabsch(torch.eye(3).to(mean).expand_as(mean), mean.mT)
        first = in_views[torch.arange(batch), seen.to(torch.uint8).argmax(-1), :1]
        pose = torch.cat([first, sixd_from_matrix(body)], 1)
    else:
        pose, rotation = values["pose"], values["rotation"]
        if cameras is None:
            # All views may turn together: that is taken out.
            first = rotation[torch.arange(batch), seen.to(torch.uint8).argmax(-1)]
            pose, rotation = turn_pose(pose, first), rotation @ first.mT[:, None]
        in_views = turn_pose(pose[:, None], rotation)
    parts = [pose, in_views, rotation, values.get("translation"), found.log_density]
    parts = [x[0] if single and x is not None else x for x in (*parts, found.converged)]
    return Fused(*parts)  # type: ignore[arg-type]


def _groups(laws: Any) -> tuple[tuple[Group, ...], bool]:
    """Laws with a batch axis of instants, and whether there was none."""
    many = isinstance(laws, Sequence)
    listed = list(laws) if many else [laws]
    if not listed:
        raise InputError("expected the law of at least one view")
    axes = 0 if many else 1
    shapes = {tuple(law.batch_shape) for law in listed}
    events = {tuple(law.event_shape) for law in listed}
    shape, event = next(iter(shapes)), next(iter(events))
    if len(shapes) > 1 or len(events) > 1:
        raise InputError(
            f"expected laws of one batch and event shape, got {sorted(shapes)} and {sorted(events)}"
        )
    if len(event) != 2 or event[1] not in (3, 6):
        raise InputError(
            f"expected laws over joints (J, 3) or rotations (K, 6), got event shape {event}"
        )
    if any(getattr(law, "log_prob_kind", "") == "none" for law in listed):
        raise InputError(
            "expected laws with a density; fuse laws of rotations, not of their joints"
        )
    if len(shape) not in (axes, axes + 1) or 0 in shape:
        wanted = "() or (B,) for each view" if many else "(V,) or (B, V)"
        raise InputError(f"expected batch shape {wanted}, got {shape}")
    single = len(shape) == axes
    if single:
        listed = [law.expand((1, *shape)) for law in listed]
    return tuple(Group(law, stacked=not many) for law in listed), single


def _centre(group: Group) -> Tensor:
    place = group.place()
    centre = group.outer(place.value(place.start()))
    if not bool(centre.isfinite().all()):
        raise InputError("expected finite laws, also of views that are not seen; got NaN")
    return centre


def _seen(seen: Tensor | None, batch: int, views: int, like: Tensor) -> Tensor:
    if seen is None:
        return torch.ones(batch, views, dtype=torch.bool, device=like.device)
    if seen.dtype != torch.bool or seen.shape not in ((views,), (batch, views)):
        raise InputError(
            f"expected seen as bool of shape ({views},) or ({batch}, {views}), got "
            f"{tuple(seen.shape)} of {seen.dtype}"
        )
    seen = seen.to(like.device).expand(batch, views)
    if not bool(seen.any(-1).all()):
        row = int((~seen.any(-1)).nonzero()[0])
        raise InputError(f"expected at least one view of each instant, {row} has none (axis 0)")
    return seen.contiguous()


def _expand(name: str, x: Tensor, shape: tuple[int, ...], like: Tensor) -> Tensor:
    x = torch.as_tensor(x, dtype=like.dtype, device=like.device)
    try:
        x = x.expand(shape)
    except RuntimeError:
        raise InputError(
            f"expected {name} of a shape that broadcasts to {shape}, got {tuple(x.shape)}"
        ) from None
    if not bool(x.isfinite().all()):
        raise InputError(f"expected finite {name}")
    return x.contiguous()


def _orientations(poses: Tensor, seen: Tensor) -> Tensor:
    """Rotations from the first view's axes to each view's `(B, V, 3, 3)`, by the poses there."""
    if poses.shape[-1] == 3:
        return align(poses, seen)[1]
    orientation = matrix_from_6d(poses[:, :, 0])
    first = orientation[torch.arange(len(poses)), seen.to(torch.uint8).argmax(-1)]
    return orientation @ first.mT[:, None]


def _evidence(
    given: ViewEvidence | None,
    cameras: Cameras | None,
    start: Tensor,
    rotation: Tensor,
    seen: Tensor,
    root: int,
) -> Evidence | None:
    if given is None:
        return None
    if cameras is None or cameras.translation is None or cameras.focal is None:
        raise InputError("keypoints need cameras with translations and focal lengths")
    if (root < 0) != (given.body is not None):
        raise InputError("expected evidence.body exactly where laws are over rotations")
    if not given.scale > 0:
        raise InputError(f"expected evidence.scale > 0, got {given.scale}")
    joints = start if root >= 0 else given.body(matrix_from_6d(start))
    shape = (*seen.shape, joints.shape[-2])
    points = torch.as_tensor(given.keypoints, dtype=start.dtype, device=start.device)
    if points.shape[-3:] != (*shape[1:], 2):
        raise InputError(
            f"expected evidence.keypoints of shape (..., {shape[1]}, {shape[2]}, 2), got "
            f"{tuple(points.shape)}"
        )
    points = points.expand(*shape, 2)
    confidence = given.confidence
    visible = visible_joints(points, None if confidence is None else confidence.expand(shape))
    weight = visible.to(start.dtype)
    if confidence is not None:
        weight = torch.where(visible, confidence.to(start).expand(shape), 0)
    weight = weight * seen[..., None]
    focal = torch.as_tensor(cameras.focal, dtype=start.dtype, device=start.device)
    if focal.ndim and focal.shape[-1:] != (2,):
        focal = focal[..., None]
    pair = (*seen.shape, 2)
    focal = _expand("cameras.focal", focal, pair, start)
    if not bool((focal > 0).all()):
        raise InputError("expected cameras.focal > 0")
    center = _expand("cameras.center", cameras.center, pair, start)  # type: ignore[arg-type]
    offset = _expand("cameras.translation", cameras.translation, (*seen.shape, 3), start)
    points = torch.where(visible[..., None], points, 0)
    rays = torch.where(visible[..., None], (points - center[:, :, None]) / focal[:, :, None], 0)
    return Evidence(
        keypoints=points,
        confidence=weight,
        focal=focal,
        center=center,
        offset=offset,
        start=place_root(joints, rotation, offset, rays, weight),
        scale=float(given.scale),
        kernel=given.kernel,
        body=given.body,
    )
