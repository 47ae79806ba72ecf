import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from propose_prob.datasets import h36m
from propose_prob.datasets.clips import evaluation_batches
from propose_prob.datasets.h36m import (
    CAMERA_IDS,
    H36M_ACTIONS,
    H36M_TEST,
    H36M_TRAIN,
    h36m_camera,
    read_h36m,
)
from propose_prob.errors import InputError
from propose_prob.geometry.camera import project
from propose_prob.geometry.skeletons import COCO_17, H36M_17, convert_skeleton

# The 32 joints of motion capture and their parents, as VideoPose3D's skeleton has them.
PARENTS_32 = (
    *(-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 13, 14),
    *(12, 16, 17, 18, 19, 20, 19, 22, 12, 24, 25, 26, 27, 28, 27, 30),
)
LEFT_32 = (6, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 22, 23)
SYMMETRY = [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]]
GT = {"num_joints": 17, "keypoints_symmetry": SYMMETRY}
CPN = {"layout_name": "h36m", **GT}
COCO = {
    "layout_name": "coco",
    "num_joints": 17,
    "keypoints_symmetry": [[1, 3, 5, 7, 9, 11, 13, 15], [2, 4, 6, 8, 10, 12, 14, 16]],
}


def person(frames, seed):
    """A person about the world's origin, 32 joints, meters, z up."""
    random = np.random.default_rng(seed)
    return random.normal([0.1, -0.1, 0.9], [0.2, 0.2, 0.4], (frames, 32, 3)).astype(np.float32)


def moving(joints):
    still = (4, 5, 9, 10, 11, 16, 20, 21, 22, 23, 24, 28, 29, 30, 31)
    return joints[:, [joint for joint in range(32) if joint not in still]]


def pixels(world, subject):
    """Each camera's pinhole projection, from the tabulated quaternion by another formula."""
    views = []
    for index, name in enumerate(CAMERA_IDS):
        w, *xyz, tx, ty, tz = h36m._EXTRINSICS[subject][index]
        _width, _height, fx, fy, cx, cy = h36m._INTRINSICS[name]
        v = world.astype(np.float64) - np.array([tx, ty, tz]) / 1000
        axis = -np.array(xyz)  # the inverse rotation
        cross = np.cross(axis, v)
        cam = v + 2 * (w * cross + np.cross(axis, cross))
        views.append((cam[..., :2] / cam[..., 2:] * [fx, fy] + [cx, cy]).astype(np.float32))
    return views


def recordings(subject):
    names = [name + end for name in ("Walking", "Sitting", "SittingDown") for end in ("", " 1")]
    names += ["Photo 2", "WalkTogether 1", "Directions 1"]
    if subject != "S11":
        names.append("Directions")
    return names


def data_set(subjects=("S1", "S9", "S11")):
    motion = {
        subject: {name: person(3, len(name)) for name in recordings(subject)}
        for subject in subjects
    }
    # Some videos go on after the motion ends.
    keypoints = {
        subject: {
            name: [
                np.concatenate([view, view[-1:]]) if name == "Sitting" else view
                for view in pixels(moving(joints), subject)
            ]
            for name, joints in entries.items()
        }
        for subject, entries in motion.items()
    }
    return motion, keypoints


def write(folder, motion, keypoints, metadata=GT, detections="gt"):
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=motion)
    path = folder / f"data_2d_h36m_{detections}.npz"
    np.savez_compressed(path, positions_2d=keypoints, metadata=metadata)
    return folder


def test_test_subjects(tmp_path):
    motion, keypoints = data_set()
    clips = list(read_h36m(write(tmp_path, motion, keypoints)))
    assert len(clips) == 4 * (len(recordings("S9")) + len(recordings("S11")))
    assert {clip.subject for clip in clips} == set(H36M_TEST)
    assert clips[1].sequence == "S9 Walking 55011271"
    assert not any(clip.sequence.startswith("S11 Directions 5") for clip in clips)
    for clip in clips:
        assert clip.skeleton is H36M_17
        assert len(clip) == 3
        assert set(clip.actions) <= set(H36M_ACTIONS)
        assert clip.frame.tolist() == [0, 1, 2]
        assert clip.valid.all()
        assert (clip.confidence == 1).all()
        assert (clip.relative()[:, 0] == 0).all()
        seen = project(clip.p3d, focal=clip.focal, center=torch.tensor(clip.center))
        # One focal length stands for both axes'.
        torch.testing.assert_close(seen, clip.p2d, atol=0.5, rtol=0)


def test_joints_are_the_moving_ones():
    names = (
        "Pelvis RHip RKnee RAnkle - - LHip LKnee LAnkle - - - Spine Thorax Neck/Nose Head - "
        "LShoulder LElbow LWrist - - - - - RShoulder RElbow RWrist - - - -"
    ).split()
    kept = [j for j, name in enumerate(names) if name != "-"]
    assert [names[j] for j in kept] == list(H36M_17.joint_names)
    world = np.arange(96.0).reshape(1, 32, 3)
    assert np.array_equal(moving(world), world[:, kept])
    for index, joint in enumerate(kept):
        assert (joint in LEFT_32) == H36M_17.joint_names[index].startswith("L")
        parent = PARENTS_32[joint]
        while parent != -1 and parent not in kept:
            parent = PARENTS_32[parent]
        assert parent == -1 or kept[H36M_17.parents[index]] in (parent, 13)


def test_world_to_camera_keeps_lengths_and_stands_upright(tmp_path):
    motion, keypoints = data_set(["S9"])
    upright = np.zeros((1, 32, 3), np.float32)
    upright[:, 15, 2] = 1.7  # the head above the pelvis
    motion["S9"] = {"Walking": upright}
    keypoints["S9"] = {"Walking": pixels(moving(upright), "S9")}
    for clip in read_h36m(write(tmp_path, motion, keypoints), subjects=["S9"]):
        head = clip.relative()[0, 10]
        assert head.norm() == pytest.approx(1.7, abs=1e-6)
        assert head[1] < -1.6
        assert 3.5 < clip.p3d[0, 0, 2] < 6


@pytest.mark.parametrize("subject", [*H36M_TRAIN, *H36M_TEST])
@pytest.mark.parametrize("camera", CAMERA_IDS)
def test_cameras_are_rotations_that_see_the_stage(subject, camera):
    view = h36m_camera(subject, camera)
    np.testing.assert_allclose(view.rotation @ view.rotation.T, np.eye(3), atol=1e-6)
    assert np.linalg.det(view.rotation) == pytest.approx(1)
    width, height = view.image_size
    for place in [(0.0, 0, 0.9), (1.0, 1, 0.9), (-1.0, 1, 0.9)]:
        x, y, z = view.from_world(np.array(place))
        assert 2 < z < 8
        assert 0 < view.focal * x / z + view.center[0] < width
        assert 0 < view.focal * y / z + view.center[1] < height


def test_actions_are_merged_and_like_names_kept_apart(tmp_path):
    motion, keypoints = data_set(["S1"])
    write(tmp_path, motion, keypoints)
    by_action = {}
    for clip in read_h36m(tmp_path, subjects=["S1"]):
        by_action.setdefault(clip.actions[0], set()).add(clip.sequence.rsplit(" ", 1)[0])
    assert by_action["Sitting"] == {"S1 Sitting", "S1 Sitting 1"}
    assert by_action["SittingDown"] == {"S1 SittingDown", "S1 SittingDown 1"}
    assert by_action["Photo"] == {"S1 Photo 2"}
    assert by_action["WalkTogether"] == {"S1 WalkTogether 1"}
    old = {"S1": {"TakingPhoto 1": motion["S1"]["Photo 2"], "WalkingDog": person(2, 0)}}
    seen = {"S1": {name: pixels(moving(joints), "S1") for name, joints in old["S1"].items()}}
    write(tmp_path, old, seen)
    assert {clip.actions[0] for clip in read_h36m(tmp_path, subjects=["S1"])} == {
        "Photo",
        "WalkDog",
    }


def test_detections_with_confidence_and_gaps(tmp_path):
    motion, keypoints = data_set(["S9"])
    view = keypoints["S9"]["Walking"][0]
    level = np.full((3, 17, 1), 0.7, np.float32)
    level[1, 4] = 0
    keypoints["S9"]["Walking"][0] = np.concatenate([view, level], axis=-1)
    keypoints["S9"]["Walking"][1][2, 5] = np.nan
    folder = write(tmp_path, motion, keypoints, CPN, "cpn_ft_h36m_dbb")
    clips = read_h36m(folder, subjects=["S9"], detections="cpn_ft_h36m_dbb")
    first, second = next(clips), next(clips)
    assert first.confidence[0, 4] == pytest.approx(0.7)
    assert first.confidence[1, 4] == 0
    assert first.p2d[1, 4].isnan().all()
    assert second.confidence[2].tolist() == [1.0] * 5 + [0.0] + [1.0] * 11


def test_detections_in_coco_order_become_human36m(tmp_path):
    motion, keypoints = data_set(["S9"])
    folder = write(tmp_path, motion, keypoints, COCO, "detectron_pt_coco")
    clip = next(read_h36m(folder, subjects=["S9"], detections="detectron_pt_coco"))
    view = torch.from_numpy(keypoints["S9"]["Walking"][0])
    expected, confidence = convert_skeleton(view, COCO_17, H36M_17)
    assert torch.equal(clip.p2d.nan_to_num(0), expected.nan_to_num(0))
    assert torch.equal(clip.confidence, confidence)
    assert [H36M_17.joint_names[j] for j in (clip.confidence[0] == 0).nonzero()[:, 0]] == [
        "Spine",
        "Neck/Nose",
        "Head",
    ]


def test_evaluation_batches(tmp_path):
    motion, keypoints = data_set(["S9"])
    clips = read_h36m(write(tmp_path, motion, keypoints), subjects=["S9"])
    batches = list(evaluation_batches(clips))
    assert len(batches) == 4 * len(recordings("S9"))
    batch = batches[0]
    assert batch.p2d.shape == (3, 17, 2)
    assert batch.sequence == ["S9 Walking 54138969"] * 3
    assert batch.focal.tolist() == pytest.approx([1144.41529] * 3)
    assert batch.center[0].tolist() == pytest.approx([512.541504, 515.451477])


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def wrong(change):
    """Files that one change has made wrong, as (motion, keypoints, metadata)."""
    motion, keypoints = data_set(["S9"])
    metadata = dict(GT)
    change(motion, keypoints, metadata)
    return motion, keypoints, metadata


def put(container, **entries):
    container.update(entries)


WRONG = {
    "subject missing": (lambda m, k, d: m.clear(), "3d_h36m.npz: expected 'S9' in positions_3d"),
    "2D subject": (lambda m, k, d: k.clear(), "2d_h36m_gt.npz: expected 'S9' in positions_2d"),
    "recording": (
        lambda m, k, d: k["S9"].pop("Walking"),
        r"gt.npz: expected 'Walking' in positions_2d\['S9'\], got Walking 1, Sitting, ",
    ),
    "no dict": (lambda m, k, d: put(m, S9=[1]), r"positions_3d\['S9'\] to be a dict, got list"),
    "unknown action": (
        lambda m, k, d: put(m, S9={"Running 1": person(2, 0)}),
        "actions Directions, .*, got 'Running 1' of S9",
    ),
    "joints": (
        lambda m, k, d: put(m["S9"], Walking=np.zeros((3, 25, 3))),
        r"shape \(frames, 32 or 17, 3\) for S9 Walking, got \(3, 25, 3\)",
    ),
    "no array": (lambda m, k, d: put(m["S9"], Walking="x"), "for S9 Walking, got str"),
    "integers": (
        lambda m, k, d: put(m["S9"], Walking=np.zeros((3, 32, 3), int)),
        "for S9 Walking, got int64",
    ),
    "NaN": (
        lambda m, k, d: put(m["S9"], Walking=np.full((3, 32, 3), np.nan)),
        "expected finite numbers .* for S9 Walking, got NaN or infinite",
    ),
    "infinite": (
        lambda m, k, d: put(k["S9"], Walking=[np.full((3, 17, 2), np.inf)] * 4),
        "expected finite numbers .* for S9 Walking 54138969",
    ),
    "cameras": (
        lambda m, k, d: k["S9"]["Walking"].pop(),
        "expected 4 cameras for S9 Walking, got 3",
    ),
    "no cameras": (lambda m, k, d: put(k["S9"], Walking=None), "4 cameras .*, got NoneType"),
    "2D joints": (
        lambda m, k, d: put(k["S9"], Walking=[np.zeros((3, 16, 2))] * 4),
        r"shape \(frames, 17, 2 or 3\) for S9 Walking 54138969, got \(3, 16, 2\)",
    ),
    "short 2D": (
        lambda m, k, d: put(k["S9"], Walking=[v[:2] for v in k["S9"]["Walking"]]),
        "at least 3 frames for S9 Walking 54138969, as many as data_3d_h36m.npz has, got 2",
    ),
    "metadata": (lambda m, k, d: d.pop("num_joints"), "metadata with num_joints"),
    "symmetry": (
        lambda m, k, d: put(d, keypoints_symmetry=[[1], [2]]),
        r"joints of h36m_17, coco_17 or mpii_16, got 17 joints of which \[1\] are left",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_files(tmp_path, change, message):
    write(tmp_path, *wrong(change))
    with pytest.raises(InputError, match=message) as caught:
        list(read_h36m(tmp_path, subjects=["S9"]))
    assert str(caught.value).startswith(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_hostile_pickle_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    motion, keypoints = data_set(["S9"])
    motion["S9"]["Walking"] = Hostile()
    write(tmp_path, motion, keypoints)
    with pytest.raises(InputError, match=r"data_3d_h36m.npz \(positions_3d\) asks for .*mkdir"):
        read_h36m(tmp_path, subjects=["S9"])
    assert not (tmp_path / "executed").exists()


def test_missing_and_damaged_archives(tmp_path):
    where = r"data_3d_h36m.npz: cannot be read: No such file or directory; make it with VideoPose3D"
    with pytest.raises(InputError, match=where):
        read_h36m(tmp_path)
    motion, keypoints = data_set()
    write(tmp_path, motion, keypoints)
    with pytest.raises(InputError, match=r"dbb.npz: cannot be read: .* links the detections"):
        read_h36m(tmp_path, detections="cpn_ft_h36m_dbb")
    with pytest.raises(InputError, match=r"subjects of Human3.6M .*, got 'S2'"):
        read_h36m(tmp_path, subjects=["S2"])
    path = tmp_path / "data_3d_h36m.npz"
    whole = path.read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:60] + b"\0" * 90 + whole[150:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="expected a complete") as caught:
            read_h36m(tmp_path)
        assert str(caught.value).startswith(str(path))
    np.savez(path, positions=motion)
    with pytest.raises(InputError, match="expected the array positions_3d, got positions"):
        read_h36m(tmp_path)
    np.savez(path, positions_3d=np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"one stored object, got float64 of shape \(3, 2\)"):
        read_h36m(tmp_path)


def test_archives_of_python_2(tmp_path):
    """Old releases of the files have pickles of protocol 2, with strings as Latin-1."""
    motion, keypoints = data_set(["S9"])
    write(tmp_path, motion, keypoints)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    stored = np.empty((), dtype=object)
    stored[()] = motion
    with zipfile.ZipFile(tmp_path / "data_3d_h36m.npz", "w") as archive:
        archive.writestr("positions_3d.npy", header.getvalue() + pickle.dumps(stored, 2))
    assert next(read_h36m(tmp_path, subjects=["S9"])).sequence == "S9 Walking 54138969"
