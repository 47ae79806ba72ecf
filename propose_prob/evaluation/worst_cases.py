"""Track the worst items of a streamed evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .conditions import Prepared
from .metrics import mpjpe

__all__ = ["WorstCase", "WorstCaseTracker"]


@dataclass(frozen=True, eq=False)
class WorstCase:
    """One item, with what the distribution said of it; all joints of the model, on the CPU.

    Attributes:
        error: Error of the deterministic estimate, meters, mean over joints with a true position.
        best: The same of the best of all samples.
        sequence: Its sequence.
        frame: Its frame number.
        p2d: Keypoints `(J, 2)`, pixels; NaN where hidden or missing.
        visible: `(J,)` booleans.
        point: The deterministic estimate `(J, 3)`, meters.
        target: The true pose `(J, 3)`; NaN where unknown.
        samples: A few samples `(K, J, 3)`.

    Example:
        >>> from propose_prob.datasets import load_cmu17
        >>> from propose_prob.evaluation import CMU17Set
        >>> from propose_prob.evaluation.conditions import Condition, prepare
        >>> data = CMU17Set(load_cmu17("val"), stride=1500)
        >>> item = prepare(next(data.batches(8)), data.skeleton, data.skeleton, Condition())
        >>> samples = item.target + 0.1 * torch.randn(50, *item.target.shape)
        >>> gallery = WorstCaseTracker(1)
        >>> gallery.update(item, samples, samples.mean(0))
        >>> case = gallery.cases()[0]
        >>> case.samples.shape, case.best > case.error
        (torch.Size([30, 17, 3]), True)
    """

    error: float
    best: float
    sequence: str
    frame: int
    p2d: Tensor
    visible: Tensor
    point: Tensor
    target: Tensor
    samples: Tensor


class WorstCaseTracker:
    """Keeps the items of largest error of the deterministic estimate, in constant memory.

    One for each sequence: neighboring frames show the same mistake.

    Args:
        size: How many.
        samples: Samples kept of each.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set, Protocol, evaluate
        >>> data = CMU17Set(propose_prob.datasets.load_cmu17("val"), stride=1500)
        >>> protocol = Protocol(
        ...     "CMU17", "val", keypoints="exact", num_samples=20,
        ...     samples="distribution", frame_stride=1500
        ... )
        >>> gallery = WorstCaseTracker(2)
        >>> _ = evaluate(propose_prob.load("prohmr-lifting-cmu17"), data, protocol, gallery=gallery)
        >>> worst, second = gallery.cases()
        >>> worst.error > second.error, worst.sequence != second.sequence
        (True, True)
    """

    def __init__(self, size: int = 4, *, samples: int = 30) -> None:
        self.size, self.samples = size, samples
        self._kept: dict[str, WorstCase] = {}

    def update(self, item: Prepared, samples: Tensor, point: Tensor) -> None:
        """Look at a batch.

        Args:
            item: The items.
            samples: `(S, B, J, 3)`, meters.
            point: `(B, J, 3)`, meters.
        """
        known = item.target.isfinite().all(-1)
        target = torch.where(known[..., None], item.target, 0)
        error, best = mpjpe(point, target, mask=known), mpjpe(samples, target, mask=known).amin(0)
        for row in error.argsort(descending=True).tolist():
            name, value = item.sequence[row], float(error[row])
            if len(self._kept) == self.size and value <= self._least().error:
                return
            if name in self._kept and value <= self._kept[name].error:
                continue
            self._kept[name] = WorstCase(
                error=value,
                best=float(best[row]),
                sequence=name,
                frame=int(item.frame[row]),
                p2d=item.p2d[row].cpu().clone(),
                visible=item.visible[row].cpu().clone(),
                point=point[row].cpu().clone(),
                target=item.target[row].cpu().clone(),
                samples=samples[: self.samples, row].cpu().clone(),
            )
            if len(self._kept) > self.size:
                del self._kept[self._least().sequence]

    def cases(self) -> list[WorstCase]:
        """The worst first."""
        return sorted(self._kept.values(), key=lambda case: -case.error)

    def _least(self) -> WorstCase:
        return min(self._kept.values(), key=lambda case: case.error)
