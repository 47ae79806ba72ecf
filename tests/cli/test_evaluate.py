import json

import pytest
import torch

from propose_prob.cli import evaluate as command
from propose_prob.data.cmu17 import load_cmu17
from propose_prob.evaluation import Protocol

FAST = ("--samples", 10, "--stride", 400)


def test_table_states_its_protocol(run, folder, tiny_model):
    code, out, err = run("evaluate", "--model", tiny_model, *FAST, "--hide", 4)
    assert code == 0 and not err
    assert out.startswith("Model: tiny.safetensors")
    words = " ".join(out.split())
    for phrase in (
        "CMU17, split test_seen: exact 2D, 4 views, one frame in 400, 4 joints hidden per pose",
        "intrinsics known",
        "10 samples of the law itself",
        "Means over 40 poses",
        "deterministic estimate",
        "spread, hidden joints",
    ):
        assert phrase in words


def test_json_to_file_and_standard_output_agree(run, folder, tiny_model):
    args = ("evaluate", "--model", tiny_model, *FAST, "--split", "val", "--kind", "noisy",
            "--use", "hypotheses", "--intrinsics", "unknown")  # fmt: skip
    code, table, _ = run(*args, "--json", "report.json")
    assert code == 0 and "Protocol" in table
    code, out, err = run(*args, "--json", "-")
    assert code == 0 and not err
    report = json.loads(out)
    assert report == json.loads((folder / "report.json").read_text())
    assert report["model"] == "tiny.safetensors" and report["propose_prob_version"]
    protocol = report["protocol"]
    assert (protocol["split"], protocol["keypoints"]) == ("val", "noisy")
    assert (protocol["samples"], protocol["intrinsics"]) == ("hypotheses", "unknown")
    assert f"{report['items']['point_mpjpe']:.1f}" in table


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--samples", 1), "--samples"),
        (("--stride", 0), "--stride"),
        (("--hide", 16), "--hide"),
        (("--hide", -1), "--hide"),
        (("--batch-size", 0), "--batch-size"),
        (("--split", "train", "--kind", "noisy"), "train"),
        (("--json", "none/report.json"), "no folder"),
    ],
)
def test_wrong_options_get_one_line(run, folder, tiny_model, args, words):
    code, out, err = run("evaluate", "--model", tiny_model, *args)
    assert code == 2 and not out
    assert words in err and err.count("\n") == 1
    assert not list(folder.iterdir())


class Oracle:
    """A model that knows the answer: it looks its keypoints up."""

    def __init__(self, data, kind):
        self.p2d = data.p2d(kind).flatten(0, 1) * 500
        self.p3d = data.p3d().flatten(0, 1)
        self.seen = []
        self.focal = []

    def conditional(self, p2d, confidence=None, *, focal=None, center=(0.0, 0.0)):
        self.seen.append(confidence.clone())
        self.focal.append(focal)
        assert (p2d.isnan().any(-1) == (confidence == 0)).all()
        distance = (p2d.nan_to_num()[:, None] - self.p2d * confidence[:, None, :, None]).abs()
        pose = self.p3d[distance.sum((-1, -2)).argmin(1)]

        class Law:
            point_estimate = pose

            def sample(self, shape):
                noise = 0.01 * torch.randn(*shape, *pose.shape)
                noise[..., 0, :] = 0
                return pose + noise

        return Law()


def protocol(**changes):
    settings = {"keypoints": "exact", "num_samples": 20, "samples": "law", "frame_stride": 300}
    return Protocol("CMU17", "val", **(settings | changes))


@pytest.mark.parametrize("kind", ["exact", "noisy"])
def test_an_oracle_is_scored_as_one(kind):
    data = load_cmu17("val")
    report = command.evaluate_cmu17(Oracle(data, kind), data, protocol(keypoints=kind))
    assert report.num_items == 14 * 4
    assert report.items.point_mpjpe < 1e-3
    # A spread of 10 mm in each of three coordinates.
    assert abs(report.items.spread_seen - 17.3) < 1
    assert sum(report.action_items.values()) == report.num_items
    # Errors in pixels of a 1000 px image: of the order of the noise given.
    assert 1 < report.items.reprojection < (10 if kind == "exact" else 30)


def test_hidden_joints_do_not_depend_on_stride_or_batches():
    data = load_cmu17("val")
    wide, dense = Oracle(data, "exact"), Oracle(data, "exact")
    for oracle, stride, batch in ((wide, 600, 3), (dense, 300, 64)):
        settings = protocol(hidden_joints=3, frame_stride=stride, intrinsics="known")
        command.evaluate_cmu17(oracle, data, settings, batch_size=batch)
    a, b = torch.cat(wide.seen), torch.cat(dense.seen)
    assert ((a == 0).sum(-1) == 3).all()
    assert (a.unflatten(0, (-1, 4)) == b.unflatten(0, (-1, 4))[::2]).all()
    assert set(wide.focal) == {1145.0}
    assert len({tuple(row) for row in a.tolist()}) > 10
