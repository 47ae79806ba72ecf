"""Every transform, distribution and model once; each test of a property runs over all.

All parameters are random and far from their start (couplings start as the identity, which would
hide mistakes) and all modules are in float64. Collecting tests builds nothing: a case makes its
module when a test first asks for it, and keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform
from torch.distributions.transforms import AffineTransform

from propose_prob.conditional import (
    PAGD,
    PILGD,
    ActNorm,
    ConditionalCoupling,
    ConditionalFlow,
    FixedPermutation,
    LULinearModule,
    StandardBase,
    coupling_stack,
    glow_stack,
)
from propose_prob.conditional.flows import IdentityTransform, InverseTransform
from propose_prob.conditional.gaussian import HomoscedasticGaussian, VariationalPILGD
from propose_prob.distributions import PoseFlowDistribution, RecalibratedDistribution
from propose_prob.distributions.flow import VectorToRotations
from propose_prob.models import (
    ConditionalVAE,
    LiftingConfig,
    LiftingFlow,
    MixtureDensity,
    ProHMR,
    ProHMRConfig,
    ProPose,
    ProPoseConfig,
    RegressionBaseline,
    ScoreDiffusion,
)
from propose_prob.models.base import KeypointModel
from propose_prob.models.baselines import (
    DiffusionConfig,
    MixtureConfig,
    RegressionConfig,
    VariationalConfig,
)
from propose_prob.models.discriminators import PoseDiscriminator
from propose_prob.models.evidence import Evidence
from propose_prob.models.registry import REGISTRY, STORED, ModelEntry
from propose_prob.nn import ResidualMLP
from propose_prob.transforms import (
    Chain,
    DiagonalAffine,
    Identity,
    LULinear,
    Permutation,
    VectorTransform,
)

#: Size of every context in the zoo of transforms and of vector distributions.
CONTEXT = 3

SHAPES = ((), (1,), (2, 3))

Made = TypeVar("Made")


def randn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def perturbed(module: nn.Module, *, seed: int = 0, scale: float = 1.0) -> nn.Module:
    """The module in float64 and evaluation mode, every parameter random, the same on every run."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
            width = parameter.shape[-1] if parameter.dim() > 1 else 10
            # The gain of a layer norm is 1 at its start; everything else is around 0.
            gain = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0
            parameter.copy_(gain + scale * noise / math.sqrt(width))
    return module


def made(make: Callable[[], Made]) -> Made:
    """What `make` gives, whenever that is: the draws of the test that asks for it stay its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


# --- transforms ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TransformCase:
    """`build(c)` gives the transform of vectors of size `features` for a context `(..., 3)`.

    `make()` gives the module that builds it, or the transform itself where `learned` is False.
    """

    name: str
    features: int
    make: Callable[[], nn.Module | VectorTransform] = field(repr=False)
    constant: bool
    learned: bool = True
    #: Whether the transform can depend on the context at all.
    contextual: bool = True

    def __str__(self) -> str:
        return self.name

    @cached_property
    def module(self) -> nn.Module | VectorTransform:
        """The module, or the transform itself."""
        return made(self.make)

    def build(self, c: Tensor) -> VectorTransform:
        """The transform for the contexts."""
        return self.module(c) if self.learned else self.module


def _learned(
    name: str,
    make: Callable[[], nn.Module],
    features: int,
    constant: bool,
    *,
    contextual: bool = True,
    scale: float = 1.0,
) -> TransformCase:
    return TransformCase(
        name, features, lambda: perturbed(make(), scale=scale), constant, contextual=contextual
    )


def _lu(features: int, seed: int = 0) -> LULinear:
    lower = randn(features, features, seed=seed).tril(-1) + torch.eye(features, dtype=torch.float64)
    upper = randn(features, features, seed=seed + 1).triu(1)
    upper = upper + randn(features, seed=seed + 2).exp().diag_embed()
    return LULinear(lower, upper, randn(features, seed=seed + 3))


def _foreign_chain() -> Chain:
    """Transforms of torch (elementwise, and an inverse) between ours."""
    scale = randn(4, seed=5).exp()
    return Chain(
        [
            _lu(4),
            AffineTransform(randn(4, seed=4), scale),
            perturbed(ConditionalCoupling(4, CONTEXT, width=8))(randn(CONTEXT)).inv,
            Permutation(torch.tensor([2, 0, 3, 1])),
        ]
    )


def _pure(
    name: str, make: Callable[[], VectorTransform], features: int, constant: bool = True
) -> TransformCase:
    return TransformCase(name, features, make, constant, learned=False, contextual=False)


def _couplings() -> Iterator[TransformCase]:
    for kind in ("additive", "affine", "spline"):
        for features, swap in ((4, False), (5, False), (5, True), (2, True)):
            coupling = partial(
                ConditionalCoupling,
                features,
                CONTEXT,
                kind=kind,
                swap=swap,
                width=12,
                clamp=2.0,
                bins=5,
            )
            name = f"{kind}_{features}{'_swap' if swap else ''}"
            yield _learned(name, coupling, features, kind == "additive")
        stack = partial(coupling_stack, 5, CONTEXT, kind=kind, couplings=4, width=12)
        # Several random splines in a row are too steep for a round trip in float32.
        scale = 0.4 if kind == "spline" else 1.0
        yield _learned(f"stack_{kind}", stack, 5, kind == "additive", scale=scale)


def _transforms() -> dict[str, TransformCase]:
    glow = partial(glow_stack, couplings=2, width=12, blocks=1)
    cases = [
        _pure("identity", Identity, 3),
        _pure("permutation", lambda: Permutation(torch.tensor([3, 1, 0, 2])), 4),
        _pure("diagonal_affine", lambda: DiagonalAffine(randn(4), randn(4, seed=1)), 4),
        _pure("diagonal_affine_1d", lambda: DiagonalAffine(randn(1), randn(1, seed=1)), 1),
        _pure("lu_linear", lambda: _lu(4), 4),
        _pure("lu_linear_1d", lambda: _lu(1), 1),
        _pure(
            "chain_constant",
            lambda: Chain([_lu(3), DiagonalAffine(randn(3), randn(3, seed=1))]),
            3,
        ),
        _pure("chain_foreign", _foreign_chain, 4, False),
        _learned("actnorm", lambda: ActNorm(4), 4, True, contextual=False),
        _learned("conditional_lu", lambda: LULinearModule(4), 4, True, contextual=False),
        _learned("no_transform", IdentityTransform, 4, True, contextual=False),
        _learned(
            "fixed_permutation", lambda: FixedPermutation(5, seed=3), 5, True, contextual=False
        ),
        _learned(
            "inverse_coupling",
            lambda: InverseTransform(ConditionalCoupling(5, CONTEXT)),
            5,
            False,
        ),
        _learned("glow_additive", lambda: glow(4, CONTEXT), 4, True),
        _learned("glow_affine_odd", lambda: glow(3, CONTEXT, kind="affine"), 3, False),
        *_couplings(),
    ]
    return {case.name: case for case in cases}


TRANSFORMS = _transforms()


# --- distributions
# ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DistributionCase:
    """`build(c)` gives the distribution for a context `(..., context)`.

    `make()` gives a module, which answers a context with the distribution, or `answer(module, c)`
    does. `exact` is False where `log_prob` is an estimate, `constant` tells whether the mode is
    known in closed form, `gradients` whether samples carry them.
    """

    name: str
    context: int
    event_shape: tuple[int, ...]
    make: Callable[[], nn.Module] = field(repr=False)
    constant: bool = True
    exact: bool = True
    flow: bool = False
    gradients: bool = True
    answer: Callable[[nn.Module, Tensor], Distribution] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.name

    @cached_property
    def module(self) -> nn.Module:
        """The module, with random parameters."""
        return made(self.make)

    def build(self, c: Tensor) -> Distribution:
        """The distribution for the contexts."""
        return self.module(c) if self.answer is None else self.answer(self.module, c)

    def distribution(self, *batch: int, seed: int = 0) -> Distribution:
        """The distribution for random contexts of the given batch shape."""
        return self.build(randn(*batch, self.context, seed=seed))

    def frozen_distribution(self, *batch: int, seed: int = 0) -> Distribution:
        """Of a trained model: no gradients to parameters, so any number of backwards."""
        self.module.requires_grad_(False)
        distribution = self.distribution(*batch, seed=seed)
        self.module.requires_grad_(True)
        return distribution


def _mlp(out: int) -> ResidualMLP:
    return ResidualMLP(CONTEXT, out, width=16, blocks=1)


def small_propose(*, seed: int = 0, **options) -> ProPose:
    """A small ProPose with random weights: 4 joints, latent of size 3, no dropout."""
    sizes = {
        "joints": 4,
        "latent": 3,
        "couplings": 2,
        "flow_width": 12,
        "code": 8,
        "width": 16,
        "blocks": 1,
        "decoder_width": 16,
        "decoder_blocks": 1,
        "dropout": 0.0,
    }
    model = perturbed(ProPose(ProPoseConfig(**(sizes | options))), seed=seed, scale=0.5)
    assert isinstance(model, ProPose)
    with torch.no_grad():
        model.noise_scale.copy_(torch.linspace(0.1, 0.3, len(model.noise_scale)))
        model.pose_mean.copy_(0.3 * randn(len(model.pose_mean), seed=seed))
    return model


def _rotation() -> Tensor:
    q, _ = torch.linalg.qr(randn(3, 3, seed=9))
    return q * torch.linalg.det(q)


def base_module(name: str, features: int) -> nn.Module:
    """A conditional Gaussian of the zoo by name."""
    modules: dict[str, Callable[[], nn.Module]] = {
        "pilgd": lambda: PILGD(_mlp(features), scale=0.4),
        "variational_pilgd": lambda: VariationalPILGD(_mlp(2 * features)),
        "pagd": lambda: PAGD(_mlp(2 * features)),
        "homoscedastic": lambda: HomoscedasticGaussian(_mlp(features), features),
        "standard": lambda: StandardBase(features),
    }
    return modules[name]()


BASES = ("pilgd", "variational_pilgd", "pagd", "homoscedastic", "standard")


def flow_module(base: str, kind: str, features: int) -> ConditionalFlow:
    """A flow of the zoo: `kind` is a coupling, with `glow_` in front for ProHMR's stack."""
    if kind.startswith("glow_"):
        transform = glow_stack(
            features, CONTEXT, kind=kind.removeprefix("glow_"), couplings=2, width=12, blocks=1
        )
    else:
        transform = coupling_stack(features, CONTEXT, kind=kind, couplings=2, width=12)
    return ConditionalFlow(base_module(base, features), transform)


FLOWS = (
    ("pagd", "affine"),
    ("pagd", "spline"),
    ("pagd", "additive"),
    ("pagd", "glow_additive"),
    ("standard", "affine"),
    ("standard", "glow_additive"),
    ("standard", "glow_spline"),
    ("pilgd", "glow_affine"),
    ("variational_pilgd", "additive"),
)


def gaussian_case(name: str, features: int) -> DistributionCase:
    return DistributionCase(
        name, CONTEXT, (features,), lambda: perturbed(base_module(name, features))
    )


def flow_case(base: str, kind: str, features: int) -> DistributionCase:
    # At full scale these are too steep for float32, quadrature and nearest neighbors.
    scale = 1.0 if kind.endswith("additive") else 0.4
    return DistributionCase(
        f"flow_{base}_{kind}",
        CONTEXT,
        (features,),
        lambda: perturbed(flow_module(base, kind, features), scale=scale),
        constant=kind.endswith("additive"),
        flow=True,
    )


def _answer(model: nn.Module, c: Tensor) -> Distribution:
    return model.distribution(Evidence(c, None))


def _rotated_answer(model: nn.Module, c: Tensor) -> Distribution:
    return model.distribution(Evidence(c, _rotation().to(c)))


def decoded_case(*, joints: int = 4, latent: int = 3, rotated: bool = False) -> DistributionCase:
    return DistributionCase(
        "decoded_rotated" if rotated else "decoded",
        3 * joints + 2,
        (joints, 3),
        lambda: small_propose(joints=joints, latent=latent),
        constant=False,
        exact=False,
        answer=_rotated_answer if rotated else _answer,
    )


def small_lifting(*, seed: int = 0, **options) -> LiftingFlow:
    """A small lifting flow with random weights: 3 joints, no dropout."""
    sizes = {
        "joints": 3,
        "couplings": 2,
        "flow_width": 12,
        "context": 8,
        "width": 16,
        "blocks": 1,
        "dropout": 0.0,
    }
    model = perturbed(LiftingFlow(LiftingConfig(**(sizes | options))), seed=seed, scale=0.5)
    assert isinstance(model, LiftingFlow)
    with torch.no_grad():
        model.standardiser.shift.copy_(0.3 * randn(6, seed=seed))
        model.standardiser.log_scale.copy_(0.3 * randn(6, seed=seed + 1) - 1)
    return model


def small_prohmr(*, seed: int = 0, **options) -> ProHMR:
    """A small ProHMR with random weights: 3 keypoints, 2 joints, no dropout."""
    sizes = {
        "joints": 2,
        "keypoints": 3,
        "couplings": 2,
        "flow_width": 12,
        "flow_blocks": 1,
        "context": 8,
        "width": 16,
        "blocks": 1,
        "dropout": 0.0,
        "shape": 2,
    }
    config = ProHMRConfig(**(sizes | options))
    encoder = torch.nn.Linear(7, config.context) if config.encoder == "custom" else None
    model = perturbed(ProHMR(config, encoder=encoder), seed=seed, scale=0.5)
    assert isinstance(model, ProHMR)
    return model


BASELINES: dict[str, Callable[[], KeypointModel]] = {
    "regression": lambda: RegressionBaseline(
        RegressionConfig(joints=3, width=16, blocks=1, dropout=0.0)
    ),
    "mixture": lambda: MixtureDensity(
        MixtureConfig(joints=3, kernels=3, clamp=1.0, width=16, blocks=1, dropout=0.0)
    ),
    "cvae": lambda: ConditionalVAE(
        VariationalConfig(
            joints=3, latent=2, context=8, width=16, blocks=1,
            decoder_width=12, decoder_blocks=1, dropout=0.0,
        )
    ),
    "diffusion": lambda: ScoreDiffusion(
        DiffusionConfig(
            joints=3, steps=6, context=8, width=16, blocks=1,
            denoiser_width=12, denoiser_blocks=1, dropout=0.0,
        )
    ),
}  # fmt: skip


def small_baseline(name: str, *, seed: int = 0) -> KeypointModel:
    """A small model to compare with, with random weights: 3 joints, no dropout."""
    model = perturbed(BASELINES[name](), seed=seed, scale=0.5)
    assert isinstance(model, KeypointModel)
    with torch.no_grad():
        model.standardiser.shift.copy_(0.3 * randn(6, seed=seed))
        model.standardiser.log_scale.copy_(0.3 * randn(6, seed=seed + 1) - 1)
        if isinstance(model, ConditionalVAE):
            model.log_noise.copy_(torch.tensor([0.1, 0.2]).log())
    return model


def baseline_case(name: str, *, rotated: bool = False) -> DistributionCase:
    return DistributionCase(
        f"{name}_rotated" if rotated else name,
        3 * 3 + 2,
        (3, 3),
        lambda: small_baseline(name),
        constant=name == "regression",
        exact=name != "cvae",
        flow=name == "regression",
        gradients=name != "mixture",
        answer=_rotated_answer if rotated else _answer,
    )


def lifting_case(*, rotated: bool = False) -> DistributionCase:
    return DistributionCase(
        "lifting_rotated" if rotated else "lifting",
        3 * 3 + 2,
        (3, 3),
        small_lifting,
        flow=True,
        answer=_rotated_answer if rotated else _answer,
    )


def rotations_case() -> DistributionCase:
    def answer(module: nn.Module, c: Tensor) -> Distribution:
        return PoseFlowDistribution(module(c), VectorToRotations(_rotation().to(c)))

    return DistributionCase(
        "rotations",
        CONTEXT,
        (1, 6),
        lambda: perturbed(flow_module("pagd", "glow_additive", 6), scale=0.3),
        flow=True,
        answer=answer,
    )


def recalibrated_case(inner: DistributionCase) -> DistributionCase:
    """A distribution over poses with another temperature for each joint and context."""

    def answer(module: nn.Module, c: Tensor) -> Distribution:
        assert inner.answer is not None
        distribution = inner.answer(module, c)
        joints = inner.event_shape[0]
        factor = torch.linspace(0.5, 1.8, joints, dtype=c.dtype)
        across = factor * (0.2 * c[..., :1].tanh()).exp()
        aside = across - 1
        ray = torch.stack([aside, -0.5 * aside, torch.ones_like(aside)], -1)
        ray = torch.nn.functional.normalize(ray, dim=-1)
        return RecalibratedDistribution(distribution, across, depth=factor.flip(0), ray=ray)

    return replace(inner, name=f"recalibrated_{inner.name}", answer=answer, flow=False)


def distributions(features: int = 3) -> dict[str, DistributionCase]:
    """All distributions; `features` is the size of the vector distributions' event."""
    cases = [gaussian_case(name, features) for name in BASES]
    cases += [flow_case(base, kind, features) for base, kind in FLOWS]
    cases += [decoded_case(), decoded_case(rotated=True)]
    cases += [lifting_case(), lifting_case(rotated=True), rotations_case()]
    cases += [baseline_case("regression"), baseline_case("mixture"), baseline_case("cvae")]
    cases += [baseline_case("mixture", rotated=True)]
    cases += [recalibrated_case(decoded_case()), recalibrated_case(lifting_case())]
    cases += [recalibrated_case(baseline_case("mixture"))]
    return {case.name: case for case in cases}


DISTRIBUTIONS = distributions()
FLOW_DISTRIBUTIONS = {name: case for name, case in DISTRIBUTIONS.items() if case.flow}
EXACT_DISTRIBUTIONS = {name: case for name, case in DISTRIBUTIONS.items() if case.exact}
#: Distributions of vectors, each the answer of its module to a context.
VECTOR_DISTRIBUTIONS = {name: case for name, case in DISTRIBUTIONS.items() if case.answer is None}
DECODED_DISTRIBUTIONS = {name: case for name, case in DISTRIBUTIONS.items() if not case.exact}
#: Distributions that can be sampled but have no density.
SAMPLED_DISTRIBUTIONS = {
    case.name: case
    for case in (baseline_case("diffusion"), baseline_case("diffusion", rotated=True))
}


# --- models -------------------------------------------------------------------------------------

PROPOSE_VARIANTS: dict[str, dict[str, object]] = {
    "propose": {},
    "propose_vae": {"pilgd": "vae"},
    "propose_standard_base": {"base": "standard"},
    "propose_additive": {"coupling": "additive"},
    "propose_spline": {"coupling": "spline"},
}

#: Modules by name, in float64 with random weights.
MODELS: dict[str, Callable[[], nn.Module]] = {
    name: (lambda options=options: small_propose(**options))
    for name, options in PROPOSE_VARIANTS.items()
} | {
    "lifting": small_lifting,
    "lifting_standard_base": lambda: small_lifting(base="standard"),
    "lifting_affine": lambda: small_lifting(coupling="affine"),
    "prohmr": small_prohmr,
    "prohmr_standard_base": lambda: small_prohmr(base="standard"),
    "prohmr_custom_encoder": lambda: small_prohmr(encoder="custom"),
    "regression": lambda: small_baseline("regression"),
    "mixture": lambda: small_baseline("mixture"),
    "cvae": lambda: small_baseline("cvae"),
    "diffusion": lambda: small_baseline("diffusion"),
    "discriminator": lambda: perturbed(PoseDiscriminator(9, 14, code=4, width=16)),
}


def small_model(entry: ModelEntry) -> nn.Module:
    """A small model of the registry with random weights: 3 joints, no dropout."""
    default = entry.config()
    small: dict[str, object] = {
        each.name: min(value, 8)
        for each in fields(default)
        if type(value := getattr(default, each.name)) is int
    }
    fixed = {"joints": 3, "keypoints": 3, "dropout": 0.0}
    small |= {name: value for name, value in fixed.items() if hasattr(default, name)}
    return perturbed(entry.model(replace(default, **small)), scale=0.5)


# A model is in the zoo as soon as it is in the registry.
MODELS |= {
    name: partial(small_model, entry)
    for name, entry in REGISTRY.items()
    if name not in MODELS and entry in STORED.values()
}


def base_coordinates(distribution: Distribution, value: Tensor) -> Tensor:
    """Standardized base coordinates of an exact distribution's values."""
    if isinstance(distribution, RecalibratedDistribution):
        return base_coordinates(distribution.base_distribution, distribution.without(value))
    if isinstance(distribution, PoseFlowDistribution):
        return base_coordinates(distribution.flow, distribution.to_pose.inv(value))
    transform: Transform | None = getattr(distribution, "transform", None)
    if transform is not None:
        base = distribution.base_dist
        value = transform.inv(value)
    else:
        base = distribution
    return (value - base.mean) / base.stddev
