"""Flow distributions over vectors and poses: a base distribution and a transform."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    Normal,
    Transform,
    constraints,
    kl_divergence,
)
from torch.distributions.kl import register_kl

from ..errors import InputError
from ..transforms import Chain
from .support import InsertRoot, RootRelative


class FlowDistribution(dist.TransformedDistribution):
    """Density of `T(z)`, `z ~ base`, with everything in one pass.

    A torch and a Pyro distribution: usable in `pyro.sample`, plates and reparametrization. The base
    may depend on parameters and on the context; it is expanded over the context's batch, so that
    samples of different contexts are independent.

    Source: ProPose, eq. 9 (with PAGD as base); ProHMR, eq. 1-4.

    Args:
        base: Distribution of the latent, event shape `(d,)`.
        transforms: Bijections of vectors, first to last from latent to event.
        batch_shape: Batch shape of the context, where the base does not have it already.
        validate_args: As in torch.

    Raises:
        InputError: If there are no transforms or the base is not over vectors.

    Example:
        >>> from propose_prob.transforms import DiagonalAffine
        >>> base = diagonal_normal(torch.zeros(2), torch.ones(2))
        >>> dist = FlowDistribution(base, DiagonalAffine(torch.ones(2), torch.full((2,), 0.7)))
        >>> dist.mode.tolist(), round(dist.log_prob(dist.mode).item(), 3)
        ([1.0, 1.0], -3.238)
    """

    log_prob_kind = "exact"

    def __init__(
        self,
        base: Distribution,
        transforms: Transform | Sequence[Transform],
        *,
        batch_shape: torch.Size | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if len(base.event_shape) != 1:
            raise InputError(
                f"expected a base over vectors, event_shape (d,), got {tuple(base.event_shape)}"
            )
        if batch_shape is not None:
            base = base.expand(torch.broadcast_shapes(batch_shape, base.batch_shape))
        parts = [transforms] if isinstance(transforms, Transform) else list(transforms)
        # Chains map vectors to vectors: what torch's own constructor finds out is known.
        self.base_dist = base
        self.transforms = [Chain(parts)]
        Distribution.__init__(self, base.batch_shape, base.event_shape, validate_args=validate_args)

    @property
    def transform(self) -> Chain:
        """The map from latent to event."""
        return self.transforms[0]

    @property
    def constant_ladj(self) -> bool:
        """Whether the log-determinant depends on nothing but parameters and context."""
        return self.transform.constant_ladj

    @property
    def mode(self) -> Tensor:
        """Exact mode, of shape `batch_shape + event_shape` (ProHMR, eq. 4).

        Raises:
            NotImplementedError: If the log-determinant is not constant; then the decoded center of
                the base is `centre`, and the mode needs `inference.map_estimate`.
        """
        if not self.constant_ladj:
            raise NotImplementedError(
                "this flow's log-determinant depends on the value, so its mode has no closed form; "
                "use .centre (image of the base's mode) or a numerical MAP estimate"
            )
        return self.center

    @property
    def center(self) -> Tensor:
        """Image of the base's mode, `batch_shape + event_shape`; see `mode` for when it is one."""
        return self.transform(self.base_dist.mode)

    def entropy(self) -> Tensor:
        """Differential entropy in nats, of shape `batch_shape`.

        Raises:
            NotImplementedError: If the log-determinant is not constant; the mean of `-log_prob`
                over samples estimates it then.
        """
        if not self.constant_ladj:
            raise NotImplementedError(
                "this flow's log-determinant depends on the value, so its entropy has no closed "
                "form; average -log_prob over rsample_and_log_prob"
            )
        return self.base_dist.entropy() + self.transform.call_and_ladj(self.base_dist.mode)[1]

    def log_prob(self, value: Tensor) -> Tensor:
        """Exact log-density `sample_shape + batch_shape` of values `(..., d)`, nats."""
        if self._validate_args:
            self._validate_sample(value)
        z, ladj = self.transform.inverse_and_ladj(value)
        return self.base_dist.log_prob(z) + ladj

    def rsample_and_log_prob(
        self, sample_shape: torch.Size | tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Samples with their log-density, in one pass instead of two.

        Returns:
            Values `sample_shape + batch_shape + (d,)` and log-densities `sample_shape +
            batch_shape`.
        """
        z = self.base_dist.rsample(torch.Size(sample_shape))
        value, ladj = self.transform.call_and_ladj(z)
        return value, self.base_dist.log_prob(z) - ladj

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> FlowDistribution:
        """The same distribution with a larger batch shape."""
        new = self._get_checked_instance(FlowDistribution, _instance)
        new.transforms = self.transforms
        new.base_dist = self.base_dist.expand(torch.Size(batch_shape))
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new


@register_kl(FlowDistribution, FlowDistribution)
def _kl_flow_flow(p: FlowDistribution, q: FlowDistribution) -> Tensor:
    # A bijection that both share leaves the divergence of the bases unchanged.
    ours, theirs = p.transform.parts, q.transform.parts
    if len(ours) != len(theirs) or any(a != b for a, b in zip(ours, theirs, strict=True)):
        raise NotImplementedError(
            "the KL divergence of two flows has a closed form only where they share the same "
            "transform objects; estimate it with p.rsample_and_log_prob and q.log_prob"
        )
    return kl_divergence(p.base_dist, q.base_dist)


def diagonal_normal(loc: Tensor, scale: Tensor) -> Independent[Normal]:
    """Normal distribution of vectors with independent elements; `loc` and `scale` are `(..., d)`.

    Example:
        >>> diagonal_normal(torch.zeros(5, 3), torch.ones(3)).batch_shape
        torch.Size([5])
    """
    return dist.Normal(loc, scale).to_event(1)


def standard_parameters(base: Distribution) -> tuple[Tensor, Tensor]:
    """Location and scale `(..., d)` of a diagonal normal distribution.

    Raises:
        TypeError: If the distribution is not one.
    """
    inner = base
    while isinstance(inner, Independent):
        inner = inner.base_dist
    if not isinstance(inner, Normal) or len(base.event_shape) != 1:
        raise TypeError(f"expected a diagonal normal base, got {base}")
    return inner.loc, inner.scale


class VectorToJoints(Transform):
    """Vectors `(..., 3 (J - 1))` to root-relative poses `(..., J, 3)`.

    Fills joints in their order, turns them, and inserts the zero root. A turn keeps volumes and the
    root carries no density, so the log-determinant is 0.

    Args:
        root: Index of the root joint.
        rotation: From the vector's axes to the pose's, `(..., 3, 3)`; None where they are equal.

    Example:
        >>> pose = VectorToJoints()(torch.arange(6.0))
        >>> pose.tolist()
        [[0.0, 0.0, 0.0], [0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    """

    domain = constraints.real_vector
    bijective = True

    def __init__(self, root: int = 0, rotation: Tensor | None = None) -> None:
        super().__init__(cache_size=0)
        self.root = root
        self.rotation = rotation
        self.codomain = RootRelative(root)

    def with_cache(self, cache_size: int = 1) -> VectorToJoints:
        """Returns itself: nothing is cached."""
        return self

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero, of shape `(...)`."""
        return x.new_zeros(x.shape[:-1])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of the poses."""
        return torch.Size((*shape[:-1], shape[-1] // 3 + 1, 3))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of the vectors."""
        return torch.Size((*shape[:-2], 3 * (shape[-2] - 1)))

    def _call(self, x: Tensor) -> Tensor:
        joints = x.unflatten(-1, (-1, 3))
        if self.rotation is not None:
            joints = joints @ self.rotation.mT
        return InsertRoot(self.root)(joints)

    def _inverse(self, y: Tensor) -> Tensor:
        joints = InsertRoot(self.root).inv(y)
        if self.rotation is not None:
            joints = joints @ self.rotation
        return joints.flatten(-2)


class VectorToRotations(Transform):
    """Vectors `(..., 6 K)` to 6D rotations `(..., K, 6)` of which the first is turned.

    The first joint's rotation is the body's orientation: `rotation` takes it, both of its columns,
    to other axes. The log-determinant is 0.

    Args:
        rotation: From the vector's axes to the body's, `(..., 3, 3)`; None where they are equal.

    Example:
        >>> quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        >>> VectorToRotations(quarter)(torch.tensor([1.0, 0, 0, 0, 1.0, 0])).tolist()
        [[0.0, 1.0, 0.0, -1.0, 0.0, 0.0]]
    """

    domain = constraints.real_vector
    codomain = constraints.independent(constraints.real, 2)
    bijective = True

    def __init__(self, rotation: Tensor | None = None) -> None:
        super().__init__(cache_size=0)
        self.rotation = rotation

    def with_cache(self, cache_size: int = 1) -> VectorToRotations:
        """Returns itself: nothing is cached."""
        return self

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Zero, of shape `(...)`."""
        return x.new_zeros(x.shape[:-1])

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of the rotations."""
        return torch.Size((*shape[:-1], shape[-1] // 6, 6))

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Shape of the vectors."""
        return torch.Size((*shape[:-2], 6 * shape[-2]))

    def _call(self, x: Tensor) -> Tensor:
        y = x.unflatten(-1, (-1, 6))
        return y if self.rotation is None else _turn_first(y, self.rotation)

    def _inverse(self, y: Tensor) -> Tensor:
        if self.rotation is not None:
            y = _turn_first(y, self.rotation.mT)
        return y.flatten(-2)


def _turn_first(sixd: Tensor, rotation: Tensor) -> Tensor:
    columns = sixd[..., :1, :].unflatten(-1, (2, 3))
    first = (columns @ rotation.mT[..., None, :, :]).flatten(-2)
    rest = sixd[..., 1:, :]
    batch = torch.broadcast_shapes(first.shape[:-2], rest.shape[:-2])
    return torch.cat(
        [first.expand(*batch, *first.shape[-2:]), rest.expand(*batch, *rest.shape[-2:])], -2
    )


class PoseFlowDistribution(dist.TransformedDistribution):
    """Exact distribution of a pose: a flow over a vector whose numbers are the pose's coordinates.

    Density, samples and, where the flow's log-determinant is constant, mode and entropy are closed
    forms. Being a `TransformedDistribution`, it can be moved into the space of its base by Pyro's
    `TransformReparam`.

    Source: ProHMR, eq. 1-4 (rotations) and sec. 3.6 (joints).

    Args:
        flow: Distribution of the vector.
        to_pose: Bijection of volume 1 from the vector to the pose (`VectorToJoints`,
            `VectorToRotations`).
        validate_args: As in torch.

    Example:
        >>> from propose_prob.distributions.flow import diagonal_normal
        >>> from propose_prob.transforms import Identity
        >>> base = diagonal_normal(torch.zeros(48), torch.full((48,), 0.1))
        >>> flow = FlowDistribution(base, Identity())
        >>> dist = PoseFlowDistribution(flow, VectorToJoints())
        >>> dist.sample((5,)).shape, dist.log_prob(dist.mode).shape, dist.entropy().shape
        (torch.Size([5, 17, 3]), torch.Size([]), torch.Size([]))
    """

    log_prob_kind = "exact"

    def __init__(
        self, flow: FlowDistribution, to_pose: Transform, *, validate_args: bool | None = None
    ) -> None:
        self.flow = flow
        self.to_pose = to_pose
        super().__init__(flow.base_dist, [flow.transform, to_pose], validate_args=validate_args)

    @property
    def constant_ladj(self) -> bool:
        """Whether the log-determinant depends on nothing but parameters and context."""
        return self.flow.constant_ladj

    @property
    def mode(self) -> Tensor:
        """Exact mode, `batch_shape + event_shape` (ProHMR, eq. 4).

        Raises:
            NotImplementedError: If the flow's log-determinant is not constant; see `centre`.
        """
        return self.to_pose(self.flow.mode)

    @property
    def center(self) -> Tensor:
        """Image of the base's mode, `batch_shape + event_shape`; see `mode` for when it is one."""
        return self.to_pose(self.flow.center)

    @property
    def point_estimate(self) -> Tensor:
        """The distribution's deterministic estimate: its mode where that is known, else its center.

        Of shape `batch_shape + event_shape`.
        """
        return self.center

    def log_prob(self, value: Tensor) -> Tensor:
        """Exact log-density `sample_shape + batch_shape` of poses, nats.

        Of joints: density per meter in each of the 3 (J - 1) coordinates, the root row is ignored.
        Of rotations: density in R^(6K), over all numbers and not only over rotation matrices.
        """
        if self._validate_args:
            self._validate_sample(value)
        return self.flow.log_prob(self.to_pose.inv(value))

    def entropy(self) -> Tensor:
        """Differential entropy in nats, `batch_shape`.

        Raises:
            NotImplementedError: If the flow's log-determinant is not constant.
        """
        return self.flow.entropy()

    def hypotheses(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Samples, without gradients: hypotheses are not separate from samples here.

        Of shape `sample_shape + batch_shape + event_shape`.
        """
        return self.sample(torch.Size(sample_shape))

    def rsample_and_log_prob(
        self, sample_shape: torch.Size | tuple[int, ...] = ()
    ) -> tuple[Tensor, Tensor]:
        """Samples with their log-density in one pass; shapes as of `rsample` and `log_prob`."""
        value, log_prob = self.flow.rsample_and_log_prob(sample_shape)
        return self.to_pose(value), log_prob

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> PoseFlowDistribution:
        """The same distribution with a larger batch shape."""
        new = self._get_checked_instance(PoseFlowDistribution, _instance)
        new.flow = self.flow.expand(torch.Size(batch_shape))
        new.to_pose = self.to_pose
        new.transforms = self.transforms
        new.base_dist = new.flow.base_dist
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new
