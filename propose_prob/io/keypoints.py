"""2D keypoints as detectors write them: JSON formats told apart by content, and arrays."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError, short
from ..geometry.skeletons import (
    BODY_25,
    COCO_17,
    COCO_WHOLEBODY_133,
    H36M_17,
    HALPE_26,
    HALPE_136,
    MEDIAPIPE_33,
    MPII_16,
    SKELETONS,
    Skeleton,
    get_skeleton,
)
from .archives import map_npy, read_npz
from .files import check_name, open_file, read_text

__all__ = [
    "OPENPOSE_COCO_18",
    "Frame",
    "KeypointStream",
    "Keypoints",
    "parse_json",
    "read_keypoints",
]

OPENPOSE_COCO_18 = (0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10)
"""Where each COCO-17 joint stands in OpenPose's COCO model (`doc/02_output.md`: Nose, Neck,
RShoulder, RElbow, RWrist, LShoulder, LElbow, LWrist, RHip, RKnee, RAnkle, LHip, LKnee, LAnkle,
REye, LEye, REar, LEar)."""

_BY_COUNT = {17: COCO_17, 26: HALPE_26, 133: COCO_WHOLEBODY_133, 136: HALPE_136}
_MMPOSE_DATASETS = {
    "coco": COCO_17,
    "coco_wholebody": COCO_WHOLEBODY_133,
    "h36m": H36M_17,
    "halpe": HALPE_136,
    "halpe26": HALPE_26,
    "mpii": MPII_16,
}
_EXPECTED = "OpenPose, COCO-style, AlphaPose, MMPose or MediaPipe keypoints"

_LANDMARKS = ("landmarks", "pose_landmarks", "poseLandmarks", "landmark")
"""What MediaPipe's interfaces call the landmarks of a frame: tasks in JavaScript and Swift, tasks
and the older solution in Python, the older solution in JavaScript, and a landmark list itself."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The people of one frame as read, before any check of the numbers.

    Attributes:
        name: Image id, frame number or file name.
        values: x, y and confidence `(P, J, 3)`, float64.
        skeleton: The joint set.
        person_ids: One for each person.
    """

    name: int | str
    values: npt.NDArray[np.float64]
    skeleton: Skeleton
    person_ids: tuple[int | str, ...]

    def named_after(self, file: Path, *, single: bool) -> "Frame":
        """Name the frame after its file, keeping its own name where it is not the only one."""
        stem = _stem(file)
        return replace(self, name=stem if single else f"{stem}/{self.name}")


@dataclass(frozen=True)
class _Source:
    """What a message and the choice of a joint set need to know about a document."""

    path: Path
    kind: str
    wanted: Skeleton | None
    by_count: dict[int, Skeleton]

    def fail(self, expected: str, got: str) -> InputError:
        return InputError(f"{self.path}: expected {expected}, got {short(got)}")

    def list_of_objects(self, value: Any, name: str) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.fail(f"{self.kind} {name} to be a list of objects", _kind(value))
        return value

    def numbers(self, value: Any, name: str) -> npt.NDArray[np.float64]:
        try:
            return np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.fail(f"{self.kind} {name} to be numbers", "something else") from error

    def triples(self, value: Any, name: str) -> npt.NDArray[np.float64]:
        flat = self.numbers(value, name)
        if flat.ndim != 1 or flat.size == 0 or flat.size % 3:
            raise self.fail(
                f"{self.kind} {name} as one list x, y, confidence, x, ...",
                f"{flat.size} numbers of shape {flat.shape}",
            )
        return flat.reshape(-1, 3)

    def skeleton(self, joints: int) -> Skeleton:
        skeleton = self.wanted or self.by_count.get(joints)
        if skeleton is None:
            known = " or ".join(map(str, self.by_count))
            raise self.fail(
                f"{known} joints ({self.kind}) or a named joint set", f"{joints} joints"
            )
        if skeleton.num_joints != joints:
            raise self.fail(f"{skeleton.num_joints} joints ({skeleton.name})", f"{joints} joints")
        return skeleton

    def frame(
        self, name: int | str, people: list[tuple[int | str, npt.NDArray[np.float64]]]
    ) -> Frame:
        if not people:
            return Frame(name, np.zeros((0, 17, 3)), self.wanted or COCO_17, ())
        first = people[0][1]
        for _, values in people:
            if len(values) != len(first):
                raise self.fail(
                    f"the same number of joints for everyone in frame {short(str(name))}",
                    f"{len(first)} and {len(values)}",
                )
        ids = tuple(identity for identity, _ in people)
        values = np.stack([values for _, values in people])
        return Frame(name, values, self.skeleton(len(first)), ids)


def parse_json(
    text: str,
    path: Path,
    skeleton: Skeleton | None,
    *,
    image_size: tuple[int, int] | None = None,
) -> list[Frame]:
    """Parse the text of a keypoint file.

    Args:
        text: The whole file.
        path: Its path, for messages and for naming a frame that has no name of its own.
        skeleton: The joint set, or `None` to tell it by the number of joints.
        image_size: Width and height in pixels, for coordinates that are fractions of the image.

    Returns:
        The frames in the file's order, those without people included.

    Raises:
        InputError: If it is not JSON, of no known format, or a list of keypoints is not as its
            format has it.
    """
    if not text.strip():
        raise InputError(f"{path}: expected keypoints, got an empty file")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        body = text.strip()
        if body[0] in "{[" and (body[-1] not in "}]" or error.pos >= len(text.rstrip())):
            raise InputError(f"{path}: expected JSON, got one cut off at {where}") from error
        raise InputError(f"{path}: expected JSON, got something else at {where}") from error
    except ValueError as error:
        reason = short(str(error))
        raise InputError(f"{path}: expected JSON with sensible numbers: {reason}") from error
    except RecursionError as error:
        raise InputError(f"{path}: expected {_EXPECTED}, got JSON nested too deeply") from error

    if isinstance(document, dict):
        if "people" in document or "bodies" in document:
            return [_openpose(document, path, skeleton, _stem(path))]
        if "annotations" in document:
            return _coco(document["annotations"], path, skeleton, annotations=True)
        if "instance_info" in document:
            dataset = document.get("meta_info")
            return _mmpose(document["instance_info"], path, _dataset_skeleton(dataset, skeleton))
        if "instances" in document:
            return _mmpose(document["instances"], path, skeleton)
        if _landmark_key(document):
            return _mediapipe([document], path, skeleton, image_size)
        if document and all(map(_has_people, document.values())):
            # AlphaPose's one file for all images, by their names.
            return [_openpose(entry, path, skeleton, name) for name, entry in document.items()]
        keys = short(", ".join(list(document)[:5])) or "no keys"
        raise InputError(f"{path}: expected {_EXPECTED}, got an object with {keys}")
    if not isinstance(document, list):
        raise InputError(f"{path}: expected {_EXPECTED}, got {_kind(document)}")
    first = document[0] if document else {}
    if isinstance(first, list) and len(document) == 1:
        # MMPose's inferencer returns one list of instances for each image of a batch.
        return _mmpose(first, path, skeleton)
    if isinstance(first, dict) and ("keypoint_scores" in first or "instances" in first):
        return _mmpose(document, path, skeleton)
    if isinstance(first, dict) and (_landmark_key(first) or "x" in first):
        # A list of points is the one person of a frame; else a list of frames.
        frames = [{"landmarks": document}] if "x" in first else document
        return _mediapipe(frames, path, skeleton, image_size)
    return _coco(document, path, skeleton, annotations=False)


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list of something else", str: "a text", type(None): "null"}
    return names.get(type(value), "a number")


def _stem(path: Path) -> str:
    # A file's name may have bytes that are no text.
    stem = os.fsencode(path.stem).decode(errors="backslashreplace")
    return stem.removesuffix("_keypoints")


def _identity(person: dict[str, Any], index: int, *keys: str) -> int | str:
    """Return the person's own id if there is a usable one; OpenPose writes -1 for unknown."""
    for key in keys:
        value = person.get(key)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, str) or (
            isinstance(value, int) and not isinstance(value, bool) and value >= 0
        ):
            return value
    return index


def _has_people(value: Any) -> bool:
    return isinstance(value, dict) and ("people" in value or "bodies" in value)


def _openpose(document: dict[str, Any], path: Path, wanted: Skeleton | None, name: str) -> Frame:
    """Read a frame as OpenPose writes it, or AlphaPose in the form of OpenPose or its ancestor."""
    if "people" in document:
        group, key = "people", "pose_keypoints_2d"
        source = _Source(path, "OpenPose", wanted, {25: BODY_25, 18: COCO_17, 17: COCO_17})
    else:
        group, key = "bodies", "joints"
        source = _Source(path, "AlphaPose", wanted, {18: COCO_17, 17: COCO_17})
    people: list[tuple[int | str, npt.NDArray[np.float64]]] = []
    for index, person in enumerate(source.list_of_objects(document[group], group)):
        if key not in person:
            raise source.fail(f"{key} for every person", "none")
        values = source.triples(person[key], key)
        if len(values) == 18 and wanted in (None, COCO_17):
            values = values[list(OPENPOSE_COCO_18)]
        people.append((_identity(person, index, "person_id"), values))
    return source.frame(name, people)


def _coco(entries: Any, path: Path, wanted: Skeleton | None, *, annotations: bool) -> list[Frame]:
    source = _Source(path, "COCO", wanted, _BY_COUNT)
    images: dict[int | str, list[tuple[int | str, npt.NDArray[np.float64]]]] = {}
    for entry in source.list_of_objects(entries, "annotations" if annotations else "results"):
        image = entry.get("image_id")
        if not isinstance(image, int | str):
            raise source.fail(
                "an image_id for every entry", "none" if image is None else _kind(image)
            )
        people = images.setdefault(image, [])
        # Annotation files may describe things that have no keypoints beside the people.
        if annotations and not entry.get("keypoints"):
            continue
        if "keypoints" not in entry:
            raise source.fail("keypoints for every result", "none")
        values = source.triples(entry["keypoints"], "keypoints")
        people.append((_identity(entry, len(people), "track_id", "idx", "id"), values))
    return [source.frame(image, people) for image, people in images.items()]


def _dataset_skeleton(meta: Any, wanted: Skeleton | None) -> Skeleton | None:
    if wanted is not None or not isinstance(meta, dict):
        return wanted
    return _MMPOSE_DATASETS.get(str(meta.get("dataset_name")).lower())


def _mmpose(entries: Any, path: Path, wanted: Skeleton | None) -> list[Frame]:
    source = _Source(path, "MMPose", wanted, _BY_COUNT)
    found = source.list_of_objects(entries, "instances")
    if any("instances" in entry for entry in found):
        frames = [
            (_identity(entry, index, "frame_id"), entry.get("instances", []))
            for index, entry in enumerate(found)
        ]
    else:
        frames = [(_stem(path), found)]
    return [source.frame(name, _mmpose_people(source, people)) for name, people in frames]


def _mmpose_people(
    source: _Source, entries: Any
) -> list[tuple[int | str, npt.NDArray[np.float64]]]:
    people: list[tuple[int | str, npt.NDArray[np.float64]]] = []
    for index, person in enumerate(source.list_of_objects(entries, "instances")):
        if "keypoints" not in person or "keypoint_scores" not in person:
            raise source.fail("keypoints and keypoint_scores for every instance", "one without")
        joints = source.numbers(person["keypoints"], "keypoints")
        scores = source.numbers(person["keypoint_scores"], "keypoint_scores")
        if joints.ndim != 2 or joints.shape[-1] != 2 or scores.shape != joints.shape[:1]:
            raise source.fail(
                "MMPose keypoints of shape (J, 2) and J keypoint_scores",
                f"{joints.shape} and {scores.shape}",
            )
        values = np.concatenate([joints, scores[:, None]], axis=-1)
        people.append((_identity(person, index, "track_id", "instance_id"), values))
    return people


def _landmark_key(frame: dict[str, Any]) -> str | None:
    return next((key for key in _LANDMARKS if key in frame), None)


def _mediapipe(
    entries: Any, path: Path, wanted: Skeleton | None, image_size: tuple[int, int] | None
) -> list[Frame]:
    source = _Source(path, "MediaPipe", wanted, {33: MEDIAPIPE_33})
    found = source.list_of_objects(entries, "frames")
    frames = []
    for index, entry in enumerate(found):
        key = _landmark_key(entry)
        if key is None:
            raise source.fail(f"{' or '.join(_LANDMARKS)} in every frame", "none")
        name = _stem(path) if len(found) == 1 else index
        name = entry.get("frame", entry.get("frame_id", name))
        if not isinstance(name, int | str):
            raise source.fail("frames numbered or named", _kind(name))
        people = _mediapipe_people(source, entry[key])
        size = _mediapipe_size(source, entry, image_size) if people else (1.0, 1.0)
        scale = np.array([*size, 1.0])
        # What exceeds the largest number becomes infinite here and is reported with the others.
        with np.errstate(over="ignore"):
            frames.append(
                source.frame(name, [(i, person * scale) for i, person in enumerate(people)])
            )
    return frames


def _mediapipe_people(source: _Source, value: Any) -> list[npt.NDArray[np.float64]]:
    """Read one person's or several people's landmarks, as fractions of the image."""
    if isinstance(value, dict):
        value = value.get("landmark")
    if value is None or value == []:
        return []
    if isinstance(value, list) and isinstance(value[0], list):
        groups = value
    elif isinstance(value, list) and isinstance(value[0], dict) and "landmark" in value[0]:
        groups = [person.get("landmark") for person in source.list_of_objects(value, "people")]
    else:
        groups = [value]
    people = []
    for group in groups:
        points = source.list_of_objects(group, "landmarks")
        if not all("x" in point and "y" in point for point in points):
            raise source.fail("MediaPipe landmarks with x and y", "one without")
        rows = [[point["x"], point["y"], point.get("visibility", 1.0)] for point in points]
        values = source.numbers(rows, "landmarks")
        # Each of the two middle ones: their sum may exceed the largest number.
        if values.size and np.quantile(np.abs(values[:, :2]), 0.5, method="lower") > 10:
            raise source.fail(
                "MediaPipe landmarks as fractions of the image's width and height",
                "much larger numbers; store pixels as .npy or .npz",
            )
        people.append(values)
    return people


def _mediapipe_size(
    source: _Source, entry: dict[str, Any], image_size: tuple[int, int] | None
) -> tuple[float, float]:
    if image_size is None:
        for width, height in (("image_width", "image_height"), ("width", "height")):
            if width in entry and height in entry:
                given = source.numbers([entry[width], entry[height]], f"{width} and {height}")
                break
        else:
            raise source.fail(
                "the image's width and height, of which MediaPipe's coordinates are fractions",
                "neither in the file nor as image_size",
            )
    else:
        given = np.asarray(image_size, dtype=np.float64)
    if given.shape != (2,) or not (np.isfinite(given) & (given > 0)).all():
        raise source.fail("a width and height in pixels", f"{given.tolist()}")
    return float(given[0]), float(given[1])


_NPY, _ZIP, _PICKLE = b"\x93NUMPY", b"PK\x03\x04", b"\x80"


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The people in one frame.

    Attributes:
        p2d: Joints `(P, J, 2)`, float32, in the file's unit (pixels as a rule), y down; NaN where
            not seen.
        confidence: Confidence `(P, J)`, float32, 0 to 1; 0 where not seen.
        skeleton: The joint set.
        frame: The frame's name: image id, frame number or file name without its ending.
        person_ids: One for each person: the file's own where it has one, else the place in the
            frame.

    Example:
        >>> from propose_prob.geometry.skeletons import COCO_17
        >>> people = Keypoints(torch.ones(2, 17, 2), torch.ones(2, 17), COCO_17, "00001", (0, 1))
        >>> len(people.person_ids), people.skeleton.joint_names[0]
        (2, 'nose')
    """

    p2d: Tensor
    confidence: Tensor
    skeleton: Skeleton
    frame: int | str
    person_ids: tuple[int | str, ...]


class KeypointStream(Iterator[Keypoints]):
    """Frames one after another; `len` is the number of frames in the source.

    Frames without people are passed over, so fewer than `len` may come.

    Args:
        read: Gives the frames from one number to before another, or to the end.
        length: Number of frames.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(f"{folder}/walk.npy", np.ones((3, 17, 2)))
        ...     stream = read_keypoints(f"{folder}/walk.npy", skeleton="h36m_17")
        ...     len(stream), [frame.frame for frame in stream]
        (3, [0, 1, 2])
    """

    def __init__(self, read: Callable[[int, int | None], Iterable[Keypoints]], length: int) -> None:
        self._read = read
        self._frames = iter(read(0, None))
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __next__(self) -> Keypoints:
        return next(self._frames)

    def part(self, start: int, stop: int) -> Iterator[Keypoints]:
        """The frames from number `start` to before `stop`.

        Of a folder or array only these are read, and that nobody is in them is no error.
        """
        return iter(self._read(start, stop))


def read_keypoints(
    path: str | Path,
    *,
    skeleton: Skeleton | str | None = None,
    image_size: tuple[int, int] | None = None,
) -> KeypointStream:
    """Read the people of every frame from a file or folder of 2D keypoints.

    What a file is, its content tells, not its name:

    * OpenPose JSON (`people`), BODY_25 or its 18-joint COCO model (given back as COCO_17: its neck
      is only the middle of the shoulders). `(0, 0, 0)` is a joint not seen. One file is one frame.
    * COCO-style JSON: a list of results (`image_id`, `keypoints`), as AlphaPose writes too, or
      `annotations`. A frame is an image. 17 joints are COCO_17, 26 and 136 Halpe's, 133 those of
      COCO-WholeBody.
    * AlphaPose JSON of its other formats: `people` or `bodies`, one file for each image or one for
      all with the images' names as keys (AlphaPose `alphapose/utils/pPose_nms.py`, `write_json`).
    * MMPose JSON: `instance_info`, a list of `instances` by frame, or a plain list of instances.
    * MediaPipe pose landmarks: an object or a list of objects, one for each frame, with
      `landmarks`, `pose_landmarks` or `poseLandmarks`: 33 of `x`, `y` and `visibility`, for one
      person or a list of people. They are fractions of the image, so its size must stand in the
      file (`image_width` and `image_height`, or `width` and `height`) or be given.
    * A folder of such files, one for each frame, sorted by name (2 before 10) and read one file at
      a time.
    * `.npy`, and `.npz` with `keypoints` (or one array) and optionally `confidence` and `skeleton`:
      shape (J, C), (frames, J, C) or (frames, ..., people, J, C), where C is 2, or 3 with the
      confidence last. `.npy` is mapped into memory, not loaded.

    A single JSON or npz file is read whole, which takes some ten times a JSON file's size in
    memory: split longer recordings into one file for each frame, or store them as `.npy`. Pickles
    are never read. People of whom no joint was seen are passed over, and so are frames without
    people.

    Args:
        path: File or folder.
        skeleton: Joint set or its name; required for arrays that do not name theirs, and for JSON
            whose number of joints does not tell.
        image_size: Width and height in pixels of the images behind MediaPipe's fractions. The
            other kinds are in pixels and do not need it.

    Returns:
        An iterator over frames with a length.

    Raises:
        InputError: If the file is missing, empty, broken, of another kind, has another number of
            joints than the joint set, a NaN confidence, an infinite coordinate, or nobody in it.
            For a folder or an array this may come while iterating.

    Example:
        >>> from importlib.resources import files
        >>> photo = files("propose_prob") / "assets" / "pexels-4793258_keypoints.json"
        >>> frame = next(read_keypoints(str(photo)))
        >>> frame.skeleton.name, frame.p2d.shape, int((frame.confidence > 0).sum())
        ('body_25', torch.Size([1, 25, 2]), 24)
    """
    path = Path(path)
    wanted = get_skeleton(skeleton) if isinstance(skeleton, str) else skeleton
    if path.is_dir():
        return _read_folder(path, wanted, image_size)
    head = _head(path)
    if head.startswith(_NPY):
        return _read_npy(path, wanted)
    if head.startswith(_ZIP):
        return _read_npz(path, wanted)
    frames = parse_json(_text(path), path, wanted, image_size=image_size)
    cleaned = [_clean(frame, path) for frame in frames]
    if all(keypoints is None for keypoints in cleaned):
        raise InputError(_nobody(path))

    def chosen(start: int, stop: int | None) -> list[Keypoints]:
        return [keypoints for keypoints in cleaned[start:stop] if keypoints is not None]

    return KeypointStream(chosen, len(frames))


def _nobody(path: Path) -> str:
    return f"{path}: expected people with visible joints, got none"


def _head(path: Path) -> bytes:
    with open_file(path) as file:
        head = file.read(16)
    if not head:
        raise InputError(f"{path}: expected keypoints, got an empty file")
    if head.startswith(_PICKLE):
        raise InputError(f"{path}: expected JSON, .npy or .npz, got a pickle, which is never read")
    return head


def _text(path: Path) -> str:
    return read_text(path, "JSON, .npy or .npz")


def _clean(frame: Frame, path: Path) -> Keypoints | None:
    """Check a frame's names and numbers and mark what was not seen; `None` if nobody is left."""
    check_name(path, "frame", frame.name)
    for identity in frame.person_ids:
        check_name(path, "person", identity)
    # What exceeds float32 becomes infinite here and is reported below.
    with np.errstate(over="ignore"):
        values = frame.values.astype(np.float32)
    p2d, confidence = values[..., :2], values[..., 2]
    for bad, what, expected in (
        (np.isnan(confidence), "NaN", "confidence between 0 and 1"),
        (np.isinf(values).any(axis=-1), "an infinite number", "finite keypoints"),
    ):
        if bad.any():
            person, joint = (int(index) for index in np.argwhere(bad)[0])
            raise InputError(
                f"{path}: expected {expected}, got {what} in frame {frame.name}, "
                f"person {frame.person_ids[person]}, joint {frame.skeleton.joint_names[joint]}"
            )
    seen = ~np.isnan(p2d).any(axis=-1) & (confidence > 0)
    present = seen.any(axis=-1)
    if not present.any():
        return None
    p2d = np.where(seen[..., None], p2d, np.float32(np.nan))[present]
    confidence = np.where(seen, confidence.clip(max=1), np.float32(0))[present]
    ids = tuple(frame.person_ids[index] for index in np.flatnonzero(present))
    return Keypoints(
        torch.from_numpy(p2d), torch.from_numpy(confidence), frame.skeleton, frame.name, ids
    )


def _natural(path: Path) -> list[tuple[int, str]]:
    return [
        (int(part), "") if part.isdecimal() else (-1, part)
        for part in re.split(r"(\d+)", path.name)
    ]


def _read_folder(
    folder: Path, skeleton: Skeleton | None, image_size: tuple[int, int] | None
) -> KeypointStream:
    files = sorted(folder.glob("*.json"), key=_natural)
    if not files:
        raise InputError(f"{folder}: expected a folder of JSON files, got none that ends in .json")

    def frames(start: int, stop: int | None) -> Iterator[Keypoints]:
        found = stop is not None
        for file in files[start:stop]:
            _head(file)
            parsed = parse_json(_text(file), file, skeleton, image_size=image_size)
            for frame in parsed:
                keypoints = _clean(frame.named_after(file, single=len(parsed) == 1), file)
                if keypoints is not None:
                    found = True
                    yield keypoints
        if not found:
            raise InputError(_nobody(folder))

    return KeypointStream(frames, len(files))


def _read_npy(path: Path, skeleton: Skeleton | None) -> KeypointStream:
    return _read_array(path, map_npy(path), None, skeleton)


def _read_npz(path: Path, skeleton: Skeleton | None) -> KeypointStream:
    arrays = read_npz(path)
    confidence, stored = arrays.pop("confidence", None), arrays.pop("skeleton", None)
    if "keypoints" not in arrays and len(arrays) != 1:
        names = short(", ".join(arrays)) or "none"
        raise InputError(f"{path}: expected an array called keypoints, or only one, got {names}")
    keypoints = arrays["keypoints"] if "keypoints" in arrays else next(iter(arrays.values()))
    if skeleton is None and stored is not None:
        try:
            skeleton = get_skeleton(str(stored))
        except InputError as error:
            raise InputError(f"{path}: {short(str(error))}") from error
    return _read_array(path, keypoints, confidence, skeleton)


def _read_array(
    path: Path,
    array: npt.NDArray[np.generic],
    confidence: npt.NDArray[np.generic] | None,
    skeleton: Skeleton | None,
) -> KeypointStream:
    if skeleton is None:
        known = ", ".join(SKELETONS)
        raise InputError(f"{path}: an array does not tell its joint set; name it: {known}")
    expected = f"(..., {skeleton.num_joints}, 2 or 3) for {skeleton.name}"
    if array.dtype.kind not in "fiu" or array.ndim < 2 or array.shape[-1] not in (2, 3):
        raise InputError(
            f"{path}: expected numbers of shape {expected}, got {array.dtype} {array.shape}"
        )
    if array.shape[-2] != skeleton.num_joints:
        raise InputError(f"{path}: expected shape {expected}, got {array.shape[-2]} joints")
    if confidence is not None:
        if array.shape[-1] == 3:
            raise InputError(f"{path}: expected confidence once, got it in both arrays")
        if confidence.shape != array.shape[:-1] or confidence.dtype.kind not in "fiub":
            raise InputError(
                f"{path}: expected confidence numbers of shape {array.shape[:-1]}, "
                f"got {confidence.dtype} {confidence.shape}"
            )
    people = array.shape[-3] if array.ndim > 3 else 1
    by_frame = array.reshape(-1, people, *array.shape[-2:]) if array.size else array[:0]
    given = None if confidence is None else confidence.reshape(by_frame.shape[:-1])
    if not len(by_frame):
        raise InputError(_nobody(path))

    def frames(start: int, stop: int | None) -> Iterator[Keypoints]:
        found = stop is not None
        for index in range(len(by_frame))[start:stop]:
            rows = np.asarray(by_frame[index], dtype=np.float64)
            if rows.shape[-1] == 2:
                level = np.ones(rows.shape[:-1]) if given is None else given[index]
                rows = np.concatenate([rows, np.asarray(level, np.float64)[..., None]], axis=-1)
            frame = Frame(index, rows, skeleton, tuple(range(people)))
            keypoints = _clean(frame, path)
            if keypoints is not None:
                found = True
                yield keypoints
        if not found:
            raise InputError(_nobody(path))

    return KeypointStream(frames, len(by_frame))
