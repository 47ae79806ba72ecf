"""Gaussian mixtures over poses."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from ..errors import InputError
from .flow import VectorToJoints, diagonal_normal


class PoseMixtureDistribution(dist.TransformedDistribution):
    """Exact distribution of a pose as a mixture of diagonal Gaussian kernels over its joints.

    The event is `(J, 3)`: root-relative joints in meters, camera axes; the root row is zero and
    carries no density. Which kernel a sample comes from is a discrete choice, so samples carry no
    gradient: there is no `rsample`.

    Source: Bishop (1994), "Mixture density networks"; for poses, Li and Lee (CVPR 2019), whose
    kernels are isotropic.

    Args:
        logits: Unnormalised log-weights of the kernels, `(..., K)`.
        loc: Means `(..., K, 3 (J - 1))` of the joints without their root, meters.
        scale: Standard deviations, same shape.
        to_pose: From the kernels' vectors to poses.
        validate_args: As in torch.

    Raises:
        InputError: If the shapes of weights, means and deviations do not fit.

    Example:
        >>> dist = PoseMixtureDistribution(torch.zeros(5), torch.randn(5, 48), torch.ones(5, 48))
        >>> dist.sample((7,)).shape, dist.kernel_means.shape
        (torch.Size([7, 17, 3]), torch.Size([5, 17, 3]))
    """

    log_prob_kind = "exact"

    def __init__(
        self,
        logits: Tensor,
        loc: Tensor,
        scale: Tensor,
        to_pose: VectorToJoints | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if loc.shape != scale.shape or loc.dim() < 2 or loc.shape[:-1] != logits.shape:
            raise InputError(
                "expected logits (..., K) with means and deviations (..., K, d), got "
                f"{tuple(logits.shape)}, {tuple(loc.shape)} and {tuple(scale.shape)}"
            )
        self.kernels = dist.MixtureSameFamily(
            dist.Categorical(logits=logits), diagonal_normal(loc, scale)
        )
        self.to_pose = VectorToJoints() if to_pose is None else to_pose
        super().__init__(self.kernels, [self.to_pose], validate_args=validate_args)

    @property
    def weights(self) -> Tensor:
        """Probabilities of the kernels, `batch_shape + (K,)`."""
        return self.kernels.mixture_distribution.probs

    @property
    def kernel_means(self) -> Tensor:
        """Poses at the kernels' centers, `(K,) + batch_shape + (J, 3)`.

        What Li and Lee (CVPR 2019) publish as hypotheses and take the best of.
        """
        # Kernels first, so that what turns each context's poses broadcasts.
        return self.to_pose(self.kernels.component_distribution.mean.movedim(-2, 0))

    @property
    def mean(self) -> Tensor:
        """Mean, `batch_shape + (J, 3)`; between kernels it may be no likely pose."""
        return self.to_pose(self.kernels.mean)

    @property
    def point_estimate(self) -> Tensor:
        """Mean of the kernel with the largest weight, `batch_shape + (J, 3)`.

        Not called a mode: a narrow kernel of smaller weight may be denser.
        """
        best = self.weights.argmax(-1)[..., None, None]
        loc = self.kernels.component_distribution.mean
        chosen = loc.gather(-2, best.expand(*best.shape[:-1], loc.shape[-1]))[..., 0, :]
        return self.to_pose(chosen)

    @property
    def mode(self) -> Tensor:
        """Not available in closed form.

        Raises:
            NotImplementedError: Always; names the alternatives.
        """
        raise NotImplementedError(
            "a mixture has no mode in closed form; use .point_estimate (mean of the most probable "
            "kernel), .kernel_means, or a numerical MAP estimate that starts from these"
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Exact log-density of poses `(..., J, 3)`, root row ignored, `sample_shape + batch_shape`.

        Nats, density per meter in each of the 3 (J - 1) coordinates.
        """
        if self._validate_args:
            self._validate_sample(value)
        return self.kernels.log_prob(self.to_pose.inv(value))

    def hypotheses(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Means of kernels drawn by their weights, `sample_shape + batch_shape + (J, 3)`.

        As published these are the guesses; the distribution's samples also have the kernels'
        spread.
        """
        shape = torch.Size(sample_shape)
        with torch.no_grad():
            chosen = self.kernels.mixture_distribution.sample(shape)[..., None, None]
            loc = self.kernels.component_distribution.mean
            loc = loc.expand(shape + loc.shape)
            index = chosen.expand(*chosen.shape[:-1], loc.shape[-1])
            return self.to_pose(loc.gather(-2, index)[..., 0, :])

    def expand(
        self, batch_shape: torch.Size | Sequence[int], _instance: Distribution | None = None
    ) -> PoseMixtureDistribution:
        """The same distribution with a larger batch shape."""
        new = self._get_checked_instance(PoseMixtureDistribution, _instance)
        new.kernels = new.base_dist = self.kernels.expand(torch.Size(batch_shape))
        new.to_pose = self.to_pose
        new.transforms = self.transforms
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new
