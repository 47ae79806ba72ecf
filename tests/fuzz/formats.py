"""The formats that are read, each with an honest file, its reader and what makes it hostile."""

import json
import os
import pickle
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from propose_prob.bodies import load_open_body, load_smpl
from propose_prob.cli.fit import motion_files
from propose_prob.cli.fuse import read_cameras
from propose_prob.cli.train import read_world
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
from propose_prob.io import read_amass, read_amc, read_bvh, read_keypoints, write_bvh
from propose_prob.io.files import open_file
from propose_prob.io.markers import read_c3d, read_trc
from propose_prob.models import ProPose, ProPoseConfig
from propose_prob.results.reader import read_result
from propose_prob.results.writer import open_writer
from propose_prob.training.checkpoint import read_checkpoint, write_checkpoint
from propose_prob.training.configs import TrainConfig, read_config
from propose_prob.weights import load, save
from tests.datasets import test_h36m, test_mpi_inf_3dhp, test_threedpw
from tests.fuzz import hostile
from tests.fuzz.damage import damaged_file
from tests.io import test_amc, test_c3d

TINY = ProPoseConfig(
    latent=6, couplings=2, flow_width=16, code=16, width=16, blocks=1, decoder_width=16,
    decoder_blocks=1,
)  # fmt: skip

BVH = (
    "HIERARCHY\nROOT a\n{\n OFFSET 0 1 0\n CHANNELS 6 Xposition Yposition Zposition Zrotation "
    "Xrotation Yrotation\n JOINT b\n {\n  OFFSET 3 0 0\n"
    "  CHANNELS 3 Zrotation Xrotation Yrotation\n"
    "  End Site\n  {\n   OFFSET 2 0 0\n  }\n }\n}\nMOTION\nFrames: 2\nFrame Time: 0.033\n"
    "1 2 3 4 5 6 7 8 9\n1 2 3 4 5 6 7 8 9\n"
)
TRC = (
    "PathFileType\t4\t(X/Y/Z)\ta.trc\nDataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\t"
    "OrigDataRate\tOrigDataStartFrame\tOrigNumFrames\n60\t60\t2\t1\tmm\t60\t1\t2\n"
    "Frame#\tTime\tHead\t\t\n\t\tX1\tY1\tZ1\n\n1\t0.0\t1\t2\t3\n2\t0.1\t1\t2\t3\n"
)

Generator = Callable[[bytes, random.Random], bytes]
Reader = Callable[[Path], object]


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        make: Writes an honest file into a folder, with those that go with it; gives it and what
            reads it.
        hostile: Generators of hostile content.
        weight: How often it comes, in relation to others: less where reading takes long.
    """

    make: Callable[[Path], tuple[Path, Reader]]
    hostile: tuple[Generator, ...] = ()
    weight: int = 10


def text_file(name, content, read):
    def make(folder):
        (folder / name).write_text(content)
        return folder / name, read

    return make


def archive(name, read, **arrays):
    def make(folder):
        np.savez(folder / name, **arrays)
        return folder / name, read

    return make


# Keypoints ----------------------------------------------------------------------------------------


def read_people(path):
    array = path.suffix in (".npy", ".npz")
    for frame in read_keypoints(path, skeleton="h36m_17" if array else None):
        assert not frame.p2d[frame.confidence > 0].isnan().any()
        assert frame.p2d.isfinite()[frame.confidence > 0].all()


def array_of_people(folder):
    np.save(folder / "a.npy", np.ones((4, 17, 2), np.float32))
    return folder / "a.npy", read_people


def landmarks():
    points = [{"x": 0.01 * n, "y": 0.5, "visibility": 0.9} for n in range(33)]
    return {"image_width": 640, "image_height": 480, "landmarks": points}


_INSTANCE = {"keypoints": [[1.0, 2.0]] * 17, "keypoint_scores": [0.5] * 17}
JSON = {
    "openpose.json": {"people": [{"pose_keypoints_2d": [float(i) for i in range(75)]}] * 2},
    "coco.json": hostile.keypoints(track_id="a"),
    "annotations.json": {"annotations": hostile.keypoints(id=3)},
    "alphapose.json": {"0.jpg": {"bodies": [{"joints": [1.5, 2.5, 0.5] * 18}]}},
    "mmpose.json": {
        "meta_info": {"dataset_name": "coco"},
        "instance_info": [{"frame_id": 1, "instances": [_INSTANCE] * 2}],
    },
    "mediapipe.json": [landmarks()] * 2,
}

# Motion -------------------------------------------------------------------------------------------


def read_and_write_bvh(path):
    """What was read can be written, and is read again as it was."""
    motion = read_bvh(path)
    again = path.with_name("again.bvh")
    try:
        write_bvh(again, motion)
        assert read_bvh(again).parents == motion.parents
    finally:
        again.unlink(missing_ok=True)


def acclaim(name):
    def make(folder):
        (folder / "a.asf").write_text(test_amc.ASF)
        (folder / "a.amc").write_text(test_amc.AMC)
        return folder / name, lambda path: read_amc(folder / "a.amc", folder / "a.asf")

    return make


def c3d(folder):
    (folder / "a.c3d").write_bytes(test_c3d.content(test_c3d.millimeters(frames=2)))
    return folder / "a.c3d", read_c3d


# Data sets ----------------------------------------------------------------------------------------


def h36m(name):
    def make(folder):
        motion, keypoints = test_h36m.data_set(("S9",))
        few = {"S9": {"Walking": motion["S9"]["Walking"]}}
        seen = {"S9": {"Walking": keypoints["S9"]["Walking"]}}
        # Stored, not deflated: damage shall reach the pickles and not only the checksums.
        for part, arrays in (
            ("data_3d_h36m", {"positions_3d": few}),
            ("data_2d_h36m_gt", {"positions_2d": seen, "metadata": test_h36m.GT}),
        ):
            np.savez(folder / f"{part}.npz", **arrays)
        return folder / name, lambda path: list(read_h36m(path.parent, subjects=["S9"]))

    return make


def threedpw(folder):
    path = test_threedpw.write(folder, test_threedpw.fields(people=1, frames=5))
    return path, lambda path: list(read_3dpw(folder))


def mpi_test(writer):
    def make(folder):
        path = folder / "TS1" / "annot_data.mat"
        writer(path, test_mpi_inf_3dhp.test_variables("TS1"))
        return path, lambda path: list(read_mpi_inf_3dhp_test(folder, sequences=["TS1"]))

    return make


def mpi_train(writer):
    def make(folder):
        for number in (1, 2):
            path = folder / "S3" / f"Seq{number}" / "annot.mat"
            writer(path, test_mpi_inf_3dhp.train_variables(cameras=1))
        return path, lambda path: list(
            read_mpi_inf_3dhp_train(folder, subjects=["S3"], cameras=[0])
        )

    return make


def spin(folder):
    Image.fromarray(np.full((40, 30, 3), 7, np.uint8)).save(folder / "0.png")
    np.savez(
        folder / "train.npz",
        imgname=np.array(["0.png"] * 2),
        center=np.full((2, 2), 15.0),
        scale=np.full(2, 0.1),
        part=np.ones((2, 24, 3)),
        pose=np.zeros((2, 72)),
        shape=np.zeros((2, 10)),
        has_smpl=np.ones(2),
    )
    body = load_open_body()

    def read(path):
        read_spin(path)
        batch = SpinSource.read(path, folder, body=body, size=16)(torch.arange(2))
        assert batch.images.isfinite().all()

    return folder / "train.npz", read


def renders(name):
    def make(folder):
        render_set(RenderConfig("val", size=32), 2, folder)
        if name.endswith(".npz"):
            with np.load(folder / "val" / name) as truth:
                np.savez(folder / "val" / name, **truth)
        return folder / "val" / name, lambda path: load_renders(folder, "val").images(
            torch.arange(2)
        )

    return make


PAIRS = {
    "p2d": np.ones((2, 17, 2)), "p3d": np.ones((2, 17, 3)), "focal": 9.0, "center": np.ones(2),
    "frame": np.arange(2), "action": np.array(["a", "b"]), "confidence": np.ones((2, 17)),
    "skeleton": np.array("h36m_17"),
}  # fmt: skip


def cameras(folder):
    camera = {"R": np.eye(3).tolist(), "t": [0, 0, 3], "K": [[9, 0, 1], [0, 9, 1], [0, 0, 1]]}
    other = {"R": np.eye(3).tolist(), "t": [0, 0, 3], "focal": 9.0, "center": [1, 1]}
    (folder / "cameras.json").write_text(json.dumps([camera, other]))
    return folder / "cameras.json", lambda path: read_cameras(path, 2)


# Pictures, results, models ------------------------------------------------------------------------


def picture(name):
    def make(folder):
        pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        return folder / name, read_image

    return make


def result(name):
    def make(folder):
        with open_writer(folder / name, joint_names=["hip", "knee"]) as writer:
            point = np.zeros((2, 2, 3), np.float32)
            arrays = {"point_estimate": point, "pose": point[:, None], "spread": point[..., 0]}
            writer.append(arrays, {"frame": ["7", "8"], "person": ["a", "a"]})
            writer.finish({"model": "none"})
        return folder / name, lambda path: read_result(path).take([0])

    return make


SMPL = {
    "v_template": np.zeros((4, 3)), "weights": np.eye(24)[:4],
    "J_regressor": np.full((24, 4), 0.25), "shapedirs": np.zeros((4, 3, 10)),
    "posedirs": np.zeros((4, 3, 207)), "f": np.zeros((1, 3), np.uint32),
    "kintree_table": np.array([[0, *SMPL_24.parents[1:]], range(24)]),
}  # fmt: skip


def smpl_pickle(folder):
    (folder / "body.pkl").write_bytes(pickle.dumps(SMPL, protocol=2))
    return folder / "body.pkl", load_smpl


def backbone(name):
    def make(folder):
        network = ResNet("basic", (1, 1, 1, 1), width=2, classes=0)
        if name.endswith("safetensors"):
            from safetensors.torch import save_file

            save_file(network.state_dict(), folder / name)
        else:
            archived = name != "older.pt"
            torch.save(network.state_dict(), folder / name, _use_new_zipfile_serialization=archived)
        return folder / name, lambda path: load_backbone(network, path)

    return make


def weights(folder):
    torch.manual_seed(0)
    save(ProPose(TINY), folder / "a.safetensors")
    return folder / "a.safetensors", load


def checkpoint(folder):
    state = {"format": "propose_prob.checkpoint/1", "a": torch.ones(3), "parts": {"b": {}}}
    write_checkpoint(state, folder / "c.pt")
    return folder / "c.pt", read_checkpoint


def configuration(folder):
    (folder / "config.json").write_text(json.dumps({"steps": 3, "model": {"width": 8}}))
    return folder / "config.json", lambda path: read_config(path, default=TrainConfig())


def people(folder):
    """No file of a format: labels of people, each of which is to have a file of its own."""
    (folder / "labels").write_text("0\n1")

    def read(path):
        with open_file(path) as file:
            names = file.read(10**5).decode("utf-8", "surrogateescape").split("\n")
        files = motion_files(Path("mo.bvh"), names)
        assert list(files) == list(dict.fromkeys(names))
        assert len({str(file).lower() for file in files.values()}) == len(files)
        assert all(file.parent == Path() and len(file.name) < 100 for file in files.values())

    return folder / "labels", read


def hostile_labels(content, generator):
    return "\n".join(hostile.labels(generator)).encode("utf-8", "surrogateescape")


# All of them --------------------------------------------------------------------------------------

_TEXT, _DEEP = hostile.hostile_words, hostile.deep_json
_NPZ = (hostile.odd_arrays, hostile.hostile_npz, hostile.odd_arrays)
_TEXTS = (*_NPZ, hostile.hostile_texts)
_PICTURES = (hostile.hostile_exif, hostile.hostile_picture)
#: Read by a process of their own, which takes ten times as long.
_APART = 4

FORMATS: dict[str, Format] = {
    **{
        name: Format(
            text_file(name, json.dumps(document), read_people),
            (hostile.hostile_json, hostile.hostile_json, _DEEP),
        )
        for name, document in JSON.items()
    },
    "frames.npy": Format(array_of_people, (hostile.hostile_npy,)),
    "frames.npz": Format(archive("a.npz", read_people, keypoints=np.ones((4, 17, 2))), _NPZ),
    "motion.bvh": Format(
        text_file("a.bvh", BVH, read_and_write_bvh), (_TEXT, _TEXT, hostile.hostile_figure)
    ),
    "markers.trc": Format(text_file("a.trc", TRC, read_trc), (_TEXT,)),
    "asf": Format(acclaim("a.asf"), (_TEXT, _TEXT, hostile.hostile_chain)),
    "amc": Format(acclaim("a.amc"), (_TEXT,)),
    "c3d": Format(c3d, (hostile.hostile_c3d,)),
    "amass.npz": Format(
        archive(
            "a.npz", read_amass, poses=np.ones((3, 72)), trans=np.ones((3, 3)), betas=np.ones(10),
            gender="female", mocap_framerate=60.0,
        ),
        _TEXTS,
    ),
    "h36m 2d": Format(h36m("data_2d_h36m_gt.npz"), (hostile.odd_objects, hostile.hostile_npz)),
    "h36m 3d": Format(h36m("data_3d_h36m.npz"), (hostile.odd_objects, hostile.hostile_npz)),
    "3dpw": Format(threedpw, (hostile.odd_pickle, hostile.hostile_pickle)),
    "3dhp test 7.3": Format(
        mpi_test(test_mpi_inf_3dhp.write_hdf5), (hostile.hostile_hdf5,), _APART
    ),
    "3dhp test 5": Format(
        mpi_test(test_mpi_inf_3dhp.write_version5), (hostile.odd_matlab,), _APART
    ),
    "3dhp train 7.3": Format(
        mpi_train(test_mpi_inf_3dhp.write_hdf5), (hostile.hostile_hdf5,), _APART
    ),
    "3dhp train 5": Format(
        mpi_train(test_mpi_inf_3dhp.write_version5), (hostile.odd_matlab,), _APART
    ),
    "spin": Format(spin, _TEXTS),
    "world.npz": Format(archive("a.npz", read_world, world=np.ones((2, 17, 3))), _NPZ),
    "pairs": Format(archive("a.npz", read_pairs, **PAIRS), (*_TEXTS, hostile.extreme_numbers)),
    "truth": Format(
        archive("a.npz", lambda path: _read_truth(path, 2), p3d=np.ones((2, 17, 3))), _NPZ
    ),
    "cameras": Format(cameras, (hostile.hostile_json,)),
    **{
        name: Format(picture(f"a.{name}"), _PICTURES)
        for name in ("png", "jpg", "tif", "webp", "gif", "bmp", "ppm")
    },
    "renders' configuration": Format(renders("config.json"), (hostile.hostile_json,)),
    "renders' images": Format(renders("00000.images.npy"), (hostile.hostile_npy,)),
    "renders' truth": Format(renders("00000.truth.npz"), _NPZ),
    "result.nc": Format(result("a.nc"), (hostile.hostile_hdf5,), _APART),
    "result.npz": Format(result("a.npz"), _TEXTS),
    "smpl.pkl": Format(smpl_pickle, (hostile.odd_pickle, hostile.hostile_pickle)),
    "smpl.npz": Format(archive("a.npz", load_smpl, **SMPL), _NPZ),
    "backbone.pt": Format(backbone("a.pt"), (hostile.hostile_torch,)),
    "backbone older.pt": Format(
        backbone("older.pt"), (hostile.hostile_torch, hostile.hostile_sequence)
    ),
    "backbone.safetensors": Format(backbone("a.safetensors"), (hostile.hostile_safetensors,)),
    "weights.safetensors": Format(
        weights, (hostile.hostile_safetensors, hostile.large_weights)
    ),
    "checkpoint.pt": Format(checkpoint, (hostile.hostile_torch,)),
    "config.json": Format(configuration, (hostile.hostile_json, _DEEP)),
    "labels of motion files": Format(people, (hostile_labels,), 3),
}  # fmt: skip


# What is no file ----------------------------------------------------------------------------------


def not_a_file(path, generator):
    """Puts something else in the place of a file."""
    path.unlink(missing_ok=True)
    kind = generator.choice(("pipe", "device", "full", "folder", "socket", "nothing", "itself",
                             "missing", "sparse", "empty"))  # fmt: skip
    if kind == "pipe":
        os.mkfifo(path)
    elif kind in ("device", "full"):
        path.symlink_to("/dev/zero" if kind == "device" else "/dev/full")
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        # Names of sockets are short: it is made elsewhere in a short way and moved here.
        here = os.getcwd()
        os.chdir(path.parent)
        try:
            with socket.socket(socket.AF_UNIX) as made, suppress(OSError):
                made.bind(path.name)
        finally:
            os.chdir(here)
    elif kind == "nothing":
        path.symlink_to(path.with_name("nowhere"))
    elif kind == "itself":
        path.symlink_to(path.name)
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(generator.choice((2**16, 2**28, 2**33, 2**40)))
    elif kind == "empty":
        path.write_bytes(b"")


def cleared(path):
    """Removes whatever is in the place of a file."""
    with suppress(FileNotFoundError):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


class FormatSession:
    """One format in a folder of its own.

    Args:
        name: Key of `FORMATS`.
        folder: An empty folder.
    """

    def __init__(self, name, folder):
        self.name, self.format = name, FORMATS[name]
        self.path, self.read = self.format.make(folder)
        self.folder = folder
        self.content = self.path.read_bytes()
        self.read(self.path)
        self.before = self._listed()

    def run(self, seed):
        """Reads the input of a seed; gives whether it was answered.

        Raises:
            AssertionError: If it did something else than to answer or to refuse in one line.
        """
        generator = random.Random(f"{self.name} {seed}")
        cleared(self.path)
        # As a hostile file sees it, the working folder is the one that it lies in.
        here = os.getcwd()
        os.chdir(self.folder)
        try:
            self._put(generator)
            self.read(self.path)
        except InputError as error:
            message = str(error)
            assert "\n" not in message.strip() and len(message) < 2000, repr(message[:3000])
            return False
        finally:
            os.chdir(here)
            assert self._listed() <= self.before, f"left {self._listed() - self.before}"
        return True

    def _put(self, generator):
        if generator.random() < 0.04:
            not_a_file(self.path, generator)
        elif self.format.hostile and generator.random() < 0.6:
            self.path.write_bytes(generator.choice(self.format.hostile)(self.content, generator))
        else:
            self.path.write_bytes(damaged_file(self.content, generator))

    def _listed(self):
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")}
