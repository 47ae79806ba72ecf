import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from propose_prob.cli.demo import Demo
from propose_prob.weights import load


@pytest.fixture
def demo(run, folder, tiny_model):
    code, out, err = run("demo", "--model", tiny_model, "--samples", 12)
    assert code == 0, err
    assert not err
    return out


def test_demo_says_what_it_does(demo):
    for words in (
        "Anete Lusina",
        "24 of 25 joints",
        "14 of 17 joints seen; missing: Spine, Neck/Nose, Head",
        "12 drawn",
        "propose-demo/demo.png",
        "propose-demo/demo.nc",
    ):
        assert words in demo
    table = demo[demo.index("joint  ") :].splitlines()[2:19]
    assert len(table) == 17
    rows = {line.split()[0]: line for line in table}
    assert "origin" in rows["Pelvis"]
    assert "not seen" in rows["Head"] and "0." not in rows["Head"].split("seen")[1][:12]
    assert "0.77" in rows["RKnee"] and rows["RKnee"].count(" mm") == 2


def test_demo_figure_is_a_png(demo, folder):
    figure = (folder / "propose-demo" / "demo.png").read_bytes()
    assert figure.startswith(b"\x89PNG") and figure.endswith(b"IEND\xaeB`\x82")


def test_demo_draws_open_in_arviz(demo, folder, tiny_model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    data = arviz.from_netcdf(folder / "propose-demo" / "demo.nc")
    pose, hypothesis = data.posterior["pose"], data.posterior["hypothesis"]
    assert pose.dims == ("chain", "draw", "item", "joint", "axis")
    assert pose.shape == hypothesis.shape == (1, 12, 1, 17, 3)
    assert list(data.posterior["axis"].values) == ["x", "y", "z"]
    assert float(data.observed_data["confidence"].sel(joint="Head")[0]) == 0
    assert float(data.observed_data["confidence"].sel(joint="LKnee")[0]) > 0.7
    assert data.attrs["model"] == "tiny.safetensors"
    for name in ("protocol", "torch_version", "propose_prob_version"):
        assert data.attrs[name]
    # The hypotheses are the same draws without observation noise.
    noise = (pose - hypothesis).values[0, :, 0, 1:]
    scale = load(tiny_model).noise_scale.numpy()[None, :, None]
    assert 0.8 < np.std(noise / scale) < 1.2


def test_demo_without_matplotlib_names_the_extra(run, folder, tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, err = run("demo", "--model", tiny_model)
    assert code == 2 and not out
    assert "propose_prob[plot]" in err and err.count("\n") == 1
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("args", "words"),
    [(("--samples", 1), "--samples"), (("--out", "taken"), "taken"), (("--model", "x"), "'x'")],
)
def test_wrong_demo_options(run, folder, tiny_model, args, words):
    (folder / "taken").write_text("a file")
    code, out, err = run("demo", "--model", tiny_model, *args)
    assert code == 2 and not out
    assert words in err and err.count("\n") == 1
    assert not list(folder.glob("**/demo.*"))


def test_demo_as_a_user_types_it(folder, tiny_model):
    done = subprocess.run(
        [sys.executable, "-m", "propose_prob", "demo", "--model", tiny_model, "--out", "here"],
        capture_output=True, text=True, cwd=folder, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert {path.name for path in (folder / "here").iterdir()} == {"demo.png", "demo.nc"}


def test_demo_leaves_torch_threads_to_its_option(run, folder, tiny_model, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "set_num_threads", seen.append)
    run("demo", "--model", tiny_model, "--samples", 2, "--threads", 2)
    assert seen[0] == 2


def test_a_folder_that_gets_no_results_does_not_stay(run, folder, tiny_model, monkeypatch):
    def full(self, *results):
        raise OSError(28, "No space left on device", "demo.nc")

    monkeypatch.setattr(Demo, "_write", full)
    assert run("demo", "--model", tiny_model, "--samples", 2, "--out", "new")[0] == 2
    assert not list(folder.iterdir())
    (folder / "old").mkdir()
    assert run("demo", "--model", tiny_model, "--samples", 2, "--out", "old")[0] == 2
    assert (folder / "old").is_dir()
