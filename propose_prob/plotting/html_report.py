"""An evaluation as one self-contained HTML page."""

from __future__ import annotations

import html
import io
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..evaluation.metrics import METRICS, Metrics
from ..evaluation.reports import ESTIMATES, GROUP_COLUMNS, Report
from ..evaluation.worst_cases import WorstCase
from ..geometry.skeletons import Skeleton
from .diagnostics import (
    draw_best_of,
    draw_calibration,
    draw_pit,
    draw_sparsification,
    draw_spread_error,
)
from .figures import FAINT, INK, SIDES, VIEWS, draw_keypoints, draw_poses, require_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["report_page"]

#: Numbers at the top of the page, in words that fit a tile.
_TILES = {
    "point_mpjpe": "estimate, MPJPE (mm)",
    "mean_mpjpe": "mean of samples (mm)",
    "best_mpjpe": "best of {samples} (mm)",
    "energy_joint": "energy score (mm)",
    "ece": "calibration error",
    "ece_signed": "signed (+ too wide)",
}


def report_page(
    report: Report,
    *,
    model: str,
    skeleton: Skeleton,
    worst: Sequence[WorstCase] = (),
    note: str = "",
) -> str:
    """The page: settings, metrics, calibration, best of m, spread against error, worst cases.

    Drawings are inline SVG, style sheets are inline: the page asks no network for anything. It
    follows the reader's choice of a light or dark screen.

    Args:
        report: What was measured.
        model: Name of the model.
        skeleton: The model's joint set, for the drawings.
        worst: Items to draw, as `Gallery.cases` gives them.
        note: A line under the title, for instance the command.

    Returns:
        HTML.

    Raises:
        InputError: If matplotlib is missing.

    Example:
        >>> import propose_prob
        >>> from propose_prob.evaluation import CMU17Set, Protocol, evaluate
        >>> data = CMU17Set(propose_prob.datasets.load_cmu17("val"), stride=1500)
        >>> protocol = Protocol(
        ...     "CMU17", "val", keypoints="exact", num_samples=20,
        ...     samples="distribution", frame_stride=1500
        ... )
        >>> report = evaluate(propose_prob.load("prohmr-lifting-cmu17"), data, protocol)
        >>> page = report_page(report, model="lifting flow", skeleton=data.skeleton)
        >>> page.lower().startswith("<!doctype html>")
        True
    """
    require_matplotlib()
    title = f"{model} on {report.protocol.dataset}, {report.protocol.split}"
    sections = [
        _tiles(report),
        _section(
            "What was measured", f"<p>{_text(report.protocol.describe())}</p>", _settings(report)
        ),
        _section("Errors", _errors(report)),
        _section("The distribution", _distribution(report), _coverage(report)),
        _section("Calibration", _calibration(report)),
        _section("Hypotheses and spread", _spread(report)),
        _section("Joints", _joints(report)),
    ]
    if report.by_action:
        sections.append(_section(f"By {report.protocol.grouping}", _groups(report)))
    if worst:
        sections.append(_section("Worst cases", _worst(worst, skeleton)))
    template = resources.files(__package__).joinpath("report.html").read_text("utf-8")
    values = {
        "title": _text(title),
        "note": _text(note),
        "summary": _text(_summary(report)),
        "body": "\n".join(sections),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _summary(report: Report) -> str:
    signed, error = report.headline.ece_signed, report.headline.ece
    width = "too wide" if signed > 0 else "too narrow"
    verdict = "close to calibrated" if error < 0.03 else f"rather {width}"
    return (
        f"{report.num_items} poses, {report.protocol.num_samples} samples each. On average the "
        f"distribution "
        f"is {verdict}: its calibration error is {error:.3f} ({signed:+.3f}). A minimum over "
        "samples rewards a wrong spread, so it stands beside scores that do not."
    )


def _tiles(report: Report) -> str:
    cells = []
    for name, label in _TILES.items():
        value = METRICS[name].format(getattr(report.headline, name))
        words = label.format(samples=report.protocol.num_samples)
        cells.append(f"<div><b>{value}</b><span>{_text(words)}</span></div>")
    return f'<div class="tiles">{"".join(cells)}</div>'


def _settings(report: Report) -> str:
    rows = []
    for field in fields(report.protocol):
        value = getattr(report.protocol, field.name)
        if field.name == "headline":
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        rows.append([field.name.replace("_", " "), shown or "all"])
    return (
        f"<details><summary>Every setting</summary>{_table(['setting', 'value'], rows)}</details>"
    )


def _columns(report: Report) -> Mapping[str, Metrics]:
    if report.actions is None:
        return {"mean over poses": report.items}
    return {
        "mean over poses": report.items,
        f"mean over {report.protocol.grouping}s": report.actions,
    }


def _errors(report: Report) -> str:
    columns = _columns(report)
    titles = ["error (mm)"] + [f"{k}, {over}" for over in columns for k in ("MPJPE", "PA-MPJPE")]
    rows = [
        [
            label.format(samples=report.protocol.num_samples),
            *(
                METRICS[f"{prefix}{kind}"].format(getattr(m, f"{prefix}{kind}"))
                for m in columns.values()
                for kind in ("_mpjpe", "_pa_mpjpe")
            ),
        ]
        for prefix, label in ESTIMATES.items()
    ]
    return _table(titles, rows)


def _distribution(report: Report) -> str:
    columns = _columns(report)
    rows = [
        [
            report.label(name).strip(),
            *(METRICS[name].format(getattr(m, name)) for m in columns.values()),
        ]
        for name in METRICS
        if METRICS[name].listed and any(math.isfinite(getattr(m, name)) for m in columns.values())
    ]
    return _table(["metric", *columns], rows)


def _coverage(report: Report) -> str:
    rows = [
        [f"{100 * level:.0f} %", *(f"{100 * share:.1f} %" for share in row)]
        for level, row in zip(report.coverage.levels, report.coverage.axes.tolist(), strict=True)
    ]
    heads = ["central interval", "across", "down", "depth"]
    return "<p>How often central intervals of coordinates hold the truth:</p>" + _table(heads, rows)


def _calibration(report: Report) -> str:
    pit = report.pit.clone()
    pit[:, report.protocol.root] = math.nan
    curves = report.calibration
    if math.isnan(curves["hidden"].error):
        # Every joint was seen: the two curves would be the same.
        curves = {"all joints": curves["all"]}
    return _figures(
        (
            "Above the diagonal the distribution is too wide, below it too narrow. Thin lines: "
            "joints.",
            lambda ax: draw_calibration(ax, curves),
        ),
        (
            "Probability integral transform: flat is right, a bump too wide, a bowl too narrow.",
            lambda ax: draw_pit(ax, pit),
        ),
    )


def _spread(report: Report) -> str:
    return _figures(
        (
            "Expected error of the best of m: it falls for any spread, right or wrong.",
            lambda ax: draw_best_of(ax, {"distribution": report.best_of}),
        ),
        (
            "A distribution that is right on average lies on the dashed line.",
            lambda ax: draw_spread_error(ax, report.sharpness),
        ),
        (
            "Does the spread find the errors? Error of what is left.",
            lambda ax: draw_sparsification(ax, report.sharpness),
        ),
    )


def _joints(report: Report) -> str:
    frequencies = report.calibration["all"].frequencies
    levels = frequencies.new_tensor([i / (len(frequencies) - 1) for i in range(len(frequencies))])
    gap = frequencies - levels[:, None]
    error, signed = gap.abs().mean(0), gap.mean(0)
    table = report.joints
    rows = []
    for i, name in enumerate(table.names):
        if i == report.protocol.root:
            continue
        rows.append(
            [
                name,
                *(
                    f"{float(values[i]):.1f}"
                    for values in (table.error, table.spread, table.energy)
                ),
                METRICS["ece"].format(float(error[i])),
                METRICS["ece_signed"].format(float(signed[i])),
            ]
        )
    heads = ["joint", "error (mm)", "spread (mm)", "energy (mm)", "calibration error", "signed"]
    return _table(heads, rows)


def _groups(report: Report) -> str:
    heads = [report.protocol.grouping, "poses", *(report.label(n).strip() for n in GROUP_COLUMNS)]
    rows = [
        [
            label,
            str(report.action_items[label]),
            *(METRICS[name].format(getattr(m, name)) for name in GROUP_COLUMNS),
        ]
        for label, m in report.by_action.items()
    ]
    return _table(heads, rows)


def _worst(cases: Sequence[WorstCase], skeleton: Skeleton) -> str:
    blocks = [
        "<p>Largest error of the estimate, one for each sequence. Left: the keypoints given. Then "
        "hypotheses (thin), estimate (bold; left blue, right red) and truth (dashed).</p>"
    ]
    for case in cases:
        words = (
            f"{case.sequence}, frame {case.frame}: estimate {1000 * case.error:.0f} mm, best "
            f"sample {1000 * case.best:.0f} mm"
        )
        hidden = int((~case.visible).sum())
        words += f", {hidden} joints hidden" if hidden else ""
        drawings = [
            _svg(_keypoints(case, skeleton), (3.1, 3.1)),
            *(_svg(_poses(case, skeleton, view), (3.1, 3.1)) for view in ("camera", "side")),
        ]
        blocks.append(
            f'<figure class="wide"><div class="row">{"".join(drawings)}</div>'
            f"<figcaption>{_text(words)}</figcaption></figure>"
        )
    return "".join(blocks)


def _keypoints(case: WorstCase, skeleton: Skeleton) -> Callable[[Axes], None]:
    def draw(ax: Axes) -> None:
        draw_keypoints(ax, case.p2d.numpy(), skeleton, visible=case.visible.numpy(), width=1.8)
        ax.set_aspect("equal", adjustable="datalim")
        ax.invert_yaxis()
        ax.set_xlabel("across (px)")
        ax.set_ylabel("down (px)")

    return draw


def _poses(case: WorstCase, skeleton: Skeleton, view: Any) -> Callable[[Axes], None]:
    (across, across_sign), (up, up_sign), _, _ = VIEWS[view]

    def draw(ax: Axes) -> None:
        draw_poses(
            ax,
            case.samples.numpy(),
            skeleton,
            view=view,
            point=case.point.numpy(),
            visible=case.visible.numpy(),
        )
        for child, parent in skeleton.bones:
            bone = case.target[[child, parent]]
            ax.plot(
                across_sign * bone[:, across],
                up_sign * bone[:, up],
                color=INK,
                linewidth=1.3,
                linestyle=(0, (2.5, 1.5)),
                zorder=6,
            )

    return draw


def _figures(*drawings: tuple[str, Callable[[Axes], None]]) -> str:
    figures = [
        f"<figure>{_svg(draw, (4.3, 3.9))}<figcaption>{_text(caption)}</figcaption></figure>"
        for caption, draw in drawings
    ]
    return f'<div class="row">{"".join(figures)}</div>'


def _svg(draw: Callable[[Axes], None], size: tuple[float, float]) -> str:
    """A drawing as inline SVG whose ink follows the page's colors."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "propose_prob", "font.size": 9.0}
    style |= dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color"), INK)
    style |= dict.fromkeys(("xtick.color", "ytick.color"), INK)
    style |= {"axes.spines.top": False, "axes.spines.right": False, "path.simplify": True}
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_visible(False)
        ax = figure.add_subplot()
        ax.patch.set_visible(False)
        draw(ax)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # The description holds addresses of vocabularies, which are names and not to be fetched.
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    for color, name in ((INK, "ink"), (FAINT, "faint"), (SIDES["middle"], "middle")):
        text = re.sub(re.escape(color), f"var(--{name})", text, flags=re.IGNORECASE)
    # White halos and rims stand for the paper.
    text = re.sub(r"#ffffff", "var(--paper)", text, flags=re.IGNORECASE)
    return _own_names(re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", text, count=1))


def _own_names(svg: str) -> str:
    """Makes the names inside a drawing its own: a page holds many drawings."""
    mark = f"{zlib.crc32(svg.encode()):08x}"
    svg = re.sub(r'id="([^"]+)"', rf'id="{mark}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{mark}-\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{mark}-\1"', svg)


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{''.join(parts)}</section>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in heads)
    body = "".join(
        f"<tr><th>{_text(row[0])}</th>{''.join(f'<td>{_text(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _text(value: str) -> str:
    return html.escape(value)
