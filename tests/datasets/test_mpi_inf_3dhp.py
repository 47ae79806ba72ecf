import h5py
import numpy as np
import pytest
import scipy.io
import torch

from propose_prob.datasets import mpi_inf_3dhp
from propose_prob.datasets.clips import evaluation_batches, fit_pinhole
from propose_prob.datasets.mpi_inf_3dhp import (
    MPI_INF_3DHP_CAMERAS,
    MPI_INF_3DHP_SCENES,
    read_mpi_inf_3dhp_test,
    read_mpi_inf_3dhp_train,
)
from propose_prob.errors import InputError
from propose_prob.geometry.camera import project
from propose_prob.geometry.skeletons import MPI_INF_3DHP_17

NAMES_28 = (
    "spine3 spine4 spine2 spine pelvis neck head head_top left_clavicle left_shoulder left_elbow "
    "left_wrist left_hand right_clavicle right_shoulder right_elbow right_wrist right_hand "
    "left_hip left_knee left_ankle left_foot left_toe right_hip right_knee right_ankle right_foot "
    "right_toe"
).split()

# What the test set's calibration files say, in millimeters of a 10 mm wide sensor.
INDOOR = dict(focal=1500.172288, center=(1017.38733568, 1043.03198208), size=(2048, 2048))
OUTDOOR = dict(focal=1683.98345952, center=(939.85753984, 560.140743168), size=(1920, 1080))


def people(frames, joints, seed):
    """People about 4 m in front of the camera, in millimeters."""
    random = np.random.default_rng(seed)
    return random.normal([0, 0, 4000], [400, 600, 300], (frames, joints, 3))


def image(points, focal, center):
    return focal * points[..., :2] / points[..., 2:] + np.asarray(center)


def write_hdf5(path, variables):
    """Write as MATLAB 7.3 does: a text block first, axes in reverse, cells as references."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, value in variables.items():
            if isinstance(value, list):
                cells = np.empty((1, len(value)), dtype=h5py.ref_dtype)
                for index, cell in enumerate(value):
                    stored = file.create_dataset(f"#refs#/{key}{index}", data=np.asarray(cell).T)
                    cells[0, index] = stored.ref
                file.create_dataset(key, data=cells, dtype=h5py.ref_dtype)
            else:
                file.create_dataset(key, data=np.asarray(value).T)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_version5(path, variables):
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {}
    for key, value in variables.items():
        if isinstance(value, list):
            cells = np.empty((len(value), 1), dtype=object)
            for index, cell in enumerate(value):
                cells[index, 0] = cell
            value = cells
        stored[key] = value
    scipy.io.savemat(path, stored)


WRITERS = [write_hdf5, write_version5]


def test_variables(sequence, frames=5):  # noqa: PT028 -- no test, see below
    camera = OUTDOOR if sequence in ("TS5", "TS6") else INDOOR
    points = people(frames, 17, int(sequence[2]))
    p2d = image(points, camera["focal"], camera["center"])
    p3d = points
    p2d[0], p3d = 0, p3d.copy()
    return {
        "annot2": p2d.transpose(2, 1, 0)[:, :, None],
        "annot3": p3d.transpose(2, 1, 0)[:, :, None],
        "univ_annot3": 0.9 * p3d.transpose(2, 1, 0)[:, :, None],
        "valid_frame": np.array([[0, 1, 1, 0, 1]], dtype=np.uint8)[:, :frames],
        "activity_annotation": np.array([[1, 1, 2, 0, 7]], dtype=np.uint8)[:, :frames],
        "bb_crop": np.zeros((frames, 34)),
    }


test_variables.__test__ = False


def write_test_set(folder, write=write_hdf5):
    for number in range(1, 7):
        write(folder / f"TS{number}" / "annot_data.mat", test_variables(f"TS{number}"))


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("inner", ["", "mpi_inf_3dhp_test_set"])
def test_test_set(tmp_path, write, inner):
    write_test_set(tmp_path / inner, write)
    clips = list(read_mpi_inf_3dhp_test(tmp_path))
    scenes = ["GS", "GS", "noGS", "noGS", "outdoor", "outdoor"]
    assert [clip.sequence for clip in clips] == [
        f"TS{number} {scene}" for number, scene in enumerate(scenes, 1)
    ]
    for number, clip in enumerate(clips, 1):
        points = people(5, 17, number)
        assert clip.skeleton is MPI_INF_3DHP_17
        torch.testing.assert_close(
            clip.p3d, torch.tensor(0.9 * points / 1000, dtype=torch.float32), atol=1e-6, rtol=0
        )
        assert clip.valid.tolist() == [False, True, True, False, True]
        assert clip.actions == ("Stand/Walk", "Stand/Walk", "Exercise", "none", "Misc.")
        assert clip.frame.tolist() == [0, 1, 2, 3, 4]
        assert (clip.relative()[:, 14] == 0).all()
        camera = OUTDOOR if number > 4 else INDOOR
        assert clip.focal == pytest.approx(camera["focal"], abs=1e-6)
        assert clip.center == pytest.approx(camera["center"], abs=1e-6)
        assert clip.image_size == camera["size"]
    # The absolute annotation stands where the camera sees it; the normalized one does too here,
    # being the same multiplied by a number.
    clip = next(read_mpi_inf_3dhp_test(tmp_path, sequences=["TS6"], target="annot3"))
    seen = project(clip.p3d, focal=clip.focal, center=torch.tensor(clip.center))
    torch.testing.assert_close(seen[clip.valid], clip.p2d[clip.valid], atol=0.01, rtol=0)


def test_evaluation_batches_stay_within_a_sequence(tmp_path):
    write_test_set(tmp_path)
    clips = read_mpi_inf_3dhp_test(tmp_path, sequences=MPI_INF_3DHP_SCENES["outdoor"])
    batches = list(evaluation_batches(clips, batch_size=3))
    assert [len(batch) for batch in batches] == [3, 2, 3, 2]
    assert batches[1].frame.tolist() == [3, 4]
    assert batches[1].sequence == ["TS5 outdoor"] * 2
    assert batches[1].action == ["none", "Misc."]
    assert batches[3].valid.tolist() == [False, True]
    assert batches[0].center.shape == (3, 2)
    with pytest.raises(ValueError, match="positive batch_size, got 0"):
        next(evaluation_batches([], batch_size=0))


def train_variables(frames=4, cameras=14):
    centers = [(1000 + camera, 1050 - camera) for camera in range(cameras)]
    points = [people(frames, 28, camera) for camera in range(cameras)]
    seen = [image(p, 1490 + camera, centers[camera]) for camera, p in enumerate(points)]
    return {
        "annot2": [p2d.reshape(frames, 56) for p2d in seen],
        "annot3": [p.reshape(frames, 84) for p in points],
        "univ_annot3": [0.95 * p.reshape(frames, 84) for p in points],
        "cameras": np.arange(cameras, dtype=np.uint8)[None],
        "frames": np.arange(frames, dtype=np.int32)[:, None],
    }


def write_training_set(folder, write=write_version5):
    for number in (1, 2):
        write(folder / "S3" / f"Seq{number}" / "annot.mat", train_variables(4 + number))


@pytest.mark.parametrize("write", WRITERS)
def test_training_set(tmp_path, write):
    write_training_set(tmp_path, write)
    clips = list(read_mpi_inf_3dhp_train(tmp_path, subjects=["S3"]))
    assert [clip.sequence for clip in clips] == [
        f"S3 Seq{number} camera {camera}" for number in (1, 2) for camera in MPI_INF_3DHP_CAMERAS
    ]
    clip = clips[3]
    points = people(5, 28, 4)
    for joint, name in enumerate(MPI_INF_3DHP_17.joint_names):
        expected = points[:, NAMES_28.index(name)] / 1000
        np.testing.assert_allclose(clip.p3d[:, joint].numpy(), expected, atol=1e-6)
    assert clip.focal == pytest.approx(1494, abs=1e-3)
    assert clip.center == pytest.approx((1004, 1046), abs=1e-3)
    assert clip.actions == ("Seq1",) * 5
    assert clip.valid.all()
    assert (clip.confidence == 1).all()
    scaled = next(
        read_mpi_inf_3dhp_train(tmp_path, subjects=["S3"], cameras=[4], target="univ_annot3")
    )
    torch.testing.assert_close(scaled.p3d, 0.95 * clip.p3d)
    assert scaled.focal == clip.focal


def test_annotations_without_an_image_are_dropped(tmp_path, monkeypatch):
    write_training_set(tmp_path)
    monkeypatch.setitem(mpi_inf_3dhp._FRAMES, ("S3", 1), 3)
    first = next(read_mpi_inf_3dhp_train(tmp_path, subjects=["S3"]))
    assert len(first) == 3


def test_one_file_is_open_at_a_time(tmp_path):
    write_training_set(tmp_path)
    (tmp_path / "S3" / "Seq2" / "annot.mat").write_bytes(b"damaged")
    clips = read_mpi_inf_3dhp_train(tmp_path, subjects=["S3"], cameras=[0])
    assert next(clips).sequence == "S3 Seq1 camera 0"
    with pytest.raises(InputError, match=r"Seq2/annot.mat: expected a MATLAB file"):
        next(clips)


def changed(variables, **changes):
    return {k: v for k, v in {**variables, **changes}.items() if v is not None}


NOT_FINITE = train_variables()["annot3"]
NOT_FINITE[0] = np.full((4, 84), np.nan)
BEHIND = [-row for row in train_variables()["annot2"]]
WRONG_TRAINING = {
    "no cells": (dict(annot2=np.zeros((4, 56))), "a cell of annot2 for every camera, got numbers"),
    "few cells": (dict(annot3=train_variables()["annot3"][:2]), "for every camera, got 2 cells"),
    "joints": (dict(annot3=[np.zeros((4, 51))] * 14), r"annot3 of shape \(frames, 84\), got \(4"),
    "NaN": (dict(annot3=NOT_FINITE), "expected finite numbers within float32 in annot3"),
    "camera": (dict(cameras=np.array([[5, 6]])), r"expected camera 0 in cameras, got \[5, 6\]"),
    "missing": (dict(annot2=None), "expected the variable annot2, got a file without it"),
    "no camera fits": (dict(annot2=BEHIND), "focal length of -1490 px for camera 0"),
}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("changes", "message"), WRONG_TRAINING.values(), ids=WRONG_TRAINING.keys())
def test_wrong_training_files(tmp_path, write, changes, message):
    path = tmp_path / "S1" / "Seq1" / "annot.mat"
    write(path, changed(train_variables(), **changes))
    with pytest.raises(InputError, match=message) as caught:
        list(read_mpi_inf_3dhp_train(tmp_path, subjects=["S1"]))
    assert str(caught.value).startswith(f"{path}: ")


SHORT = test_variables("TS1", frames=3)
INFINITE = test_variables("TS1")["univ_annot3"]
INFINITE[0, 0, 0, 1] = np.inf
WRONG_TEST = {
    "missing": (dict(valid_frame=None), "expected the variable valid_frame"),
    "joints": (dict(annot2=np.zeros((2, 14, 1, 5))), r"annot2 of shape \(2, 17, 1, frames\), got"),
    "cells": (dict(annot2=[np.zeros((2, 17))]), "got a cell array"),
    "frames": (dict(univ_annot3=SHORT["univ_annot3"]), "univ_annot3 as in annot2, 5, got 3"),
    "flags": (dict(valid_frame=SHORT["valid_frame"]), r"valid_frame of 5 frames, got \(1, 3\)"),
    "infinite": (dict(univ_annot3=INFINITE), "expected finite univ_annot3 in valid frames"),
}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(("changes", "message"), WRONG_TEST.values(), ids=WRONG_TEST.keys())
def test_wrong_test_files(tmp_path, write, changes, message):
    path = tmp_path / "TS1" / "annot_data.mat"
    write(path, changed(test_variables("TS1"), **changes))
    with pytest.raises(InputError, match=message) as caught:
        list(read_mpi_inf_3dhp_test(tmp_path))
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.3, 0.5])
def test_cut_files(tmp_path, write, share):
    path = tmp_path / "TS1" / "annot_data.mat"
    write(path, test_variables("TS1"))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="expected") as caught:
        list(read_mpi_inf_3dhp_test(tmp_path))
    assert "\n" not in str(caught.value)


def test_text_for_numbers(tmp_path):
    path = tmp_path / "TS1" / "annot_data.mat"
    path.parent.mkdir()
    scipy.io.savemat(path, changed(test_variables("TS1"), annot2="none"))
    with pytest.raises(InputError, match="expected numbers in annot2"):
        next(read_mpi_inf_3dhp_test(tmp_path))


def test_missing_and_unknown(tmp_path):
    with pytest.raises(
        InputError, match=r"TS1/annot_data.mat: cannot be read: No such .* had from"
    ):
        next(read_mpi_inf_3dhp_test(tmp_path))
    with pytest.raises(InputError, match=r"S1/Seq1/annot.mat: cannot be read: No such .* had from"):
        next(read_mpi_inf_3dhp_train(tmp_path))
    with pytest.raises(InputError, match=r"test sequences of TS1, TS2, .*, got 'S1'"):
        next(read_mpi_inf_3dhp_test(tmp_path, sequences=["S1"]))
    with pytest.raises(InputError, match=r"training subjects of S1, S2, .*, got 'S9'"):
        next(read_mpi_inf_3dhp_train(tmp_path, subjects=["S9"]))


def test_pinhole_of_nothing():
    for points in (np.zeros((0, 3)), np.ones((4, 3)), np.full((4, 3), np.nan)):
        focal, center = fit_pinhole(points, np.ones((len(points), 2)))
        assert np.isnan([focal, *center]).all()
