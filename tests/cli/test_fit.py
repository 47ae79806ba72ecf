import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray

from propose_prob import tasks
from propose_prob.bodies import SkeletonBody, load_open_body
from propose_prob.cli.fit import motion_files
from propose_prob.geometry.camera import project
from propose_prob.io import read_bvh
from propose_prob.weights import available

CENTER = (500.0, 400.0)


@pytest.fixture
def people(folder):
    """Two people in each of 2 frames, upright bodies before a camera; one is hardly seen."""
    theta = torch.eye(3).repeat(4, 24, 1, 1)
    theta[:, 0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    body = SkeletonBody()
    translation = torch.tensor([[x, 0.1, 5.0] for x in (-0.5, 0.5, -0.4, 0.6)])
    joints = body.regress(body(theta, translation=translation), "coco_17")
    p2d = project(joints, focal=1000.0, center=torch.tensor(CENTER))
    results = []
    for row, points in enumerate(p2d):
        seen = torch.cat([points, torch.ones(17, 1)], -1)
        if row == 3:
            seen[2:] = 0
        results.append(
            {"image_id": row // 2, "category_id": 1, "keypoints": seen.flatten().tolist()}
        )
    path = folder / "people.json"
    path.write_text(json.dumps(results))
    return path


def fast(*args):
    return (*args, "--solver", "lm")


def test_fit_as_a_user_types_it(people, body_model, folder):
    done = subprocess.run(
        [sys.executable, "-m", "propose_prob", "fit", people, "--model", body_model,
         "--focal", "1000", "--center", "500", "400", "--solver", "lm"],
        capture_output=True, text=True, cwd=folder, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 people, " in done.stdout and "people_fit.npz" in done.stdout
    assert done.stderr.startswith(
        "propose-prob: warning: skipped 1 person: frame 1, person 1 (0 of 17 joints seen)"
    )
    assert {path.name for path in folder.iterdir()} == {"people.json", "people_fit.npz"}
    with np.load(folder / "people_fit.npz", allow_pickle=False) as stored:
        assert stored["theta"].shape == (3, 24, 3, 3)
        assert stored["frame"].tolist() == ["0", "0", "1"]
        assert stored["person"].tolist() == ["0", "1", "0"]
        assert stored["body_joint"][0] == "Pelvis" and stored["joint"][0] == "Pelvis"
        assert int(stored["num_skipped"]) == 1 and str(stored["model"]) == "body.safetensors"
        # How near an untrained model gets is chance; what is written belongs together.
        joints, projected = (torch.as_tensor(stored[name]) for name in ("joints", "projected"))
        seen = project(joints, focal=1000.0, center=torch.tensor(CENTER))
        torch.testing.assert_close(seen, projected, rtol=1e-4, atol=0.1)
        theta, shape, place = (
            torch.as_tensor(stored[name]) for name in ("theta", "shape", "translation")
        )
        body = SkeletonBody()
        posed = body.regress(body(theta, shape, place))
        torch.testing.assert_close(posed, joints, rtol=1e-4, atol=1e-4)


def test_netcdf_holds_the_same_as_npz(run, people, body_model, folder, few_fitting_steps):
    for name in ("a.nc", "a.npz"):
        code, _, err = run("fit", *fast(people, "--model", body_model, "--out", name))
        assert code == 0, err
    with np.load("a.npz") as stored, xarray.open_dataset("a.nc") as data:
        assert data["theta"].dims == ("item", "body_joint", "row", "column")
        assert data["joints"].attrs["units"] == "m"
        assert data["frame"].values.tolist() == stored["frame"].tolist()
        for name in ("theta", "shape", "joints", "keypoints", "log_density", "converged"):
            np.testing.assert_allclose(data[name].values, stored[name], rtol=1e-4, atol=1e-3)
        assert (stored["translation"][:, 2] == 0).all()
        assert "weak-perspective" in data.attrs["protocol"]


def test_motion_is_one_file_for_each_person(run, people, body_model, folder, few_fitting_steps):
    code, out, err = run("fit", *fast(people, "--model", body_model, "--out", "walk.bvh"))
    assert code == 0, err
    assert "walk_0.bvh and 1 more" in out
    assert [read_bvh(f"walk_{i}.bvh").rotations.shape[0] for i in (0, 1)] == [2, 1]


def test_surfaces_open_in_other_programs(run, people, body_model, folder, few_fitting_steps):
    trimesh = pytest.importorskip("trimesh", reason="trimesh is missing: extra [mesh]")
    common = fast(people, "--model", body_model, "--body", "open")
    assert run("fit", *common, "--out", "all.glb")[0] == 0
    scene = trimesh.load("all.glb")
    names = {"frame 0 person 0", "frame 0 person 1", "frame 1 person 0"}
    assert set(scene.geometry) == names
    # Whatever pose an untrained model ends in: the surface is that of the fit, y up.
    assert run("fit", *common, "--out", "all.npz")[0] == 0
    body = load_open_body()
    with np.load("all.npz") as stored:
        theta, shape, place = (
            torch.as_tensor(stored[name]) for name in ("theta", "shape", "translation")
        )
        labels = [
            f"frame {a} person {b}" for a, b in zip(stored["frame"], stored["person"], strict=True)
        ]
    surfaces = body(theta, shape, place).vertices * torch.tensor([1.0, -1.0, -1.0])
    assert labels == list(scene.geometry) and surfaces.shape == (3, 13492, 3)
    for label, surface in zip(labels, surfaces, strict=True):
        found = np.asarray(scene.geometry[label].vertices)
        np.testing.assert_allclose(found, surface.numpy(), rtol=1e-4, atol=1e-4)


def test_the_shipped_model_fits_the_photo(run, folder):
    if "prohmr-cmu17" not in available():
        pytest.skip("the trained prohmr-cmu17 is not there")
    from importlib.resources import files

    photo = files("propose_prob") / "assets" / "pexels-4793258_keypoints.json"
    code, _, err = run("fit", str(photo), "--out", "photo.npz")
    assert code == 0, err
    with np.load("photo.npz") as stored:
        size = np.nanmax(stored["keypoints"][0], 0) - np.nanmin(stored["keypoints"][0], 0)
        gap = np.linalg.norm(stored["projected"] - stored["keypoints"], axis=-1)
        assert np.nanmedian(gap) < 0.03 * size.max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "a.obj"), "a.obj: expected an output name that ends in .npz, .nc, .bvh"),
        (("--out", "none/a.npz"), "there is no folder none"),
        (("--out", "people.json"), "the output would replace an input"),
        (("--out", "a.ply"), "this body has no surface; take --body open"),
        (("--body", "tall"), "expected --body skeleton, open or the path of an SMPL file"),
        (("--focal", "1000"), "expected --focal and --center together"),
        (("--focal", "-1", "--center", "0", "0"), "expected --focal > 0"),
        (("--noise", "0"), "expected --noise > 0"),
        (("--min-joints", "1"), "min_joints >= 3"),
        (("--min-joints", "18"), "nobody to fit: skipped 4 people"),
        (("--likelihood", "huber"), "huber"),
        (("--model", "nothing"), "no model named 'nothing'"),
    ],
)
def test_wrong_input_is_named_in_one_line(run, people, body_model, folder, options, message):
    model = () if "--model" in options else ("--model", body_model)
    code, _, err = run("fit", people, *model, *options)
    assert code == 2
    assert err.startswith("propose-prob: error: ") and err.count("\n") == 1
    assert message in err
    assert {path.name for path in folder.iterdir()} == {"people.json"}


def test_a_model_of_joints_is_refused(run, people, tiny_model):
    code, _, err = run("fit", people, "--model", tiny_model)
    assert code == 2 and "expected a model of body pose" in err


def test_files_that_are_missing_are_named(run, folder):
    code, _, err = run("fit", "gone.json")
    assert code == 2 and "gone.json: there is no such file" in err


def test_every_label_gets_a_file_of_its_own():
    labels = ["a-b", "a b", "A-B", "a b", "a/b", "", "a_b", "a_b_2", "x" * 300, "x" * 301, "\x1b"]
    files = motion_files(Path("mo.bvh"), labels)
    assert list(files) == list(dict.fromkeys(labels))
    assert len({str(path).lower() for path in files.values()}) == len(files)
    assert files["a-b"] == Path("mo_a-b.bvh")
    # Whatever comes first: a label that can be a name has it.
    assert motion_files(Path("mo.bvh"), ["a b", "a-b"])["a-b"] == Path("mo_a-b.bvh")
    assert all(path.parent == Path() and len(path.name) < 100 for path in files.values())
    assert motion_files(Path("mo.bvh"), ["a b", "a b"]) == {"a b": Path("mo.bvh")}


def test_motions_of_people_with_like_names(run, folder, body_model, few_fitting_steps):
    people = [
        {"image_id": frame, "category_id": 1, "track_id": label, "keypoints": points}
        for frame in range(2)
        for label, points in (
            ("a b", (100 * np.random.default_rng(frame).random((17, 3)) + 1).tolist()),
            ("a-b", (100 * np.random.default_rng(frame + 9).random((17, 3)) + 1).tolist()),
        )
    ]
    for person in people:
        person["keypoints"] = [value for point in person["keypoints"] for value in point]
    (folder / "two.json").write_text(json.dumps(people))
    code, out, err = run("fit", "two.json", "--model", body_model, "--out", "mo.bvh")
    assert code == 0, err
    assert "mo_a-b.bvh: person a-b\n" in out and "mo_a-b_2.bvh: person a b\n" in out
    first, second = (Path(name).read_text() for name in ("mo_a-b.bvh", "mo_a-b_2.bvh"))
    assert first != second


@pytest.fixture
def at_rest(monkeypatch):
    """Everybody is found at rest, without a fit, which takes seconds."""

    class Found(list):
        skipped = ()

    def fit_people(model, frames, *, body, surface, **options):
        found = Found()
        for frame in frames:
            count = len(frame.person_ids)
            theta, shape = torch.eye(3).repeat(count, 24, 1, 1), torch.zeros(count, body.num_shape)
            posed = body(theta, shape)
            bodies = SimpleNamespace(
                theta=theta, shape=shape, translation=torch.zeros(count, 3), joints=posed.joints,
                projected=posed.joints[..., :2], camera=torch.ones(count, 3),
                log_density=torch.zeros(count), converged=torch.ones(count, dtype=torch.bool),
                vertices=posed.vertices if surface else None,
            )  # fmt: skip
            found.append(
                SimpleNamespace(
                    frames=(frame.frame,) * count,
                    people=frame.person_ids,
                    p2d=frame.p2d,
                    confidence=frame.confidence,
                    bodies=bodies,
                )
            )
        return found

    monkeypatch.setattr(tasks, "fit_people", fit_people)


def people_in(frames):
    entry = {"category_id": 1, "keypoints": [float(n) for n in range(1, 52)]}
    return json.dumps([{"image_id": frame, **entry} for frame in range(frames)])


def test_the_same_label_in_two_files_is_two_people(run, folder, body_model, at_rest):
    (folder / "left").mkdir()
    for name, frames in (("a.json", 3), ("b.json", 2), ("left/a.json", 1)):
        (folder / name).write_text(people_in(frames))
    line = ["--model", body_model, "--out", "mo.bvh"]
    code, out, err = run("fit", "a.json", "b.json", *line)
    assert code == 0, err
    assert "mo_a-0.bvh: a, person 0\n" in out and "mo_b-0.bvh: b, person 0\n" in out
    assert [len(read_bvh(f"mo_{name}-0.bvh")) for name in "ab"] == [3, 2]
    code, out, err = run("fit", "a.json", "left/a.json", *line)
    assert code == 0, err
    names = ("a-json", "left-a-json")
    assert [len(read_bvh(f"mo_{name}-0.bvh")) for name in names] == [3, 1]


@pytest.mark.parametrize(("out", "taken"), [("mo.bvh", "mo_b-0.bvh"), ("mo.ply", "mo_001.ply")])
def test_outputs_named_after_people_are_no_inputs_either(
    run, folder, body_model, at_rest, out, taken
):
    (folder / "a.json").write_text(people_in(1))
    (folder / taken).write_text(people_in(1))
    (folder / "b.json").symlink_to(taken)
    before = sorted(folder.iterdir())
    line = ["--model", body_model, "--out", out]
    line += ["--body", "open"] if out.endswith("ply") else []
    code, _, err = run("fit", "a.json", "b.json", *line)
    assert code == 2 and f"{taken}: the output would replace an input" in err
    assert sorted(folder.iterdir()) == before and "keypoints" in (folder / taken).read_text()
