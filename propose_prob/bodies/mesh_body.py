"""Bodies with a surface: linear blend skinning in plain torch."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.skeletons import Skeleton
from .body import Body, BodyOutput, Kinematics

__all__ = ["MeshBody"]


class MeshBody(Body):
    """A surface that follows a skeleton by linear blend skinning.

    Shape moves vertices and joints linearly, pose may correct vertices linearly in the entries of
    the rotation matrices, and each vertex moves with the weighted mean of its joints' rigid motions
    (Loper et al., "SMPL: A Skinned Multi-Person Linear Model", SIGGRAPH Asia 2015, eq. 2-4, 8-10).

    Where a vertex or joint lies depends on the body's numbers alone, which are kept in buffers that
    do not enter a `state_dict`: they may be under a licence.

    Args:
        template: Vertices of the average body in the T pose, `(V, 3)`, meters.
        skeleton: The joints, K of them.
        weights: How much each vertex follows each joint, `(V, K)`; rows sum to 1.
        joint_regressor: Joints as weighted sums of vertices, `(K, V)`. Either this or `joints`.
        joints: Joints of the average body, `(K, 3)`, meters.
        joint_directions: What each shape coefficient adds to the joints, `(K, 3, S)`; goes with
            `joints` and is zero by default.
        shape_directions: What each shape coefficient adds to the vertices, `(V, 3, S)`.
        pose_directions: What each entry of the rotations of all joints but the root, less the
            identity, row by row, adds to the vertices, `(V, 3, 9 (K - 1))`.
        faces: Triangles, `(F, 3)` indices of vertices.
        regressors: Other joint sets by name: weights of the vertices, `(J, V)`, or of the joints
            followed by the vertices, `(J, K + V)`.
        rest: Local rotations of the joints after the 22nd when `theta` leaves them out,
            `(K - 22, 3, 3)`; identity by default.

    Raises:
        InputError: If shapes do not fit each other, a number is not finite, the skinning weights of
            a vertex do not sum to 1, a face names a vertex that is not there, or not exactly one of
            `joint_regressor` and `joints` is given.

    Example:
        >>> from propose_prob.geometry.skeletons import SMPL_24
        >>> body = MeshBody(
        ...     torch.randn(30, 3),
        ...     skeleton=SMPL_24,
        ...     weights=torch.eye(30)[:, :24].clamp(min=1 / 24).softmax(dim=-1),
        ...     joints=torch.randn(24, 3),
        ... )
        >>> body(torch.eye(3).expand(5, 24, 3, 3)).vertices.shape
        torch.Size([5, 30, 3])
    """

    def __init__(
        self,
        template: Tensor,
        *,
        skeleton: Skeleton,
        weights: Tensor,
        joint_regressor: Tensor | None = None,
        joints: Tensor | None = None,
        joint_directions: Tensor | None = None,
        shape_directions: Tensor | None = None,
        pose_directions: Tensor | None = None,
        faces: Tensor | None = None,
        regressors: Mapping[str, Tensor] | None = None,
        rest: Tensor | None = None,
    ) -> None:
        count, size = skeleton.num_joints, len(template)
        if (joint_regressor is None) == (joints is None):
            raise InputError("expected either joint_regressor or joints, not both or neither")
        if joint_directions is not None and joints is None:
            raise InputError("expected joint_directions together with joints")
        shapes = 0 if shape_directions is None else shape_directions.shape[-1]
        if shape_directions is None and joint_directions is not None:
            shapes = joint_directions.shape[-1]
        for name, value, shape in (
            ("template", template, (size, 3)),
            ("weights", weights, (size, count)),
            ("joint_regressor", joint_regressor, (count, size)),
            ("joints", joints, (count, 3)),
            ("joint_directions", joint_directions, (count, 3, shapes)),
            ("shape_directions", shape_directions, (size, 3, shapes)),
            ("pose_directions", pose_directions, (size, 3, 9 * (count - 1))),
            ("rest", rest, (max(count - 22, 0), 3, 3)),
        ):
            if value is not None:
                _check(name, value, shape)
        sums = weights.sum(dim=-1)
        if bool(((sums - 1).abs() > 1e-3).any()):
            vertex = int((sums - 1).abs().argmax())
            raise InputError(
                f"expected skinning weights that sum to 1, vertex {vertex} has {sums[vertex]:.4g}"
            )
        if faces is not None:
            _check_faces(faces, size)
        regressors = {} if regressors is None else regressors
        super().__init__(skeleton, shapes, faces=faces, regressors=regressors, rest=rest)

        if joint_regressor is not None:
            joints = joint_regressor @ template
            if shape_directions is not None:
                joint_directions = torch.einsum("kv,vcs->kcs", joint_regressor, shape_directions)
        self._kinematics = Kinematics(skeleton.parents)
        if pose_directions is not None:
            # (9 (K - 1), 3V): one matrix product per call.
            pose_directions = pose_directions.flatten(end_dim=1).T.contiguous()
        for name, value in (
            ("_template", template),
            ("_weights", weights),
            ("_joints", joints),
            ("_joint_directions", joint_directions),
            ("_shape_directions", shape_directions),
            ("_pose_directions", pose_directions),
        ):
            self.register_buffer(name, value, persistent=False)
        self._add_regressors(regressors)

    def _add_regressors(self, regressors: Mapping[str, Tensor]) -> None:
        count, size = self.num_joints, len(self.get_buffer("_template"))
        for name, matrix in regressors.items():
            if matrix.ndim != 2 or matrix.shape[1] not in (size, count + size):
                raise InputError(
                    f"expected regressor {name!r} of shape (J, {size}) or (J, {count + size}), "
                    f"got {tuple(matrix.shape)}"
                )
            _check(f"regressor {name!r}", matrix, tuple(matrix.shape))
            on_joints = matrix[:, : matrix.shape[1] - size]
            if not on_joints.shape[1]:
                on_joints = matrix.new_zeros(len(matrix), count)
            on_vertices = matrix[:, matrix.shape[1] - size :]
            # Most regressors look at a few vertices only.
            used = on_vertices.abs().sum(dim=0).nonzero().squeeze(-1)
            self.register_buffer(f"_{name}_joints", on_joints, persistent=False)
            self.register_buffer(f"_{name}_used", used, persistent=False)
            self.register_buffer(f"_{name}_vertices", on_vertices[:, used], persistent=False)

    def forward(
        self,
        theta: Tensor,
        shape: Tensor | None = None,
        translation: Tensor | None = None,
        *,
        surface: bool = True,
    ) -> BodyOutput:
        """Pose the body. See `Body.forward`.

        Args:
            theta: Local rotation matrices, `(..., K, 3, 3)`, or 24 joints of `SMPL_24`.
            shape: Shape coefficients, `(..., num_shape)`.
            translation: Added to all positions, `(..., 3)`, meters.
            surface: Whether to compute the vertices, which is nearly all of the work.

        Returns:
            Joints, vertices (`None` without `surface`) and global rotations.

        Raises:
            InputError: If a shape does not fit.
        """
        theta, shape, translation = self._inputs(theta, shape, translation)
        rest = self._shaped("_joints", "_joint_directions", shape, theta.dtype)
        parents = torch.tensor(self.parents, device=rest.device)
        above = rest.index_select(-2, parents.clamp(min=0))
        offsets = torch.where((parents < 0).unsqueeze(-1), rest, rest - above)
        joints, rotations = self._kinematics(theta, offsets)
        vertices = self._skin(theta, shape, rest, joints, rotations) if surface else None
        if translation is not None:
            joints = joints + translation.unsqueeze(-2)
            rotations = rotations.expand(*joints.shape[:-1], 3, 3)
            vertices = None if vertices is None else vertices + translation.unsqueeze(-2)
        return BodyOutput(joints=joints, vertices=vertices, rotations=rotations)

    def _shaped(self, name: str, along: str, shape: Tensor | None, dtype: torch.dtype) -> Tensor:
        """Give points `(..., N, 3)` of the rest pose."""
        points = self.get_buffer(name).to(dtype)
        directions = getattr(self, along)
        if shape is None or directions is None:
            return points if shape is None else points.expand(*shape.shape[:-1], *points.shape)
        moved = shape @ directions.to(dtype).flatten(end_dim=1).T
        return points + moved.unflatten(-1, points.shape)

    def _skin(
        self,
        theta: Tensor,
        shape: Tensor | None,
        rest: Tensor,
        joints: Tensor,
        rotations: Tensor,
    ) -> Tensor:
        points = self._shaped("_template", "_shape_directions", shape, theta.dtype)
        if self._pose_directions is not None:
            root = self.skeleton.root
            others = [j for j in range(self.num_joints) if j != root]
            eye = torch.eye(3, dtype=theta.dtype, device=theta.device)
            bend = (theta[..., others, :, :] - eye).flatten(start_dim=-3)
            corrections = bend @ self.get_buffer("_pose_directions").to(theta.dtype)
            points = points + corrections.unflatten(-1, (-1, 3))
        moved = joints - (rotations @ rest.unsqueeze(-1)).squeeze(-1)
        rigid = torch.cat([rotations, moved.unsqueeze(-1)], dim=-1).flatten(start_dim=-2)
        blended = (self.get_buffer("_weights").to(theta.dtype) @ rigid).unflatten(-1, (3, 4))
        return (blended[..., :3] @ points.unsqueeze(-1)).squeeze(-1) + blended[..., 3]

    def regress(self, output: BodyOutput, name: str = "h36m_17") -> Tensor:
        """Give the joints of another joint set. See `Body.regress`."""
        self._check_regressor(name)
        joints, vertices, _ = output
        result = self.get_buffer(f"_{name}_joints").to(joints.dtype) @ joints
        used = self.get_buffer(f"_{name}_used")
        if not len(used):
            return result
        if vertices is None:
            raise InputError(f"regressor {name!r} needs vertices and this output has none")
        weights = self.get_buffer(f"_{name}_vertices").to(joints.dtype)
        return result + weights @ vertices.index_select(-2, used)

    def only(self, *names: str) -> MeshBody:
        """The body with no more of its surface than some joint sets are computed from.

        A joint set looks at some tens or hundreds of many thousand vertices, and skinning the
        others is nearly all of the work of a fit. Joints, rotations and the named joint sets are
        those of the whole body; there are no triangles, and the vertices are those few.

        Args:
            names: Of `regressors`.

        Returns:
            A body that shares what it can with this one.

        Raises:
            InputError: If the body has no such joint set.

        Example:
            >>> from propose_prob.bodies import load_open_body
            >>> body = load_open_body()
            >>> light = body.only("h36m_17")
            >>> theta = torch.eye(3).expand(24, 3, 3)
            >>> torch.allclose(light.regress(light(theta)), body.regress(body(theta)), atol=1e-6)
            True
        """
        for name in names:
            self._check_regressor(name)
        buffers = dict(self.named_buffers(recurse=False))
        parts = [buffers[f"_{name}_used"] for name in names]
        used = torch.cat([buffers["_weights"].new_zeros(0, dtype=torch.long), *parts]).unique()
        light = copy.copy(self)
        light._buffers = dict(self._buffers)
        for name in ("_template", "_weights", "_shape_directions"):
            if buffers.get(name) is not None:
                light._buffers[name] = buffers[name][used]
        if buffers.get("_pose_directions") is not None:
            columns = buffers["_pose_directions"].unflatten(-1, (-1, 3))[:, used]
            light._buffers["_pose_directions"] = columns.flatten(1)
        for name, part in zip(names, parts, strict=True):
            light._buffers[f"_{name}_used"] = torch.searchsorted(used, part)
        light._buffers["faces"] = None
        light.regressors = tuple(names)
        return light


def _check(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise InputError(f"expected {name} of shape {shape}, got {tuple(value.shape)}")
    if not value.is_floating_point() or not bool(value.isfinite().all()):
        raise InputError(f"expected finite floating-point {name}")


def _check_faces(faces: Tensor, size: int) -> None:
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise InputError(f"expected integer faces of shape (F, 3), got {tuple(faces.shape)}")
    if len(faces):
        low, high = int(faces.min()), int(faces.max())
        if low < 0 or high >= size:
            raise InputError(f"expected faces of vertices 0 to {size - 1}, got {low} to {high}")
