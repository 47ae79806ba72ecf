"""Human3.6M: camera parameters, and the two files that lifting papers share (VideoPose3D's format).

Sources: github.com/facebookresearch/VideoPose3D, `DATASETS.md`, `data/prepare_data_h36m.py`,
`common/h36m_dataset.py` and `run.py` (cameras, files, subjects, joints kept of 32, longer 2D
recordings), `data/data_utils.py` (joint sets of the detections). The lens distortion listed beside
the cameras, some pixels at the image's rim, is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InputError, short
from ..geometry.skeletons import COCO_17, H36M_17, MPII_16, Skeleton, convert_skeleton
from ..io.object_npz import read_object_npz
from .clips import PoseClip

__all__ = [
    "CAMERA_IDS",
    "H36M_ACTIONS",
    "H36M_TEST",
    "H36M_TRAIN",
    "Camera",
    "h36m_camera",
    "read_h36m",
]

# Width, height, focal length x and y, principal point x and y; pixels.
_INTRINSICS: dict[str, tuple[int, int, float, float, float, float]] = {
    "54138969": (1000, 1002, 1145.04944, 1143.78113, 512.541504, 515.451477),
    "55011271": (1000, 1000, 1149.67566, 1147.59167, 508.848633, 508.064911),
    "58860488": (1000, 1000, 1149.14075, 1148.79895, 519.815857, 501.402649),
    "60457274": (1000, 1002, 1145.51135, 1144.77392, 514.968201, 501.882019),
}

# Rotation from camera to world axes as a quaternion w, x, y, z, and the camera's place in
# millimeters of the world's axes (z up); one row for each camera, in the order above.
_EXTRINSICS: dict[str, tuple[tuple[float, ...], ...]] = {
    "S1": (
        (0.140705645, -0.150070176, -0.755240798, 0.622328043, 1841.10706, 4955.28467, 1563.44543),
        (0.615718782, -0.764836311, -0.148338258, 0.117947407, 1761.27856, -5078.00684, 1606.26501),
        (0.146514729, -0.146478519, 0.76530236, -0.609417558, -1846.77771, 5215.04639, 1491.97241),
        (0.583400846, -0.785316229, 0.145488232, -0.14749594, -1794.78967, -3722.698975, 1574.8927),
    ),
    "S5": (
        (0.146737725, -0.162370965, -0.7551893, 0.617893875, 2097.39160, 4880.94482, 1605.73242),
        (0.615975857, -0.762679219, -0.15728192, 0.118981503, 2031.70081, -5167.93311, 1612.9231),
        (0.142913714, -0.129078418, 0.767838478, -0.611014307, -1620.59485, 5171.65869, 1496.43701),
        (0.592047989, -0.781421781, 0.127474859, -0.150364175, -1637.17371, -3867.31738, 1547.0332),
    ),
    "S6": (
        (0.133789778, -0.156923965, -0.757109046, 0.619887948, 1935.45178, 4950.24561, 1618.08386),
        (0.614719748, -0.762881279, -0.161747679, 0.118192449, 1969.8040, -5128.73877, 1632.77881),
        (0.152994812, -0.135291308, 0.764609635, -0.611278117, -1769.59644, 5185.36133, 1476.99341),
        (0.591610134, -0.780477405, 0.128322706, -0.156159386, -1721.66870, -3884.13135, 1540.4879),
    ),
    "S7": (
        (0.143524185, -0.163133681, -0.754832864, 0.618882477, 1974.51294, 4926.35425, 1597.83264),
        (0.614167273, -0.763826251, -0.159664556, 0.117792994, 1937.05847, -5119.79004, 1631.56653),
        (0.1455006, -0.128748164, 0.76605165, -0.612713933, -1741.81116, 5208.24951, 1464.82459),
        (0.591284811, -0.782176435, 0.124454737, -0.151964873, -1734.71057, -3832.42139, 1548.5830),
    ),
    "S8": (
        (0.141105875, -0.155898675, -0.7561917305, 0.619644046, 2150.65186, 4896.16113, 1611.90466),
        (0.616960168, -0.764766812, -0.148463503, 0.111581579, 2219.96558, -5148.45312, 1613.04407),
        (0.147144407, -0.133771196, 0.767012835, -0.610036969, -1571.22156, 5137.01855, 1498.17615),
        (0.592782438, -0.782587051, 0.121478163, -0.146319956, -1476.91333, -3896.74121, 1547.972),
    ),
    "S9": (
        (0.155405879, -0.155482158, -0.753209531, 0.61995947, 2044.45850, 4935.11719, 1481.22754),
        (0.618784487, -0.763473511, -0.141322389, 0.119339682, 1990.95972, -5123.81055, 1568.80481),
        (0.133578271, -0.136710048, 0.768945456, -0.610073864, -1670.9922, 5211.98584, 1528.38794),
        (
            0.587939918,
            -0.782340705,
            0.142761439,
            -0.147948697,
            -1696.04346,
            -3827.09985,
            1591.41272,
        ),
    ),
    "S11": (
        (0.152324721, -0.154423207, -0.754756331, 0.619107008, 2098.44019, 4926.55469, 1500.27856),
        (0.618944943, -0.760091722, -0.15300633, 0.125525832, 2083.18237, -4912.17285, 1561.07861),
        (0.149432287, -0.156502277, 0.768123388, -0.602630436, -1609.81531, 5177.33594, 1537.89673),
        (0.589425147, -0.78188771, 0.139912114, -0.147153616, -1590.73804, -3854.16895, 1578.01758),
    ),
}

CAMERA_IDS: tuple[str, ...] = tuple(_INTRINSICS)
"""The cameras' numbers, in the order in which the 2D files list them."""


class Camera(NamedTuple):
    """One camera during one subject's recordings.

    Attributes:
        rotation: World axes (z up) to camera axes, `(3, 3)`.
        position: The camera's place in world axes, `(3,)` meters.
        focal: Mean focal length of the two axes, which differ by 0.2 % at most; pixels.
        center: Principal point, pixels.
        image_size: Width and height in pixels.
    """

    rotation: npt.NDArray[np.float64]
    position: npt.NDArray[np.float64]
    focal: float
    center: tuple[float, float]
    image_size: tuple[int, int]

    def from_world(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Bring world points `(..., 3)`, meters, into camera axes (x right, y down, z forward)."""
        moved: npt.NDArray[np.float64] = (points - self.position) @ self.rotation.T
        return moved


def h36m_camera(subject: str, camera: str) -> Camera:
    """Return a camera of Human3.6M.

    Args:
        subject: One of S1, S5, S6, S7, S8, S9 and S11; the others' are not published.
        camera: One of `CAMERA_IDS`.

    Raises:
        KeyError: If there is no such subject or camera.

    Example:
        >>> camera = h36m_camera("S9", "54138969")
        >>> camera.from_world(np.array([0.0, 0.0, 0.9])).round(1)
        array([-0.3, -0.4,  5.3])
    """
    width, height, focal_x, focal_y, center_x, center_y = _INTRINSICS[camera]
    *quaternion, x, y, z = _EXTRINSICS[subject][CAMERA_IDS.index(camera)]
    return Camera(
        rotation=_matrix(*quaternion).T,
        position=np.array([x, y, z]) / 1000,
        focal=(focal_x + focal_y) / 2,
        center=(center_x, center_y),
        image_size=(width, height),
    )


def _matrix(w: float, x: float, y: float, z: float) -> npt.NDArray[np.float64]:
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


H36M_TRAIN = ("S1", "S5", "S6", "S7", "S8")
"""The subjects that all protocols train on."""

H36M_TEST = ("S9", "S11")
"""The subjects that protocols 1 and 2 test on."""

H36M_ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases"),
    *("Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether"),
)
"""The 15 actions; each subject performs each of them twice."""

_OTHER_NAMES = {"TakingPhoto": "Photo", "WalkingDog": "WalkDog"}

# The joints that move, of the 32 that motion capture gives, in Human3.6M-17 order.
_MOVING = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)

_WHERE = (
    "make it with VideoPose3D's data/prepare_data_h36m.py from the archives of "
    "vision.imar.ro/human3.6m, which needs registration"
)
_WHERE_DETECTED = "VideoPose3D's DATASETS.md links the detections"


def read_h36m(
    folder: str | Path, *, subjects: Sequence[str] = H36M_TEST, detections: str = "gt"
) -> Iterator[PoseClip]:
    """Read Human3.6M from `data_3d_h36m.npz` and `data_2d_h36m_<detections>.npz`.

    Both files are pickles inside; only arrays and plain containers are read from them. They are
    read when this is called (some 600 MB stay in memory), the clips are made one by one: a subject,
    a recording, a camera. Motion is brought from the world into the camera's axes; keypoints in
    COCO's or MPII's order (`detectron_pt_coco`, `sh_pt_mpii`) become Human3.6M's, missing what
    they lack. Recordings whose 2D goes on longer than their motion are cut.

    Actions are merged: "Walking" and "Walking 1" are both "Walking". "Directions" of S11 is absent
    from the files, its video being damaged.

    Args:
        folder: The folder with the two files.
        subjects: Whose recordings to read: `H36M_TRAIN`, `H36M_TEST` or some of these.
        detections: Which 2D: `"gt"` projections, `"cpn_ft_h36m_dbb"`, or what else the folder has.

    Returns:
        An iterator over clips of `H36M_17`, at 50 Hz, all frames valid.

    Raises:
        InputError: If a file is missing, is not what it should be or holds other objects than
            arrays; if a subject, recording or camera is missing; or if a recording's shapes or
            numbers are wrong (while iterating).
    """
    folder = Path(folder)
    path_3d = folder / "data_3d_h36m.npz"
    path_2d = folder / f"data_2d_h36m_{detections}.npz"
    for subject in subjects:
        if subject not in (*H36M_TRAIN, *H36M_TEST):
            known = ", ".join((*H36M_TRAIN, *H36M_TEST))
            raise InputError(f"expected subjects of Human3.6M ({known}), got {subject!r}")
    motion = read_object_npz(path_3d, ("positions_3d",), where=_WHERE)["positions_3d"]
    where = _WHERE if detections == "gt" else _WHERE_DETECTED
    stored = read_object_npz(path_2d, ("positions_2d", "metadata"), where=where)
    skeleton = _layout(path_2d, stored["metadata"])
    keypoints = stored["positions_2d"]
    for path, value, key in (
        (path_3d, motion, "positions_3d"),
        (path_2d, keypoints, "positions_2d"),
    ):
        for subject in subjects:
            entries = _entry(path, value, key, subject)
            if not isinstance(entries, dict):
                got = type(entries).__name__
                raise InputError(f"{path}: expected {key}[{subject!r}] to be a dict, got {got}")

    def clips() -> Iterator[PoseClip]:
        for subject in subjects:
            for name, positions in motion[subject].items():
                action = _action(path_3d, subject, name)
                views = _entry(path_2d, keypoints[subject], f"positions_2d[{subject!r}]", name)
                label = f"{subject} {name}"
                world = _numbers(path_3d, label, positions, joints=(32, 17), axes=(3,))
                if world.shape[1] == 32:
                    world = world[:, _MOVING]
                if not isinstance(views, list | tuple | np.ndarray) or len(views) != 4:
                    count = len(views) if isinstance(views, list | tuple | np.ndarray) else views
                    raise InputError(
                        f"{path_2d}: expected 4 cameras for {label}, got "
                        f"{count if isinstance(count, int) else type(count).__name__}"
                    )
                for camera, view in zip(CAMERA_IDS, views, strict=True):
                    seen = _numbers(
                        *(path_2d, f"{label} {camera}", view),
                        joints=(skeleton.num_joints,),
                        axes=(2, 3),
                    )
                    if len(seen) < len(world):
                        raise InputError(
                            f"{path_2d}: expected at least {len(world)} frames for {label} "
                            f"{camera}, as many as {path_3d.name} has, got {len(seen)}"
                        )
                    yield _clip(subject, name, action, camera, world, seen[: len(world)], skeleton)

    return clips()


def _clip(
    subject: str,
    name: str,
    action: str,
    camera: str,
    world: npt.NDArray[np.floating],
    seen: npt.NDArray[np.floating],
    skeleton: Skeleton,
) -> PoseClip:
    view = h36m_camera(subject, camera)
    pixels = torch.from_numpy(seen[..., :2].astype(np.float32))
    level = None
    if seen.shape[-1] == 3:
        level = torch.from_numpy(seen[..., 2].astype(np.float32).clip(0, 1))
    p2d, confidence = convert_skeleton(pixels, skeleton, H36M_17, confidence=level)
    return PoseClip(
        sequence=f"{subject} {name} {camera}",
        subject=subject,
        skeleton=H36M_17,
        actions=(action,) * len(world),
        p2d=torch.where((confidence > 0)[..., None], p2d, torch.nan),
        confidence=confidence,
        p3d=torch.from_numpy(view.from_world(world).astype(np.float32)),
        focal=view.focal,
        center=view.center,
        image_size=view.image_size,
        frame=torch.arange(len(world)),
        valid=torch.ones(len(world), dtype=torch.bool),
    )


def _action(path: Path, subject: str, name: Any) -> str:
    """Take "Walking 1" for "Walking"."""
    stem = name.rsplit(" ", 1)[0] if isinstance(name, str) and name[-1:].isdecimal() else name
    action = _OTHER_NAMES.get(stem, stem)
    if action not in H36M_ACTIONS:
        raise InputError(
            f"{path}: expected recordings named after the actions {', '.join(H36M_ACTIONS)}, "
            f"got {short(repr(name))} of {subject}"
        )
    return action


def _layout(path: Path, metadata: Any) -> Skeleton:
    """Tell the joint set of the keypoints by which joints it says are left and right."""
    try:
        left, right = (tuple(map(int, side)) for side in metadata["keypoints_symmetry"])
        joints = int(metadata["num_joints"])
        # Longer numbers cannot even be shown.
        if not all(0 <= joint < 1000 for joint in (*left, *right, joints)):
            raise InputError("no numbers of joints")
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"{path}: expected metadata with num_joints and keypoints_symmetry (left and right)"
        ) from error
    for skeleton in (H36M_17, COCO_17, MPII_16):
        pairs = {(j, other) for j, other in enumerate(skeleton.mirror) if j != other}
        given = {*zip(left, right, strict=False), *zip(right, left, strict=False)}
        if joints == skeleton.num_joints and given == pairs:
            return skeleton
    raise InputError(
        f"{path}: expected the joints of h36m_17, coco_17 or mpii_16, "
        f"got {joints} joints of which {short(str(list(left)))} are left and "
        f"{short(str(list(right)))} right"
    )


def _entry(path: Path, value: Any, name: str, key: str) -> Any:
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected {name} to be a dict, got {type(value).__name__}")
    if key not in value:
        known = short(", ".join(map(str, list(value)[:8]))) or "nothing"
        raise InputError(f"{path}: expected {short(repr(key))} in {name}, got {known}")
    return value[key]


def _numbers(
    path: Path, label: str, value: Any, *, joints: tuple[int, ...], axes: tuple[int, ...]
) -> npt.NDArray[np.floating]:
    expected = (
        f"numbers of shape (frames, {' or '.join(map(str, joints))}, "
        f"{' or '.join(map(str, axes))}) for {label}"
    )
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise InputError(f"{path}: expected {expected}, got {got}")
    if value.ndim != 3 or value.shape[1] not in joints or value.shape[2] not in axes:
        raise InputError(f"{path}: expected {expected}, got {value.shape}")
    if (np.abs(value) > np.finfo(np.float32).max).any() or (axes == (3,) and np.isnan(value).any()):
        raise InputError(f"{path}: expected finite {expected}, got NaN or infinite ones")
    return value
