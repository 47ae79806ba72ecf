"""Training of ProHMR from pixels."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..bodies import Body, MeshBody
from ..data.crops import normalise_image
from ..data.images import ImageBatch, ImageSource, augment
from ..errors import InputError
from ..models.evidence import Evidence
from ..models.prohmr import ProHMR
from ..networks.image import ImageEncoder, ImageReading
from ..pose.rotations import matrix_from_6d
from . import objectives
from .config_images import PRECISIONS, ImageTrainConfig
from .prohmr import BodyPairs, BodyTrainer, _without_unknown
from .validation_body import BodyValidation


@dataclass(frozen=True)
class ImagePairs(BodyPairs):
    """A batch as the networks see it; keypoints are in half sides of the crop.

    Attributes:
        images: Normalised `(B, 3, S, S)`.
    """

    images: Tensor


def prepare_images(batch: ImageBatch) -> ImagePairs:
    """Turns people in crops into what the networks see."""
    half = 0.5 * batch.images.shape[-1]
    seen = batch.visible
    places = torch.where(seen[..., None], batch.keypoints / half - 1, 0)
    # A point at X / Z is seen at X / Z over this scale: the principal point is the middle.
    scale = half / batch.focal
    return ImagePairs(
        evidence=Evidence(places.flatten(1), None, places.new_zeros(len(batch), 2), scale),
        theta=batch.theta,
        shape=batch.shape,
        joints=batch.joints[:, 1:] - batch.joints[:, :1],
        visible=seen,
        has_body=batch.has_body,
        images=normalise_image(batch.images),
    )


class ImageTrainer(BodyTrainer):
    """One training state: model, discriminator, optimisers and random generator.

    The losses are those of `BodyTrainer`, and with `joint_maps` the distance of the joints found.

    Args:
        model: The model that is trained, in place; its encoder reads images.
        config: The run.
        source: People in images.
        body: The body whose joints are compared.
        device: Where the model lives and batches go.
    """

    terms: tuple[str, ...] = (
        "nll", "sample2d", "mode2d", "mode3d", "rotation", "shape", "orthogonality", "energy",
        "keypoints", "maps", "adversarial", "discriminator",
    )  # fmt: skip

    def __init__(
        self,
        model: ProHMR,
        config: ImageTrainConfig,
        source: ImageSource,
        body: Body,
        device: torch.device | str = "cpu",
    ) -> None:
        if not isinstance(model.encoder, ImageEncoder):
            raise ValueError(f"expected an image encoder, got {type(model.encoder).__name__}")
        self.settings = config
        self.source = source
        self.deck = _Deck()
        self.device = torch.device(device)
        model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(model, config, device, body=_light(body))

    def prepare(self, batches: int = 20) -> None:
        """Fits every ActNorm to the poses that are known.

        Raises:
            InputError: If none is, in that many batches.
        """
        pairs = [self._draw() for _ in range(batches)]
        theta = torch.cat([self._target(pair)[pair.has_body] for pair in pairs])
        if not len(theta):
            raise InputError("expected people whose bodies are known, found none")
        with torch.no_grad():
            context = torch.cat([self._context(pair)[pair.has_body] for pair in pairs])
        self.model.flow.transform.fit_actnorm(theta, context)

    def parts(self) -> dict[str, Any]:
        """Everything with a `state_dict`."""
        return super().parts() | {"deck": self.deck}

    def losses(self, pairs: BodyPairs) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """The generator's losses of a batch by name, and the sample that the adversary judges."""
        reading = self._read(pairs)
        losses, fake = self._losses(_without_unknown(pairs), reading.context.float())
        loss = self.settings.loss
        if reading.places is not None and reading.maps is not None:
            p2d, seen = pairs.evidence.features.unflatten(-1, (-1, 2)), pairs.visible
            if loss.keypoints:
                error = objectives.keypoints2d(p2d, reading.places, seen)
                losses["keypoints"] = loss.keypoints * error
            if loss.maps:
                losses["maps"] = loss.maps * objectives.joint_maps(reading.maps, p2d, seen)
        return losses, fake

    def _context(self, pairs: BodyPairs) -> Tensor:
        return self._read(pairs).context.float()

    def _read(self, pairs: BodyPairs) -> ImageReading:
        if not isinstance(pairs, ImagePairs) or not isinstance(self.model.encoder, ImageEncoder):
            raise ValueError("expected pairs with images, and an encoder of images")
        images = pairs.images.contiguous(memory_format=torch.channels_last)
        with self._precision():
            return self.model.encoder.read(images)

    def _precision(self) -> torch.autocast:
        precision = PRECISIONS[self.settings.precision]
        return torch.autocast(self.device.type, precision, enabled=precision is not torch.float32)

    def _draw(self) -> ImagePairs:
        config = self.settings
        rows = self.deck.draw(config.batch_size, len(self.source), self.generator)
        batch = augment(self.source(rows).to(self.device), config.augment, self.generator)
        held_back = (
            torch.rand(len(batch), generator=self.generator, device=self.generator.device)
            < config.only_2d
        )
        return prepare_images(dataclasses.replace(batch, has_body=batch.has_body & ~held_back))


def _light(body: Body) -> Body:
    """The body with no more of a surface than its Human3.6M-17 joints need."""
    return body.only("h36m_17") if isinstance(body, MeshBody) else body


class _Deck:
    """Numbers in random order, all of them before any comes again."""

    def __init__(self) -> None:
        self.left = torch.empty(0, dtype=torch.long)

    def draw(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        while len(self.left) < count:
            fresh = torch.randperm(size, generator=generator, device=generator.device)
            self.left = torch.cat([self.left, fresh.cpu()])
        rows, self.left = self.left[:count], self.left[count:]
        return rows

    def state_dict(self) -> dict[str, Tensor]:
        return {"left": self.left.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.left = state["left"]


@dataclass(frozen=True)
class ImageValidation(BodyValidation):
    """Held-out people in images.

    Attributes:
        body: The body whose joints are compared.
    """

    body: Body | None = None

    @classmethod
    def from_source(cls, source: ImageSource, body: Body, *, items: int = 500) -> ImageValidation:
        """The first people with a body of a source, as they are.

        Args:
            source: Never trained on.
            body: The body whose joints are compared.
            items: Most people.

        Raises:
            InputError: If none of them has a body.
        """
        batch = source(torch.arange(min(items, len(source))))
        if not bool(batch.has_body.any()):
            raise InputError("expected held-out people whose bodies are known, found none")
        pairs = prepare_images(batch)
        known = {f.name: getattr(pairs, f.name) for f in dataclasses.fields(pairs)}
        chosen = {k: v[batch.has_body] for k, v in known.items() if isinstance(v, Tensor)}
        features, _, center, scale = pairs.evidence
        if center is None or scale is None:
            raise ValueError("expected evidence with the centre and scale of its normalisation")
        has = batch.has_body
        evidence = Evidence(features[has], None, center[has], scale[has])
        return cls(ImagePairs(evidence=evidence, **chosen), None, _light(body))

    def to(self, device: torch.device | str) -> ImageValidation:
        """The same pairs on another device."""
        pairs = self.pairs
        moved = {
            f.name: getattr(pairs, f.name).to(device)
            for f in dataclasses.fields(pairs)
            if f.name != "evidence"
        }
        features, _, center, scale = pairs.evidence
        if center is None or scale is None:
            raise ValueError("expected evidence with the centre and scale of its normalisation")
        evidence = Evidence(features.to(device), None, center.to(device), scale.to(device))
        body = None if self.body is None else self.body.to(device)
        return ImageValidation(ImagePairs(evidence=evidence, **moved), None, body)

    def _answers(self, model: ProHMR, part: slice | Tensor, samples: int) -> tuple[Tensor, Tensor]:
        pairs = self.pairs
        if not isinstance(pairs, ImagePairs) or self.body is None:
            raise ValueError("expected pairs with images and a body")
        modes, joints = [], []
        for images in pairs.images[part].split(100):
            context = model.encoder(images.contiguous(memory_format=torch.channels_last))
            law = model.vector_law(context)
            shape, _ = model.shape_and_camera(context)
            sixd = law.sample((samples,)).unflatten(-1, (-1, 6))
            modes.append(self._joints(law.centre.unflatten(-1, (-1, 6)), shape))
            joints.append(self._joints(sixd, shape))
        return torch.cat(modes), torch.cat(joints, 1)

    def _joints(self, sixd: Tensor, shape: Tensor) -> Tensor:
        if self.body is None:
            raise ValueError("expected a body")
        joints = self.body.regress(self.body(matrix_from_6d(sixd), shape))
        return joints[..., 1:, :] - joints[..., :1, :]
