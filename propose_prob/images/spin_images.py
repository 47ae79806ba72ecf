"""Training sets in SPIN's format, with their images."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from ..bodies import Body, MeshBody
from ..datasets.spin import SpinDataset, read_spin
from ..errors import InputError, short
from ..io.files import check_name, open_file
from .crops import crop_boxes
from .sources import ImageBatch

__all__ = ["SpinSource", "read_image"]

#: Human3.6M-17 among SPIN's 24 further joints.
_FURTHER = (14, 2, 1, 0, 3, 4, 5, 16, 15, 17, 18, 9, 10, 11, 8, 7, 6)
#: The same among BODY_25's, -1 where it has none. Its neck is the middle of the shoulders.
_OPENPOSE = (8, 9, 10, 11, 12, 13, 14, -1, 1, -1, -1, 5, 6, 7, 2, 3, 4)
_OPENPOSE_JOINTS = 25
#: More than cameras of today take; a picture of some kilobytes may unpack to gigabytes.
_PIXELS = 64_000_000
#: Progressive pictures come in some ten scans. Each goes over all pixels, and may be a few bytes.
_SCANS = 100

#: What photographs come in. Pillow knows more, of which one runs another program.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
#: Of a segment of a JPEG; those with 0 stand for a byte of data.
_MARKER = re.compile(rb"\xff([\x01-\xfe])")
#: Focal length that such sets are read with, in sides of the crop: SPIN's 5000 pixels for 224.
_FOCAL = 5000 / 224


class SpinSource:
    """People of a training set in SPIN's format, cut out of their images as they are asked for.

    The keypoints are Human3.6M-17 joints: annotated ones of SPIN's 24 where there are, else
    OpenPose's. Bodies count where rotations and shape are both annotated; their joints are the
    body's own. As in SPIN, orientations are taken to be those that the crop's camera sees, with a
    focal length of 5000 pixels for crops of 224.

    Args:
        data: The set.
        folder: Folder that the names of its images start from.
        body: Whose rotations and shapes the set annotates.
        size: Side of the crops, pixels.
    """

    def __init__(self, data: SpinDataset, folder: Path, *, body: Body, size: int) -> None:
        self.data = data
        self.folder = folder
        self.body = body.only("h36m_17") if isinstance(body, MeshBody) else body
        self.size = size
        further, openpose = torch.tensor(_FURTHER), torch.tensor(_OPENPOSE)
        own = data.confidence_2d[:, _OPENPOSE_JOINTS + further] > 0
        found = (data.confidence_2d[:, openpose.clamp(min=0)] > 0) & (openpose >= 0)
        self.keypoints = torch.where(
            own[..., None],
            data.keypoints_2d[:, _OPENPOSE_JOINTS + further],
            data.keypoints_2d[:, openpose.clamp(min=0)],
        )
        self.visible = own | found
        self.has_body = data.has_theta & data.has_betas

    @classmethod
    def read(cls, path: Path, folder: Path, *, body: Body, size: int) -> SpinSource:
        """Reads an `.npz` file, or all of a folder's as one set.

        Args:
            path: The file or folder.
            folder: See `SpinSource`.
            body: See `SpinSource`.
            size: See `SpinSource`.

        Raises:
            InputError: If there is no file, one cannot be read, or an image is missing.
        """
        files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path}: expected .npz files in SPIN's format, found none")
        data = _joined([read_spin(file) for file in files])
        for name in sorted(set(data.images)):
            check_name(path, "image", name)
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise InputError(f"{path}: expected images in {folder}, got {short(name)}")
            if not (folder / name).is_file():
                raise InputError(f"{folder}: expected the image {short(name)} that {path} names")
        return cls(data, folder, body=body, size=size)

    def __len__(self) -> int:
        return len(self.data)

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> ImageBatch:
        """The people of some rows `(B,)`.

        Raises:
            InputError: If an image cannot be read.
        """
        rows = rows.cpu()
        data, size = self.data, self.size
        images, keypoints = [], []
        for row in rows.tolist():
            half = 0.5 * data.size[row]
            box = torch.cat([data.center[row] - half, data.center[row] + half])
            crop = crop_boxes(
                read_image(self.folder / data.images[row]), box[None], size=size, margin=1.0
            )
            images.append(crop.images[0])
            keypoints.append(crop.to_crop(self.keypoints[row][None])[0])
        points = torch.stack(keypoints)
        inside = ((points > 0) & (points < size)).all(-1)
        theta, shape = data.theta[rows], data.betas[rows]
        return ImageBatch(
            images=torch.stack(images),
            keypoints=points,
            visible=self.visible[rows] & inside,
            focal=torch.full((len(rows),), _FOCAL * size),
            theta=theta,
            shape=shape,
            joints=self.body.regress(self.body(theta, shape)),
            has_body=self.has_body[rows],
        )


def read_image(path: str | Path) -> Tensor:
    """An image file as `(3, H, W)`, RGB, uint8, turned as its camera says.

    Raises:
        InputError: If it is missing, not an image, or Pillow (the extra `images`) is not installed.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise InputError(
            f"{path}: reading images needs Pillow, which is not installed: "
            "pip install 'propose_prob[images]'"
        ) from None
    try:
        # Pillow warns of what is wrong in a file and reads it all the same, or raises.
        with open_file(Path(path)) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_FORMATS) as image:
                wide, high = image.size
                if wide * high > _PIXELS:
                    raise InputError(
                        f"{path}: expected an image of up to {_PIXELS} pixels, got {wide} x {high}"
                    )
                if image.format in ("JPEG", "MPO") and (scans := _scans(file)) > _SCANS:
                    raise InputError(
                        f"{path}: expected an image of up to {_SCANS} scans, got {scans}"
                    )
                ImageOps.exif_transpose(image, in_place=True)
                pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except UnidentifiedImageError:
        raise InputError(f"{path}: expected an image") from None
    except InputError:
        raise
    # Pillow does not say what it raises on damaged files, of whose EXIF data least of all.
    except Exception as error:
        raise InputError(f"{path}: cannot be read ({short(str(error))})") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _scans(file: IO[bytes]) -> int:
    """How many scans a JPEG has; the file stands where it stood."""
    before = file.tell()
    file.seek(0)
    content, place, scans = file.read(), 2, 0
    file.seek(before)
    # As decoders do it: whatever lies between segments is passed over.
    while (found := _MARKER.search(content, place)) and found[1] != b"\xd9":
        scans += found[1] == b"\xda"
        place = found.end()
        if not b"\xd0" <= found[1] <= b"\xd8" and found[1] != b"\x01":
            place += max(2, int.from_bytes(content[place : place + 2], "big"))
    return scans


def _joined(parts: list[SpinDataset]) -> SpinDataset:
    if len(parts) == 1:
        return parts[0]
    names = ("images", "gender")
    tensors = [n for n in SpinDataset.__dataclass_fields__ if n not in names]
    return SpinDataset(
        images=tuple(name for part in parts for name in part.images),
        gender=tuple(gender for part in parts for gender in part.gender),
        **{name: torch.cat([getattr(part, name) for part in parts]) for name in tensors},
    )
