"""Hostile command lines, configurations and weights by kind: one line, and nothing left behind."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from propose_prob.cli import main
from propose_prob.configuration import from_dict
from propose_prob.errors import InputError
from propose_prob.results.reader import read_result
from propose_prob.training.configs import TrainConfig
from propose_prob.weights import load, save
from tests.fuzz.commands import DEFAULTS, make_inputs

pytest.importorskip("matplotlib", reason="commands draw")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything that commands read, small."""
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder)
    return folder


@pytest.fixture
def refused(capfd, tmp_path, monkeypatch):
    """Check that a command line is refused in one line, and that nothing is left."""
    monkeypatch.chdir(tmp_path)

    def check(line, words=""):
        threads, before = torch.get_num_threads(), sorted(tmp_path.rglob("*"))
        try:
            assert main([str(part) for part in line]) == 2, line
        finally:
            torch.set_num_threads(threads)
        err = capfd.readouterr().err
        assert err.startswith("propose-prob: error: ") and err.count("\n") == 1, err
        assert words in err and len(err) < 3000, err
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"model":' * 50_000,
        "",
        "\ufeff",
        "null",
        "[]",
        '{"model": [1]}',
        '{"model": {"width": ' + "9" * 5000 + "}}",
    ],
    ids=range(8),
)
def test_configurations_that_are_none(refused, tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    for kind in DEFAULTS:
        refused(["train", kind, "--out", "out", "--config", "config.json"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 to 65536, got 0"),
        ({"steps": -1}, "steps must be 1 to"),
        ({"warmup": 2.0}, r"warmup must be 0 to 1, got 2\.0"),
        ({"clip": 0}, "clip must be above 0 to"),
        ({"rate1": 10**400}, "rate1 is too large"),
        ({"model": {"width": 10**9}}, r"model\.width must be 1 to 65536"),
        ({"model": {"joints": 18}}, r"model\.joints must be 17, as the data have, got 18"),
        ({"model": {"dropout": float("nan")}}, r"model\.dropout must be 0 to 1, got nan"),
        ({"loss": {"best": 9}}, r"loss\.best must be at most loss\.hypotheses"),
        ({"simulator": {"distance": [8, 2]}}, r"simulator\.distance must be 0\.1 to 1000, the sm"),
        ({"simulator": {"pitch": ["a", 2]}}, r"simulator\.pitch must be 2 numbers"),
    ],
)
def test_ranges_of_a_configuration(values, message):
    with pytest.raises(InputError, match=message):
        from_dict(values, default=TrainConfig())


def test_sizes_that_do_not_go_together_are_named(refused, tmp_path, place):
    (tmp_path / "config.json").write_text('{"model": {"base": "none"}}')
    data = ["--data", place / "world.npz", "--validation", place / "world.npz"]
    line = ["train", "lifting", "--out", "out", "--config", "config.json", *data]
    refused(line, "expected base 'pagd' or 'standard'")


def test_a_training_whose_loss_is_no_number_is_one_line(place, tmp_path, monkeypatch, capfd):
    """What was trained before stays in its folder, as after an interruption."""
    monkeypatch.chdir(tmp_path)
    np.savez("far.npz", world=1e30 * np.random.default_rng(0).normal(size=(9, 17, 3)))
    line = ["train", "lifting", "--config", str(place / "training.json"), "--out", "out"]
    line += ["--data", "far.npz", "--validation", str(place / "world.npz")]
    assert main(line) == 2
    err = capfd.readouterr().err
    assert err.startswith("propose-prob: error: ") and err.count("\n") == 1, err


def scaled(place, path, factor, model="joints.safetensors"):
    """A model whose weights are all larger."""
    model = load(place / model).requires_grad_(True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    save(model, path)
    return path


@pytest.mark.parametrize("factor", [1e6, 1e12, 1e25])
@pytest.mark.parametrize("command", ["lift", "smooth", "fuse", "demo", "evaluate", "report"])
def test_weights_that_are_far_too_large_are_one_line(refused, place, tmp_path, command, factor):
    path, people = scaled(place, tmp_path / "a.safetensors", factor), place / "people.json"
    refused(
        {
            "lift": ["lift", people, "--model", path],
            "smooth": ["smooth", people, "--fps", 30, "--model", path],
            "fuse": ["fuse", people, people, "--model", path],
            "demo": ["demo", "--model", path],
            "evaluate": ["evaluate", path, "--stride", 5000, "--samples", 2],
            "report": ["report", path, "--stride", 5000, "--samples", 2],
        }[command]
    )


@pytest.mark.parametrize("name", ["9" * 200, "9" * 17])
@pytest.mark.parametrize("command", ["smooth", "fuse"])
def test_numbers_of_frames_are_numbers(refused, place, tmp_path, command, name):
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / f"a{name}.json").write_bytes(
        b'{"people": [{"pose_keypoints_2d": ['
        + b", ".join(b"%d" % number for number in range(1, 76))
        + b"]}]}"
    )
    line = ["frames", "--fps", 30] if command == "smooth" else ["frames", "frames"]
    model = ["--model", place / "joints.safetensors"]
    refused([command, *line, *model], "expected a number of a frame")


def test_a_figure_of_poses_beyond_everything_is_refused(refused, place, tmp_path):
    """Finite all the same, so that they could be stored."""
    path = scaled(place, tmp_path / "a.safetensors", 1.0)
    model = load(path).requires_grad_(True)
    model.pose_std.mul_(1e9)
    save(model, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused(["demo", "--model", path], "expected poses within 1000 m")


def test_as_a_user_types_them(tmp_path, place):
    """A few in processes of their own: what Python would print there would be seen here."""
    odd = os.fsencode(place) + b"/\xff\xfe.json"
    for line in (
        [b"lift", odd],
        [b"train", b"propose", b"--out", b"out", b"--config", os.fsencode(place / "deep.json")],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "propose_prob", *line], cwd=tmp_path, capture_output=True
        )
        assert done.returncode == 2 and not done.stdout, done
        assert done.stderr.startswith(b"propose-prob: error: ") and done.stderr.count(b"\n") == 1
    assert not list(tmp_path.iterdir())


#: Of Python itself; what `python -m` imports before it starts a package is not ours.
BESIDE = (
    *("pathlib", "re", "typing", "sysconfig", "enum"),
    *("json", "signal", "__future__", "dataclasses"),
)


@pytest.mark.parametrize("start", ["module", "script"])
def test_modules_of_python_beside_the_data_do_not_run(tmp_path, start):
    for name in (*BESIDE, *(("collections", "types") if start == "script" else ())):
        (tmp_path / f"{name}.py").write_text("open('EXECUTED', 'w').close()\n")
    script = tmp_path / "bin" / "propose-prob"
    script.parent.mkdir()
    script.write_text("import sys\nfrom propose_prob.cli import main\nsys.exit(main())\n")
    command = ["-m", "propose_prob"] if start == "module" else [str(script)]
    done = subprocess.run(
        [sys.executable, *command, "--version"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("propose-prob "), done.stderr
    assert not (tmp_path / "EXECUTED").exists()


def test_names_of_files_that_are_no_text_are_written_all_the_same(tmp_path, place):
    """Bytes that are no UTF-8 in the names of input, output and frames."""
    source, target = (
        os.path.join(os.fsencode(tmp_path), name) for name in (b"\xff.json", b"\xfe.nc")
    )
    shutil.copy(place / "people.json", source)
    done = subprocess.run(
        [sys.executable, "-m", "propose_prob", "lift", source, source, "--out", target,
         "--model", place / "joints.safetensors", "--samples", "2"],
        cwd=tmp_path, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert b"4 people" in done.stdout and os.path.getsize(target)
    assert Path(read_result(os.fsdecode(target)).frames[0]).name.endswith("?.json:0")
