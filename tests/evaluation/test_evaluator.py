import itertools
import json
import math
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from propose_prob.evaluation import PROTOCOLS, CalibrationCurve, Protocol, mpjpe, pa_mpjpe
from propose_prob.evaluation.bones import bone_pairs, bone_symmetry, bone_variation
from propose_prob.evaluation.estimates import estimate
from propose_prob.evaluation.evaluator import Evaluator
from propose_prob.evaluation.metrics import METRICS, Metrics, auc, cps, joint_errors, n_mpjpe, pck
from propose_prob.evaluation.motion_errors import MotionErrors
from propose_prob.evaluation.scores import crps, joint_spread
from propose_prob.evaluation.sharpness import SpreadErrorHistogram
from propose_prob.geometry.alignment import procrustes
from propose_prob.geometry.skeletons import H36M_17

PROTOCOL = Protocol(
    "toy",
    "test",
    keypoints="exact",
    num_samples=12,
    samples="distribution",
    num_joints=6,
    hidden_joints=None,
)
ACTIONS = ["walk"] * 6 + ["sit"] * 3 + ["run"]
FOCAL = 1000.0


def data(seed=0, items=10, num_samples=12, joints=6, hidden=0.3):
    """A batch of root-relative samples, with exact 2D (NaN where hidden)."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    target = 0.3 * draw(items, joints, 3)
    point = target + 0.02 * draw(items, joints, 3)
    samples = target + 0.05 * draw(num_samples, items, joints, 3) + 0.03 * draw(items, joints, 3)
    for poses in (target, point, samples):
        poses[..., 0, :] = 0
    visible = torch.rand(items, joints, generator=generator) >= hidden
    visible[:, :3] = True
    camera = target + torch.tensor([0.2, -0.1, 4.0])
    p2d = FOCAL * camera[..., :2] / camera[..., 2:]
    p2d[~visible] = torch.nan
    return {
        "samples": samples,
        "point": point,
        "target": target,
        "visible": visible,
        "p2d": p2d,
        "focal": FOCAL,
        "group": ACTIONS[:items],
    }


def take(batch, rows):
    """Some items of a batch."""
    rows = list(rows)
    cut = {key: batch[key][rows] for key in ("point", "target", "visible", "p2d")}
    group = [batch["group"][row] for row in rows]
    return {"samples": batch["samples"][:, rows], **cut, "focal": FOCAL, "group": group}


def evaluate(*batches, protocol=PROTOCOL):
    evaluator = Evaluator(protocol)
    for batch in batches:
        evaluator.update(
            batch["samples"],
            batch["point"],
            batch["target"],
            batch["visible"],
            p2d=batch["p2d"],
            focal=batch["focal"],
            group=batch["group"],
        )
    return evaluator.report()


def close(a: Metrics, b: Metrics, rel=1e-9):
    return asdict(a) == pytest.approx(asdict(b), rel=rel, abs=1e-9, nan_ok=True)


def reference(batch, joints):
    """The metrics once more, item by item in numpy, without Procrustes and calibration."""
    samples, target = batch["samples"].numpy() * 1e3, batch["target"].numpy() * 1e3
    point, visible = batch["point"].numpy() * 1e3, batch["visible"].numpy()
    names = "point mean sample best energy_joint energy_pose reprojection".split()
    rows, spread = {name: [] for name in names}, {True: [], False: []}
    for b in range(len(target)):
        x, y = samples[:, b], target[b]
        errors = np.linalg.norm(x[:, joints] - y[joints], axis=-1).mean(-1)
        rows["point"].append(np.linalg.norm(point[b] - y, axis=-1)[joints].mean())
        rows["mean"].append(np.linalg.norm(x.mean(0) - y, axis=-1)[joints].mean())
        rows["sample"].append(errors[0])
        rows["best"].append(errors.min())
        per_joint = [cdist(x[:, j], y[None, j]).mean() - pdist(x[:, j]).mean() / 2 for j in joints]
        rows["energy_joint"].append(np.mean(per_joint))
        flat = x.reshape(len(x), -1)
        rows["energy_pose"].append(cdist(flat, y.reshape(1, -1)).mean() - pdist(flat).mean() / 2)
        for j in range(1, x.shape[1]):
            distance = ((x[:, j] - x[:, j].mean(0)) ** 2).sum(-1)
            spread[bool(visible[b, j])].append(np.sqrt(distance.mean()))
        seen, errors2d = visible[b], []
        uv = batch["p2d"][b].numpy()[seen] / FOCAL
        for pose in x[:, seen] / 1e3:
            # u (Z + tz) = X + tx, and likewise for v.
            matrix = np.concatenate(
                [
                    np.stack(
                        [
                            np.eye(2)[axis][0] * np.ones(len(uv)),
                            np.eye(2)[axis][1] * np.ones(len(uv)),
                            -uv[:, axis],
                        ],
                        axis=1,
                    )
                    for axis in (0, 1)
                ]
            )
            right = np.concatenate([uv[:, a] * pose[:, 2] - pose[:, a] for a in (0, 1)])
            moved = pose + np.linalg.lstsq(matrix, right, rcond=None)[0]
            image = moved[:, :2] / moved[:, 2:]
            errors2d.append(FOCAL * np.linalg.norm(image - uv, axis=-1).mean())
        rows["reprojection"].append(np.mean(errors2d))
    means = {name: np.mean(values) for name, values in rows.items()}
    return {**means, "spread_seen": np.mean(spread[True]), "spread_hidden": np.mean(spread[False])}


@pytest.mark.parametrize("count_root", [True, False])
def test_report_equals_numpy(count_root):
    batch, protocol = data(), replace(PROTOCOL, count_root=count_root)
    items = evaluate(batch, protocol=protocol).items
    expected = reference(batch, list(protocol.counted_joints))
    for name in ("point", "mean", "sample", "best"):
        assert getattr(items, f"{name}_mpjpe") == pytest.approx(expected.pop(name))
    for name, value in expected.items():
        assert getattr(items, name) == pytest.approx(value), name


@pytest.mark.parametrize("procrustes", ["similarity", "rigid"])
def test_aligned_errors_and_the_best_of_ten(procrustes):
    batch = data()
    items = evaluate(batch, protocol=replace(PROTOCOL, procrustes=procrustes)).items
    scale = procrustes == "similarity"
    samples, target = batch["samples"], batch["target"]
    errors = 1e3 * pa_mpjpe(samples, target, scale=scale)
    point = 1e3 * pa_mpjpe(batch["point"], target, scale=scale)
    center = 1e3 * pa_mpjpe(samples.mean(0), target, scale=scale)
    assert items.point_pa_mpjpe == pytest.approx(point.mean().item())
    assert items.mean_pa_mpjpe == pytest.approx(center.mean().item())
    assert items.sample_pa_mpjpe == pytest.approx(errors[0].mean().item())
    assert items.best_pa_mpjpe == pytest.approx(errors.amin(0).mean().item())
    picks = torch.stack(
        [errors[torch.randperm(12)[:10]].amin(0).mean() for _ in range(2000)]
    ).mean()
    assert items.best10_pa_mpjpe == pytest.approx(picks.item(), rel=0.01)
    assert items.best_mpjpe < items.best10_mpjpe < items.sample_mpjpe


def test_calibration_is_that_of_its_own_module_without_the_root():
    batch = data(items=10)
    report = evaluate(batch)
    for name, mask in (("all", None), ("seen", batch["visible"]), ("hidden", ~batch["visible"])):
        curve = CalibrationCurve(5)
        part = None if mask is None else mask[:, 1:]
        curve.update(batch["samples"][:, :, 1:], batch["target"][:, 1:], part)
        field = "ece" if name == "all" else f"ece_{name}"
        assert getattr(report.items, field) == pytest.approx(curve.compute().error)
        assert getattr(report.items, f"{field}_signed") == pytest.approx(curve.compute().signed)
        assert report.calibration[name].frequencies[:, 0].isnan().all()


def test_means_over_actions_weigh_actions_equally():
    batch = data()
    report = evaluate(batch)
    alone = {
        label: evaluate(take(batch, [i for i in range(10) if ACTIONS[i] == label]))
        for label in ("walk", "sit", "run")
    }
    for label, other in alone.items():
        # Ranks are over all poses, not within a group.
        expected = replace(other.items, spearman=math.nan, ause=math.nan)
        assert close(report.by_action[label], expected)
    for field in fields(Metrics):
        # Rank correlation and errors over time are of all poses, not of groups.
        over_all = ("spearman", "ause", "velocity", "acceleration", "bone", "nll")
        if not field.name.startswith(("ece", *over_all)):
            values = np.array([getattr(other.items, field.name) for other in alone.values()])
            assert getattr(report.actions, field.name) == pytest.approx(np.nanmean(values))
    assert report.action_items == {"walk": 6, "sit": 3, "run": 1}
    assert report.actions.point_mpjpe != pytest.approx(report.items.point_mpjpe)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 10), max_size=3))
def test_streaming_equals_one_batch(seed, cuts):
    batch, bounds = data(seed), [0, *sorted(cuts), 10]
    parts = [take(batch, range(a, b)) for a, b in itertools.pairwise(bounds)]
    whole, streamed = evaluate(batch), evaluate(*parts)
    assert close(whole.items, streamed.items) and close(whole.actions, streamed.actions)
    assert whole.num_items == streamed.num_items == 10


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_order_matters_only_to_the_one_random_sample(seed):
    batch = data(seed)
    generator = torch.Generator().manual_seed(seed)
    shuffled = take(batch, torch.randperm(10, generator=generator).tolist())
    assert close(evaluate(shuffled).items, evaluate(batch).items)
    order = torch.randperm(12, generator=generator)
    reordered = evaluate({**batch, "samples": batch["samples"][order]}).items
    first = {"sample_mpjpe": 0.0, "sample_pa_mpjpe": 0.0}
    assert close(replace(reordered, **first), replace(evaluate(batch).items, **first))


def test_float32_gives_the_same_numbers():
    batch = data()
    single = {
        key: v.float() if torch.is_tensor(v) and v.is_floating_point() else v
        for key, v in batch.items()
    }
    assert close(evaluate(single).items, evaluate(batch).items, rel=1e-4)


def test_samples_set_the_precision():
    batch = data()
    mixed = evaluate({**batch, "samples": batch["samples"].float()})
    halved = evaluate({**batch, "samples": batch["samples"].bfloat16()})
    assert close(mixed.items, evaluate(batch).items, rel=1e-4)
    assert halved.items.sample_mpjpe == pytest.approx(mixed.items.sample_mpjpe, rel=0.02)


def test_memory_does_not_grow_with_items():
    evaluator = Evaluator(replace(PROTOCOL, hidden_joints=0))
    batch = data(hidden=0.0)
    sizes = set()
    for _ in range(3):
        evaluator.update(batch["samples"], batch["point"], batch["target"], batch["visible"])
        sizes.add(sum(value.numel() for value in evaluator._total.sums.values()))
    assert len(sizes) == 1 and evaluator.report().num_items == 30


def test_what_was_not_measured_is_a_dash_and_null():
    protocol = replace(PROTOCOL, num_samples=5, hidden_joints=0)
    batch = data(num_samples=5, hidden=0.0)
    evaluator = Evaluator(protocol)
    evaluator.update(batch["samples"], batch["point"], batch["target"], batch["visible"])
    report = evaluator.report()
    assert report.actions is None
    for name in ("best10_mpjpe", "reprojection", "spread_hidden", "ece_hidden"):
        assert math.isnan(getattr(report.items, name))
        assert json.loads(report.to_json())["items"][name] is None
    rows = {line.split("  ")[0]: line.split() for line in report.to_table().splitlines()}
    assert rows["best of 10"][-2:] == ["-", "-"]
    assert rows["reprojection of hypotheses (px)"][-1] == "-"


def test_poses_that_cannot_be_placed_leave_the_reprojection_alone():
    batch = data()
    kept = evaluate(take(batch, range(8))).items.reprojection
    batch["visible"][8, 1:] = False
    batch["p2d"][9] = 3.0
    items = evaluate(batch).items
    assert items.reprojection == pytest.approx(kept)


def test_a_focal_length_per_item():
    batch = data()
    factor = torch.linspace(0.5, 2, 10, dtype=torch.float64)
    # Twice the focal length in twice the unit: the same angles, so errors scale with the unit.
    wide = {**batch, "p2d": batch["p2d"] * factor[:, None, None], "focal": FOCAL * factor}
    alone = [evaluate(take(batch, [i])).items.reprojection for i in range(10)]
    expected = (np.array(alone) * factor.numpy()).mean()
    assert evaluate(wide).items.reprojection == pytest.approx(expected)


def test_table_prints_the_protocol_first_and_lines_up():
    report = evaluate(data())
    table = report.to_table()
    assert table.startswith("Protocol: custom. toy, split test: exact 2D")
    head, *blocks = table.split("\n\n")
    assert " ".join(head.split()).removeprefix("Protocol: custom. ") == PROTOCOL.describe()
    assert all(len(line) <= 100 for line in table.splitlines())
    for block in blocks:
        lines = [line for line in block.splitlines() if not line.startswith("Central")]
        assert len({len(line) for line in lines}) == 1
    for phrase in (
        "best of 12",
        "one random sample",
        "energy score",
        "over 10 poses",
        "over 3 actions",
    ):
        assert phrase in table
    assert f"{report.items.point_mpjpe:.1f}" in table


def test_json_holds_everything():
    report = evaluate(data())
    content = json.loads(report.to_json())
    measured = {k: v for k, v in asdict(report.items).items() if not math.isnan(v)}
    assert {k: v for k, v in content["items"].items() if v is not None} == pytest.approx(measured)
    assert content["protocol"]["num_samples"] == 12
    assert content["protocol"]["description"] == PROTOCOL.describe()
    assert content["by_action"]["walk"]["num_items"] == 6
    assert np.shape(content["calibration"]["all"]["frequencies"]) == (21, 6)
    assert content["calibration"]["all"]["frequencies"][0][0] is None


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"keypoints": "noisy"}, "noisy 2D"),
        ({"samples": "hypotheses"}, "noise-free hypotheses"),
        ({"count_root": False}, "5 joints, the root (joint 0, always zero) left out"),
        ({"procrustes": "rigid"}, "rotation and translation on"),
        ({"intrinsics": "known"}, "intrinsics known"),
        ({"hidden_joints": 4}, "4 joints hidden per pose"),
        ({"num_views": 1}, "1 view,"),
        ({"frame_stride": 5}, "one frame in 5"),
        ({"seed": 7}, "seed 7"),
        ({"num_samples": 50}, "50 samples of the distribution"),
        ({"point": "the exact mode"}, "estimate is the exact mode"),
        ({"keypoint_unit": "half widths"}, "(half widths)"),
        ({"min_joints": 5}, "at least 5 joints were seen"),
        ({"averaging": "groups"}, "every action weighs the same"),
        ({"grouping": "setting"}, "groups are by setting"),
        ({"pck_threshold": 100.0}, "nearer than 100 mm"),
        ({"calibrated": False}, "as trained, without recalibration"),
        ({"num_views": None}, "views as the data have them"),
    ],
)
def test_description_tells_every_choice(change, phrase):
    changed = replace(PROTOCOL, **change).describe()
    assert phrase in changed and phrase not in PROTOCOL.describe()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": "mode"}, "samples to be one of"),
        ({"unit": "cm"}, "unit to be one of"),
        ({"num_samples": 1}, "num_samples >= 2, got 1"),
        ({"frame_stride": 0}, "frame_stride >= 1"),
        ({"root": 6}, "0 <= root < 6"),
        ({"hidden_joints": 7}, "0 <= hidden_joints <= 6"),
        ({"averaging": "frames"}, "averaging to be one of"),
        ({"num_views": 0}, "num_views >= 1"),
        ({"joints": ("Head",)}, "num_joints 1, the joints named, got 6"),
    ],
)
def test_wrong_protocol_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PROTOCOL, **change)


def spoil(batch, key, index, value):
    tensor = batch[key].clone()
    tensor[index] = value
    return {**batch, key: tensor}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: spoil(b, "samples", (4, 7, 2, 1), torch.nan),
            r"samples: a non-finite value in batch element 7 \(sample 4, joint 2; item 17",
        ),
        (lambda b: spoil(b, "target", (3, 1), torch.inf), r"target: .* batch element 3 \(joint 1"),
        (lambda b: spoil(b, "samples", (4, 7, 2, 1), 1e20), r"samples: a number beyond 1e\+07 m"),
        (lambda b: spoil(b, "point", (3, 0), 1.0), "point: a root away from zero .* element 3"),
        (lambda b: spoil(b, "p2d", (2, 1), torch.nan), "p2d: a non-finite value .* element 2"),
        (lambda b: {**b, "samples": b["samples"][:5]}, "expected 12 samples"),
        (lambda b: {**b, "point": b["point"][:5]}, "point estimate of shape"),
        (lambda b: {**b, "visible": b["visible"][:5]}, "mask of shape"),
        (lambda b: {**b, "p2d": b["p2d"][:, :5]}, "p2d of shape"),
        (lambda b: {**b, "focal": None}, "p2d and focal together"),
        (lambda b: {**b, "group": ["walk"]}, "expected 10 action labels"),
        (lambda b: {**b, "group": None}, "every batch or in none"),
        (lambda b: {**b, "p2d": None, "focal": None}, "every batch or in none"),
    ],
)
def test_wrong_batch_is_named(change, message):
    batch = data()
    with pytest.raises(ValueError, match=message):
        evaluate(batch, change(batch))


def test_hidden_joints_must_be_those_of_the_protocol():
    with pytest.raises(ValueError, match="expected 2 hidden joints per pose"):
        evaluate(data(), protocol=replace(PROTOCOL, hidden_joints=2))


def test_other_metrics_are_those_of_their_own_modules():
    batch = data()
    frame = torch.arange(10)
    evaluator = Evaluator(PROTOCOL)
    evaluator.update(
        *(batch[key] for key in ("samples", "point", "target", "visible")),
        sequence=["a"] * 10,
        frame=frame,
        log_prob=torch.full((10,), -30.0),
    )
    items, report = evaluator.report().items, evaluator.report()
    samples, point, target = batch["samples"], batch["point"], batch["target"]
    best = samples[mpjpe(samples, target).argmin(0), torch.arange(10)]
    motion = MotionErrors()
    motion.update(point, target, ["a"] * 10, frame)
    sharpness = SpreadErrorHistogram()
    sharpness.update(joint_spread(samples)[:, 1:], joint_errors(samples.mean(0), target)[:, 1:])
    expected = {
        "median_mpjpe": 1e3 * mpjpe(estimate(samples, "median"), target),
        "geometric_mpjpe": 1e3 * mpjpe(estimate(samples, "geometric_median"), target),
        "geometric_pa_mpjpe": 1e3 * pa_mpjpe(estimate(samples, "geometric_median"), target),
        "point_n_mpjpe": 1e3 * n_mpjpe(point, target),
        "point_pck": pck(point, target, threshold=0.15),
        "point_auc": auc(point, target),
        "point_cps": cps(procrustes(point, target), target),
        "best_pck": pck(best, target, threshold=0.15),
        "best_auc": auc(best, target),
        "best_cps": cps(procrustes(best, target), target),
        "crps_z": 1e3 * crps(samples, target)[..., 2],
        "nll": torch.tensor(30.0 / 15),
        "velocity": torch.tensor(1e3 * motion.compute().velocity),
        "acceleration": torch.tensor(1e3 * motion.compute().acceleration),
        "spearman": torch.tensor(sharpness.compute().spearman),
        "ause": torch.tensor(sharpness.compute().ause),
    }
    for name, value in expected.items():
        assert getattr(items, name) == pytest.approx(float(value.double().mean())), name
    assert list(report.best_of) == [1, 2, 5, 10, 12]
    assert report.best_of[12] == pytest.approx(items.best_mpjpe)
    assert report.best_of[10] == pytest.approx(items.best10_mpjpe)


def test_bones_of_the_evaluated_joints():
    protocol = replace(PROTOCOLS["3dhp"], num_samples=12)
    batch = data(joints=15)
    evaluator = Evaluator(protocol, skeleton=H36M_17)
    evaluator.update(*(batch[key] for key in ("samples", "point", "target", "visible")))
    items = evaluator.report().items
    whole = torch.full((12, 10, 17, 3), torch.nan, dtype=torch.float64)
    whole[:, :, [0, *(H36M_17.index(name) for name in protocol.joints)]] = batch["samples"]
    left_out = {H36M_17.index(name) for name in ("Spine", "Neck/Nose")}
    bones = [bone for bone in H36M_17.bones if not left_out & set(bone)]
    assert items.bone_variation == pytest.approx(float(1e3 * bone_variation(whole, bones).mean()))
    point = torch.full((10, 17, 3), torch.nan, dtype=torch.float64)
    point[:, [0, *(H36M_17.index(name) for name in protocol.joints)]] = batch["point"]
    symmetry = 1e3 * bone_symmetry(point, bone_pairs(H36M_17)).mean()
    assert items.bone_symmetry == pytest.approx(float(symmetry))


def test_processes_are_merged():
    batch = data()
    one, two = Evaluator(PROTOCOL), Evaluator(PROTOCOL)
    for evaluator, rows in ((one, range(4)), (two, range(4, 10))):
        part = take(batch, rows)
        evaluator.update(
            *(part[key] for key in ("samples", "point", "target", "visible")),
            p2d=part["p2d"],
            focal=FOCAL,
            group=part["group"],
        )
    one.merge(two)
    merged, whole = one.report(), evaluate(batch)
    assert close(merged.items, whole.items) and close(merged.actions, whole.actions)
    assert merged.num_items == 10 and merged.best_of == pytest.approx(whole.best_of)
    assert merged.coverage.counts.tolist() == [10] * 6
    with pytest.raises(ValueError, match="same protocol"):
        one.merge(Evaluator(replace(PROTOCOL, seed=1)))


def test_every_metric_has_a_label_and_every_protocol_shows_some():
    assert set(METRICS) == {field.name for field in fields(Metrics)}
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert set(protocol.headline) <= set(METRICS)
        # A minimum over samples never stands alone.
        assert {"energy_joint", "ece", "ece_signed"} <= set(protocol.headline)
        assert any(metric.startswith("point") for metric in protocol.headline)
        assert all(joint in H36M_17.joint_names for joint in protocol.joints)


def test_an_empty_evaluation_has_no_report():
    with pytest.raises(ValueError, match="at least one item"):
        Evaluator(PROTOCOL).report()
