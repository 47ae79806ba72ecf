import json
from dataclasses import replace

import pytest
import torch

from propose_prob.datasets.clips import PoseClip
from propose_prob.datasets.cmu17 import load_cmu17
from propose_prob.distributions.recalibration import Recalibration, joint_groups
from propose_prob.errors import InputError
from propose_prob.evaluation import PROTOCOLS, ClipSet, CMU17Set, comparison, evaluate
from propose_prob.evaluation.conditions import Condition, prepare
from propose_prob.geometry.skeletons import H36M_17, MPI_INF_3DHP_17

PROTOCOL = replace(PROTOCOLS["cmu17"], split="val", num_samples=20, frame_stride=300)


class Oracle:
    """A model that knows the answers of a set: it looks its keypoints up."""

    def __init__(self, data, *, spread=0.01, offset=0.0):
        batches = list(data.batches(1000))
        items = [prepare(b, data.skeleton, H36M_17, Condition()) for b in batches]
        self.p2d = torch.cat([item.p2d for item in items]).nan_to_num()
        self.p3d = torch.cat([item.target for item in items]).nan_to_num() + offset
        self.p3d -= self.p3d[:, :1]
        self.spread = spread
        self.seen, self.told = [], []

    def conditional(self, p2d, confidence=None, *, focal=None, center=(0.0, 0.0)):
        self.seen.append(confidence.clone())
        self.told.append((focal, center))
        assert (p2d.isnan().any(-1) == (confidence == 0)).all()
        gap = (p2d.nan_to_num()[:, None] - self.p2d * (confidence > 0)[:, None, :, None]).abs()
        pose = self.p3d[gap.sum((-1, -2)).argmin(1)]
        spread = self.spread

        class Distribution:
            point_estimate = pose

            def sample(self, shape):
                noise = spread * torch.randn(*shape, *pose.shape)
                noise[..., 0, :] = 0
                return pose + noise

        return Distribution()


def clips(*, joints=MPI_INF_3DHP_17, invalid=2):
    """A recording of 8 frames in 3DHP's joints, filmed from 4 m."""
    generator = torch.Generator().manual_seed(0)
    pose = 0.4 * torch.randn(8, joints.num_joints, 3, generator=generator)
    p3d = pose + torch.tensor([0.1, 0.2, 4.0])
    hips = [joints.meanings.index(f"{side}_hip") for side in ("right", "left")]
    p3d[:, joints.root] = p3d[:, hips].mean(1)
    p2d = 1000 * p3d[..., :2] / p3d[..., 2:] + 512
    valid = torch.ones(8, dtype=torch.bool)
    valid[:invalid] = False
    p2d[~valid] = torch.nan
    for name, setting in (("TS1", "GS"), ("TS5", "outdoor")):
        yield PoseClip(
            sequence=f"{name} {setting}",
            subject=name,
            skeleton=joints,
            actions=("walk",) * 8,
            p2d=p2d,
            confidence=p2d.isfinite().all(-1).float(),
            p3d=p3d,
            focal=1000.0,
            center=(512.0, 512.0),
            image_size=None,
            frame=torch.arange(8),
            valid=valid,
        )


CLIPS = ClipSet("MPI-INF-3DHP", "test", "gt", MPI_INF_3DHP_17, clips)


@pytest.mark.parametrize("kind", ["exact", "noisy"])
def test_an_oracle_is_scored_as_one(kind):
    data = CMU17Set(load_cmu17("val"), kind, 300)
    report = evaluate(Oracle(data), data, replace(PROTOCOL, keypoints=kind))
    assert report.num_items == 14 * 4
    assert report.items.point_mpjpe < 1e-3
    # A spread of 10 mm in each of three coordinates.
    assert abs(report.items.spread_seen - 17.3) < 1
    assert sum(report.action_items.values()) == report.num_items
    # Errors in pixels of a 1000 px image: of the order of the noise given.
    assert 1 < report.items.reprojection < (10 if kind == "exact" else 30)
    assert report.items.point_pck == 1 and report.items.velocity < 1e-3


def test_hidden_joints_do_not_depend_on_stride_or_batches():
    seen = []
    for stride, size in ((600, 3), (300, 64)):
        data = CMU17Set(load_cmu17("val"), stride=stride)
        oracle = Oracle(data)
        settings = replace(PROTOCOL, hidden_joints=3, frame_stride=stride)
        evaluate(oracle, data, settings, batch_size=size)
        seen.append(torch.cat(oracle.seen).unflatten(0, (-1, 4)))
        assert {float(f) for focal, _ in oracle.told for f in focal} == {1145.0}
    assert ((seen[0] == 0).sum(-1) == 3).all()
    assert (seen[0] == seen[1][::2]).all()
    assert len({tuple(row) for row in seen[1].flatten(0, 1).tolist()}) > 10


def test_3dhp_counts_valid_frames_14_joints_and_settings():
    protocol = replace(PROTOCOLS["3dhp"], num_samples=10)
    oracle = Oracle(CLIPS)
    report = evaluate(oracle, CLIPS, protocol)
    assert report.num_items == 12 and report.action_items == {"GS": 6, "outdoor": 6}
    assert report.items.point_pck == 1 and report.items.point_mpjpe < 1e-3
    assert report.items.point_auc == pytest.approx(30 / 31)
    assert {told[0] for told in oracle.told} == {None}
    moved = Oracle(CLIPS)
    moved.p3d[:, H36M_17.index("Spine")] += 1.0
    assert evaluate(moved, CLIPS, protocol).items.point_mpjpe < 1e-3
    moved.p3d[:, H36M_17.index("LWrist"), 0] += 0.142
    report = evaluate(moved, CLIPS, protocol)
    assert report.items.point_mpjpe == pytest.approx(142 / 14, rel=1e-3)
    assert report.items.point_pck == 1
    assert report.items.point_auc == pytest.approx((13 * 30 / 31 + 2 / 31) / 14)


def test_a_joint_without_truth_is_named():
    def headless():
        for clip in clips():
            p3d = clip.p3d.clone()
            p3d[:, MPI_INF_3DHP_17.index("head_top")] = torch.nan
            yield replace(clip, p3d=p3d)

    data = ClipSet("x", "test", "gt", MPI_INF_3DHP_17, headless)
    with pytest.raises(InputError, match="needs a true Head, which TS1 GS, frame 2, does not"):
        evaluate(Oracle(CLIPS), data, replace(PROTOCOLS["3dhp"], num_samples=10))


def test_a_set_that_does_not_fit_is_named():
    data = CMU17Set(load_cmu17("val"), stride=500)
    with pytest.raises(InputError, match="stride 300 as the protocol says, got 500"):
        evaluate(Oracle(data), data, PROTOCOL)
    empty = ClipSet("x", "test", "gt", MPI_INF_3DHP_17, lambda: clips(invalid=8))
    with pytest.raises(InputError, match="at least one valid pose"):
        evaluate(Oracle(CLIPS), empty, PROTOCOLS["3dhp"])


def test_items_of_few_joints_are_left_out():
    batch = next(CLIPS.batches(8)).select(torch.arange(2, 5))
    batch.confidence[0, 3:] = 0
    assert len(prepare(batch, MPI_INF_3DHP_17, H36M_17, Condition(min_joints=4))) == 2
    assert len(prepare(batch, MPI_INF_3DHP_17, H36M_17, Condition(min_joints=3))) == 3


def test_several_models_stand_in_one_table():
    data = CMU17Set(load_cmu17("val"), stride=300)
    reports = {
        "good": evaluate(Oracle(data), data, PROTOCOL),
        "bad": evaluate(Oracle(data, offset=0.1 * torch.randn(17, 3)), data, PROTOCOL),
    }
    text = comparison(reports)
    assert PROTOCOL.describe()[:40] in text and "estimate (mm)" in text
    rows = [line for line in text.splitlines() if line.startswith("best of 20 (mm)")]
    assert len(rows) == 1 and f"{reports['bad'].items.best_mpjpe:.1f}" in rows[0]
    table = [line for line in comparison(reports, style="markdown").splitlines() if line[:1] == "|"]
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1
    stored = json.loads(comparison(reports, style="json"))["models"]
    assert stored["good"]["items"]["point_mpjpe"] < 1e-3
    other = evaluate(Oracle(data), data, replace(PROTOCOL, seed=1))
    with pytest.raises(ValueError, match="under one protocol"):
        comparison({"a": reports["good"], "b": other})


def test_recalibration_can_be_left_out():
    class Model(Oracle):
        calibration = Recalibration(joint_groups(H36M_17))

        def conditional(self, *args, recalibrated=True, **kwargs):
            used.append(recalibrated)
            return super().conditional(*args, **kwargs)

    data = CMU17Set(load_cmu17("val"), stride=600)
    for calibrated in (True, False):
        used = []
        settings = replace(PROTOCOL, frame_stride=600, calibrated=calibrated)
        evaluate(Model(data), data, settings)
        assert set(used) == {calibrated}
