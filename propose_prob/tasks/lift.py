"""Lifting: 2D keypoints of any number of people to laws over their 3D poses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch
from torch import Tensor

from ..data.keypoints import Keypoints
from ..errors import InputError
from ..pose.convert import convert
from ..pose.normalise import visible_joints
from ..pose.skeleton import H36M_17, Skeleton

__all__ = ["Lift", "LiftedBatch", "PoseModel", "Skipped", "Use", "lift"]

Use = Literal["law", "hypotheses"]

#: Smallest extent of a person, relative to their coordinates, that float32 can measure.
_FLAT = 1e-5


class PoseModel(Protocol):
    """What `lift` needs of a model: `ProPose.conditional` has this form.

    Example:
        >>> import propose_prob
        >>> model: PoseModel = propose_prob.load("propose-cmu17")
        >>> model.conditional(torch.randn(17, 2)).event_shape
        torch.Size([17, 3])
    """

    def conditional(
        self,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
    ) -> Any:
        """The law of the 3D pose `(..., J, 3)` given keypoints `(..., J, 2)`."""
        ...


class Skipped(NamedTuple):
    """A person who was not lifted.

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
class LiftedBatch:
    """People of one batch with their laws; `B` people, `S` samples.

    Attributes:
        law: The law, batch shape `(B,)`, event shape `(J, 3)`.
        samples: Independent draws `(S, B, J, 3)`, metres, root-relative, camera axes.
        point_estimate: The law's point estimate `(B, J, 3)`, metres.
        spread: Root mean square distance of each joint's samples to their mean `(B, J)`, metres.
        p2d: Keypoints in the model's joint set `(B, J, 2)`, unit as given; NaN where not seen.
        confidence: Their confidence `(B, J)`; 0 where not seen.
        frames: Name of each person's frame.
        people: Label of each person.

    Example:
        >>> from propose_prob import ProPose
        >>> from propose_prob.data.keypoints import Keypoints
        >>> frame = Keypoints(torch.randn(2, 17, 2), torch.ones(2, 17), H36M_17, 7, ("a", "b"))
        >>> batch = next(lift(ProPose().eval(), [frame], samples=5))
        >>> batch.people, batch.point_estimate.shape, batch.spread.shape
        (('a', 'b'), torch.Size([2, 17, 3]), torch.Size([2, 17]))
    """

    law: Any
    samples: Tensor
    point_estimate: Tensor
    spread: Tensor
    p2d: Tensor
    confidence: Tensor
    frames: tuple[int | str, ...]
    people: tuple[int | str, ...]

    def __len__(self) -> int:
        return len(self.frames)


class Lift(Iterator[LiftedBatch]):
    """Batches of lifted people, computed one at a time; see `lift`.

    Attributes:
        skipped: People who were passed over so far.

    Example:
        >>> from propose_prob import ProPose
        >>> from propose_prob.data.keypoints import Keypoints
        >>> confidence = torch.ones(2, 17)
        >>> confidence[1, 3:] = 0
        >>> frame = Keypoints(torch.randn(2, 17, 2), confidence, H36M_17, 0, ("a", "b"))
        >>> stream = lift(ProPose().eval(), [frame], samples=5)
        >>> sum(len(batch) for batch in stream), stream.skipped[0].person, stream.skipped[0].reason
        (1, 'b', '3 of 17 joints seen')
    """

    def __init__(self, batches: Iterator[LiftedBatch], skipped: list[Skipped]) -> None:
        self._batches = batches
        self.skipped = skipped

    def __next__(self) -> LiftedBatch:
        return next(self._batches)


@dataclass(frozen=True, eq=False)
class _Person:
    p2d: Tensor
    confidence: Tensor
    frame: int | str
    label: int | str


def lift(
    model: PoseModel,
    keypoints: Iterable[Keypoints],
    *,
    samples: int = 200,
    use: Use = "law",
    focal: float | None = None,
    center: tuple[float, float] = (0.0, 0.0),
    batch_size: int = 64,
    min_joints: int = 6,
    min_confidence: float = 0.0,
    skeleton: Skeleton = H36M_17,
    device: torch.device | str = "cpu",
) -> Lift:
    """Lift the people of a stream of frames.

    Joint sets are converted to the model's; joints without a counterpart are missing, and the law
    is wide there. Nobody is answered by NaN: people of whom too little was seen are passed over
    and listed in `skipped`. Memory holds one batch, whatever the length of the stream.

    Args:
        model: For instance a `ProPose`.
        keypoints: Frames, for instance from `read_keypoints`.
        samples: Draws for each person, S.
        use: `"law"` draws from the law itself, observation noise included; `"hypotheses"` takes
            noise-free decodings, as published evaluations do.
        focal: Focal length in the unit of the keypoints, the same for all frames, where known.
        center: Principal point in the unit of the keypoints; used with `focal`.
        batch_size: Most people in a batch.
        min_joints: Fewest visible joints, in the model's joint set, with which a person is lifted.
        min_confidence: Joints with a lower confidence count as not seen.
        skeleton: The model's joint set.
        device: Where the model is.

    Returns:
        An iterator over batches, in the order of the stream.

    Raises:
        InputError: If an option is out of range; while iterating, if a law is not finite.

    Example:
        >>> import torch
        >>> from propose_prob import ProPose
        >>> from propose_prob.data.keypoints import Keypoints
        >>> frame = Keypoints(torch.randn(2, 17, 2), torch.ones(2, 17), H36M_17, 0, (0, 1))
        >>> batch = next(lift(ProPose().eval(), [frame], samples=5))
        >>> batch.samples.shape, batch.people
        (torch.Size([5, 2, 17, 3]), (0, 1))
    """
    for name, value, least in (
        ("samples", samples, 2),
        ("batch_size", batch_size, 1),
        ("min_joints", min_joints, 2),
    ):
        if value < least:
            raise InputError(f"expected {name} >= {least}, got {value}")
    if use not in get_args(Use):
        raise InputError(f"expected use to be one of {get_args(Use)}, got {use!r}")
    if not 0 <= min_confidence <= 1:
        raise InputError(f"expected min_confidence between 0 and 1, got {min_confidence}")
    if focal is not None and not 0 < focal < float("inf"):
        raise InputError(f"expected a focal length > 0, got {focal}")
    skipped: list[Skipped] = []
    people = _people(keypoints, skeleton, min_joints, min_confidence, skipped)

    def batches() -> Iterator[LiftedBatch]:
        group: list[_Person] = []
        for person in people:
            group.append(person)
            if len(group) == batch_size:
                yield _solve(model, group, samples, use, focal, center, device)
                group = []
        if group:
            yield _solve(model, group, samples, use, focal, center, device)

    return Lift(batches(), skipped)


def _people(
    stream: Iterable[Keypoints],
    skeleton: Skeleton,
    min_joints: int,
    min_confidence: float,
    skipped: list[Skipped],
) -> Iterator[_Person]:
    """Give the people of whom enough was seen, in the wanted joint set."""
    for frame in stream:
        p2d, confidence = convert(frame.p2d, frame.skeleton, skeleton, confidence=frame.confidence)
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


@torch.no_grad()
def _solve(
    model: PoseModel,
    people: list[_Person],
    samples: int,
    use: Use,
    focal: float | None,
    center: tuple[float, float],
    device: torch.device | str,
) -> LiftedBatch:
    p2d = torch.stack([person.p2d for person in people]).to(device)
    confidence = torch.stack([person.confidence for person in people]).to(device)
    law = model.conditional(p2d, confidence, focal=focal, center=center)
    draws = law.hypotheses((samples,)) if use == "hypotheses" else law.sample((samples,))
    point = law.point_estimate
    finite = draws.isfinite().flatten(2).all(-1).all(0) & point.isfinite().flatten(1).all(-1)
    if not bool(finite.all()):
        person = people[int((~finite).nonzero()[0])]
        raise InputError(
            f"frame {person.frame}, person {person.label}: the model's answer is not finite; "
            "are the keypoints plausible, and the focal length in their unit?"
        )
    return LiftedBatch(
        law=law,
        samples=draws,
        point_estimate=point,
        spread=(draws - draws.mean(0)).square().sum(-1).mean(0).sqrt(),
        p2d=p2d,
        confidence=confidence,
        frames=tuple(person.frame for person in people),
        people=tuple(person.label for person in people),
    )
