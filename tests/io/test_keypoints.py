import io
import json
import math
import pickle
import tracemalloc
from importlib.resources import files

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from propose_prob.errors import InputError
from propose_prob.geometry.normalization import normalize_keypoints
from propose_prob.geometry.skeletons import (
    BODY_25,
    COCO_17,
    COCO_WHOLEBODY_133,
    H36M_17,
    HALPE_26,
    HALPE_136,
    MEDIAPIPE_33,
    MPII_16,
    convert_skeleton,
)
from propose_prob.io.keypoints import read_keypoints

PHOTO = files("propose_prob") / "assets" / "pexels-4793258_keypoints.json"


def write(path, document):
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def triples(joints, start=1.0):
    """x, y, confidence of each joint: all different, confidence 0.5."""
    rows = [[start + 2 * j, start + 2 * j + 1, 0.5] for j in range(joints)]
    return [number for row in rows for number in row]


def openpose(*people):
    return {"version": 1.3, "people": [{"person_id": [-1], "pose_keypoints_2d": p} for p in people]}


def instance(joints=17, start=1.0):
    rows = np.array(triples(joints, start)).reshape(-1, 3)
    return {"keypoints": rows[:, :2].tolist(), "keypoint_scores": rows[:, 2].tolist()}


def test_the_photo_that_ships():
    (frame,) = read_keypoints(str(PHOTO))
    assert frame.skeleton is BODY_25
    assert frame.frame == "pexels-4793258"
    assert frame.person_ids == (0,)
    assert frame.p2d.shape == (1, 25, 2)
    assert frame.p2d.dtype == frame.confidence.dtype == torch.float32
    missing = [BODY_25.joint_names[j] for j in (frame.confidence[0] == 0).nonzero().flatten()]
    assert missing == ["REye"]
    assert frame.p2d[0, 15].isnan().all()
    torch.testing.assert_close(frame.p2d[0, 0], torch.tensor([1811.64, 3114.26]))
    pose, confidence = convert_skeleton(frame.p2d, BODY_25, H36M_17, confidence=frame.confidence)
    assert normalize_keypoints(pose, confidence).visible.sum() == 14


def test_openpose_coco_model(tmp_path):
    (frame,) = read_keypoints(write(tmp_path / "a.json", openpose(triples(18))))
    assert frame.skeleton is COCO_17
    for joint, name in enumerate(COCO_17.joint_names):
        assert frame.p2d[0, joint, 0] == 1 + 2 * OPENPOSE_NAMES.index(name)


def test_null_coordinates_are_missing(tmp_path):
    (frame,) = read_keypoints(write(tmp_path / "a.json", openpose(with_number(4, None, 25))))
    assert frame.confidence[0, :3].tolist() == [0.5, 0, 0.5]


def test_openpose_folder_in_natural_order(tmp_path):
    for number, people in [(10, [triples(25, 9.0)]), (9, []), (2, [triples(25), triples(25, 5.0)])]:
        write(tmp_path / f"clip_{number}_keypoints.json", openpose(*people))
    stream = read_keypoints(tmp_path)
    assert len(stream) == 3
    frames = list(stream)
    assert [frame.frame for frame in frames] == ["clip_2", "clip_10"]
    assert frames[0].p2d.shape == (2, 25, 2)
    assert frames[0].person_ids == (0, 1)
    assert frames[1].p2d[0, 0].tolist() == [9, 10]


def test_folder_is_read_as_it_is_asked_for(tmp_path):
    write(tmp_path / "1.json", openpose(triples(25)))
    write(tmp_path / "2.json", "{")
    stream = read_keypoints(tmp_path)
    assert next(stream).frame == "1"
    with pytest.raises(InputError, match=r"2.json: expected JSON, got one cut off"):
        next(stream)


def test_coco_results_are_grouped_by_image(tmp_path):
    results = [
        {"image_id": 7, "category_id": 1, "keypoints": triples(17), "score": 0.9},
        {"image_id": "b.jpg", "keypoints": triples(17, 3.0), "idx": 4},
        {"image_id": 7, "keypoints": triples(17, 5.0)},
    ]
    stream = read_keypoints(write(tmp_path / "results.json", results))
    assert len(stream) == 2
    first, second = stream
    assert (first.frame, second.frame) == (7, "b.jpg")
    assert first.p2d[:, 0, 0].tolist() == [1, 5]
    assert (first.person_ids, second.person_ids) == ((0, 1), (4,))


@pytest.mark.parametrize("skeleton", [HALPE_26, COCO_WHOLEBODY_133, HALPE_136])
def test_larger_joint_sets_are_known_by_their_number(tmp_path, skeleton):
    joints = skeleton.num_joints
    results = [{"image_id": "1.jpg", "keypoints": triples(joints), "score": 2.9, "idx": [3.0]}]
    (frame,) = read_keypoints(write(tmp_path / "alphapose-results.json", results))
    assert frame.skeleton is skeleton
    (frame,) = read_keypoints(write(tmp_path / "mmpose.json", {"instances": [instance(joints)]}))
    assert frame.skeleton is skeleton


OPENPOSE_NAMES = (
    "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
    "right_hip right_knee right_ankle left_hip left_knee left_ankle right_eye left_eye "
    "right_ear left_ear"
).split()


@pytest.mark.parametrize(
    ("group", "numbers"), [("bodies", "joints"), ("people", "pose_keypoints_2d")]
)
def test_alphapose_in_other_forms(tmp_path, group, numbers):
    def image(*starts):
        people = [{numbers: triples(18, start)} for start in starts]
        return {"version": "AlphaPose v0.3", group: people}

    whole = {"b_2.jpg": image(1.0, 3.0), "a.jpg": image(5.0), "c.jpg": image()}
    stream = read_keypoints(write(tmp_path / "alphapose-results.json", whole))
    assert len(stream) == 3
    first, second = stream
    assert (first.frame, second.frame) == ("b_2.jpg", "a.jpg")
    assert first.skeleton is COCO_17
    for joint, name in enumerate(COCO_17.joint_names):
        expected = 1 + 2 * OPENPOSE_NAMES.index(name)
        assert first.p2d[:, joint, 0].tolist() == [expected, expected + 2]
    (single,) = read_keypoints(write(tmp_path / "a.json", whole["a.jpg"]))
    assert single.frame == "a"
    assert torch.equal(single.p2d, second.p2d)


def landmarks(start=0.0):
    return [
        {"x": start + j / 100, "y": 1 - j / 100, "z": -0.3, "visibility": 1 - j / 40}
        for j in range(33)
    ]


MEDIAPIPE = {
    "tasks": {"landmarks": [landmarks(), landmarks(0.5)], "worldLandmarks": [[], []]},
    "python tasks": {"pose_landmarks": [landmarks(), landmarks(0.5)]},
    "messages": {"pose_landmarks": [{"landmark": landmarks()}, {"landmark": landmarks(0.5)}]},
}


@pytest.mark.parametrize("document", MEDIAPIPE.values(), ids=MEDIAPIPE.keys())
def test_mediapipe_people(tmp_path, document):
    path = write(tmp_path / "pose.json", document)
    (frame,) = read_keypoints(path, image_size=(1920, 1080))
    assert frame.skeleton is MEDIAPIPE_33
    assert frame.frame == "pose"
    assert frame.p2d.shape == (2, 33, 2)
    torch.testing.assert_close(frame.p2d[:, 10, 0], torch.tensor([192.0, 1152.0]))
    torch.testing.assert_close(frame.p2d[0, 10, 1], torch.tensor(972.0))
    torch.testing.assert_close(frame.confidence[1, 20], torch.tensor(0.5))


def test_mediapipe_person_and_video(tmp_path):
    sizes = {"width": 200, "height": 100}
    video = [
        {"frame": 7, "poseLandmarks": landmarks(), **sizes},
        {"frame": 8, "poseLandmarks": None, **sizes},
        {"frame": 9, "poseLandmarks": {"landmark": landmarks()}, **sizes},
        {"image_width": 400, "image_height": 100, "pose_landmarks": landmarks()},
    ]
    stream = read_keypoints(write(tmp_path / "video.json", video))
    assert len(stream) == 4
    frames = list(stream)
    assert [frame.frame for frame in frames] == [7, 9, 3]
    assert [round(float(frame.p2d[0, 10, 0])) for frame in frames] == [20, 20, 40]
    (single,) = read_keypoints(write(tmp_path / "a.json", landmarks()), image_size=(200, 100))
    assert torch.equal(single.p2d, frames[0].p2d)


def test_coco_annotations(tmp_path):
    flags = [[10.0, 20.0, 2], [30.0, 40.0, 1], [0, 0, 0]] + [[1, 2, 2]] * 14
    document = {
        "images": [{"id": 5, "file_name": "5.jpg"}],
        "annotations": [
            {"id": 91, "image_id": 5, "keypoints": [n for row in flags for n in row]},
            {"id": 92, "image_id": 5, "category_id": 3, "bbox": [0, 0, 1, 1]},
            {"id": 93, "image_id": 6, "keypoints": [0] * 51, "num_keypoints": 0},
        ],
    }
    (frame,) = read_keypoints(write(tmp_path / "annotations.json", document))
    assert (frame.frame, frame.person_ids) == (5, (91,))
    assert frame.confidence[0, :4].tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize(
    "document",
    [
        {"meta_info": {"dataset_name": "coco"}, "instance_info": [instance(), instance(start=3.0)]},
        {"instances": [instance(), instance(start=3.0)]},
        [instance(), instance(start=3.0)],
        [[instance(), instance(start=3.0)]],
    ],
    ids=["demo", "instances", "plain", "batch"],
)
def test_mmpose_image(tmp_path, document):
    (frame,) = read_keypoints(write(tmp_path / "photo.json", document))
    assert frame.skeleton is COCO_17
    assert frame.frame == "photo"
    assert frame.p2d[:, 0].tolist() == [[1, 2], [3, 4]]
    assert (frame.confidence == 0.5).all()


@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: {"instance_info": x}], ids=["list", "demo"]
)
def test_mmpose_video(tmp_path, wrap):
    person = instance() | {"track_id": 12}
    video = [{"frame_id": 3, "instances": [person]}, {"frame_id": 4, "instances": []}]
    stream = read_keypoints(write(tmp_path / "video.json", wrap(video)))
    assert len(stream) == 2
    (frame,) = stream
    assert (frame.frame, frame.person_ids) == (3, (12,))


def test_mmpose_says_its_dataset(tmp_path):
    document = {"meta_info": {"dataset_name": "mpii"}, "instance_info": [instance(16)]}
    (frame,) = read_keypoints(write(tmp_path / "a.json", document))
    assert frame.skeleton is MPII_16


def test_named_joint_set_goes_first(tmp_path):
    results = write(tmp_path / "a.json", [{"image_id": 1, "keypoints": triples(17)}])
    (frame,) = read_keypoints(results, skeleton="h36m-17")
    assert frame.skeleton is H36M_17
    mpii = write(tmp_path / "b.json", [{"image_id": 1, "keypoints": triples(16)}])
    (frame,) = read_keypoints(mpii, skeleton=MPII_16)
    assert frame.p2d.shape == (1, 16, 2)


@given(
    values=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=0, max_dims=3, max_side=3).map(lambda s: (*s, 17, 3)),
        elements=st.floats(0, 1000, width=32),
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_array_round_trip(tmp_path, values):
    values[..., 2] = (values[..., 2] > 500) * 0.25
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", values)
    np.savez(
        tmp_path / "c.npz",
        keypoints=values[..., :2],
        confidence=values[..., 2],
        skeleton="coco_17",
        unrelated=np.zeros(3),
    )
    people = values.shape[-3] if values.ndim > 3 else 1
    expected = values.reshape(-1, people, 17, 3)
    seen_frames = [i for i, frame in enumerate(expected) if frame[..., 2].any()]
    for name in ("a.npy", "b.npz", "c.npz"):
        skeleton = None if name == "c.npz" else COCO_17
        if not seen_frames:
            with pytest.raises(InputError, match="visible joints, got none"):
                list(read_keypoints(tmp_path / name, skeleton=skeleton))
            continue
        stream = read_keypoints(tmp_path / name, skeleton=skeleton)
        assert len(stream) == len(expected)
        frames = list(stream)
        assert [frame.frame for frame in frames] == seen_frames
        for frame in frames:
            rows = expected[frame.frame, list(frame.person_ids)]
            seen = rows[..., 2] > 0
            assert set(frame.person_ids) == set(
                np.flatnonzero(expected[frame.frame, ..., 2].any(-1)).tolist()
            )
            np.testing.assert_array_equal(frame.confidence.numpy(), rows[..., 2])
            np.testing.assert_array_equal(frame.p2d.numpy()[seen], rows[..., :2][seen])
            assert np.isnan(frame.p2d.numpy()[~seen]).all()


def test_array_without_confidence(tmp_path):
    values = np.arange(2 * 17 * 2).reshape(2, 17, 2)
    np.save(tmp_path / "whole.npy", values)
    frames = list(read_keypoints(tmp_path / "whole.npy", skeleton="coco_17"))
    assert len(frames) == 2
    assert (frames[0].confidence == 1).all()
    holes = values.astype(float)
    holes[0, 3, 1] = math.nan
    np.save(tmp_path / "holes.npy", holes)
    first = next(read_keypoints(tmp_path / "holes.npy", skeleton="coco_17"))
    assert first.confidence[0, 3] == 0
    assert first.p2d[0, 3].isnan().all()
    assert first.confidence.sum() == 16


def test_confidence_stays_between_0_and_1(tmp_path):
    values = np.ones((17, 3))
    values[:3, 2] = [6.0, -0.5, 0.3]
    np.save(tmp_path / "a.npy", values)
    (frame,) = read_keypoints(tmp_path / "a.npy", skeleton="coco_17")
    assert frame.confidence[0, :3].tolist() == pytest.approx([1.0, 0.0, 0.3])


def test_npy_is_mapped_not_loaded(tmp_path):
    path = tmp_path / "long.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(10**6, 17, 3))
    array[0], array[-1] = 1.0, 2.0
    del array
    tracemalloc.start()
    stream = read_keypoints(path, skeleton="coco_17")
    assert len(stream) == 10**6
    assert next(stream).p2d.unique().tolist() == [1.0]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6  # of a file of 200 MB


def with_number(index, value, joints=17):
    numbers = triples(joints)
    numbers[index] = value
    return numbers


CUT = json.dumps(openpose(triples(25)))[:200]
WRONG_JSON = {
    "empty": ("", "expected keypoints, got an empty file"),
    "blank": (" \n", "expected keypoints, got an empty file"),
    "truncated": (CUT, "expected JSON, got one cut off at line 1, column "),
    "truncated text": ('{"people": [{"pose_key', "got one cut off at line 1"),
    "not JSON": ("frame,x,y\n1,2,3", "got something else at line 1, column 1"),
    "deep": ("[" * 100_000, "nested too deeply|got one cut off"),
    "huge number": ('{"people": ' + "9" * 5000 + "}", "expected JSON with sensible numbers"),
    "number": (
        "3",
        "expected OpenPose, COCO-style, AlphaPose, MMPose or MediaPipe keypoints, got a number",
    ),
    "unknown object": ({"frames": []}, "got an object with frames"),
    "empty list": ([], "expected people with visible joints, got none"),
    "no people": (openpose(), "expected people with visible joints, got none"),
    "nobody seen": (openpose([0] * 75), "expected people with visible joints, got none"),
    "people": ({"people": 3}, "OpenPose people to be a list of objects, got a number"),
    "person without pose": ({"people": [{}]}, "expected pose_keypoints_2d for every person"),
    "empty pose": (openpose([]), "as one list x, y, confidence"),
    "wrong joint count": (
        openpose(triples(24)),
        r"expected 25 or 18 or 17 joints \(OpenPose\) or a named joint set, got 24 joints",
    ),
    "not triples": (openpose(triples(25)[:-1]), "as one list x, y, confidence"),
    "text for number": (openpose(with_number(4, "x")), "to be numbers, got something else"),
    "null confidence": (openpose(with_number(5, None)), "confidence between 0 and 1, got NaN"),
    "NaN confidence": (
        openpose(with_number(5, math.nan, 25)),
        "expected confidence between 0 and 1, got NaN in frame a, person 0, joint Neck",
    ),
    "infinite": (
        openpose(with_number(3, math.inf, 25)),
        "expected finite keypoints, got an infinite number in frame a, person 0, joint Neck",
    ),
    "beyond float32": (openpose(with_number(3, 1e300, 25)), "got an infinite number"),
    "mixed people": (openpose(triples(25), triples(17)), "for everyone in frame a, got 25 and 17"),
    "result without image": ([{"keypoints": triples(17)}], "expected an image_id"),
    "result without keypoints": ([{"image_id": 1}], "expected keypoints for every result"),
    "list of numbers": ([1, 2], "COCO results to be a list of objects"),
    "COCO joint count": (
        [{"image_id": 1, "keypoints": triples(16)}],
        r"expected 17 or 26 or 133 or 136 joints \(COCO\) or a named joint set, got 16 joints",
    ),
    "AlphaPose without joints": ({"bodies": [{}]}, "expected joints for every person, got none"),
    "AlphaPose joint count": (
        {"a.jpg": {"bodies": [{"joints": triples(26)}]}},
        r"expected 18 or 17 joints \(AlphaPose\) or a named joint set, got 26 joints",
    ),
    "some images without people": ({"a": {"people": []}, "b": {}}, "got an object with a, b"),
    "MediaPipe without size": (
        {"landmarks": landmarks()},
        "width and height, of which MediaPipe's coordinates are fractions, got neither in the file",
    ),
    "MediaPipe size": (
        {"landmarks": landmarks(), "width": 0, "height": 3},
        r"expected a width and height in pixels, got \[0.0, 3.0\]",
    ),
    "MediaPipe in pixels": (
        {"landmarks": [{"x": 300, "y": 200}] * 33},
        "fractions of the image's width and height, got much larger numbers",
    ),
    "MediaPipe joint count": (
        {"landmarks": landmarks()[:20], "width": 2, "height": 2},
        r"expected 33 joints \(MediaPipe\) or a named joint set, got 20 joints",
    ),
    "MediaPipe without y": ({"landmarks": [{"x": 1}]}, "landmarks with x and y, got one without"),
    "MediaPipe of numbers": ({"landmarks": [1, 2]}, "landmarks to be a list of objects"),
    "MediaPipe frame without": (
        [{"landmarks": landmarks(), "width": 2, "height": 2}, {}],
        "or landmark in every frame, got none",
    ),
    "MMPose without scores": ({"instances": [{"keypoints": []}]}, "keypoints and keypoint_scores"),
    "MMPose 3D": (
        [{"keypoints": [[1, 2, 3]] * 17, "keypoint_scores": [1] * 17}],
        r"shape \(J, 2\) and J keypoint_scores, got \(17, 3\) and \(17,\)",
    ),
}


@pytest.mark.parametrize(("document", "message"), WRONG_JSON.values(), ids=WRONG_JSON.keys())
def test_wrong_json(tmp_path, document, message):
    path = write(tmp_path / "a.json", document)
    with pytest.raises(InputError, match=message) as caught:
        list(read_keypoints(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def saved(array):
    return lambda path: np.save(path, array, allow_pickle=True)


def archive(**arrays):
    def save(path):
        with path.open("wb") as file:
            np.savez(file, **arrays)

    return save


def cut_short(save, length):
    def shorten(path):
        save(path)
        path.write_bytes(path.read_bytes()[:length])

    return shorten


GOOD = np.ones((4, 17, 3))
WRONG_ARRAYS = {
    "joint count": (saved(np.ones((4, 16, 3))), r"17, 2 or 3\) for coco_17, got 16 joints"),
    "last axis": (saved(np.ones((17, 4))), r"expected numbers of shape .* got float64 \(17, 4\)"),
    "one axis": (saved(np.ones(3)), "expected numbers of shape"),
    "text": (saved(np.full((17, 2), "x")), "expected numbers of shape"),
    "no frames": (saved(np.ones((0, 17, 3))), "visible joints, got none"),
    "no people at all": (saved(np.ones((3, 0, 17, 3))), "visible joints, got none"),
    "all missing": (saved(np.full((3, 17, 2), np.nan)), "visible joints, got none"),
    "NaN confidence": (saved(np.full((2, 17, 3), np.nan)), "got NaN in frame 0, person 0, joint n"),
    "objects": (saved(np.array([{}, None])), "expected a complete .npy array of numbers: "),
    "cut npy": (cut_short(saved(GOOD), 300), "expected a complete .npy"),
    "cut npy header": (cut_short(saved(GOOD), 20), "expected a complete .npy"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(GOOD)), "a pickle, which is never read"),
    "binary": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0"), "got byte 0 of another"),
    "empty": (lambda path: path.write_bytes(b""), "got an empty file"),
    "npz of objects": (archive(keypoints=np.array([{}])), "expected a complete .npz of plain"),
    "cut npz": (cut_short(archive(keypoints=GOOD), 200), "expected a complete .npz of plain"),
    "npz of two": (archive(a=GOOD, b=GOOD), "called keypoints, or only one, got a, b"),
    "npz of none": (archive(confidence=GOOD), "called keypoints, or only one, got none"),
    "two confidences": (archive(keypoints=GOOD, confidence=GOOD[..., 0]), "confidence once"),
    "confidence shape": (
        archive(keypoints=GOOD[..., :2], confidence=GOOD[0, :, 0]),
        r"confidence numbers of shape \(4, 17\), got float64 \(17,\)",
    ),
}


@pytest.mark.parametrize(("save", "message"), WRONG_ARRAYS.values(), ids=WRONG_ARRAYS.keys())
def test_wrong_array(tmp_path, save, message):
    path = tmp_path / "a.npy"
    save(path)
    with pytest.raises(InputError, match=message) as caught:
        list(read_keypoints(path, skeleton="coco_17"))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def samples():
    """One file of each kind, as bytes."""
    npy, npz = io.BytesIO(), io.BytesIO()
    np.save(npy, GOOD)
    np.savez_compressed(npz, keypoints=GOOD[..., :2], confidence=GOOD[..., 2], skeleton="coco_17")
    video = [{"frame_id": 3, "instances": [instance()]}]
    results = [{"image_id": 7, "keypoints": triples(17)}]
    pose = {"landmarks": [landmarks()], "width": 640, "height": 480}
    images = {"a.jpg": {"bodies": [{"joints": triples(18)}]}}
    documents = (openpose(triples(25)), results, video, pose, images)
    texts = [json.dumps(document) for document in documents]
    return [npy.getvalue(), npz.getvalue(), *(text.encode() for text in texts)]


@given(
    content=st.sampled_from(samples()),
    cut=st.none() | st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=3),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500)
def test_damage_is_one_clear_line_or_harmless(tmp_path, content, cut, changes):
    damaged = bytearray(content)
    for place, byte in changes:
        damaged[int(place * len(damaged))] = byte
    path = tmp_path / "a"
    path.write_bytes(damaged if cut is None else damaged[: int(cut * len(damaged))])
    for skeleton in (None, COCO_17):
        try:
            frames = list(read_keypoints(path, skeleton=skeleton))
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
        else:
            assert all(frame.p2d.shape[0] > 0 for frame in frames)


def test_array_needs_a_joint_set(tmp_path):
    np.save(tmp_path / "a.npy", GOOD)
    with pytest.raises(InputError, match="does not tell its joint set; name it: h36m_17, coco_17"):
        read_keypoints(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", keypoints=GOOD, skeleton="kinect")
    with pytest.raises(InputError, match=r"b.npz: no joint set is called 'kinect'"):
        read_keypoints(tmp_path / "b.npz")


def test_wrong_paths(tmp_path):
    with pytest.raises(InputError, match=r"gone.json: cannot be read: No such file"):
        read_keypoints(tmp_path / "gone.json")
    with pytest.raises(InputError, match=r"a folder of JSON files, got none"):
        read_keypoints(tmp_path)
    write(tmp_path / "a.json", openpose())
    with pytest.raises(InputError, match="visible joints, got none"):
        list(read_keypoints(tmp_path))
    with pytest.raises(InputError, match="no joint set is called 'x'"):
        read_keypoints(tmp_path / "a.json", skeleton="x")


def test_pickles_are_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Trap()))
    np.savez(tmp_path / "c.npz", np.array([Trap()], dtype=object))
    for name in ("a.npy", "b.npy", "c.npz"):
        with pytest.raises(InputError):
            list(read_keypoints(tmp_path / name, skeleton="coco_17"))
