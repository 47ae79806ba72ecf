"""Extreme evidence for every shipped model: finite answers, or one clear error."""

import pytest
import torch

from propose_prob import InputError, available, load

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
        law = model.conditional(p2d, **camera)
        draws, point = law.sample((4,)), law.point_estimate
        log_prob = law.log_prob(draws[:1])
    except InputError as error:
        assert "\n" not in str(error)
        assert case not in ("not contiguous", "expanded", "nested", "single", "far away")
        return
    assert draws.shape == (4, *p2d.shape[:-2], *law.event_shape)
    for name, value in (("samples", draws), ("point", point), ("log_prob", log_prob)):
        assert value.isfinite().all(), name


@pytest.mark.slow
def test_a_huge_batch(model):
    law = model.conditional(_people(20_000))
    assert law.sample((2,)).isfinite().all()


@pytest.mark.slow
def test_memory_of_many_calls_is_flat(model):
    import gc

    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 1e6

    p2d, sizes = _people(1), []
    with torch.no_grad():
        for call in range(10_000):
            law = model.conditional(p2d)
            draws = law.sample((2,))
            if law.log_prob_kind == "exact" or call % 20 == 0:
                law.log_prob(draws[0])
            if call % 1000 == 999:
                sizes.append(resident())
    assert sizes[-1] - sizes[0] < 10, sizes
