"""The cameras of Human3.6M: 4 of them, calibrated anew for each of 7 subjects.

Facts of the data set as VideoPose3D tabulates them (github.com/facebookresearch/VideoPose3D,
`common/h36m_dataset.py`). The lens distortion that it lists beside them, some pixels at the
image's rim, is left out.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["CAMERA_IDS", "Camera", "h36m_camera"]

# Width, height, focal length x and y, principal point x and y; pixels.
_INTRINSICS: dict[str, tuple[int, int, float, float, float, float]] = {
    "54138969": (1000, 1002, 1145.04944, 1143.78113, 512.541504, 515.451477),
    "55011271": (1000, 1000, 1149.67566, 1147.59167, 508.848633, 508.064911),
    "58860488": (1000, 1000, 1149.14075, 1148.79895, 519.815857, 501.402649),
    "60457274": (1000, 1002, 1145.51135, 1144.77392, 514.968201, 501.882019),
}

# Rotation from camera to world axes as a quaternion w, x, y, z, and the camera's place in
# millimetres of the world's axes (z up); one row for each camera, in the order above.
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
        position: The camera's place in world axes, `(3,)` metres.
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
        """Bring world points `(..., 3)`, metres, into camera axes (x right, y down, z forward)."""
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
