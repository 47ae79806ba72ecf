"""Damaged and hostile files: one `InputError`, soon, and never another exception."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch

from propose_prob.bodies import load_smpl
from propose_prob.cli.train import read_world
from propose_prob.datasets import read_spin
from propose_prob.errors import InputError
from propose_prob.io import read_amass, read_bvh, read_keypoints
from propose_prob.io.markers import read_trc
from propose_prob.models import ProPose, ProPoseConfig
from propose_prob.training.checkpoint import read_checkpoint, write_checkpoint
from propose_prob.training.configs import TrainConfig, read_config
from propose_prob.weights import load, save
from tests.damage import check_damaged

OPENPOSE = json.dumps(
    {"version": 1.3, "people": [{"pose_keypoints_2d": [float(i) for i in range(75)]}] * 2}
)
COCO = json.dumps(
    [{"image_id": 3, "keypoints": [1.5, 2.5, 0.5] * 17, "score": 1, "category_id": 1}] * 2
)
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


def _npz(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _npy():
    file = io.BytesIO()
    np.save(file, np.ones((4, 17, 2), np.float32))
    return file.getvalue()


def _weights(folder):
    save(ProPose(ProPoseConfig(couplings=1, width=8, flow_width=8, decoder_width=8, code=8)),
         folder / "w")  # fmt: skip
    return (folder / "w").read_bytes()


def _checkpoint(folder):
    write_checkpoint({"format": "propose_prob.checkpoint/1", "a": torch.ones(3)}, folder / "c")
    return (folder / "c").read_bytes()


def _keypoints(path):
    for frame in read_keypoints(path, skeleton=None if path.suffix == ".json" else "h36m_17"):
        assert not frame.p2d[frame.confidence > 0].isnan().any()


def _body(path):
    return load_smpl(path)


FORMATS = {
    "openpose.json": (lambda _: OPENPOSE.encode(), _keypoints),
    "coco.json": (lambda _: COCO.encode(), _keypoints),
    "frames.npy": (lambda _: _npy(), _keypoints),
    "frames.npz": (lambda _: _npz(keypoints=np.ones((4, 17, 2))), _keypoints),
    "motion.bvh": (lambda _: BVH.encode(), read_bvh),
    "markers.trc": (lambda _: TRC.encode(), read_trc),
    "amass.npz": (
        lambda _: _npz(poses=np.ones((3, 72)), trans=np.ones((3, 3)), betas=np.ones(10),
                       gender="female", mocap_framerate=60.0),
        read_amass,
    ),
    "spin.npz": (
        lambda _: _npz(imgname=np.array(["a", "b"]), center=np.ones((2, 2)), scale=np.ones(2),
                       part=np.ones((2, 24, 3))),
        read_spin,
    ),
    "world.npz": (lambda _: _npz(world=np.ones((2, 17, 3))), read_world),
    "weights.safetensors": (_weights, load),
    "checkpoint.pt": (_checkpoint, read_checkpoint),
    "config.json": (
        lambda _: json.dumps({"steps": 3, "model": {"width": 8}}).encode(),
        lambda path: read_config(path, default=TrainConfig()),
    ),
    "body.npz": (lambda _: _npz(v_template=np.ones((4, 3)), weights=np.ones((4, 2))), _body),
}  # fmt: skip


def check(name, tmp_path, seeds):
    make, read = FORMATS[name]
    check_damaged(name, make(tmp_path), tmp_path / name, read, seeds)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files(name, tmp_path):
    check(name, tmp_path, range(60))


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_files(name, tmp_path):
    check(name, tmp_path, range(1000, 6000))


@pytest.mark.parametrize(
    "text",
    ["[" * 200_000, '{"people":' * 100_000, '{"a": ' + "9" * 100_000 + "}", "", "\ufeff", "null",
     '{"people": [{"pose_keypoints_2d": ["a"]}]}', '{"people": {"0": 1}}', '[{"keypoints": 3}]'],
    ids=range(9),
)  # fmt: skip
def test_deep_and_odd_json(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        list(read_keypoints(path))
    with pytest.raises(InputError):
        read_config(path, default=TrainConfig())


@pytest.mark.parametrize("reader", [_keypoints, read_amass, read_spin, read_world])
@pytest.mark.parametrize("name", ["keypoints", "poses", "world", "imgname"])
def test_archives_that_would_fill_the_memory_are_refused(tmp_path, reader, name):
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    shape = (200_000_000, 17, 2)  # 27 GB
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            member.write(b"\0" * 1_000_000)
    # Says that it is long; the truth does not matter to one who would have to unpack it to know.
    with pytest.raises(InputError):
        reader(path)
