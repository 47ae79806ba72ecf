import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from propose_prob.evaluation import CalibrationCurve
from propose_prob.evaluation.coverage import PITHistogram
from propose_prob.evaluation.sharpness import SpreadErrorHistogram
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.plotting import draw_calibration
from propose_prob.plotting.diagnostics import (
    draw_best_of,
    draw_ellipsoids,
    draw_pit,
    draw_sparsification,
    draw_spread_error,
)
from propose_prob.plotting.figures import HIDDEN


@pytest.fixture
def ax():
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    yield axes
    figure.canvas.draw()
    assert axes.get_xlabel() and axes.get_ylabel()


def distribution(width=0.7, joints=3):
    generator = torch.Generator().manual_seed(0)
    samples = width * torch.randn(30, 200, joints, 3, generator=generator)
    return samples, torch.randn(200, joints, 3, generator=generator)


def texts(ax):
    legend = ax.get_legend()
    return [text.get_text() for text in legend.get_texts()]


def test_calibration_curves_are_drawn_as_they_are(ax):
    curve = CalibrationCurve(3)
    curve.update(*distribution())
    result = curve.compute()
    draw_calibration(ax, {"all": result, "hidden": CalibrationCurve(3).compute()})
    drawn = [line for line in ax.lines if line.get_label().startswith("all")]
    np.testing.assert_allclose(drawn[0].get_ydata(), result.curve)
    assert texts(ax) == [f"all: ECE {result.error:.3f} ({result.signed:+.3f})"]
    # The diagonal, each joint, the curve.
    assert len(ax.lines) == 1 + 3 + 1


def test_a_calibration_of_nothing():
    with pytest.raises(ValueError, match="at least one calibration curve"):
        draw_calibration(None, {"all": CalibrationCurve(3).compute()})


def test_pit_has_one_outline_for_each_axis(ax):
    pit = PITHistogram(3, bins=10)
    pit.update(*distribution())
    density = pit.compute()
    density[:, 0] = torch.nan
    draw_pit(ax, density)
    assert texts(ax) == ["across", "down", "depth"]
    steps = [patch for patch in ax.patches if hasattr(patch, "get_data")]
    np.testing.assert_allclose(steps[2].get_data().values, density[:, 1:, 2].mean(1))


def test_best_of_on_a_logarithmic_axis(ax):
    draw_best_of(ax, {"a": {1: 50.0, 10: 30.0, 200: 20.0}, "b": {1: 40.0, 10: 35.0}})
    assert ax.get_xscale() == "log" and texts(ax) == ["a", "b"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "10", "200"]
    with pytest.raises(ValueError, match="at least one curve"):
        draw_best_of(ax, {})


@pytest.fixture
def sharpness():
    spread = torch.rand(500, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.01
    histogram = SpreadErrorHistogram()
    histogram.update(spread, spread * torch.rand(500, generator=torch.Generator().manual_seed(1)))
    return histogram.compute()


def test_spread_against_error_in_millimeters(ax, sharpness):
    draw_spread_error(ax, sharpness)
    np.testing.assert_allclose(ax.lines[1].get_xdata(), 1000 * sharpness.spread)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 1000 * sharpness.error)
    assert f"{sharpness.spearman:.2f}" in ax.texts[0].get_text()
    assert ax.get_xlim() == ax.get_ylim()


def test_sparsification_names_its_area(ax, sharpness):
    draw_sparsification(ax, sharpness)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), 1000 * sharpness.by_spread)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), 1000 * sharpness.by_error)
    assert f"{sharpness.ause:.3f}" in ax.get_legend().get_title().get_text()


@pytest.mark.parametrize(("view", "columns"), [("camera", (0, 1)), ("side", (2, 1))])
def test_ellipses_are_the_shadows_of_ellipsoids(ax, view, columns):
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(400, 17, 3)) * [0.02, 0.05, 0.2] + rng.normal(size=(17, 3))
    samples[:, 0] = 0
    visible = np.ones(17, bool)
    visible[3] = False
    draw_ellipsoids(
        ax, samples, H36M_17, view=view, visible=visible, truth=samples[0], deviations=1.0
    )
    ellipses = [patch for patch in ax.patches if isinstance(patch, Ellipse)]
    assert len(ellipses) == 17 and ellipses[0].width == ellipses[0].height == 0
    for joint in (1, 9):
        flat = samples[:, joint][:, columns]
        # The support function of an ellipse: its extent in a direction is one deviation there.
        ellipse = ellipses[joint]
        angle = np.radians(ellipse.angle)
        for direction in (0.0, 0.7, 1.9):
            unit = np.array([np.cos(direction), np.sin(direction)])
            turned = direction - angle
            extent = np.hypot(
                ellipse.width / 2 * np.cos(turned), ellipse.height / 2 * np.sin(turned)
            )
            # Screens point up where the camera's y points down.
            assert extent == pytest.approx((flat * [1, -1] @ unit).std(ddof=1), rel=1e-6)
    colors = {tuple(e.get_facecolor()[:3]) for e in ellipses}
    assert tuple(int(HIDDEN[i : i + 2], 16) / 255 for i in (1, 3, 5)) in colors


def test_wrong_samples():
    with pytest.raises(ValueError, match="'moon'"):
        draw_ellipsoids(None, np.zeros((5, 17, 3)), H36M_17, view="moon")
    with pytest.raises(ValueError, match=r"at least 2 samples \(S, 17, 3\), got \(1, 17, 3\)"):
        draw_ellipsoids(None, np.zeros((1, 17, 3)), H36M_17, view="side")
