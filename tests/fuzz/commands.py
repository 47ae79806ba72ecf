"""The commands, each with a line that works and what makes it or its inputs hostile."""

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from propose_prob.cli import main
from propose_prob.configuration import to_dict
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.images.training import ImageTrainConfig
from propose_prob.models import ProHMR, ProHMRConfig, ProPose
from propose_prob.results.writer import open_writer
from propose_prob.training.checkpoint import read_checkpoint, write_checkpoint
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
from tests.fuzz import hostile
from tests.fuzz.formats import PAIRS, TINY, not_a_file
from tests.fuzz.hostile import INTEGERS, NUMBERS, TEXTS

#: Configurations of what `train` trains.
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

#: A training that takes a second.
TRAINING = {
    "steps": 2,
    "batch_size": 8,
    "validate": 1,
    "model": {"width": 16, "blocks": 1, "flow_width": 8, "couplings": 2, "context": 8},
}


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        change: Makes the command line of a seed, and what it is to meet: from the session and
            random numbers.
        weight: How often it comes, in relation to other commands and formats.
        typed: Whether it runs in a process of its own, as a user types it.
    """

    change: Callable[["CommandSession", random.Random], list[str]]
    weight: int = 6
    typed: bool = False


# Inputs that are there ----------------------------------------------------------------------------


def make_inputs(folder):
    """Everything that commands read, small, in a folder."""
    torch.manual_seed(0)
    save(ProPose(TINY), folder / "joints.safetensors")
    body = ProHMRConfig(flow_width=16, width=16, context=16, couplings=1, blocks=1)
    save(ProHMR(body), folder / "body.safetensors")
    (folder / "people.json").write_text(json.dumps(hostile.keypoints()))
    with open_writer(folder / "result.npz", joint_names=H36M_17.joint_names) as writer:
        point = np.zeros((2, 17, 3))
        arrays = {
            "point_estimate": point, "pose": point[:, None], "spread": point[..., 0],
            "keypoints": point[..., :2],
        }  # fmt: skip
        writer.append(arrays, {"frame": ["0", "1"], "person": ["0", "0"]})
        writer.finish({"model": "none"})
    theta = np.tile(np.eye(3, dtype=np.float32), (2, 24, 1, 1))
    fit = {
        "theta": theta, "shape": np.zeros((2, 10), np.float32), "joints": np.zeros((2, 17, 3)),
        "translation": np.zeros((2, 3), np.float32), "joint": np.array(H36M_17.joint_names),
        "frame": np.array(["0", "1"]), "person": np.array(["0", "0"]), "body": np.array("open"),
    }  # fmt: skip
    np.savez(folder / "fit.npz", **fit)
    points = np.random.default_rng(0).normal(size=(2, 17, 3))
    np.savez(folder / "arrays.npz", keypoints=100 * points[..., :2], confidence=np.ones((2, 17)))
    pairs = {**PAIRS, "p3d": points, "p2d": 500 * points[..., :2], "focal": 900.0}
    np.savez(folder / "pairs.npz", **pairs)
    np.savez(folder / "world.npz", world=np.random.default_rng(0).normal(size=(9, 17, 3)))
    camera = {"R": np.eye(3).tolist(), "t": [0, 0, 3], "focal": 900, "center": [0, 0]}
    (folder / "cameras.json").write_text(json.dumps([camera, camera]))
    (folder / "training.json").write_text(json.dumps(TRAINING))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "empty.json").write_text("")
    (folder / "junk.npz").write_bytes(bytes(range(256)) * 8)
    (folder / "folder.json").mkdir()
    os.mkfifo(folder / "pipe.json")
    (folder / "zero.json").symlink_to("/dev/zero")
    (folder / os.fsdecode(b"\xff\xfe.json")).write_bytes(b"\xff\xfe")


#: Files that are no answer: missing, empty, folders, pipes, of other kinds, unreadable.
WRONG_FILES = (
    *("missing.json", "deep.json", "empty.json", "junk.npz", "folder.json", "cameras.json"),
    *(os.fsdecode(b"\xff\xfe.json"), "people.json/x.json", "x" * 300, "body.safetensors"),
    *("pipe.json", "zero.json"),
)


def wrong_files(folder):
    """Names in the place of inputs."""
    return (*(str(folder / name) for name in WRONG_FILES), *TEXTS)


def wrong_outputs(folder):
    """Names in the place of outputs, where nothing can be written."""
    return (
        *("no/out.nc", str(folder / "folder.json"), "/proc/out.nc", "/dev/full", "/dev/stdout"),
        *(str(folder / "pipe.json"), "people.nc/out.nc", "x" * 300 + ".nc", "out.pdf", *TEXTS),
    )


def arguments(folder):
    """Command lines that work, and which values each of their options can be given."""
    people, joints, body = (
        str(folder / name) for name in ("people.json", "joints.safetensors", "body.safetensors")
    )
    read, write = wrong_files(folder), wrong_outputs(folder)
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
    few = ("--stride", "3000", "--samples", "2")
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
            ("evaluate", joints, *few, "--json", "out.json"),
            {**measured, "FILE": read, "--json": write, "--markdown": write, "--data": read,
             "--protocol": TEXTS, "--split": TEXTS, "--smpl-male": read},
        ),
        "report": (
            ("report", joints, *few, "--out", "out.html"),
            {**measured, "FILE": read, "--out": write, "--data": read, "--worst": INTEGERS},
        ),
        "demo": (
            ("demo", "--model", joints, "--samples", "2", "--out", "out"),
            {"--model": read, "--samples": INTEGERS, "--out": write[2:], **sizes},
        ),
        "photo": (
            ("photo", "--photo", people, "--keypoints", people),
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
            for kind in DEFAULTS
        },
    }  # fmt: skip


# What is hostile about a command ------------------------------------------------------------------


def wrong_line(name):
    """A command line of which one or two things are not as they should be."""

    def change(session, generator):
        line, options = arguments(session.place)[name]
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

    return change


def wrong_config(default, generator):
    """A configuration of which one entry is something else, as JSON."""
    stored = {name: value for name, value in to_dict(default).items() if generator.random() < 0.3}
    place = generator.choice([stored, *(v for v in stored.values() if isinstance(v, dict))])
    name = generator.choice([*place, "x", "", "a" * 5000]) if place else "x"
    place[name] = generator.choice(hostile.VALUES)
    with hostile.long_numbers():
        return json.dumps(stored)


def wrong_training(kind):
    """A wrong configuration, or a wrong command line."""
    wrong = wrong_line(f"train {kind}")

    def change(session, generator):
        if generator.random() < 0.4:
            return wrong(session, generator)
        path = session.changed("config.json")
        path.write_text(wrong_config(DEFAULTS[kind], generator))
        data = ["--data", "missing.npz", "--validation", "missing.npz"]
        return ["train", kind, "--out", "out", "--config", str(path), *data]

    return change


def with_ranks(generator):
    """Words in the place of what torchrun sets."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    return {name: generator.choice(hostile.RANKS) for name in names[: generator.choice((1, 2, 5))]}


def ranks(session, generator):
    """A command that processes may share, under words that torchrun never sets."""
    session.environment = with_ranks(generator)
    # It would wait for the other one.
    if session.environment.get("WORLD_SIZE") == "2":
        session.environment["MASTER_ADDR"] = None
    people, joints = str(session.place / "people.json"), str(session.place / "joints.safetensors")
    if generator.random() < 0.5:
        return ["lift", people, "--model", joints, "--samples", "2", "--out", "parts"]
    return ["train", "lifting", "--out", "out", "--config", str(session.place / "missing.json")]


def changed_people(name):
    """Keypoints whose names and numbers are others."""

    def change(session, generator):
        path = session.changed("people.json")
        content = json.dumps(hostile.keypoints(track_id="a")).encode()
        if generator.random() < 0.05:
            not_a_file(path, generator)
        else:
            path.write_bytes(hostile.hostile_json(content, generator))
        line = list(arguments(session.place)[name][0])
        if name == "photo":
            line[line.index("--photo") + 1] = str(session.photo())
            line[line.index("--keypoints") + 1] = str(path)
            return [*line, "--samples", "1"]
        line[1] = str(path)
        return line

    return change


def changed_arrays(session, generator):
    """Keypoints as arrays that are odd."""
    name = generator.choice(("lift", "smooth", "fuse"))
    content = (session.place / "arrays.npz").read_bytes()
    path = session.changed("arrays.npz")
    change = generator.choice((hostile.odd_arrays, hostile.extreme_numbers))
    path.write_bytes(change(content, generator))
    line = list(arguments(session.place)[name][0])
    line[1] = str(path)
    skeleton = generator.choice(("h36m_17", "h36m_17", "coco_17", "body_25"))
    return [*line, "--skeleton", skeleton, *(["--by-order"] if name != "lift" else [])]


def changed_folder(session, generator):
    """A folder of keypoints in which names are odd, and some files are none."""
    folder = session.changed("folder")
    folder.mkdir()
    names = (
        "1",
        "2",
        "10",
        "9" * 200,
        "\u0663",
        "²",
        "a b",
        "\x1b[2J",
        "-",
        "\udcff",
        ".a",
        "a\nb",
    )
    for name in generator.sample(names, generator.choice((1, 3, 6))):
        path = folder / f"{name}.json"
        content = json.dumps(hostile.keypoints(1)).encode()
        kind = generator.randrange(6)
        if kind == 0:
            not_a_file(path, generator)
        else:
            path.write_bytes(hostile.hostile_json(content, generator) if kind == 1 else content)
    line = list(arguments(session.place)[generator.choice(("lift", "smooth"))][0])
    line[1] = str(folder)
    if line[0] == "lift" and generator.random() < 0.5:
        line[line.index("--out") + 1] = "parts"
    return line


def changed_result(session, generator):
    """A result whose arrays are odd: empty, of another shape, NaN, infinite, 1e308."""
    name = generator.choice(("result.npz", "result.npz", "fit.npz"))
    content = (session.place / name).read_bytes()
    change = generator.choice((hostile.odd_arrays, hostile.extreme_numbers, hostile.hostile_npz,
                               hostile.hostile_texts))  # fmt: skip
    path = session.changed("result.npz")
    path.write_bytes(change(content, generator))
    line = ["view", str(path), "--out", "out.html"]
    if name == "result.npz" and generator.random() < 0.3:
        truth = session.changed("truth.npz")
        np.savez(truth, p3d=np.zeros((2, 17, 3)))
        change = generator.choice((hostile.odd_arrays, hostile.extreme_numbers))
        truth.write_bytes(change(truth.read_bytes(), generator))
        line[1] = str(session.place / "result.npz")
        line += ["--truth", str(truth)]
    return line


def changed_pairs(session, generator):
    """Own data for a report that are odd, or far too large."""
    content = (session.place / "pairs.npz").read_bytes()
    change = generator.choice((hostile.odd_arrays, hostile.extreme_numbers))
    path = session.changed("pairs.npz")
    path.write_bytes(change(content, generator))
    joints = str(session.place / "joints.safetensors")
    return ["report", joints, "--samples", "2", "--data", str(path), "--out", "out.html"]


def changed_cameras(session, generator):
    """Cameras that are none."""
    content = (session.place / "cameras.json").read_bytes()
    path = session.changed("cameras.json")
    path.write_bytes(hostile.hostile_json(content, generator))
    line = arguments(session.place)["fuse"][0]
    return [*line, "--cameras", str(path), "--keypoint-scale", "3"]


def changed_model(*names):
    """Weights that are NaN or far too large, or do not fit their configuration."""

    def change(session, generator):
        name = generator.choice(names)
        model = "body.safetensors" if name == "fit" else "joints.safetensors"
        content = (session.place / model).read_bytes()
        path = session.changed(model)
        made = (hostile.hostile_safetensors, hostile.large_weights, hostile.large_weights)
        path.write_bytes(generator.choice(made)(content, generator))
        line = list(arguments(session.place)[name][0])
        if name in ("evaluate", "report"):
            line[1] = str(path)
        else:
            line[line.index("--model") + 1] = str(path)
        return [*line, *(["--log-prob"] if name == "lift" and generator.random() < 0.3 else [])]

    return change


def changed_data(session, generator):
    """Own data for a training that are odd, or far too large or small."""
    content = (session.place / "world.npz").read_bytes()
    path = session.changed("world.npz")
    path.write_bytes(
        generator.choice((hostile.odd_arrays, hostile.extreme_numbers))(content, generator)
    )
    honest = str(session.place / "world.npz")
    config = session.place / "training.json"
    if generator.random() < 0.5:
        stored = json.loads(config.read_text())
        config = session.changed("training.json")
        numbers = {"rate": (0.0, 10.0, 1e6), "average": (0.0, 1.0), "weight_decay": (1e6,),
                   "warmup": (0.0, 1.0), "clip": (1e-300, 1e6), "batch_size": (1, 3),
                   "known_intrinsics": (0.0, 1.0), "seed": (2**62,)}  # fmt: skip
        for name in generator.sample(sorted(numbers), 3):
            stored[name] = generator.choice(numbers[name])
        config.write_text(json.dumps(stored))
        if generator.random() < 0.5:
            path = honest
    line = ["train", "lifting", "--config", str(config), "--out", "out"]
    which = generator.choice((("--data", "--validation"), ("--validation", "--data")))
    return [*line, which[0], str(path), which[1], honest]


def parts(session, generator):
    """A folder of parts in which something else lies than was written."""
    line = ["lift", str(session.place / "people.json"), "--samples", "2", "--part-frames", "1"]
    line += ["--model", str(session.place / "joints.safetensors"), "--out", "parts"]
    shutil.copytree(session.parts(line), "parts")
    path = Path("parts", generator.choice(("lift.json", "part-000000.nc", "part-000001.nc")))
    content = path.read_bytes()
    if generator.random() < 0.2:
        not_a_file(path, generator)
    elif path.suffix == ".json" and generator.random() < 0.7:
        path.write_bytes(hostile.hostile_json(content, generator))
    elif path.suffix == ".json":
        path.write_bytes(hostile.deep_json(content, generator))
    else:
        path.write_bytes(content[: generator.randrange(len(content))])
    if generator.random() < 0.3:
        Path("parts", generator.choice(("part-000001.empty", ".part-000001.nc.0", "a"))).touch()
    return line


def resumed(session, generator):
    """A training that goes on from a checkpoint, log or configuration that was changed."""
    out = session.trained()
    shutil.copytree(out, "out")
    line = ["train", "lifting", "--resume", "--out", "out"]
    line += ["--data", str(session.place / "world.npz"), "--validation"]
    line += [str(session.place / "world.npz"), "--config", str(session.place / "training.json")]
    kind = generator.randrange(4)
    if kind <= 1:
        state = read_checkpoint(out / "checkpoint.pt")
        write_checkpoint(hostile.odd_state(state, generator), Path("out/checkpoint.pt"))
    elif kind == 2:
        content = (out / "log.csv").read_bytes()
        Path("out/log.csv").write_bytes(hostile.hostile_log(content, generator))
    else:
        name = generator.choice(("checkpoint.pt", "log.csv", "config.json", "best.safetensors"))
        not_a_file(Path("out", name), generator)
        if generator.random() < 0.5:
            line.remove("--resume")
    return line


def over_an_input(session, generator):
    """An output that is an input, by whatever name."""
    name = generator.choice(("lift", "fit", "fuse", "smooth", "view", "photo"))
    line = list(arguments(session.place)[name][0])
    ending = {"view": ".html", "photo": ".png"}.get(name, ".nc")
    source = Path(f"input{ending}").resolve()
    shutil.copy(session.place / "people.json", source)
    line[1 if name not in ("photo",) else 2] = str(source)
    alias = generator.choice(("itself", "dots", "link", "hard link", "relative"))
    out = source
    if alias == "dots":
        out = source.parent / "." / ".." / source.parent.name / source.name
    elif alias == "link":
        out = Path(f"other{ending}")
        out.symlink_to(source)
    elif alias == "hard link":
        out = Path(f"other{ending}")
        os.link(source, out)
    elif alias == "relative":
        out = Path(source.name)
    if "--out" in line:
        line[line.index("--out") + 1] = str(out)
    else:
        line += ["--out", str(out)]
    session.is_refused = True
    return line


#: Modules that commands import, of this installation and of Python.
_MODULES = (
    *("h5netcdf", "h5py", "numpy", "scipy", "plotly", "torch", "tyro", "matplotlib", "xarray"),
    *("PIL", "tqdm", "safetensors", "pyro", "zuko", "roma", "arviz", "typing_extensions"),
    *("packaging", "docstring_parser", "rich", "pandas", "shtab", "trimesh", "_signal"),
)
_OF_PYTHON = (
    *("json", "random", "csv", "pathlib", "re", "sysconfig", "enum", "fnmatch", "dataclasses"),
    *("typing", "copy", "urllib", "struct", "tempfile", "threading", "signal", "__future__"),
    *("traceback", "subprocess", "glob", "secrets", "shutil", "importlib_metadata", "inspect"),
)
#: What `python -m` itself imports from the working folder, before it starts a package.
_BEFORE = ("collections", "functools", "contextlib", "types", "warnings", "keyword", "operator")
_STREAMS = ("", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full", "| true", "2>&1 | true",
            ">&- 2>/dev/full", "< /dev/zero")  # fmt: skip


def typed(session, generator):
    """As a user types it: streams that are closed or full, code and settings beside the data."""
    session.is_module = generator.random() < 0.5
    chosen = [*_MODULES, *_OF_PYTHON, *(() if session.is_module else _BEFORE)]
    if generator.random() < 0.3:
        # Python itself looks there for its own modules then.
        session.environment = {"PYTHONPATH": generator.choice(("", ":", ".", "::"))}
        chosen = list(_MODULES)
    for name in generator.sample(chosen, 15):
        if generator.random() < 0.8:
            Path(f"{name}.py").write_text("open('EXECUTED', 'w').close()\n")
        else:
            Path(name).mkdir()
            Path(name, "__init__.py").write_text("open('EXECUTED', 'w').close()\n")
    Path("matplotlibrc").write_text("text.usetex: True\nbackend: module://EXECUTED\n")
    Path("setup.cfg").write_text("[options]\n")
    session.streams = generator.choice(_STREAMS)
    if generator.random() < 0.3:
        session.environment |= {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    name = generator.choice(("lift", "view", "evaluate", "--version", "fly", "smooth", "--help"))
    if name in ("--version", "fly", "--help"):
        return [name]
    if generator.random() < 0.4:
        return wrong_line(name)(session, generator)
    return list(arguments(session.place)[name][0])


COMMANDS: dict[str, Command] = {
    **{
        name: Command(wrong_line(name), 2 if name in ("fit", "report", "demo", "evaluate") else 6)
        for name in ("lift", "fit", "fuse", "smooth", "view", "evaluate", "report", "demo",
                     "photo", "render")
    },
    **{f"train {kind}": Command(wrong_training(kind)) for kind in DEFAULTS},
    **{
        f"{name} of changed keypoints": Command(changed_people(name), weight)
        for name, weight in (("lift", 8), ("fit", 2), ("fuse", 4), ("smooth", 4), ("photo", 1))
    },
    "view of changed results": Command(changed_result, 10),
    "report of changed pairs": Command(changed_pairs, 3),
    "fuse of changed cameras": Command(changed_cameras, 6),
    "lift by changed weights": Command(changed_model("lift"), 10),
    "others by changed weights": Command(changed_model("smooth", "fuse", "demo"), 6),
    "evaluate by changed weights": Command(changed_model("evaluate", "report"), 3),
    "fit by changed weights": Command(changed_model("fit"), 1),
    "changed arrays": Command(changed_arrays),
    "changed folders": Command(changed_folder),
    "train on changed data": Command(changed_data, 1),
    "lift into changed parts": Command(parts, 4),
    "train on after changes": Command(resumed, 1),
    "words of torchrun": Command(ranks),
    "outputs that are inputs": Command(over_an_input),
    "as a user types it": Command(typed, 2, typed=True),
}  # fmt: skip


# Running them -------------------------------------------------------------------------------------


class CommandSession:
    """One command, its inputs in one folder, and what it writes in another.

    Args:
        name: Key of `COMMANDS`.
        folder: An empty folder.

    Attributes:
        place: Folder of the inputs.
        environment: Variables that are set, or with None not set, for the next line.
        streams: Redirections of the next line, if it runs in a shell.
        is_refused: Whether the next line must be refused.
        is_module: Whether the next line is typed with `python -m`, or else as the script.
    """

    def __init__(self, name, folder):
        self.name, self.command = name, COMMANDS[name]
        self.place, self.work = folder / "place", folder / "work"
        self._made = folder / "made"
        for path in (self.place, self.work, self._made):
            path.mkdir()
        make_inputs(self.place)
        self._reset()

    def _reset(self):
        self.environment, self.streams = {}, ""
        self.is_refused = self.is_module = False
        for path in self.work.iterdir():
            _removed(path)

    def changed(self, name):
        """Where the changed copy of an input is put; whatever was there is gone."""
        path = self.place / f"changed {name}"
        _removed(path)
        return path

    def photo(self):
        """A photograph."""
        from PIL import Image

        path = self.place / "photo.png"
        if not path.exists():
            Image.new("RGB", (300, 500)).save(path)
        return path

    def parts(self, line):
        """A folder of parts that a command line wrote."""
        return self._written("parts", line)

    def trained(self):
        """The folder of a training that is over."""
        world = str(self.place / "world.npz")
        line = ["train", "lifting", "--out", "out", "--data", world, "--validation", world]
        return self._written("out", [*line, "--config", str(self.place / "training.json")])

    def _written(self, name, line):
        if not (self._made / name).exists():
            here = os.getcwd()
            os.chdir(self._made)
            try:
                with _captured():
                    assert main(line) == 0, line
            finally:
                os.chdir(here)
        return self._made / name

    def run(self, seed):
        """Runs the command line of a seed; gives whether it was answered.

        Raises:
            AssertionError: If it did something else than to answer, or to refuse in one line and
                leave everything as it was.
        """
        self._reset()
        generator = random.Random(f"{self.name} {seed}")
        here = os.getcwd()
        os.chdir(self.work)
        try:
            line = self.command.change(self, generator)
            before, inputs = _state(self.work), _state(self.place)
            run = self._typed if self.command.typed else self._called
            code, out, err = run(line)
            shown = f"{[part[:200] for part in line]} {self.streams} {self.environment}"
            assert "Traceback" not in err and "Exception ignored" not in err, f"{shown}: {err}"
            assert code in self._codes(), f"{shown}: exit code {code}: {err}"
            assert not Path("EXECUTED").exists(), f"{shown}: EXECUTED"
            acting = {c for c in out + err if not c.isprintable() and c != "\n"}
            assert not acting, f"{shown}: printed {acting}"
            self._check_pages(shown)
            assert _state(self.place) == inputs, f"{shown}: an input was changed"
            hidden = [name for name in set(_state(self.work)) - set(before) if "/." in name]
            assert not hidden, f"{shown}: left {hidden}"
            if code == 2:
                self._check_refusal(err, shown, before)
            return code == 0
        finally:
            os.chdir(here)

    def _check_pages(self, shown):
        for page in self.work.glob("*.html"):
            text = page.read_text("utf-8")
            assert text.count("<script") == text.count("</script") <= 4, f"{shown}: {page}"

    def _codes(self):
        if self.is_refused:
            return (2,)
        # The reader of a pipe has gone, or the shell says what `true` says.
        return (0, 1, 2) if self.streams else (0, 2)

    def _check_refusal(self, err, shown, before):
        # A stream that takes nothing shows nothing.
        heard = "2>" not in self.streams
        assert not heard or re.fullmatch(r"propose-prob: error: [^\n]*\n", err), f"{shown}: {err}"
        assert len(err) < 3000, f"{shown}: {len(err)} characters"
        left = set(_state(self.work)) - set(before)
        if ">/dev/full" in self.streams:
            # What was done is done; that it could not be told is the error.
            return
        # What was whole before a broken-off work in parts stays; it goes on from there.
        left = {name for name in left if not re.search(r"/(parts|out)(/|$)", name)}
        assert not left, f"{shown}: left {left}"
        kept = {name: mark for name, mark in _state(self.work).items() if name in before}
        if self.is_refused:
            assert kept == before, shown

    def _called(self, line):
        threads = torch.get_num_threads()
        changed = {name: os.environ.get(name) for name in self.environment}
        try:
            _set(self.environment)
            with _captured() as (out, err), warnings.catch_warnings(record=True) as caught:
                # As Python starts; `pytest` makes errors of all.
                warnings.resetwarnings()
                for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning):
                    warnings.simplefilter("ignore", kind)
                code = main(line)
        finally:
            _set(changed)
            torch.set_num_threads(threads)
        assert not caught, f"{line}: {[str(w.message) for w in caught]}"
        return code, out(), err()

    def _typed(self, line):
        environment = {**os.environ, **self.environment}
        environment = {name: value for name, value in environment.items() if value is not None}
        start = [str(Path(sys.executable).with_name("propose-prob"))]
        if self.is_module or not Path(start[0]).exists():
            start = [sys.executable, "-m", "propose_prob"]
        words = [*start, *(part.replace("\0", "") for part in line)]
        quoted = b" ".join(_quoted(os.fsencode(word)) for word in words)
        done = subprocess.run(
            ["bash", "-c", quoted + b" " + self.streams.encode()],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return done.returncode, *(
            text.decode("utf-8", "replace") for text in (done.stdout, done.stderr)
        )


def _quoted(word):
    return b"'" + word.replace(b"'", b"'\\''") + b"'"


def _set(variables):
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _state(folder):
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


@contextmanager
def _captured():
    """Takes what is printed; gives functions that tell what it was, output and error."""
    before = sys.stdout, sys.stderr
    out, err = (io.TextIOWrapper(io.BytesIO(), errors="backslashreplace") for _ in range(2))
    sys.stdout, sys.stderr = out, err
    try:
        yield tuple(partial(_text, stream) for stream in (out, err))
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before


def _removed(path):
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _text(stream):
    stream.flush()
    return stream.buffer.getvalue().decode("utf-8", "replace")
