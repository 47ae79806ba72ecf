"""Lifting into a folder of parts: resumed, shared out, and always the same numbers."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import xarray as xr

from propose_prob.cli import main
from propose_prob.cli.lift import Lift
from propose_prob.weights import load, save
from tests.cli.conftest import coco_results

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

    lifted.model = tiny_model
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


def test_two_runs_of_the_same_part_at_once_end_alike(lift, folder, monkeypatch):
    """The second one comes in the middle of the first one's part."""
    lift("whole")
    named, seen, inner = Lift.named, [], []

    def and_again(self, frame, path):
        seen.append(frame)
        if len(seen) == PART - 1:
            # As another process, which has random numbers of its own.
            with torch.random.fork_rng():
                inner.append(main([*line, "--out", "both"]))
        return named(self, frame, path)

    line = ["lift", str(folder / "walk.npy"), "--skeleton", "h36m_17", "--samples", "3"]
    line += ["--batch-size", "2"]
    line += ["--part-frames", str(PART), "--model", lift.model]
    monkeypatch.setattr(Lift, "named", and_again)
    code, _, err = lift("both")
    assert code == 0 and inner == [0], err
    _assert_same(_contents(folder / "both"), _contents(folder / "whole"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes pipes")
@pytest.mark.parametrize("place", ["whole/lift.json", "whole/part-000002.nc", "frames/9.json"])
def test_pipes_are_refused_and_not_waited_for(lift, folder, run, place, tiny_model):
    (folder / "frames").mkdir()
    (folder / "frames" / "0.json").write_text(coco_results(1))
    lift("whole")
    (folder / place).unlink(missing_ok=True)
    os.mkfifo(folder / place)
    again = ("lift", "frames", "--model", tiny_model, "--out", "new")
    _refused(lift("whole") if place.startswith("whole") else run(*again), "got a pipe")


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
    code, _out, err = lift("whole", "--seed", 1)
    assert code == 2 and "holds the output of other options (seed differ)" in err
    (folder / "other").mkdir()
    (folder / "other" / "diary.txt").write_text("not ours")
    code, _out, err = lift("other")
    assert code == 2 and "expected a new folder" in err
    (folder / "file").write_text("not ours")
    code, _out, err = lift("file")
    assert code == 2 and "expected a folder" in err
    (folder / "whole" / "lift.json").write_text("[")
    assert "expected JSON" in lift("whole")[2]
    _assert_same(_contents(folder / "whole"), before)


def _refused(answer, words):
    code, out, err = answer
    assert code == 2 and not out and err.count("\n") == 1
    assert words in err


def test_other_keypoints_under_the_same_name_are_noticed(lift, folder, walk):
    lift("whole")
    before = _contents(folder / "whole")
    array = np.load(walk)
    array[0, 0, 0] += 1
    np.save(walk, array)
    _refused(lift("whole"), "(files_content differ)")
    _assert_same(_contents(folder / "whole"), before)


def test_another_model_under_the_same_name_is_noticed(lift, folder, tiny_model, run, walk):
    shutil.copy(tiny_model, "mine.safetensors")
    assert lift("whole", "--model", "mine.safetensors")[0] == 0
    assert "0 new of" in lift("whole", "--model", "mine.safetensors")[1]
    torch.manual_seed(1)
    model = load("mine.safetensors").requires_grad_(True)
    with torch.no_grad():
        next(model.parameters()).add_(0.1)
    save(model, "mine.safetensors")
    _refused(lift("whole", "--model", "mine.safetensors"), "(model_content differ)")


def test_the_same_names_in_another_working_folder_are_noticed(lift, folder, monkeypatch, walk):
    (folder / "there").mkdir()
    np.save(folder / "there" / "walk.npy", np.load(walk) + 1)
    relative = ["lift", "walk.npy", "--skeleton", "h36m_17", "--part-frames", str(PART)]
    relative += ["--samples", "3", "--out", str(folder / "whole")]
    assert main(relative) == 0
    monkeypatch.chdir(folder / "there")
    assert main(relative) == 2


def test_folders_of_keypoints_are_compared_by_what_is_in_them(run, folder, tiny_model):
    (folder / "frames").mkdir()
    for frame in range(4):
        (folder / "frames" / f"{frame}.json").write_text(coco_results(1, seed=frame))
    argv = ["lift", "frames", "--model", tiny_model, "--samples", 2, "--part-frames", 2]
    # Within the folder of its input, which it does not read from there.
    argv += ["--out", "frames/parts"]
    assert run(*argv)[0] == 0 and "0 new" in run(*argv)[1]
    (folder / "frames" / "2.json").write_text(coco_results(1, seed=9))
    _refused(run(*argv), "(files_content differ)")
    _refused(run(*argv[:-1], "frames"), "among the inputs")


@pytest.mark.parametrize("left", [0, 1, 40, 0.5, -1])
def test_a_part_that_was_cut_short_is_written_again(lift, folder, left):
    lift("whole")
    before = _contents(folder / "whole")
    path = folder / "whole" / "part-000002.nc"
    content = path.read_bytes()
    path.write_bytes(content[: int(left * len(content)) if left == 0.5 else left])
    assert "in 1 new of 5 parts" in lift("whole")[1]
    _assert_same(_contents(folder / "whole"), before)


@pytest.mark.parametrize(
    "junk", [b"", b"\xff", b"[" * 100_000, b"3", b"9" * 6000, b'{"samples": "\x1b[2J"}', b"[]"]
)
def test_settings_that_are_none_are_one_line(lift, folder, junk):
    lift("whole")
    (folder / "whole" / "lift.json").write_bytes(junk)
    code, _out, err = lift("whole")
    assert code == 2 and err.count("\n") == 1 and "\x1b" not in err
