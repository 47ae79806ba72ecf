"""`propose-prob photo` and `render`, with a tiny model in place of the trained one."""

import json

import numpy as np
import pytest
import torch

from propose_prob.bodies import load_open_body
from propose_prob.cli import main
from propose_prob.errors import InputError
from propose_prob.images.overlay import overlay_body
from propose_prob.images.render_set import load_renders
from propose_prob.models import ProHMR, ProHMRConfig
from propose_prob.weights import save


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    config = ProHMRConfig(
        encoder="image", backbone="resnet18", backbone_width=4, image=48,
        couplings=1, flow_width=8, flow_blocks=1, context=16,
    )  # fmt: skip
    save(ProHMR(config), path)
    return path


def test_the_shipped_photo_becomes_a_picture(model, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    out = tmp_path / "picture.png"
    assert main(["photo", "--model", str(model), "--out", str(out), "--samples", "3"]) == 0
    told = capsys.readouterr().out
    assert "24 of 25 seen" in told and "assumed" in told and str(out) in told
    with image.open(out) as picture:
        assert picture.width > 1000 and len(picture.getcolors(10**7)) > 1000


def test_an_own_photo_needs_its_keypoints(model, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    photo, keypoints = tmp_path / "me.png", tmp_path / "me.npy"
    image.fromarray(np.full((90, 60, 3), 99, np.uint8)).save(photo)
    points = np.random.default_rng(0).uniform(10, 50, (1, 17, 2))
    np.save(keypoints, points)
    base = ["photo", "--model", str(model), "--out", str(tmp_path / "out.png")]
    assert main([*base, "--photo", str(photo)]) == 2
    assert "--photo and --keypoints together" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()
    assert main([*base, "--photo", str(photo), "--keypoints", str(keypoints)]) == 2
    capsys.readouterr()


def test_a_model_of_keypoints_is_refused(tmp_path, capsys):
    assert main(["photo", "--model", "prohmr-cmu17", "--out", str(tmp_path / "a.png")]) == 2
    assert "does not read images" in capsys.readouterr().err


def test_rendering_makes_a_set(tmp_path, capsys):
    args = ["render", "--out", str(tmp_path), "--split", "val", "--count", "2", "--size", "40"]
    assert main(args) == 0
    assert "2 images" in capsys.readouterr().out
    assert len(load_renders(tmp_path, "val")) == 2
    assert main([*args, "--seed", "1"]) == 2
    assert "seed differ" in capsys.readouterr().err
    assert main(["render", "--out", str(tmp_path), "--split", "none"]) == 2
    assert "expected a split" in capsys.readouterr().err


def test_the_overlay_covers_the_body_and_nothing_else():
    body = load_open_body()
    upright = torch.eye(3).repeat(24, 1, 1)
    upright[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    surface = body(upright, None, torch.tensor([0.0, 0.0, 4.0])).vertices
    blank = np.full((80, 80, 3), 200, np.uint8)
    camera = {"focal": 120.0, "center": (40.0, 40.0)}
    drawn = overlay_body(blank, surface, body.faces, **camera)
    changed = (drawn != blank).any(-1)
    points = 120 * surface[:, :2] / surface[:, 2:] + 40
    inside = points.floor().long().numpy()
    assert changed[inside[:, 1], inside[:, 0]].mean() > 0.75
    assert 0.05 < changed.mean() < 0.3
    assert (overlay_body(blank, surface, body.faces, alpha=0.0, **camera) == blank).all()
    with pytest.raises(InputError, match="8-bit image"):
        overlay_body(blank[..., 0], surface, body.faces, **camera)


@pytest.mark.parametrize(
    ("scale", "options", "words"),
    [
        (1e5, (), "expected keypoints near the photo of 60 pixels, got 3e+06"),
        (1e20, (), "expected keypoints near the photo"),
        (1e30, (), "expected keypoints near the photo"),
        (1, ("--focal", "1e20", "--center", "0", "0"), "expected --focal of 0.6 to 6000 pixels"),
        (1, ("--focal", "1e-20", "--center", "0", "0"), "expected --focal of 0.6 to 6000 pixels"),
        (1, ("--focal", "100", "--center", "1e30", "0"), "--center of at most 6000"),
        (1, ("--focal", "100", "--center", "nan", "0"), "--center of at most 6000"),
        (1, ("--margin", "1e20"), "expected --margin of 0.1 to 100"),
        (1, ("--margin", "nan"), "expected --margin of 0.1 to 100"),
    ],
)
def test_numbers_of_another_world_are_refused(model, tmp_path, capsys, scale, options, words):
    image = pytest.importorskip("PIL.Image")
    photo, keypoints = tmp_path / "me.png", tmp_path / "me.json"
    image.new("RGB", (40, 60)).save(photo)
    points = np.ones((17, 3))
    points[:, :2] = scale * np.linspace(1, 30, 34).reshape(17, 2)
    person = {"image_id": 0, "category_id": 1, "keypoints": points.flatten().tolist()}
    keypoints.write_text(json.dumps([person]))
    argv = ["photo", "--photo", str(photo), "--keypoints", str(keypoints), "--model", str(model)]
    assert main([*argv, "--out", str(tmp_path / "out.png"), *options]) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1 and not (tmp_path / "out.png").exists()
