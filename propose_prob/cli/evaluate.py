"""`propose-prob evaluate`: the honest table of a model on a data set."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

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
    from torch import Tensor

    from ..data.cmu17 import CMU17
    from ..evaluation import Protocol, Report
    from ..tasks import PoseModel

__all__ = ["Evaluate", "evaluate_cmu17"]

#: Pixels of half an image width: errors are told for an image of 1000 x 1000 pixels.
_HALF_WIDTH = 500


@dataclass(frozen=True)
class Evaluate:
    """Measure a model: errors, proper scores, calibration, reprojection, spread.

    Everything a number depends on is printed above the table. A minimum over samples never stands
    alone, for it rewards a wrong spread.

    Attributes:
        data: Data set; it ships with the package.
        split: Its split.
        kind: 2D evidence: exact projections, or with detector-like noise (not in train).
        model: Name of a shipped model or path of a .safetensors file.
        samples: Samples for each pose.
        use: What is sampled: the law itself, or noise-free hypotheses as published evaluations do.
        hide: Random joints hidden from the model in each pose, chosen by the seed.
        intrinsics: Whether the model is told the focal length and principal point, which the data
            set gives. Unknown, the angle of an off-centre person is part of the uncertainty.
        stride: Evaluate one frame in so many, with all four views; 1 evaluates every frame. The
            default takes about a minute on one core.
        batch_size: Poses evaluated at once.
        json: Also write the report as JSON; - writes it to the standard output, in place of the
            table.
    """

    data: Literal["cmu17"] = "cmu17"
    split: Literal["train", "val", "test_seen", "test_subject03"] = "test_seen"
    kind: Literal["exact", "noisy"] = "exact"
    model: str = DEFAULT_MODEL
    samples: int = 200
    use: Literal["law", "hypotheses"] = "law"
    hide: int = 0
    intrinsics: Literal["known", "unknown"] = "known"
    stride: int = 4
    batch_size: int = 64
    json: Annotated[str | None, tyro.conf.arg(metavar="FILE|-")] = None
    machine: MachineOptions = field(default_factory=Machine)

    def run(self) -> None:
        """Evaluate and print.

        Raises:
            InputError: If an option is out of range or the model cannot be loaded.
        """
        for value, least, option in (
            (self.samples, 2, "--samples"),
            (self.hide, 0, "--hide"),
            (self.stride, 1, "--stride"),
            (self.batch_size, 1, "--batch-size"),
        ):
            at_least(value, least, option)
        if self.hide > 15:
            raise InputError(f"expected --hide of at most 15 of 17 joints, got {self.hide}")
        if self.kind == "noisy" and self.split == "train":
            raise InputError("split train ships no detector noise: use --kind exact")
        from ..data.cmu17 import load_cmu17
        from ..evaluation import Protocol
        from ..inference.streams import check_output

        if self.json not in (None, "-"):
            check_output(Path(str(self.json)))
        model = self.machine.load(self.model)

        protocol = Protocol(
            "CMU17",
            self.split,
            keypoints=self.kind,
            num_samples=self.samples,
            samples=self.use,
            point="the decoded centre of the base",
            intrinsics=self.intrinsics,
            hidden_joints=self.hide,
            frame_stride=self.stride,
            seed=self.machine.seed,
            keypoint_unit="px of a 1000 px image",
        )
        data = load_cmu17(self.split)
        report = evaluate_cmu17(
            model, data, protocol, batch_size=self.batch_size, device=self.machine.device
        )
        self._print(report)

    def _print(self, report: Report) -> None:
        about = {"model": model_name(self.model), "propose_prob_version": package_version()}
        text = json.dumps({**about, **json.loads(report.to_json())}, indent=2) + "\n"
        if self.json == "-":
            sys.stdout.write(text)
            return
        if self.json is not None:
            from ..inference.streams import atomic_path

            with atomic_path(Path(self.json)) as temporary:
                temporary.write_text(text)
        print(f"Model: {model_name(self.model)}\n")
        print(report.to_table())


class _Batch(NamedTuple):
    p2d: Tensor
    visible: Tensor
    target: Tensor
    actions: list[str]


def evaluate_cmu17(
    model: PoseModel,
    data: CMU17,
    protocol: Protocol,
    *,
    batch_size: int = 64,
    device: str = "cpu",
) -> Report:
    """Evaluate a model on CMU17 as a protocol says, batch by batch.

    Hidden joints depend on the protocol's seed only, not on stride or batch size.

    Args:
        model: For instance a `ProPose`.
        data: A split.
        protocol: Says what is measured; its `num_views` is 4.
        batch_size: Poses at once.
        device: Where the model is.

    Returns:
        The report.
    """
    import torch

    from ..data.cmu17 import FOCAL
    from ..evaluation import Evaluator

    evaluator = Evaluator(protocol)
    focal = FOCAL * _HALF_WIDTH
    total = -(-len(data) // protocol.frame_stride) * 4
    torch.manual_seed(protocol.seed)
    with progress(None, total=total, unit="pose") as bar, torch.no_grad():
        for batch in _batches(data, protocol, batch_size):
            p2d, visible = batch.p2d.to(device), batch.visible.to(device)
            law = model.conditional(
                torch.where(visible[..., None], p2d, torch.nan),
                visible.to(p2d.dtype),
                focal=focal if protocol.intrinsics == "known" else None,
            )
            draw = law.sample if protocol.samples == "law" else law.hypotheses
            evaluator.update(
                draw((protocol.num_samples,)),
                law.point_estimate,
                batch.target.to(device),
                visible,
                p2d=p2d,
                focal=focal,
                group=batch.actions,
            )
            bar.update(len(p2d))
    return evaluator.report()


def _batches(data: CMU17, protocol: Protocol, batch_size: int) -> Iterator[_Batch]:
    import torch

    stride, hide = protocol.frame_stride, protocol.hidden_joints or 0
    generator = torch.Generator().manual_seed(protocol.seed)
    order = torch.rand(len(data), 4, 17, generator=generator).argsort(-1)
    p2d = data.p2d(protocol.keypoints)[::stride].flatten(0, 1) * _HALF_WIDTH
    target = data.p3d()[::stride].flatten(0, 1)
    visible = (order >= hide)[::stride].flatten(0, 1)
    actions = [action for action in data.action_of_frames()[::stride] for _ in range(4)]
    for start in range(0, len(p2d), batch_size):
        part = slice(start, start + batch_size)
        yield _Batch(p2d[part], visible[part], target[part], actions[part])
