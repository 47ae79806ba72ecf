"""Training of ProHMR from pixels: on renders, and on files in SPIN's format."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
import torch

from propose_prob.bodies import load_open_body
from propose_prob.cli import main
from propose_prob.errors import InputError
from propose_prob.geometry.rotations import axis_angle_from_matrix
from propose_prob.geometry.skeletons import SMPL_24
from propose_prob.images.render_set import load_renders, render_set
from propose_prob.images.renderer import RenderConfig, Renderer
from propose_prob.images.sources import RenderSource
from propose_prob.images.spin_images import SpinSource, read_image
from propose_prob.images.training import (
    ImageLossConfig,
    ImageTrainConfig,
    ImageTrainer,
    ImageValidation,
    prepare_images,
)
from propose_prob.models import ProHMR, ProHMRConfig
from propose_prob.training import objectives
from propose_prob.training.loop import TrainingLoop
from propose_prob.weights import load

SMALL = ProHMRConfig(
    encoder="image", backbone="resnet18", backbone_width=4, joint_maps=True, image=48,
    couplings=2, flow_width=16, flow_blocks=1, context=16,
)  # fmt: skip
CONFIG = {
    "steps": 2, "batch_size": 4, "validate": 1, "only_2d": 0.3,
    "model": {
        "backbone_width": 4, "image": 48, "couplings": 2, "flow_width": 16, "flow_blocks": 1,
        "context": 16,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def renders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("renders")
    for split, count in (("train", 8), ("val", 4)):
        render_set(RenderConfig(split, size=48), count, folder)
    return folder


@pytest.fixture(scope="module")
def spin(tmp_path_factory):
    """Six people in six photographs of two sizes, two of them without a body in 3D."""
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("spin")
    (folder / "images").mkdir()
    people = [Renderer(RenderConfig("val", size=64))(index) for index in range(6)]
    names, part = [], np.zeros((6, 24, 3))
    order = [14, 2, 1, 0, 3, 4, 5, 16, 15, 17, 18, 9, 10, 11, 8, 7, 6]
    for row, person in enumerate(people):
        wide = np.zeros((80, 100 + 10 * (row % 2), 3), np.uint8)
        wide[10:74, 20:84] = person.image
        names.append(f"images/{row}.png")
        image.fromarray(wide).save(folder / names[-1])
        part[row, order, :2] = person.keypoints.numpy() + [20, 10]
        part[row, order, 2] = person.visible.numpy()
    np.savez(
        folder / "train.npz",
        imgname=np.array(names),
        center=np.full((6, 2), [52.0, 42.0]),
        scale=np.full(6, 64 / 200),
        part=part,
        pose=np.stack([axis_angle_from_matrix(p.theta).numpy().reshape(72) for p in people]),
        shape=np.stack([p.shape.numpy() for p in people]),
        has_smpl=np.array([1, 1, 1, 1, 0, 0]),
    )
    return folder, people


def trainer(renders, **options):
    torch.manual_seed(0)
    config = ImageTrainConfig(batch_size=4, model=SMALL, steps=4, validate=2, **options)
    source = RenderSource(load_renders(renders))
    return ImageTrainer(ProHMR(SMALL), config, source, load_open_body())


def test_prepared_images_project_as_their_evidence_says(renders):
    batch = RenderSource(load_renders(renders))(torch.arange(8))
    pairs = prepare_images(batch)
    body = load_open_body()
    joints = body.regress(body(batch.theta, batch.shape))
    place = batch.joints[:, :1] - joints[:, :1]
    seen = (joints + place)[..., :2] / (joints + place)[..., 2:]
    evidence = pairs.evidence
    seen = (seen - evidence.center[:, None]) / evidence.scale[:, None, None]
    p2d = evidence.features.unflatten(-1, (17, 2))
    error = (seen - p2d).norm(dim=-1)[pairs.visible]
    assert error.max() < 1e-3


def test_every_loss_moves_its_parameters(renders):
    run = trainer(renders, loss=ImageLossConfig(adversarial=0.1), only_2d=0.5)
    run.prepare(3)
    losses = run.step()
    assert set(losses) == set(run.terms) and all(np.isfinite(list(losses.values())))
    before = {name: p.clone() for name, p in run.model.named_parameters()}
    run.step()
    same = [n for n, p in run.model.named_parameters() if torch.equal(p, before[n])]
    assert not same, same


def test_items_with_keypoints_alone_teach_no_3d(renders):
    run = trainer(renders)
    run.prepare(3)
    pairs = dataclasses.replace(run._draw(), has_body=torch.zeros(4, dtype=torch.bool))
    broken = dataclasses.replace(
        pairs,
        theta=pairs.theta * torch.nan,
        shape=pairs.shape * torch.nan,
        joints=pairs.joints * torch.nan,
    )
    losses, _ = run.losses(broken)
    assert {n for n, v in losses.items() if v.detach() != 0} == {
        "sample2d", "mode2d", "orthogonality", "keypoints", "maps",
    }  # fmt: skip
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in run.model.parameters() if p.grad is not None)


def test_maps_are_pulled_to_the_keypoints():
    """The cross-entropy falls to the entropy where the map is that distribution."""
    p2d = torch.tensor([[[0.25, -0.5], [0.0, 0.0]]])
    visible = torch.tensor([[True, False]])
    maps = torch.zeros(1, 2, 16, 8, requires_grad=True)
    optimizer = torch.optim.Adam([maps], lr=0.3)
    for _ in range(300):
        loss = objectives.joint_maps(maps.flatten(2).log_softmax(-1).view_as(maps), p2d, visible)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    share = maps.detach().flatten(2).softmax(-1).view_as(maps)[0, 0]
    assert share.sum(0) @ (torch.arange(8) + 0.5) / 8 * 2 - 1 == pytest.approx(0.25, abs=0.02)
    assert share.sum(1) @ (torch.arange(16) + 0.5) / 16 * 2 - 1 == pytest.approx(-0.5, abs=0.02)
    assert maps[0, 1].abs().max() == 0
    entropy = 1 + math.log(2 * math.pi * 0.7**2)
    assert float(loss.detach()) == pytest.approx(entropy, abs=0.02)


def test_every_image_comes_once_before_any_comes_again(renders):
    run = trainer(renders)
    rows = torch.cat([run.deck.draw(4, 8, run.generator) for _ in range(4)])
    assert sorted(rows[:8].tolist()) == list(range(8)) == sorted(rows[8:].tolist())


def test_a_run_resumes_to_the_same_numbers(renders, tmp_path):
    def make():
        training = trainer(renders)
        held_out = ImageValidation.from_source(
            RenderSource(load_renders(renders, "val")), load_open_body()
        )
        return TrainingLoop(training, held_out, tmp_path / "run")

    run = make()
    run._round()
    run.checkpoint()
    expected = [run._round() and dict(run.losses) for _ in range(2)][-1]
    again = make()
    again.resume()
    assert [again._round() and dict(again.losses) for _ in range(2)][-1] == expected


def test_bfloat16_is_close_to_float32(renders):
    exact, rough = trainer(renders), trainer(renders, precision="bfloat16")
    pairs = exact._draw()
    one, other = exact._context(pairs), rough._context(pairs)
    assert other.dtype is torch.float32
    assert 0 < (one - other).norm() < 0.3 * one.norm()


def test_the_command_trains_on_renders(renders, tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    out = tmp_path / "out"
    args = ["train", "image", "--data", str(renders), "--config", str(config), "--out", str(out)]
    assert main(args) == 0
    assert "temperature" in capsys.readouterr().out
    model = load(out / "model.safetensors")
    assert model.config.encoder == "image" and not model.training
    distribution = model.given(torch.randn(2, 3, 48, 48))
    assert distribution.mode.shape == (2, 24, 6)
    # The same crops, told where they were cut: the distribution turns with the camera.
    images = torch.randn(2, 3, 48, 48)
    where = {"middle": torch.tensor([[900.0, 300.0]] * 2), "side": torch.tensor([200.0] * 2)}
    plain = model.estimate_images(images, **where)
    told = model.estimate_images(images, **where, focal=1000.0, center=(500.0, 400.0))
    assert plain.translation is None and told.translation.shape == (2, 3)
    # Both cameras see the body's origin in the same place and size.
    torch.testing.assert_close(told.camera[:, 1:], plain.camera[:, 1:], atol=25.0, rtol=0)
    ratio = told.camera[:, 0] / plain.camera[:, 0]
    assert ((ratio > 0.8) & (ratio < 1.25)).all()
    torch.testing.assert_close(
        told.distribution.mode[:, 1:], plain.distribution.mode[:, 1:], atol=1e-5, rtol=1e-5
    )
    assert not torch.allclose(
        told.distribution.mode[:, 0], plain.distribution.mode[:, 0], atol=1e-2
    )


def test_spins_people_are_cut_out_as_they_were_put_in(spin):
    folder, people = spin
    body = load_open_body()
    source = SpinSource.read(folder / "train.npz", folder, body=body, size=64)
    batch = source(torch.arange(6))
    assert batch.has_body.tolist() == [True] * 4 + [False] * 2
    for row, person in enumerate(people):
        pixels = (255 * batch.images[row]).permute(1, 2, 0).numpy()
        assert np.abs(pixels - person.image).max() < 1
        seen = person.visible
        assert torch.equal(batch.visible[row], seen)
        torch.testing.assert_close(
            batch.keypoints[row][seen], person.keypoints[seen], atol=1e-3, rtol=1e-4
        )
    relative = batch.joints - batch.joints[:, :1]
    expected = torch.stack([p.joints - p.joints[:1] for p in people])
    torch.testing.assert_close(relative[:4], expected[:4], atol=2e-3, rtol=0)


def test_the_command_trains_on_spins_files(spin, tmp_path, capsys):
    folder, _ = spin
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    options = {"data": folder, "validation": folder / "train.npz", "images": folder}
    options |= {"config": config, "out": tmp_path / "out"}
    args = ["train", "image", *(str(w) for n, v in options.items() for w in (f"--{n}", v))]
    assert main(args) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()
    (folder / "images" / "5.png").rename(folder / "images" / "six.png")
    try:
        assert main([*args[:-1], str(tmp_path / "other")]) == 2
    finally:
        (folder / "images" / "six.png").rename(folder / "images" / "5.png")
    assert "images/5.png" in capsys.readouterr().err


def test_the_command_trains_an_smpl_body(spin, tmp_path):
    """A body of SMPL's official keys and size, random: the data's rotations move it."""
    folder, _ = spin
    rng = np.random.default_rng(0)
    parents = np.array([4294967295, *SMPL_24.parents[1:]], dtype=np.uint32)
    weights = np.zeros((6890, 24))
    weights[np.arange(6890), rng.integers(0, 24, 6890)] = 1
    np.savez(
        tmp_path / "smpl.npz",
        v_template=rng.normal(size=(6890, 3)),
        shapedirs=0.1 * rng.normal(size=(6890, 3, 10)),
        J_regressor=np.eye(24, 6890),
        kintree_table=np.stack([parents, np.arange(24, dtype=np.uint32)]),
        weights=weights,
        f=rng.integers(0, 6890, (50, 3)).astype(np.uint32),
    )
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG | {"loss": {"adversarial": 0.1}}))
    options = {"data": folder, "validation": folder / "train.npz", "images": folder}
    options |= {"config": config, "out": tmp_path / "out", "body": tmp_path / "smpl.npz"}
    args = ["train", "image", *(str(w) for n, v in options.items() for w in (f"--{n}", v))]
    assert main(args) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_wrong_input_is_named(renders, spin, tmp_path):
    folder, _ = spin
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match="expected an image"):
        read_image(tmp_path / "text.png")
    with pytest.raises(InputError, match="found none"):
        SpinSource.read(tmp_path, folder, body=load_open_body(), size=32)
    model = ProHMR(SMALL).eval()
    images = torch.zeros(2, 3, 48, 48)
    for call, message in (
        (lambda: model.estimate_images(images[..., :40]), "S, S"),
        (lambda: model.estimate_images(images * torch.nan), "finite pixels"),
        (lambda: model.estimate_images(images, middle=torch.zeros(2, 2)), "together"),
        (lambda: model.estimate_images(images, focal=-1.0), "focal length > 0"),
        (lambda: model.conditional(torch.zeros(2, 17, 2)), "does not read keypoints"),
        (
            lambda: model.estimate_images(
                images, middle=torch.zeros(2, 2), side=torch.tensor([1.0, 0.0])
            ),
            "side",
        ),
    ):
        with pytest.raises(InputError, match=message):
            call()
    with pytest.raises(InputError, match="does not read images"):
        ProHMR(ProHMRConfig(flow_width=16, width=16)).estimate_images(images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "needs --data"),
        (["--data", "RENDERS", "--body", "x.pkl"], "x.pkl"),
        (["--data", "SPIN"], "--images and --validation"),
    ],
)
def test_the_command_says_what_is_missing(options, message, renders, spin, tmp_path, capsys):
    places = {"RENDERS": str(renders), "SPIN": str(spin[0])}
    args = [places.get(option, option) for option in options]
    assert main(["train", "image", "--out", str(tmp_path / "out"), *args]) == 2
    assert message in capsys.readouterr().err


def test_what_reading_images_needs_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"photo.jpg: .* pip install 'propose_prob\[images\]'$"):
        read_image(tmp_path / "photo.jpg")
