"""Lifting: 2D keypoints of any number of people to distributions over their 3D poses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from ..errors import InputError
from ..geometry.skeletons import H36M_17, Skeleton
from ..io.keypoints import Keypoints
from .people import PeopleStream, PersonBatch

__all__ = ["LiftStream", "LiftedBatch", "PoseModel", "Use", "lift"]

Use = Literal["distribution", "hypotheses"]


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
        """The distribution of the 3D pose `(..., J, 3)` given keypoints `(..., J, 2)`."""
        ...


@dataclass(frozen=True, eq=False)
class LiftedBatch:
    """People of one batch with their distributions; `B` people, `S` samples.

    Attributes:
        distribution: The distribution, batch shape `(B,)`, event shape `(J, 3)`.
        samples: Independent draws `(S, B, J, 3)`, meters, root-relative, camera axes.
        point_estimate: The distribution's point estimate `(B, J, 3)`, meters.
        spread: Root mean square distance of each joint's samples to their mean `(B, J)`, meters.
        p2d: Keypoints in the model's joint set `(B, J, 2)`, unit as given; NaN where not seen.
        confidence: Their confidence `(B, J)`; 0 where not seen.
        frames: Name of each person's frame.
        people: Label of each person.

    Example:
        >>> from propose_prob.models import ProPose
        >>> from propose_prob.io.keypoints import Keypoints
        >>> frame = Keypoints(torch.randn(2, 17, 2), torch.ones(2, 17), H36M_17, 7, ("a", "b"))
        >>> batch = next(lift(ProPose().eval(), [frame], samples=5))
        >>> batch.people, batch.point_estimate.shape, batch.spread.shape
        (('a', 'b'), torch.Size([2, 17, 3]), torch.Size([2, 17]))
    """

    distribution: Any
    samples: Tensor
    point_estimate: Tensor
    spread: Tensor
    p2d: Tensor
    confidence: Tensor
    frames: tuple[int | str, ...]
    people: tuple[int | str, ...]

    def __len__(self) -> int:
        return len(self.frames)


class LiftStream(PeopleStream[LiftedBatch]):
    """Batches of lifted people, computed one at a time; see `lift`.

    Attributes:
        skipped: People who were passed over so far.

    Example:
        >>> from propose_prob.models import ProPose
        >>> from propose_prob.io.keypoints import Keypoints
        >>> confidence = torch.ones(2, 17)
        >>> confidence[1, 3:] = 0
        >>> frame = Keypoints(torch.randn(2, 17, 2), confidence, H36M_17, 0, ("a", "b"))
        >>> stream = lift(ProPose().eval(), [frame], samples=5)
        >>> sum(len(batch) for batch in stream), stream.skipped[0].person, stream.skipped[0].reason
        (1, 'b', '3 of 17 joints seen')
    """


def lift(
    model: PoseModel,
    keypoints: Iterable[Keypoints],
    *,
    samples: int = 200,
    use: Use = "distribution",
    focal: float | None = None,
    center: tuple[float, float] = (0.0, 0.0),
    batch_size: int = 64,
    min_joints: int = 6,
    min_confidence: float = 0.0,
    skeleton: Skeleton = H36M_17,
    device: torch.device | str = "cpu",
) -> LiftStream:
    """Lift the people of a stream of frames.

    Joint sets are converted to the model's; joints without a counterpart are missing, and the
    distribution is wide there. Nobody is answered by NaN: people of whom too little was seen are
    passed over and listed in `skipped`. Memory holds one batch, whatever the length of the stream.

    Args:
        model: For instance a `ProPose`.
        keypoints: Frames, for instance from `read_keypoints`.
        samples: Draws for each person, S.
        use: `"distribution"` draws from the distribution itself, observation noise included;
            `"hypotheses"` takes noise-free decodings, as published evaluations do.
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
        InputError: If an option is out of range; while iterating, if a distribution is not finite.

    Example:
        >>> import torch
        >>> from propose_prob.models import ProPose
        >>> from propose_prob.io.keypoints import Keypoints
        >>> frame = Keypoints(torch.randn(2, 17, 2), torch.ones(2, 17), H36M_17, 0, (0, 1))
        >>> batch = next(lift(ProPose().eval(), [frame], samples=5))
        >>> batch.samples.shape, batch.people
        (torch.Size([5, 2, 17, 3]), (0, 1))
    """
    if samples < 2:
        raise InputError(f"expected samples >= 2, got {samples}")
    if use not in get_args(Use):
        raise InputError(f"expected use to be one of {get_args(Use)}, got {use!r}")
    if focal is not None and not 0 < focal < float("inf"):
        raise InputError(f"expected a focal length > 0, got {focal}")

    @torch.no_grad()
    def solve(group: PersonBatch) -> LiftedBatch:
        distribution = model.conditional(group.p2d, group.confidence, focal=focal, center=center)
        draws = (
            distribution.hypotheses((samples,))
            if use == "hypotheses"
            else distribution.sample((samples,))
        )
        point = distribution.point_estimate
        finite = draws.isfinite().flatten(2).all(-1).all(0)
        group.check_finite(finite & point.isfinite().flatten(1).all(-1))
        spread = (draws - draws.mean(0)).square().sum(-1).mean(0).sqrt()
        return LiftedBatch(distribution, draws, point, spread, **vars(group))

    return LiftStream(
        keypoints,
        solve,
        skeleton=skeleton,
        batch_size=batch_size,
        min_joints=min_joints,
        least_joints=2,
        min_confidence=min_confidence,
        device=device,
    )
