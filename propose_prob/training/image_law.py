"""Training of the law behind an image network that can see, with a keypoint model's help.

A small image network places joints long before its law says what places mean, and costs most of a
step. So it rests: what it sees in every image is computed once. What follows it begins with the
flow of a model that has seen millions of keypoints, and first learns to give that flow the context
that the true keypoints would give it (distillation); then all losses go on as ever.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..bodies import Body
from ..data.images import ImageBatch, ImageSource, augment
from ..errors import InputError
from ..models.evidence import keypoint_evidence
from ..models.prohmr import ProHMR
from ..networks.image import ImageEncoder, ImageReading
from .config_images import ImageTrainConfig
from .image import ImagePairs, ImageTrainer, prepare_images
from .prohmr import BodyPairs

__all__ = ["LawTrainer", "with_flow_of"]

#: Fewest joints in view for which a keypoint model is asked.
_SEEN = 4
#: Images looked at together.
_BATCH = 100


def with_flow_of(model: ProHMR, teacher: ProHMR) -> ProHMR:
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
            f"expected a law whose flow is of the sizes of {model.config}, got {teacher.config}"
        ) from None
    return model


@dataclass(frozen=True)
class _Seen:
    """What the image network saw in each copy of each image, and what is true of it."""

    sight: Tensor
    pairs: ImagePairs


class LawTrainer(ImageTrainer):
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
        ValueError: If the encoder looks for no joints, so that nothing follows it that could be
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
            raise ValueError("an image network that rests has to look for joints: set joint_maps")
        if config.distil and teacher is None:
            raise ValueError("distil needs a keypoint model to learn from: --law")
        super().__init__(model, config, source, body, device)
        model.encoder.requires_grad_(False)
        model.encoder.project.requires_grad_(True)
        self.teacher = None if teacher is None else teacher.to(device).eval()
        self.seen: _Seen | None = None
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
        values = super().step()
        self.progress.steps += 1
        return values

    def losses(self, pairs: BodyPairs) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """The losses of a batch by name, and the sample that the adversary judges."""
        if self.progress.steps >= self.settings.distil:
            return super().losses(pairs)
        context = self._context(pairs)
        wanted, known = self._teach(pairs)
        loss = (context - wanted)[known].square().mean()
        return {"distil": loss}, (pairs.theta, pairs.shape)

    @torch.no_grad()
    def _teach(self, pairs: BodyPairs) -> tuple[Tensor, Tensor]:
        """The teacher's contexts of the joints in view, and for whom enough of them are."""
        if self.teacher is None or pairs.evidence.scale is None:
            raise ValueError("expected a teacher, and evidence with its scale")
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
            raise ValueError("expected pairs with what was seen, and an encoder of images")
        return ImageReading(self.model.encoder.project(pairs.images.float()), None, None)

    def _draw(self) -> ImagePairs:
        if self.seen is None:
            self.seen = self._look()
        config, pairs = self.settings, self.seen.pairs
        rows = self.deck.draw(config.batch_size, len(self.seen.sight), self.generator)
        rows = rows.to(self.seen.sight.device)
        held_back = (
            torch.rand(len(rows), generator=self.generator, device=self.generator.device)
            < config.only_2d
        )
        drawn = _rows_of(pairs, rows)
        return dataclasses.replace(
            drawn, images=self.seen.sight[rows], has_body=drawn.has_body & ~held_back
        )

    @torch.no_grad()
    def _look(self) -> _Seen:
        config, encoder = self.settings, self.model.encoder
        if not isinstance(encoder, ImageEncoder):
            raise ValueError(f"expected an image encoder, got {type(encoder).__name__}")
        # Of its own, so that a resumed run sees the same.
        generator = torch.Generator(self.device).manual_seed(config.seed)
        sights, parts = [], []
        training = encoder.training
        encoder.eval()
        for _ in range(config.copies):
            for rows in torch.arange(len(self.source)).split(_BATCH):
                batch: ImageBatch = self.source(rows).to(self.device)
                pairs = prepare_images(augment(batch, config.augment, generator))
                images = pairs.images.contiguous(memory_format=torch.channels_last)
                with self._precision():
                    sights.append(encoder.look(images).context.half())
                parts.append(dataclasses.replace(pairs, images=images.new_zeros(len(rows), 0)))
        encoder.train(training)
        return _Seen(torch.cat(sights), _joined(parts))


class _Progress:
    """How many steps were made."""

    def __init__(self) -> None:
        self.steps = 0

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


def _rows_of(pairs: ImagePairs, rows: Tensor) -> ImagePairs:
    evidence = pairs.evidence._replace(
        **{k: v[rows] for k, v in pairs.evidence._asdict().items() if isinstance(v, Tensor)}
    )
    fields = {f.name: getattr(pairs, f.name) for f in dataclasses.fields(pairs)}
    tensors = {name: value[rows] for name, value in fields.items() if isinstance(value, Tensor)}
    return dataclasses.replace(pairs, evidence=evidence, **tensors)


def _joined(parts: list[ImagePairs]) -> ImagePairs:
    first = parts[0]
    evidence = first.evidence._replace(
        **{
            name: torch.cat([getattr(part.evidence, name) for part in parts])
            for name, value in first.evidence._asdict().items()
            if isinstance(value, Tensor)
        }
    )
    tensors = {
        f.name: torch.cat([getattr(part, f.name) for part in parts])
        for f in dataclasses.fields(first)
        if isinstance(getattr(first, f.name), Tensor)
    }
    return dataclasses.replace(first, evidence=evidence, **tensors)
