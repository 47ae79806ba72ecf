import itertools
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import COCO_17, H36M_17
from propose_prob.plotting import draw_keypoints, draw_poses
from propose_prob.plotting.demo import DemoContent, demo_figure
from propose_prob.plotting.figures import HIDDEN, SEEN, SIDES, draw_spread, sides, visible_bones

SPINE, HEAD = H36M_17.index("Spine"), H36M_17.index("Head")


@pytest.fixture
def ax():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def seen(*hidden):
    visible = np.ones(17, bool)
    visible[list(hidden)] = False
    return visible


def poses(samples=5, seed=0):
    """People of about 1.6 m who stand, camera axes."""
    rest = np.array(
        [[0, 0], [.13, 0], [.14, .42], [.15, .8], [-.13, 0], [-.14, .42], [-.15, .8], [0, -.2],
         [0, -.45], [0, -.55], [0, -.75], [-.18, -.42], [-.25, -.15], [-.27, .1], [.18, -.42],
         [.25, -.15], [.27, .1]]
    )  # fmt: skip
    noise = 0.05 * np.random.default_rng(seed).normal(size=(samples, 17, 3))
    return np.concatenate([rest, np.zeros((17, 1))], -1) + noise


def test_sides_are_told_by_name():
    assert [sides(H36M_17)[j] for j in (0, 1, 4, 10)] == ["middle", "right", "left", "middle"]
    assert [sides(COCO_17)[j] for j in (0, 1, 2)] == ["middle", "left", "right"]


def test_a_missing_joint_is_bridged():
    bones = visible_bones(H36M_17, seen(SPINE, HEAD).tolist())
    thorax = H36M_17.index("Thorax")
    assert (thorax, 0, False) in bones
    assert not any(SPINE in bone[:2] or HEAD in bone[:2] for bone in bones)
    assert len(visible_bones(H36M_17, [True] * 17)) == 16
    assert len(visible_bones(H36M_17, seen(0).tolist())) == 13


def test_keypoints_are_drawn_where_they_are(ax):
    p2d = np.random.default_rng(0).uniform(0, 100, (17, 2))
    p2d[SPINE] = np.nan
    draw_keypoints(ax, p2d, H36M_17, visible=seen(SPINE))
    assert len(ax.lines) == 15
    assert [line.get_linestyle() for line in ax.lines].count("--") == 1
    offsets = ax.collections[0].get_offsets()
    np.testing.assert_allclose(offsets, np.delete(p2d, SPINE, 0))
    ax.figure.canvas.draw()


@pytest.mark.parametrize(
    ("view", "columns", "signs"),
    [("camera", (0, 1), (1, -1)), ("side", (2, 1), (1, -1)), ("top", (0, 2), (1, 1))],
)
def test_views_keep_lengths_and_directions(ax, view, columns, signs):
    sample = poses()
    draw_poses(ax, sample, H36M_17, view=view, point=sample[0], visible=seen(HEAD))
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    assert len(lines.get_segments()) == 5 * 16
    first = np.array(lines.get_segments()[0])
    np.testing.assert_allclose(first, sample[0][[1, 0]][:, columns] * signs)
    assert to_hex(lines.get_colors()[0]) == SIDES["right"].lower()
    assert ax.get_aspect() == 1
    assert "(m)" in ax.get_xlabel() and "(m)" in ax.get_ylabel()
    ax.figure.canvas.draw()
    box = ax.get_window_extent()
    per_meter = [box.width / np.ptp(ax.get_xlim()), box.height / np.ptp(ax.get_ylim())]
    assert per_meter[0] == pytest.approx(per_meter[1], rel=1e-3)


def test_hidden_joints_are_open_dots(ax):
    draw_poses(ax, poses(), H36M_17, view="camera", point=poses()[0], visible=seen(HEAD))
    dots = [c for c in ax.collections if not isinstance(c, LineCollection)]
    edges = [to_hex(dot.get_edgecolor()[0]) for dot in dots]
    assert edges.count(HIDDEN.lower()) == 1 and edges[HEAD] == HIDDEN.lower()


@pytest.mark.parametrize(
    ("view", "sample", "words"),
    [("moon", poses(), "'moon'"), ("side", poses()[:, :5], r"\(5, 5, 3\)")],
)
def test_wrong_poses(ax, view, sample, words):
    with pytest.raises(ValueError, match=words):
        draw_poses(ax, sample, H36M_17, view=view)


def test_spread_is_drawn_in_millimeters(ax):
    spread = np.linspace(0, 0.16, 17)
    draw_spread(ax, spread, H36M_17, visible=seen(HEAD), radius=1.5 * spread)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert len(names) == 16 and "Pelvis" not in names and names[0] == "Head"
    widths = {name: bar.get_width() for name, bar in zip(names, ax.patches, strict=True)}
    for name, width in widths.items():
        assert width == pytest.approx(1000 * spread[H36M_17.index(name)])
    colors = [to_hex(bar.get_facecolor()) for bar in ax.patches]
    assert colors[0] == HIDDEN.lower() and set(colors[1:]) == {SEEN.lower()}
    assert ax.get_xlim()[1] > 1500 * spread.max()


def content(**changes):
    rng = np.random.default_rng(0)
    sample = poses(40)
    values = {
        "image": rng.integers(0, 255, (300, 200, 3), dtype=np.uint8),
        "p2d": 100 + 90 * sample[0, :, :2],
        "visible": seen(SPINE, 9, HEAD),
        "reprojected": 100 + 90 * sample[..., :2],
        "poses": sample,
        "point": sample.mean(0),
        "spread": sample.std(0).mean(-1),
        "radius": 1.6 * sample.std(0).mean(-1),
        "skeleton": H36M_17,
        "model": "propose-cmu17",
        "credit": "Photo: nobody",
    }
    values["p2d"][[SPINE, 9, HEAD]] = np.nan
    return DemoContent(**(values | changes))


def labels_out_of_view(ax):
    """Tick labels that exist and are not drawn."""
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not (ax.axison and low <= tick.get_loc() <= high):
                yield from (tick.label1, tick.label2)


@pytest.mark.parametrize("hidden", [(SPINE, 9, HEAD), (), (9, HEAD), (3, 6, 13, 16)])
def test_no_text_of_the_demo_figure_overlaps_another(hidden):
    p2d = 100 + 90 * poses(1)[0, :, :2]
    figure = demo_figure(content(visible=seen(*hidden), p2d=p2d))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    unseen = {label for ax in figure.axes for label in labels_out_of_view(ax)}
    texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    texts = [t for t in texts if t not in unseen]
    boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in texts]
    shown = {text for text, _ in boxes}
    assert {"Photo: nobody", "2D keypoints", "Uncertainty", "Head"} <= shown
    for (a, first), (b, second) in itertools.combinations(boxes, 2):
        overlap = min(first.x1, second.x1) - max(first.x0, second.x0) > 1 and (
            min(first.y1, second.y1) - max(first.y0, second.y0) > 1
        )
        assert not overlap, f"{a!r} overlaps {b!r}"
    width, height = canvas.get_width_height()
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
        assert inside, f"{text!r} leaves the figure"


def test_the_two_views_share_one_scale():
    figure = demo_figure(content())
    _, front, aside, _ = figure.axes
    assert front.get_ylim() == aside.get_ylim()
    assert np.ptp(front.get_xlim()) == pytest.approx(np.ptp(aside.get_xlim()))


def test_missing_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"propose_prob\[plot\]"):
        demo_figure(content())
