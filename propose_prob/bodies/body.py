"""Body interface and forward kinematics: joint rotations and shape to positions."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..geometry.skeletons import SMPL_24, Skeleton

__all__ = ["Body", "BodyOutput", "Kinematics"]

_SHARED = 22
"""SMPL, SMPL-H and SMPL-X have their first 22 joints in common; the hands follow."""


class BodyOutput(NamedTuple):
    """A posed body.

    Attributes:
        joints: Positions of the joints, `(..., K, 3)`, meters.
        vertices: Positions of the surface's vertices, `(..., V, 3)`, meters; `None` if the body
            has no surface or was asked for joints only.
        rotations: Global rotation of each joint, `(..., K, 3, 3)`.

    Example:
        >>> from propose_prob.bodies import load_open_body
        >>> posed = load_open_body()(torch.eye(3).expand(24, 3, 3))
        >>> posed.vertices.shape, posed.rotations.shape[-2:]
        (torch.Size([13492, 3]), torch.Size([3, 3]))
    """

    joints: Tensor
    vertices: Tensor | None
    rotations: Tensor


class Body(nn.Module, ABC):
    """A jointed body: a differentiable map from joint rotations to positions.

    Rotations follow SMPL (Loper et al., "SMPL: A Skinned Multi-Person Linear Model", SIGGRAPH Asia
    2015, eq. 3-4): rotations are local, `theta[0]` is the global orientation about the root joint,
    the rotation of a joint turns all that hangs on it, and identity everywhere is a T pose with y
    up, facing +z, +x towards the person's left.

    Args:
        skeleton: The body's joints, K of them.
        num_shape: How many shape coefficients the body knows.
        faces: Triangles of the surface, `(F, 3)` indices of vertices; `None` without a surface.
        regressors: Names of the joint sets that `regress` gives.
        rest: Local rotations of the joints after the 22nd when `theta` leaves them out, `(K - 22,
            3, 3)`; identity by default.

    Attributes:
        skeleton: The body's joints.
        num_shape: Number of shape coefficients.
        regressors: Names that `regress` takes.
        faces: Triangles `(F, 3)`, or `None`.

    Example:
        >>> from propose_prob.bodies import SkeletonBody
        >>> body: Body = SkeletonBody()
        >>> posed = body(torch.eye(3).expand(2, 24, 3, 3), translation=torch.zeros(2, 3))
        >>> posed.joints.shape, body.regress(posed, "h36m_17").shape, body.faces is None
        (torch.Size([2, 24, 3]), torch.Size([2, 17, 3]), True)
    """

    faces: Tensor | None

    def __init__(
        self,
        skeleton: Skeleton,
        num_shape: int,
        *,
        faces: Tensor | None = None,
        regressors: Iterable[str] = (),
        rest: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.skeleton = skeleton
        self.num_shape = num_shape
        self.regressors = tuple(regressors)
        # A body's numbers may be under a licence: none of them belongs in a model's checkpoint.
        self.register_buffer("faces", faces, persistent=False)
        extra = max(skeleton.num_joints - _SHARED, 0)
        rest = torch.eye(3).repeat(extra, 1, 1) if rest is None else rest
        self.register_buffer("_rest", rest, persistent=False)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the K joints."""
        return self.skeleton.joint_names

    @property
    def parents(self) -> tuple[int, ...]:
        """Index of each joint's parent, -1 for the root."""
        return self.skeleton.parents

    @property
    def num_joints(self) -> int:
        """The number of joints K."""
        return self.skeleton.num_joints

    @abstractmethod
    def forward(
        self, theta: Tensor, shape: Tensor | None = None, translation: Tensor | None = None
    ) -> BodyOutput:
        """Pose the body.

        Args:
            theta: Local rotation matrices, `(..., K, 3, 3)`. A body with SMPL's first 22 joints but
                another K also takes 24 joints in the order of `SMPL_24`, uses the first 22 and
                leaves the others at rest.
            shape: Standardized shape coefficients, prior N(0, I), `(..., num_shape)`; the average
                body by default.
            translation: Added to all positions, `(..., 3)`, meters.

        Returns:
            Joints, vertices and global rotations. Batch shapes broadcast.

        Raises:
            InputError: If a shape does not fit.
        """

    @abstractmethod
    def regress(self, output: BodyOutput, name: str = "h36m_17") -> Tensor:
        """Give the joints of another joint set, such as Human3.6M's 17.

        Args:
            output: What `forward` gave.
            name: One of `regressors`.

        Returns:
            Positions `(..., J, 3)`, meters.

        Raises:
            InputError: If the body has no regressor of that name, or it needs vertices and
                `output` has none.
        """

    def _inputs(
        self, theta: Tensor, shape: Tensor | None, translation: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Check what `forward` got; give all K joints and everything in `theta`'s dtype."""
        count = self.num_joints
        if theta.ndim < 3 or theta.shape[-2:] != (3, 3):
            raise InputError(
                f"expected theta of shape (..., {count}, 3, 3), got {tuple(theta.shape)}"
            )
        if not theta.is_floating_point():
            raise InputError(f"expected floating-point theta, got {theta.dtype}")
        if theta.shape[-3] != count:
            theta = self._complete(theta)
        for name, value, size in (
            ("shape", shape, self.num_shape),
            ("translation", translation, 3),
        ):
            if value is None:
                continue
            if value.ndim < 1 or value.shape[-1] != size:
                raise InputError(
                    f"expected {name} of shape (..., {size}), got {tuple(value.shape)}"
                )
            try:
                torch.broadcast_shapes(value.shape[:-1], theta.shape[:-3])
            except RuntimeError:
                raise InputError(
                    f"expected {name} to broadcast with theta's batch {tuple(theta.shape[:-3])}, "
                    f"got {tuple(value.shape[:-1])}"
                ) from None
        return (
            theta,
            None if shape is None else shape.to(theta.dtype),
            None if translation is None else translation.to(theta.dtype),
        )

    def _complete(self, theta: Tensor) -> Tensor:
        """Fill the joints that 24 joints of SMPL leave out."""
        shared = self.joint_names[:_SHARED] == SMPL_24.joint_names[:_SHARED]
        if not shared or theta.shape[-3] != SMPL_24.num_joints:
            wanted = f"{self.num_joints} or {SMPL_24.num_joints}" if shared else self.num_joints
            raise InputError(
                f"expected theta with {wanted} joints (axis -3), got {tuple(theta.shape)}"
            )
        rest = self.get_buffer("_rest").to(theta.dtype)
        return torch.cat(
            [theta[..., :_SHARED, :, :], rest.expand(*theta.shape[:-3], *rest.shape)], dim=-3
        )

    def _check_regressor(self, name: str) -> None:
        if name not in self.regressors:
            known = ", ".join(self.regressors) or "none"
            raise InputError(f"this body has no regressor {name!r}; it has {known}")


class Kinematics(nn.Module):
    """Forward kinematics of a tree, level by level.

    Args:
        parents: Index of each joint's parent, -1 for the one root; any order.

    Example:
        >>> chain = Kinematics((-1, 0, 1))
        >>> offsets = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> joints, rotations = chain(torch.eye(3).expand(3, 3, 3), offsets)
        >>> joints[2]
        tensor([2., 0., 0.])
    """

    def __init__(self, parents: tuple[int, ...]) -> None:
        super().__init__()
        count = len(parents)
        depth = [0] * count
        above = torch.zeros(count, count)
        for joint in range(count):
            ancestor = joint
            while ancestor != -1:
                above[joint, ancestor] = 1
                depth[joint] += 1
                ancestor = parents[ancestor]
        order = sorted(range(count), key=lambda j: depth[j])
        rank = {joint: place for place, joint in enumerate(order)}
        levels = [[j for j in order if depth[j] == d] for d in range(2, max(depth) + 1)]
        self._root = order[0]
        self._depth = len(levels)
        self.register_buffer("_above", above, persistent=False)
        is_root = torch.arange(count) == self._root
        self.register_buffer("_is_root", is_root, persistent=False)
        self.register_buffer(
            "_parents", torch.tensor([max(p, 0) for p in parents]), persistent=False
        )
        self.register_buffer("_place", torch.tensor([rank[j] for j in range(count)]), False)
        start = 0
        for number, level in enumerate(levels):
            # Parents of a level all lie in the level before.
            within = torch.tensor([rank[parents[j]] - start for j in level])
            self.register_buffer(f"_joints_{number}", torch.tensor(level), persistent=False)
            self.register_buffer(f"_within_{number}", within, persistent=False)
            start = rank[level[0]]

    def forward(
        self, theta: Tensor, offsets: Tensor, *, own: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Give joint positions and global rotations.

        Args:
            theta: Local rotations `(..., K, 3, 3)`.
            offsets: Rest position of each joint relative to its parent's, `(..., K, 3)`; for the
                root its rest position.
            own: Whether a rotation acts on the joint's own offset, as in ASF files, rather than on
                its children's, as in SMPL.

        Returns:
            Positions `(..., K, 3)` and rotations `(..., K, 3, 3)`, of the same batch shape.
        """
        # With the batch last, products of 3x3 matrices are a few long additions: four times faster
        # than batched matrix products on a CPU.
        local = theta.movedim((-3, -2, -1), (0, 1, 2)).contiguous()
        level = local[self._root : self._root + 1]
        done = [level]
        for number in range(self._depth):
            above = level.index_select(0, self.get_buffer(f"_within_{number}"))
            turn = local.index_select(0, self.get_buffer(f"_joints_{number}"))
            level = sum(
                (above[:, :, i, None] * turn[:, None, i] for i in range(1, 3)),
                start=above[:, :, 0, None] * turn[:, None, 0],
            )
            done.append(level)
        rotations = torch.cat(done).index_select(0, self.get_buffer("_place"))

        missing = max(theta.ndim - 1 - offsets.ndim, 0)
        places = offsets.reshape(*(1,) * missing, *offsets.shape).movedim((-2, -1), (0, 1))
        missing = max(offsets.ndim + 1 - theta.ndim, 0)
        wide = rotations.reshape(*rotations.shape[:3], *(1,) * missing, *rotations.shape[3:])
        bone = wide if own else wide.index_select(0, self.get_buffer("_parents"))
        turned = sum(
            (bone[:, :, i] * places[:, None, i] for i in range(1, 3)),
            start=bone[:, :, 0] * places[:, None, 0],
        )
        # The root has no bone: its offset is where it rests.
        roots = self.get_buffer("_is_root").reshape(-1, *(1,) * (turned.ndim - 1))
        turned = torch.where(roots, places, turned)
        summed = self.get_buffer("_above").to(theta.dtype) @ turned.flatten(start_dim=1)
        joints = summed.reshape(turned.shape).movedim((0, 1), (-2, -1)).contiguous()
        rotations = wide.movedim((0, 1, 2), (-3, -2, -1))
        return joints, rotations.expand(*joints.shape[:-1], 3, 3)
