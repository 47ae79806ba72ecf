"""Evaluate models on a data set under a protocol, and compare them in one table."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from ..distributions.recalibration import BaseRecalibration, Recalibration
from ..errors import InputError
from ..geometry.skeletons import H36M_17, Skeleton
from .conditions import Condition, Prepared, prepare
from .evaluator import Evaluator, evaluated_joints
from .metrics import METRICS
from .protocol import Protocol
from .reports import Report, align
from .sets import EvaluationSet
from .worst_cases import WorstCaseTracker

__all__ = ["comparison", "evaluate"]


@torch.no_grad()
def evaluate(
    model: Any,
    data: EvaluationSet,
    protocol: Protocol,
    *,
    skeleton: Skeleton = H36M_17,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    gallery: WorstCaseTracker | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Evaluate a model on a data set as a protocol says, batch by batch in constant memory.

    Hidden joints depend on the protocol's seed, sequence and frame only. The set's `stride` is the
    protocol's `frame_stride`: make both from one number.

    Args:
        model: Has `conditional(p2d, confidence, focal=, center=)` over poses `(J, 3)`.
        data: The set.
        protocol: Says what is measured.
        skeleton: The model's joint set.
        batch_size: Poses at once.
        device: Where the model is.
        gallery: Keeps the worst items, if there should be any.
        progress: Called with the number of poses of each batch.

    Returns:
        The report.

    Raises:
        InputError: If set and protocol do not fit, the set has no valid item, a joint that counts
            has no true position, or a recalibration cannot be left out where the protocol says so.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set
        >>> data = CMU17Set(propose_prob.datasets.load_cmu17("val"), stride=1500)
        >>> protocol = Protocol(
        ...     "CMU17", "val", keypoints="exact", num_samples=20, samples="distribution",
        ...     intrinsics="known", frame_stride=1500,
        ... )
        >>> report = evaluate(propose_prob.load("prohmr-lifting-cmu17"), data, protocol)
        >>> report.num_items, report.items.best_mpjpe < report.items.point_mpjpe < 40
        (12, True)
    """
    if data.stride != protocol.frame_stride:
        raise InputError(
            f"expected a data set of stride {protocol.frame_stride} as the protocol says, "
            f"got {data.stride}"
        )
    condition = Condition(
        protocol.intrinsics, protocol.hidden_joints or 0, protocol.seed, protocol.min_joints
    )
    joints = evaluated_joints(protocol, skeleton)
    evaluator = Evaluator(protocol, skeleton=skeleton)
    conditional = conditional_of(model, recalibrated=protocol.calibrated)
    torch.manual_seed(protocol.seed)
    count = 0
    for batch in data.batches(batch_size):
        item = prepare(batch, data.skeleton, skeleton, condition, device=device)
        if len(item):
            _add(evaluator, conditional, item, joints, skeleton, gallery)
        count += len(item)
        if progress is not None:
            progress(len(batch))
    if count == 0:
        raise InputError(f"{data.name} {data.split}: expected at least one valid pose, got none")
    return evaluator.report()


def conditional_of(model: Any, *, recalibrated: bool) -> Callable[..., Any]:
    """A model's `conditional`, with or without what was fitted on held-out data.

    Args:
        model: Has `conditional`; one that can be recalibrated takes `recalibrated` there.
        recalibrated: Whether its recalibration is to be applied.

    Raises:
        InputError: If the model has a recalibration that cannot be left out.
    """
    if recalibrated:
        return model.conditional
    parameters = inspect.signature(model.conditional).parameters.values()
    if any(p.name == "recalibrated" or p.kind is p.VAR_KEYWORD for p in parameters):
        return partial(model.conditional, recalibrated=False)
    own = getattr(model, "calibration", None)
    parts = model.modules() if isinstance(model, nn.Module) else [own]
    if any(isinstance(part, (Recalibration, BaseRecalibration)) for part in parts):
        raise InputError(
            f"expected {type(model).__name__}.conditional to take recalibrated=False, "
            "as the model has a recalibration"
        )
    return model.conditional


def _add(
    evaluator: Evaluator,
    conditional: Callable[..., Any],
    item: Prepared,
    joints: list[int],
    skeleton: Skeleton,
    gallery: WorstCaseTracker | None,
) -> None:
    protocol = evaluator.protocol
    distribution = conditional(
        item.p2d, item.confidence, focal=item.told_focal, center=item.told_center
    )
    # An exact distribution has no observation noise: its samples are its hypotheses.
    noiseless = protocol.samples == "hypotheses" and hasattr(type(distribution), "hypotheses")
    samples = (distribution.hypotheses if noiseless else distribution.sample)(
        (protocol.num_samples,)
    )
    target = item.target[:, joints]
    if not bool(target.isfinite().all()):
        row, joint = (~target.isfinite().all(-1)).nonzero()[0].tolist()
        raise InputError(
            f"protocol {protocol.name} needs a true {skeleton.joint_names[joints[joint]]}, which "
            f"{item.sequence[row]}, frame {int(item.frame[row])}, does not have"
        )
    kind = getattr(distribution, "log_prob_kind", "exact")
    p2d = focal = None
    if item.focal is not None and item.center is not None:
        p2d, focal = (item.p2d - item.center[:, None])[:, joints], item.focal
    evaluator.update(
        samples[:, :, joints],
        distribution.point_estimate[:, joints],
        target,
        item.visible[:, joints],
        p2d=p2d,
        focal=focal,
        group=_groups(protocol, item),
        sequence=item.sequence,
        frame=item.frame,
        log_prob=distribution.log_prob(item.target)
        if protocol.density and kind != "none"
        else None,
        log_prob_kind=kind,
    )
    if gallery is not None:
        gallery.update(item, samples, distribution.point_estimate)


def _groups(protocol: Protocol, item: Prepared) -> list[str]:
    if protocol.grouping == "action":
        return item.action
    if protocol.grouping == "sequence":
        return item.sequence
    # Readers end a sequence's name with its setting, as in "TS1 GS".
    return [name.split()[-1] for name in item.sequence]


def comparison(reports: Mapping[str, Report], *, style: str = "text") -> str:
    """Several models under one protocol in one table.

    Args:
        reports: Report of each model, by its name.
        style: `"text"`, `"markdown"` or `"json"`.

    Returns:
        The protocol and the table of its headline metrics; as JSON, everything of every report.

    Raises:
        InputError: If there is no report, the protocols differ or the style is unknown.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set
        >>> data = CMU17Set(propose_prob.datasets.load_cmu17("val"), stride=1500)
        >>> protocol = Protocol(
        ...     "CMU17", "val", keypoints="exact", num_samples=20,
        ...     samples="distribution", frame_stride=1500
        ... )
        >>> models = {"lifting flow": propose_prob.load("prohmr-lifting-cmu17")}
        >>> reports = {name: evaluate(model, data, protocol) for name, model in models.items()}
        >>> print(comparison(reports))
        Protocol: custom. CMU17, split val: exact 2D, 4 views, one frame in 1500, ...
        model                            lifting flow
        ---------------------------------------------
        estimate (mm)                            37.1
        ...
    """
    if not reports:
        raise InputError("expected at least one report, got none")
    protocols = {report.protocol for report in reports.values()}
    if len(protocols) > 1:
        raise InputError("expected reports under one protocol, got several")
    if style == "json":
        stored = {name: json.loads(report.to_json()) for name, report in reports.items()}
        return json.dumps({"models": stored}, indent=2)
    if style not in ("text", "markdown"):
        raise InputError(f"expected style text, markdown or json, got {style!r}")
    protocol = protocols.pop()
    values = {"samples": protocol.num_samples, "pixels": protocol.keypoint_unit}
    values["pck"] = f"{protocol.pck_threshold:g}"
    names = protocol.headline
    titles = ["model", *(METRICS[name].label.strip().format(**values) for name in names)]
    rows = [
        [model, *(METRICS[name].format(getattr(report.headline, name)) for name in names)]
        for model, report in reports.items()
    ]
    text = f"Protocol: {protocol.name}. {protocol.describe()}"
    if style == "text":
        # Metrics below each other: names are longer than numbers.
        turned = [list(column) for column in zip(titles, *rows, strict=True)]
        return f"{textwrap.fill(text, width=100)}\n\n{align(turned)}"
    lines = [f"| {' | '.join(row)} |" for row in (titles, *rows)]
    lines.insert(1, "|---" * len(titles) + "|")
    return "\n".join([*textwrap.wrap(text, width=100), "", *lines])
