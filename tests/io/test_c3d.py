import io
import random
import warnings

import numpy as np
import pytest
import torch

from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.io.markers import read_c3d

c3d = pytest.importorskip("c3d", reason="reads .c3d files")

NAMES = list(H36M_17.joint_names)


def millimeters(frames=6, seed=0):
    return np.random.default_rng(seed).normal(0, 800, (frames, 17, 3)).astype(np.float32)


def content(points, *, names=NAMES, unit="mm", rate=120.0, missing=()):
    """A C3D file of points, those in `missing` with residual -1."""
    writer = c3d.Writer(point_rate=rate, point_scale=-1.0, point_units=unit.ljust(4))
    writer.set_point_labels(names)
    for index, frame in enumerate(points):
        rows = np.zeros((len(frame), 5), np.float32)
        rows[:, :3] = frame
        for at, joint in missing:
            if at == index:
                rows[joint, 3] = -1
        writer.add_frames([(rows, np.zeros((0, 0)))])
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        writer.write(file)
    return file.getvalue()


def write(tmp_path, data):
    path = tmp_path / "a.c3d"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1e-3), ("m", 1.0), ("cm", 1e-2)])
def test_points(tmp_path, unit, scale):
    points = millimeters()
    recording = read_c3d(write(tmp_path, content(points, unit=unit, missing=[(2, 5)])))
    assert recording.names == H36M_17.joint_names
    assert recording.rate == 120
    expected = torch.from_numpy(points) * scale
    expected[2, 5] = torch.nan
    torch.testing.assert_close(recording.positions, expected, equal_nan=True)
    torch.testing.assert_close(recording.joints(H36M_17), expected, equal_nan=True)


def test_points_without_labels(tmp_path):
    path = write(tmp_path, content(millimeters(), names=NAMES[:2] + [""] * 15))
    assert read_c3d(path).names[:4] == ("Pelvis", "RHip", "point 3", "point 4")


def test_wrong_files(tmp_path):
    whole = content(millimeters(40))
    for data, message in (
        (b"", "expected a C3D file"),
        (b"text" * 200, "expected a C3D file"),
        (whole[:-1000], r"expected 40 frames, got \d+: cut off"),
        (content(millimeters(), unit="inch"), "units of mm, cm, dm, m, got 'inch'"),
    ):
        path = write(tmp_path, data)
        with pytest.raises(InputError, match=message) as caught:
            read_c3d(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"gone.c3d: cannot be read: No such file"):
        read_c3d(tmp_path / "gone.c3d")


def test_damage_is_one_clear_line_or_harmless(tmp_path):
    whole = content(millimeters())
    generator = random.Random(0)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(3):
            data[generator.randrange(1024)] = generator.randrange(256)
        path = write(tmp_path, data)
        try:
            recording = read_c3d(path)
        except InputError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
        else:
            assert recording.positions.shape[1:] == (len(recording.names), 3)
    assert refused
