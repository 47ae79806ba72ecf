"""Settings of hypothesis, and smaller sizes for tests that need no more."""

import functools

import pytest
from hypothesis import settings

# Timings vary with the machine's load; the same examples on every run make a red test reproducible.
settings.register_profile("propose_prob", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("propose_prob")


def with_items(kind, items):
    """`kind.from_simulator` with so many items where its caller gives no number."""
    whole = kind.from_simulator.__func__

    def from_simulator(cls, simulator, **options):
        return whole(cls, simulator, **({"items": items} | options))

    return classmethod(from_simulator)


@pytest.fixture(scope="module")
def few_validation_pairs():
    """Commands validate on 50 pairs of the simulator instead of 1000."""
    from propose_prob.training.validation import BodyValidation, Validation

    with pytest.MonkeyPatch.context() as patch:
        for kind in (Validation, BodyValidation):
            patch.setattr(kind, "from_simulator", with_items(kind, 50))
        yield


@pytest.fixture
def few_fitting_steps(monkeypatch):
    """Fits take 3 steps of each solver: for tests of what is written, wherever a fit ends."""
    from propose_prob.tasks import fitting

    monkeypatch.setattr(fitting, "fit", functools.partial(fitting.fit, max_steps=3))
