import json
import subprocess
import sys

import numpy as np
import pytest

from .conftest import coco_results


@pytest.fixture
def views(folder):
    """Two views of 4 frames; the second misses frame 1."""
    for view in range(2):
        people = json.loads(coco_results(4, seed=view))
        if view:
            del people[1]
        (folder / f"view{view}.json").write_text(json.dumps(people))
    cameras = [
        {"R": np.eye(3).tolist(), "t": [0, 0, 5], "focal": 1000, "center": [500, 500]},
        {"R": [[0, 0, 1], [0, 1, 0], [-1, 0, 0]], "t": [0, 0, 5],
         "K": [[1000, 0, 500], [0, 1000, 500], [0, 0, 1]]},
    ]  # fmt: skip
    (folder / "cameras.json").write_text(json.dumps(cameras))
    return ("view0.json", "view1.json")


def npz(path):
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def test_fuse_as_a_user_types_it(views, tiny_model, folder):
    done = subprocess.run(
        [sys.executable, "-m", "propose_prob", "fuse", *views, "--cameras", "cameras.json",
         "--model", tiny_model],
        capture_output=True, text=True, cwd=folder, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "4 frames of 2 views: view0_fused.nc" in done.stdout
    assert (folder / "view0_fused.nc").exists()


def test_frames_of_any_view_are_in_the_output(run, views, tiny_model):
    code, _out, err = run("fuse", *views, "--model", tiny_model, "--out", "a.npz")
    assert code == 0, err
    stored = npz("a.npz")
    assert stored["frame"].tolist() == ["0", "1", "2", "3"]
    assert stored["point_estimate"].shape == (4, 17, 3)
    assert np.isfinite(stored["point_estimate"]).all()
    # A frame that one view saw is that view's own.
    run("lift", views[0], "--model", tiny_model, "--samples", 2, "--out", "b.npz")
    alone = npz("b.npz")["point_estimate"][1]
    np.testing.assert_allclose(stored["point_estimate"][1], alone, atol=5e-3)


def test_wrong_input_gets_one_line(run, views, folder, tiny_model, body_model):
    good = json.loads((folder / "cameras.json").read_text())
    for name, change in (
        ("one", good[:1]),
        ("scaled", [good[0], {**good[1], "R": (2 * np.eye(3)).tolist()}]),
        ("bare", [good[0], {"R": good[1]["R"], "t": [0, 0, 5]}]),
        ("text", [good[0], {**good[1], "t": "five"}]),
    ):
        (folder / f"{name}.json").write_text(json.dumps(change))
    (folder / "torn.json").write_text("[{")
    cases = [
        (views[:1], "two VIEW files"),
        ((*views, "--keypoint-scale", 5), "--cameras"),
        ((*views, "--cameras", "one.json"), "list of 2 cameras"),
        ((*views, "--cameras", "scaled.json"), "camera 1: expected a rotation matrix"),
        ((*views, "--cameras", "bare.json"), "camera 1: expected the key 'focal'"),
        ((*views, "--cameras", "text.json"), "camera 1: expected 't'"),
        ((*views, "--cameras", "torn.json"), "torn.json: expected JSON"),
        ((*views, "--cameras", "none.json"), "none.json"),
        ((*views, "--out", "a.csv"), ".nc or .npz"),
        ((views[0], "none.json"), "no such file"),
        ((*views, "--cameras", "cameras.json", "--focal", 1, "--center", 0, 0), "got both"),
    ]
    before = {path.name for path in folder.iterdir()}
    for args, words in cases:
        code, out, err = run("fuse", *args, "--model", tiny_model)
        assert code == 2 and not out, args
        assert err.startswith("propose-prob: error: ") and err.count("\n") == 1, err
        assert words in err, err
        assert {path.name for path in folder.iterdir()} == before
    code, out, err = run("fuse", *views, "--model", body_model)
    assert code == 2 and not out and "expected a model of joints" in err
