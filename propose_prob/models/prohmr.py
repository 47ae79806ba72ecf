"""ProHMR: evidence to an exact distribution over body pose, with shape and camera."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..bodies import Body, SkeletonBody
from ..conditional import ConditionalFlow
from ..conditional.flows import glow_stack
from ..configuration import count, given, number, share
from ..distributions import FlowDistribution, PoseFlowDistribution, PushforwardDistribution
from ..distributions.flow import VectorToRotations
from ..distributions.recalibration import BaseRecalibration, reprojection_residual_and_rays
from ..errors import InputError
from ..geometry.camera import rectify
from ..geometry.normalization import as_dtype, visible_joints
from ..geometry.rotations import matrix_from_6d
from ..geometry.skeletons import get_skeleton
from ..nn import ResidualMLP
from .evidence import (
    EVIDENCE_EXTRA,
    Evidence,
    camera_in_keypoints,
    keypoint_evidence,
    weak_to_translation,
)
from .lifting_flow import LiftingConfig, LiftingFlow, conditional_base
from .registry import ENCODERS, resolve

#: Size of a person in normalized keypoints per meter of body: where the camera head starts.
_START_SCALE = 2.2


@dataclass(frozen=True)
class ProHMRConfig:
    """Sizes and variants of the model.

    Attributes:
        joints: K, joints of the body.
        keypoints: J, keypoints of the default encoder.
        encoder: `"keypoints"`: a residual MLP on 2D keypoints with visibility; `"image"`: a
            residual network on images (`images.encoder.ImageEncoder`), as in the paper; `"custom"`:
            a module that the user gives, for feature vectors or anything else.
        base: `"pagd"`: mean and spread read off the evidence; `"standard"`: N(0, I), the paper's.
        clamp: alpha of eq. 5 of ProPose on the base's mean and log standard deviation.
        coupling: Kind of coupling; only additive ones (the paper's) have a mode in closed form.
        couplings: Number of blocks of ActNorm, LU linear map and coupling.
        flow_width: Hidden size of the coupling networks.
        flow_blocks: Residual blocks of each.
        context: Size of the context; of the custom encoder's output.
        width: Hidden size of the keypoint encoder.
        blocks: Its residual blocks.
        dropout: Its dropout.
        shape: Number of the body's shape coefficients.
        backbone: The image encoder's network, `"resnet18"` or `"resnet50"`.
        backbone_width: Channels of its first stage.
        joint_maps: Whether it looks for the `keypoints` in the image; see `ImageEncoder`.
        image: Side of the images that it is trained on, pixels.

    Example:
        >>> ProHMRConfig(encoder="custom", context=512).base
        'pagd'
    """

    joints: int = given(24)
    keypoints: int = given(17)
    encoder: str = "keypoints"
    base: str = "pagd"
    clamp: float = number(4.0, above=0.0)
    coupling: str = "additive"
    couplings: int = count(4)
    flow_width: int = count(320)
    flow_blocks: int = count(2, low=0)
    context: int = count(256)
    width: int = count(768)
    blocks: int = count(2, low=0)
    dropout: float = share(0.1)
    shape: int = count(10)
    backbone: str = "resnet50"
    backbone_width: int = count(64)
    joint_maps: bool = False
    image: int = count(224)

    def __post_init__(self) -> None:
        if self.encoder not in ("keypoints", *ENCODERS, "custom"):
            raise InputError(
                f"expected encoder 'keypoints', 'image' or 'custom', got {self.encoder!r}"
            )


class BodyEstimate(NamedTuple):
    """What the evidence says about a body.

    Attributes:
        distribution: Distribution of the joint rotations as 6D numbers, batch shape `(...)`, event
            shape `(K, 6)`.
        shape: Point estimate of the shape coefficients `(..., S)`.
        camera: Weak-perspective camera `(..., 3)`: scale (keypoint units per meter) and the place
            of the body's origin (keypoint units); a point `X` is seen near `scale * X[:2] + place`.
        translation: Of the body in camera axes `(..., 3)`, meters, where intrinsics are known.

    Example:
        >>> estimate = ProHMR().eval().estimate(torch.randn(5, 17, 2))
        >>> estimate.distribution.mode.shape, estimate.camera.shape, estimate.translation
        (torch.Size([5, 24, 6]), torch.Size([5, 3]), None)
    """

    distribution: PoseFlowDistribution
    shape: Tensor
    camera: Tensor
    translation: Tensor | None


class ProHMR(nn.Module):
    """ProHMR (Kolotouros et al., ICCV 2021): evidence to body pose, shape and camera.

    The distribution is a flow of ActNorm, LU linear and additive coupling blocks over 6D rotations,
    so that its density is exact and its mode known in closed form (eq. 3-4). With the default base,
    a Gaussian read off the evidence (ProPose's PAGD), each input has its own entropy; with the
    paper's N(0, I) all have the same.

    Args:
        config: Sizes and variants.
        encoder: Module that gives a context `(..., config.context)`; needed where
            `config.encoder` is `"custom"`, and only there.

    Raises:
        InputError: If a variant is unknown, or the encoder is missing or not asked for.

    Example:
        >>> model = ProHMR(ProHMRConfig(flow_width=32, width=32)).eval()
        >>> dist = model.conditional(torch.randn(5, 17, 2))
        >>> dist.mode.shape, dist.sample((2,)).shape, dist.log_prob(dist.mode).shape
        (torch.Size([5, 24, 6]), torch.Size([2, 5, 24, 6]), torch.Size([5]))
    """

    def __init__(
        self, config: ProHMRConfig | None = None, *, encoder: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.config = config = config or ProHMRConfig()
        if (encoder is None) == (config.encoder == "custom"):
            raise InputError(
                "expected a module as encoder exactly where config.encoder is 'custom', got "
                f"{type(encoder).__name__} with {config.encoder!r}"
            )
        if config.encoder in ENCODERS:
            encoder = resolve(ENCODERS[config.encoder])(
                config.backbone,
                config.context,
                width=config.backbone_width,
                joints=config.keypoints if config.joint_maps else 0,
            )
        elif encoder is None:
            encoder = ResidualMLP(
                3 * config.keypoints + EVIDENCE_EXTRA,
                config.context,
                width=config.width,
                blocks=config.blocks,
                dropout=config.dropout,
            )
        self.encoder = encoder
        size = 6 * config.joints
        self.flow = ConditionalFlow(
            conditional_base(config.base, config.context, size, config.context, config.clamp),
            glow_stack(
                size,
                config.context,
                kind=config.coupling,
                couplings=config.couplings,
                width=config.flow_width,
                blocks=config.flow_blocks,
            ),
        )
        self.head = ResidualMLP(config.context, config.shape + 3, width=config.context, blocks=1)
        self.calibration = BaseRecalibration()
        self.body = SkeletonBody()

    @staticmethod
    def lifting(config: LiftingConfig | None = None) -> LiftingFlow:
        """The variant over 3D joints (sec. 3.6); see `LiftingFlow`."""
        return LiftingFlow(config)

    def conditional(
        self,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
        recalibrated: bool = True,
    ) -> PoseFlowDistribution:
        """The distribution of the body's pose given 2D keypoints.

        Args:
            p2d: Keypoints `(..., J, 2)`, any pixel unit, y down, of any real type. NaN: not seen.
            confidence: `(..., J)` in 0..1; 0 means not seen. Left out: all finite joints are seen.
            focal: Focal length in the unit of `p2d`, a number or `(...)`, where it is known.
            center: Principal point in the unit of `p2d`, `(2,)` or `(..., 2)`; used with `focal`.
            recalibrated: Whether what was fitted on held-out data is applied, where the model's
                `calibration` was; otherwise the distribution is as it was trained.

        Returns:
            A distribution with batch shape `(...)` and event shape `(K, 6)`: local rotations in
            SMPL's convention, 6D (`geometry.rotations.matrix_from_6d`), the first one the
            orientation in camera axes (x right, y down, z forward). Its density is exact.

        Raises:
            InputError: If a shape is wrong, a confidence is NaN, fewer than two joints are seen, a
                number is none that the weights' type holds, or the model reads no keypoints.
        """
        return self.estimate(
            p2d, confidence, focal=focal, center=center, recalibrated=recalibrated
        ).distribution

    forward = conditional

    def estimate(
        self,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
        recalibrated: bool = True,
    ) -> BodyEstimate:
        """The distribution together with point estimates of shape and camera; see `conditional`."""
        if self.config.encoder != "keypoints":
            raise InputError("this model's encoder does not read keypoints; use .given(input)")
        p2d, confidence = as_dtype(p2d, confidence, next(self.parameters()).dtype)
        evidence = keypoint_evidence(
            p2d, confidence, joints=self.config.keypoints, focal=focal, center=center
        )
        context = self.encoder(evidence.features)
        rotation = None if evidence.rotation is None else evidence.rotation.mT
        distribution = PoseFlowDistribution(self.flow(context), VectorToRotations(rotation))
        shape, weak = self.shape_and_camera(context)
        if recalibrated and self.calibration.fitted:
            features = self._features(distribution, shape, p2d, confidence, focal, center)
            distribution = self.calibration(distribution, features)
        camera = camera_in_keypoints(weak, evidence)
        translation = None
        if rotation is not None:
            # Rectified points have focal length 1.
            place = weak_to_translation(camera)
            translation = (rotation @ place[..., None])[..., 0]
            length = torch.as_tensor(focal, dtype=p2d.dtype, device=p2d.device)[..., None]
            middle = torch.as_tensor(center, dtype=p2d.dtype, device=p2d.device)
            z = translation[..., 2:]
            camera = torch.cat([length / z, middle + length * translation[..., :2] / z], -1)
        return BodyEstimate(distribution, shape, camera, translation)

    def recalibration_features(
        self,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
    ) -> Tensor:
        """What the recalibration of each input depends on, `(..., F)`; see `conditional`."""
        found = self.estimate(p2d, confidence, focal=focal, center=center, recalibrated=False)
        return self._features(found.distribution, found.shape, p2d, confidence, focal, center)

    @torch.no_grad()
    def _features(
        self,
        distribution: PoseFlowDistribution,
        shape: Tensor,
        p2d: Tensor,
        confidence: Tensor | None,
        focal: Tensor | float | None,
        center: Tensor | tuple[float, float],
    ) -> Tensor:
        visible = visible_joints(p2d, confidence)
        theta = matrix_from_6d(distribution.center)
        # Shape coefficients of another body leave this one average.
        known = shape if shape.shape[-1] == self.body.num_shape else None
        joints = self.body.regress(self.body(theta, known))
        residual, _ = reprojection_residual_and_rays(
            joints - joints[..., :1, :], p2d, visible, focal, center
        )
        return self.calibration.features(distribution, visible, focal is not None, residual)

    def estimate_images(
        self,
        images: Tensor,
        *,
        middle: Tensor | None = None,
        side: Tensor | None = None,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
    ) -> BodyEstimate:
        """The distribution with point estimates of shape and camera, given crops of people.

        A crop does not show where in the image it was cut: the network's answer is in the axes of
        the crop's own camera, which looks at the crop's middle (`images.crops`). With known
        intrinsics it is turned into the image's camera axes; without them it stays as it is.

        Args:
            images: Square crops `(B, 3, S, S)`, normalized (`images.crops.normalize_image`).
            middle: Middle of each crop in its image `(B, 2)`, pixels; by default the crop is the
                image.
            side: Side of each crop in its image `(B,)`, pixels; goes with `middle`.
            focal: Focal length, pixels of the image, a number or `(B,)`, where it is known.
            center: Principal point, pixels of the image, `(2,)` or `(B, 2)`; used with `focal`.

        Returns:
            The distribution, event shape `(K, 6)`; shape; weak-perspective camera in the image's
            pixels; with `focal` the translation.

        Raises:
            InputError: If a shape is wrong, a side or focal length is not positive, or the model's
                encoder does not read images.
        """
        if self.config.encoder != "image":
            raise InputError("this model's encoder does not read images; use .conditional(p2d)")
        if images.ndim != 4 or images.shape[-1] != images.shape[-2]:
            raise InputError(f"expected crops of shape (B, 3, S, S), got {tuple(images.shape)}")
        if not bool(images.isfinite().all()):
            raise InputError("expected finite pixels, got NaN or infinity")
        count, size = len(images), float(images.shape[-1])
        if (middle is None) != (side is None):
            raise InputError("expected middle and side of the crops together, or neither")
        middle = images.new_full((count, 2), 0.5 * size) if middle is None else middle
        side = images.new_full((count,), size) if side is None else side
        if middle.shape != (count, 2) or side.shape != (count,) or not bool((side > 0).all()):
            raise InputError(
                f"expected middle ({count}, 2) and side ({count},) > 0, got "
                f"{tuple(middle.shape)} and {tuple(side.shape)}"
            )
        context = self.encoder(images)
        shape, weak = self.shape_and_camera(context)
        half = 0.5 * side[:, None]
        camera = torch.cat([weak[:, :1] * half, weak[:, 1:] * half + middle], -1)
        if focal is None:
            return BodyEstimate(
                PoseFlowDistribution(self.flow(context), VectorToRotations()), shape, camera, None
            )
        length = torch.as_tensor(focal, dtype=half.dtype, device=half.device).expand(count)
        if not bool((length > 0).all()):
            raise InputError("expected a focal length > 0")
        offset = middle - torch.as_tensor(center, dtype=half.dtype, device=half.device)
        seen = torch.ones_like(offset[:, :1], dtype=torch.bool)
        _, turn = rectify(
            offset[:, None], seen, focal=length[:, None, None], center=offset.new_zeros(())
        )
        # The middle is further from the camera than the image's plane is at its principal point.
        longer = (length.square() + offset.square().sum(-1)).sqrt() / half[:, 0]
        place = weak_to_translation(weak, focal=longer)
        translation = (turn.mT @ place[..., None])[..., 0]
        z = translation[:, 2:]
        place = middle - offset + length[:, None] * translation[:, :2] / z
        camera = torch.cat([length[:, None] / z, place], -1)
        distribution = PoseFlowDistribution(self.flow(context), VectorToRotations(turn.mT))
        return BodyEstimate(distribution, shape, camera, translation)

    def given(self, x: Tensor) -> PoseFlowDistribution:
        """The distribution given whatever the encoder reads.

        Args:
            x: The encoder's input: evidence features `(..., 3 J + 2)` by default, or for a custom
                encoder feature vectors, images, ...

        Returns:
            The distribution, in the axes that the encoder was trained for.
        """
        return PoseFlowDistribution(self.flow(self.encoder(x)), VectorToRotations())

    def distribution(self, evidence: Evidence) -> PoseFlowDistribution:
        """The distribution given prepared evidence with features `(..., n)`."""
        rotation = None if evidence.rotation is None else evidence.rotation.mT
        return PoseFlowDistribution(
            self.vector_distribution(self.encoder(evidence.features)), VectorToRotations(rotation)
        )

    def vector_distribution(self, context: Tensor) -> FlowDistribution:
        """The flow distribution of the 6D numbers `(..., 6 K)` for contexts `(..., m)`."""
        return self.flow(context)

    def shape_and_camera(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Point estimates for contexts `(..., m)`.

        Returns:
            Shape `(..., S)` and the weak-perspective camera `(..., 3)` in normalized keypoints:
            scale and place.
        """
        shape, camera = self.head(context).split([self.config.shape, 3], -1)
        scale = _START_SCALE * torch.exp(camera[..., :1])
        return shape, torch.cat([scale, camera[..., 1:]], -1)


class ProHMRJoints(nn.Module):
    """Root-relative joints of a body posed by ProHMR, so that it stands beside models of joints.

    Args:
        model: Gives the distribution of rotations, and the shape.
        body: Body that is posed, `SkeletonBody` by default. The model's shape coefficients are of
            the body that it was trained with; a body with another number of them is left average.
        joint_set: Which joints, one of the body's regressors; its first joint is the root.

    Example:
        >>> import torch
        >>> from propose_prob.models import ProHMRConfig
        >>> lifter = ProHMRJoints(ProHMR(ProHMRConfig(flow_width=32, width=32)).eval())
        >>> lifter.conditional(torch.randn(5, 17, 2)).sample((2,)).shape
        torch.Size([2, 5, 17, 3])
    """

    def __init__(
        self, model: ProHMR, body: Body | None = None, *, joint_set: str = "h36m_17"
    ) -> None:
        super().__init__()
        self.model = model
        self.body = body or SkeletonBody()
        self.joint_set = joint_set

    def conditional(
        self,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
        recalibrated: bool = True,
    ) -> PushforwardDistribution:
        """Distribution of root-relative joints `(J, 3)`, meters, camera axes; see `ProHMR`.

        It can be sampled and has a point estimate (the joints of the mode), but no density.
        """
        estimate = self.model.estimate(
            p2d, confidence, focal=focal, center=center, recalibrated=recalibrated
        )
        shape = estimate.shape if self.body.num_shape == estimate.shape.shape[-1] else None
        joints = get_skeleton(self.joint_set).num_joints
        return PushforwardDistribution(
            estimate.distribution, partial(self._joints, shape), (joints, 3)
        )

    forward = conditional

    def _joints(self, shape: Tensor | None, sixd: Tensor) -> Tensor:
        output = self.body(matrix_from_6d(sixd), shape)
        joints = self.body.regress(output, self.joint_set)
        return joints - joints[..., :1, :]
