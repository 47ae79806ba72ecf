"""Protocol and data set options shared by `evaluate` and `report`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..errors import InputError
from .options import at_least, progress

if TYPE_CHECKING:
    from ..evaluation import Protocol
    from ..evaluation.reports import Report
    from ..evaluation.sets import EvaluationSet
    from ..evaluation.worst_cases import WorstCaseTracker

__all__ = ["Measure", "MeasureOptions", "Name", "evaluation_set"]

Name = Literal["cmu17", "h36m-p1", "h36m-p2", "3dhp", "3dpw"]

_SPLITS = {
    "cmu17": ("train", "val", "test_seen", "test_subject03"),
    "h36m-p1": ("S9, S11",),
    "h36m-p2": ("S9, S11",),
    "3dhp": ("test",),
    "3dpw": ("train", "validation", "test"),
}


@dataclass(frozen=True)
class Measure:
    """What is measured; options left out are the protocol's.

    Attributes:
        kind: 2D evidence: exact or noisy (cmu17); gt, cpn_ft_h36m_dbb, ... (h36m).
        samples: Samples for each pose.
        use: What is sampled: the distribution itself, or noise-free hypotheses as published
            evaluations do.
        hide: Random joints hidden from the model in each pose, chosen by the seed.
        intrinsics: Whether the model is told focal length and principal point. Unknown, the angle
            of an off-center person is part of the uncertainty.
        stride: Evaluate one frame in so many; 1 evaluates every frame. cmu17's default takes some
            minutes on one core.
        density: Also the log-density of the truth, where the distribution has one; slow for
            distributions that estimate it.
        recalibrated: Use the model's recalibration, if it has one.
        batch_size: Poses evaluated at once.
    """

    kind: str | None = None
    samples: int | None = None
    use: Literal["distribution", "hypotheses"] | None = None
    hide: int = 0
    intrinsics: Literal["known", "unknown"] | None = None
    stride: int | None = None
    density: bool = False
    recalibrated: bool = True
    batch_size: int = 64

    def protocol(self, name: str, *, split: str | None, seed: int) -> Protocol:
        """A named protocol with what was chosen on the command line.

        Raises:
            InputError: If an option is out of range.
        """
        from ..evaluation import PROTOCOLS

        for value, least, option in (
            (self.samples, 2, "--samples"),
            (self.hide, 0, "--hide"),
            (self.stride, 1, "--stride"),
            (self.batch_size, 1, "--batch-size"),
        ):
            if value is not None:
                at_least(value, least, option)
        if self.hide > 15:
            raise InputError(f"expected --hide of at most 15 of 17 joints, got {self.hide}")
        if split is not None and split not in _SPLITS[name]:
            known = ", ".join(_SPLITS[name])
            raise InputError(f"expected --split of {known} for {name}, got {split!r}")
        base = PROTOCOLS[name]
        given: dict[str, Any] = {
            "split": split,
            "keypoints": self.kind,
            "num_samples": self.samples,
            "samples": self.use,
            "intrinsics": self.intrinsics,
            "frame_stride": self.stride,
            "hidden_joints": self.hide or base.hidden_joints,
        }
        return replace(
            base,
            point="the distribution's point estimate",
            density=self.density,
            calibrated=self.recalibrated,
            seed=seed,
            **{name: value for name, value in given.items() if value is not None},
        )

    def evaluate(
        self,
        model: Any,
        data: EvaluationSet,
        protocol: Protocol,
        *,
        device: str,
        gallery: WorstCaseTracker | None = None,
    ) -> Report:
        """Everything measured about one model, with a progress bar.

        Raises:
            InputError: If the data set cannot be read.
        """
        from ..evaluation import evaluate

        with progress(None, total=None, unit="pose") as bar:
            return evaluate(
                model,
                data,
                protocol,
                batch_size=self.batch_size,
                device=device,
                gallery=gallery,
                progress=bar.update,
            )


MeasureOptions = Annotated[Measure, tyro.conf.arg(name="")]
"""`Measure` as a field of a command, its options without a prefix."""


def evaluation_set(
    name: str, protocol: Protocol, folder: Path | None, bodies: dict[str, Any] | None = None
) -> EvaluationSet:
    """The data set that a named protocol measures on.

    Args:
        name: Name of the protocol.
        protocol: Says which split, 2D and stride.
        folder: Where the data set's files are; None for CMU17, which ships.
        bodies: SMPL bodies for `"m"` and `"f"`, for 3DPW.

    Raises:
        InputError: If the folder is missing or the 2D is not to be had.
    """
    from ..evaluation import ClipSet, CMU17Set

    kind, stride = protocol.keypoints, protocol.frame_stride
    if name == "cmu17":
        from ..datasets.cmu17 import load_cmu17

        if kind not in ("exact", "noisy"):
            raise InputError(f"expected --kind of exact or noisy for cmu17, got {kind!r}")
        if kind == "noisy" and protocol.split == "train":
            raise InputError("split train ships no detector noise: use --kind exact")
        return CMU17Set(load_cmu17(protocol.split), kind, stride)
    if folder is None:
        raise InputError(f"{protocol.dataset} does not ship: expected --data DIR, got none")
    place = folder
    from ..geometry.skeletons import H36M_17, MPI_INF_3DHP_17

    if name in ("h36m-p1", "h36m-p2"):
        from ..datasets.h36m import read_h36m

        return ClipSet(
            *(protocol.dataset, protocol.split, kind, H36M_17),
            read=lambda: read_h36m(place, detections=kind),
            stride=stride,
        )
    expected = "gt" if name == "3dhp" else "detected"
    if kind != expected:
        raise InputError(f"expected --kind {expected} for {name}, got {kind!r}")
    if name == "3dhp":
        from ..datasets.mpi_inf_3dhp import read_mpi_inf_3dhp_test

        return ClipSet(
            *(protocol.dataset, protocol.split, kind, MPI_INF_3DHP_17),
            read=lambda: read_mpi_inf_3dhp_test(place),
            stride=stride,
        )
    from ..datasets.threedpw import read_3dpw

    split: Any = protocol.split
    return ClipSet(
        *(protocol.dataset, protocol.split, kind, H36M_17),
        read=lambda: read_3dpw(place, split=split, bodies=bodies),
        stride=stride,
    )
