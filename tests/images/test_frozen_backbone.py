"""Training of the distribution behind an image network that rests."""

import json

import pytest
import torch

from propose_prob.bodies import load_open_body
from propose_prob.cli import main
from propose_prob.errors import InputError
from propose_prob.images.render_set import load_renders, render_set
from propose_prob.images.renderer import RenderConfig
from propose_prob.images.sources import AugmentConfig, RenderSource
from propose_prob.images.training import (
    FrozenBackboneTrainer,
    ImageTrainConfig,
    ImageValidation,
    copy_flow_from,
    prepare_images,
)
from propose_prob.models import ProHMR, ProHMRConfig
from propose_prob.training.checkpoint import read_checkpoint
from propose_prob.training.loop import TrainingLoop
from propose_prob.weights import load, save
from tests.training.descent import falls, losses_of_small_steps
from tests.zoo import perturbed

FLOW = {"couplings": 2, "flow_width": 16, "flow_blocks": 1, "context": 16}
SEES = {"backbone_width": 4, "image": 48, **FLOW}
CONFIG = {
    "steps": 6, "batch_size": 4, "validate": 3, "copies": 2, "distil": 3, "model": SEES,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Renders, an image model that is trained in name, and a keypoint model."""
    folder = tmp_path_factory.mktemp("distribution")
    for split, count in (("train", 6), ("val", 4)):
        render_set(RenderConfig(split, size=48), count, folder)
    torch.manual_seed(0)
    save(perturbed(ProHMR(_image()), scale=0.1).float(), folder / "sees.safetensors")
    save(perturbed(ProHMR(_keypoints()), scale=0.1).float(), folder / "knows.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def _image():
    return ProHMRConfig(encoder="image", backbone="resnet18", joint_maps=True, **SEES)


def _keypoints(**changes):
    return ProHMRConfig(width=32, blocks=1, **(FLOW | changes))


def _trainer(folder, **changes):
    config = ImageTrainConfig(
        model=_image(), batch_size=8, **({"copies": 2, "distil": 3, "steps": 6} | changes)
    )
    model, teacher = (load(folder / f"{n}.safetensors") for n in ("sees", "knows"))
    model = copy_flow_from(model.requires_grad_(True), teacher)
    source = RenderSource(load_renders(folder))
    return FrozenBackboneTrainer(model, config, source, load_open_body(), teacher=teacher)


def _command(folder, out, *more):
    argv = ["train", "image", "--data", folder, "--config", folder / "config.json", "--out", out]
    return main([str(word) for word in (*argv, *more)])


def test_contexts_come_to_be_the_teachers(folder):
    trainer = _trainer(folder, distil=80, steps=80)
    assert trainer.step().keys() == {"distil"}
    assert falls(losses_of_small_steps(trainer, trainer.step))


def test_only_what_follows_the_image_network_moves(folder):
    trainer = _trainer(folder, distil=1)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    assert trainer.step().keys() == {"distil"}
    assert {"nll", "mode3d", "energy"} <= trainer.step().keys()
    after = trainer.model.state_dict()
    rests = [n for n in before if n.startswith("encoder") and not n.startswith("encoder.project")]
    assert rests and all(torch.equal(before[n], after[n]) for n in rests)
    for part in ("encoder.project", "flow", "head"):
        moved = [not torch.equal(before[n], after[n]) for n in before if n.startswith(part)]
        assert any(moved), part


def test_what_was_seen_gives_the_contexts_of_the_images(folder):
    plain = AugmentConfig(mirror=0, scale=0, shift=0, roll=0, color=0, contrast=0, gray=0)
    trainer = _trainer(folder, copies=1, distil=0, augment=plain)
    seen = trainer._look()
    images = prepare_images(trainer.source(torch.arange(len(trainer.source)))).images
    encoder = trainer.model.encoder.eval()
    with torch.no_grad():
        expected = encoder(images)
        got = encoder.project(seen.images.float())
    torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-2)


def test_a_run_resumes_to_the_same_numbers(folder, tmp_path):
    held_out = ImageValidation.from_source(
        RenderSource(load_renders(folder, "val")), load_open_body()
    )

    def make():
        trainer = _trainer(folder, distil=2)
        return TrainingLoop(trainer, held_out, tmp_path / "run", start=trainer.model)

    run = make()
    run._round()
    run.checkpoint()
    expected = [run._round() and dict(run.losses) for _ in range(2)][-1]
    again = make()
    again.resume()
    assert [again._round() and dict(again.losses) for _ in range(2)][-1] == expected
    assert {"distil", "nll"} <= expected.keys()


def test_the_command_trains_and_keeps_the_network(folder, tmp_path):
    start = ("--init", folder / "sees.safetensors", "--distribution", folder / "knows.safetensors")
    assert _command(folder, tmp_path / "run", *start) == 0
    assert read_checkpoint(tmp_path / "run" / "checkpoint.pt")["parts"]["progress"] == {"steps": 6}
    sees, result = load(folder / "sees.safetensors"), load(tmp_path / "run" / "model.safetensors")
    pairs = zip(
        result.encoder.backbone.parameters(), sees.encoder.backbone.parameters(), strict=True
    )
    # Stored as float16.
    assert all(torch.equal(ours, theirs.half().float()) for ours, theirs in pairs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "expected --init"),
        (("--distribution", "knows.safetensors"), "expected --init"),
        (
            ("--init", "sees.safetensors"),
            "distil needs a keypoint model to learn from: --distribution",
        ),
        (
            ("--init", "sees.safetensors", "--distribution", "sees.safetensors"),
            "ProHMR of keypoints",
        ),
        (("--init", "sees.safetensors", "--distribution", "other.safetensors"), "of the sizes of"),
    ],
)
def test_what_is_missing_is_said(options, message, folder, tmp_path, capsys):
    save(ProHMR(_keypoints(context=24)), folder / "other.safetensors")
    named = [folder / word if word.endswith("safetensors") else word for word in options]
    config = json.loads((folder / "config.json").read_text())
    if not options:
        config |= {"distil": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    argv = ["train", "image", "--data", folder, "--out", tmp_path / "run"]
    argv += ["--config", tmp_path / "config.json", *named]
    assert main([str(word) for word in argv]) == 2
    assert message in capsys.readouterr().err


def test_an_encoder_without_maps_has_nothing_to_train(folder):
    config = ProHMRConfig(encoder="image", backbone="resnet18", **SEES)
    with pytest.raises(ValueError, match="set joint_maps"):
        FrozenBackboneTrainer(
            ProHMR(config), ImageTrainConfig(model=config, copies=1), None, load_open_body()
        )


def test_distilling_needs_copies():
    with pytest.raises(ValueError, match="set copies"):
        ImageTrainConfig(distil=5)


def test_flows_of_other_sizes_are_refused(folder):
    with pytest.raises(InputError, match="of the sizes of"):
        copy_flow_from(ProHMR(_image()), ProHMR(_keypoints(context=24)))
