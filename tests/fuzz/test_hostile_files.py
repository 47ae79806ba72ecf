"""Small files that would take the memory, the day or the machine; each ends in one line, soon."""

import io
import json
import os
import pickle
import resource
import struct
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from propose_prob.bodies import load_smpl
from propose_prob.cli.fuse import read_cameras
from propose_prob.cli.train import read_world
from propose_prob.datasets import read_spin
from propose_prob.datasets.h36m import read_h36m
from propose_prob.datasets.pairs import read_pairs
from propose_prob.datasets.threedpw import read_3dpw
from propose_prob.errors import InputError
from propose_prob.images.render_set import load_renders, render_set
from propose_prob.images.renderer import RenderConfig
from propose_prob.images.resnet import ResNet, load_backbone
from propose_prob.images.spin_images import SpinSource, read_image
from propose_prob.io import read_amc, read_bvh, read_keypoints, unpickle, write_bvh
from propose_prob.io.amass import read_amass
from propose_prob.io.archives import map_npy, read_npz
from propose_prob.io.markers import read_c3d, read_trc
from propose_prob.io.matlab import read_mat
from propose_prob.io.unpickle import load_pickle
from propose_prob.results.reader import read_result
from propose_prob.training.checkpoint import read_checkpoint
from propose_prob.training.configs import TrainConfig, read_config
from propose_prob.weights import load
from tests.datasets import test_h36m, test_threedpw
from tests.fuzz.hostile import (
    EXIF,
    HASH,
    array_over_and_over,
    chain,
    figure,
    jpeg_of_scans,
    npy,
    put_over_and_over,
)
from tests.io import test_amc

Image = pytest.importorskip("PIL.Image", reason="reads images")


def refused(read, match=None, *, seconds=5.0, megabytes=300.0):
    """Check that reading ends in one short line, soon, in little memory."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(InputError, match=match) as raised:
        read()
    assert time.monotonic() - start < seconds
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1000 * megabytes
    message = str(raised.value)
    assert "\n" not in message and len(message) < 1000
    return message


# What is no file ---------------------------------------------------------------------------------


def backbone(path):
    load_backbone(ResNet("basic", (1, 1, 1, 1), width=2, classes=0), path)


READERS = {
    "a.json": read_keypoints,
    "a.npy": map_npy,
    "a.npz": read_npz,
    "amass.npz": read_amass,
    "pairs.npz": read_pairs,
    "result.npz": read_result,
    "result.nc": read_result,
    "a.mat": lambda path: read_mat(path, ("a",), where="nowhere"),
    "a.bvh": read_bvh,
    "a.asf": lambda path: read_amc(path, path),
    "a.trc": read_trc,
    "a.c3d": read_c3d,
    "a.pkl": load_pickle,
    "smpl.pkl": load_smpl,
    "smpl.npz": load_smpl,
    "a.png": read_image,
    "cameras.json": lambda path: read_cameras(path, 1),
    "a.safetensors": load,
    "backbone.safetensors": backbone,
    "backbone.pt": backbone,
    "checkpoint.pt": read_checkpoint,
    "config.json": lambda path: read_config(path, default=TrainConfig()),
}


@pytest.mark.parametrize("name", READERS)
def test_pipes_devices_and_folders_are_refused_by_name(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refused(lambda: READERS[name](tmp_path / name), "expected a file, got a pipe")
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    refused(lambda: READERS[name](tmp_path / name), "expected a file, got a device")


@pytest.mark.parametrize("name", ["a.json", "a.bvh", "a.trc", "cameras.json"])
def test_texts_of_gigabytes_are_not_read(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**36)
    refused(lambda: READERS[name](tmp_path / name), "of up to")
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**28)
    refused(lambda: READERS[name](tmp_path / name), "got NUL bytes")


# Arrays ------------------------------------------------------------------------------------------


HEADERS = {
    "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,)}": "have no bytes",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000,)}": "have no bytes",
    "{'descr': '|S0', 'fortran_order': False, 'shape': ()}": "have no bytes",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 17, 2)}": "whole numbers",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (6, 17, 9223372036854775808)}": "whole",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-6, 17, 2)}": "whole numbers",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}": "counted",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "(" * 300 + "}": "header",
    "{'descr': [('a', '|V0')], 'fortran_order': False, 'shape': (1000000000000,)}": "no bytes",
}


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_headers_that_no_array_has_are_refused(tmp_path, header):
    (tmp_path / "a.npy").write_bytes(npy(header, bytes(64)))
    refused(lambda: map_npy(tmp_path / "a.npy"), HEADERS[header])
    refused(lambda: read_keypoints(tmp_path / "a.npy", skeleton="h36m_17"), HEADERS[header])
    for reader in (read_npz, read_result, read_amass, read_pairs, read_keypoints):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("frame.npy", npy(header, bytes(64)))
        refused(lambda reader=reader: reader(tmp_path / "a.npz"), HEADERS[header])


def test_the_limit_is_of_the_file_and_not_of_each_array(tmp_path):
    zeros = np.zeros(2**21)
    np.savez_compressed(tmp_path / "a.npz", **{f"a{n}": zeros for n in range(10)})
    refused(lambda: read_npz(tmp_path / "a.npz"), "such a file is not read")
    # As the numbers that they become.
    flags = np.zeros(2**23, bool)
    np.savez_compressed(tmp_path / "a.npz", a=flags, b=flags, c=flags)
    refused(lambda: read_npz(tmp_path / "a.npz"), "such a file is not read")
    np.savez_compressed(tmp_path / "a.npz", a=zeros)
    assert read_npz(tmp_path / "a.npz")["a"].shape == zeros.shape


def test_one_place_in_an_archive_under_many_names_counts_each_time(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        stored = io.BytesIO()
        np.save(stored, np.zeros(2**20))
        archive.writestr("a.npy", stored.getvalue())
        for _ in range(30):
            archive.filelist.append(archive.filelist[0])
    (tmp_path / "a.npz").write_bytes(file.getvalue())
    refused(lambda: read_npz(tmp_path / "a.npz"), "such a file is not read")


def test_archives_of_very_many_arrays_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for number in range(5000):
            archive.writestr(f"{number}.npy", b"")
    refused(lambda: read_npz(tmp_path / "a.npz"), "expected up to 4096 arrays")


def test_packed_archives_of_human36m_are_limited(tmp_path):
    motion, keypoints = test_h36m.data_set(("S9",))
    test_h36m.write(tmp_path, motion, keypoints)
    many = {"S9": {"Walking": [np.zeros((10**5, 17, 3), np.float32) for _ in range(8)]}}
    np.savez_compressed(tmp_path / "data_3d_h36m.npz", positions_3d=many)
    refused(lambda: list(read_h36m(tmp_path, subjects=["S9"])), "such a file is not read")


@pytest.mark.parametrize("reader", [read_keypoints, read_amass, read_spin, read_world])
@pytest.mark.parametrize("name", ["keypoints", "poses", "world", "imgname"])
def test_archives_that_say_that_they_are_long_are_refused(tmp_path, reader, name):
    """The truth does not matter to one who would have to unpack it to know."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (200000000, 17, 2)}"  # 27 GB
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}.npy", npy(header, bytes(1_000_000)))
    refused(lambda: reader(tmp_path / "a.npz"))


def test_numbers_that_are_no_characters_are_refused(tmp_path):
    text = np.array([2**31, 65], "<u4").view("<U2")
    arrays = {"imgname": text, "center": np.ones((1, 2)), "scale": np.ones(1)}
    np.savez(tmp_path / "a.npz", **arrays)
    refused(lambda: read_spin(tmp_path / "a.npz"), "expected text in imgname, got numbers")
    np.savez(tmp_path / "a.npz", keypoints=np.ones((1, 17, 2)), skeleton=text)
    refused(lambda: read_keypoints(tmp_path / "a.npz"), "expected text in skeleton, got numbers")
    np.savez(tmp_path / "a.npz", joint=text, frame=text, person=text)
    refused(lambda: read_result(tmp_path / "a.npz"), "expected text in joint, got numbers")


@pytest.mark.parametrize(
    "values",
    [np.zeros(2, "M8[s]"), np.array(["a", "b"]), np.array(1.0), np.zeros((3, 10)),
     np.full((2, 10), np.nan)],
    ids=range(5),
)  # fmt: skip
@pytest.mark.parametrize("name", ["shape", "frame"])
def test_truths_of_renders_are_arrays_of_numbers(tmp_path, name, values):
    render_set(RenderConfig("val", size=32), 2, tmp_path)
    path = tmp_path / "val" / "00000.truth.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **{**arrays, name: values})
    refused(lambda: load_renders(tmp_path, "val"), "truth.npz: expected")
    refused(lambda: render_set(RenderConfig("val", size=32), 3, tmp_path), "truth.npz: expected")


@pytest.mark.parametrize(
    "change",
    [{"a\nb": 1}, {"distance": []}, {"distance": [1]}, {"distance": ["a", "b"]}, {"size": "x"}],
    ids=str,
)
def test_configurations_of_renders_are_one_line(tmp_path, change):
    (tmp_path / "val").mkdir()
    stored = {"format": "propose_prob.renders/1", **change}
    (tmp_path / "val" / "config.json").write_text(json.dumps(stored))
    refused(lambda: load_renders(tmp_path, "val"), "config.json: not of a set of renders")


def test_arrays_of_python_2_are_read_without_a_word(tmp_path):
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L)}"
    (tmp_path / "a.npy").write_bytes(npy(header, np.arange(6, dtype="<f4").tobytes()))
    assert map_npy(tmp_path / "a.npy").tolist() == [[0, 1, 2], [3, 4, 5]]
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
    assert read_npz(tmp_path / "a.npz")["a"].shape == (2, 3)


# Pickles -----------------------------------------------------------------------------------------

HOSTILE_PICKLES = {
    "keys": lambda: pickle.dumps({number * HASH: None for number in range(4000)}, 4),
    "negative keys": lambda: pickle.dumps({-number * HASH: None for number in range(2, 4000)}, 4),
    "set": lambda: pickle.dumps({number * HASH for number in range(4000)}, 4),
    "frozen set": lambda: pickle.dumps(frozenset(number * HASH for number in range(4000)), 4),
    "old set": lambda: pickle.dumps({number * HASH for number in range(4000)}, 2),
    "tuples": lambda: pickle.dumps({(number, 1): None for number in range(9)}, 4),
    "complex": lambda: pickle.dumps({complex(number, 1): None for number in range(9)}, 4),
    "memo": lambda: put_over_and_over(20_000),
    "bytearray": lambda: b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "frame": lambda: b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b".",
    "sets": lambda: b"\x80\x04(" + b"\x8f" * 250_000 + b"l.",
    "arrays": lambda: array_over_and_over(500),
    "empty entries": lambda: pickle.dumps(np.zeros(3, "S1"), 4).replace(b"S1", b"S0"),
    "long integers": lambda: pickle.dumps({10**5000: 1}, 4),
}


@pytest.mark.parametrize("name", HOSTILE_PICKLES)
def test_pickles_do_not_take_the_day_or_the_memory(tmp_path, monkeypatch, name):
    # A tenth of what is counted otherwise, to be there sooner.
    monkeypatch.setattr(unpickle, "_STEPS", unpickle._STEPS // 10)
    (tmp_path / "a.pkl").write_bytes(HOSTILE_PICKLES[name]())
    refused(
        lambda: load_pickle(tmp_path / "a.pkl"),
        "expected a complete pickle",
        seconds=30,
        megabytes=600,
    )


@pytest.mark.parametrize(
    "odd",
    [[[1.0, 2.0], [3.0]], [[1.0], "x"], 10**5000, [10**400], {"a": 1}, [np.zeros(3), np.zeros(2)],
     np.array("text"), np.array(3.0), None, "poses", [], [[[[]]]]],
    ids=range(12),
)  # fmt: skip
def test_ragged_and_odd_values_in_pickles_are_one_line(tmp_path, odd):
    stored = test_threedpw.fields(people=1, frames=5)
    path = tmp_path / "sequenceFiles" / "test" / "a.pkl"
    path.parent.mkdir(parents=True)
    for key in ("poses2d", "cam_poses", "campose_valid", "jointPositions", "cam_intrinsics"):
        for value in (odd, [odd]):
            path.write_bytes(pickle.dumps({**stored, key: value}, 2))
            refused(lambda: list(read_3dpw(tmp_path)))
    body = {
        "v_template": np.zeros((4, 3)), "weights": np.zeros((4, 24)),
        "J_regressor": np.zeros((24, 4)), "shapedirs": np.zeros((4, 3, 10)),
        "posedirs": np.zeros((4, 3, 207)), "f": np.zeros((1, 3), np.uint32),
        "kintree_table": np.zeros((2, 24), np.int64),
    }  # fmt: skip
    for key in body:
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({**body, key: odd}, 2))
        refused(lambda: load_smpl(tmp_path / "a.pkl"))


@pytest.mark.parametrize(
    "count", [10**5000, 10**9, -1, float("inf"), float("nan"), "x", [1]], ids=range(7)
)
def test_odd_layouts_of_human36m_are_one_line(tmp_path, count):
    motion, keypoints = test_h36m.data_set(("S9",))
    for metadata in (
        {**test_h36m.GT, "num_joints": count},
        {**test_h36m.GT, "keypoints_symmetry": [[count], [count]]},
    ):
        test_h36m.write(tmp_path, motion, keypoints)
        np.savez(tmp_path / "data_2d_h36m_gt.npz", positions_2d=keypoints, metadata=metadata)
        refused(lambda: list(read_h36m(tmp_path, subjects=["S9"])), "expected")


# Motion ------------------------------------------------------------------------------------------


def test_deep_figures_are_read_and_written(tmp_path):
    (tmp_path / "deep.bvh").write_text(figure([f"j{n}" for n in range(1500)]))
    motion = read_bvh(tmp_path / "deep.bvh")
    assert motion.parents == tuple(range(-1, 1499))
    write_bvh(tmp_path / "again.bvh", motion)
    again = read_bvh(tmp_path / "again.bvh")
    assert again.parents == motion.parents and again.bone_names == motion.bone_names
    torch.testing.assert_close(again.offsets[1:], motion.offsets[1:])


def test_figures_of_very_many_bones_are_refused(tmp_path):
    path = tmp_path / "wide.bvh"
    path.write_text(figure([f"j{n}" for n in range(5000)], nested=False))
    refused(lambda: read_bvh(path), "expected up to 4096 bones, got 5000")
    path.write_text(figure(["same"] * 5000, nested=False))
    refused(lambda: read_bvh(path), "expected joints of different names")
    path.write_text(figure([f"j{n}" for n in range(4000)], nested=False, frames=10_000))
    refused(lambda: read_bvh(path), "most of which do not move")


@pytest.mark.parametrize("digits", ["9" * 5000, "9" * 10**6, "\u0663", "-1", "1.5"], ids=range(5))
def test_numbers_of_very_many_digits_are_one_line(tmp_path, digits):
    (tmp_path / "a.bvh").write_text(figure(["a", "b"], channels=digits))
    refused(lambda: read_bvh(tmp_path / "a.bvh"), "expected the number of channels")
    text = figure(["a", "b"]).replace("OFFSET 0 1 0", f"OFFSET 0 x{digits} 0")
    (tmp_path / "a.bvh").write_text(text)
    refused(lambda: read_bvh(tmp_path / "a.bvh"), "expected a number for the OFFSET")
    (tmp_path / "a.asf").write_text(test_amc.ASF)
    (tmp_path / "a.amc").write_text(f":FULLY-SPECIFIED\n:DEGREES\n{digits}\n")
    refused(lambda: read_amc(tmp_path / "a.amc", tmp_path / "a.asf"), "a.amc:3: ")


def test_long_skeletons_are_put_in_order_soon(tmp_path):
    (tmp_path / "a.asf").write_text(chain(4000))
    (tmp_path / "a.amc").write_text(":DEGREES\n1\nroot 0 0 0 0 0 0\n")
    start = time.monotonic()
    motion = read_amc(tmp_path / "a.amc", tmp_path / "a.asf")
    assert time.monotonic() - start < 5
    assert motion.bone_names[:3] == ("root", "b0", "b1") and motion.parents[-1] == 3999
    (tmp_path / "a.asf").write_text(chain(5000))
    refused(lambda: read_amc(tmp_path / "a.amc", tmp_path / "a.asf"), "up to 4096 bones")


# Names and numbers of keypoints ------------------------------------------------------------------

SEEN = [float(n) for n in range(1, 52)]
UNSEEN = [0.0] * 51

NAMES = {
    "a\0b": "NUL characters",
    "\ud800": "half a surrogate pair",
    "9" * 20_000: "up to 1000 characters",
    2**70: "64 bits",
    -(2**70): "64 bits",
}


@pytest.mark.parametrize("name", NAMES, ids=["nul", "surrogate", "digits", "big", "small"])
@pytest.mark.parametrize("points", [SEEN, UNSEEN], ids=["seen", "skipped"])
def test_names_that_no_file_can_hold_are_refused(tmp_path, name, points):
    entries = [{"image_id": name, "keypoints": points}, {"image_id": 1, "keypoints": SEEN}]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    refused(lambda: list(read_keypoints(tmp_path / "a.json")), NAMES[name])
    if name == -(2**70):
        return
    entries = [{"image_id": 0, "track_id": name, "keypoints": points}, *entries[1:]]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    refused(lambda: list(read_keypoints(tmp_path / "a.json")), NAMES[name])


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"people":' * 100_000, '{"a": ' + "9" * 100_000 + "}", "", "\ufeff", "null",
     '{"people": [{"pose_keypoints_2d": ["a"]}]}', '{"people": {"0": 1}}', '[{"keypoints": 3}]'],
    ids=range(9),
)  # fmt: skip
def test_deep_and_odd_json(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    refused(lambda: list(read_keypoints(path)))
    refused(lambda: read_config(path, default=TrainConfig()))


def test_an_integer_of_thousands_of_digits_is_one_line(tmp_path):
    (tmp_path / "a.json").write_text('[{"image_id": ' + "9" * 20_000 + "}]")
    refused(lambda: read_keypoints(tmp_path / "a.json"), "sensible numbers")


def test_a_files_name_that_is_no_text_names_its_frame(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.json"))
    path.write_text(json.dumps({"people": [{"pose_keypoints_2d": SEEN + [1.0] * 24}]}))
    assert next(read_keypoints(path)).frame == "\\xff"


@pytest.mark.parametrize("place", range(33))
def test_landmarks_beyond_the_largest_number_are_one_line(tmp_path, place):
    points = [{"x": 0.01 * n, "y": 0.5, "visibility": 0.9} for n in range(33)]
    for other in points[: place + 1]:
        other["x"] = other["y"] = 1e308
    document = {"image_width": 640, "image_height": 480, "landmarks": points}
    (tmp_path / "a.json").write_text(json.dumps(document))
    refused(lambda: list(read_keypoints(tmp_path / "a.json")), "expected ")


@pytest.mark.parametrize("key", ["joint", "frame", "person", "model"])
@pytest.mark.parametrize("name", ["\ud800", "a\0b"])
def test_results_with_names_that_are_no_text_are_refused(tmp_path, key, name):
    arrays = {
        "joint": np.array(["hip", "knee"]),
        "frame": np.array(["7", "8"]),
        "person": np.array(["a", "a"]),
        "point_estimate": np.zeros((2, 2, 3), np.float32),
        "model": np.array("none"),
    }
    arrays[key] = np.array(name if key == "model" else [name, "x"])
    np.savez(tmp_path / "a.npz", **arrays)
    refused(lambda: read_result(tmp_path / "a.npz"), "NUL characters|surrogate")


@pytest.mark.parametrize("focal", [0.0, -1.0, [9.0, 0.0]])
def test_pairs_without_a_focal_length_above_0_are_refused(tmp_path, focal):
    np.savez(tmp_path / "a.npz", p2d=np.ones((2, 17, 2)), p3d=np.ones((2, 17, 3)), focal=focal)
    refused(lambda: read_pairs(tmp_path / "a.npz"), "expected focal lengths above 0")


def test_frame_numbers_of_pairs_are_kept_whole(tmp_path):
    frames = np.array([2**24 + 1, 2**53 + 1])
    np.savez(tmp_path / "a.npz", p2d=np.ones((2, 17, 2)), p3d=np.ones((2, 17, 3)), frame=frames)
    assert read_pairs(tmp_path / "a.npz")[0].frame.tolist() == frames.tolist()
    for odd in (np.array([1, 2**63], np.uint64), np.array([1, np.nan]), np.array([1, 1e300])):
        np.savez(tmp_path / "a.npz", p2d=np.ones((2, 17, 2)), p3d=np.ones((2, 17, 3)), frame=odd)
        refused(lambda: read_pairs(tmp_path / "a.npz"), "frame numbers")


@pytest.mark.parametrize(
    "number", [0, -1, 1e999, 10**400, "9" * 5000, None, [[1]], True], ids=range(8)
)
def test_cameras_without_a_focal_length_above_0_are_refused(tmp_path, number):
    camera = {"R": np.eye(3).tolist(), "t": [0, 0, 3], "focal": number, "center": [1, 1]}
    if number is True:
        camera["R"] = [[10**400] * 3] * 3
    (tmp_path / "cameras.json").write_text(json.dumps([camera]))
    refused(lambda: read_cameras(tmp_path / "cameras.json", 1), "camera 0: expected")


# Pictures ----------------------------------------------------------------------------------------


def test_pictures_of_very_many_pixels_are_not_unpacked(tmp_path):
    # A header of 13,300 x 13,300 pixels; what follows is never reached.
    Image.new("1", (13_300, 13_300)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size < 50_000
    refused(lambda: read_image(tmp_path / "a.png"), "expected an image of up to", megabytes=100)


def test_pictures_that_would_run_a_program_are_refused(tmp_path):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"
    (tmp_path / "a.png").write_bytes(postscript)
    refused(lambda: read_image(tmp_path / "a.png"), "expected an image")


def test_pictures_of_very_many_scans_are_refused(tmp_path):
    path = tmp_path / "a.jpg"
    # Each scan is a few bytes, and goes over all pixels.
    path.write_bytes(jpeg_of_scans(2000, 5000))
    refused(lambda: read_image(path), "expected an image of up to 100 scans, got 5005")
    # Whatever lies between segments does not hide them; behind the end there are none.
    path.write_bytes(jpeg_of_scans(20, 200).replace(b"\xff\xda", b"\0\0\xff\xff\xff\xda"))
    refused(lambda: read_image(path), "expected an image of up to 100 scans")
    path.write_bytes(jpeg_of_scans(20, 3) + b"\xff\xda" * 1000)
    assert read_image(path).shape == (3, 20, 20)


@pytest.mark.parametrize("kind", ["webp", "png", "jpg", "tif"])
@pytest.mark.parametrize("exif", EXIF, ids=range(len(EXIF)))
def test_broken_exif_is_passed_over_or_one_line(tmp_path, kind, exif):
    path = tmp_path / f"a.{kind}"
    Image.new("RGB", (9, 7)).save(path, **({} if kind == "tif" else {"exif": exif}))
    try:
        assert read_image(path).shape in ((3, 7, 9), (3, 9, 7))
    except InputError as error:
        assert "\n" not in str(error)


def test_a_photograph_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 7)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (3, 9, 7)


@pytest.mark.parametrize("name", ["../0.png", "/etc/passwd", "a\0b.png", "sub/../../0.png"])
def test_images_outside_the_folder_are_not_read(tmp_path, name):
    Image.new("RGB", (30, 40)).save(tmp_path / "0.png")
    (tmp_path / "images").mkdir()
    arrays = {"imgname": np.array([name]), "center": np.ones((1, 2)), "scale": np.ones(1)}
    np.savez(tmp_path / "a.npz", **arrays)
    refused(
        lambda: SpinSource.read(tmp_path / "a.npz", tmp_path / "images", body=None, size=16),
        "expected images in|NUL",
    )


def test_no_reader_waits_for_the_other_end_of_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.nc")
    done = threading.Event()

    def read():
        with pytest.raises(InputError, match="got a pipe"):
            read_result(tmp_path / "a.nc")
        done.set()

    threading.Thread(target=read, daemon=True).start()
    assert done.wait(5)
