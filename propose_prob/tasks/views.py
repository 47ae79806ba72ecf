"""The program behind `fuse_views`: several views of a person, and what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ..distributions import DecodedPoseDistribution, RecalibratedDistribution
from ..distributions.likelihoods import Kernel, KeypointLikelihood
from ..distributions.support import InsertRoot, RootRelative
from ..errors import InputError
from ..inference.coordinates import coordinates
from ..pose.camera import project
from ..pose.rotations import matrix_from_6d, matrix_from_axis_angle

__all__ = ["Evidence", "Group", "Views", "align", "observation_noise", "program", "turn_pose"]

#: Least spread of a fitted prior in any direction, metres.
_RIGID = 0.015


@dataclass(frozen=True, eq=False)
class Group:
    """Laws of some of the views that are evaluated at once.

    Attributes:
        law: Batch shape `(B, V)`, or `(B,)` for one view.
        stacked: Whether views are its last batch axis.
    """

    law: Any
    stacked: bool

    @property
    def views(self) -> int:
        """How many."""
        return self.law.batch_shape[-1] if self.stacked else 1

    @property
    def decoded(self) -> bool:
        """Whether poses of the law are decoded, so that it has no base variables of a pose."""
        law = self.law
        while isinstance(law, RecalibratedDistribution):
            law = law.base_law
        return isinstance(law, DecodedPoseDistribution)

    def place(self) -> Any:
        """The law's coordinates."""
        return coordinates(self.law, "views", "latent")

    def inner(self, x: Tensor) -> Tensor:
        """Values with a view axis `(B, V, ...)` as the law wants them."""
        return x if self.stacked else x.squeeze(1)

    def outer(self, x: Tensor) -> Tensor:
        """The law's values with a view axis `(B, V, ...)`."""
        return x if self.stacked else x.unsqueeze(1)


@dataclass(frozen=True, eq=False)
class Evidence:
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
class Views:
    """B problems of V views; all tensors have B rows.

    Attributes:
        groups: Laws, in the order of the views.
        seen: `(B, V)`.
        rotation: From the common axes to each view's, as given or as a first guess `(B, V, 3, 3)`.
        calibrated: Whether those are given.
        start: First guess of the common pose, `(B, *event)`, the common axes.
        width: Scale on which it moves, `(B, 1, 1)`.
        agreement: Standard deviation of a rotation matrix's number between views; None where all
            views have one pose.
        prior: Law of poses in camera axes that is divided out V - 1 times; None for none.
        evidence: Keypoints, or None.
        root: Index of the root joint, -1 where poses are rotations.
    """

    groups: tuple[Group, ...]
    seen: Tensor
    rotation: Tensor
    calibrated: bool
    start: Tensor
    width: Tensor
    agreement: float | None
    prior: Any
    evidence: Evidence | None
    root: int


def program(data: Views) -> None:
    """The Pyro model; see `fuse_views` for what is multiplied and why."""
    if data.agreement is not None:
        _agreeing(data)
        return
    with pyro.plate("problems", len(data.seen)):
        pose, rotation = _common(data)
        in_views = turn_pose(pose[:, None], rotation)
        _laws(data, in_views)
        if data.prior is not None:
            count = data.seen.sum(-1).clamp(min=1)
            log_prior = torch.where(data.seen, data.prior.log_prob(in_views), 0).sum(-1)
            pyro.factor("prior", -(count - 1) / count * log_prior)
        if data.evidence is not None:
            _keypoints(data, data.evidence, pose, rotation)


def _common(data: Views) -> tuple[Tensor, Tensor]:
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


def _laws(data: Views, in_views: Tensor) -> None:
    """Each view's law of its pose `(B, V, *event)`."""
    begin = 0
    for number, group in enumerate(data.groups):
        part = slice(begin, begin + group.views)
        begin += group.views
        seen, pose = data.seen[:, part], in_views[:, part]
        place = group.place()
        if group.decoded:
            # A decoded law's base variables are its own; the pose is what they decode to, and
            # observation noise.
            zeros = torch.zeros_like(group.outer(place.start()))
            e = pyro.sample(f"latent_{number}", dist.Normal(zeros, 1.0).to_event(2))
            decoded = group.outer(place.value(group.inner(e)))
            noise = group.outer(observation_noise(group.law))
            gap = torch.where(noise > 0, decoded - pose, 0) / torch.where(noise > 0, noise, 1)
            _normal(f"view_{number}", gap, seen)
        elif coordinates(group.law, "views", "event").standard:
            _normal(f"view_{number}", group.outer(place.inverse(group.inner(pose))), seen)
        else:
            log_prob = group.outer(group.law.log_prob(group.inner(pose)))
            pyro.factor(f"view_{number}", torch.where(seen, log_prob, 0).sum(-1))


def _normal(name: str, gap: Tensor, seen: Tensor) -> None:
    """Observes that `gap` `(B, V, ...)` is standard normal where seen."""
    gap = gap * seen.reshape(*seen.shape, *[1] * (gap.ndim - 2))
    law = dist.Normal(torch.zeros_like(gap), 1.0).to_event(gap.ndim - 1)
    pyro.sample(name, law, obs=gap)


def _keypoints(data: Views, evidence: Evidence, pose: Tensor, rotation: Tensor) -> None:
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
    law = KeypointLikelihood(
        seen.flatten(1, 2), confidence.flatten(1), scale=evidence.scale, kind=evidence.kernel
    )
    pyro.sample("keypoints", law, obs=evidence.keypoints.flatten(1, 2))


def _agreeing(data: Views) -> None:
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


def observation_noise(law: Any) -> Tensor:
    """Standard deviation that a law adds to its noise-free poses, `batch_shape + event_shape`.

    Zero for laws other than decoded ones, and at the root.
    """
    shape = law.batch_shape + law.event_shape
    if isinstance(law, RecalibratedDistribution):
        return observation_noise(law.base_law) * law.stretch
    if isinstance(law, DecodedPoseDistribution):
        free = torch.arange(law.event_shape[0], device=law.scale.device) != law.root
        scale = law.scale.new_zeros(law.event_shape[0])
        scale[free] = law.scale
        return scale[:, None].expand(shape)
    return torch.zeros(shape)


def root_of(law: Any) -> int:
    """Index of the joint that a law over joints is relative to, -1 for rotations."""
    if law.event_shape[-1] != 3:
        return -1
    support = law.support
    return support.root if isinstance(support, RootRelative) else 0


def align(poses: Tensor, seen: Tensor, *, rounds: int = 5) -> tuple[Tensor, Tensor]:
    """Rotations that bring a mean pose to each of several poses of it (generalised Procrustes).

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
        rotation = kabsch(mean[:, None], poses)
        # The first view keeps its axes.
        anchor = rotation[torch.arange(len(poses)), first]
        rotation = rotation @ anchor.mT[:, None]
        mean = (weight * (poses @ rotation)).sum(1) / weight.sum(1)
    eye = torch.eye(3, dtype=poses.dtype, device=poses.device)
    return mean, torch.where(seen[..., None, None], rotation, eye)


def kabsch(source: Tensor, target: Tensor) -> Tensor:
    """Rotation `(..., 3, 3)` about the origin that brings points `(..., J, 3)` to others."""
    u, _, vh = torch.linalg.svd(target.mT @ source)
    sign = torch.linalg.det(u @ vh).sign()
    ones = torch.ones_like(sign)
    return (u * torch.stack([ones, ones, sign], -1)[..., None, :]) @ vh


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
    """A law of root-relative poses fitted to examples, as `fuse_views`'s marginal.

    A multivariate Student-t law with as many degrees of freedom as coordinates and the examples'
    mean and covariance, at least 15 mm wide in every direction. It falls off more slowly than the
    laws that are divided by it, so that a quotient has a maximum.

    Args:
        poses: Examples in camera axes `(N, J, 3)`, metres, more than 3 (J - 1) of them, for
            instance a training split's.
        root: Index of the root joint.

    Raises:
        InputError: If the shape does not fit or there are too few.

    Example:
        >>> from propose_prob.tasks import pose_prior
        >>> law = pose_prior(torch.randn(100, 17, 3))
        >>> law.event_shape
        torch.Size([17, 3])
    """
    from torch.distributions import TransformedDistribution

    from ..distributions import VectorToJoints

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
    law = dist.MultivariateStudentT(
        torch.tensor(dof).to(poses), flat.mean(0).to(poses), factor.to(poses)
    )
    return TransformedDistribution(law, [VectorToJoints(root)])
