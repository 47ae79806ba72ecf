"""Reading 2D keypoints as detectors write them: JSON of five kinds, and arrays."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from propose_prob._archives import map_npy, read_npz
from propose_prob._files import check_name, open_file, read_text
from propose_prob.data.keypoints_json import Frame, parse_json
from propose_prob.errors import InputError, short
from propose_prob.pose.skeleton import SKELETONS, Skeleton, get_skeleton

__all__ = ["KeypointStream", "Keypoints", "read_keypoints"]

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
        >>> from propose_prob.pose import COCO_17
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
