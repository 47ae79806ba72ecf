"""`propose-prob evaluate`: metrics of models on a data set under a named protocol."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .. import __version__
from ..errors import InputError
from ..io.atomic import check_outputs, write_text
from .measure import Measure, MeasureOptions, Name, evaluation_set
from .options import DEFAULT_MODEL, Runtime, RuntimeOptions, model_name
from .output import tell

if TYPE_CHECKING:
    from ..evaluation.reports import Report

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """Measure models: errors, proper scores, calibration, reprojection, spread.

    Everything a number depends on is printed above the table. A minimum over samples never stands
    alone, for it rewards a wrong spread. Options left out are the protocol's.

    Attributes:
        models: Names of shipped models or paths of .safetensors files. One gets the whole report,
            several get one table of the protocol's headline metrics.
        protocol: What is measured, on which data set.
        data: Folder of the data set's own files (see `propose_prob.datasets`); cmu17 ships.
        split: Part of the data set.
        smpl_male: SMPL file for 3dpw's 14 joints; without it the data's own joints lack the head.
        smpl_female: The same for women.
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
    smpl_male: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    smpl_female: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE|-")] = None
    markdown: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None
    measure: MeasureOptions = field(default_factory=Measure)
    machine: Runtime = field(default_factory=RuntimeOptions)

    def run(self) -> None:
        """Evaluate and print.

        Raises:
            InputError: If an option is out of range, a model cannot be loaded or the data set
                cannot be read.
        """
        if not self.models:
            raise InputError("expected at least one model, got none")
        outputs = [Path(path) for path in (self.json, self.markdown) if path not in (None, "-")]
        check_outputs(outputs, [*self.models, self.data, self.smpl_male, self.smpl_female])
        names = [model_name(model) for model in self.models]
        if len(set(names)) < len(names):
            raise InputError(f"expected models of different names, got {', '.join(names)}")
        seed = self.machine.seed
        protocol = self.measure.protocol(self.protocol, split=self.split, seed=seed)
        data = evaluation_set(self.protocol, protocol, self.data, self._bodies())
        reports: dict[str, Report] = {}
        for name, path in zip(names, self.models, strict=True):
            model = self.machine.load(path)
            reports[name] = self.measure.evaluate(model, data, protocol, device=self.machine.device)
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

        stored = json.loads(comparison(reports, style="json"))
        text = json.dumps({"propose_prob_version": __version__, **stored}, indent=2) + "\n"
        if self.markdown is not None:
            write_text(self.markdown, comparison(reports, style="markdown") + "\n")
        if self.json == "-":
            tell(*text.splitlines())
            return
        if self.json is not None:
            write_text(self.json, text)
        if len(reports) > 1:
            tell(*comparison(reports).split("\n"))
            return
        for name, report in reports.items():
            tell(f"Model: {name}", "", *report.to_table().split("\n"))
