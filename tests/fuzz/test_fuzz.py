"""Damaged and hostile inputs of every format and command: an answer, or one line and exit code 2.

The default suite takes a few seeds of each; `make fuzz SEEDS=0:20000` (marker `fuzz`) takes as many
as it is told, in worker processes.
"""

import os

import pytest

from tests.fuzz import misbehaved, runner
from tests.fuzz.commands import COMMANDS
from tests.fuzz.formats import FORMATS

#: Those that take a second or more each.
LONG = (
    *(
        "fit",
        "report",
        "demo",
        "evaluate",
        "render",
        "as a user types it",
        "train on after changes",
    ),
    *("fit of changed keypoints", "photo of changed keypoints", "report of changed pairs"),
    *("train on changed data", "evaluate by changed weights", "fit by changed weights"),
)


def few(name):
    """Seeds of the default suite."""
    if name in LONG:
        return range(1)
    return range(5 if name in COMMANDS or FORMATS[name].weight > 4 else 2)


@pytest.mark.parametrize("name", [*FORMATS, *COMMANDS])
def test_a_few_inputs(name, tmp_path):
    subject = runner.session(name, tmp_path / "session")
    faults = [o for o in (runner.examine(subject, seed) for seed in few(name)) if o.fault]
    assert not faults, "\n".join(f"{name}, seed {o.seed}: {o.fault}" for o in faults)


@pytest.mark.fuzz
def test_many_inputs(fuzz_range, pytestconfig, capfd):
    only = pytestconfig.getoption("--fuzz-only")
    weights = {only: 1} if only else runner.subjects()
    with capfd.disabled():
        tallies = runner.run(
            runner.schedule(weights, fuzz_range),
            workers=pytestconfig.getoption("--fuzz-workers"),
            seconds=60 * pytestconfig.getoption("--fuzz-minutes"),
            tell=lambda text: print(text, flush=True),
        )
        print(f"\n{runner.table(tallies)}")
    faults = [outcome for tally in tallies.values() for outcome in tally.faults]
    assert not faults, "; ".join(f"{o.name}, seed {o.seed}" for o in faults)


# The runner itself --------------------------------------------------------------------------------


def test_every_format_and_command_comes_as_often_as_it_weighs():
    weights = {"a": 3, "b": 1}
    names = [name for name, _ in runner.schedule(weights, range(8))]
    assert names.count("a") == 6 and names.count("b") == 2 and names[:4] == names[4:]
    assert {name for name, _ in runner.schedule(runner.subjects(), range(20_000))} == {
        *FORMATS, *COMMANDS,
    }  # fmt: skip
    # The same number is the same input, whatever others run.
    assert runner.schedule(weights, range(5, 6)) == runner.schedule(weights, range(8))[5:6]


@pytest.mark.skipif(not hasattr(os, "setsid"), reason="groups of processes")
def test_crashes_hangs_and_hogs_are_known_by_their_seeds(monkeypatch):
    monkeypatch.setattr(runner, "work", misbehaved.work)
    monkeypatch.setattr(runner, "SECONDS", 3)
    monkeypatch.setattr(runner, "MEGABYTES", 500)
    told = []
    tallies = runner.run([("a", seed) for seed in range(7)], workers=1, tell=told.append)
    tally = tallies["a"]
    faults = {outcome.seed: outcome.fault for outcome in tally.faults}
    assert sorted(faults) == [1, 2, 3, 4]
    assert faults[1] == "ended its process with exit code -11"
    assert "does not end" in faults[2] and "MB" in faults[3] and "KeyError: 'x'" in faults[4]
    assert (tally.inputs, tally.answered) == (7, 1) and len(told) >= 4
    assert "2" in runner.table(tallies).splitlines()[-1]
