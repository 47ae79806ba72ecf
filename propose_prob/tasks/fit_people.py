"""Fitting bodies to all people of a stream of frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..bodies import Body, SkeletonBody
from ..data.keypoints import Keypoints
from ..distributions.likelihoods import Kernel
from ..inference import Solver
from ..models.prohmr import ProHMR
from ..pose.skeleton import H36M_17
from .fit import FittedBody, fit
from .people import Group, PeopleStream

__all__ = ["FitStream", "FittedPeople", "fit_people"]


@dataclass(frozen=True, eq=False)
class FittedPeople:
    """People of one batch with their bodies.

    Attributes:
        bodies: Their bodies.
        p2d: Keypoints in the model's joint set `(B, J, 2)`, unit as given; NaN where not seen.
        confidence: Their confidence `(B, J)`; 0 where not seen.
        frames: Name of each person's frame.
        people: Label of each person.

    Example:
        >>> import propose_prob
        >>> p2d = propose_prob.data.load_cmu17("val").p2d()[:2, 0]
        >>> frame = Keypoints(p2d, torch.ones(2, 17), H36M_17, 7, ("a", "b"))
        >>> batch = next(fit_people(propose_prob.load("prohmr-cmu17"), [frame]))
        >>> batch.frames, batch.people, batch.bodies.joints.shape
        ((7, 7), ('a', 'b'), torch.Size([2, 17, 3]))
    """

    bodies: FittedBody
    p2d: Tensor
    confidence: Tensor
    frames: tuple[int | str, ...]
    people: tuple[int | str, ...]

    def __len__(self) -> int:
        return len(self.frames)


class FitStream(PeopleStream[FittedPeople]):
    """Batches of fitted people, computed one at a time; see `fit_people`.

    Attributes:
        skipped: People who were passed over so far.

    Example:
        >>> import propose_prob
        >>> p2d, confidence = propose_prob.data.load_cmu17("val").p2d()[:3, 0], torch.ones(3, 17)
        >>> confidence[2, 3:] = 0
        >>> frame = Keypoints(p2d, confidence, H36M_17, 0, ("a", "b", "c"))
        >>> stream = fit_people(propose_prob.load("prohmr-cmu17"), [frame])
        >>> sum(len(batch) for batch in stream), stream.skipped[0].person, stream.skipped[0].reason
        (2, 'c', '3 of 17 joints seen')
    """


def fit_people(
    model: ProHMR,
    keypoints: Iterable[Keypoints],
    *,
    body: Body | None = None,
    focal: float | None = None,
    center: tuple[float, float] = (0.0, 0.0),
    likelihood: Kernel = "student_t",
    scale: float | None = None,
    solver: Solver = "auto",
    batch_size: int = 64,
    min_joints: int = 6,
    min_confidence: float = 0.0,
    surface: bool = False,
    device: torch.device | str = "cpu",
) -> FitStream:
    """Fit a body to each person of a stream of frames.

    Joint sets are converted to the model's. Each fit begins at the mode of the model's law, with
    its shape and camera. People of whom too little was seen are passed over and listed in
    `skipped`. Memory holds one batch, whatever the length of the stream.

    Args:
        model: Gives the law of the pose; it reads 17 keypoints of Human3.6M's joint set.
        keypoints: Frames, for instance from `read_keypoints`.
        body: What is posed, `SkeletonBody()` by default. Of another one the shape begins at the
            average: the model's estimate is of a `SkeletonBody`.
        focal: Focal length in the unit of the keypoints, the same for all frames; without it the
            camera is a weak-perspective one.
        center: Principal point in the unit of the keypoints; used with `focal`.
        likelihood: Kernel of the keypoints' errors.
        scale: Their standard deviation, keypoint units; see `fit_body`.
        solver: See `map_estimate`.
        batch_size: Most people in a batch.
        min_joints: Fewest visible joints, in the model's joint set, with which a person is fitted.
        min_confidence: Joints with a lower confidence count as not seen.
        surface: Whether to give the vertices of a body that has a surface.
        device: Where the model is.

    Returns:
        An iterator over batches, in the order of the stream.

    Raises:
        InputError: If an option is out of range; while iterating, if the model's answer is not
            finite.

    Example:
        >>> import propose_prob
        >>> p2d = propose_prob.data.load_cmu17("val").p2d()[:2, 0]
        >>> frame = Keypoints(p2d, torch.ones(2, 17), H36M_17, 0, (0, 1))
        >>> batch = next(fit_people(propose_prob.load("prohmr-cmu17"), [frame]))
        >>> batch.bodies.theta.shape, bool((batch.bodies.projected - p2d).abs().max() < 0.05)
        (torch.Size([2, 24, 3, 3]), True)
    """
    posed = (SkeletonBody() if body is None else body).to(device)

    def solve(group: Group) -> FittedPeople:
        p2d, confidence = group.p2d, group.confidence
        with torch.no_grad():
            start = model.estimate(p2d, confidence, focal=focal, center=center)
        finite = start.law.point_estimate.flatten(1).isfinite().all(-1)
        finite &= start.camera.isfinite().all(-1) & (start.camera[:, 0] > 0)
        group.check_finite(finite)
        if not isinstance(posed, SkeletonBody):
            start = start._replace(shape=p2d.new_zeros(len(p2d), posed.num_shape))
        bodies = fit(
            start.law,
            p2d,
            confidence,
            body=posed,
            start=start,
            focal=focal,
            center=center,
            likelihood=likelihood,
            scale=scale,
            solver=solver,
            surface=surface,
        )
        return FittedPeople(bodies, **vars(group))

    return FitStream(
        keypoints,
        solve,
        skeleton=H36M_17,
        batch_size=batch_size,
        min_joints=min_joints,
        least_joints=3,
        min_confidence=min_confidence,
        device=device,
    )
