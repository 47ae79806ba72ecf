import os
import pickle

import numpy as np
import pytest
import torch

from propose_prob.bodies.skeleton_body import SkeletonBody
from propose_prob.datasets.clips import evaluation_batches
from propose_prob.datasets.threedpw import read_3dpw
from propose_prob.errors import InputError
from propose_prob.geometry.rotations import matrix_from_axis_angle
from propose_prob.geometry.skeletons import COCO_17, H36M_17, SMPL_24, convert_skeleton

# OpenPose's COCO model, the order of `poses2d`.
NAMES_18 = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
    "right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye "
    "right_ear left_ear"
).split()


def fields(name="downtown_arguing_00", people=2, frames=6, seed=0):
    """A sequence with the keys, types and shapes of the data set's files."""
    random = np.random.default_rng(seed)
    cameras = np.tile(np.eye(4), (frames, 1, 1))
    turn = torch.from_numpy(random.normal(0, 0.3, (frames, 3)))
    cameras[:, :3, :3] = matrix_from_axis_angle(turn).numpy() @ np.diag([1.0, -1, -1])
    cameras[:, :3, 3] = random.normal([0, 0, 4], 0.1, (frames, 3))
    valid = [np.ones(frames, dtype=np.int64) for _ in range(people)]
    valid[0][2] = 0
    seen = [random.uniform(100, 900, (frames, 3, 18)) for _ in range(people)]
    for rows in seen:
        rows[:, 2] = 0.8
    seen[0][4] = 0  # nobody detected
    seen[0][1, :, NAMES_18.index("left_knee")] = 0
    return {
        "sequence": name,
        "betas": [random.normal(size=10) for _ in range(people)],
        "betas_clothed": [random.normal(size=10) for _ in range(people)],
        "poses": [random.normal(0, 0.2, (frames, 72)) for _ in range(people)],
        "trans": [random.normal(0, 0.3, (frames, 3)) for _ in range(people)],
        "poses_60Hz": [np.zeros((2 * frames, 72)) for _ in range(people)],
        "trans_60Hz": [np.zeros((2 * frames, 3)) for _ in range(people)],
        "v_template_clothed": [np.zeros((6, 3)) for _ in range(people)],
        "texture_maps": [[] for _ in range(people)],
        "genders": ["m", "f"][:people],
        "poses2d": seen,
        "jointPositions": [random.normal(0, 0.5, (frames, 72)) for _ in range(people)],
        "img_frame_ids": np.arange(0, 2 * frames, 2),
        "cam_poses": cameras,
        "campose_valid": valid,
        "cam_intrinsics": np.array([[1969.2, 0, 960], [0, 1961.8, 540], [0, 0, 1]]),
    }


def write(folder, stored, split="test"):
    place = folder / "sequenceFiles" / split
    place.mkdir(parents=True, exist_ok=True)
    name = stored["sequence"] if isinstance(stored, dict) else "a"
    path = place / f"{name}.pkl"
    # Python 2's protocols; its strings hold bytes, which come out as Latin-1.
    path.write_bytes(pickle.dumps(stored, protocol=2))
    return path


def test_people_and_sequences(tmp_path):
    write(tmp_path, fields("downtown_arguing_00"))
    write(tmp_path, fields("flat_packBags_00", people=1, seed=1))
    write(tmp_path, fields("courtyard_box_00", seed=2), "train")
    for folder in (tmp_path, tmp_path / "sequenceFiles"):
        clips = list(read_3dpw(folder))
        assert [clip.sequence for clip in clips] == [
            "downtown_arguing_00 person 0",
            "downtown_arguing_00 person 1",
            "flat_packBags_00 person 0",
        ]
    assert clips[0].actions == ("downtown_arguing",) * 6
    assert clips[0].focal == pytest.approx(1965.5)
    assert clips[0].center == (960, 540)
    assert clips[0].valid.tolist() == [True, True, False, True, False, True]
    assert clips[1].valid.all()
    (other,) = {clip.actions[0] for clip in read_3dpw(tmp_path, split="train")}
    assert other == "courtyard_box"
    batches = list(evaluation_batches(clips, batch_size=4))
    assert [len(batch) for batch in batches] == [4, 2] * 3


def test_keypoints(tmp_path):
    stored = fields()
    write(tmp_path, stored)
    clip = next(read_3dpw(tmp_path))
    assert clip.skeleton is H36M_17
    coco = np.stack([stored["poses2d"][0][:, :, NAMES_18.index(n)] for n in COCO_17.joint_names], 1)
    coco = torch.from_numpy(coco.astype(np.float32))
    expected, confidence = convert_skeleton(
        coco[..., :2], COCO_17, H36M_17, confidence=coco[..., 2]
    )
    torch.testing.assert_close(clip.p2d, expected, equal_nan=True)
    torch.testing.assert_close(clip.confidence, confidence)
    assert clip.confidence[1, H36M_17.index("LKnee")] == 0
    assert (clip.confidence[4] == 0).all()
    assert clip.confidence.max() == pytest.approx(0.8)


def test_joints_of_the_files_in_camera_axes(tmp_path):
    stored = fields()
    write(tmp_path, stored)
    clip = list(read_3dpw(tmp_path))[1]
    joints = stored["jointPositions"][1].reshape(6, 24, 3)
    left_wrist = joints[:, SMPL_24.index("L_Wrist")]
    for frame in range(6):
        turned = stored["cam_poses"][frame] @ np.append(left_wrist[frame], 1)
        got = clip.p3d[frame, H36M_17.index("LWrist")]
        np.testing.assert_allclose(got.numpy(), turned[:3], atol=1e-5)
    missing = clip.p3d.isnan().all(dim=-1)
    assert [H36M_17.joint_names[j] for j in missing[0].nonzero()[:, 0]] == ["Spine", "Head"]


def test_joints_of_bodies(tmp_path):
    stored = fields(frames=300)
    write(tmp_path, stored)
    bodies = {"m": SkeletonBody(), "f": SkeletonBody().double().float()}
    clip = next(read_3dpw(tmp_path, bodies=bodies))
    theta = matrix_from_axis_angle(torch.from_numpy(stored["poses"][0]).reshape(300, 24, 3)).float()
    output = bodies["m"](
        theta,
        torch.from_numpy(stored["betas"][0]).float(),
        torch.from_numpy(stored["trans"][0]).float(),
    )
    world = bodies["m"].regress(output, "h36m_17")
    cameras = torch.from_numpy(stored["cam_poses"]).float()
    expected = torch.einsum("nij,nkj->nki", cameras[:, :3, :3], world) + cameras[:, None, :3, 3]
    torch.testing.assert_close(clip.p3d, expected, atol=1e-5, rtol=0)
    assert clip.p3d.isfinite().all()
    assert not clip.p3d.requires_grad


def test_one_file_at_a_time(tmp_path):
    write(tmp_path, fields("a_00", people=1))
    (tmp_path / "sequenceFiles" / "test" / "b_00.pkl").write_bytes(b"damaged")
    clips = read_3dpw(tmp_path)
    assert next(clips).sequence == "a_00 person 0"
    with pytest.raises(InputError, match=r"b_00.pkl"):
        next(clips)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def with_nan(key):
    stored = fields()
    stored[key] = [value.copy() for value in stored[key]]
    stored[key][0][3] = np.nan
    return {key: stored[key]}


#: Changes, or a function that makes them of random fields when the test runs.
WRONG = {
    "missing": (dict(poses2d=None), "expected the field poses2d, got sequence, betas"),
    "nobody": (dict(poses2d=[]), "expected poses2d to be a list with an entry for each person"),
    "joints": (
        dict(poses2d=[np.zeros((6, 3, 17))] * 2),
        r"numbers in poses2d\[0\] of shape \(frames, 3, 18\), got float64 of shape \(6, 3, 17\)",
    ),
    "text": (dict(poses2d=["x", "y"]), r"expected numbers in poses2d\[0\]"),
    "cameras": (
        dict(cam_poses=np.zeros((5, 4, 4))),
        r"cam_poses of shape \(6, 4, 4\), got float64 of shape \(5, 4, 4\)",
    ),
    "no positions": (dict(jointPositions=None), "expected the field jointPositions"),
    "fewer people": (
        lambda: dict(jointPositions=fields()["jointPositions"][:1]),
        "expected jointPositions of 2 people or more, got 1",
    ),
    "flags": (dict(campose_valid=[np.ones(5)] * 2), r"campose_valid\[0\] of shape \(6\)"),
    "NaN": (lambda: with_nan("jointPositions"), "expected finite jointPositions in valid frames"),
    "NaN camera": (
        dict(cam_poses=np.full((6, 4, 4), np.nan)),
        "expected finite cam_poses in valid frames",
    ),
    "intrinsics": (dict(cam_intrinsics=np.zeros((3, 3))), "positive focal lengths"),
    "intrinsics' shape": (dict(cam_intrinsics=np.eye(4)), r"cam_intrinsics of shape \(3, 3\)"),
    "other objects": (dict(texture_maps=[Hostile()]), r"asks for .*mkdir"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_files(tmp_path, monkeypatch, changes, message):
    monkeypatch.chdir(tmp_path)
    changes = changes() if callable(changes) else changes
    stored = {k: v for k, v in {**fields(), **changes}.items() if v is not None}
    path = write(tmp_path, stored)
    with pytest.raises(InputError, match=message) as caught:
        list(read_3dpw(tmp_path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("key", ["poses", "trans", "betas"])
def test_bodies_need_finite_numbers(tmp_path, key):
    write(tmp_path, fields() | with_nan(key))
    with pytest.raises(InputError, match=f"expected finite {key} in valid frames"):
        next(read_3dpw(tmp_path, bodies={"m": SkeletonBody()}))


def test_wrong_bodies_and_kinds(tmp_path):
    path = write(tmp_path, fields())
    with pytest.raises(InputError, match="body for gender 'm' of person 0, got f"):
        next(read_3dpw(tmp_path, bodies={"f": SkeletonBody()}))
    path.write_bytes(pickle.dumps([1, 2], 2))
    with pytest.raises(InputError, match="expected a dict of fields, got list"):
        next(read_3dpw(tmp_path))
    path.write_bytes(pickle.dumps(fields(), 2)[:500])
    with pytest.raises(InputError, match="complete pickle"):
        next(read_3dpw(tmp_path))
    with pytest.raises(InputError, match=r"sequenceFiles/train, got none; 3DPW is to be had from"):
        next(read_3dpw(tmp_path, split="train"))
