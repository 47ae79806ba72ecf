"""Fusion of several views of a person, and the program behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ..distributions import DecodedPoseDistribution, RecalibratedDistribution
from ..distributions.likelihoods import Kernel, KeypointLikelihood
from ..distributions.support import InsertRoot, RootRelative
from ..errors import InputError
from ..geometry.camera import project
from ..geometry.normalization import visible_joints
from ..geometry.rotations import (
    matrix_from_6d,
    matrix_from_axis_angle,
    nearest_rotation,
    sixd_from_matrix,
)
from ..inference import map_estimate
from ..inference.coordinates import coordinates
from ..inference.map import Solver

__all__ = [
    "Cameras",
    "Fused",
    "FusionProblem",
    "Prior",
    "View",
    "ViewEvidence",
    "ViewGroup",
    "align",
    "fuse_views",
    "fusion_model",
    "observation_noise",
    "pose_prior",
    "turn_pose",
]

#: Least spread of a fitted prior in any direction, meters.
_RIGID = 0.015


@dataclass(frozen=True, eq=False)
class ViewGroup:
    """Distributions of some of the views that are evaluated at once.

    Attributes:
        distribution: Batch shape `(B, V)`, or `(B,)` for one view.
        stacked: Whether views are its last batch axis.
    """

    distribution: Any
    stacked: bool

    @property
    def views(self) -> int:
        """How many."""
        return self.distribution.batch_shape[-1] if self.stacked else 1

    @property
    def decoded(self) -> bool:
        """Whether poses are decoded, so that there are no base variables of a pose."""
        distribution = self.distribution
        while isinstance(distribution, RecalibratedDistribution):
            distribution = distribution.base_distribution
        return isinstance(distribution, DecodedPoseDistribution)

    def place(self) -> Any:
        """The distribution's coordinates."""
        return coordinates(self.distribution, "views", "latent")

    def inner(self, x: Tensor) -> Tensor:
        """Values with a view axis `(B, V, ...)` as the distribution wants them."""
        return x if self.stacked else x.squeeze(1)

    def outer(self, x: Tensor) -> Tensor:
        """The distribution's values with a view axis `(B, V, ...)`."""
        return x if self.stacked else x.unsqueeze(1)


@dataclass(frozen=True, eq=False)
class View:
    """Keypoints in calibrated cameras; all with B rows.

    Attributes:
        keypoints: `(B, V, J, 2)`.
        confidence: `(B, V, J)`; 0 where not seen.
        focal: `(B, V, 2)`.
        center: `(B, V, 2)`.
        offset: The cameras' translations `(B, V, 3)`.
        start: Where the root is in the world, as a first guess `(B, 3)`.
        scale: Standard deviation of a keypoint.
        kernel: How fast evidence against far points grows.
        body: Maps rotations `(B, K, 3, 3)` to root-relative joints; None where poses are joints.
    """

    keypoints: Tensor
    confidence: Tensor
    focal: Tensor
    center: Tensor
    offset: Tensor
    start: Tensor
    scale: float
    kernel: Kernel
    body: Any


@dataclass(frozen=True, eq=False)
class FusionProblem:
    """B problems of V views; all tensors have B rows.

    Attributes:
        groups: Distributions, in the order of the views.
        seen: `(B, V)`.
        rotation: From the common axes to each view's, as given or as a first guess `(B, V, 3, 3)`.
        calibrated: Whether those are given.
        start: First guess of the common pose, `(B, *event)`, the common axes.
        width: Scale on which it moves, `(B, 1, 1)`.
        agreement: Standard deviation of a rotation matrix's number between views; None where all
            views have one pose.
        prior: Distribution of poses in camera axes that is divided out V - 1 times; None for none.
        evidence: Keypoints, or None.
        root: Index of the root joint, -1 where poses are rotations.
    """

    groups: tuple[ViewGroup, ...]
    seen: Tensor
    rotation: Tensor
    calibrated: bool
    start: Tensor
    width: Tensor
    agreement: float | None
    prior: Any
    evidence: View | None
    root: int


def fusion_model(data: FusionProblem) -> None:
    """The Pyro model; see `fuse_views` for what is multiplied and why."""
    if data.agreement is not None:
        _agreeing(data)
        return
    with pyro.plate("problems", len(data.seen)):
        pose, rotation = _common(data)
        in_views = turn_pose(pose[:, None], rotation)
        _distributions(data, in_views)
        if data.prior is not None:
            count = data.seen.sum(-1).clamp(min=1)
            log_prior = torch.where(data.seen, data.prior.log_prob(in_views), 0).sum(-1)
            pyro.factor("prior", -(count - 1) / count * log_prior)
        if data.evidence is not None:
            _keypoints(data, data.evidence, pose, rotation)


def _common(data: FusionProblem) -> tuple[Tensor, Tensor]:
    """The pose `(B, *event)` in common axes, and rotations to the views `(B, V, 3, 3)`."""
    # Flat: sites of a density that is masked only say how fast numbers move.
    with poutine.mask(mask=False):
        free = data.start if data.root < 0 else InsertRoot(data.root).inv(data.start)
        pose = pyro.sample("free", dist.Normal(free, data.width.expand_as(free)).to_event(2))
        if data.root >= 0:
            pose = InsertRoot(data.root)(pose)
        rotation = data.rotation
        if not data.calibrated:
            zeros = torch.zeros_like(rotation[..., 0])
            turn = pyro.sample("turn", dist.Normal(zeros, 0.3).to_event(2))
            rotation = matrix_from_axis_angle(turn) @ rotation
    pyro.deterministic("pose", pose)
    pyro.deterministic("rotation", rotation)
    return pose, rotation


def _distributions(data: FusionProblem, in_views: Tensor) -> None:
    """Each view's distribution of its pose `(B, V, *event)`."""
    begin = 0
    for number, group in enumerate(data.groups):
        part = slice(begin, begin + group.views)
        begin += group.views
        seen, pose = data.seen[:, part], in_views[:, part]
        place = group.place()
        if group.decoded:
            # A decoded distribution's base variables are its own; the pose is what they decode to,
            # and observation noise.
            zeros = torch.zeros_like(group.outer(place.start()))
            e = pyro.sample(f"latent_{number}", dist.Normal(zeros, 1.0).to_event(2))
            decoded = group.outer(place.value(group.inner(e)))
            noise = group.outer(observation_noise(group.distribution))
            gap = torch.where(noise > 0, decoded - pose, 0) / torch.where(noise > 0, noise, 1)
            _normal(f"view_{number}", gap, seen)
        elif coordinates(group.distribution, "views", "event").standard:
            _normal(f"view_{number}", group.outer(place.inverse(group.inner(pose))), seen)
        else:
            log_prob = group.outer(group.distribution.log_prob(group.inner(pose)))
            pyro.factor(f"view_{number}", torch.where(seen, log_prob, 0).sum(-1))


def _normal(name: str, gap: Tensor, seen: Tensor) -> None:
    """Observes that `gap` `(B, V, ...)` is standard normal where seen."""
    gap = gap * seen.reshape(*seen.shape, *[1] * (gap.ndim - 2))
    distribution = dist.Normal(torch.zeros_like(gap), 1.0).to_event(gap.ndim - 1)
    pyro.sample(name, distribution, obs=gap)


def _keypoints(data: FusionProblem, evidence: View, pose: Tensor, rotation: Tensor) -> None:
    with poutine.mask(mask=False):
        root = pyro.sample("translation", dist.Normal(evidence.start, 0.3).to_event(1))
    joints = pose
    if data.root < 0:
        joints = evidence.body(matrix_from_6d(pose))
    points = (joints + root[:, None])[:, None] @ rotation.mT + evidence.offset[:, :, None]
    seen = project(
        points, focal=evidence.focal[:, :, None], center=evidence.center[:, :, None], near=0.1
    )
    confidence = evidence.confidence * data.seen[..., None]
    distribution = KeypointLikelihood(
        seen.flatten(1, 2), confidence.flatten(1), scale=evidence.scale, kind=evidence.kernel
    )
    pyro.sample("keypoints", distribution, obs=evidence.keypoints.flatten(1, 2))


def _agreeing(data: FusionProblem) -> None:
    """ProHMR, eq. 12: each view its own body pose, near their mean."""
    agreement: float = data.agreement  # type: ignore[assignment]
    with pyro.plate("problems", len(data.seen)):
        poses = []
        for number, group in enumerate(data.groups):
            place = group.place()
            zeros = torch.zeros_like(group.outer(place.start()))
            e = pyro.sample(f"latent_{number}", dist.Normal(zeros, 1.0).to_event(2))
            poses.append(group.outer(place.value(group.inner(e))))
        in_views = torch.cat(poses, 1)
        matrices = matrix_from_6d(in_views)
        body = matrices[:, :, 1:]
        weight = data.seen.to(body.dtype)[..., None, None, None]
        mean = (weight * body).sum(1) / weight.sum(1)
        _normal("agreement", (body - mean[:, None]) / agreement, data.seen)
        pyro.deterministic("in_views", in_views)
        pyro.deterministic("mean", mean)


def turn_pose(pose: Tensor, rotation: Tensor) -> Tensor:
    """A pose `(..., J, 3)`, or 6D rotations `(..., K, 6)`, turned by `rotation` `(..., 3, 3)`.

    Of rotations only the first turns: the body's orientation.
    """
    if pose.shape[-1] == 3:
        return pose @ rotation.mT
    first = (pose[..., :1, :].unflatten(-1, (2, 3)) @ rotation.mT[..., None, :, :]).flatten(-2)
    rest = pose[..., 1:, :].expand(*first.shape[:-2], -1, -1)
    return torch.cat([first, rest], -2)


def observation_noise(distribution: Any) -> Tensor:
    """Standard deviation of the observation noise, `batch_shape + event_shape`.

    Zero for distributions other than decoded ones, and at the root.
    """
    shape = distribution.batch_shape + distribution.event_shape
    if isinstance(distribution, RecalibratedDistribution):
        return observation_noise(distribution.base_distribution) * distribution.stretch
    if isinstance(distribution, DecodedPoseDistribution):
        free = (
            torch.arange(distribution.event_shape[0], device=distribution.scale.device)
            != distribution.root
        )
        scale = distribution.scale.new_zeros(distribution.event_shape[0])
        scale[free] = distribution.scale
        return scale[:, None].expand(shape)
    return torch.zeros(shape)


def root_of(distribution: Any) -> int:
    """Index of the joint that a distribution over joints is relative to, -1 for rotations."""
    if distribution.event_shape[-1] != 3:
        return -1
    support = distribution.support
    return support.root if isinstance(support, RootRelative) else 0


def align(poses: Tensor, seen: Tensor, *, rounds: int = 5) -> tuple[Tensor, Tensor]:
    """Rotations that bring a mean pose to each of several poses of it (generalized Procrustes).

    Source: Gower, "Generalized Procrustes analysis", Psychometrika 40 (1975); proper rotations
    about the root only.

    Args:
        poses: Root-relative joints, or the vectors of an orientation, `(B, V, J, 3)`.
        seen: Which count, `(B, V)`; at least one of each row.
        rounds: Repetitions.

    Returns:
        The mean `(B, J, 3)` in the axes of the first view seen, and rotations from them to each
        view's `(B, V, 3, 3)`; the identity for views not seen.
    """
    first = seen.to(torch.uint8).argmax(-1)
    mean = poses[torch.arange(len(poses)), first]
    weight = seen.to(poses.dtype)[..., None, None]
    rotation = torch.eye(3, dtype=poses.dtype, device=poses.device).expand(*seen.shape, 3, 3)
    for _ in range(rounds):
        rotation, _ = nearest_rotation(poses.mT @ mean[:, None])
        # The first view keeps its axes.
        anchor = rotation[torch.arange(len(poses)), first]
        rotation = rotation @ anchor.mT[:, None]
        mean = (weight * (poses @ rotation)).sum(1) / weight.sum(1)
    eye = torch.eye(3, dtype=poses.dtype, device=poses.device)
    return mean, torch.where(seen[..., None, None], rotation, eye)


def place_root(
    joints: Tensor, rotation: Tensor, evidence_offset: Tensor, rays: Tensor, weight: Tensor
) -> Tensor:
    """Where a root-relative pose stands in the world, by linear least squares over all views.

    Args:
        joints: `(B, J, 3)`, world axes.
        rotation: World to cameras `(B, V, 3, 3)`.
        evidence_offset: The cameras' translations `(B, V, 3)`.
        rays: Keypoints for focal length 1 `(B, V, J, 2)`, zero where not seen.
        weight: `(B, V, J)`.

    Returns:
        The root `(B, 3)`.

    Raises:
        InputError: If fewer than two keypoints of a problem were seen.
    """
    if bool(((weight > 0).sum((-2, -1)) < 2).any()):
        raise InputError("expected at least 2 keypoints of each problem, in all views together")
    at = joints[:, None] @ rotation.mT + evidence_offset[:, :, None]
    # (x - u z) of the placed joint is 0: rows of R less the ray times its last row.
    rows = rotation[:, :, None, :2] - rays[..., None] * rotation[:, :, None, 2:]
    gap = rays * at[..., 2:] - at[..., :2]
    rows, gap = rows * weight[..., None, None], gap * weight[..., None]
    rows, gap = rows.flatten(1, 3), gap.flatten(1)
    normal = rows.mT @ rows + 1e-6 * torch.eye(3, dtype=rows.dtype, device=rows.device)
    return torch.linalg.solve(normal, (rows.mT @ gap[..., None])[..., 0])


def pose_prior(poses: Tensor, *, root: int = 0) -> Any:
    """A distribution of root-relative poses fitted to examples, as `fuse_views`'s marginal.

    A multivariate Student-t distribution with as many degrees of freedom as coordinates and the
    examples' mean and covariance, at least 15 mm wide in every direction. It falls off more slowly
    than the distributions that are divided by it, so that a quotient has a maximum.

    Args:
        poses: Examples in camera axes `(N, J, 3)`, meters, more than 3 (J - 1) of them, for
            instance a training split's.
        root: Index of the root joint.

    Raises:
        InputError: If the shape does not fit or there are too few.

    Example:
        >>> from propose_prob.tasks.fusion import pose_prior
        >>> distribution = pose_prior(torch.randn(100, 17, 3))
        >>> distribution.event_shape
        torch.Size([17, 3])
    """
    from torch.distributions import TransformedDistribution

    from ..distributions.flow import VectorToJoints

    if poses.ndim != 3 or poses.shape[-1] != 3:
        raise InputError(f"expected poses of shape (N, J, 3), got {tuple(poses.shape)}")
    relative = poses - poses[:, root : root + 1]
    flat = InsertRoot(root).inv(relative).flatten(-2).double()
    size = flat.shape[-1]
    if len(flat) <= size:
        raise InputError(f"expected more than {size} poses to fit a prior to, got {len(flat)}")
    # Bones make some directions rigid; models do not know them that well.
    covariance = flat.T.cov() + _RIGID**2 * torch.eye(size, dtype=flat.dtype, device=flat.device)
    dof = float(size)
    factor = torch.linalg.cholesky((dof - 2) / dof * covariance)
    distribution = dist.MultivariateStudentT(
        torch.tensor(dof).to(poses), flat.mean(0).to(poses), factor.to(poses)
    )
    return TransformedDistribution(distribution, [VectorToJoints(root)])


Prior = Literal["sum", "once"]


@dataclass(frozen=True, eq=False)
class Cameras:
    """Known cameras; leading axes broadcast to `(B, V)`.

    Attributes:
        rotation: World to camera axes, `(..., V, 3, 3)`.
        translation: The world's origin seen from the camera, `(..., V, 3)`, meters; needed for
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
        body: For distributions over rotations: maps matrices `(B, K, 3, 3)` to the J joints `(B, J,
            3)` relative to their root, meters.

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
    """The pose that several views agree on; leading axis B only where the distributions had it.

    Attributes:
        pose: Fused joints `(B, J, 3)`, meters, root-relative, or 6D rotations `(B, K, 6)` of which
            the first is the orientation. In world axes where cameras are known, else in those of
            the first view seen.
        in_views: The pose in each view's axes, `(B, V, *event)`; of eq. 12 each view's own.
        rotation: From the axes of `pose` to each view's, `(B, V, 3, 3)`.
        translation: Where the root stands in the world, `(B, 3)`, where keypoints were given.
        log_density: Log-density that was maximized, `(B,)`, up to a constant.
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
    distributions: Any,
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
    r"""Fuse the distributions of V views of one person, for any number B of instants.

    **What is multiplied.** Each view's distribution is a distribution of the same pose `x`, in the
    view's own axes:

    .. math:: \log p(x) = \sum_v \log p_v(R_v x | c_v)

    with `R_v` the camera's rotation where it is known, and free (any rotation about any axis) where
    it is not. Distributions with an exact density enter with it; a decoded distribution with its
    base variables `e_v` and its observation noise, :math:`\log N(e_v; 0, I) + \log N(R_v x;
    f_v(e_v), \sigma^2)`.

    **The prior.** Each distribution is a posterior, :math:`p_v(x | c_v) \propto p(c_v | x)\, p(x)`,
    and views are independent given the pose; so the posterior given all of them is
    :math:`\prod_v p_v(x | c_v) / p(x)^{V - 1}`. `prior="once"` does that, with `marginal` as
    `p(x)`, in each view's axes with the power (V - 1) / V so that no view is special. `prior="sum"`
    is the paper's plain sum, which counts the prior V times: it is pulled towards usual poses, but
    never asks for more than the distributions know. With few or timid distributions a quotient may
    have no maximum; `converged` tells.

    **Rotations.** Without cameras and with `agreement`, distributions over rotations `(K, 6)`
    follow ProHMR's eq. 12: each view has its own pose, and the body's rotation matrices (all but
    the orientation) are near their mean, :math:`\lambda \sum_v ||R^b_v - \bar R^b||^2` with
    :math:`\lambda = 1 / (2\, \text{agreement}^2)`; `pose` is the mean, made rotations. Without
    `agreement` all views share one body pose exactly, the limit of it.

    **Keypoints.** With `evidence`, calibrated cameras see the fused pose at a place that is found
    as well. The distributions know of the keypoints already, so this counts them twice, as ProHMR's
    fitting (eq. 11) does: a distribution is a guess of where joints project, and the keypoints are
    sharper.

    Solved by `map_estimate`, each instant on its own: alone or in a batch, the answer is the same.

    Args:
        distributions: A distribution whose last batch axis is the views, `(V,)` or `(B, V)`, or a
            sequence of V distributions with batch shape `()` or `(B,)`, of different models if you
            like. Over root-relative joints `(J, 3)` or rotations `(K, 6)`, in camera axes.
        seen: Which views there are, `(V,)` or `(B, V)`; the distributions of others, which have to
            be finite all the same, do not count.
        cameras: Known cameras.
        evidence: Keypoints to reproject onto; needs cameras with translations and focal lengths.
        prior: How often the prior counts.
        marginal: For `"once"`: distribution of poses in camera axes, over all inputs, batch shape
            `()`; `pose_prior` fits one.
        agreement: For rotations: standard deviation of a matrix's number between views, for
            instance 0.05.
        solver: As of `map_estimate`. The base variables of decoded distributions pull at one pose
            from all views: `"lbfgs"` alone takes more than 200 steps there.
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
        raise InputError("expected a marginal distribution exactly where prior is 'once'")
    groups, single = _groups(distributions)
    batch = groups[0].distribution.batch_shape[0]
    views = sum(group.views for group in groups)
    points = torch.cat([_center(group) for group in groups], 1).detach()
    seen = _seen(seen, batch, views, points)
    root = root_of(groups[0].distribution)
    if agreement is not None and (root >= 0 or cameras is not None or prior == "once"):
        raise InputError(
            "agreement is for distributions over rotations without cameras, and the plain sum of "
            "distributions"
        )
    if agreement is not None and not agreement > 0:
        raise InputError(f"expected agreement > 0, got {agreement}")
    if cameras is None:
        rotation = _orientations(points, seen)
    else:
        rotation = _expand("cameras.rotation", cameras.rotation, (batch, views, 3, 3), points)
    weight = seen.to(points.dtype)[..., None, None]
    start = (weight * turn_pose(points, rotation.mT)).sum(1) / weight.sum(1)
    data = FusionProblem(
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
        fusion_model, data, solver=solver, max_steps=max_steps, batch_size=batch_size, dtype=dtype,
        progress=progress,
    )  # fmt: skip
    values = found.values
    if agreement is not None:
        in_views = values["in_views"]
        rotation = _orientations(in_views, seen)
        mean = values["mean"]
        body, _ = nearest_rotation(mean)
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


def _groups(distributions: Any) -> tuple[tuple[ViewGroup, ...], bool]:
    """Distributions with a batch axis of instants, and whether there was none."""
    many = isinstance(distributions, Sequence)
    listed = list(distributions) if many else [distributions]
    if not listed:
        raise InputError("expected the distribution of at least one view")
    axes = 0 if many else 1
    shapes = {tuple(distribution.batch_shape) for distribution in listed}
    events = {tuple(distribution.event_shape) for distribution in listed}
    shape, event = next(iter(shapes)), next(iter(events))
    if len(shapes) > 1 or len(events) > 1:
        raise InputError(
            f"expected distributions of one batch and event shape, got {sorted(shapes)} and "
            f"{sorted(events)}"
        )
    if len(event) != 2 or event[1] not in (3, 6):
        raise InputError(
            f"expected distributions over joints (J, 3) or rotations (K, 6), got event shape "
            f"{event}"
        )
    if any(getattr(distribution, "log_prob_kind", "") == "none" for distribution in listed):
        raise InputError(
            "expected distributions with a density; fuse distributions of rotations, not of their "
            "joints"
        )
    if len(shape) not in (axes, axes + 1) or 0 in shape:
        wanted = "() or (B,) for each view" if many else "(V,) or (B, V)"
        raise InputError(f"expected batch shape {wanted}, got {shape}")
    single = len(shape) == axes
    if single:
        listed = [distribution.expand((1, *shape)) for distribution in listed]
    return tuple(ViewGroup(distribution, stacked=not many) for distribution in listed), single


def _center(group: ViewGroup) -> Tensor:
    place = group.place()
    centre = group.outer(place.value(place.start()))
    if not bool(centre.isfinite().all()):
        raise InputError("expected finite distributions, also of views that are not seen; got NaN")
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
) -> View | None:
    if given is None:
        return None
    if cameras is None or cameras.translation is None or cameras.focal is None:
        raise InputError("keypoints need cameras with translations and focal lengths")
    if (root < 0) != (given.body is not None):
        raise InputError("expected evidence.body exactly where distributions are over rotations")
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
    return View(
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
