"""Hostile command lines: a line on the standard error and exit code 2, and nothing left behind."""

import json
import os
import random
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from propose_prob.cli import main
from propose_prob.configuration import from_dict, to_dict
from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.images.training import ImageTrainConfig
from propose_prob.models import ProHMR, ProHMRConfig, ProPose, ProPoseConfig
from propose_prob.results.reader import read_result
from propose_prob.results.writer import open_writer
from propose_prob.training.configs import (
    BodyTrainConfig,
    DiffusionTrainConfig,
    LiftingTrainConfig,
    MixtureTrainConfig,
    RegressionTrainConfig,
    TrainConfig,
    VariationalTrainConfig,
)
from propose_prob.weights import save

pytest.importorskip("matplotlib", reason="commands draw")

_SMALL = dict(latent=6, couplings=2, flow_width=16, code=16, width=16, blocks=1,
              decoder_width=16, decoder_blocks=1)  # fmt: skip

INTEGERS = ("-1", "0", "1000000000000", "1" + 30 * "0", "9" * 5000, "x", "nan", "1e3", "", "\udcff")
NUMBERS = ("-1", "0", "nan", "inf", "-inf", "1e308", "-1e-320", "x", "", "1" * 400)
TEXTS = ("", "\x00", "../../..", "/", ".", "x" * 5000, "\udcff\udcfe", "-", "a\nb", "none", "🦆")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything that commands read, small."""
    folder = tmp_path_factory.mktemp("fuzz")
    torch.manual_seed(0)
    save(ProPose(ProPoseConfig(**_SMALL)), folder / "joints.safetensors")
    body = ProHMRConfig(flow_width=16, width=16, context=16, couplings=1, blocks=1)
    save(ProHMR(body), folder / "body.safetensors")
    points = torch.rand(2, 17, 3) * 500
    points[..., 2] = 0.9
    people = [
        {"image_id": frame, "category_id": 1, "keypoints": point.flatten().tolist()}
        for frame, point in enumerate(points)
    ]
    (folder / "people.json").write_text(json.dumps(people))
    with open_writer(folder / "result.npz", joint_names=H36M_17.joint_names) as writer:
        writer.append({"point_estimate": np.zeros((1, 17, 3))}, {"frame": ["0"], "person": ["0"]})
        writer.finish({})
    camera = {"R": np.eye(3).tolist(), "t": [0, 0, 3], "focal": 900, "center": [0, 0]}
    (folder / "cameras.json").write_text(json.dumps([camera, camera]))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "empty.json").write_text("")
    (folder / "junk.npz").write_bytes(bytes(range(256)) * 8)
    (folder / "folder.json").mkdir()
    (folder / os.fsdecode(b"\xff\xfe.json")).write_bytes(b"\xff\xfe")
    return folder


def files(folder):
    """Names of files that are no answer: missing, empty, folders, of other kinds, unreadable."""
    names = (
        "missing.json",
        "deep.json",
        "empty.json",
        "junk.npz",
        "folder.json",
        "cameras.json",
        os.fsdecode(b"\xff\xfe.json"),
        "people.json/x.json",
        "x" * 300,
        "body.safetensors",
    )
    return (*(str(folder / name) for name in names), *TEXTS)  # fmt: skip


def outputs(folder):
    """Where nothing can be written."""
    return ("no/out.nc", str(folder / "folder.json"), "/proc/out.nc", "/dev/full",
            "people.nc/out.nc", "x" * 300 + ".nc", "out.pdf", *TEXTS)  # fmt: skip


def commands(folder):
    """Command lines that work, and which values each of their options can be given."""
    people, joints, body = (
        str(folder / name) for name in ("people.json", "joints.safetensors", "body.safetensors")
    )
    read, write = files(folder), outputs(folder)
    sizes = {"--seed": INTEGERS, "--threads": INTEGERS, "--device": TEXTS}
    camera = {"--focal": NUMBERS, "--center": NUMBERS, "--image-size": INTEGERS}
    track = {
        **camera,
        "--min-joints": INTEGERS,
        "--min-confidence": NUMBERS,
        "--skeleton": TEXTS,
        "--model": read,
        "--out": write,
        **sizes,
    }
    measured = {
        "--stride": INTEGERS, "--samples": INTEGERS, "--hide": INTEGERS, "--kind": TEXTS,
        "--batch-size": INTEGERS, "--use": TEXTS, "--intrinsics": TEXTS, **sizes,
    }  # fmt: skip
    training = {
        "--data": read, "--validation": read, "--config": read, "--steps": INTEGERS,
        "--init": read, "--checkpoint-minutes": NUMBERS, "--out": write, **sizes,
    }  # fmt: skip
    return {
        "lift": (
            ("lift", people, "--model", joints, "--samples", "2", "--out", "out.nc"),
            {**track, "FILE": read, "--samples": INTEGERS, "--batch-size": INTEGERS,
             "--part-frames": INTEGERS, "--use": TEXTS},
        ),
        "fit": (
            ("fit", people, "--model", body, "--solver", "lm", "--out", "out.npz"),
            {**track, "FILE": read, "--body": read, "--noise": NUMBERS, "--frame-rate": NUMBERS,
             "--solver": TEXTS, "--likelihood": TEXTS, "--batch-size": INTEGERS},
        ),
        "fuse": (
            ("fuse", people, people, "--model", joints, "--out", "out.nc"),
            {**track, "FILE": read, "--cameras": read, "--keypoint-scale": NUMBERS,
             "--person": TEXTS, "--batch-size": INTEGERS},
        ),
        "smooth": (
            ("smooth", people, "--fps", "9", "--model", joints, "--out", "out.nc"),
            {**track, "FILE": read, "--fps": NUMBERS, "--acceleration": NUMBERS,
             "--kernel": TEXTS, "--person": TEXTS},
        ),
        "view": (
            ("view", str(folder / "result.npz"), "--out", "out.html"),
            {"FILE": read, "--out": write, "--samples": INTEGERS, "--frames": INTEGERS,
             "--truth": read, "--body": read, "--title": TEXTS},
        ),
        "evaluate": (
            ("evaluate", joints, "--stride", "3000", "--samples", "2", "--json", "out.json"),
            {**measured, "FILE": read, "--json": write, "--markdown": write, "--data": read,
             "--protocol": TEXTS, "--split": TEXTS, "--smpl-male": read},
        ),
        "report": (
            ("report", joints, "--stride", "3000", "--samples", "2", "--out", "out.html"),
            {**measured, "FILE": read, "--out": write, "--data": read, "--worst": INTEGERS},
        ),
        "demo": (
            ("demo", "--model", joints, "--samples", "2", "--out", "out"),
            {"--model": read, "--samples": INTEGERS, "--out": write[2:], **sizes},
        ),
        "photo": (
            ("photo", "--photo", str(folder / "people.json"), "--keypoints", people),
            {"--photo": read, "--keypoints": read, "--model": read, "--out": write,
             "--focal": NUMBERS, "--center": NUMBERS, "--margin": NUMBERS, "--samples": INTEGERS,
             "--threads": INTEGERS, "--seed": INTEGERS, "--image-size": INTEGERS},
        ),
        "render": (
            ("render", "--out", "out", "--count", "1", "--size", "32"),
            {"--out": write[2:], "--split": TEXTS, "--count": ("-1", "0", "x", ""),
             "--size": INTEGERS, "--seed": INTEGERS, "--mix": NUMBERS, "--threads": INTEGERS},
        ),
        **{
            f"train {kind}": (
                ("train", kind, "--steps", "1", "--out", "out", "--config",
                 str(folder / "missing.json")),
                training,
            )
            for kind in KINDS
        },
    }  # fmt: skip


DEFAULTS = {
    "propose": TrainConfig(),
    "lifting": LiftingTrainConfig(),
    "prohmr": BodyTrainConfig(),
    "image": ImageTrainConfig(),
    "regression": RegressionTrainConfig(),
    "mixture": MixtureTrainConfig(),
    "cvae": VariationalTrainConfig(),
    "diffusion": DiffusionTrainConfig(),
}
KINDS = tuple(DEFAULTS)
COMMANDS = ("lift", "fit", "fuse", "smooth", "view", "evaluate", "report", "demo", "photo",
            "render", *(f"train {kind}" for kind in KINDS))  # fmt: skip


def hostile(folder, command, generator):
    """A command line of which one or two things are not as they should be."""
    line, options = commands(folder)[command]
    line = list(line)
    for option in generator.sample(sorted(options), generator.choice((1, 1, 2))):
        value = generator.choice(options[option])
        values = [value] if option not in ("--center", "--image-size") else [value, "9"]
        if option == "FILE":
            line[1] = value
        elif option in line:
            line[line.index(option) + 1] = value
        else:
            line += [option, *values]
    if generator.random() < 0.1:
        line.insert(generator.randrange(1, len(line) + 1), generator.choice(TEXTS))
    return line


def state(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def check(line, capfd, folder, place):
    before, of_inputs = state(folder), state(place)
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # Python shows these to nobody but developers; torch has one about itself.
            warnings.simplefilter("ignore", DeprecationWarning)
            code = main(line)
    except Exception as error:
        raise AssertionError(f"{line}: {type(error).__name__}: {error}") from error
    finally:
        torch.set_num_threads(threads)
    err = capfd.readouterr().err
    assert not [str(w.message) for w in caught], line
    assert code in (0, 1, 2), (line, code)
    assert "Traceback" not in err, (line, err)
    assert state(place) == of_inputs, line
    if code:
        assert err.startswith("propose-prob: ") and err.count("\n") <= 3, (line, err)
        assert len(err) < 20_000, (line, len(err))
        assert state(folder) == before, (line, set(state(folder)) - set(before))
    return code


#: What stands in a configuration in the place of a value.
VALUES = (
    *(-1, 0, 1, 2**62, 10**400, -1.5, 0.5, 1e300, float("nan"), float("inf"), True, None),
    *("", "x", "../..", "\x00", "\udcff"),
    *([], [1, 2], [2, 1], ["a", "b"], [[1]], {}, {"a": 1}, {"joints": 9}),
)


def wrong_config(default, generator):
    """A configuration of which one entry is something else, as JSON."""
    stored = {name: value for name, value in to_dict(default).items() if generator.random() < 0.3}
    place = generator.choice([stored, *(v for v in stored.values() if isinstance(v, dict))])
    name = generator.choice([*place, "x", "", "a" * 5000]) if place else "x"
    place[name] = generator.choice(VALUES)
    return json.dumps(stored)


def fuzz(command, capfd, folder, place, seeds):
    for seed in seeds:
        check(hostile(place, command, random.Random(f"{command}{seed}")), capfd, folder, place)
        # What a command that went well has written does not stand in the way of the next one.
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


#: Some hostile command lines are none after all, and then these take seconds.
LONG = ("fit", "report", "demo", "evaluate")


@pytest.mark.parametrize("command", COMMANDS)
def test_hostile_arguments(command, capfd, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    fuzz(command, capfd, tmp_path, place, range(1 if command in LONG else 6))


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_many_hostile_arguments(command, capfd, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    fuzz(command, capfd, tmp_path, place, range(1000, 1150))


def configurations(kind, capfd, folder, place, seeds):
    """Only what a configuration says, before data are read: a line, and nothing written."""
    for seed in seeds:
        generator = random.Random(f"{kind}{seed}")
        path = place / "config.json"
        path.write_text(wrong_config(DEFAULTS[kind], generator))
        data = ["--data", "missing.npz", "--validation", "missing.npz"]
        line = ["train", kind, "--out", "out", "--config", str(path), *data]
        assert check(line, capfd, folder, place) == 2, line


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_configurations(kind, capfd, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    configurations(kind, capfd, tmp_path, place, range(15))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_wrong_configurations(kind, capfd, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    configurations(kind, capfd, tmp_path, place, range(1000, 1300))


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
)
def test_configurations_that_are_none(text, capfd, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (place / "config.json").write_text(text)
    for kind in KINDS:
        line = ["train", kind, "--out", "out", "--config", str(place / "config.json")]
        assert check(line, capfd, tmp_path, place) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 to 65536, got 0"),
        ({"steps": -1}, "steps must be 1 to"),
        ({"warmup": 2.0}, "warmup must be 0 to 1, got 2.0"),
        ({"clip": 0}, "clip must be above 0 to"),
        ({"rate1": 10**400}, "rate1 is too large"),
        ({"model": {"width": 10**9}}, "model.width must be 1 to 65536"),
        ({"model": {"joints": 18}}, "model.joints must be 17, as the data have, got 18"),
        ({"model": {"dropout": float("nan")}}, "model.dropout must be 0 to 1, got nan"),
        ({"loss": {"best": 9}}, "loss.best must be at most loss.hypotheses"),
        ({"simulator": {"distance": [8, 2]}}, "simulator.distance must be 0.1 to 1000, the sm"),
        ({"simulator": {"pitch": ["a", 2]}}, "simulator.pitch must be 2 numbers"),
    ],
)
def test_ranges_of_a_configuration(values, message):
    with pytest.raises(InputError, match=message):
        from_dict(values, default=TrainConfig())


def test_sizes_that_do_not_go_together_are_named(capfd, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    np.savez(place / "world.npz", world=np.random.default_rng(0).normal(size=(4, 17, 3)))
    (place / "config.json").write_text('{"model": {"base": "none"}}')
    data = ["--data", str(place / "world.npz"), "--validation", str(place / "world.npz")]
    line = ["train", "lifting", "--out", "out", "--config", str(place / "config.json"), *data]
    assert main(line) == 2
    assert "configuration: expected base 'pagd' or 'standard'" in capfd.readouterr().err


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
    assert read_result(os.fsdecode(target)).frames[0].endswith("?.json:0")
