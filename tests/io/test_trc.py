import math
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import COCO_17, H36M_17
from propose_prob.io.markers import MarkerRecording, read_trc, write_trc

# As OpenSim and Cortex write them: empty fields where a marker was lost, a trailing tab.
OPENSIM = (
    "PathFileType\t4\t(X/Y/Z)\tsubject01_walk1.trc\t\n"
    "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits\tOrigDataRate\tOrigDataStartFrame\t"
    "OrigNumFrames\n"
    "60.00\t60.00\t3\t2\tmm\t60.00\t1\t3\n"
    "Frame#\tTime\tR.ASIS\t\t\tHead\t\t\t\n"
    "\t\tX1\tY1\tZ1\tX2\tY2\tZ2\t\n"
    "\n"
    "1\t0.0\t608.46960\t1058.60160\t163.13650\t1.5\t2.5\t3.5\t\n"
    "2\t0.017\t609.0\t1059.0\t163.0\t\t\t\t\n"
    "3\t0.033\t610.0\t1060.0\tNaN\t1\t2\t3\n"
)


def write(tmp_path, text):
    path = tmp_path / "a.trc"
    path.write_text(text)
    return path


def test_opensim_file(tmp_path):
    recording = read_trc(write(tmp_path, OPENSIM))
    assert recording.names == ("R.ASIS", "Head")
    assert recording.rate == 60
    expected = torch.tensor([[608.4696, 1058.6016, 163.1365], [1.5, 2.5, 3.5]]) / 1000
    torch.testing.assert_close(recording.positions[0], expected)
    missing = recording.positions.isnan()
    assert missing.all(-1).tolist() == [[False, False], [False, True], [True, False]]
    assert missing.any(-1).tolist() == missing.all(-1).tolist()


def test_other_units_and_no_blank_line(tmp_path):
    text = OPENSIM.replace("\n\n", "\n").replace("\tmm\t", "\tm\t")
    assert read_trc(write(tmp_path, text)).positions[0, 1].tolist() == [1.5, 2.5, 3.5]


@given(
    frames=st.integers(0, 4),
    seed=st.integers(0, 2**31),
    rate=st.sampled_from([25.0, 50.0, 59.94, 120.0]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_round_trip(tmp_path, frames, seed, rate):
    generator = torch.Generator().manual_seed(seed)
    pose = torch.randn(frames, 17, 3, generator=generator)
    pose[torch.rand(frames, 17, generator=generator) < 0.2] = torch.nan
    path = tmp_path / "a.trc"
    write_trc(path, pose, names=H36M_17.joint_names, rate=rate)
    recording = read_trc(path)
    assert recording.names == H36M_17.joint_names
    assert recording.rate == rate
    torch.testing.assert_close(recording.positions, pose, atol=1e-7, rtol=1e-6, equal_nan=True)
    assert torch.equal(recording.joints(H36M_17).isnan(), pose.isnan())
    assert os.listdir(tmp_path) == ["a.trc"]


def test_layout_is_what_opensim_reads(tmp_path):
    path = tmp_path / "pose.trc"
    write_trc(path, torch.tensor([[[1.0, 2, 3], [math.nan, 0, 0]]]), names=["A", "B"], rate=50)
    lines = path.read_text().split("\n")
    assert lines[0] == "PathFileType\t4\t(X/Y/Z)\tpose.trc"
    assert lines[2] == "50\t50\t1\t2\tmm\t50\t1\t1"
    assert lines[3] == "Frame#\tTime\tA\t\t\tB\t\t"
    assert lines[4] == "\t\tX1\tY1\tZ1\tX2\tY2\tZ2"
    assert lines[5] == ""
    assert lines[6] == "1\t0.000000\t1000.0000\t2000.0000\t3000.0000\t\t\t"


def test_joints_by_name():
    recording = MarkerRecording(("RKNEE", "other", "pelvis"), torch.arange(18.0).view(2, 3, 3), 50)
    joints = recording.joints(H36M_17)
    assert joints.shape == (2, 17, 3)
    assert torch.equal(joints[:, 2], recording.positions[:, 0])
    assert torch.equal(joints[:, 0], recording.positions[:, 2])
    assert joints[:, 1].isnan().all()
    with pytest.raises(InputError, match=r"joints of coco_17 \(nose, .*, got RKNEE, other, pelvis"):
        recording.joints(COCO_17)


WRONG = {
    "empty": ("", "begins with PathFileType, got an empty file"),
    "other": ("a,b\n" * 9, "begins with PathFileType, got 'a,b'"),
    "short": ("PathFileType\t4\n", "begins with PathFileType"),
    "header": (OPENSIM.replace("Units", "Unit"), "expected Units in lines 2 and 3"),
    "unit": (OPENSIM.replace("\tmm\t", "\tinch\t"), "units of mm, cm, dm, m, got 'inch'"),
    "rate": (OPENSIM.replace("60.00\t60.00\t3", "0\t60.00\t3"), "positive DataRate, got 0.0"),
    "count": (OPENSIM.replace("\t3\t2\tmm", "\tx\t2\tmm"), "NumFrames in line 3, got 'x'"),
    "names": (OPENSIM.replace("Head", ""), "expected 2 names in line 4, got 1"),
    "frames": (OPENSIM.replace("\t3\t2\tmm", "\t9\t2\tmm"), "expected 9 frames, got 3"),
    "columns": (OPENSIM.rsplit("\t", 2)[0], "expected 8 columns in line 9, got 6"),
    "text": (OPENSIM.replace("1.5", "one"), "expected a coordinate in line 7, got 'one'"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_files(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_trc(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_missing_and_binary(tmp_path):
    with pytest.raises(InputError, match=r"gone.trc: cannot be read: No such file"):
        read_trc(tmp_path / "gone.trc")
    (tmp_path / "b.trc").write_bytes(b"\xff\xd8")
    with pytest.raises(InputError, match=r"expected a .trc text file"):
        read_trc(tmp_path / "b.trc")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(names=["A"]), r"shape \(N, 1, 3\), got \(1, 2, 3\)"),
        (dict(rate=0.0), "positive rate, got 0.0"),
        (dict(names=["A", "A"]), "different names"),
        (dict(names=["A\t", "B"]), "on one line"),
    ],
)
def test_wrong_arguments(tmp_path, changes, message):
    arguments = dict(names=["A", "B"], rate=50.0) | changes
    with pytest.raises(ValueError, match=message):
        write_trc(tmp_path / "a.trc", torch.zeros(1, 2, 3), **arguments)
    assert not (tmp_path / "a.trc").exists()
