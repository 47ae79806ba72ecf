import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propose_prob.bodies import SkeletonBody, write_body_bvh
from propose_prob.errors import InputError
from propose_prob.geometry.rotations import geodesic_distance, matrix_from_axis_angle
from propose_prob.io import Motion, read_amc, read_bvh, write_bvh

RAW = Path(__file__).parents[2].parent / "shared" / "data" / "raw"
needs_raw = pytest.mark.skipif(not RAW.is_dir(), reason="needs motion files beside the project")

ARM = """HIERARCHY
ROOT upper arm
{
  OFFSET 0 100 0
  CHANNELS 6 Zposition Yposition Xposition Xrotation Yrotation Zrotation
  JOINT forearm
  {
    OFFSET 30 0 0
    CHANNELS 4 Yrotation Zrotation Xrotation Xposition
    End Site
    {
      OFFSET 20 0 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.033333
3 2 1 0 0 0 0 0 0 30
3 2 1 90 0 0 0 90 0 40
"""


def write(path, text=ARM):
    path.write_text(text)
    return path


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def test_any_channels(tmp_path):
    motion = read_bvh(write(tmp_path / "arm.bvh"))
    assert motion.bone_names == ("upper arm", "forearm")
    assert motion.frame_rate == 30
    torch.testing.assert_close(motion.translation, torch.tensor([[0.01, 0.02, 0.03]] * 2).double())
    # The second frame: the upper arm turns y to z, the slid forearm points along the new y.
    ends = motion.end_joints()[:, 1]
    expected = torch.tensor([[0.51, 0.02, 0.03], [0.41, 0.02, 0.23]]).double()
    torch.testing.assert_close(ends, expected)
    assert motion.end_joints()[:, 0].isnan().all()


def test_units_and_channels_that_are_not_there(tmp_path):
    text = ARM.replace(
        "CHANNELS 6 Zposition Yposition Xposition Xrotation Yrotation Zrotation",
        "CHANNELS 1 Xposition",
    )
    text = text.replace("3 2 1 90 0 0 ", "7 ").replace("3 2 1 0 0 0 ", "6 ")
    motion = read_bvh(write(tmp_path / "arm.bvh", text), meters_per_unit=1.0)
    torch.testing.assert_close(
        motion.translation, torch.tensor([[6.0, 100, 0], [7, 100, 0]]).double()
    )
    assert (motion.rotations[:, 0] == torch.eye(3)).all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HIERARCHY", "MESH", r"\.bvh:1: expected 'HIERARCHY', got 'MESH'"),
        ("MOTION", "MOVES", r"\.bvh:20: expected a line MOTION"),
        ("    OFFSET 30 0 0\n", "", r"\.bvh:13: joint forearm has no OFFSET"),
        ("OFFSET 30 0 0", "OFFSET 30 0", r"\.bvh:9: expected a number for the OFFSET of forearm"),
        ("OFFSET 30 0 0", "OFFSET 30 nan 0", r"\.bvh:8: expected a finite number .* got 'nan'"),
        ("CHANNELS 4 Y", "CHANNELS 3 Y", r"\.bvh:9: unknown word 'Xposition' in joint forearm"),
        ("CHANNELS 4 Y", "CHANNELS 5 Y", r"\.bvh:10: expected 5 different channels of forearm"),
        ("4 Yrotation", "4 Wrotation", r"\.bvh:9: expected 4 different channels .*'Wrotation'"),
        ("4 Yrotation", "4 Zrotation", r"\.bvh:9: expected 4 different channels .*'Zrotation'"),
        ("4 Yrotation", "many Yrotation", r"\.bvh:9: expected the number of channels of forearm"),
        ("End Site", "End Point", r"\.bvh:10: expected 'SITE', got 'Point'"),
        ("JOINT forearm", "JOINT upper arm", r"\.bvh:3: .* got 'upper arm' 2 times"),
        ("}\nMOTION", "MOTION", r"\.bvh:14: the hierarchy ends in the middle"),
        ("}\nMOTION", "}\nROOT b\nMOTION", r"\.bvh:16: expected MOTION after the one ROOT"),
        ("Frames: 2", "Frames: two", r"\.bvh:17: expected a number for Frames, got 'two'"),
        ("Frames: 2", "Frames: 3", r"\.bvh:20: expected 3 frames and at least 1, got 2"),
        ("Frames: 2\n", "", r"\.bvh:17: expected 'Frames:' and a number, got 'Frame Time"),
        ("0.033333", "0", r"\.bvh:18: expected a frame time above 0, got 0"),
        ("0 90 0 40", "0 90 0", r"\.bvh:20: expected 10 numbers for the channels, got 9"),
        ("0 90 0 40", "0 NaN 0 40", r"\.bvh:20: expected a finite number .* got 'NaN'"),
        ("0 90 0 40", "0 x 0 40", r"\.bvh:20: expected a number .* got 'x'"),
    ],
)
def test_malformed_files_say_where(tmp_path, old, new, message):
    assert old in ARM
    with pytest.raises(InputError, match=message):
        read_bvh(write(tmp_path / "arm.bvh", ARM.replace(old, new, 1)))


@given(st.integers(0, len(ARM) - 2))
@settings(max_examples=60)
def test_files_cut_anywhere_are_refused_or_end_in_a_shorter_number(tmp_path_factory, end):
    path = write(tmp_path_factory.mktemp("cut") / "a.bvh", ARM[:end])
    try:
        motion = read_bvh(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert end == len(ARM) - 2 and len(motion) == 2


def test_not_a_text_file(tmp_path):
    (tmp_path / "a.bvh").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="expected a text file"):
        read_bvh(tmp_path / "a.bvh")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_bvh(tmp_path / "b.bvh")


def random_motion(seed, *, moving):
    bones, frames = 6, 7
    turns = matrix_from_axis_angle(2 * random(seed, frames, bones, 3))
    ends = random(seed + 1, bones, 3)
    ends[1] = math.nan
    return Motion(
        bone_names=tuple(f"bone {k}" for k in range(bones)),
        parents=(-1, 0, 0, 2, 1, 2),
        offsets=random(seed + 2, bones, 3),
        ends=ends,
        rest_rotations=torch.eye(3).double().repeat(bones, 1, 1),
        rotations=turns,
        translation=random(seed + 3, frames, 3),
        frame_rate=23.976,
        moving_offsets=random(seed + 4, frames, bones, 3) if moving else None,
    )


@given(st.integers(0, 2**31), st.booleans())
@settings(max_examples=20)
def test_round_trip(tmp_path_factory, seed, moving):
    motion = random_motion(seed, moving=moving)
    path = tmp_path_factory.mktemp("trip") / "a.bvh"
    write_bvh(path, motion)
    again = read_bvh(path)
    order = [again.bone(name) for name in motion.bone_names]
    assert again.frame_rate == pytest.approx(23.976, rel=1e-7)
    assert (again.joints()[:, order] - motion.joints()).abs().max() < 1e-5
    turned = geodesic_distance(again.rotations[:, order], motion.rotations)
    assert turned.max() < math.radians(0.001)
    leaves = [3, 4, 5]
    ends = again.end_joints()[:, order][:, leaves]
    assert (ends - motion.end_joints()[:, leaves]).abs().max() < 1e-5
    assert list(path.parent.iterdir()) == [path]


def test_angles_do_not_jump_by_whole_turns(tmp_path):
    turn = torch.linspace(0, 4 * math.pi, 100).double()
    rotations = matrix_from_axis_angle(turn[:, None, None] * torch.tensor([[0.0, 0, 1]]).double())
    motion = random_motion(0, moving=False)
    alone = Motion(
        bone_names=("spinner",),
        parents=(-1,),
        offsets=motion.offsets[:1],
        ends=motion.ends[:1],
        rest_rotations=motion.rest_rotations[:1],
        rotations=rotations,
        translation=torch.zeros(100, 3).double(),
        frame_rate=30.0,
    )
    write_bvh(tmp_path / "a.bvh", alone)
    rows = (tmp_path / "a.bvh").read_text().splitlines()[-100:]
    angles = torch.tensor([float(row.split()[3]) for row in rows]).double()
    torch.testing.assert_close(angles, turn.rad2deg(), atol=1e-4, rtol=0)


def test_what_cannot_be_written(tmp_path):
    motion = random_motion(0, moving=False)
    motion.rotations[2, 1] = math.nan
    with pytest.raises(InputError, match="expected finite rotations to write"):
        write_bvh(tmp_path / "a.bvh", motion)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("axes", ["camera", "y_up", "z_up"])
def test_a_body_written_and_read_is_the_same(tmp_path, axes):
    body = SkeletonBody()
    theta, shape = matrix_from_axis_angle(random(0, 5, 24, 3)), random(1, 10)
    where = random(2, 5, 3)
    output = body(theta, shape, where)
    (path,) = write_body_bvh(
        tmp_path / "a.bvh", theta, translation=where, shape=shape, axes=axes, frame_rate=25
    )
    motion = read_bvh(path)
    order = [motion.bone(name) for name in body.joint_names]
    joints = motion.joints()[:, order]
    x, y, z = output.joints.unbind(-1)
    upright = {"camera": (x, -y, -z), "y_up": (x, y, z), "z_up": (x, z, -y)}[axes]
    assert (joints - torch.stack(upright, dim=-1)).abs().max() < 1e-5
    assert motion.frame_rate == 25
    # Every leaf points on along its own bone.
    assert (motion.ends[motion.bone("Head")].norm() > 0.03).all()


def test_each_sample_is_a_file(tmp_path):
    theta = matrix_from_axis_angle(random(0, 3, 2, 24, 3).float())
    paths = write_body_bvh(tmp_path / "walk.bvh", theta, translation=torch.zeros(2, 3))
    assert [p.name for p in paths] == ["walk_000.bvh", "walk_001.bvh", "walk_002.bvh"]
    second = read_bvh(paths[1])
    knee = second.rotations[:, second.bone("L_Knee")]
    assert geodesic_distance(knee, theta[1, :, 4].double()).max() < 1e-4


@pytest.mark.parametrize(
    ("theta", "options", "message"),
    [
        (torch.eye(3).expand(24, 3, 3), {}, r"theta of shape \(T, 24, 3, 3\)"),
        (torch.eye(3).expand(2, 20, 3, 3), {}, r"\(T, 24, 3, 3\), got \(2, 20"),
        (torch.eye(3).expand(2, 24, 3, 3), {"axes": "up"}, "axes of camera, y_up, z_up, got 'up'"),
        (
            torch.eye(3).expand(2, 24, 3, 3),
            {"translation": torch.zeros(3, 3)},
            r"translation of shape \(2, 3\), got \(3, 3\)",
        ),
        (torch.eye(3).expand(2, 24, 3, 3), {"frame_rate": 0.0}, "frame rate above 0"),
    ],
)
def test_wrong_bodies(tmp_path, theta, options, message):
    with pytest.raises(InputError, match=message):
        write_body_bvh(tmp_path / "a.bvh", theta, **options)


@needs_raw
def test_the_conversion_of_a_clip_is_the_clip(tmp_path):
    # The first 500 frames; the conversion has a T pose before them.
    text = (RAW / "01_01.bvh").read_text().replace("Frames: 2752", "Frames: 501")
    write(tmp_path / "a.bvh", "\n".join(text.splitlines()[: -2752 + 501]))
    text = (RAW / "01_01.amc").read_text()
    write(tmp_path / "a.amc", text[: text.index("\n501")])
    bvh = read_bvh(tmp_path / "a.bvh", meters_per_unit=0.0254 / 0.45)
    amc = read_amc(tmp_path / "a.amc", RAW / "01.asf")
    assert len(amc) == 500
    assert (bvh.frame_rate, len(bvh)) == (120, len(amc) + 1)
    joints, starts, ends = bvh.joints()[1:], amc.joints(), amc.end_joints()

    def difference(pairs, bvh_from, amc_from):
        return max(
            float(
                (joints[:, bvh.bone(there)] - bvh_from - (ends[:, amc.bone(here)] - amc_from))
                .norm(dim=-1)
                .max()
            )
            for there, here in pairs
        )

    legs = [
        (f"{there}{part}", f"{there[0].lower()}{bone}")
        for there in ("Left", "Right")
        for part, bone in (("UpLeg", "hipjoint"), ("Leg", "femur"), ("Foot", "tibia"))
    ]
    trunk = [("Spine", "lowerback"), ("Spine1", "upperback"), ("RightToeBase", "rfoot")]
    assert difference(legs + trunk, 0, 0) < 0.005
    # The conversion leaves out the bone "thorax": shoulders and neck start where it starts.
    base_bvh, base_amc = joints[:, bvh.bone("Neck")], ends[:, amc.bone("thorax")]
    arms = [("LeftArm", "lclavicle"), ("LeftForeArm", "lhumerus"), ("RightForeArm", "rhumerus")]
    hands = [("LeftHand", "lradius"), ("Neck1", "lowerneck"), ("Head", "upperneck")]
    assert difference(arms + hands, base_bvh, base_amc) < 0.005
    assert (starts[:, amc.bone("lclavicle")] == base_amc).all()


@needs_raw
@pytest.mark.parametrize("name", ["punch", "walk"])
def test_positions_on_every_joint(name):
    motion = read_bvh(RAW / f"bandai_dataset-1_{name}_normal_001.bvh")
    assert motion.frame_rate == 30
    assert motion.moving_offsets is not None
    height = motion.joints()[..., 1]
    assert 1.2 < height[:, motion.bone("Head")].median() < 1.6
    assert height.min() > -0.1


def test_a_chain_of_bones_may_be_longer_than_calls_may_be_nested(tmp_path):
    count = 1500
    chain = Motion(
        bone_names=tuple(f"b{bone}" for bone in range(count)),
        parents=tuple(range(-1, count - 1)),
        offsets=torch.full((count, 3), 0.01),
        ends=torch.zeros(count, 3),
        rest_rotations=torch.eye(3).repeat(count, 1, 1),
        rotations=torch.eye(3).repeat(1, count, 1, 1),
        translation=torch.zeros(1, 3),
        frame_rate=30.0,
    )
    write_bvh(tmp_path / "deep.bvh", chain)
    lines = (tmp_path / "deep.bvh").read_text().splitlines()
    assert sum("JOINT" in line for line in lines) == count - 1
    assert sum(line.strip() == "}" for line in lines) == count + 1
