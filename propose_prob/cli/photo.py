"""`propose-prob photo`: distribution over the body in a photograph, and a fit to keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from .._shipped import shipped_file
from ..devices import set_threads
from ..errors import InputError
from ..io.atomic import atomic_file, check_outputs
from .demo import _CREDIT, _DETECTED_SIZE, _DETECTION, _PHOTO
from .options import at_least, prepare_drawing
from .output import tell
from .tracks import check_intrinsics

if TYPE_CHECKING:
    from torch import Tensor

    from ..images.crops import Crops
    from ..images.overlay import PhotoContent
    from ..io.keypoints import Keypoints

__all__ = ["Photo"]

#: Focal length in image heights where none is given: a body has to stand somewhere to be drawn.
_FOCAL = 1.2
#: Sides of the photo that keypoints and principal points may lie apart, and focal lengths reach.
_FAR = 100


@dataclass(frozen=True)
class Photo:
    """Fit the open body to a person on a photograph, with the image's own distribution as prior.

    Crops the person, asks a model of images for the distribution over the body's pose, fits that
    distribution to the keypoints, and draws both over the photo (PNG). Without arguments it takes
    the photo and the OpenPose detection that ship with the package. The shipped model has seen
    renders only: on photographs it is a demonstration.

    Attributes:
        photo: An image file.
        keypoints: 2D keypoints of the person, as of lift; the first person counts.
        out: PNG to write.
        model: Name of a shipped model of images or path of a .safetensors file.
        image_size: Width and height of the image that the keypoints belong to, where the photo was
            resized since.
        focal: Focal length in pixels of the photo; 1.2 image heights by default.
        center: Principal point in pixels of the photo; its middle by default.
        margin: Side of the crop over that of the keypoints' box.
        samples: Draws of the distribution to show.
        threads: CPU threads.
        seed: Of the draws.
    """

    photo: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    keypoints: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    out: Path = Path("photo.png")
    model: str = "prohmr-image-cmu17"
    image_size: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="W H")] = None
    focal: Annotated[float | None, tyro.conf.arg(metavar="F")] = None
    center: Annotated[tuple[float, float] | None, tyro.conf.arg(metavar="X Y")] = None
    margin: float = 1.3
    samples: int = 30
    threads: int = 1
    seed: int = 0

    def run(self) -> None:
        """Fit and draw.

        Raises:
            InputError: If an option or a file is not as expected; nothing is written then.
        """
        import torch

        from ..bodies import load_open_body
        from ..geometry.rotations import matrix_from_6d
        from ..images.crops import crop_keypoints, normalize_image
        from ..images.overlay import PhotoContent, photo_figure
        from ..tasks import fit

        prepare_drawing()
        if (self.photo is None) != (self.keypoints is None):
            raise InputError("expected --photo and --keypoints together, or neither")
        check_intrinsics(self.focal, self.center)
        at_least(self.samples, 1, "--samples")
        if not 0.1 <= self.margin <= 100:
            raise InputError(f"expected --margin of 0.1 to 100, got {self.margin}")
        set_threads(self.threads)
        at_least(self.seed, 0, "--seed")
        check_outputs([self.out], [self.photo, self.keypoints, self.model])
        image, frame, scale, credit = self._input()
        height, width = image.shape[1:]
        focal = self.focal or _FOCAL * height
        center = self.center or (0.5 * width, 0.5 * height)
        model, body = self._model(), load_open_body()
        joint_set = frame.skeleton.name
        if joint_set not in body.regressors or body.faces is None:
            raise InputError(
                f"the body cannot give the joint set {joint_set!r}; it has "
                f"{', '.join(body.regressors)}"
            )
        p2d, confidence = frame.p2d[:1] * torch.tensor(scale), frame.confidence[:1]
        self._check_pixels(p2d[confidence > 0], focal, center, max(height, width))
        crop = crop_keypoints(image, p2d, confidence, size=model.config.image, margin=self.margin)
        torch.manual_seed(self.seed)
        with torch.no_grad():
            estimate = model.estimate_images(
                normalize_image(crop.images),
                middle=crop.middle,
                side=crop.side,
                focal=focal,
                center=center,
            )
            shape, place = estimate.shape[0], estimate.translation[0]
            mode = body(matrix_from_6d(estimate.distribution.mode[0]), shape, place).vertices
            theta = matrix_from_6d(estimate.distribution.sample((self.samples,))[:, 0])
            light = body.only("h36m_17")
            draws = light.regress(light(theta, shape.expand(len(theta), -1), place))
        fitted = fit(
            estimate.distribution,
            p2d,
            confidence,
            body=body,
            start=estimate,
            joint_set=joint_set,
            focal=focal,
            center=center,
            surface=True,
        )
        if mode is None or fitted.vertices is None:
            raise InputError("expected a body with a surface")
        content = PhotoContent(
            image=image.permute(1, 2, 0).numpy(),
            p2d=p2d[0],
            seen=confidence[0] > 0,
            box=(crop.middle[0], float(crop.side[0])),
            focal=focal,
            center=center,
            faces=body.faces,
            mode=mode,
            draws=draws,
            fitted=fitted.vertices[0],
            credit=credit,
        )
        self._tell(content, crop, joint_set, fitted.projected[0])
        with atomic_file(self.out) as file:
            photo_figure(content).savefig(file, format="png", dpi=110)
        tell(f"picture     {self.out}")

    def _check_pixels(
        self, seen: Tensor, focal: float, center: tuple[float, float], side: int
    ) -> None:
        """Refuse numbers that belong to another image, before they exceed what can be drawn."""
        most = float(seen.abs().max()) if len(seen) else 0.0
        if not most <= _FAR * side:
            raise InputError(
                f"{self.keypoints}: expected keypoints near the photo of {side} pixels, got "
                f"{most:.3g}; where it was resized, --image-size is what the keypoints belong to"
            )
        if not side / _FAR <= focal <= _FAR * side or not max(map(abs, center)) <= _FAR * side:
            raise InputError(
                f"expected --focal of {side / _FAR:g} to {_FAR * side:g} pixels and --center of at "
                f"most {_FAR * side:g} for this photo, got {focal:.3g} and "
                f"({center[0]:.3g}, {center[1]:.3g})"
            )

    def _tell(self, content: PhotoContent, crop: Crops, joint_set: str, projected: Tensor) -> None:
        seen = content.seen
        error = (projected - content.p2d).norm(dim=-1)[seen]
        x, y = crop.middle[0].tolist()
        tell(
            f"keypoints   {joint_set}, {int(seen.sum())} of {len(seen)} seen",
            f"crop        {float(crop.side[0]):.0f} pixels about ({x:.0f}, {y:.0f})",
            f"camera      focal length {content.focal:.0f} pixels"
            f"{'' if self.focal else ', assumed'}",
            f"fit         keypoints met to {float(error.median()):.1f} pixels (median)",
        )

    def _model(self) -> Any:
        from ..models import ProHMR
        from ..weights import load

        model = load(self.model)
        if not isinstance(model, ProHMR) or model.config.encoder != "image":
            raise InputError(f"{self.model} does not read images: expected prohmr-image-cmu17")
        return model

    def _input(self) -> tuple[Tensor, Keypoints, tuple[float, float], str]:
        """Image `(3, H, W)`, keypoints, pixels of the image a pixel of theirs, and the credit."""
        from ..images.spin_images import read_image
        from ..io.keypoints import read_keypoints

        if self.photo is not None and self.keypoints is not None:
            image = read_image(self.photo)
            frame = next(iter(read_keypoints(self.keypoints)), None)
            if frame is None:
                raise InputError(f"{self.keypoints}: expected keypoints of a person, found none")
            size = self.image_size or (image.shape[2], image.shape[1])
            return image, frame, (image.shape[2] / size[0], image.shape[1] / size[1]), ""
        image = read_image(shipped_file(f"assets/{_PHOTO}"))
        frame = next(read_keypoints(shipped_file(f"assets/{_DETECTION}")))
        wide, high = _DETECTED_SIZE
        return image, frame, (image.shape[2] / wide, image.shape[1] / high), _CREDIT
