"""Rotation representations: matrices, 6D, axis-angle, quaternions.

Everything takes any batch shape, keeps dtype and device, and works under `torch.func`. roma is
imported on first use: that takes as long as importing torch.
"""

import torch
from torch import Tensor

from ..errors import InputError

__all__ = [
    "axis_angle_from_matrix",
    "geodesic_distance",
    "matrix_from_6d",
    "matrix_from_axis_angle",
    "matrix_from_quaternion",
    "quaternion_from_matrix",
    "sixd_from_matrix",
]

_TINY = 1e-12
_ORDERS = ("wxyz", "xyzw")


def matrix_from_6d(x: Tensor) -> Tensor:
    """Turn 6D numbers into rotation matrices by Gram-Schmidt.

    The 6D numbers are the first two columns of the matrix, each contiguous (Zhou et al., "On the
    Continuity of Rotation Representations in Neural Networks", CVPR 2019, eq. 14-15). Many 6D
    numbers give the same matrix.

    A zero or parallel column does not determine a rotation. Such inputs give a rotation all the
    same, with an axis in place of the missing direction and zero gradient through it, so that
    neither the result nor its gradient is infinite or NaN.

    Args:
        x: 6D numbers, `(..., 6)`, floating point.

    Returns:
        Rotation matrices `(..., 3, 3)`.

    Raises:
        InputError: If the last dimension is not 6 or the numbers are not floating point.

    Example:
        >>> matrix_from_6d(torch.tensor([2.0, 0.0, 0.0, 5.0, 0.0, 3.0]))
        tensor([[ 1.,  0.,  0.],
                [ 0.,  0., -1.],
                [ 0.,  1.,  0.]])
    """
    _check(x, (6,), "6D numbers")
    first, second = x[..., :3], x[..., 3:]
    first = _unit(first, torch.eye(3, dtype=x.dtype, device=x.device)[0], _norm(first) <= _TINY)
    across = _reject(second, first)
    # Rounding leaves about eps of a parallel column: direction below a few eps is noise.
    limit = 16 * torch.finfo(x.dtype).eps * _norm(second) + _TINY
    across = _unit(across, _orthogonal(first), _norm(across) <= limit)
    # Once more, because the first rejection loses digits where the columns are nearly parallel.
    across = _reject(across, first)
    across = across / _norm(across)
    return torch.stack([first, across, torch.linalg.cross(first, across)], dim=-1)


def sixd_from_matrix(matrix: Tensor) -> Tensor:
    """Give the first two columns of rotation matrices, each contiguous.

    Args:
        matrix: Rotation matrices, `(..., 3, 3)`.

    Returns:
        6D numbers `(..., 6)`, which `matrix_from_6d` turns back into the same matrix.

    Raises:
        InputError: If the last dimensions are not (3, 3) or the matrix is not floating point.

    Example:
        >>> sixd_from_matrix(torch.eye(3))
        tensor([1., 0., 0., 0., 1., 0.])
    """
    _check(matrix, (3, 3), "rotation matrices")
    return matrix[..., :2].transpose(-1, -2).flatten(start_dim=-2)


def matrix_from_axis_angle(axis_angle: Tensor) -> Tensor:
    """Turn axis times angle (a rotation vector) into rotation matrices.

    Args:
        axis_angle: Rotation vectors, `(..., 3)`, radians.

    Returns:
        Rotation matrices `(..., 3, 3)`.

    Raises:
        InputError: If the last dimension is not 3 or the numbers are not floating point.

    Example:
        >>> matrix_from_axis_angle(torch.zeros(3)).diagonal()
        tensor([1., 1., 1.])
    """
    _check(axis_angle, (3,), "rotation vectors")
    import roma

    return roma.rotvec_to_rotmat(axis_angle)


def axis_angle_from_matrix(matrix: Tensor) -> Tensor:
    """Give rotation vectors of angles between 0 and pi.

    Args:
        matrix: Rotation matrices, `(..., 3, 3)`.

    Returns:
        Rotation vectors `(..., 3)`, radians. At an angle of pi both signs of the axis mean the
        same rotation and one of them is returned.

    Raises:
        InputError: If the last dimensions are not (3, 3) or the matrix is not floating point.

    Example:
        >>> axis_angle_from_matrix(matrix_from_axis_angle(torch.tensor([0.0, 0.5, 0.0])))
        tensor([0.0000, 0.5000, 0.0000])
    """
    _check(matrix, (3, 3), "rotation matrices")
    import roma

    return roma.rotmat_to_rotvec(matrix)


def matrix_from_quaternion(quaternion: Tensor, order: str = "wxyz") -> Tensor:
    """Turn quaternions into rotation matrices.

    Args:
        quaternion: Quaternions of any length but zero, `(..., 4)`. The zero quaternion is no
            rotation and gives NaN.
        order: `"wxyz"`, real part first, or `"xyzw"`, real part last.

    Returns:
        Rotation matrices `(..., 3, 3)`.

    Raises:
        InputError: If the last dimension is not 4, the numbers are not floating point, or the
            order is neither.

    Example:
        >>> matrix_from_quaternion(torch.tensor([2.0, 0.0, 0.0, 0.0])).diagonal()
        tensor([1., 1., 1.])
    """
    _check(quaternion, (4,), "quaternions")
    if _real_first(order):
        quaternion = quaternion.roll(-1, dims=-1)
    import roma

    return roma.unitquat_to_rotmat(
        quaternion / torch.linalg.vector_norm(quaternion, dim=-1)[..., None]
    )


def quaternion_from_matrix(matrix: Tensor, order: str = "wxyz") -> Tensor:
    """Give unit quaternions of rotation matrices, with a real part that is not negative.

    Args:
        matrix: Rotation matrices, `(..., 3, 3)`.
        order: `"wxyz"`, real part first, or `"xyzw"`, real part last.

    Returns:
        Unit quaternions `(..., 4)`.

    Raises:
        InputError: If the last dimensions are not (3, 3), the matrix is not floating point, or the
            order is neither.

    Example:
        >>> quaternion_from_matrix(torch.eye(3))
        tensor([1., 0., 0., 0.])
    """
    _check(matrix, (3, 3), "rotation matrices")
    real_first = _real_first(order)
    import roma

    quaternion = roma.rotmat_to_unitquat(matrix)
    quaternion = torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)
    return quaternion.roll(1, dims=-1) if real_first else quaternion


def nearest_rotation(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Project matrices onto rotations: the nearest one in the Frobenius norm (Kabsch, Umeyama).

    Of a cross-covariance it is the rotation of the best alignment, of a mean of rotations their
    chordal mean.

    Args:
        matrix: `(..., n, n)`, n = 2 or 3.

    Returns:
        Proper rotations `(..., n, n)`, and the singular values `(..., n)`, the last one negative
        where a reflection would have been nearer.

    Example:
        >>> rotation, _ = nearest_rotation(2.0 * torch.eye(3))
        >>> torch.equal(rotation, torch.eye(3))
        True
    """
    import roma

    return roma.special_procrustes(matrix, return_singular_values=True)


def geodesic_distance(first: Tensor, second: Tensor) -> Tensor:
    """Measure the angle of the rotation between two rotations.

    Sine and cosine of the angle together keep it accurate near 0 and near pi, where the arc cosine
    of the trace loses half the digits and its gradient is infinite.

    Args:
        first: Rotation matrices, `(..., 3, 3)`.
        second: Rotation matrices that broadcast against `first`.

    Returns:
        Angles `(...)` between 0 and pi, radians. The gradient at 0 and at pi is zero.

    Raises:
        InputError: If the last dimensions are not (3, 3) or a matrix is not floating point.

    Example:
        >>> turned = matrix_from_axis_angle(torch.tensor([0.0, 0.5, 0.0]))
        >>> geodesic_distance(torch.eye(3), turned)
        tensor(0.5000)
    """
    _check(first, (3, 3), "rotation matrices")
    _check(second, (3, 3), "rotation matrices")
    between = first.transpose(-1, -2) @ second
    twist = between - between.transpose(-1, -2)
    axis = torch.stack([twist[..., 2, 1], twist[..., 0, 2], twist[..., 1, 0]], dim=-1)
    trace = between.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return torch.atan2(_norm(axis)[..., 0], trace - 1)


def _check(x: Tensor, event: tuple[int, ...], name: str) -> None:
    if tuple(x.shape[-len(event) :]) != event:
        wanted = ", ".join(map(str, event))
        raise InputError(f"expected {name} of shape (..., {wanted}), got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise InputError(f"expected floating-point {name}, got {x.dtype}")


def _real_first(order: str) -> bool:
    if order not in _ORDERS:
        raise InputError(f"expected the quaternion order {' or '.join(_ORDERS)}, got {order!r}")
    return order == "wxyz"


def _norm(x: Tensor) -> Tensor:
    """Length over the last dimension, kept; its derivative at zero is zero in every mode."""
    square = x.square().sum(dim=-1, keepdim=True)
    zero = square == 0
    return torch.where(zero, square, torch.where(zero, torch.ones_like(square), square).sqrt())


def _unit(x: Tensor, fallback: Tensor, degenerate: Tensor) -> Tensor:
    """Scale to unit length; `fallback` where `degenerate`. NaN is not degenerate and stays NaN."""
    length = torch.where(degenerate, torch.ones_like(x[..., :1]), _norm(x))
    return torch.where(degenerate, fallback, x / length)


def _reject(x: Tensor, direction: Tensor) -> Tensor:
    """Take away the part of `x` along a unit direction."""
    return x - (x * direction).sum(dim=-1, keepdim=True) * direction


def _orthogonal(x: Tensor) -> Tensor:
    """Give a unit vector at right angles to the unit vectors `x`."""
    axes = torch.eye(3, dtype=x.dtype, device=x.device)
    # Whichever axis this takes is at least 45 degrees away from x.
    axis = torch.where(x[..., :1].abs() < 0.7, axes[0], axes[1])
    across = _reject(axis, x)
    return across / _norm(across)
