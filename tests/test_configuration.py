"""What configurations may hold: every number states its range, and is refused outside it."""

import dataclasses
import importlib
import json
import pkgutil

import pytest

import propose_prob
from propose_prob.configuration import check_ranges, count, from_dict, number, pair, to_dict
from propose_prob.errors import InputError
from propose_prob.models.registry import REGISTRY
from propose_prob.training.configs import TrainConfig


def configurations():
    """Every configuration of the package."""
    found = {}
    for info in pkgutil.walk_packages(propose_prob.__path__, "propose_prob."):
        # Programs, which run when they are imported.
        if info.name.rpartition(".")[2] in ("__main__", "sandbox_child"):
            continue
        for name, kind in vars(importlib.import_module(info.name)).items():
            if name.endswith("Config") and dataclasses.is_dataclass(kind):
                found[kind] = kind()
    return list(found.values())


CONFIGURATIONS = configurations()


def test_every_number_states_its_range():
    assert len(CONFIGURATIONS) >= 27
    silent = [
        f"{type(config).__name__}.{entry.name}"
        for config in CONFIGURATIONS
        for entry in dataclasses.fields(config)
        if not isinstance(value := getattr(config, entry.name), (str, bool))
        and not dataclasses.is_dataclass(value)
        and "range" not in entry.metadata
    ]
    assert not silent


def numbers():
    return [
        pytest.param(config, entry, id=f"{type(config).__name__}.{entry.name}")
        for config in CONFIGURATIONS
        for entry in dataclasses.fields(config)
        if "range" in entry.metadata
    ]


@pytest.mark.parametrize("config", CONFIGURATIONS, ids=lambda config: type(config).__name__)
def test_defaults_are_within_their_ranges_and_survive_json(config):
    check_ranges(config)
    again = json.loads(json.dumps(to_dict(config)))
    assert from_dict(again, default=type(config)()) == config


@pytest.mark.parametrize(("config", "entry"), numbers())
def test_every_number_is_refused_outside_its_range(config, entry):
    value = getattr(config, entry.name)
    nan = float("nan")
    wrong = [(nan, nan), (9e9, 9e9)] if isinstance(value, tuple) else [-1e9, 1e30, nan]
    for each in map(list, wrong) if isinstance(value, tuple) else wrong:
        if isinstance(value, int):
            if each != each:
                continue
            each = int(each)
        # The configuration's own checks of what goes together come first.
        wanted = f"^configuration: {entry.name} (must be .*, got |is for )"
        with pytest.raises(InputError, match=wanted):
            from_dict({entry.name: each}, default=config)


@dataclasses.dataclass(frozen=True)
class Inner:
    best: int = count(2, at_most="all")
    all: int = count(8, low=0, high=10)


@dataclasses.dataclass(frozen=True)
class Outer:
    clip: float = number(1.0, above=0.0, high=5.0)
    low: float = number(0.0, low=-2.5)
    order: tuple[float, float] = pair((1.0, 2.0), low=0.5, high=4.0)
    apart: tuple[float, float] = pair((2.0, 1.0), low=0.5, high=4.0, ordered=False)
    inner: Inner = dataclasses.field(default_factory=Inner)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip": 0}, "clip must be above 0 to 5, got 0.0"),
        ({"clip": 5.1}, "clip must be above 0 to 5, got 5.1"),
        ({"low": -3}, "low must be -2.5 to 1e+06, got -3.0"),
        ({"order": [2, 1]}, "order must be 0.5 to 4, the smaller first, got (2.0, 1.0)"),
        ({"apart": [2, 5]}, "apart must be 0.5 to 4, got (2.0, 5.0)"),
        ({"inner": {"best": 9}}, "inner.best must be at most inner.all, got 9"),
        ({"inner": {"all": 11}}, "inner.all must be 0 to 10, got 11"),
        ({"inner": {"all": True}}, "inner.all must be int, got True"),
        ([], "expected names and values, got list"),
    ],
)
def test_messages_say_what_may_be(values, message):
    with pytest.raises(InputError) as error:
        from_dict(values, default=Outer())
    assert str(error.value) == f"configuration: {message}"


def test_a_number_without_a_range_is_a_mistake_of_whoever_wrote_it():
    @dataclasses.dataclass(frozen=True)
    class Silent:
        width: int = 3

    with pytest.raises(TypeError, match=r"Silent\.width has to state its range"):
        check_ranges(Silent())


def test_what_the_data_decide_is_fixed_in_a_training_only():
    entry = REGISTRY["propose"]
    with pytest.raises(InputError, match=r"model\.joints must be 17, as the data have, got 18"):
        from_dict({"model": {"joints": 18}}, default=TrainConfig())
    assert from_dict({"joints": 18}, default=entry.config(), fixed=False).joints == 18
