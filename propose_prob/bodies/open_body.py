"""The open mesh body that ships with the library."""

import torch
from torch import Tensor

from .._shipped import shipped_file
from ..errors import InputError
from ..geometry.skeletons import SMPL_24
from .body import BodyOutput
from .mesh_body import MeshBody

__all__ = ["OpenBody", "load_open_body"]

_FIELDS = (
    "template",
    "shape_directions",
    "joints",
    "joint_directions",
    "bind",
    "skin_joints",
    "skin_weights",
    "faces",
    "landmarks",
)


class OpenBody(MeshBody):
    """A mesh body whose numbers belong to a rest pose other than the T pose.

    Skinning starts from the pose in which the surface was modeled; rotations are still SMPL's,
    local to the T pose. With `bind` the rotations `B` that take the modeled pose to the T pose and
    `p` the parent of `j`, the modeled body turned by `B_p^T theta_j B_j` is the T pose turned by
    `theta`. Blending is right only from the modeled pose: skinned from a T pose that was itself
    skinned, elbows and shoulders of the open body would be up to 33 mm off in motion capture.

    Args:
        tensors: What `tools.distill_anny.distil` describes.

    Raises:
        InputError: If a field is missing, an index is out of bounds, `bind` holds no rotations or
            the fields do not fit each other.
    """

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        missing = [name for name in _FIELDS if name not in tensors]
        if missing:
            raise InputError(f"expected an open body's fields, {', '.join(missing)} are missing")
        template, landmarks = tensors["template"].float(), tensors["landmarks"].long()
        size, count = len(template), SMPL_24.num_joints
        skin_joints, faces = tensors["skin_joints"].long(), tensors["faces"].long()
        for name, index, limit in (
            ("skin_joints", skin_joints, count),
            ("faces", faces, size),
            ("landmarks", landmarks, size),
        ):
            if not 0 <= int(index.min()) <= int(index.max()) < limit:
                raise InputError(
                    f"expected {name} between 0 and {limit - 1}, "
                    f"got {int(index.min())} to {int(index.max())}"
                )
        bind = tensors["bind"].float()
        if bind.shape != (count, 3, 3) or not torch.allclose(
            bind @ bind.mT, torch.eye(3).expand(count, 3, 3), atol=1e-5
        ):
            raise InputError(f"expected bind to be {count} rotations, got {tuple(bind.shape)}")
        weights = torch.zeros(size, count)
        weights.scatter_add_(1, skin_joints, tensors["skin_weights"].float())
        super().__init__(
            template,
            skeleton=SMPL_24,
            weights=weights,
            joints=tensors["joints"].float(),
            joint_directions=tensors["joint_directions"].float(),
            shape_directions=tensors["shape_directions"].float(),
            faces=faces,
            regressors={
                name.removeprefix("regressor."): _dense(matrix.float(), landmarks, size)
                for name, matrix in tensors.items()
                if name.startswith("regressor.")
            },
        )
        above = bind[[max(parent, 0) for parent in self.parents]].mT.contiguous()
        above[SMPL_24.root] = torch.eye(3)
        self.register_buffer("_bind", bind, persistent=False)
        self.register_buffer("_bind_above", above, persistent=False)

    def forward(
        self,
        theta: Tensor,
        shape: Tensor | None = None,
        translation: Tensor | None = None,
        *,
        surface: bool = True,
    ) -> BodyOutput:
        """Pose the body. See `MeshBody.forward`."""
        theta, shape, translation = self._inputs(theta, shape, translation)
        bind = self.get_buffer("_bind").to(theta.dtype)
        modeled = self.get_buffer("_bind_above").to(theta.dtype) @ theta @ bind
        joints, vertices, rotations = super().forward(modeled, shape, translation, surface=surface)
        return BodyOutput(joints=joints, vertices=vertices, rotations=rotations @ bind.mT)


def _dense(matrix: Tensor, landmarks: Tensor, size: int) -> Tensor:
    """Turn weights of joints and landmarks into weights of joints and vertices."""
    count = matrix.shape[1] - len(landmarks)
    dense = torch.zeros(len(matrix), count + size)
    dense[:, :count] = matrix[:, :count]
    dense[:, count + landmarks] = matrix[:, count:]
    return dense


def load_open_body() -> OpenBody:
    """Load the open mesh body: SMPL's 24 joints, 13,492 vertices, ten shape coefficients.

    An adult distilled from Anny (Apache-2.0) and its MakeHuman assets (CC0): see
    `OPEN_BODY_LICENSE.md` beside this module. Shape coefficients are principal components of
    adults' bodies; the first is stature. The pelvis rests at the origin. Hands are rigid with the
    wrist, so the rotations of L_Hand and R_Hand move no vertex.

    Returns:
        The body, on the CPU, with the regressors `h36m_17`, `coco_17`, `body_25` and `mpii_16`.

    Raises:
        InputError: If the installed file is not the one that was shipped.

    Example:
        >>> body = load_open_body()
        >>> output = body(torch.eye(3).expand(24, 3, 3), torch.zeros(10))
        >>> body.regress(output, "coco_17").shape
        torch.Size([17, 3])
    """
    from safetensors.torch import load_file

    return OpenBody(load_file(shipped_file("bodies/open_body.safetensors")))
