"""Errors over time: velocity (MPJVE) and acceleration, for whole sequences and for streams."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

__all__ = ["MotionAccuracy", "MotionErrors", "acceleration_error", "mpjve"]

#: Sequences whose last frames are remembered: rigs of many cameras interleave their views.
_OPEN_SEQUENCES = 64


def mpjve(pred: Tensor, target: Tensor) -> Tensor:
    """Mean per-joint velocity error: MPJPE of the first differences over time.

    Source: Pavllo et al., "3D human pose estimation in video with temporal convolutions and
    semi-supervised training", CVPR 2019, section 4.2.

    Args:
        pred: Predicted joints of consecutive frames, ``(T, ..., J, 3)``, any unit.
        target: True joints, same shape.

    Returns:
        One error per pair of frames, ``(T - 1, ...)``, in that unit per frame.

    Raises:
        InputError: If shapes disagree or there are fewer than two frames.

    Example:
        >>> moving = torch.tensor([[[0.0, 0, 0]], [[1.0, 0, 0]], [[2.0, 0, 0]]])
        >>> mpjve(torch.zeros(3, 1, 3), moving).tolist()
        [1.0, 1.0]
    """
    return _difference_error(pred, target, 1)


def acceleration_error(pred: Tensor, target: Tensor) -> Tensor:
    """Acceleration error: MPJPE of the second differences over time.

    Source: Kanazawa et al., "Learning 3D human dynamics from video", CVPR 2019, section 5.

    Args:
        pred: Predicted joints of consecutive frames, ``(T, ..., J, 3)``, any unit.
        target: True joints, same shape.

    Returns:
        One error per three frames, ``(T - 2, ...)``, in that unit per frame squared.

    Raises:
        InputError: If shapes disagree or there are fewer than three frames.

    Example:
        >>> even = torch.tensor([[[0.0, 0, 0]], [[1.0, 0, 0]], [[2.0, 0, 0]]])
        >>> acceleration_error(torch.zeros(3, 1, 3), even).tolist()
        [0.0]
    """
    return _difference_error(pred, target, 2)


@dataclass(frozen=True)
class MotionAccuracy:
    """Errors over time of everything seen so far; NaN where nothing followed anything.

    Attributes:
        velocity: MPJVE, unit of the poses per step.
        acceleration: Acceleration error, unit per step squared.
        pairs: Pairs of frames behind the velocity.
        triples: Triples of frames behind the acceleration.

    Example:
        >>> import torch
        >>> errors = MotionErrors()
        >>> still, moving = torch.zeros(4, 1, 3), torch.arange(4.0)[:, None, None].expand(4, 1, 3)
        >>> errors.update(still, moving, ["walk"] * 3 + ["run"], torch.tensor([0, 1, 2, 0]))
        >>> errors.compute()
        MotionAccuracy(velocity=1.732..., acceleration=0.0, pairs=2, triples=1)
    """

    velocity: float
    acceleration: float
    pairs: int
    triples: int


class MotionErrors:
    """Streaming velocity and acceleration errors in constant memory.

    Frames of a sequence must come in order, those of several sequences may interleave. A frame
    counts as the next one if its number is `step` larger; a gap starts anew.

    Args:
        step: Difference between the numbers of frames that follow each other.

    Example:
        >>> import torch
        >>> errors = MotionErrors()
        >>> still, moving = torch.zeros(3, 17, 3), torch.arange(3.0)[:, None, None].expand(3, 17, 3)
        >>> errors.update(still, moving, ["a"] * 3, torch.arange(3))
        >>> errors.compute().pairs, round(errors.compute().velocity, 3)
        (2, 1.732)
    """

    def __init__(self, *, step: int = 1) -> None:
        if step < 1:
            raise InputError(f"expected step >= 1, got {step}")
        self.step = step
        self._sums = torch.zeros(2, dtype=torch.float64)
        self._counts = [0, 0]
        self._last: OrderedDict[str, tuple[int, list[Tensor]]] = OrderedDict()

    @torch.no_grad()
    def update(self, pred: Tensor, target: Tensor, sequence: Sequence[str], frame: Tensor) -> None:
        """Add frames.

        Args:
            pred: Predicted joints, ``(B, J, 3)``, any unit.
            target: True joints, same shape.
            sequence: Label of each frame's sequence, `B` strings.
            frame: Number of each frame in its sequence, ``(B,)`` integers.

        Raises:
            InputError: If shapes or lengths disagree.
        """
        _check(pred, target, 0)
        if len(sequence) != len(pred) or frame.shape != (len(pred),):
            raise InputError(
                f"expected {len(pred)} sequence labels and frame numbers, "
                f"got {len(sequence)} and {tuple(frame.shape)}"
            )
        numbers = frame.tolist()
        gap = (pred - target).double().cpu()
        for row, label in enumerate(sequence):
            before, errors = self._last.pop(label, (None, []))
            errors = [*errors[-2:], gap[row]] if before == numbers[row] - self.step else [gap[row]]
            self._last[label] = (numbers[row], errors)
            # The difference of errors is the error of differences.
            if len(errors) > 1:
                self._add(0, errors[-1] - errors[-2])
            if len(errors) > 2:
                self._add(1, errors[-1] - 2 * errors[-2] + errors[-3])
        while len(self._last) > _OPEN_SEQUENCES:
            self._last.popitem(last=False)

    def merge(self, other: MotionErrors) -> None:
        """Add what another process saw; pairs of frames across the two are not formed.

        Raises:
            InputError: If the steps differ.
        """
        if other.step != self.step:
            raise InputError(f"expected errors over steps of {self.step}, got {other.step}")
        self._sums += other._sums
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]

    def compute(self) -> MotionAccuracy:
        """Mean errors of everything added so far."""
        values = [
            float(total) / count if count else float("nan")
            for total, count in zip(self._sums, self._counts, strict=True)
        ]
        return MotionAccuracy(values[0], values[1], self._counts[0], self._counts[1])

    def _add(self, order: int, difference: Tensor) -> None:
        self._sums[order] += torch.linalg.vector_norm(difference, dim=-1).mean()
        self._counts[order] += 1


def _difference_error(pred: Tensor, target: Tensor, order: int) -> Tensor:
    _check(pred, target, order + 1)
    gap = (pred - target).diff(n=order, dim=0)
    return torch.linalg.vector_norm(gap, dim=-1).mean(-1)


def _check(pred: Tensor, target: Tensor, frames: int) -> None:
    if pred.ndim < 3 or pred.shape[-1] != 3:
        raise InputError(f"expected poses of shape (T, ..., J, 3), got {tuple(pred.shape)}")
    if target.shape != pred.shape:
        raise InputError(
            f"expected a target of shape {tuple(pred.shape)}, got {tuple(target.shape)}"
        )
    if pred.shape[0] < frames:
        raise InputError(f"expected at least {frames} frames (axis 0), got {pred.shape[0]}")
