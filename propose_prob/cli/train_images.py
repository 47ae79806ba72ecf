"""Training from images: `propose-prob train image`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..bodies import Body, load_open_body, load_smpl
from ..errors import InputError
from ..images.encoder import ImageEncoder
from ..images.render_set import load_renders
from ..images.resnet import load_backbone
from ..images.sources import ImageSource, RenderSource
from ..images.spin_images import SpinSource
from ..images.training import (
    FrozenBackboneTrainer,
    ImageTrainConfig,
    ImageTrainer,
    ImageValidation,
    copy_flow_from,
)
from ..models.prohmr import ProHMR
from ..weights.store import load
from .train import TrainCommand


@dataclass(frozen=True)
class TrainOnImages(TrainCommand):
    """A model of bodies, on people in images.

    `--data` is a folder of renders (`propose-prob render`), or an `.npz` file in SPIN's or
    ProHMR's format, or a folder of such files, with `--images`, `--body` and `--validation`.

    Attributes:
        images: Folder that the image names in SPIN's files start from.
        body: `open`, or an SMPL file; the body that the data's rotations and shapes belong to.
        backbone: Trained weights of the residual network to begin with: ImageNet's, HMR's, SPIN's.
        distribution: Keypoint model whose flow takes the place of the one of --init, and whose
            contexts are learned first where the configuration says `distil`: a shipped one, or a
            file.
    """

    images: Path | None = None
    body: str = "open"
    backbone: Path | None = None
    distribution: str | None = None

    def inputs(self) -> list[Path | str | None]:
        """Those of every training, images, the body and weights to begin with."""
        return [*super().inputs(), self.images, self.body, self.backbone, self.distribution]

    def sources(self, config: ImageTrainConfig) -> tuple[ImageSource, ImageValidation]:
        """People in images, and held-out ones."""
        return self._sources(config)[:2]

    def trainer(self, config: ImageTrainConfig) -> tuple[ImageTrainer, ImageValidation]:
        """The training of all of a new model, or of what follows its image network."""
        source, validation, body = self._sources(config)
        model = self.model(config)
        if self.backbone is not None and isinstance(model.encoder, ImageEncoder):
            load_backbone(model.encoder.backbone, self.backbone)
        if config.copies:
            teacher = None if self.distribution is None else self._teacher()
            trainer = FrozenBackboneTrainer(
                model, config, source, body, self.device, teacher=teacher
            )
            return trainer, validation
        return ImageTrainer(model, config, source, body, self.device), validation

    def _start(self) -> ProHMR | None:
        start = super()._start()
        if self.distribution is None:
            return start
        if start is None:
            raise InputError(
                "--distribution takes the place of a trained model's flow: expected --init"
            )
        return copy_flow_from(start, self._teacher())

    def _teacher(self) -> ProHMR:
        teacher = load(str(self.distribution), device=self.device)
        if not isinstance(teacher, ProHMR) or teacher.config.encoder != "keypoints":
            raise InputError(
                f"expected --distribution to be a ProHMR of keypoints, got {self.distribution}"
            )
        return teacher

    def _sources(self, config: ImageTrainConfig) -> tuple[ImageSource, ImageValidation, Body]:
        body = load_open_body() if self.body == "open" else load_smpl(self.body)
        if body.num_shape != config.model.shape:
            raise InputError(
                f"expected model.shape to be the body's {body.num_shape} coefficients, "
                f"got {config.model.shape}"
            )
        source, held_out = self._open(config, body)
        return source, ImageValidation.from_source(held_out, body), body

    def _open(self, config: ImageTrainConfig, body: Body) -> tuple[ImageSource, ImageSource]:
        if self.data == "cmu17":
            raise InputError(
                "training from images needs --data: a folder of renders (propose-prob render) or "
                "files in SPIN's format"
            )
        path = Path(self.data)
        if (path / "train").is_dir():
            if self.body != "open":
                raise InputError("renders show the open body: leave --body out")
            train, held_out = load_renders(path), load_renders(self.validation or path, "val")
            if train.config.size != config.model.image:
                raise InputError(
                    f"expected renders of model.image = {config.model.image} pixels, "
                    f"got {train.config.size}"
                )
            return RenderSource(train), RenderSource(held_out)
        if self.validation is None or self.images is None:
            raise InputError("data in SPIN's format needs --images and --validation")
        size = config.model.image
        return (
            SpinSource.read(path, self.images, body=body, size=size),
            SpinSource.read(self.validation, self.images, body=body, size=size),
        )
