"""Batches of people from streams of keypoint frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..errors import InputError, is_numerical
from ..geometry.normalization import as_dtype, visible_joints
from ..geometry.skeletons import Skeleton, convert_skeleton
from ..io.keypoints import Keypoints

__all__ = ["PeopleStream", "Skipped"]

#: Smallest extent of a person, relative to their coordinates, that float32 can measure.
_FLAT = 1e-5

Batch = TypeVar("Batch")


class Skipped(NamedTuple):
    """A person who was passed over.

    Attributes:
        frame: Name of the frame.
        person: Label of the person.
        reason: Why, in a few words.

    Example:
        >>> Skipped("00012", 1, "2 joints seen").reason
        '2 joints seen'
    """

    frame: int | str
    person: int | str
    reason: str


@dataclass(frozen=True, eq=False)
class PersonBatch:
    """People of one batch.

    Attributes:
        p2d: Keypoints in the model's joint set `(B, J, 2)`, unit as given; NaN where not seen.
        confidence: Their confidence `(B, J)`; 0 where not seen.
        frames: Name of each person's frame.
        people: Label of each person.
    """

    p2d: Tensor
    confidence: Tensor
    frames: tuple[int | str, ...]
    people: tuple[int | str, ...]

    def solved(self, solve: Callable[[PersonBatch], Batch]) -> Batch:
        """What `solve` answers.

        Raises:
            InputError: If it comes to numbers that are no distribution's, NaN as a rule.
        """
        try:
            return solve(self)
        except ValueError as error:
            if not is_numerical(error):
                raise
            raise InputError(
                f"frames {self.frames[0]} to {self.frames[-1]}: the model's answer is not finite; "
                "are its weights and the keypoints plausible, and the focal length in their unit?"
            ) from error

    def check_finite(self, finite: Tensor) -> None:
        """Names the first person for whom the model's answer `(B,)` is not finite.

        Raises:
            InputError: If there is one.
        """
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise InputError(
                f"frame {self.frames[row]}, person {self.people[row]}: the model's answer is not "
                "finite; are the keypoints plausible, and the focal length in their unit?"
            )


class PeopleStream(Iterator[Batch], Generic[Batch]):
    """Batches of solved people, computed one at a time.

    Attributes:
        skipped: People who were passed over so far.
    """

    def __init__(
        self,
        keypoints: Iterable[Keypoints],
        solve: Callable[[PersonBatch], Batch],
        *,
        skeleton: Skeleton,
        batch_size: int,
        min_joints: int,
        least_joints: int,
        min_confidence: float,
        device: torch.device | str,
    ) -> None:
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("min_joints", min_joints, least_joints),
        ):
            if value < least:
                raise InputError(f"expected {name} >= {least}, got {value}")
        if not 0 <= min_confidence <= 1:
            raise InputError(f"expected min_confidence between 0 and 1, got {min_confidence}")
        self.skipped: list[Skipped] = []
        people = _people(keypoints, skeleton, min_joints, min_confidence, self.skipped)
        self._batches = (group.solved(solve) for group in _groups(people, batch_size, device))

    def __next__(self) -> Batch:
        return next(self._batches)


class _Person(NamedTuple):
    p2d: Tensor
    confidence: Tensor
    frame: int | str
    label: int | str


def _people(
    stream: Iterable[Keypoints],
    skeleton: Skeleton,
    min_joints: int,
    min_confidence: float,
    skipped: list[Skipped],
) -> Iterator[_Person]:
    """The people of whom enough was seen, in the wanted joint set."""
    for frame in stream:
        kind = torch.promote_types(frame.p2d.dtype, torch.float32)
        points, levels = as_dtype(frame.p2d, frame.confidence, kind)
        p2d, confidence = convert_skeleton(points, frame.skeleton, skeleton, confidence=levels)
        confidence = torch.where(confidence < min_confidence, 0, confidence)
        visible = visible_joints(p2d, confidence)
        p2d = torch.where(visible[..., None], p2d, torch.nan)
        confidence = torch.where(visible, confidence, 0)
        for row, label in enumerate(frame.person_ids):
            seen = p2d[row][visible[row]]
            reason = None
            if len(seen) < min_joints:
                reason = f"{len(seen)} of {skeleton.num_joints} joints seen"
            elif float((seen.amax(0) - seen.amin(0)).max()) <= _FLAT * float(seen.abs().max()):
                reason = "all joints seen in one place"
            if reason is None:
                yield _Person(p2d[row], confidence[row], frame.frame, label)
            else:
                skipped.append(Skipped(frame.frame, label, reason))


def _groups(
    people: Iterable[_Person], size: int, device: torch.device | str
) -> Iterator[PersonBatch]:
    waiting: list[_Person] = []
    for person in people:
        waiting.append(person)
        if len(waiting) == size:
            yield _stacked(waiting, device)
            waiting = []
    if waiting:
        yield _stacked(waiting, device)


def _stacked(people: list[_Person], device: torch.device | str) -> PersonBatch:
    p2d, confidence, frames, labels = zip(*people, strict=True)
    return PersonBatch(
        torch.stack(p2d).to(device), torch.stack(confidence).to(device), frames, labels
    )
