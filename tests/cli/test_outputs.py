"""No command writes over what it reads, whatever name or link leads there."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from propose_prob.geometry.skeletons import H36M_17
from propose_prob.results.writer import open_writer
from tests.cli.conftest import coco_results

pytest.importorskip("matplotlib", reason="commands draw")


@pytest.fixture
def inputs(folder):
    """A file of each kind, under names that outputs may have."""
    (folder / "people.nc").write_text(coco_results(2))
    (folder / "people.npz").write_text(coco_results(2))
    (folder / "people.bvh").write_text(coco_results(2))
    with open_writer("result.npz", joint_names=H36M_17.joint_names) as writer:
        writer.append({"point_estimate": np.zeros((1, 17, 3))}, {"frame": [0], "person": [0]})
        writer.finish({})
    (folder / "truth.html").write_text("truth")
    (folder / "camera.nc").write_text(json.dumps([]))
    (folder / "model.safetensors").write_text("a model")
    (folder / "photo.png").write_text("a photo")
    (folder / "own.npz").write_text("pairs")
    (folder / "demo").mkdir()
    (folder / "demo" / "demo.nc").write_text("a model")
    (folder / "data").mkdir()
    (folder / "data" / "a.json").write_text("data")
    return folder


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("lift people.nc --out OUT", "people.nc"),
        ("lift people.npz --model people.nc --out OUT", "people.nc"),
        ("fit people.npz --out OUT", "people.npz"),
        ("fit people.npz --body people.bvh --out OUT", "people.bvh"),
        ("fit people.npz --model people.nc --out OUT", "people.nc"),
        ("fuse people.nc people.npz --out OUT", "people.npz"),
        ("fuse people.npz people.bvh --cameras camera.nc --out OUT", "camera.nc"),
        ("fuse people.npz people.bvh --model people.nc --out OUT", "people.nc"),
        ("smooth people.nc --fps 30 --out OUT", "people.nc"),
        ("smooth people.npz --fps 30 --model people.nc --out OUT", "people.nc"),
        ("view result.npz --truth truth.html --out OUT", "truth.html"),
        ("view result.npz --body truth.html --out OUT", "truth.html"),
        ("evaluate model.safetensors --json OUT", "model.safetensors"),
        ("evaluate model.safetensors --markdown OUT", "model.safetensors"),
        ("evaluate --protocol 3dpw --data data --json OUT", "data/a.json"),
        (
            "evaluate --protocol 3dpw --smpl-male own.npz --smpl-female own.npz --json OUT",
            "own.npz",
        ),
        ("report model.safetensors --out OUT", "model.safetensors"),
        ("report propose-cmu17 --data own.npz --out OUT", "own.npz"),
        ("report propose-cmu17 --data 3dpw:data --out OUT", "data/a.json"),
        ("photo --photo photo.png --keypoints people.nc --out OUT", "photo.png"),
        ("photo --photo photo.png --keypoints people.nc --out OUT", "people.nc"),
        ("photo --model model.safetensors --out OUT", "model.safetensors"),
        ("demo --model demo/demo.nc --out demo", "demo/demo.nc"),
    ],
)
@pytest.mark.parametrize("name", ["itself", "dots", "link", "hard link"])
def test_an_output_that_is_an_input_is_refused(run, inputs, line, out, name):
    before = (inputs / out).read_bytes()
    given = Path(out)
    other = given.with_stem("other")
    if name == "dots":
        given = Path("data/..", out)
    elif name == "link":
        other.symlink_to(given.name)
        given = other
    elif name == "hard link":
        os.link(given, other)
        given = other
    listed = sorted(inputs.rglob("*"))
    code, printed, err = run(*line.replace("OUT", str(given)).split())
    assert code == 2 and not printed
    assert err.endswith("the output would replace an input\n") and err.count("\n") == 1
    assert (inputs / out).read_bytes() == before and sorted(inputs.rglob("*")) == listed


def test_two_outputs_of_one_name_are_refused(run, folder):
    code, _out, err = run("evaluate", "--json", "a", "--markdown", "./a")
    assert code == 2 and "expected different outputs" in err and not os.listdir()
