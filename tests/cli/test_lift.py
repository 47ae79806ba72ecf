import itertools
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
import xarray
from safetensors.torch import save_file

from propose_prob.geometry.skeletons import H36M_17
from propose_prob.io import keypoints
from propose_prob.models import ProHMR, ProHMRConfig
from propose_prob.weights import save

from .conftest import coco_results


def npz(path):
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def test_lift_as_a_user_types_it(coco, tiny_model, folder):
    done = subprocess.run(
        [sys.executable, "-m", "propose_prob", "lift", coco, "--model", tiny_model,
         "--samples", "4"],
        capture_output=True, text=True, cwd=folder, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "10 people, 4 samples each: people_3d.nc" in done.stdout
    assert {path.name for path in folder.iterdir()} == {"people.json", "people_3d.nc"}


def test_both_formats_hold_the_same(run, coco, tiny_model):
    common = (coco, "--model", tiny_model, "--samples", 3)
    assert run("lift", *common, "--out", "a.nc")[0] == 0
    assert run("lift", *common, "--out", "a.npz", "--batch-size", 64)[0] == 0
    stored = npz("a.npz")
    assert stored["pose"].shape == (10, 3, 17, 3)
    assert stored["frame"].tolist() == [str(f) for f in range(5) for _ in range(2)]
    assert stored["person"].tolist() == ["0", "1"] * 5
    assert stored["model"] == "tiny.safetensors"
    groups = {"posterior": ["pose"], "constant_data": ["point_estimate", "spread"],
              "observed_data": ["keypoints", "confidence"]}  # fmt: skip
    for group, names in groups.items():
        with xarray.open_dataset("a.nc", group=group) as data:
            assert data["joint"].values.tolist() == stored["joint"].tolist()
            assert data["frame"].values.tolist() == stored["frame"].tolist()
            for name in names:
                values = data[name].values
                if group == "posterior":
                    values = np.moveaxis(values[0], 0, 1)
                np.testing.assert_array_equal(values, stored[name])


def test_media_pipe_landmarks_need_the_image_size(run, folder, tiny_model):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(33, 2, generator=generator).tolist()
    landmarks = [{"x": x, "y": y, "z": 0.0, "visibility": 0.9} for x, y in points]
    (folder / "pose.json").write_text(json.dumps({"landmarks": [landmarks]}))
    common = ("lift", "pose.json", "--model", tiny_model, "--samples", 2, "--out", "a.npz")
    code, _, err = run(*common)
    assert code == 2 and "width and height" in err
    assert run(*common, "--image-size", 640, 480)[0] == 0
    wrist = npz("a.npz")["keypoints"][0][H36M_17.index("RWrist")]
    np.testing.assert_allclose(wrist, np.multiply(points[16], [640, 480]), rtol=1e-5)


def test_a_model_of_bodies_lifts_joints(run, coco, folder):
    torch.manual_seed(0)
    save(ProHMR(ProHMRConfig(flow_width=8, context=8, width=8)), folder / "body.safetensors")
    code, _out, err = run(
        "lift", coco, "--model", "body.safetensors", "--samples", 3, "--out", "a.npz"
    )
    assert code == 0, err
    pose = npz("a.npz")["pose"]
    assert pose.shape == (10, 3, 17, 3) and (pose[:, :, 0] == 0).all()
    # A body's bones keep their length from sample to sample.
    thigh = np.linalg.norm(pose[:, :, 2] - pose[:, :, 1], axis=-1)
    np.testing.assert_allclose(thigh, thigh[:, :1].repeat(3, 1), rtol=1e-4)


def test_missing_joints_stay_missing(run, coco, tiny_model):
    run("lift", coco, "--model", tiny_model, "--samples", 2, "--out", "a.npz")
    stored = npz("a.npz")
    hidden = ["Spine", "Neck/Nose", "Head"]
    mask = np.isin(stored["joint"], hidden)
    assert (stored["confidence"][:, mask] == 0).all() and (stored["confidence"][:, ~mask] > 0).all()
    assert np.isnan(stored["keypoints"][:, mask]).all()
    for name in ("pose", "point_estimate", "spread"):
        assert np.isfinite(stored[name]).all()


def test_same_seed_same_numbers(run, coco, tiny_model):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run("lift", coco, "--model", tiny_model, "--samples", 2, "--out", f"{name}.npz",
            "--seed", seed)  # fmt: skip
    a, b, c = (npz(f"{name}.npz")["pose"] for name in "abc")
    assert (a == b).all() and not (a == c).all()


def test_distribution_is_wider_than_its_hypotheses(run, coco, tiny_model):
    spread = {}
    for use in ("distribution", "hypotheses"):
        run("lift", coco, "--model", tiny_model, "--out", "a.npz", "--use", use)
        spread[use] = npz("a.npz")["spread"][:, 1:]
    assert (spread["distribution"].mean(0) > spread["hypotheses"].mean(0)).all()


def test_intrinsics_reach_the_model(run, coco, tiny_model):
    poses = []
    for options in ((), ("--focal", 900, "--center", 500, 500), ("--focal", 900, "--center", 0, 0)):
        code, _, err = run("lift", coco, "--model", tiny_model, "--out", "a.npz", *options)
        assert code == 0, err
        poses.append(npz("a.npz")["point_estimate"])
    assert all(not np.allclose(a, b) for a, b in itertools.combinations(poses, 2))


def test_several_files_and_folders_in_one_output(run, folder, tiny_model):
    openpose = folder / "frames"
    openpose.mkdir()
    person = {"pose_keypoints_2d": (torch.rand(25, 3) + 0.1).flatten().tolist()}
    for index in (2, 10):
        (openpose / f"shot_{index}_keypoints.json").write_text(json.dumps({"people": [person]}))
    (folder / "one.json").write_text(coco_results(1))
    np.save("poses.npy", np.random.default_rng(0).normal(size=(3, 16, 2)))
    code, out, err = run(
        "lift", "frames", "one.json", "frames/shot_2_keypoints.json", "--model", tiny_model,
        "--samples", 2, "--out", "a.npz",
    )  # fmt: skip
    assert code == 0, err
    assert npz("a.npz")["frame"].tolist() == [
        "frames:shot_2", "frames:shot_10", "one.json:0", "frames/shot_2_keypoints.json",
    ]  # fmt: skip
    code, out, err = run("lift", "poses.npy", "--skeleton", "mpii-16", "--model", tiny_model,
                         "--samples", 2)  # fmt: skip
    assert code == 0, err
    assert "3 people" in out and (folder / "poses_3d.nc").exists()


def test_skipped_people_are_counted_and_named(run, folder, tiny_model):
    values = np.random.default_rng(0).normal(size=(4, 17, 3)).astype(np.float32)
    values[..., 2] = 0.9
    values[1, 3:, 2] = 0
    values[2, :, 2] = 0.2
    np.save("poses.npy", values)
    code, out, err = run(
        "lift", "poses.npy", "--skeleton", "h36m_17", "--model", tiny_model, "--samples", 2,
        "--min-confidence", 0.3, "--out", "a.npz",
    )  # fmt: skip
    assert code == 0
    assert "2 people, 2 samples" in out
    assert err.startswith("propose-prob: warning: skipped 2 people: frame 1, person 0 (3 of 17")
    stored = npz("a.npz")
    assert stored["frame"].tolist() == ["0", "3"]
    assert stored["num_skipped"] == 2
    assert "frame 2, person 0 (0 of 17 joints seen)" in str(stored["skipped"])


def torn(text):
    return text[: len(text) // 2]


def wrong_inputs(folder, tiny_model):
    """Name to (arguments, words of the message), with the files they need."""
    good = folder / "good.json"
    good.write_text(coco_results(2))
    (folder / "count.json").write_text(coco_results(1, joints=16))
    (folder / "torn.json").write_text(torn(coco_results(2)))
    (folder / "empty.json").write_text("")
    (folder / "nobody.json").write_text("[]")
    (folder / "nan.json").write_text(coco_results(1).replace("0.89999", "NaN, 0.89999", 1))
    nan = json.loads(coco_results(1))
    nan[0]["keypoints"][5] = float("nan")
    (folder / "nan.json").write_text(json.dumps(nan))
    missing = json.loads(coco_results(1))
    missing[0]["keypoints"][2::3] = [0.0] * 17
    (folder / "missing.json").write_text(json.dumps(missing))
    (folder / "pickle.pkl").write_bytes(pickle.dumps([1, 2, 3]))
    np.save("three.npy", np.zeros((4, 17, 4)))
    np.save("hidden.npy", np.full((4, 17, 2), np.nan))
    model = folder / "torn.safetensors"
    with open(tiny_model, "rb") as file:
        model.write_bytes(file.read()[:-100])
    save_file({"weight": torch.zeros(3)}, folder / "foreign.safetensors")
    torch.save({"weight": torch.zeros(3)}, folder / "weights.pt")
    array = ("--skeleton", "h36m_17")
    return {
        "wrong joint count": (["count.json"], "16 joints"),
        "truncated JSON": (["torn.json"], "cut off"),
        "empty file": (["empty.json"], "empty file"),
        "nobody": (["nobody.json"], "nobody.json"),
        "NaN confidence": (["nan.json"], "NaN"),
        "all joints missing": (["missing.json"], "visible joints"),
        "all joints NaN": (["hidden.npy", *array], "visible joints"),
        "a pickle": (["pickle.pkl"], "pickle"),
        "no such file": (["none.json"], "none.json"),
        "second file missing": (["good.json", "none.json"], "none.json"),
        "second file torn": (["good.json", "torn.json"], "cut off"),
        "array shape": (["three.npy", *array], "three.npy"),
        "array without a joint set": (["hidden.npy"], "name it"),
        "unknown joint set": (["hidden.npy", "--skeleton", "octopus_8"], "octopus_8"),
        "joint set of another size": (["good.json", "--skeleton", "mpii_16"], "16 joints"),
        "too few joints": (["good.json", "--min-joints", 15], "--min-joints is 15"),
        "no file": ([], "at least one FILE"),
        "focal alone": (["good.json", "--focal", 1000], "--center"),
        "focal negative": (["good.json", "--focal", -1, "--center", 0, 0], "focal"),
        "samples": (["good.json", "--samples", 1], "samples"),
        "batch size": (["good.json", "--batch-size", 0], "batch_size"),
        "confidence": (["good.json", "--min-confidence", 2], "min_confidence"),
        "output name": (["good.json", "--out", "a.csv"], ".nc or .npz"),
        "output folder": (["good.json", "--out", "none/a.nc"], "no folder"),
        "output is a folder": (["good.json", "--out", "folder.nc"], "a folder"),
        "output replaces input": (["poses.npz", "--out", "poses.npz"], "replace an input"),
        "torn checkpoint": (["good.json", "--model", "torn.safetensors"], "torn.safetensors"),
        "foreign checkpoint": (["good.json", "--model", "foreign.safetensors"], "foreign"),
        "pickled checkpoint": (["good.json", "--model", "weights.pt"], "weights.pt"),
        "no such model": (["good.json", "--model", "propose-nothing"], "propose-nothing"),
    }  # fmt: skip


def test_wrong_input_gets_one_line_and_leaves_no_file(run, folder, tiny_model):
    cases = wrong_inputs(folder, tiny_model)
    (folder / "folder.nc").mkdir()
    np.savez("poses.npz", keypoints=np.zeros((1, 17, 2)))
    before = sorted(path.name for path in folder.iterdir())
    for name, (args, words) in cases.items():
        model = () if "--model" in args else ("--model", tiny_model)
        code, out, err = run("lift", *args, *model)
        assert code == 2, f"{name}: {code} {out} {err}"
        assert not out, name
        assert err.startswith("propose-prob: error: ") and err.count("\n") == 1, f"{name}: {err}"
        assert words in err, f"{name}: {err}"
        assert sorted(path.name for path in folder.iterdir()) == before, name


@pytest.mark.parametrize("out", ["a.nc", "a.npz"])
def test_interrupted_lift_leaves_the_old_file(run, coco, folder, tiny_model, monkeypatch, out):
    (folder / out).write_text("an older result")
    read = keypoints.read_keypoints

    def interrupted(path, **options):
        stream = read(path, **options)

        def frames():
            yield next(stream)
            yield next(stream)
            raise KeyboardInterrupt

        return keypoints.KeypointStream(lambda start, stop: frames(), 5)

    monkeypatch.setattr(keypoints, "read_keypoints", interrupted)
    code, stdout, _err = run("lift", coco, "--model", tiny_model, "--samples", 2, "--out", out,
                            "--batch-size", 1)  # fmt: skip
    assert code == 130 and not stdout
    assert (folder / out).read_text() == "an older result"
    assert {path.name for path in folder.iterdir()} == {"people.json", out}
