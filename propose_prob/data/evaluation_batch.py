"""What every data set's reader yields for evaluation."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["EvaluationBatch"]


@dataclass(frozen=True, eq=False)
class EvaluationBatch:
    """2D evidence and true poses of `B` items, in a data set's own joint set.

    Attributes:
        p2d: Keypoints `(B, J, 2)`, pixels, y down; NaN where missing.
        confidence: `(B, J)` in 0..1, 0 where missing.
        p3d: True joints `(B, J, 3)`, metres, camera axes (x right, y down, z forward), absolute or
            relative to the root; NaN where the data set has none.
        focal: Focal length of each item `(B,)`, pixels; None where unknown.
        center: Principal point `(B, 2)`, pixels; None where unknown.
        action: Action label of each item, `B` strings.
        sequence: Sequence (and camera) of each item, `B` strings: frames of equal label follow one
            another in time.
        frame: Frame number within the sequence `(B,)`, integers.
        valid: Items to count `(B,)` booleans.

    Raises:
        InputError: If a field's shape or length does not fit the others.

    Example:
        >>> import torch
        >>> batch = EvaluationBatch(
        ...     p2d=torch.zeros(2, 17, 2), confidence=torch.ones(2, 17), p3d=torch.zeros(2, 17, 3),
        ...     focal=None, center=None, action=["walk"] * 2, sequence=["S9 walk cam0"] * 2,
        ...     frame=torch.arange(2), valid=torch.ones(2, dtype=torch.bool),
        ... )
        >>> len(batch), len(batch.select(torch.tensor([True, False])))
        (2, 1)
    """

    p2d: Tensor
    confidence: Tensor
    p3d: Tensor
    focal: Tensor | None
    center: Tensor | None
    action: list[str]
    sequence: list[str]
    frame: Tensor
    valid: Tensor

    def __post_init__(self) -> None:
        if self.p2d.ndim != 3 or self.p2d.shape[-1] != 2:
            raise InputError(f"expected p2d of shape (B, J, 2), got {tuple(self.p2d.shape)}")
        items, joints = self.p2d.shape[:2]
        shapes = {
            "confidence": (items, joints),
            "p3d": (items, joints, 3),
            "focal": (items,),
            "center": (items, 2),
            "frame": (items,),
            "valid": (items,),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise InputError(f"expected {name} of shape {shape}, got {tuple(value.shape)}")
        for name in ("action", "sequence"):
            if len(getattr(self, name)) != items:
                raise InputError(
                    f"expected {items} labels in {name}, got {len(getattr(self, name))}"
                )

    def __len__(self) -> int:
        return len(self.p2d)

    def select(self, items: Tensor) -> EvaluationBatch:
        """Some of the items.

        Args:
            items: Booleans `(B,)` or indices.
        """
        index = items.nonzero()[:, 0] if items.dtype == torch.bool else items
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                chosen[field.name] = value[index.to(value.device)]
            elif value is not None:
                chosen[field.name] = [value[i] for i in index.tolist()]
        return replace(self, **chosen)

    def to(self, device: torch.device | str) -> EvaluationBatch:
        """The same batch, its tensors on another device."""
        moved: dict[str, Any] = {
            field.name: getattr(self, field.name).to(device)
            for field in fields(self)
            if isinstance(getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)
