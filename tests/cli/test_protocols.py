"""Published data sets through the command line, on miniature files of their own formats."""

import json
import pickle

import h5py
import numpy as np
import pytest

from propose_prob.evaluation.protocol import H36M_14
from tests.datasets import test_h36m as h36m
from tests.datasets import test_mpi_inf_3dhp as mpi
from tests.datasets import test_threedpw as pw

SAMPLES = ("--samples", 10)


@pytest.fixture
def h36m_files(folder):
    motion, keypoints = h36m.data_set(["S9", "S11"])
    place = folder / "h36m"
    place.mkdir()
    return h36m.write(place, motion, keypoints)


@pytest.fixture
def mpi_files(folder):
    mpi.write_test_set(folder / "3dhp")
    return folder / "3dhp"


@pytest.fixture
def pw_files(folder):
    for number, name in enumerate(("downtown_arguing_00", "flat_packBags_00")):
        pw.write(folder / "3dpw", pw.fields(name, seed=number))
    return folder / "3dpw"


def stored(run, folder, model, *args):
    code, out, err = run("evaluate", model, *args, *SAMPLES, "--json", "out.json")
    assert code == 0 and not err, err
    (report,) = json.loads((folder / "out.json").read_text())["models"].values()
    return " ".join(out.split()), report


def test_human36m(run, folder, tiny_model, h36m_files):
    reports = {}
    for name, kind in (("h36m-p1", "point_mpjpe"), ("h36m-p2", "point_pa_mpjpe")):
        args = ("--protocol", name, "--data", h36m_files, "--stride", 1)
        words, report = stored(run, folder, tiny_model, *args)
        for phrase in (
            f"Protocol: {name}. Human3.6M, split S9, S11: gt 2D",
            "10 noise-free hypotheses",
            "17 joints, the root (joint 0, always zero) among them",
            "every action weighs the same",
            "camera intrinsics unknown",
        ):
            assert phrase in words
        # Each of the actions' recordings, four cameras, three frames.
        assert report["num_items"] == 12 * sum(len(h36m.recordings(s)) for s in ("S9", "S11"))
        actions = report["by_action"]
        assert set(actions) == {"Walking", "Sitting", "SittingDown", "Photo", "WalkTogether",
                                "Directions"}  # fmt: skip
        mean = np.mean([action[kind] for action in actions.values()])
        assert report["actions"][kind] == pytest.approx(mean)
        # Sequences differ in number: the mean over poses is another number.
        assert report["items"][kind] != pytest.approx(mean, rel=1e-6)
        reports[name] = report["items"]
    # Both measure the same poses; they differ in what is the number.
    assert reports["h36m-p1"] == reports["h36m-p2"]


def test_mpi_inf_3dhp(run, folder, tiny_model, mpi_files):
    words, report = stored(run, folder, tiny_model, "--protocol", "3dhp", "--data", mpi_files)
    assert "MPI-INF-3DHP, split test: gt 2D" in words
    assert "PCK counts joints nearer than 150 mm" in words
    assert f"14 joints, the root (joint 0, always zero) left out ({', '.join(H36M_14)})" in words
    assert report["num_items"] == 6 * 3
    assert {name: group["num_items"] for name, group in report["by_action"].items()} == {
        "GS": 6,
        "noGS": 6,
        "outdoor": 6,
    }
    assert list(report["joints"])[1:] == list(H36M_14)


def test_3dpw_with_bodies(run, folder, tiny_model, pw_files, monkeypatch):
    from propose_prob.bodies import smpl
    from propose_prob.bodies.skeleton_body import SkeletonBody

    # A body of the same tree stands in for the licensed file.
    monkeypatch.setattr(smpl, "load_smpl", lambda path: SkeletonBody())
    args = ("--protocol", "3dpw", "--data", pw_files, "--smpl-male", "m.pkl", "--smpl-female",
            "f.pkl")  # fmt: skip
    words, report = stored(run, folder, tiny_model, *args)
    assert "3DPW, split test: detected 2D" in words and "at least 6 joints" in words
    # Two people of six frames: one lost by the camera, one without a detection.
    assert report["num_items"] == 2 * (12 - 2)
    assert set(report["by_action"]) == {
        f"{name} person {number}"
        for name in ("downtown_arguing_00", "flat_packBags_00")
        for number in (0, 1)
    }


def test_3dpw_without_bodies_says_what_is_missing(run, folder, tiny_model, pw_files):
    code, out, err = run("evaluate", tiny_model, "--protocol", "3dpw", "--data", pw_files, *SAMPLES)
    assert code == 2 and not out and err.count("\n") == 1
    assert "needs a true Head" in err and "downtown_arguing_00 person 0" in err


def remove(path):
    path.unlink()


def h36m_without(key):
    def change(folder):
        path = folder / "data_2d_h36m_gt.npz"
        with np.load(path, allow_pickle=True) as file:
            arrays = {name: file[name] for name in file.files if name != key}
        np.savez_compressed(path, **arrays)

    return change


def h36m_without_subject(folder):
    motion, keypoints = h36m.data_set(["S9"])
    h36m.write(folder, motion, keypoints)


def mpi_without_valid(folder):
    path = folder / "TS3" / "annot_data.mat"
    with h5py.File(path, "r+") as file:
        del file["valid_frame"]


def pw_without_cameras(folder):
    path = folder / "sequenceFiles" / "test" / "flat_packBags_00.pkl"
    kept = pickle.loads(path.read_bytes())
    del kept["cam_poses"]
    path.write_bytes(pickle.dumps(kept, protocol=2))


@pytest.mark.parametrize(
    ("protocol", "change", "words"),
    [
        ("h36m-p1", lambda f: remove(f / "data_3d_h36m.npz"), ("data_3d_h36m.npz", "cannot be")),
        ("h36m-p1", lambda f: remove(f / "data_2d_h36m_gt.npz"), ("data_2d_h36m_gt.npz",)),
        ("h36m-p2", h36m_without("metadata"), ("data_2d_h36m_gt.npz", "metadata")),
        ("h36m-p2", h36m_without("positions_2d"), ("data_2d_h36m_gt.npz", "positions_2d")),
        ("h36m-p1", h36m_without_subject, ("data_3d_h36m.npz", "'S11'")),
        ("3dhp", lambda f: remove(f / "TS4" / "annot_data.mat"), ("TS4",)),
        ("3dhp", mpi_without_valid, ("TS3", "valid_frame")),
        ("3dpw", pw_without_cameras, ("flat_packBags_00.pkl", "cam_poses")),
    ],
)
def test_wrong_files_are_named_in_one_line(
    run, folder, tiny_model, request, protocol, change, words, monkeypatch
):
    kind = {"h36": "h36m_files", "3dh": "mpi_files", "3dp": "pw_files"}[protocol[:3]]
    place = request.getfixturevalue(kind)
    change(place)
    bodies = ()
    if protocol == "3dpw":
        from propose_prob.bodies import smpl
        from propose_prob.bodies.skeleton_body import SkeletonBody

        monkeypatch.setattr(smpl, "load_smpl", lambda path: SkeletonBody())
        bodies = ("--smpl-male", "m.pkl", "--smpl-female", "f.pkl")
    code, out, err = run(
        "evaluate", tiny_model, "--protocol", protocol, "--data", place, *bodies, *SAMPLES,
        "--json", "out.json"
    )  # fmt: skip
    assert code == 2 and not out and err.count("\n") == 1
    assert all(word in err for word in words), err
    assert not (folder / "out.json").exists()


def test_detections_that_are_not_there(run, folder, tiny_model, h36m_files):
    args = ("--protocol", "h36m-p1", "--data", h36m_files, "--kind", "cpn_ft_h36m_dbb")
    code, out, err = run("evaluate", tiny_model, *args)
    assert code == 2 and not out
    assert "data_2d_h36m_cpn_ft_h36m_dbb.npz" in err


def test_a_distribution_without_density_is_evaluated_all_the_same(run, folder, diffusion_model):
    args = ("--stride", 400, *SAMPLES, "--density")
    _words, report = stored(run, folder, diffusion_model, *args)
    assert report["items"]["nll"] is None and report["density"] is None
    assert report["items"]["energy_joint"] > 0


def test_densities_say_what_they_are(run, folder, tiny_model):
    words, report = stored(run, folder, tiny_model, "--stride", 900, *SAMPLES, "--density")
    assert report["density"] == "bound" and report["items"]["nll"] is not None
    assert "NLL (nats per coordinate, meters), bound" in words
