"""Lifting into a folder of parts: resumed, shared out, and always the same numbers."""

import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

from propose_prob.cli.lift import Lift

FRAMES, PART = 23, 5


@pytest.fixture
def walk(folder):
    generator = np.random.default_rng(0)
    array = 100 * generator.standard_normal((FRAMES, 17, 2)) + 500
    array[5:10] = np.nan  # a whole part in which nobody is seen
    np.save(folder / "walk.npy", array)
    return folder / "walk.npy"


@pytest.fixture
def lift(run, walk, tiny_model):
    def lifted(out, *more):
        argv = ["lift", walk, "--skeleton", "h36m_17", "--model", tiny_model, "--samples", 3]
        return run(*argv, "--part-frames", PART, "--batch-size", 2, "--out", out, *more)

    return lifted


def _contents(folder):
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".nc":
            with xr.open_dataset(path, group="posterior") as data:
                found[path.name] = (data["frame"].values.tolist(), data["pose"].values)
        else:
            found[path.name] = path.read_bytes()
    return found


def _assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith(".nc"):
            assert found[name][0] == value[0], name
            np.testing.assert_array_equal(found[name][1], value[1], err_msg=name)


def test_parts_hold_all_frames_once(lift, folder):
    code, out, err = lift("whole")
    assert code == 0 and "18 people in 5 new of 5 parts" in out, err
    contents = _contents(folder / "whole")
    names = [f"part-{i:06d}.{'empty' if i == 1 else 'nc'}" for i in range(5)]
    assert sorted(contents) == sorted([*names, "lift.json"])
    frames = [frame for name in names if name.endswith("nc") for frame in contents[name][0]]
    assert [int(frame) for frame in frames] == [*range(5), *range(10, FRAMES)]


def test_an_interrupted_run_goes_on_to_the_same_numbers(lift, folder, monkeypatch):
    lift("whole")
    write, calls = Lift.write, []

    def interrupted(self, model, frames, out):
        calls.append(out)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return write(self, model, frames, out)

    with monkeypatch.context() as patch:
        patch.setattr(Lift, "write", interrupted)
        assert lift("broken")[0] == 130
    code, out, _ = lift("broken")
    assert code == 0 and "in 2 new of 5 parts" in out
    _assert_same(_contents(folder / "broken"), _contents(folder / "whole"))
    assert "0 people in 0 new" in lift("broken")[1]


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_numbers(walk, tiny_model, lift, folder):
    lift("whole", "--part-frames", 1)
    argv = [sys.executable, "-m", "propose_prob", "lift", walk, "--skeleton", "h36m_17"]
    argv += ["--model", tiny_model, "--samples", 3, "--batch-size", 2, "--part-frames", 1]
    killed = subprocess.Popen([*map(str, argv), "--out", "killed"], stdout=subprocess.DEVNULL)
    while len(list(folder.glob("killed/part-*"))) < 5 and killed.poll() is None:
        time.sleep(0.001)
    killed.kill()
    killed.wait()
    assert len(list(folder.glob("killed/part-*"))) < FRAMES, "it was through already"
    assert lift("killed", "--part-frames", 1)[0] == 0
    _assert_same(_contents(folder / "killed"), _contents(folder / "whole"))


def test_processes_share_the_parts(lift, folder, monkeypatch):
    lift("whole")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, count in (("1", 2), ("0", 3)):
        monkeypatch.setenv("RANK", rank)
        assert f"of {count} parts" in lift("shared")[1]
    _assert_same(_contents(folder / "shared"), _contents(folder / "whole"))


def test_output_of_other_options_is_not_mixed(lift, folder):
    lift("whole")
    before = _contents(folder / "whole")
    code, out, err = lift("whole", "--seed", 1)
    assert code == 2 and "holds the output of other options (seed differ)" in err
    (folder / "other").mkdir()
    (folder / "other" / "diary.txt").write_text("not ours")
    code, out, err = lift("other")
    assert code == 2 and "expected a new folder" in err
    (folder / "file").write_text("not ours")
    code, out, err = lift("file")
    assert code == 2 and "expected a folder" in err
    (folder / "whole" / "lift.json").write_text("[")
    assert "expected JSON" in lift("whole")[2]
    _assert_same(_contents(folder / "whole"), before)
