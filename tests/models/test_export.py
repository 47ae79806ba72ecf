"""Exported programs give what the models give."""

import numpy as np
import pytest
import torch

from propose_prob.distributions import DecodedPoseDistribution
from propose_prob.errors import InputError
from propose_prob.models import (
    LiftingConfig,
    LiftingFlow,
    MixtureDensity,
    ProPose,
    ProPoseConfig,
    Sampler,
    export_onnx,
    export_program,
)
from propose_prob.models.export import PointEstimator
from propose_prob.weights import available, load
from tests.zoo import perturbed

#: Models of keypoints whose distribution is a flow.
SAMPLED = [n for n in available() if "image" not in n and "mixture" not in n]


def _propose():
    config = ProPoseConfig(
        couplings=1, flow_width=16, width=16, blocks=1, decoder_width=16, code=8, latent=6
    )
    model = ProPose(config)
    with torch.no_grad():
        model.calibration.log_temperature.add_(0.3)
    return perturbed(model, scale=0.3).float()


def _lifting():
    config = LiftingConfig(couplings=1, flow_width=16, width=16, blocks=1, context=8)
    return perturbed(LiftingFlow(config), scale=0.3).float()


def _evidence(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    p2d = 100 * torch.randn(batch, 17, 2, generator=generator) + 500
    confidence = (torch.rand(batch, 17, generator=generator) > 0.2).float()
    return p2d, confidence


def _noise(samples, batch, size, seed=1):
    return torch.randn(samples, batch, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SAMPLED)
def test_the_sampler_is_the_distributions_for_the_same_noise(name):
    model = load(name)
    p2d, confidence = _evidence(3)
    distribution = model.conditional(p2d, confidence)
    base = getattr(distribution, "base_distribution", distribution)
    torch.manual_seed(0)
    expected = distribution.rsample((4,))
    torch.manual_seed(0)
    if isinstance(base, DecodedPoseDistribution):
        parts = [torch.normal(torch.zeros(4, 3, base.latent.event_shape[0]), 1.0)]
        parts.append(torch.randn(4, 3, 16, 3).flatten(-2))
    else:
        parts = [torch.normal(torch.zeros(4, 3, base.flow.event_shape[0]), 1.0)]
    noise = torch.cat(parts, -1)
    sampler = Sampler(model)
    assert noise.shape[-1] == sampler.noise_size()
    torch.testing.assert_close(sampler(p2d, confidence, noise), expected, rtol=0, atol=1e-5)


def _check_programs(model, *, intrinsics, kinds=(PointEstimator, Sampler)):
    for kind in kinds:
        module = kind(model)
        program = export_program(module, intrinsics=intrinsics, samples=3).module()
        for batch in (1, 5):
            given = dict(zip(("p2d", "confidence"), _evidence(batch), strict=True))
            if intrinsics:
                given["focal"] = torch.full((batch,), 1200.0)
            if kind is Sampler:
                given["noise"] = _noise(3, batch, module.noise_size())
            torch.testing.assert_close(program(**given), module(**given), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "intrinsics", "kind"), [(_propose, True, Sampler), (_lifting, False, PointEstimator)]
)
def test_programs_agree_with_eager_for_every_batch_size(build, intrinsics, kind):
    _check_programs(build(), intrinsics=intrinsics, kinds=[kind])


@pytest.mark.slow
@pytest.mark.parametrize("intrinsics", [False, True])
@pytest.mark.parametrize("name", SAMPLED)
def test_programs_of_shipped_models_agree_with_eager(name, intrinsics):
    _check_programs(load(name), intrinsics=intrinsics)


def _check_onnx(model, folder):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    for module in (PointEstimator(model), Sampler(model)):
        export_onnx(module, folder / "model.onnx", samples=4)
        assert [p.name for p in folder.iterdir()] == ["model.onnx"]
        session = runtime.InferenceSession(folder / "model.onnx")
        for batch in (1, 6):
            given = dict(zip(("p2d", "confidence"), _evidence(batch, seed=2), strict=True))
            if isinstance(module, Sampler):
                given["noise"] = _noise(4, batch, module.noise_size())
            with torch.no_grad():
                expected = module(**given).numpy()
            (found,) = session.run(None, {k: v.numpy() for k, v in given.items()})
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLED)
def test_onnx_of_shipped_models_agrees_with_eager(name, tmp_path):
    _check_onnx(load(name), tmp_path)


def test_a_distribution_without_a_flow_has_no_sampler():
    with pytest.raises(InputError, match="a model whose distribution is a flow"):
        export_program(Sampler(MixtureDensity().eval()))


def test_the_model_and_torchs_validation_stay_as_they_were():
    model = _propose()
    _check_programs(model, intrinsics=False, kinds=[PointEstimator])
    assert torch.distributions.Distribution._validate_args
    with pytest.raises(InputError, match="at least 2 are needed"):
        model.conditional(torch.full((17, 2), float("nan")))
