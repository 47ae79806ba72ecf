"""Diffusion models as distributions: sampled by a few denoising steps, without a density."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import ComposeTransform, Distribution, Transform, constraints

from ..errors import InputError
from ..transforms import DiagonalAffine
from .flow import VectorToJoints
from .support import RootRelative


class DiffusionPoseDistribution(dist.TorchDistribution):
    r"""Distribution of a pose that a denoiser draws out of noise in a few deterministic steps.

    With `D(x; s)` the mean of clean vectors given one with noise of deviation `s`, a sample begins
    at `D(0; s_1) + s_1 n`, `n ~ N(0, I)`, and follows the probability-flow equation
    `dx / ds = (x - D(x; s)) / s` down to the last level, where its denoised vector is taken. All
    randomness is in `n`: gradients pass through `rsample`, and each level costs one call of `D`.
    To start at the mean that the first level knows, instead of at zero, undoes the shift that a
    first level below infinity leaves.

    Source: equation and noise levels of Karras et al. (NeurIPS 2022), eq. 1 and 5; steps of
    DPM-Solver++(2M) of Lu et al. (2022), algorithm 2, in their form for these noise levels. For
    poses: DiffPose (Holmquist and Wandt, ICCV 2023), GFPose (Ci et al., CVPR 2023), each with its
    own network and sampler.

    Args:
        denoiser: `D`, maps vectors `(..., d)` and a level `()` to `(..., d)`, bound to the
            context.
        levels: Deviations of the noise `(N,)`, from the largest to the smallest; see
            `noise_levels`.
        units: From the denoiser's vectors to joints without their root, meters, `d = 3 (J - 1)`.
        to_pose: From these to poses.
        batch_shape: Batch shape of the context.
        validate_args: As in torch.

    Raises:
        InputError: If there are fewer than two levels, or they do not fall.

    Example:
        >>> unit = DiagonalAffine(torch.zeros(48), torch.zeros(48))
        >>> dist = DiffusionPoseDistribution(lambda x, s: x / (1 + s**2), noise_levels(10), unit)
        >>> dist.sample((5,)).shape
        torch.Size([5, 17, 3])
    """

    arg_constraints = {"levels": constraints.independent(constraints.positive, 1)}
    has_rsample = True
    log_prob_kind = "none"

    def __init__(
        self,
        denoiser: Callable[[Tensor, Tensor], Tensor],
        levels: Tensor,
        units: DiagonalAffine,
        to_pose: VectorToJoints | None = None,
        *,
        batch_shape: torch.Size | tuple[int, ...] = (),
        validate_args: bool | None = None,
    ) -> None:
        if levels.dim() != 1 or len(levels) < 2 or not bool((levels.diff() < 0).all()):
            raise InputError(f"expected at least two falling noise levels, got {levels.tolist()}")
        self.denoiser = denoiser
        self.levels = levels
        joints = VectorToJoints() if to_pose is None else to_pose
        self.to_pose: Transform = ComposeTransform([units, joints])
        self.root = joints.root
        self.size = units.shift.shape[-1]
        event = joints.forward_shape(torch.Size((self.size,)))
        super().__init__(torch.Size(batch_shape), event, validate_args=validate_args)

    def expand(
        self,
        batch_shape: torch.Size | list[int] | tuple[int, ...],
        _instance: Distribution | None = None,
    ) -> DiffusionPoseDistribution:
        """The same distribution with a larger batch shape."""
        new = self._get_checked_instance(DiffusionPoseDistribution, _instance)
        for name in ("denoiser", "levels", "to_pose", "root", "size"):
            setattr(new, name, getattr(self, name))
        Distribution.__init__(new, torch.Size(batch_shape), self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @constraints.dependent_property(is_discrete=False, event_dim=2)
    def support(self) -> RootRelative:
        """Root-relative poses."""
        return RootRelative(self.root)

    @property
    def point_estimate(self) -> Tensor:
        """What is denoised from no signal at the largest level, `batch_shape + (J, 3)`.

        As the noise grows beyond the spread of poses this becomes the mean of the distribution, for
        one call of the denoiser.
        """
        return self.to_pose(self._center()).expand(self.batch_shape + self.event_shape)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Poses `sample_shape + batch_shape + (J, 3)`, differentiable in the denoiser."""
        shape = torch.Size(sample_shape) + self.batch_shape + (self.size,)
        noise = torch.randn(shape, dtype=self.levels.dtype, device=self.levels.device)
        return self.to_pose(self._denoise(self._center() + self.levels[0] * noise))

    def hypotheses(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Samples, without gradients: hypotheses are not separate from samples here.

        Of shape `sample_shape + batch_shape + event_shape`.
        """
        return self.sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """Not available.

        Raises:
            NotImplementedError: Always; names what there is instead.
        """
        raise NotImplementedError(
            "a diffusion distribution has no density in closed form; score its samples instead "
            "(energy "
            "score, calibration), or use a distribution whose log_prob_kind is 'exact' or 'bound'"
        )

    def _center(self) -> Tensor:
        zero = torch.zeros(
            self.batch_shape + (self.size,), dtype=self.levels.dtype, device=self.levels.device
        )
        return self.denoiser(zero, self.levels[0])

    def _denoise(self, x: Tensor) -> Tensor:
        """Vectors of the largest level `(..., d)` to clean ones."""
        times = [-math.log(level) for level in self.levels.tolist()]
        clean = self.denoiser(x, self.levels[0])
        guess = clean
        for i in range(1, len(times)):
            step = times[i] - times[i - 1]
            # To the second order: the denoised vector is taken to go on as it came.
            x = math.exp(-step) * x - math.expm1(-step) * guess
            before, clean = clean, self.denoiser(x, self.levels[i])
            if i + 1 < len(times):
                ratio = (times[i + 1] - times[i]) / (2 * step)
                guess = clean + ratio * (clean - before)
        return clean


def noise_levels(
    steps: int, *, largest: float = 10.0, smallest: float = 0.01, power: float = 7.0
) -> Tensor:
    """Falling deviations of noise, spaced evenly in their `1 / power`-th power, `(steps,)`.

    Source: Karras et al. (NeurIPS 2022), eq. 5.

    Args:
        steps: How many, at least 2.
        largest: The first.
        smallest: The last.
        power: The larger, the more levels are small.

    Raises:
        InputError: If there are too few steps or the levels would not fall.

    Example:
        >>> noise_levels(3, largest=4.0, smallest=1.0, power=1.0)
        tensor([4.0000, 2.5000, 1.0000])
    """
    if steps < 2 or not largest > smallest > 0:
        raise InputError(
            f"expected at least 2 steps from a larger to a smaller level > 0, got {steps} from "
            f"{largest} to {smallest}"
        )
    first, last = largest ** (1 / power), smallest ** (1 / power)
    return torch.linspace(first, last, steps, dtype=torch.float64).pow(power).float()
