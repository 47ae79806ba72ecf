"""Extreme evidence for every shipped model: finite answers, or one clear error."""

import gc
import resource
import sys

import pytest
import torch

from propose_prob.errors import InputError
from propose_prob.models import (
    LiftingConfig,
    LiftingFlow,
    ProHMR,
    ProHMRConfig,
    ProHMRJoints,
    ProPose,
    ProPoseConfig,
)
from propose_prob.weights import available, load

NAMES = [name for name in available() if "image" not in name]


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return load(request.param)


def _people(count=3):
    return 100 * torch.randn(count, 17, 2, generator=torch.Generator().manual_seed(0)) + 500


def _one_seen(count):
    p2d = _people()
    p2d[:, count:] = torch.nan
    return p2d


CASES = {
    "1e-30": lambda: _people() * 1e-30,
    "1e-15": lambda: _people() * 1e-15,
    "1e15": lambda: _people() * 1e15,
    "1e30": lambda: _people() * 1e30,
    "far away": lambda: _people() + 1e6,
    "all joints equal": lambda: torch.full((3, 17, 2), 7.0),
    "all joints zero": lambda: torch.zeros(3, 17, 2),
    "on a line": lambda: torch.arange(34.0).reshape(1, 17, 2).expand(3, 17, 2),
    "one joint seen": lambda: _one_seen(1),
    "two joints seen": lambda: _one_seen(2),
    "nothing seen": lambda: _one_seen(0),
    "infinite": lambda: _people().index_fill(1, torch.tensor([3]), torch.inf),
    "float16": lambda: _people().half(),
    "bfloat16": lambda: _people().bfloat16(),
    "float64": lambda: _people().double(),
    "integers": lambda: _people().long(),
    "not contiguous": lambda: _people().flip(1).transpose(1, 2).contiguous().transpose(1, 2),
    "zero people": lambda: _people(0),
    "expanded": lambda: _people(1).expand(4, 17, 2),
    "nested": lambda: _people(4).unflatten(0, (2, 2)),
    "single": lambda: _people(1)[0],
}


@pytest.mark.parametrize("intrinsics", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_finite_or_a_clear_error(model, case, intrinsics):
    p2d = CASES[case]()
    camera = {"focal": 1000.0, "center": (500.0, 500.0)} if intrinsics else {}
    try:
        distribution = model.conditional(p2d, **camera)
        draws, point = distribution.sample((4,)), distribution.point_estimate
        log_prob = distribution.log_prob(draws[:1])
    except InputError as error:
        assert "\n" not in str(error)
        assert case not in (
            *("not contiguous", "expanded", "nested", "single", "far away"),
            *("float16", "bfloat16", "float64", "integers"),
        )
        return
    assert draws.shape == (4, *p2d.shape[:-2], *distribution.event_shape)
    for name, value in (("samples", draws), ("point", point), ("log_prob", log_prob)):
        assert value.isfinite().all(), name


@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.int64])
def test_other_types_are_the_same_keypoints(model, kind):
    p2d = _people().to(kind)
    confidence = torch.ones(3, 17, dtype=torch.float64)
    camera = {"focal": 1000.0, "center": (500.0, 500.0)}
    expected = model.conditional(p2d.float(), **camera).point_estimate
    given = model.conditional(p2d, confidence, **camera).point_estimate
    assert given.dtype is torch.float32 and torch.equal(given, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p > 500, "expected 2D joints as numbers, got torch.bool"),
        (lambda p: p.cfloat(), "expected 2D joints as numbers, got torch.complex64"),
        (lambda p: p.double() * 1e40, "expected 2D joints within torch.float32, got"),
        (lambda p: p.numpy(), "expected 2D joints as a torch tensor, got ndarray"),
    ],
)
def test_what_no_keypoints_can_be_is_refused(model, change, message):
    with pytest.raises(InputError, match=message):
        model.conditional(change(_people()))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_focal_lengths_and_confidences_are_finite(model, value):
    with pytest.raises(InputError, match="expected a focal length > 0 and finite"):
        model.conditional(_people(), focal=value)
    if value != value:
        with pytest.raises(InputError, match="got NaN"):
            model.conditional(_people(), torch.full((3, 17), value))


@pytest.mark.slow
def test_a_huge_batch_is_its_chunks(model):
    people = _people(5000)
    distribution = model.conditional(people)
    assert distribution.sample((2,)).isfinite().all()
    whole = distribution.point_estimate
    parts = [model.conditional(part).point_estimate for part in people.split(700)]
    torch.testing.assert_close(whole, torch.cat(parts), atol=1e-4, rtol=1e-4)


def _resident():
    """Memory of this process, MB."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def _growth(model, calls, warm):
    """How much memory calls take after the first ones, MB, and how many tensors they leave."""
    p2d = _people(1)

    def call(number):
        distribution = model.conditional(p2d)
        draws = distribution.sample((2,))
        # Densities that are estimated take seconds in the shipped models.
        if distribution.log_prob_kind == "exact" or (
            number % 50 == 0 and distribution.log_prob_kind != "none"
        ):
            distribution.log_prob(draws[0])

    with torch.no_grad():
        for number in range(warm):
            call(number)
        before, objects = _resident(), len(gc.get_objects())
        for number in range(calls - warm):
            call(number)
        return _resident() - before, len(gc.get_objects()) - objects


SMALL = {
    "propose": lambda: ProPose(
        ProPoseConfig(latent=6, couplings=2, flow_width=16, code=16, width=16, blocks=1,
                      decoder_width=16, decoder_blocks=1)
    ),
    "lifting": lambda: LiftingFlow(
        LiftingConfig(couplings=1, flow_width=16, context=16, width=16, blocks=1)
    ),
    "prohmr": lambda: ProHMRJoints(
        ProHMR(ProHMRConfig(flow_width=16, width=16, context=16, couplings=1, blocks=1))
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", SMALL)
def test_memory_of_ten_thousand_calls_is_flat(kind):
    torch.manual_seed(0)
    growth, objects = _growth(SMALL[kind]().eval(), 10_000, 1000)
    print(f"{kind}: {growth:+.2f} MB and {objects:+d} objects in 9,000 calls")
    # A tensor of 17 joints left behind by each call would be 2 MB.
    assert growth < 2 and objects < 500


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_shipped_models_is_flat(model):
    growth, objects = _growth(model, 500, 150)
    print(f"{growth:+.2f} MB and {objects:+d} objects in 350 calls")
    assert growth < 4 and objects < 500
