"""`propose-prob report`: evaluate a model and write one HTML page."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import tyro

from ..errors import InputError
from ..io.atomic import check_outputs, write_text
from .measure import Measure, MeasureOptions, Name, evaluation_set
from .options import Runtime, RuntimeOptions, at_least, model_name, prepare_drawing
from .output import tell

if TYPE_CHECKING:
    from ..evaluation import Protocol
    from ..evaluation.sets import EvaluationSet

__all__ = ["WriteReport"]

#: Meters; single precision holds no poses beyond that.
_FAR = 1e7


@dataclass(frozen=True)
class WriteReport:
    """Write one HTML page about a model on a data set: tables, calibration, worst cases.

    The page needs no network and no other file. Options left out are the protocol's.

    Attributes:
        model: Name of a shipped model or path of a .safetensors file.
        data: cmu17:SPLIT (val, test_seen, test_subject03, train), or h36m-p1:DIR, h36m-p2:DIR,
            3dhp:DIR, 3dpw:DIR with the data set's own files, or your own .npz with arrays p2d
            (N, J, 2), pixels, and p3d (N, J, 3), meters, and if you have them confidence, focal,
            center, action, sequence, frame, skeleton (see `propose_prob.datasets.pairs`).
        out: File to write.
        worst: Poses drawn, those of largest error.
    """

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    data: Annotated[str, tyro.conf.arg(metavar="NAME:PART|FILE")] = "cmu17:test_seen"
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.html")] = Path("report.html")
    worst: int = 4
    measure: MeasureOptions = field(default_factory=Measure)
    machine: Runtime = field(default_factory=RuntimeOptions)

    def run(self) -> None:
        """Evaluate, draw and write.

        Raises:
            InputError: If an option is out of range, or the model or the data cannot be read.
        """
        at_least(self.worst, 0, "--worst")
        prepare_drawing()
        check_outputs([self.out], [self.model, self.data, self.data.partition(":")[2] or None])
        protocol, data = self._data()
        from ..evaluation.worst_cases import WorstCaseTracker
        from ..geometry.skeletons import H36M_17
        from ..plotting import report_page

        model = self.machine.load(self.model)
        gallery = WorstCaseTracker(self.worst) if self.worst else None
        report = self.measure.evaluate(
            model, data, protocol, device=self.machine.device, gallery=gallery
        )
        page = report_page(
            report,
            model=model_name(self.model),
            skeleton=H36M_17,
            worst=gallery.cases() if gallery is not None else (),
            note=self._command(),
        )
        write_text(self.out, page)
        tell(f"wrote {self.out}")

    def _data(self) -> tuple[Protocol, EvaluationSet]:
        name, _, place = self.data.partition(":")
        if name in get_args(Name):
            split = place or None if name == "cmu17" else None
            protocol = self._protocol(name, split)
            folder = None if name == "cmu17" else Path(place) if place else None
            return protocol, evaluation_set(name, protocol, folder)
        if Path(self.data).suffix != ".npz":
            raise InputError(
                f"expected --data of {', '.join(f'{n}:...' for n in get_args(Name))} or a path of "
                f"an .npz file, got {self.data!r}"
            )
        if self.measure.kind is not None:
            raise InputError("expected no --kind with a file, which holds one kind of 2D")
        return self._own(Path(self.data))

    def _own(self, path: Path) -> tuple[Protocol, EvaluationSet]:
        from dataclasses import replace

        from ..datasets.pairs import read_pairs
        from ..evaluation import PairSet

        items, skeleton = read_pairs(path)
        far = items.p3d.abs().flatten(1).amax(1)
        if not bool((far <= _FAR).all()):
            item = int((far <= _FAR).int().argmin())
            raise InputError(
                f"{path}: expected p3d in meters, at most {_FAR:g}, got {float(far[item]):.3g} for "
                f"item {item}"
            )
        known: Literal["known", "unknown"] = "unknown" if items.focal is None else "known"
        protocol = replace(
            self._protocol("cmu17", None),
            name="own data",
            dataset=path.name,
            split="all",
            keypoints="given",
            num_views=None,
            hidden_joints=None,
            intrinsics=self.measure.intrinsics or known,
            frame_stride=self.measure.stride or 1,
        )
        return protocol, PairSet(path.name, items, skeleton, stride=protocol.frame_stride)

    def _protocol(self, name: str, split: str | None) -> Protocol:
        return self.measure.protocol(name, split=split, seed=self.machine.seed)

    def _command(self) -> str:
        return shlex.join(
            ["propose-prob", "report", model_name(self.model), "--data", self.data]
            + (["--kind", self.measure.kind] if self.measure.kind else [])
            + (["--hide", str(self.measure.hide)] if self.measure.hide else [])
            + (["--stride", str(self.measure.stride)] if self.measure.stride else [])
        )
