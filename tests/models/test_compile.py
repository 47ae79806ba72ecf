"""`torch.compile` of samplers: one graph, the same numbers; on GPUs replayed as a CUDA graph."""

import shutil

import pytest
import torch

from propose_prob.conditional import freeze
from propose_prob.models import LiftingConfig, LiftingFlow, Sampler
from propose_prob.models.export import PointEstimator
from propose_prob.weights import load
from tests.zoo import perturbed

# Of torch about that one release of Python.
pytestmark = pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0")


@pytest.fixture(autouse=True)
def _validation_as_before():
    # Torch turns it off for the whole process when it compiles.
    before = torch.distributions.Distribution._validate_args
    yield
    torch.distributions.Distribution.set_default_validate_args(before)


def _given(model, batch, device="cpu"):
    generator = torch.Generator().manual_seed(batch)
    p2d = 100 * torch.randn(batch, 17, 2, generator=generator) + 500
    confidence = (torch.rand(batch, 17, generator=generator) > 0.2).float()
    noise = torch.randn(4, batch, Sampler(model).noise_size(), generator=generator)
    return [x.to(device) for x in (p2d, confidence, noise)]


@torch.no_grad()
def _check(model, backend, *, batches, device="cpu", **options):
    """One graph: no part of a model falls back to Python."""
    for kind in (Sampler, PointEstimator):
        module = kind(model)
        compiled = torch.compile(module, fullgraph=True, backend=backend, **options)
        for batch in batches:
            given = _given(model, batch, device)[: 3 if kind is Sampler else 2]
            torch.testing.assert_close(compiled(*given), module(*given), rtol=0, atol=1e-5)


def test_a_model_is_one_graph_for_every_batch_size():
    config = LiftingConfig(couplings=1, flow_width=16, width=16, blocks=1, context=8)
    _check(perturbed(LiftingFlow(config), scale=0.3).float(), "eager", batches=(1, 5, 7))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["propose-cmu17", "prohmr-cmu17", "prohmr-lifting-cmu17"])
@pytest.mark.parametrize("frozen", [False, True])
def test_shipped_models_are_one_graph(name, frozen):
    model = load(name)
    _check(freeze(model) if frozen else model, "eager", batches=(1, 3))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's compiler needs a C++ compiler")
def test_compiled_kernels_agree_with_eager():
    _check(load("prohmr-lifting-cmu17"), "inductor", batches=(1,))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["propose-cmu17", "prohmr-cmu17", "prohmr-lifting-cmu17"])
def test_cuda_graphs_agree_with_eager(name):
    model = load(name, device="cuda")
    _check(model, "inductor", batches=(1, 16), device="cuda", mode="reduce-overhead")
