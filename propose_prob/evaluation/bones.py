"""Bone lengths of predicted poses: symmetry, and variation over samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..geometry.skeletons import Skeleton

__all__ = ["bone_lengths", "bone_pairs", "bone_symmetry", "bone_variation"]

Bone = tuple[int, int]


def bone_lengths(poses: Tensor, bones: Sequence[Bone]) -> Tensor:
    """Length of each bone.

    Args:
        poses: ``(..., J, 3)``, any unit.
        bones: (child, parent) pairs, as `Skeleton.bones` gives them.

    Returns:
        Lengths ``(..., len(bones))``, same unit.

    Example:
        >>> bone_lengths(torch.tensor([[0.0, 0, 0], [0.0, 0.5, 0]]), [(1, 0)]).tolist()
        [0.5]
    """
    child, parent = [b[0] for b in bones], [b[1] for b in bones]
    return torch.linalg.vector_norm(poses[..., child, :] - poses[..., parent, :], dim=-1)


def bone_pairs(skeleton: Skeleton) -> tuple[tuple[Bone, Bone], ...]:
    """Bones that are each other's mirror image, once each.

    Example:
        >>> from propose_prob.geometry.skeletons import H36M_17
        >>> len(bone_pairs(H36M_17))
        6
    """
    mirror = skeleton.mirror
    return tuple(
        ((child, parent), (mirror[child], mirror[parent]))
        for child, parent in skeleton.bones
        if child < mirror[child]
    )


def bone_symmetry(poses: Tensor, pairs: Sequence[tuple[Bone, Bone]]) -> Tensor:
    """Mean difference of length between the bones of the two sides.

    Args:
        poses: ``(..., J, 3)``, any unit.
        pairs: Mirrored bones, see `bone_pairs`.

    Returns:
        Mean absolute difference ``(...)``, same unit; NaN without pairs.

    Example:
        >>> pose = torch.tensor([[0.0, 0, 0], [-0.5, 0, 0], [0.25, 0, 0]])
        >>> bone_symmetry(pose, [((1, 0), (2, 0))]).item()
        0.25
    """
    one = bone_lengths(poses, [pair[0] for pair in pairs])
    other = bone_lengths(poses, [pair[1] for pair in pairs])
    return (one - other).abs().mean(-1)


def bone_variation(samples: Tensor, bones: Sequence[Bone]) -> Tensor:
    """How much the samples of one item disagree about the lengths of its bones.

    A person's bones are unknown to a distribution that sees one image, but every sample that
    changes the pose alone would keep them. Large values mean that spread comes from stretched
    limbs.

    Args:
        samples: ``(S, ..., J, 3)``, any unit.
        bones: (child, parent) pairs.

    Returns:
        Standard deviation of each bone's length over samples, mean over bones, ``(...)``, same
        unit (divide by S).

    Example:
        >>> samples = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]], [[0.0, 0, 0], [3.0, 0, 0]]])
        >>> bone_variation(samples, [(1, 0)])
        tensor(1.)
    """
    return bone_lengths(samples, bones).var(0, unbiased=False).sqrt().mean(-1)
