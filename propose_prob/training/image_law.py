"""Training of the law behind an image network that can see, with a keypoint model's help.

A small image network places joints long before its law says what places mean, and costs most of a
step. So it rests: what it sees in every image is computed once. What follows it begins with the
flow of a model that has seen millions of keypoints, and first learns to give that flow the context
that the true keypoints would give it (distillation); then all losses go on as ever.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..bodies import Body
from ..data.images import ImageSource, augment
from ..errors import InputError
from ..models.evidence import keypoint_evidence
from ..models.prohmr import ProHMR
from ..networks.image import ImageEncoder, ImageReading
from . import objectives
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
        pairs = self._draw()
        wanted, known = self._teach(pairs)
        error = (self._context(pairs) - wanted).square().mean(-1)
        loss = objectives.masked_mean(error, known)
        self._update(loss, self.optimiser, self.model)
        return {"distil": loss.item()}

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
            raise ValueError(f"expected an image encoder, got {type(encoder).__name__}")
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
