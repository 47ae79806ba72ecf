"""Damaged files of motion capture, data sets, images and results: one `InputError`, soon."""

import json
import pickle
import random
import warnings
from contextlib import nullcontext as _nothing

import numpy as np
import pytest
import torch

from propose_prob.bodies import load_open_body, load_smpl
from propose_prob.cli.fuse import read_cameras
from propose_prob.cli.view import _read_truth
from propose_prob.datasets import read_spin
from propose_prob.datasets.h36m import read_h36m
from propose_prob.datasets.mpi_inf_3dhp import read_mpi_inf_3dhp_test, read_mpi_inf_3dhp_train
from propose_prob.datasets.pairs import read_pairs
from propose_prob.datasets.threedpw import read_3dpw
from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import SMPL_24
from propose_prob.images.render_set import load_renders, render_set
from propose_prob.images.renderer import RenderConfig
from propose_prob.images.resnet import ResNet, load_backbone
from propose_prob.images.spin_images import SpinSource, read_image
from propose_prob.io import read_amc, read_keypoints, sandbox
from propose_prob.io.markers import read_c3d
from propose_prob.results.reader import read_result
from propose_prob.results.writer import open_writer
from tests.damage import check_damaged, odd
from tests.datasets import test_h36m, test_mpi_inf_3dhp, test_threedpw
from tests.io import test_amc, test_c3d

Image = pytest.importorskip("PIL.Image", reason="reads images")


def _asf(folder):
    (folder / "a.asf").write_text(test_amc.ASF)
    (folder / "a.amc").write_text(test_amc.AMC)
    return folder / "a.asf", lambda path: read_amc(folder / "a.amc", path)


def _amc(folder):
    _asf(folder)
    return folder / "a.amc", lambda path: read_amc(path, folder / "a.asf")


def _c3d(folder):
    path = folder / "a.c3d"
    path.write_bytes(test_c3d.content(test_c3d.millimetres(frames=2)))
    return path, read_c3d


def _h36m(name):
    def make(folder):
        motion, keypoints = test_h36m.data_set(("S9",))
        few = {"S9": {"Walking": motion["S9"]["Walking"]}}
        seen = {"S9": {"Walking": keypoints["S9"]["Walking"]}}
        test_h36m.write(folder, few, seen)
        # Stored, not deflated: damage shall reach the pickles and not only the checksums.
        for part, arrays in (
            ("data_3d_h36m", {"positions_3d": few}),
            ("data_2d_h36m_gt", {"positions_2d": seen, "metadata": test_h36m.GT}),
        ):
            np.savez(folder / f"{part}.npz", **arrays)
        return folder / name, lambda path: list(read_h36m(path.parent, subjects=["S9"]))

    return make


def _3dpw(folder):
    path = test_threedpw.write(folder, test_threedpw.fields(people=1, frames=5))
    return path, lambda path: list(read_3dpw(folder))


def _3dhp_test(writer):
    def make(folder):
        path = folder / "TS1" / "annot_data.mat"
        writer(path, test_mpi_inf_3dhp.test_variables("TS1"))
        return path, lambda path: list(read_mpi_inf_3dhp_test(folder, sequences=["TS1"]))

    return make


def _3dhp_train(writer):
    def make(folder):
        for number in (1, 2):
            path = folder / "S3" / f"Seq{number}" / "annot.mat"
            writer(path, test_mpi_inf_3dhp.train_variables(cameras=1))
        return path, lambda path: list(
            read_mpi_inf_3dhp_train(folder, subjects=["S3"], cameras=[0])
        )

    return make


def _spin(folder):
    Image.fromarray(np.full((40, 30, 3), 7, np.uint8)).save(folder / "0.png")
    np.savez(
        folder / "train.npz",
        imgname=np.array(["0.png"] * 2),
        center=np.full((2, 2), 15.0),
        scale=np.full(2, 0.1),
        part=np.ones((2, 24, 3)),
        pose=np.zeros((2, 72)),
        shape=np.zeros((2, 10)),
    )
    body = load_open_body()

    def read(path):
        batch = SpinSource.read(path, folder, body=body, size=16)(torch.arange(2))
        assert batch.images.isfinite().all()

    return folder / "train.npz", read


def _image(name, **options):
    def make(folder):
        pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name, **options)
        return folder / name, read_image

    return make


def _renders(name):
    def make(folder):
        render_set(RenderConfig("val", size=32), 2, folder)
        if name.endswith(".npz"):
            with np.load(folder / "val" / name) as truth:
                np.savez(folder / "val" / name, **truth)
        return folder / "val" / name, lambda path: load_renders(folder, "val").images(
            torch.arange(2)
        )

    return make


def _result(name):
    def make(folder):
        with open_writer(folder / name, joint_names=["hip", "knee"]) as writer:
            point = np.zeros((2, 2, 3), np.float32)
            writer.append({"point_estimate": point}, {"frame": ["7", "8"], "person": ["a", "a"]})
            writer.finish({"model": "none"})
        return folder / name, lambda path: read_result(path).take([0])

    return make


def _pairs(folder):
    np.savez(folder / "a.npz", p2d=np.ones((2, 17, 2)), p3d=np.ones((2, 17, 3)), focal=1.0)
    return folder / "a.npz", read_pairs


def _truth(folder):
    np.savez(folder / "truth.npz", p3d=np.ones((2, 17, 3)))
    return folder / "truth.npz", lambda path: _read_truth(path, 2)


def _cameras(folder):
    camera = {"R": np.eye(3).tolist(), "t": [0, 0, 3], "K": [[9, 0, 1], [0, 9, 1], [0, 0, 1]]}
    (folder / "cameras.json").write_text(json.dumps([camera]))
    return folder / "cameras.json", lambda path: read_cameras(path, 1)


def _backbone(name):
    def make(folder):
        network = ResNet("basic", (1, 1, 1, 1), width=2, classes=0)
        if name.endswith("safetensors"):
            from safetensors.torch import save_file

            save_file(network.state_dict(), folder / name)
        else:
            torch.save(network.state_dict(), folder / name)
        return folder / name, lambda path: load_backbone(network, path)

    return make


def _smpl_pickle(folder):
    body = {
        "v_template": np.zeros((4, 3)),
        "weights": np.zeros((4, 24)),
        "J_regressor": np.zeros((24, 4)),
        "shapedirs": np.zeros((4, 3, 10)),
        "posedirs": np.zeros((4, 3, 207)),
        "f": np.zeros((1, 3), np.uint32),
        "kintree_table": np.zeros((2, 24), np.int64),
    }
    (folder / "body.pkl").write_bytes(pickle.dumps(body, protocol=2))
    return folder / "body.pkl", load_smpl


FORMATS = {
    "asf": _asf,
    "amc": _amc,
    "c3d": _c3d,
    "h36m 2d": _h36m("data_2d_h36m_gt.npz"),
    "h36m 3d": _h36m("data_3d_h36m.npz"),
    "3dpw": _3dpw,
    "3dhp test 7.3": _3dhp_test(test_mpi_inf_3dhp.write_hdf5),
    "3dhp test 5": _3dhp_test(test_mpi_inf_3dhp.write_version5),
    "3dhp train 7.3": _3dhp_train(test_mpi_inf_3dhp.write_hdf5),
    "3dhp train 5": _3dhp_train(test_mpi_inf_3dhp.write_version5),
    "spin": _spin,
    "png": _image("a.png"),
    "jpeg": _image("a.jpg"),
    "tiff": _image("a.tif"),
    "webp": _image("a.webp"),
    "gif": _image("a.gif"),
    "bmp": _image("a.bmp"),
    "renders' configuration": _renders("config.json"),
    "renders' images": _renders("00000.images.npy"),
    "renders' truth": _renders("00000.truth.npz"),
    "result.nc": _result("a.nc"),
    "result.npz": _result("a.npz"),
    "pairs": _pairs,
    "truth": _truth,
    "cameras": _cameras,
    "backbone.pt": _backbone("a.pt"),
    "backbone.safetensors": _backbone("a.safetensors"),
    "smpl.pkl": _smpl_pickle,
}


def check(name, folder, seeds):
    path, read = FORMATS[name](folder)
    content = path.read_bytes()
    read_once = pytest.raises(InputError) if name == "smpl.pkl" else _nothing()
    with read_once:
        read(path)
    check_damaged(name, content, path, read, seeds)


#: Files that a process of its own reads first, which takes longer.
APART = ("3dhp test 7.3", "3dhp train 7.3", "3dhp test 5", "3dhp train 5", "result.nc")


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name, tmp_path):
    check(name, tmp_path, range(2 if name in APART else 20))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "_SECONDS", 10.0)
    check(name, tmp_path, range(1000, 1200 if name in APART else 3000))


#: Where each reader of arrays finds them: file, arrays, reader.
def _arrays(name, folder):
    body = load_open_body()
    Image.new("RGB", (30, 40)).save(folder / "0.png")
    if name == "3dpw":
        stored = test_threedpw.fields(people=1, frames=5)
        path = folder / "sequenceFiles" / "test" / "a.pkl"
        path.parent.mkdir(parents=True)
        del stored["sequence"], stored["texture_maps"]
        return (
            stored,
            lambda s: path.write_bytes(pickle.dumps(s, 2)),
            lambda: list(read_3dpw(folder)),
        )
    if name == "3dhp":
        path = folder / "TS1" / "annot_data.mat"
        return (
            test_mpi_inf_3dhp.test_variables("TS1"),
            lambda s: test_mpi_inf_3dhp.write_version5(path, s),
            lambda: list(read_mpi_inf_3dhp_test(folder, sequences=["TS1"])),
        )
    path = folder / "a.npz"
    point = np.zeros((2, 2, 3), np.float32)
    stored, read = {
        "spin": (
            {"imgname": np.array(["0.png"] * 2), "center": np.full((2, 2), 15.0),
             "scale": np.full(2, 0.1), "part": np.ones((2, 24, 3)), "pose": np.zeros((2, 72)),
             "shape": np.zeros((2, 10)), "has_smpl": np.ones(2)},
            lambda: SpinSource.read(path, folder, body=body, size=16)(torch.arange(2)),
        ),
        "pairs": (
            {"p2d": np.ones((2, 17, 2)), "p3d": np.ones((2, 17, 3)), "focal": 9.0,
             "center": np.ones(2), "frame": np.arange(2), "action": np.array(["a", "b"]),
             "confidence": np.ones((2, 17)), "skeleton": np.array("h36m_17")},
            lambda: read_pairs(path),
        ),
        "truth": ({"p3d": np.ones((2, 17, 3))}, lambda: _read_truth(path, 2)),
        "result": (
            {"joint": np.array(["hip", "knee"]), "frame": np.array(["7", "8"]),
             "person": np.array(["a", "a"]), "point_estimate": point, "pose": point[:, None],
             "spread": point[..., 0], "model": np.array("none")},
            lambda: read_result(path).take([0]),
        ),
        "smpl": (
            {"v_template": np.zeros((4, 3)), "weights": np.zeros((4, 24)),
             "J_regressor": np.zeros((24, 4)), "shapedirs": np.zeros((4, 3, 10)),
             "posedirs": np.zeros((4, 3, 207)), "f": np.zeros((1, 3), np.uint32),
             "kintree_table": np.array([[0, *SMPL_24.parents[1:]], range(24)]),
             "bs_style": np.array("lbs")},
            lambda: load_smpl(path),
        ),
    }[name]  # fmt: skip
    return stored, lambda s: np.savez(path, **s), read


ARRAYS = ("3dpw", "3dhp", "spin", "pairs", "truth", "result", "smpl")


def check_odd(name, folder, seeds):
    stored, write, read = _arrays(name, folder)
    for seed in seeds:
        generator = random.Random(seed)
        key = generator.choice(sorted(stored))
        changed = dict(stored)
        if generator.random() < 0.1:
            del changed[key]
        elif isinstance(stored[key], list):
            changed[key] = [odd(value, generator) for value in stored[key]]
        else:
            changed[key] = odd(stored[key], generator)
        try:
            write(changed)
        except ValueError:
            # Not every list of arrays can be stored.
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                read()
            except InputError as error:
                assert "\n" not in str(error), f"{name}, seed {seed}: {error}"
            except Exception as error:
                raise AssertionError(f"{name}, seed {seed}, {key}: {error!r}") from error


@pytest.mark.parametrize("name", ARRAYS)
def test_odd_arrays(name, tmp_path):
    check_odd(name, tmp_path, range(3 if name == "3dhp" else 25))


@pytest.mark.slow
@pytest.mark.parametrize("name", ARRAYS)
def test_many_odd_arrays(name, tmp_path):
    check_odd(name, tmp_path, range(1000, 1100 if name == "3dhp" else 2000))


def test_pictures_that_would_run_a_program_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(InputError, match="expected an image"):
        read_image(tmp_path / "a.png")


def test_numbers_that_are_no_characters_are_refused(tmp_path):
    text = np.array([2**31, 65], "<u4").view("<U2")
    arrays = {"imgname": text, "center": np.ones((1, 2)), "scale": np.ones(1)}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match="expected text in imgname, got numbers"):
        read_spin(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", keypoints=np.ones((1, 17, 2)), skeleton=text)
    with pytest.raises(InputError, match="expected text in skeleton, got numbers"):
        read_keypoints(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", joint=text, frame=text, person=text)
    with pytest.raises(InputError, match="expected text in joint, got numbers"):
        read_result(tmp_path / "a.npz")
