from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from propose_prob.errors import InputError
from propose_prob.io import read_amc

SOURCE = Path(__file__).parents[2].parent / "shared" / "data"

ASF = """# a comment
:version 1.10
:name TEST
:units
  mass 1.0
  length 0.5
  angle deg
:documentation
  words, which may be anything
:root
  order TX TY TZ RX RY RZ
  axis XYZ
  position 0 1 0
  orientation 0 0 0
:bonedata
  begin
    id 1
    name hand
    direction 1 0 0
    length 1
    axis 0 0 90 XYZ
    dof rx
    limits (-10.0 inf)
  end
  begin
    id 2
    name arm
    direction 1 0 0
    length 2
    axis 10 20 30 ZYX
    dof rz rx ry
    limits (-10.0 20.0)
           (-70.0 70.0)
           (-1 1)
  end
  begin
    id 3
    name rib
    direction 0 1 0
    length 3
    axis 0 0 0 XYZ
  end
:hierarchy
  begin
    root rib
    rib arm
    arm hand
  end
"""

AMC = """# another comment
:FULLY-SPECIFIED
:DEGREES
1
root 0 0 0 0 0 0
arm 0 0 0
hand 0
2
root 1 2 3 10 20 30
hand 40
arm 50 60 70
"""


def read(tmp_path, asf=ASF, amc=AMC, **options):
    (tmp_path / "a.asf").write_text(asf)
    (tmp_path / "a.amc").write_text(amc)
    return read_amc(tmp_path / "a.amc", tmp_path / "a.asf", **options)


def test_a_small_figure(tmp_path):
    motion = read(tmp_path, frame_rate=60)
    inch = 0.0254 / 0.5
    # Parents come first, whatever the file's order.
    assert motion.bone_names == ("root", "rib", "arm", "hand")
    assert motion.parents == (-1, 0, 1, 2)
    assert motion.frame_rate == 60
    ends = motion.end_joints() / inch
    rest = torch.tensor([[0.0, 1, 0], [0, 4, 0], [2, 4, 0], [3, 4, 0]]).double()
    torch.testing.assert_close(ends[0], rest)
    # A second way, in scipy's own words: lower case turns about fixed axes, the first one first.
    root = Rotation.from_euler("xyz", [10, 20, 30], degrees=True)
    axes = Rotation.from_euler("zyx", [10, 20, 30], degrees=True)
    turn = Rotation.from_euler("zxy", [50, 60, 70], degrees=True)
    arm = root * axes * turn * axes.inv()
    axes = Rotation.from_euler("z", 90, degrees=True)
    hand = arm * axes * Rotation.from_euler("x", 40, degrees=True) * axes.inv()
    points = [np.array([1.0, 3, 3])]
    for rotation, bone in ((root, [0, 3, 0]), (arm, [2, 0, 0]), (hand, [1, 0, 0])):
        points.append(points[-1] + rotation.apply(bone))
    torch.testing.assert_close(ends[1], torch.from_numpy(np.stack(points)))
    torch.testing.assert_close(motion.joints()[:, 3], motion.end_joints()[:, 2])


def test_radians_and_units(tmp_path):
    degrees = read(tmp_path)
    numbers = {"10 20 30": [10, 20, 30], "40": [40], "50 60 70": [50, 60, 70]}
    amc = AMC.replace(":DEGREES", ":RADIANS")
    asf = ASF.replace("angle deg", "angle rad")
    for text, values in numbers.items():
        amc = amc.replace(f" {text}\n", " " + " ".join(map(str, np.deg2rad(values))) + "\n")
    asf = asf.replace("axis 10 20 30", "axis " + " ".join(map(str, np.deg2rad([10, 20, 30]))))
    asf = asf.replace("axis 0 0 90", f"axis 0 0 {np.pi / 2}")
    radians = read(tmp_path, asf, amc, meters_per_unit=0.0254 / 0.5)
    torch.testing.assert_close(radians.end_joints(), degrees.end_joints())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (":version 1.10", "1.10", r"\.asf:2: expected a section such as :bonedata, got '1.10'"),
        (":units", ":others", "expected a section :units, found none"),
        ("length 0.5", "length 0", r"\.asf:6: expected a unit of length above 0"),
        ("length 0.5", "length", r"\.asf:6: expected 1 numbers for the unit of length, got 0"),
        ("angle deg", "angle turns", r"\.asf:7: expected angles in deg or rad, got 'turns'"),
        ("order TX", "order L", r"\.asf:11: expected different degrees of freedom"),
        ("axis XYZ\n  pos", "axis XYX\n  pos", r"\.asf:12: expected an order of axes .*'XYX'"),
        ("position 0 1 0", "position 0 1", r"\.asf:13: expected 3 numbers for the root's position"),
        ("position 0 1 0", "place 0 1 0", r"\.asf:13: unknown word 'place' of the root"),
        ("  begin\n    id 1", "    id 1", r"\.asf:16: expected begin, got 'id'"),
        ("name arm", "name hand", r"\.asf:35: bone 'hand' comes twice"),
        ("direction 1 0 0", "direction 1 nan 0", r"\.asf:19: expected a finite number"),
        ("    length 1\n", "", r"\.asf:23: the bone that ends here has no length"),
        ("dof rx\n", "dof tx\n", r"\.asf:22: expected different degrees .* got 'tx'"),
        ("dof rx\n", "dof rx ry\n", r"\.asf:24: expected 2 limits .* of bone 'hand'"),
        ("limits (-10.0 inf)", "stretch 2", r"\.asf:23: unknown word 'stretch' in bone 'hand'"),
        ("    arm hand", "    arm finger", r"\.asf:47: unknown bone 'finger'"),
        ("    arm hand", "    rib arm", r"\.asf:47: bone 'arm' has two parents"),
        ("    arm hand\n", "", r"do not hang on the root: hand"),
        (":hierarchy", ":tree", "expected a section :hierarchy, found none"),
    ],
)
def test_malformed_skeletons_say_where(tmp_path, old, new, message):
    assert old in ASF
    with pytest.raises(InputError, match=message):
        read(tmp_path, ASF.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("hand 40", "hand 40 1", r"\.amc:10: expected 1 numbers for bone 'hand', got 2"),
        ("hand 40", "hand nan", r"\.amc:10: expected a finite number for bone 'hand', got 'nan'"),
        ("hand 40", "hand x", r"\.amc:10: expected a number for bone 'hand', got 'x'"),
        ("hand 40", "foot 40", r"\.amc:10: unknown bone 'foot'"),
        ("hand 40", "arm 50 60 70", r"\.amc:11: expected 'arm' once in each frame"),
        ("hand 40\n", "", r"\.amc:10: frame 2 ends without hand"),
        ("hand 0\n", "", r"\.amc:7: frame 1 ends without hand"),
        ("\n2\n", "\n3\n", r"\.amc:8: expected frame 2, got '3'"),
        ("\n1\n", "\n", r"\.amc:4: expected 'root' once in each frame"),
        (":DEGREES", ":GRADES", None),
    ],
)
def test_malformed_motions_say_where(tmp_path, old, new, message):
    assert old in AMC
    if message is None:
        assert len(read(tmp_path, amc=AMC.replace(old, new, 1))) == 2
        return
    with pytest.raises(InputError, match=message):
        read(tmp_path, amc=AMC.replace(old, new, 1))


def test_no_frames_and_no_file(tmp_path):
    with pytest.raises(InputError, match="at least one frame, found none"):
        read(tmp_path, amc=":FULLY-SPECIFIED\n:DEGREES\n")
    with pytest.raises(InputError, match="cannot be read"):
        read_amc(tmp_path / "none.amc", tmp_path / "a.asf")


@pytest.mark.skipif(not SOURCE.is_dir(), reason="needs motion files beside the project")
@pytest.mark.parametrize(
    ("clip", "split", "frames"),
    [("02_02", "test_seen", 75), ("02_03", "test_seen", 44), ("03_01", "test_subject03", 108)],
)
def test_the_reader_reproduces_cmu17(clip, split, frames):
    motion = read_amc(SOURCE / "raw" / f"{clip}.amc", SOURCE / "raw" / f"{clip[:2]}.asf")
    with (
        np.load(SOURCE / f"cmu17_{split}.npz", allow_pickle=False) as full,
        np.load(SOURCE / "cmu17_sequences.npz", allow_pickle=False) as sequences,
    ):
        rows = np.isin(full["seq_id"], np.flatnonzero(sequences["clip"] == clip))
        world, source = full["world"][rows], full["source_frame"][rows]
    assert len(world) == frames
    names = (
        "rhipjoint rfemur rtibia lhipjoint lfemur ltibia lowerback lowerneck upperneck head "
        "lclavicle lhumerus lwrist rclavicle rhumerus rwrist"
    ).split()
    ends = motion.end_joints()[source][:, [motion.bone(name) for name in names]].numpy()
    joints = np.concatenate([ends[:, [0, 3]].mean(axis=1, keepdims=True), ends], axis=1)
    z_up = np.stack([joints[..., 0], -joints[..., 2], joints[..., 1]], axis=-1)
    assert np.linalg.norm(z_up - world, axis=-1).max() < 1e-4
