"""`propose-prob evaluate`: the honest table of models on a data set, under a named protocol."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ..errors import InputError
from .options import (
    DEFAULT_MODEL,
    Machine,
    MachineOptions,
    at_least,
    model_name,
    package_version,
    progress,
)

if TYPE_CHECKING:
    from ..evaluation import EvaluationSet, Protocol, Report

__all__ = ["Evaluate", "chosen_protocol", "evaluation_set"]

Name = Literal["cmu17", "h36m-p1", "h36m-p2", "3dhp", "3dpw"]

_SPLITS = {
    "cmu17": ("train", "val", "test_seen", "test_subject03"),
    "h36m-p1": ("S9, S11",),
    "h36m-p2": ("S9, S11",),
    "3dhp": ("test",),
    "3dpw": ("train", "validation", "test"),
}


@dataclass(frozen=True)
class Evaluate:
    """Measure models: errors, proper scores, calibration, reprojection, spread.

    Everything a number depends on is printed above the table. A minimum over samples never stands
    alone, for it rewards a wrong spread. Options left out are the protocol's.

    Attributes:
        models: Names of shipped models or paths of .safetensors files. One gets the whole report,
            several get one table of the protocol's headline metrics.
        protocol: What is measured, on which data set.
        data: Folder of the data set's own files (see `propose_prob.data`); cmu17 ships.
        split: Part of the data set.
        kind: 2D evidence: exact or noisy (cmu17); gt, cpn_ft_h36m_dbb, ... (h36m).
        samples: Samples for each pose.
        use: What is sampled: the law itself, or noise-free hypotheses as published evaluations do.
        hide: Random joints hidden from the model in each pose, chosen by the seed.
        intrinsics: Whether the model is told focal length and principal point. Unknown, the angle
            of an off-centre person is part of the uncertainty.
        stride: Evaluate one frame in so many; 1 evaluates every frame. cmu17's default takes some
            minutes on one core.
        density: Also the log-density of the truth, where the law has one; slow for laws that
            estimate it.
        recalibrated: Use the model's recalibration, if it has one.
        smpl_male: SMPL file for 3dpw's 14 joints; without it the data's own joints lack the head.
        smpl_female: The same for women.
        batch_size: Poses evaluated at once.
        json: Also write everything as JSON; - writes it to the standard output, in place of the
            table.
        markdown: Also write the headline table as Markdown.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = (
        DEFAULT_MODEL,
    )
    protocol: Name = "cmu17"
    data: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    split: str | None = None
    kind: str | None = None
    samples: int | None = None
    use: Literal["law", "hypotheses"] | None = None
    hide: int = 0
    intrinsics: Literal["known", "unknown"] | None = None
    stride: int | None = None
    density: bool = False
    recalibrated: bool = True
    smpl_male: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    smpl_female: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    batch_size: int = 64
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE|-")] = None
    markdown: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    machine: MachineOptions = field(default_factory=Machine)

    def run(self) -> None:
        """Evaluate and print.

        Raises:
            InputError: If an option is out of range, a model cannot be loaded or the data set
                cannot be read.
        """
        if not self.models:
            raise InputError("expected at least one model, got none")
        from ..inference.streams import check_output

        for path in (self.json, self.markdown):
            if path not in (None, "-"):
                check_output(Path(str(path)))
        at_least(self.batch_size, 1, "--batch-size")
        names = [model_name(model) for model in self.models]
        if len(set(names)) < len(names):
            raise InputError(f"expected models of different names, got {', '.join(names)}")
        protocol = chosen_protocol(
            self.protocol,
            split=self.split,
            kind=self.kind,
            samples=self.samples,
            use=self.use,
            hide=self.hide,
            intrinsics=self.intrinsics,
            stride=self.stride,
            density=self.density,
            recalibrated=self.recalibrated,
            seed=self.machine.seed,
        )
        data = evaluation_set(self.protocol, protocol, self.data, self._bodies())
        from ..evaluation import evaluate

        reports: dict[str, Report] = {}
        for name, path in zip(names, self.models, strict=True):
            model = self.machine.load(path)
            with progress(None, total=None, unit="pose") as bar:
                reports[name] = evaluate(
                    model,
                    data,
                    protocol,
                    batch_size=self.batch_size,
                    device=self.machine.device,
                    progress=bar.update,
                )
        self._print(reports)

    def _bodies(self) -> dict[str, Any] | None:
        given = {"m": self.smpl_male, "f": self.smpl_female}
        files = {gender: path for gender, path in given.items() if path is not None}
        if not files:
            return None
        if self.protocol != "3dpw" or len(files) < 2:
            raise InputError("expected --smpl-male and --smpl-female together, for 3dpw only")
        from ..bodies.smpl import load_smpl

        return {gender: load_smpl(path) for gender, path in files.items()}

    def _print(self, reports: dict[str, Report]) -> None:
        from ..evaluation import comparison
        from ..inference.streams import atomic_path

        stored = json.loads(comparison(reports, style="json"))
        text = json.dumps({"propose_prob_version": package_version(), **stored}, indent=2) + "\n"
        if self.markdown is not None:
            with atomic_path(Path(self.markdown)) as temporary:
                temporary.write_text(comparison(reports, style="markdown") + "\n")
        if self.json == "-":
            sys.stdout.write(text)
            return
        if self.json is not None:
            with atomic_path(Path(self.json)) as temporary:
                temporary.write_text(text)
        if len(reports) > 1:
            print(comparison(reports))
            return
        for name, report in reports.items():
            print(f"Model: {name}\n")
            print(report.to_table())


def chosen_protocol(
    name: str,
    *,
    split: str | None = None,
    kind: str | None = None,
    samples: int | None = None,
    use: str | None = None,
    hide: int = 0,
    intrinsics: str | None = None,
    stride: int | None = None,
    density: bool = False,
    recalibrated: bool = True,
    seed: int = 0,
) -> Protocol:
    """A named protocol with what was chosen on the command line; see `Evaluate`.

    Raises:
        InputError: If an option is out of range.
    """
    from ..evaluation import PROTOCOLS

    for value, least, option in (
        (samples, 2, "--samples"),
        (hide, 0, "--hide"),
        (stride, 1, "--stride"),
    ):
        if value is not None:
            at_least(value, least, option)
    if hide > 15:
        raise InputError(f"expected --hide of at most 15 of 17 joints, got {hide}")
    if split is not None and split not in _SPLITS[name]:
        known = ", ".join(_SPLITS[name])
        raise InputError(f"expected --split of {known} for {name}, got {split!r}")
    base = PROTOCOLS[name]
    given: dict[str, Any] = {
        "split": split,
        "keypoints": kind,
        "num_samples": samples,
        "samples": use,
        "intrinsics": intrinsics,
        "frame_stride": stride,
        "hidden_joints": hide or base.hidden_joints,
    }
    return replace(
        base,
        point="the law's point estimate",
        density=density,
        calibrated=recalibrated,
        seed=seed,
        **{name: value for name, value in given.items() if value is not None},
    )


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
        from ..data.cmu17 import load_cmu17

        if kind not in ("exact", "noisy"):
            raise InputError(f"expected --kind of exact or noisy for cmu17, got {kind!r}")
        if kind == "noisy" and protocol.split == "train":
            raise InputError("split train ships no detector noise: use --kind exact")
        return CMU17Set(load_cmu17(protocol.split), kind, stride)
    if folder is None:
        raise InputError(f"{protocol.dataset} does not ship: expected --data DIR, got none")
    place = folder
    from ..pose.skeleton import H36M_17, MPI_INF_3DHP_17

    if name in ("h36m-p1", "h36m-p2"):
        from ..data.h36m import read_h36m

        return ClipSet(
            *(protocol.dataset, protocol.split, kind, H36M_17),
            read=lambda: read_h36m(place, detections=kind),
            stride=stride,
        )
    expected = "gt" if name == "3dhp" else "detected"
    if kind != expected:
        raise InputError(f"expected --kind {expected} for {name}, got {kind!r}")
    if name == "3dhp":
        from ..data.mpi_inf_3dhp import read_mpi_inf_3dhp_test

        return ClipSet(
            *(protocol.dataset, protocol.split, kind, MPI_INF_3DHP_17),
            read=lambda: read_mpi_inf_3dhp_test(place),
            stride=stride,
        )
    from ..data.threedpw import read_3dpw

    split: Any = protocol.split
    return ClipSet(
        *(protocol.dataset, protocol.split, kind, H36M_17),
        read=lambda: read_3dpw(place, split=split, bodies=bodies),
        stride=stride,
    )
