"""The joint sets of 2D detectors that extend COCO's 17 joints or replace them."""

from dataclasses import replace

from propose_prob.pose.joint_set import Skeleton, build

__all__ = ["COCO_17", "COCO_WHOLEBODY_133", "HALPE_26", "HALPE_136", "MEDIAPIPE_33"]

_Row = tuple[str, str | None, str | None]

COCO_17 = build(
    "coco_17",
    ("nose", None, "nose"),
    ("left_eye", "nose", "left_eye"),
    ("right_eye", "nose", "right_eye"),
    ("left_ear", "left_eye", "left_ear"),
    ("right_ear", "right_eye", "right_ear"),
    ("left_shoulder", "nose", "left_shoulder"),
    ("right_shoulder", "nose", "right_shoulder"),
    ("left_elbow", "left_shoulder", "left_elbow"),
    ("right_elbow", "right_shoulder", "right_elbow"),
    ("left_wrist", "left_elbow", "left_wrist"),
    ("right_wrist", "right_elbow", "right_wrist"),
    ("left_hip", "left_shoulder", "left_hip"),
    ("right_hip", "right_shoulder", "right_hip"),
    ("left_knee", "left_hip", "left_knee"),
    ("right_knee", "right_hip", "right_knee"),
    ("left_ankle", "left_knee", "left_ankle"),
    ("right_ankle", "right_knee", "right_ankle"),
)
"""COCO's person keypoints (cocodataset.org, `categories[0].keypoints`). COCO defines no tree; this
one hangs from the nose."""

MEDIAPIPE_33 = build(
    "mediapipe_33",
    ("nose", None, "nose"),
    ("left_eye_inner", "nose", None),
    ("left_eye", "left_eye_inner", "left_eye"),
    ("left_eye_outer", "left_eye", None),
    ("right_eye_inner", "nose", None),
    ("right_eye", "right_eye_inner", "right_eye"),
    ("right_eye_outer", "right_eye", None),
    ("left_ear", "left_eye_outer", "left_ear"),
    ("right_ear", "right_eye_outer", "right_ear"),
    ("left_mouth", "nose", None),
    ("right_mouth", "nose", None),
    ("left_shoulder", "nose", "left_shoulder"),
    ("right_shoulder", "nose", "right_shoulder"),
    ("left_elbow", "left_shoulder", "left_elbow"),
    ("right_elbow", "right_shoulder", "right_elbow"),
    ("left_wrist", "left_elbow", "left_wrist"),
    ("right_wrist", "right_elbow", "right_wrist"),
    ("left_pinky", "left_wrist", None),
    ("right_pinky", "right_wrist", None),
    ("left_index", "left_wrist", None),
    ("right_index", "right_wrist", None),
    ("left_thumb", "left_wrist", None),
    ("right_thumb", "right_wrist", None),
    ("left_hip", "left_shoulder", "left_hip"),
    ("right_hip", "right_shoulder", "right_hip"),
    ("left_knee", "left_hip", "left_knee"),
    ("right_knee", "right_hip", "right_knee"),
    ("left_ankle", "left_knee", "left_ankle"),
    ("right_ankle", "right_knee", "right_ankle"),
    ("left_heel", "left_ankle", "left_heel"),
    ("right_heel", "right_ankle", "right_heel"),
    ("left_foot_index", "left_heel", "left_big_toe"),
    ("right_foot_index", "right_heel", "right_big_toe"),
)
"""MediaPipe's pose landmarks (ai.google.dev, "Pose landmark detection guide", landmarks 0 to 32;
ML Kit lists the same 33), also called BlazePose.

"Foot index" is the tip of the foot at its big toe. MediaPipe defines no tree; this one follows its
drawn connections, hung from the nose."""


# Jaw, brows, nostrils and lips of the 68 landmarks of a face: runs that mirroring reverses.
_FACE_RUNS = ((0, 16), (17, 26), (31, 35), (48, 54), (55, 59), (60, 64), (65, 67))
_FACE_EYES = ((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46))


def _face_mirror() -> list[int]:
    mirror = list(range(68))
    for first, last in _FACE_RUNS:
        mirror[first : last + 1] = range(last, first - 1, -1)
    for left, right in _FACE_EYES:
        mirror[left], mirror[right] = right, left
    return mirror


def _hand(side: str) -> list[_Row]:
    """Rows of a hand's root and the four joints of each finger."""
    root = f"{side}_hand_root"
    rows: list[_Row] = [(root, f"{side}_wrist", None)]
    for finger in ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger"):
        parent = root
        for joint in range(1, 5):
            rows.append((f"{side}_{finger}{joint}", parent, None))
            parent = f"{side}_{finger}{joint}"
    return rows


def _with_face_and_hands(name: str, body: list[_Row]) -> Skeleton:
    face: list[_Row] = [(f"face-{index}", "nose", None) for index in range(68)]
    plain = build(name, *body, *face, *_hand("left"), *_hand("right"))
    start, mirror = len(body), list(plain.mirror)
    mirror[start : start + len(face)] = [start + joint for joint in _face_mirror()]
    return replace(plain, mirror=tuple(mirror))


def _rows(skeleton: Skeleton) -> list[_Row]:
    names = skeleton.joint_names
    return [
        (name, None if parent == -1 else names[parent], meaning)
        for name, parent, meaning in zip(names, skeleton.parents, skeleton.meanings, strict=True)
    ]


HALPE_26 = build(
    "halpe_26",
    ("nose", "neck", "nose"),
    *_rows(COCO_17)[1:5],
    ("left_shoulder", "neck", "left_shoulder"),
    ("right_shoulder", "neck", "right_shoulder"),
    *_rows(COCO_17)[7:11],
    ("left_hip", "hip", "left_hip"),
    ("right_hip", "hip", "right_hip"),
    *_rows(COCO_17)[13:17],
    ("head", "neck", "head_top"),
    ("neck", "hip", "thorax"),
    ("hip", None, "hip_centre"),
    ("left_big_toe", "left_ankle", "left_big_toe"),
    ("right_big_toe", "right_ankle", "right_big_toe"),
    ("left_small_toe", "left_ankle", "left_small_toe"),
    ("right_small_toe", "right_ankle", "right_small_toe"),
    ("left_heel", "left_ankle", "left_heel"),
    ("right_heel", "right_ankle", "right_heel"),
)
"""Halpe's 26 body joints, which AlphaPose writes too (Halpe-FullBody, README, "Keypoints format";
MMPose `configs/_base_/datasets/halpe26.py`, whose links are the tree).

COCO's 17 joints come first. Head is the top of the head; Neck lies between the shoulders and Hip
between the hips."""

HALPE_136 = _with_face_and_hands("halpe_136", _rows(HALPE_26))
"""Halpe's full body: `HALPE_26`, 68 face landmarks, and 21 joints of the left and the right hand
(Halpe-FullBody, README). Face and hands match no other set here."""

COCO_WHOLEBODY_133 = _with_face_and_hands(
    "coco_wholebody_133",
    [
        *_rows(COCO_17),
        ("left_big_toe", "left_ankle", "left_big_toe"),
        ("left_small_toe", "left_ankle", "left_small_toe"),
        ("left_heel", "left_ankle", "left_heel"),
        ("right_big_toe", "right_ankle", "right_big_toe"),
        ("right_small_toe", "right_ankle", "right_small_toe"),
        ("right_heel", "right_ankle", "right_heel"),
    ],
)
"""COCO-WholeBody (MMPose `configs/_base_/datasets/coco_wholebody.py`): `COCO_17`, six joints of the
feet, 68 face landmarks, and 21 joints of the left and the right hand, as AlphaPose, MMPose and
DWPose write them. Face and hands match no other set here."""
