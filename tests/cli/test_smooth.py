import json
import subprocess
import sys

import numpy as np
import pytest

from propose_prob.io import read_bvh

from .conftest import coco_results


@pytest.fixture
def video(folder):
    """20 frames of one person, of which 4 to 6 are missing."""
    people = [p for p in json.loads(coco_results(20)) if p["image_id"] not in (4, 5, 6)]
    path = folder / "video.json"
    path.write_text(json.dumps(people))
    return path


def npz(path):
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def test_smooth_as_a_user_types_it(video, tiny_model, folder):
    done = subprocess.run(
        [sys.executable, "-m", "propose_prob", "smooth", video, "--fps", "30", "--model",
         tiny_model],
        capture_output=True, text=True, cwd=folder, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "20 frames, 3 of them filled in: video_smooth.nc" in done.stdout
    assert {path.name for path in folder.iterdir()} == {"video.json", "video_smooth.nc"}


def test_missing_frames_are_filled_and_marked(run, video, tiny_model):
    common = ("smooth", video, "--fps", 30, "--model", tiny_model)
    code, _out, err = run(*common, "--out", "a.npz")
    assert code == 0, err
    stored = npz("a.npz")
    assert stored["frame"].tolist() == [str(n) for n in range(20)]
    assert stored["point_estimate"].shape == (20, 17, 3)
    assert np.isfinite(stored["point_estimate"]).all() and np.isfinite(stored["spread"]).all()
    assert (stored["confidence"][4:7] == 0).all() and stored["confidence"][0].any()
    assert stored["num_filled"] == 3
    run(*common, "--out", "b.npz", "--acceleration", 0.01)
    jerks = [
        np.abs(np.diff(npz(n)["point_estimate"], 2, axis=0)).mean() for n in ("a.npz", "b.npz")
    ]
    assert jerks[1] < jerks[0]


def test_a_body_moves_through_missing_frames_too(run, video, body_model):
    code, out, err = run("smooth", video, "--fps", 25, "--model", body_model, "--out", "a.bvh")
    assert code == 0, err
    assert "20 frames, 3 of them filled in: a.bvh" in out
    motion = read_bvh("a.bvh")
    assert len(motion) == 20
    assert motion.frame_rate == pytest.approx(25)


def test_wrong_input_gets_one_line(run, video, folder, tiny_model):
    (folder / "other.json").write_text(json.dumps([]))
    far = json.loads(video.read_text())
    far[-1]["image_id"] = 397133
    (folder / "ids.json").write_text(json.dumps(far))
    fps = ("--fps", 30)
    cases = [
        ((video,), "--fps"),
        ((video, "--fps", 0), "--fps > 0"),
        ((video, *fps, "--acceleration", -1), "--acceleration > 0"),
        ((video, *fps, "--out", "a.csv"), ".nc or .npz"),
        ((video, *fps, "--out", "a.bvh"), "prohmr-cmu17"),
        ((video, *fps, "--person", "7"), "person '7'"),
        ((video, *fps, "--focal", 1000), "--center"),
        ((video, *fps, "--min-joints", 18), "--min-joints"),
        (("none.json", *fps), "no such file"),
        (("other.json", *fps), "other.json"),
        (("ids.json", *fps), "--by-order"),
    ]
    before = {path.name for path in folder.iterdir()}
    for args, words in cases:
        code, out, err = run("smooth", *args, "--model", tiny_model)
        assert code == 2 and not out, args
        assert err.startswith("propose-prob: error: ") and err.count("\n") == 1, err
        assert words in err, err
        assert {path.name for path in folder.iterdir()} == before
