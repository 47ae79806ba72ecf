"""Evaluation data sets: batches of 2D evidence and true poses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from ..datasets.clips import EvaluationBatch, PoseClip, evaluation_batches
from ..datasets.cmu17 import CMU17, FOCAL
from ..geometry.skeletons import H36M_17, Skeleton

__all__ = ["CMU17Set", "ClipSet", "EvaluationSet", "PairSet"]

#: Half the width of CMU17's images, pixels.
_HALF_WIDTH = 500.0


class EvaluationSet(Protocol):
    """What an evaluation needs of a data set.

    Attributes:
        name: Name of the data set, as tables print it.
        split: Which part of it.
        keypoints: What the 2D is, in words: "exact", "noisy", "cpn_ft_h36m_dbb", ...
        skeleton: Joint set of the batches.
        stride: One frame in so many was kept.

    Example:
        >>> from propose_prob.datasets.cmu17 import load_cmu17
        >>> data: EvaluationSet = CMU17Set(load_cmu17("val"), stride=1500)
        >>> data.name, data.split, next(data.batches(8)).p2d.shape
        ('CMU17', 'val', torch.Size([8, 17, 2]))
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def split(self) -> str: ...  # noqa: D102
    @property
    def keypoints(self) -> str: ...  # noqa: D102
    @property
    def skeleton(self) -> Skeleton: ...  # noqa: D102
    @property
    def stride(self) -> int: ...  # noqa: D102

    def batches(self, size: int) -> Iterator[EvaluationBatch]:
        """Batches of at most `size` items, the frames of each sequence in order of time."""
        ...


@dataclass(frozen=True)
class CMU17Set:
    """A split of CMU17, all four views of a frame.

    Attributes:
        data: The split.
        keypoints: `"exact"` or `"noisy"`.
        stride: One frame in so many.

    Example:
        >>> from propose_prob.datasets.cmu17 import load_cmu17
        >>> data = CMU17Set(load_cmu17("val"), stride=500)
        >>> sum(len(batch) for batch in data.batches(16))
        36
    """

    data: CMU17
    keypoints: str = "exact"
    stride: int = 1

    @property
    def name(self) -> str:
        """Name of the data set."""
        return "CMU17"

    @property
    def split(self) -> str:
        """Name of the split."""
        return self.data.split

    @property
    def skeleton(self) -> Skeleton:
        """Its joint set."""
        return H36M_17

    def batches(self, size: int) -> Iterator[EvaluationBatch]:
        """Batches in pixels of 1000 x 1000 images, frame by frame, the views side by side."""
        data, stride = self.data, self.stride
        p2d = _HALF_WIDTH * (data.p2d(self.keypoints)[::stride].flatten(0, 1) + 1)
        p3d = data.camera_joints()[::stride].flatten(0, 1)
        frames = torch.arange(0, len(data), stride)
        labels = zip(data.action_of_frames()[::stride], data.seq_id[::stride].tolist(), strict=True)
        actions, sequences = [], []
        for (action, sequence), rig in zip(labels, data.rig_id[::stride].tolist(), strict=True):
            actions += [action] * 4
            sequences += [f"{sequence} rig {rig} view {view}" for view in range(4)]
        frame = frames.repeat_interleave(4)
        for start in range(0, len(p2d), size):
            part = slice(start, start + size)
            count = len(p2d[part])
            yield EvaluationBatch(
                p2d=p2d[part],
                confidence=torch.ones(count, 17),
                p3d=p3d[part],
                focal=torch.full((count,), FOCAL * _HALF_WIDTH),
                center=torch.full((count, 2), _HALF_WIDTH),
                action=actions[part],
                sequence=sequences[part],
                frame=frame[part],
                valid=torch.ones(count, dtype=torch.bool),
            )


@dataclass(frozen=True)
class ClipSet:
    """What a reader yields, as a set.

    Attributes:
        name: Name of the data set.
        split: Which part of it.
        keypoints: What the 2D is.
        skeleton: Joint set of the clips.
        read: Starts reading from the beginning; only one clip is held at a time.
        stride: One frame in so many of each clip.

    Example:
        >>> from propose_prob.datasets.cmu17 import load_cmu17
        >>> cmu = load_cmu17("val")
        >>> p2d, p3d = cmu.p2d()[:50, 0], cmu.p3d()[:50, 0]
        >>> seen, counted = torch.ones(50, 17), torch.ones(50, dtype=torch.bool)
        >>> clip = PoseClip(
        ...     "walk", "S1", H36M_17, ("walk",) * 50, p2d, seen, p3d, FOCAL, (0.0, 0.0), None,
        ...     torch.arange(50), counted,
        ... )
        >>> data = ClipSet("mine", "test", "exact", H36M_17, lambda: [clip], stride=10)
        >>> [batch.frame.tolist() for batch in data.batches(25)]
        [[0, 10, 20], [30, 40]]
    """

    name: str
    split: str
    keypoints: str
    skeleton: Skeleton
    read: Callable[[], Iterable[PoseClip]]
    stride: int = 1

    def batches(self, size: int) -> Iterator[EvaluationBatch]:
        """Batches of one clip each, in order."""
        for batch in evaluation_batches(self.read(), batch_size=size):
            chosen = batch.frame % self.stride == 0
            if bool(chosen.any()):
                yield batch if self.stride == 1 else batch.select(chosen)


@dataclass(frozen=True)
class PairSet:
    """Pairs in memory, for instance a user's own (`propose_prob.datasets.pairs.read_pairs`).

    Attributes:
        name: Name of the data set.
        items: All of it.
        skeleton: Its joint set.
        split: Which part of it.
        keypoints: What the 2D is.
        stride: One item in so many.

    Example:
        >>> import numpy as np, tempfile
        >>> from propose_prob.datasets.pairs import read_pairs
        >>> arrays = {"p2d": np.random.rand(20, 17, 2), "p3d": np.random.rand(20, 17, 3)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/pairs.npz", **arrays)
        ...     items, skeleton = read_pairs(f"{folder}/pairs.npz")
        >>> data = PairSet("mine", items, skeleton, stride=4)
        >>> [len(batch) for batch in data.batches(3)]
        [3, 2]
    """

    name: str
    items: EvaluationBatch
    skeleton: Skeleton
    split: str = "all"
    keypoints: str = "given"
    stride: int = 1

    def batches(self, size: int) -> Iterator[EvaluationBatch]:
        """Batches in the order of the items."""
        for part in torch.arange(0, len(self.items), self.stride).split(size):
            yield self.items.select(part)
