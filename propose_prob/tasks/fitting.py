"""Fitting: the body that explains 2D keypoints best, under a distribution over its pose."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from ..bodies import Body, SkeletonBody
from ..bodies.mesh_body import MeshBody
from ..distributions import KeypointLikelihood
from ..distributions.likelihoods import Kernel
from ..errors import InputError
from ..geometry.camera import project
from ..geometry.normalization import as_dtype, visible_joints
from ..geometry.rotations import matrix_from_6d
from ..geometry.skeletons import H36M_17
from ..inference import map_estimate
from ..inference.map import Solver
from ..io.keypoints import Keypoints
from ..models.prohmr import BodyEstimate, ProHMR
from .people import PeopleStream, PersonBatch

__all__ = ["BodySites", "FitStream", "FittedBody", "FittedPeople", "fit", "fit_body", "fit_people"]

#: Typical root mean square distance of a person's joints to their mean, as seen, meters.
_RADIUS = 0.4

#: Standard deviation of the logarithm of a person's image scale about what `_RADIUS` says.
_SCALE_SPREAD = 0.7

#: Standard deviation of a keypoint in units of the person's root mean square radius in the image.
_NOISE = 0.03

#: Fewest joints that a body is fitted to.
_FEWEST = 3


class BodySites(NamedTuple):
    """What the program of `fit_body` has drawn and computed for `B` people.

    Attributes:
        rotations: Local rotations `(B, K, 3, 3)`.
        shape: Shape coefficients `(B, S)`; None for a body that has none.
        translation: `(B, 3)`, meters, camera axes.
        joints: The keypoints' joints `(B, J, 3)`, meters, camera axes, translation included.
        projected: Where the camera sees them, `(B, J, 2)`, keypoint units.
        focal: Focal length `(B,)`, keypoint units; None for a weak-perspective camera.

    Example:
        >>> from propose_prob.tasks import generic_prior
        >>> model = fit_body(generic_prior(2), SkeletonBody(), focal=1000.0)
        >>> model(torch.randn(2, 17, 2), torch.ones(2, 17)).joints.shape
        torch.Size([2, 17, 3])
    """

    rotations: Tensor
    shape: Tensor | None
    translation: Tensor
    joints: Tensor
    projected: Tensor
    focal: Tensor | None


BodyModel = Callable[[Tensor, Tensor], BodySites]
"""A program of `keypoints` and `confidence`."""

BodyProgram = Callable[[BodySites], Any]
"""Further `pyro.sample` statements about the bodies of a fit; the batch is on axis 0."""


@dataclass(frozen=True, eq=False)
class FittedBody:
    """Bodies fitted to the keypoints of `B` people.

    Attributes:
        theta: Local rotations `(B, K, 3, 3)` in SMPL's convention; the first is the orientation in
            camera axes (x right, y down, z forward).
        shape: Shape coefficients of the body, `(B, S)`.
        translation: Added to the body, `(B, 3)`, meters, camera axes. Its depth is 0 where the
            focal length is unknown: a weak-perspective camera does not tell it.
        camera: Weak-perspective camera `(B, 3)`: image scale at the body's origin (keypoint units
            per meter) and where the origin is seen (keypoint units).
        focal: Focal length `(B,)`, keypoint units; None for a weak-perspective camera.
        joints: The keypoints' joints `(B, J, 3)`, meters, camera axes, translation included.
        projected: Where the camera sees them, `(B, J, 2)`, keypoint units.
        vertices: Surface `(B, V, 3)`, as `joints`, where the body has one and it was asked for.
        log_density: What was maximized, `(B,)`, nats.
        converged: Whether the optimization ended at a stationary point, `(B,)`.
        distribution: The distribution that the pose was fitted under.

    Example:
        >>> from propose_prob.tasks import generic_prior
        >>> fitted = fit(generic_prior(2), torch.randn(2, 17, 2), solver="lbfgs", max_steps=3)
        >>> fitted.theta.shape, fitted.camera.shape, fitted.focal
        (torch.Size([2, 24, 3, 3]), torch.Size([2, 3]), None)
    """

    theta: Tensor
    shape: Tensor
    translation: Tensor
    camera: Tensor
    focal: Tensor | None
    joints: Tensor
    projected: Tensor
    vertices: Tensor | None
    log_density: Tensor
    converged: Tensor
    distribution: Any

    def __len__(self) -> int:
        return len(self.theta)


def fit_body(
    distribution: Any,
    body: Body,
    *,
    joint_set: str = "h36m_17",
    focal: float | Tensor | None = None,
    center: tuple[float, float] | Tensor = (0.0, 0.0),
    focal_spread: float = 0.0,
    likelihood: Kernel = "student_t",
    scale: float | Tensor | None = None,
    extra: BodyProgram | None = None,
) -> BodyModel:
    r"""The Pyro model of a body that was seen as 2D keypoints.

    .. math::
        \theta \sim \text{distribution}, \quad \beta \sim N(0, I), \quad \text{view} \sim N, \quad
        \text{keypoints} \sim \text{kernel}(\text{project}(\text{body}(\theta, \beta)))

    Source: ProHMR (Kolotouros et al., ICCV 2021), eq. 11. Sites: `theta` `(K, 6)`; `shape` `(S,)`;
    `view` `(3,)`, logarithm of the image scale and place of the body's origin in the image, with a
    wide normal distribution about where and how large the keypoints are; `log_focal` where the
    focal length is uncertain; `keypoints`, observed. Deterministic: `rotations`, `translation`,
    `focal` (full perspective only), `joints`, `projected`.

    With ProHMR's distribution the keypoints count twice, in the distribution and in their
    likelihood: the maximum is a regularized fit, as published, and not the mode of a posterior.
    With a prior that did not see them (`generic_prior`) it is one.

    Args:
        distribution: Distribution of 6D rotations, batch shape `(B,)` or `()`, event shape `(K,
            6)`, the first one the orientation in camera axes. Nothing else is asked of it.
        body: What is posed.
        joint_set: Joint set of the keypoints; one of the body's regressors.
        focal: Focal length in the unit of the keypoints, a number or `(B,)`; None for a
            weak-perspective camera.
        center: Principal point, `(2,)` or `(B, 2)`; used with `focal`.
        focal_spread: Standard deviation of the logarithm of the focal length about `focal`; at 0 it
            is known.
        likelihood: Kernel of the keypoints' errors.
        scale: Their standard deviation at confidence 1, keypoint units, a number or `(B, J)`; by
            default 3 % of a person's root mean square radius in the image.
        extra: More evidence about the bodies: called with their `BodySites` inside the plate over
            people (dimension -1), it adds observed sites, such as a foot on a known floor.

    Returns:
        A model of `keypoints` `(B, J, 2)`, NaN where not seen, and `confidence` `(B, J)`, for
        `map_estimate`, NUTS or importance sampling; it returns its `BodySites`.

    Raises:
        InputError: If the distribution is not over 6D rotations, the body cannot give the joint
            set, or a number is out of range.

    Example:
        >>> from propose_prob.tasks import generic_prior
        >>> model = fit_body(generic_prior(2), SkeletonBody(), focal=1000.0)
        >>> seen = torch.randn(2, 17, 2)
        >>> result = map_estimate(model, seen, torch.ones(2, 17), solver="lbfgs", max_steps=3)
        >>> result.values["rotations"].shape, result.values["translation"].shape
        (torch.Size([2, 24, 3, 3]), torch.Size([2, 3]))
    """
    _check_model(distribution, body, joint_set, focal, focal_spread, scale)
    seen_body = body.only(joint_set) if isinstance(body, MeshBody) else body

    def model(keypoints: Tensor, confidence: Tensor) -> BodySites:
        middle, radius = _extent(keypoints, visible_joints(keypoints, confidence))
        noise = scale if scale is not None else (_NOISE * radius)[:, None].expand_as(confidence)
        with pyro.plate("problems", len(keypoints)):
            rotations = matrix_from_6d(pyro.sample("theta", distribution))
            shape = None
            if body.num_shape:
                standard = dist.Normal(keypoints.new_zeros(body.num_shape), 1.0)
                shape = pyro.sample("shape", standard.to_event(1))
            centre = torch.cat([(radius / _RADIUS).log()[:, None], middle], -1)
            spread = torch.stack([torch.full_like(radius, _SCALE_SPREAD), radius, radius], -1)
            view = pyro.sample("view", dist.Normal(centre, spread).to_event(1))
            size, place = view[:, :1].exp(), view[:, 1:]
            if focal is None:
                length = None
                translation = torch.cat([place / size, torch.zeros_like(size)], -1)
            else:
                length = torch.as_tensor(focal, dtype=size.dtype, device=size.device)
                length = length.expand(len(size))
                if focal_spread:
                    log_focal = dist.Normal(length.log(), focal_spread)
                    length = pyro.sample("log_focal", log_focal).exp()
                pyro.deterministic("focal", length, event_dim=0)
                depth = length[:, None] / size
                where = torch.as_tensor(center, dtype=size.dtype, device=size.device)
                translation = torch.cat([(place - where) / size, depth], -1)
            joints = seen_body.regress(seen_body(rotations, shape, translation), joint_set)
            if length is None:
                projected = size[..., None] * joints[..., :2]
            else:
                projected = project(joints, focal=length[:, None, None], center=where.unsqueeze(-2))
            pyro.deterministic("rotations", rotations, event_dim=3)
            pyro.deterministic("translation", translation, event_dim=1)
            pyro.deterministic("joints", joints, event_dim=2)
            pyro.deterministic("projected", projected, event_dim=2)
            error = KeypointLikelihood(projected, confidence, scale=noise, kind=likelihood)
            pyro.sample("keypoints", error, obs=keypoints)
            sites = BodySites(rotations, shape, translation, joints, projected, length)
            if extra is not None:
                extra(sites)
        return sites

    return model


def fit(
    distribution: Any,
    p2d: Tensor,
    confidence: Tensor | None = None,
    *,
    body: Body | None = None,
    start: BodyEstimate | None = None,
    joint_set: str = "h36m_17",
    focal: float | Tensor | None = None,
    center: tuple[float, float] | Tensor = (0.0, 0.0),
    focal_spread: float = 0.0,
    likelihood: Kernel = "student_t",
    scale: float | Tensor | None = None,
    extra: BodyProgram | None = None,
    solver: Solver = "auto",
    batch_size: int = 64,
    max_steps: int = 500,
    dtype: torch.dtype | None = None,
    surface: bool = False,
    progress: bool = False,
) -> FittedBody:
    """Fit bodies to 2D keypoints, each person for themselves.

    The pose begins at the distribution's mode, or, with `start`, at its estimate.

    Args:
        distribution: See `fit_body`.
        p2d: Keypoints `(B, J, 2)`, any pixel unit, y down; NaN means not seen. Floating-point
            numbers of another type than the distribution's, and integers, are converted.
        confidence: `(B, J)` in 0..1; 0 means not seen. Left out, all finite joints are seen.
        body: What is posed, `SkeletonBody()` by default.
        start: Where to begin, such as `ProHMR.estimate` of the same keypoints: the point estimate
            of its distribution, its shape where it has as many coefficients as the body, and its
            camera. Shape coefficients of another body mean something else:
            `start._replace(shape=...)`.
        joint_set: Joint set of the keypoints.
        focal: Focal length; without it the camera is a weak-perspective one.
        center: Principal point.
        focal_spread: How uncertain the focal length is; see `fit_body`.
        likelihood: Kernel of the keypoints' errors.
        scale: Their standard deviation.
        extra: More evidence about the bodies; see `fit_body`.
        solver: See `map_estimate`.
        batch_size: Most people who are fitted at once.
        max_steps: Most steps of each solver.
        dtype: To fit in another precision.
        surface: Whether to give the vertices of a body that has a surface.
        progress: Whether to show a bar.

    Returns:
        The bodies.

    Raises:
        InputError: If a shape does not fit, fewer than three joints of a person are seen or all in
            one place, or the model is wrong as in `fit_body`.

    Example:
        >>> from propose_prob.models import ProHMR, ProHMRConfig
        >>> model = ProHMR(ProHMRConfig(flow_width=32, width=32)).eval()
        >>> seen = torch.randn(5, 17, 2)
        >>> estimate = model.estimate(seen)
        >>> fitted = fit(estimate.distribution, seen, start=estimate, max_steps=3)
        >>> fitted.theta.shape, fitted.joints.shape
        (torch.Size([5, 24, 3, 3]), torch.Size([5, 17, 3]))
    """
    body = SkeletonBody().to(p2d.device) if body is None else body
    model = fit_body(
        distribution,
        body,
        joint_set=joint_set,
        focal=focal,
        center=center,
        focal_spread=focal_spread,
        likelihood=likelihood,
        scale=scale,
        extra=extra,
    )
    p2d, confidence = as_dtype(p2d, confidence, _precision(distribution, start))
    seen = _check_keypoints(distribution, p2d, confidence)
    p2d = torch.where(seen[..., None], p2d, torch.nan)
    if confidence is None:
        confidence = torch.ones_like(p2d[..., 0])
    confidence = torch.where(seen, confidence.to(p2d), 0)
    result = map_estimate(
        model,
        p2d,
        confidence,
        solver=solver,
        init={} if start is None else _start(distribution, body, start),
        batch_size=batch_size,
        max_steps=max_steps,
        dtype=dtype,
        progress=progress,
    )
    values = result.values
    size = values["view"][:, :1].exp()
    shape = values.get("shape", size.new_zeros(len(size), 0))
    theta, translation = values["rotations"], values["translation"]
    return FittedBody(
        theta=theta,
        shape=shape,
        translation=translation,
        camera=torch.cat([size, values["view"][:, 1:]], -1),
        focal=values.get("focal"),
        joints=values["joints"],
        projected=values["projected"],
        vertices=_vertices(body, theta, shape, translation) if surface else None,
        log_density=result.log_density,
        converged=result.converged,
        distribution=distribution,
    )


def _start(distribution: Any, body: Body, start: BodyEstimate) -> dict[str, Tensor]:
    init = {"view": torch.cat([start.camera[:, :1].log(), start.camera[:, 1:]], -1)}
    if start.distribution is not distribution:
        init["theta"] = start.distribution.point_estimate
    if body.num_shape and start.shape.shape[-1] == body.num_shape:
        init["shape"] = start.shape
    return {name: value.detach() for name, value in init.items()}


def _extent(keypoints: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Middle `(B, 2)` of the joints seen and their root mean square distance to it `(B,)`."""
    points = torch.where(seen[..., None], keypoints, 0)
    share = seen / seen.sum(-1, keepdim=True).clamp_min(1)
    middle = (share[..., None] * points).sum(-2)
    square = (points - middle[:, None]).square().sum(-1)
    radius = (share * square).sum(-1).clamp_min(torch.finfo(points.dtype).tiny).sqrt()
    return middle, radius


@torch.no_grad()
def _vertices(body: Body, theta: Tensor, shape: Tensor, translation: Tensor) -> Tensor | None:
    parts = []
    given = shape if body.num_shape else None
    for row in range(len(theta)):
        vertices = body(
            theta[row], None if given is None else given[row], translation[row]
        ).vertices
        if vertices is None:
            return None
        parts.append(vertices)
    return torch.stack(parts)


def _check_model(
    distribution: Any,
    body: Body,
    joint_set: str,
    focal: float | Tensor | None,
    focal_spread: float,
    scale: float | Tensor | None,
) -> None:
    event = tuple(distribution.event_shape)
    if len(event) != 2 or event[1] != 6:
        raise InputError(
            f"expected a distribution of 6D rotations, event shape (K, 6), got {event}"
        )
    if joint_set not in body.regressors:
        known = ", ".join(body.regressors) or "none"
        raise InputError(f"this body cannot give the joint set {joint_set!r}; it has {known}")
    if focal is not None:
        length = torch.as_tensor(focal)
        if not bool(((length > 0) & length.isfinite()).all()):
            raise InputError(f"expected a focal length > 0, got {focal}")
    elif focal_spread:
        raise InputError("expected a focal length for focal_spread to be about, got none")
    if not 0 <= focal_spread < math.inf:
        raise InputError(f"expected focal_spread >= 0, got {focal_spread}")
    if scale is not None and not bool((torch.as_tensor(scale) > 0).all()):
        raise InputError(f"expected scale > 0, got {scale}")


@torch.no_grad()
def _precision(distribution: Any, start: BodyEstimate | None) -> torch.dtype:
    """The type of a distribution's numbers."""
    if start is not None:
        return start.camera.dtype
    point = getattr(distribution, "point_estimate", None)
    return point.dtype if isinstance(point, Tensor) else torch.get_default_dtype()


def _check_keypoints(distribution: Any, p2d: Tensor, confidence: Tensor | None) -> Tensor:
    """Which joints are seen, `(B, J)`."""
    if p2d.ndim != 3:
        raise InputError(f"expected keypoints of shape (B, J, 2), got {tuple(p2d.shape)}")
    if not len(p2d):
        raise InputError("expected keypoints of at least one person (axis 0), got none")
    if distribution.batch_shape not in ((), (len(p2d),)):
        raise InputError(
            f"expected a distribution with batch shape ({len(p2d)},), one for each person, "
            f"got {tuple(distribution.batch_shape)}"
        )
    seen = visible_joints(p2d, confidence)
    few = seen.sum(-1) < _FEWEST
    if bool(few.any()):
        person = int(few.nonzero()[0])
        raise InputError(
            f"at least {_FEWEST} visible joints are needed to fit a body; person {person} has "
            f"{int(seen[person].sum())}"
        )
    middle, radius = _extent(p2d, seen)
    flat = radius <= 1e-5 * middle.abs().amax(-1)
    if bool(flat.any()):
        raise InputError(f"all joints seen of person {int(flat.nonzero()[0])} lie in one place")
    return seen


@dataclass(frozen=True, eq=False)
class FittedPeople:
    """People of one batch with their bodies.

    Attributes:
        bodies: Their bodies.
        p2d: Keypoints in the model's joint set `(B, J, 2)`, unit as given; NaN where not seen.
        confidence: Their confidence `(B, J)`; 0 where not seen.
        frames: Name of each person's frame.
        people: Label of each person.

    Example:
        >>> import propose_prob
        >>> p2d = propose_prob.datasets.load_cmu17("val").p2d()[:2, 0]
        >>> frame = Keypoints(p2d, torch.ones(2, 17), H36M_17, 7, ("a", "b"))
        >>> batch = next(fit_people(propose_prob.load("prohmr-cmu17"), [frame]))
        >>> batch.frames, batch.people, batch.bodies.joints.shape
        ((7, 7), ('a', 'b'), torch.Size([2, 17, 3]))
    """

    bodies: FittedBody
    p2d: Tensor
    confidence: Tensor
    frames: tuple[int | str, ...]
    people: tuple[int | str, ...]

    def __len__(self) -> int:
        return len(self.frames)


class FitStream(PeopleStream[FittedPeople]):
    """Batches of fitted people, computed one at a time; see `fit_people`.

    Attributes:
        skipped: People who were passed over so far.

    Example:
        >>> import propose_prob
        >>> p2d = propose_prob.datasets.load_cmu17("val").p2d()[:3, 0]
        >>> confidence = torch.ones(3, 17)
        >>> confidence[2, 3:] = 0
        >>> frame = Keypoints(p2d, confidence, H36M_17, 0, ("a", "b", "c"))
        >>> stream = fit_people(propose_prob.load("prohmr-cmu17"), [frame])
        >>> sum(len(batch) for batch in stream), stream.skipped[0].person, stream.skipped[0].reason
        (2, 'c', '3 of 17 joints seen')
    """


def fit_people(
    model: ProHMR,
    keypoints: Iterable[Keypoints],
    *,
    body: Body | None = None,
    focal: float | None = None,
    center: tuple[float, float] = (0.0, 0.0),
    likelihood: Kernel = "student_t",
    scale: float | None = None,
    solver: Solver = "auto",
    batch_size: int = 64,
    min_joints: int = 6,
    min_confidence: float = 0.0,
    surface: bool = False,
    device: torch.device | str = "cpu",
) -> FitStream:
    """Fit a body to each person of a stream of frames.

    Joint sets are converted to the model's. Each fit begins at the mode of the model's
    distribution, with its shape and camera. People of whom too little was seen are passed over and
    listed in `skipped`. Memory holds one batch, whatever the length of the stream.

    Args:
        model: Gives the distribution of the pose; it reads 17 keypoints of Human3.6M's joint set.
        keypoints: Frames, for instance from `read_keypoints`.
        body: What is posed, `SkeletonBody()` by default. Of another one the shape begins at the
            average: the model's estimate is of a `SkeletonBody`.
        focal: Focal length in the unit of the keypoints, the same for all frames; without it the
            camera is a weak-perspective one.
        center: Principal point in the unit of the keypoints; used with `focal`.
        likelihood: Kernel of the keypoints' errors.
        scale: Their standard deviation, keypoint units; see `fit_body`.
        solver: See `map_estimate`.
        batch_size: Most people in a batch.
        min_joints: Fewest visible joints, in the model's joint set, with which a person is fitted.
        min_confidence: Joints with a lower confidence count as not seen.
        surface: Whether to give the vertices of a body that has a surface.
        device: Where the model is.

    Returns:
        An iterator over batches, in the order of the stream.

    Raises:
        InputError: If an option is out of range; while iterating, if the model's answer is not
            finite.

    Example:
        >>> import propose_prob
        >>> p2d = propose_prob.datasets.load_cmu17("val").p2d()[:2, 0]
        >>> frame = Keypoints(p2d, torch.ones(2, 17), H36M_17, 0, (0, 1))
        >>> batch = next(fit_people(propose_prob.load("prohmr-cmu17"), [frame]))
        >>> batch.bodies.theta.shape, bool((batch.bodies.projected - p2d).abs().max() < 0.05)
        (torch.Size([2, 24, 3, 3]), True)
    """
    posed = (SkeletonBody() if body is None else body).to(device)

    def solve(group: PersonBatch) -> FittedPeople:
        p2d, confidence = group.p2d, group.confidence
        with torch.no_grad():
            start = model.estimate(p2d, confidence, focal=focal, center=center)
        finite = start.distribution.point_estimate.flatten(1).isfinite().all(-1)
        finite &= start.camera.isfinite().all(-1) & (start.camera[:, 0] > 0)
        group.check_finite(finite)
        if not isinstance(posed, SkeletonBody):
            start = start._replace(shape=p2d.new_zeros(len(p2d), posed.num_shape))
        bodies = fit(
            start.distribution,
            p2d,
            confidence,
            body=posed,
            start=start,
            focal=focal,
            center=center,
            likelihood=likelihood,
            scale=scale,
            solver=solver,
            surface=surface,
        )
        return FittedPeople(bodies, **vars(group))

    return FitStream(
        keypoints,
        solve,
        skeleton=H36M_17,
        batch_size=batch_size,
        min_joints=min_joints,
        least_joints=3,
        min_confidence=min_confidence,
        device=device,
    )
