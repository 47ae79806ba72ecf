import base64
import json
import re
import shutil
import sys

import numpy as np
import pytest

from propose_prob.bodies import load_open_body
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.results.writer import open_writer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def content(page):
    """The data that a page holds, its arrays decoded."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)
    data = json.loads(found[1])
    for name, array in data["arrays"].items():
        values = np.frombuffer(base64.b64decode(array["data"]), "<" + array["type"])
        data["arrays"][name] = values.reshape(array["shape"])
    return data


def test_page_of_lifted_people(run, coco, folder, tiny_model):
    assert run("lift", coco, "--model", tiny_model, "--samples", 4, "--log-prob",
               "--out", "poses.npz")[0] == 0  # fmt: skip
    with np.load("poses.npz") as stored:
        stored = dict(stored)
    assert stored["lp"].shape == (10, 4) and np.isfinite(stored["lp"]).all()
    assert stored["log_prob_kind"] == "bound"
    truth = stored["point_estimate"] + [0.01, 0, 0] * (np.arange(17) > 0)[:, None]
    np.savez("truth.npz", p3d=truth)
    code, out, err = run("view", "poses.npz", "--samples", 3, "--truth", "truth.npz",
                         "--title", "</script><b>@DATA@")  # fmt: skip
    assert (code, err) == (0, "")
    assert "10 poses: poses.html" in out
    page = (folder / "poses.html").read_text()
    assert "http-equiv" not in page and not re.search(r'(src|href)="', page.split("plotly.js")[0])
    data = content(page)
    assert data["joints"] == list(H36M_17.joint_names)
    assert data["items"][3] == {"frame": "1", "person": "1"}
    arrays = data["arrays"]
    np.testing.assert_array_equal(arrays["poses"], np.rint(1000 * stored["pose"][:, :3]))
    np.testing.assert_allclose(arrays["lp"], stored["lp"][:, :3])
    gap = arrays["truth"][:, 1:].astype(int) - arrays["point"][:, 1:]
    np.testing.assert_allclose(gap, np.broadcast_to([10, 0, 0], gap.shape), atol=1)
    assert "<b>@DATA@" not in page and "&lt;b&gt;@DATA@" in page


def test_frames_are_spread_over_a_long_file(run, folder):
    poses = np.zeros((50, 17, 3))
    poses[:, 1, 0] = np.arange(50) / 100
    with open_writer("long.npz", joint_names=H36M_17.joint_names) as writer:
        writer.append({"point_estimate": poses},
                      {"frame": [*range(50)], "person": ["0"] * 50})  # fmt: skip
        writer.finish({})
    assert "8 poses of 50 (see --frames)" in run("view", "long.npz", "--frames", 8)[1]
    data = content((folder / "long.html").read_text())
    assert [item["frame"] for item in data["items"]] == "0 7 14 21 28 35 42 49".split()
    np.testing.assert_array_equal(data["arrays"]["point"][:, 1, 0], np.arange(0, 50, 7) * 10)


def test_surface_of_a_fit_is_relative_to_the_root(run, folder):
    theta = np.tile(np.eye(3), (1, 24, 1, 1))
    joints = np.tile([0.0, 0.0, 4.0], (1, 17, 1))
    joints[0, 1] += 0.1
    np.savez(
        "fit.npz", joint=np.array(H36M_17.joint_names), frame=np.array(["0"]),
        person=np.array(["0"]), theta=theta, shape=np.zeros((1, 10)), joints=joints,
        translation=np.array([[0.0, 0.0, 4.0]]), body=np.array("open"),
    )  # fmt: skip
    assert run("view", "fit.npz")[0] == 0
    arrays = content((folder / "fit.html").read_text())["arrays"]
    body = load_open_body()
    assert arrays["faces"].shape == tuple(body.faces.shape)
    assert arrays["vertices"].shape[1] == arrays["faces"].max() + 1
    assert np.abs(arrays["vertices"]).max() < 1500
    assert "poses" not in arrays


def test_wrong_input_ends_in_one_line(run, folder, monkeypatch):
    with open_writer("a.npz", joint_names=H36M_17.joint_names) as writer:
        writer.append({"point_estimate": np.zeros((1, 17, 3))}, {"frame": [0], "person": [0]})
        writer.finish({})
    with open_writer("b.npz", joint_names=["hip"]) as writer:
        writer.append({"point_estimate": np.zeros((1, 1, 3))}, {"frame": [0], "person": [0]})
        writer.finish({})
    np.save("truth.npy", np.zeros((2, 17, 3)))
    for arguments, said in [
        (("missing.nc",), "No such file"),
        (("a.npz", "--out", "a.pdf"), "ends in .html"),
        (("a.npz", "--truth", "truth.npy"), "the 1 poses of the result (axis 0), got shape (2"),
        (("a.npz", "--body", "smpl.npz"), "holds no body"),
        (("a.npz", "--frames", "0"), "--frames of at least 1"),
        (("b.npz",), "expected joints Pelvis"),
    ]:
        code, out, err = run("view", *arguments)
        assert code == 2 and not out
        assert said in err and err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert "pip install 'propose_prob[view]'" in run("view", "a.npz")[2]
    assert not list(folder.glob("*.html"))


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_clicks_in_a_browser(run, coco, folder, tiny_model):
    from playwright.sync_api import sync_playwright

    run("lift", coco, "--model", tiny_model, "--samples", 4, "--log-prob", "--out", "poses.nc")
    assert run("view", "poses.nc")[0] == 0
    problems = []
    with sync_playwright() as playwright:
        # No graphics card is needed: WebGL is drawn by the processor.
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
        )
        page = browser.new_page(viewport={"width": 700, "height": 700})
        page.set_default_timeout(300_000)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url)
                if not request.url.startswith(("file:", "data:", "blob:")) else None)  # fmt: skip
        page.goto((folder / "poses.html").as_uri(), wait_until="domcontentloaded")
        page.wait_for_selector("#scene canvas", state="attached")
        assert page.text_content("#frame-name") == "0"
        page.select_option("#person", "1")
        page.locator("#frame").fill("3")
        assert page.text_content("#frame-name") == "3"
        assert page.evaluate("state.item") == 7
        traces = page.evaluate("document.getElementById('scene').data.map(t => t.name)")
        assert traces.count("hypotheses") == 3 and traces.count("point estimate") == 4
        page.select_option("#color", "lp")
        page.uncheck("#estimate")
        traces = page.evaluate("document.getElementById('scene').data.map(t => t.name)")
        assert traces == ["hypotheses"]
        page.click("#from-side")
        page.wait_for_function(
            "Math.abs(document.getElementById('scene').layout.scene.camera.eye.y) < 1e-6"
        )
        assert page.locator("#spread rect").count() == 16
        assert not page.is_visible("#truth-row") and not page.is_visible("#mesh-row")
        picture = page.screenshot()
        browser.close()
    assert problems == []
    assert picture[:4] == b"\x89PNG"


def result(folder, **changes):
    """A result of two poses, some of its arrays others or (None) missing."""
    poses = np.random.default_rng(0).normal(0, 0.3, (2, 4, 17, 3))
    arrays = {
        "pose": poses, "point_estimate": poses.mean(1), "lp": np.zeros((2, 4)),
        "spread": np.ones((2, 17)), "keypoints": np.zeros((2, 17, 2)),
        "joint": np.array(H36M_17.joint_names), "frame": np.array(["0", "1"]),
        "person": np.array(["a", "a"]), **changes,
    }  # fmt: skip
    np.savez(folder / "r.npz", **{name: v for name, v in arrays.items() if v is not None})
    return arrays


def put(shape, value):
    array = np.zeros(shape)
    array.flat[-1] = value
    return array


ODD = [np.nan, np.inf, -np.inf, 1e308, -1e308, 40.0]


@pytest.mark.parametrize(
    "changes",
    [
        *({"point_estimate": put((2, 17, 3), value)} for value in ODD),
        *({"pose": put((2, 4, 17, 3), value)} for value in ODD),
        *({"spread": put((2, 17), value)} for value in ODD),
        *({"lp": put((2, 4), value)} for value in ODD[:-1]),
        *({"keypoints": put((2, 17, 2), value)} for value in ODD[1:-1]),
        {"lp": np.zeros((2, 3))},
        {"lp": np.zeros((2, 0))},
        {"pose": np.zeros((2, 0, 17, 3))},
        {"pose": np.zeros((2, 4, 3, 3))},
        {"point_estimate": np.zeros((2, 3, 3))},
        {"point_estimate": None, "joints": np.zeros((2, 3, 3)), "pose": None, "lp": None},
        {"point_estimate": None, "joints": np.zeros((2, 17, 2)), "pose": None, "lp": None},
        {"spread": np.zeros((2, 3))},
        {"keypoints": np.zeros((2, 17, 3))},
        {"joint": np.array(["a"] * 17)},
        {"frame": np.array([]), "person": np.array([])},
        {"frame": np.array(7), "person": np.array(7)},
    ],
    ids=lambda changes: ", ".join(f"{k} {getattr(v, 'shape', v)}" for k, v in changes.items()),
)
def test_what_a_page_cannot_draw_is_refused_in_one_line(run, folder, changes):
    result(folder, **changes)
    code, out, err = run("view", "r.npz")
    assert code == 2 and not out and err.count("\n") == 1
    assert not (folder / "r.html").exists()


def test_keypoints_that_were_not_seen_are_no_fault(run, folder):
    result(folder, keypoints=put((2, 17, 2), np.nan))
    assert run("view", "r.npz")[0] == 0
    # JSON has no word for what is no number.
    data = content((folder / "r.html").read_text())
    assert np.isnan(data["arrays"]["keypoints"]).sum() == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("theta", np.zeros((1, 0, 3, 3))),
        ("theta", np.zeros((1, 24, 2, 2))),
        ("theta", np.zeros((1, 5, 3, 3))),
        ("theta", put((1, 24, 3, 3), np.nan)),
        ("shape", np.zeros((1, 3))),
        ("shape", np.zeros((1, 0))),
        ("shape", put((1, 10), 1e30)),
        ("translation", np.zeros((1, 2))),
        ("translation", put((1, 3), np.inf)),
    ],
)
def test_fits_of_no_body_are_refused_in_one_line(run, folder, name, value):
    arrays = {
        "theta": np.tile(np.eye(3), (1, 24, 1, 1)), "shape": np.zeros((1, 10)),
        "translation": np.zeros((1, 3)), "joints": np.zeros((1, 17, 3)),
        "joint": np.array(H36M_17.joint_names), "frame": np.array(["0"]),
        "person": np.array(["0"]), "body": np.array("open"),
    }  # fmt: skip
    np.savez("fit.npz", **(arrays | {name: value}))
    code, out, err = run("view", "fit.npz")
    assert code == 2 and not out and err.count("\n") == 1


def test_no_text_in_the_data_ends_or_opens_anything(run, folder):
    labels = ["<!--<script>", "</script><b>&amp;"]
    result(folder, frame=np.array(labels))
    assert run("view", "r.npz")[0] == 0
    page = (folder / "r.html").read_text()
    embedded = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1]
    assert not set(embedded) & set("<>&")
    assert [item["frame"] for item in content(page)["items"]] == labels


def test_an_output_that_is_an_input_is_refused(run, folder):
    result(folder)
    (folder / "r.html").symlink_to("r.npz")
    before = (folder / "r.npz").read_bytes()
    assert "would replace an input" in run("view", "r.npz")[2]
    assert (folder / "r.npz").read_bytes() == before
