"""Export of samplers and point estimators: `torch.export` and ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..distributions import DecodedPoseDistribution, PoseFlowDistribution, RecalibratedDistribution
from ..distributions.flow import standard_parameters
from ..distributions.support import InsertRoot
from ..errors import InputError
from ..io.atomic import atomic_path

__all__ = ["PointEstimator", "Sampler", "export_onnx", "export_program"]


class PointEstimator(nn.Module):
    """Keypoints to the distribution's point estimate, as a function of tensors alone.

    Args:
        model: A model with `conditional`, for instance a `ProPose` or a `LiftingFlow`.

    Example:
        >>> from propose_prob.models import LiftingFlow
        >>> estimator = PointEstimator(LiftingFlow().eval())
        >>> estimator(torch.randn(4, 17, 2), torch.ones(4, 17)).shape
        torch.Size([4, 17, 3])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, p2d: Tensor, confidence: Tensor, focal: Tensor | None = None) -> Tensor:
        """Point estimates `(B, J, 3)`, meters.

        Args:
            p2d: Keypoints `(B, J, 2)`; with `focal`, relative to the principal point.
            confidence: `(B, J)`, 0 where not seen.
            focal: Focal lengths `(B,)`, where they are known.
        """
        return self.model.conditional(p2d, confidence, focal=focal).point_estimate


class Sampler(nn.Module):
    """Keypoints and standard normal noise to samples of the distribution.

    Args:
        model: A model whose distribution is a flow or a decoded flow: `ProPose`, `LiftingFlow`,
            `ProHMR`.

    Example:
        >>> from propose_prob.models import LiftingFlow
        >>> sampler = Sampler(LiftingFlow().eval())
        >>> noise = torch.randn(10, 4, sampler.noise_size())
        >>> sampler(torch.randn(4, 17, 2), torch.ones(4, 17), noise).shape
        torch.Size([10, 4, 17, 3])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def noise_size(self) -> int:
        """How many numbers of noise a sample takes.

        Raises:
            InputError: If the distribution is no flow, decoded or not.
        """
        distribution = self.model.conditional(torch.randn(1, _joints(self.model), 2))
        distribution = (
            distribution.base_distribution
            if isinstance(distribution, RecalibratedDistribution)
            else distribution
        )
        if isinstance(distribution, DecodedPoseDistribution):
            return distribution.latent.event_shape[0] + 3 * len(distribution.scale)
        if isinstance(distribution, PoseFlowDistribution):
            return distribution.flow.event_shape[0]
        raise InputError(
            f"expected a model whose distribution is a flow, decoded or not, got "
            f"{type(self.model).__name__}"
        )

    def forward(
        self, p2d: Tensor, confidence: Tensor, noise: Tensor, focal: Tensor | None = None
    ) -> Tensor:
        """Samples `(S, B, J, 3)`, meters; of a distribution of rotations `(S, B, K, 6)`.

        Args:
            p2d: Keypoints `(B, J, 2)`; with `focal`, relative to the principal point.
            confidence: `(B, J)`, 0 where not seen.
            noise: Standard normal numbers `(S, B, noise_size())`.
            focal: Focal lengths `(B,)`, where they are known.
        """
        distribution = self.model.conditional(p2d, confidence, focal=focal)
        if isinstance(distribution, RecalibratedDistribution):
            return distribution.moved(_draw(distribution.base_distribution, noise))
        return _draw(distribution, noise)


def _draw(distribution: Any, noise: Tensor) -> Tensor:
    if isinstance(distribution, PoseFlowDistribution):
        loc, scale = standard_parameters(distribution.flow.base_dist)
        return distribution.to_pose(distribution.flow.transform(loc + scale * noise))
    loc, scale = standard_parameters(distribution.latent.base_dist)
    size = loc.shape[-1]
    poses = distribution.decode(distribution.latent.transform(loc + scale * noise[..., :size]))
    rest = noise[..., size:].unflatten(-1, (-1, 3))
    return poses + InsertRoot(distribution.root)(distribution.scale[..., None] * rest)


def export_program(
    module: PointEstimator | Sampler, *, intrinsics: bool = False, samples: int = 200
) -> torch.export.ExportedProgram:
    """A `torch.export` program of any batch size.

    It checks nothing: evidence with fewer than two visible joints gives NaN instead of an error.

    Args:
        module: What to export; its model is not changed.
        intrinsics: Whether the program takes focal lengths.
        samples: Samples that a sampler's program draws for each person.

    Returns:
        The program; `.module()` is callable, `torch.export.save` stores it.

    Raises:
        InputError: If the model's distribution has no such sampler.

    Example:
        >>> from propose_prob.models import RegressionBaseline
        >>> program = export_program(PointEstimator(RegressionBaseline().eval()))
        >>> program.module()(p2d=torch.randn(7, 17, 2), confidence=torch.ones(7, 17)).shape
        torch.Size([7, 17, 3])
    """
    joints, batch = _joints(module.model), torch.export.Dim("batch", min=1)
    arguments = [100 * torch.randn(3, joints, 2), torch.ones(3, joints)]
    shapes: list[Any] = [{0: batch}, {0: batch}]
    if isinstance(module, Sampler):
        arguments.append(torch.randn(samples, 3, module.noise_size()))
        shapes.append({1: batch})
    if intrinsics:
        arguments.append(torch.full((3,), 1000.0))
        shapes.append({0: batch})
    names = ["p2d", "confidence"] + ["noise"] * isinstance(module, Sampler)
    names += ["focal"] * intrinsics
    with _without_validation(), torch.no_grad():
        return torch.export.export(
            module.eval(),
            (),
            kwargs=dict(zip(names, arguments, strict=True)),
            dynamic_shapes=dict(zip(names, shapes, strict=True)),
            strict=False,
        )


def export_onnx(
    module: PointEstimator | Sampler,
    path: str | Path,
    *,
    intrinsics: bool = False,
    samples: int = 200,
) -> None:
    """Writes an ONNX file that any ONNX runtime can run; needs `pip install propose_prob[onnx]`.

    Inputs are called `p2d`, `confidence`, `noise` (of a sampler) and `focal` (with `intrinsics`),
    the output `poses`; the batch size is free. See `export_program`.

    Args:
        module: What to export.
        path: File to write, replaced if it exists.
        intrinsics: Whether the program takes focal lengths.
        samples: Samples that a sampler's program draws for each person.

    Raises:
        InputError: If ONNX's packages are missing or the model's distribution has no such sampler.

    Example:
        >>> import tempfile
        >>> from propose_prob.models import RegressionBaseline
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export_onnx(PointEstimator(RegressionBaseline().eval()), f"{folder}/lift.onnx")
        ...     [file.name for file in Path(folder).iterdir()]
        ['lift.onnx']
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("ONNX needs its packages: pip install 'propose_prob[onnx]'") from None
    program = export_program(module, intrinsics=intrinsics, samples=samples)
    inputs = ["p2d", "confidence"] + ["noise"] * isinstance(module, Sampler)
    with atomic_path(path) as temporary:
        with warnings.catch_warnings():
            # The converter warns about torch's own workings.
            warnings.simplefilter("ignore")
            converted = torch.onnx.export(
                program,
                input_names=inputs + ["focal"] * intrinsics,
                output_names=["poses"],
                dynamo=True,
                verbose=False,
            )
        if converted is None:
            raise RuntimeError("torch.onnx.export gave no program")
        converted.save(temporary, external_data=False)


def _joints(model: Any) -> int:
    config = model.config
    return getattr(config, "keypoints", config.joints)


@contextmanager
def _without_validation() -> Iterator[None]:
    """Distributions check their arguments by looking at numbers, which a traced program cannot."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)
