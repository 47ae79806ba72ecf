"""AMASS: motion as poses of SMPL-H and SMPL-X."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError, short
from ..geometry.rotations import matrix_from_axis_angle
from .archives import DAMAGE, check_archive, check_text, quiet_numpy
from .files import open_file

__all__ = ["AmassMotion", "read_amass"]

_MODELS = {72: "smpl", 156: "smplh", 165: "smplx"}
_BODY = 22
_RATES = ("mocap_framerate", "mocap_frame_rate")


@dataclass(frozen=True, eq=False)
class AmassMotion:
    """One recording of T frames.

    Attributes:
        theta: Local rotations `(T, 24, 3, 3)`, float32, in the order of `SMPL_24`, z up. From
            SMPL-H and SMPL-X come the 22 joints that they share with SMPL; hands stay at rest.
        poses: All joints of the file's body model, axis-angle `(T, K, 3)`, float32, radians; K is
            24, 52 or 55.
        model: `"smpl"`, `"smplh"` or `"smplx"`, told from the number of joints.
        betas: The file's shape coefficients `(B,)`, float32, of its body model and gender.
        translation: `(T, 3)`, float32, meters, z up.
        gender: `"female"`, `"male"` or `"neutral"`.
        frame_rate: Frames a second.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/walk.npz", poses=np.zeros((240, 156)), trans=np.zeros((240, 3)),
        ...         betas=np.zeros(16), gender="female", mocap_framerate=120.0)
        ...     motion = read_amass(f"{folder}/walk.npz")
        >>> f"{len(motion) / motion.frame_rate} s of {motion.model}", motion.theta.shape
        ('2.0 s of smplh', torch.Size([240, 24, 3, 3]))
    """

    theta: Tensor
    poses: Tensor
    model: str
    betas: Tensor
    translation: Tensor
    gender: str
    frame_rate: float

    def __len__(self) -> int:
        return len(self.theta)


def read_amass(path: str | Path) -> AmassMotion:
    """Read a recording of AMASS (amass.is.tue.mpg.de, which asks for registration).

    Args:
        path: An `.npz` with `poses` of shape (T, 72), (T, 156) or (T, 165), `trans`, `betas`,
            `gender` and `mocap_framerate` or `mocap_frame_rate`. No pickle is read.

    Returns:
        The recording.

    Raises:
        InputError: If the file is missing, broken or of another kind, such as AMASS's `shape.npz`;
            if an array holds objects, NaN, or has another shape.

    Example:
        >>> import tempfile
        >>> from propose_prob.bodies import SkeletonBody
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/walk.npz", poses=np.zeros((5, 72)), trans=np.zeros((5, 3)),
        ...         betas=np.zeros(10), gender="neutral", mocap_framerate=60.0)
        ...     motion = read_amass(f"{folder}/walk.npz")
        >>> posed = SkeletonBody()(motion.theta)
        >>> (posed.joints + motion.translation[:, None]).shape
        torch.Size([5, 24, 3])
    """
    path = Path(path)
    needed = ("poses", "trans", "betas", "gender")
    arrays = read_arrays(path, needed, optional=_RATES)
    poses = real(path, "poses", arrays["poses"])
    if poses.ndim != 2 or poses.shape[1] not in _MODELS or not len(poses):
        raise InputError(
            f"{path}: expected poses of shape (T, 72), (T, 156) or (T, 165), got {poses.shape}"
        )
    translation = real(path, "trans", arrays["trans"], (len(poses), 3))
    betas = real(path, "betas", arrays["betas"])
    if betas.ndim != 1:
        raise InputError(f"{path}: expected betas of shape (B,), got {betas.shape}")
    rates = [arrays[name] for name in _RATES if name in arrays]
    if not rates:
        raise InputError(f"{path}: expected {' or '.join(_RATES)}, got neither")
    rate = float(real(path, "the frame rate", rates[0].reshape(-1), (1,))[0])
    if rate <= 0:
        raise InputError(f"{path}: expected a frame rate above 0, got {rate:g}")
    gender = words(path, "gender", arrays["gender"].reshape(-1))
    if len(gender) != 1 or gender[0].lower() not in ("female", "male", "neutral"):
        raise InputError(
            f"{path}: expected gender female, male or neutral, got {short(str(gender[:3]))}"
        )
    axis_angle = torch.from_numpy(poses).unflatten(-1, (-1, 3))
    return AmassMotion(
        theta=body_rotations(axis_angle),
        poses=axis_angle,
        model=_MODELS[poses.shape[1]],
        betas=torch.from_numpy(betas),
        translation=torch.from_numpy(translation),
        gender=gender[0].lower(),
        frame_rate=rate,
    )


def body_rotations(axis_angle: Tensor) -> Tensor:
    """Give the rotations `(T, 24, 3, 3)` of SMPL's joints from `(T, K, 3)` of 24, 52 or 55."""
    theta = torch.eye(3).repeat(len(axis_angle), 24, 1, 1)
    shared = 24 if axis_angle.shape[1] == 24 else _BODY
    theta[:, :shared] = matrix_from_axis_angle(axis_angle[:, :shared].double()).float()
    return theta


def read_arrays(
    path: Path, needed: Sequence[str], *, optional: Sequence[str] = ()
) -> dict[str, npt.NDArray[np.generic]]:
    """Read some arrays of an `.npz` without unpickling anything.

    Raises:
        InputError: If the file is missing or broken, or an array is missing or holds objects.
    """
    try:
        with open_file(path) as file:
            if not zipfile.is_zipfile(file):
                file.seek(0)
                got = "a single array" if file.read(6) == b"\x93NUMPY" else "another file"
                raise InputError(f"{path}: expected a complete .npz of plain arrays, got {got}")
            check_archive(file, path)
            with quiet_numpy():
                archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: expected an .npz, got a single array")
            missing = [name for name in needed if name not in archive.files]
            if missing:
                raise InputError(
                    f"{path}: expected {', '.join(needed)}, found no {', '.join(missing)} among "
                    f"{short(', '.join(archive.files)) or 'no arrays'}"
                )
            wanted = [*needed, *(name for name in optional if name in archive.files)]
            with quiet_numpy():
                return {name: _member(path, archive, name) for name in wanted}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except DAMAGE as error:
        raise InputError(
            f"{path}: expected a complete .npz of plain arrays: {short(str(error))}"
        ) from error


def _member(path: Path, archive: np.lib.npyio.NpzFile, name: str) -> npt.NDArray[np.generic]:
    try:
        array = archive[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        raise InputError(
            f"{path}: array {name!r} holds pickled objects, which are not read; store it again "
            f"as plain numbers or text"
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: expected array {name!r}, got another file")
    check_text(path, name, array)
    return array


def real(
    path: Path, name: str, array: npt.NDArray[np.generic], shape: tuple[int, ...] | None = None
) -> npt.NDArray[np.float32]:
    """Check an array of finite numbers and give it as float32.

    Raises:
        InputError: If it has other values or another shape than `shape`.
    """
    if shape is not None and array.shape != shape:
        raise InputError(f"{path}: expected {name} of shape {shape}, got {array.shape}")
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path}: expected numbers in {name}, got {array.dtype}")
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    if not np.isfinite(numbers).all():
        rows = np.argwhere(~np.isfinite(numbers))[0].tolist()
        raise InputError(
            f"{path}: expected finite numbers in {name}, got one at {rows} that is not"
        )
    return numbers


def words(path: Path, name: str, array: npt.NDArray[np.generic]) -> list[str]:
    """Give an array of text or bytes as strings.

    Raises:
        InputError: If it holds something else.
    """
    if array.dtype.kind == "U":
        return [str(word) for word in array]
    if array.dtype.kind == "S":
        return [bytes(word).decode("utf-8", "replace") for word in array]
    raise InputError(f"{path}: expected text in {name}, got {array.dtype}")
