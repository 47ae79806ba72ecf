"""Base class of the baselines: encoder, units and keypoints in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..conditional import Standardizer
from ..distributions import RecalibratedDistribution
from ..distributions.flow import VectorToJoints
from ..distributions.recalibration import Recalibration
from ..geometry.normalization import as_dtype
from .evidence import Evidence, keypoint_evidence

D = TypeVar("D", bound=Distribution)


class KeypointModel(nn.Module, ABC, Generic[D]):
    """A distribution over 3D joints given 2D keypoints.

    Attributes:
        config: Sizes and variants, among them `joints`.
        standardiser: The coordinates' units, set from training data by `fit_standardizer`.
        calibration: What `propose_prob.evaluation.fit_recalibration` fitted, if it did.
    """

    config: Any
    standardiser: Standardizer
    calibration: Recalibration

    def conditional(
        self,
        p2d: Tensor,
        confidence: Tensor | None = None,
        *,
        focal: Tensor | float | None = None,
        center: Tensor | tuple[float, float] = (0.0, 0.0),
        recalibrated: bool = True,
    ) -> D | RecalibratedDistribution:
        """The distribution of the 3D pose given 2D keypoints.

        Args:
            p2d: Keypoints `(..., J, 2)`, any pixel unit, y down. NaN means not seen. Floating-point
                numbers of another type than the weights, and integers, are converted.
            confidence: `(..., J)` in 0..1; 0 means not seen. Left out: all finite joints are seen.
            focal: Focal length in the unit of `p2d`, a number or `(...)`, where it is known.
            center: Principal point in the unit of `p2d`, `(2,)` or `(..., 2)`; used with `focal`.
            recalibrated: Whether what was fitted on held-out data is applied, where the model's
                `calibration` was; otherwise the distribution is as it was trained.

        Returns:
            A distribution with batch shape `(...)` and event shape `(J, 3)`: meters, root-relative,
            camera axes (x right, y down, z forward). Its `log_prob_kind` says what its density is
            worth.

        Raises:
            InputError: If a shape is wrong, a confidence is NaN, fewer than two joints are seen, or
                a coordinate is boolean, complex or too large for the weights' type.
        """
        p2d, confidence = as_dtype(p2d, confidence, next(self.parameters()).dtype)
        distribution = self.distribution(
            keypoint_evidence(
                p2d,
                confidence,
                joints=self.config.joints,
                focal=focal,
                center=center,
            )
        )
        if not recalibrated:
            return distribution
        return self.calibration(distribution, p2d, confidence, focal=focal, center=center)

    forward = conditional

    @abstractmethod
    def distribution(self, evidence: Evidence) -> D:
        """The distribution given prepared evidence with features `(..., n)`."""

    @torch.no_grad()
    def fit_standardizer(self, joints: Tensor) -> None:
        """Sets the coordinates' units from poses without their root `(n, J - 1, 3)`, meters."""
        self.standardiser.fit(joints.flatten(-2))


def to_pose(evidence: Evidence) -> VectorToJoints:
    """From vectors in the evidence's axes to poses in the camera's."""
    rotation = None if evidence.rotation is None else evidence.rotation.mT
    return VectorToJoints(rotation=rotation)
