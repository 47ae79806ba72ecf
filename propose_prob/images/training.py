"""Training of ProHMR from images, whole or behind a frozen backbone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..bodies import Body, MeshBody
from ..configuration import count, number
from ..errors import InputError
from ..geometry.rotations import matrix_from_6d
from ..models.evidence import Evidence, keypoint_evidence
from ..models.prohmr import ProHMR, ProHMRConfig
from ..training import objectives
from ..training.body_trainer import BodyPairs, BodyTrainer, _without_unknown
from ..training.configs import BodyLossConfig, BodyRunConfig
from ..training.validation import BodyValidation
from .crops import normalize_image
from .encoder import ImageEncoder, ImageReading
from .sources import AugmentConfig, ImageBatch, ImageSource, augment

__all__ = ["FrozenBackboneTrainer", "copy_flow_from"]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Types of numbers that the image encoder's products may have."""


@dataclass(frozen=True)
class ImageLossConfig(BodyLossConfig):
    """Weights of the losses of ProHMR from images; 0 leaves a term out.

    2D distances are in half sides of the crop.

    Attributes:
        keypoints: L1 distance of the joints that an encoder with `joint_maps` finds in the image.
        maps: Cross-entropy of its maps.
    """

    mode2d: float = number(0.6)
    sample2d: float = number(0.3)
    samples: int = count(2)
    keypoints: float = number(2.0)
    maps: float = number(0.5)


@dataclass(frozen=True)
class ImageTrainConfig(BodyRunConfig):
    """A training run of ProHMR from images; `known_intrinsics` has no use here.

    Attributes:
        copies: 0 trains everything. Otherwise the image network rests: it looks once at so many
            augmented copies of every image, and only what follows it is trained, on what it saw.
        distil: Of these steps the first so many, in which contexts learn to be those of a keypoint
            model (`FrozenBackboneTrainer`).
        precision: Of the image encoder's products: `"float32"`, or `"bfloat16"` where the hardware
            has them.
        model: Sizes and variants of the model.
        loss: Weights of the losses.
        augment: What varies in the images.
    """

    batch_size: int = count(64)
    copies: int = count(0, low=0)
    distil: int = count(0, low=0)
    precision: str = "float32"
    model: ProHMRConfig = field(
        default_factory=lambda: ProHMRConfig(
            encoder="image",
            backbone="resnet18",
            backbone_width=32,
            joint_maps=True,
            image=128,
        )
    )
    loss: ImageLossConfig = field(default_factory=ImageLossConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(
                f"expected a precision of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        if self.distil and not self.copies:
            raise InputError("distil is for an image network that rests: set copies")
        if self.model.encoder != "image":
            raise InputError(f"expected the encoder 'image', got {self.model.encoder!r}")


@dataclass(frozen=True)
class ImagePairs(BodyPairs):
    """A batch as the networks see it; keypoints are in half sides of the crop.

    Attributes:
        images: Normalized `(B, 3, S, S)`.
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
        images=normalize_image(batch.images),
    )


class ImageTrainer(BodyTrainer):
    """One training state: model, discriminator, optimizers and random generator.

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
            raise InputError(f"expected an image encoder, got {type(model.encoder).__name__}")
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
            raise InputError("expected pairs with images, and an encoder of images")
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
            raise InputError("expected evidence with the center and scale of its normalization")
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
            raise InputError("expected evidence with the center and scale of its normalization")
        evidence = Evidence(features.to(device), None, center.to(device), scale.to(device))
        body = None if self.body is None else self.body.to(device)
        return ImageValidation(ImagePairs(evidence=evidence, **moved), None, body)

    def _answers(self, model: ProHMR, part: slice | Tensor, samples: int) -> tuple[Tensor, Tensor]:
        pairs = self.pairs
        if not isinstance(pairs, ImagePairs) or self.body is None:
            raise InputError("expected pairs with images and a body")
        modes, joints = [], []
        for images in pairs.images[part].split(100):
            context = model.encoder(images.contiguous(memory_format=torch.channels_last))
            distribution = model.vector_distribution(context)
            shape, _ = model.shape_and_camera(context)
            sixd = distribution.sample((samples,)).unflatten(-1, (-1, 6))
            modes.append(self._joints(distribution.center.unflatten(-1, (-1, 6)), shape))
            joints.append(self._joints(sixd, shape))
        return torch.cat(modes), torch.cat(joints, 1)

    def _joints(self, sixd: Tensor, shape: Tensor) -> Tensor:
        if self.body is None:
            raise InputError("expected a body")
        joints = self.body.regress(self.body(matrix_from_6d(sixd), shape))
        return joints[..., 1:, :] - joints[..., :1, :]


#: Fewest joints in view for which a keypoint model is asked.
_SEEN = 4
#: Images looked at together.
_BATCH = 100


def copy_flow_from(model: ProHMR, teacher: ProHMR) -> ProHMR:
    """Gives an image model the flow, base included, of a keypoint model.

    Args:
        model: Changed in place.
        teacher: Of the same sizes of flow and context.

    Returns:
        The image model.

    Raises:
        InputError: If their flows are not of the same sizes.
    """
    try:
        model.flow.load_state_dict(teacher.flow.state_dict())
    except RuntimeError:
        raise InputError(
            f"expected a distribution whose flow is of the sizes of {model.config}, got "
            f"{teacher.config}"
        ) from None
    return model


class FrozenBackboneTrainer(ImageTrainer):
    """One training state of what follows the image network; see the module.

    What was seen takes 2 bytes a number: 230 MB for 100,000 copies seen by the shipped model's
    network. It is computed before the first step, and again when a run is resumed.

    Args:
        model: Its image network is trained; the rest is trained further, in place.
        config: The run; `copies` says how often each image is looked at.
        source: People in images.
        body: The body whose joints are compared.
        device: Where the model lives and batches go.
        teacher: Keypoint model whose contexts are learned in the first `distil` steps.

    Raises:
        InputError: If the encoder looks for no joints, so that nothing follows it that could be
            trained, or there is no teacher to distil.
    """

    terms: tuple[str, ...] = ("distil", *ImageTrainer.terms)

    def __init__(
        self,
        model: ProHMR,
        config: ImageTrainConfig,
        source: ImageSource,
        body: Body,
        device: torch.device | str = "cpu",
        *,
        teacher: ProHMR | None = None,
    ) -> None:
        if not isinstance(model.encoder, ImageEncoder) or not model.encoder.joints:
            raise InputError("an image network that rests has to look for joints: set joint_maps")
        if config.distil and teacher is None:
            raise InputError("distil needs a keypoint model to learn from: --distribution")
        super().__init__(model, config, source, body, device)
        model.encoder.requires_grad_(False)
        model.encoder.project.requires_grad_(True)
        self.teacher = None if teacher is None else teacher.to(device).eval()
        self.seen: ImagePairs | None = None
        self.progress = _Progress()

    def prepare(self, batches: int = 20) -> None:
        """Refuses to begin with an image network that has learned nothing.

        Raises:
            InputError: Always: such a run begins with a trained model.
        """
        raise InputError("an image network that rests (copies) has to be trained: expected --init")

    def parts(self) -> dict[str, Any]:
        """Everything with a `state_dict`."""
        return super().parts() | {"progress": self.progress}

    def step(self) -> dict[str, float]:
        """One batch of the distillation, or of all losses."""
        values = self._distil() if self.progress.steps < self.settings.distil else super().step()
        self.progress.steps += 1
        return values

    def _distil(self) -> dict[str, float]:
        pairs = self._batch()
        loss = self._together(self.model, self._distillation, pairs)
        self._update(loss, self.optimizer, self.model)
        return {"distil": loss.item()}

    def _distillation(self, pairs: BodyPairs) -> Tensor:
        wanted, known = self._teach(pairs)
        error = (self._context(pairs) - wanted).square().mean(-1)
        return objectives.masked_mean(error, known)

    @torch.no_grad()
    def _teach(self, pairs: BodyPairs) -> tuple[Tensor, Tensor]:
        """The teacher's contexts of the joints in view, and for whom enough of them are."""
        if self.teacher is None or pairs.evidence.scale is None:
            raise InputError("expected a teacher, and evidence with its scale")
        known = pairs.visible.sum(-1) >= _SEEN
        places = pairs.evidence.features.unflatten(-1, (-1, 2))
        # Tangents of the angles from the crop's axis.
        p2d = torch.where(pairs.visible[..., None], places, torch.nan)
        p2d = p2d * pairs.evidence.scale[:, None, None]
        context = p2d.new_zeros(len(p2d), self.model.config.context)
        if bool(known.any()):
            evidence = keypoint_evidence(p2d[known], focal=1.0)
            context[known] = self.teacher.encoder(evidence.features)
        return context, known

    def _read(self, pairs: BodyPairs) -> ImageReading:
        if not isinstance(pairs, ImagePairs) or not isinstance(self.model.encoder, ImageEncoder):
            raise InputError("expected pairs with what was seen, and an encoder of images")
        return ImageReading(self.model.encoder.project(pairs.images.float()), None, None)

    def _draw(self) -> ImagePairs:
        if self.seen is None:
            self.seen = self._look()
        config, seen = self.settings, self.seen
        rows = self.deck.draw(config.batch_size, len(seen.images), self.generator)
        drawn = _each(seen, lambda value: value[rows.to(value.device)])
        held_back = (
            torch.rand(len(rows), generator=self.generator, device=self.generator.device)
            < config.only_2d
        )
        return dataclasses.replace(drawn, has_body=drawn.has_body & ~held_back)

    @torch.no_grad()
    def _look(self) -> ImagePairs:
        """All copies of all people, with what was seen in place of the images."""
        config, encoder = self.settings, self.model.encoder
        if not isinstance(encoder, ImageEncoder):
            raise InputError(f"expected an image encoder, got {type(encoder).__name__}")
        # Of its own, so that a resumed run sees the same.
        generator = torch.Generator(self.device).manual_seed(config.seed)
        everyone = torch.arange(len(self.source)).repeat(config.copies)
        seen: ImagePairs | None = None
        training = encoder.training
        encoder.eval()
        for start in range(0, len(everyone), _BATCH):
            rows = everyone[start : start + _BATCH]
            pairs = prepare_images(
                augment(self.source(rows).to(self.device), config.augment, generator)
            )
            images = pairs.images.contiguous(memory_format=torch.channels_last)
            with self._precision():
                sight = encoder.look(images).context.half()
            found = dataclasses.replace(pairs, images=sight)
            # Filled in place: small tensors that stay, between large ones that go, would leave
            # the process a hundred times their size.
            if seen is None:
                seen = _each(found, lambda v: v.new_empty(len(everyone), *v.shape[1:]))
            for target, value in zip(_tensors(seen), _tensors(found), strict=True):
                target[start : start + len(rows)] = value
        encoder.train(training)
        if seen is None:
            raise InputError("expected people in images, got none")
        return seen


class _Progress:
    """How many steps were made."""

    def __init__(self) -> None:
        self.steps = 0

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


def _tensors(pairs: ImagePairs) -> list[Tensor]:
    fields = [getattr(pairs, f.name) for f in dataclasses.fields(pairs)]
    return [v for v in (*pairs.evidence, *fields) if isinstance(v, Tensor)]


def _each(pairs: ImagePairs, change: Callable[[Tensor], Tensor]) -> ImagePairs:
    """The same pairs with each tensor changed."""
    fields = {f.name: getattr(pairs, f.name) for f in dataclasses.fields(pairs)}
    changed = {name: change(v) for name, v in fields.items() if isinstance(v, Tensor)}
    known = {n: change(v) for n, v in pairs.evidence._asdict().items() if isinstance(v, Tensor)}
    evidence = pairs.evidence._replace(**known)
    return dataclasses.replace(pairs, evidence=evidence, **changed)
