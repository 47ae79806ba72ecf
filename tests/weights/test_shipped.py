"""The shipped model keeps its promises on real motion that it was never trained on."""

import dataclasses
from pathlib import Path

import pytest
import torch

from propose_prob.datasets.cmu17 import FOCAL, load_cmu17
from propose_prob.distributions import DecodedPoseDistribution
from propose_prob.evaluation import CalibrationCurve, mpjpe
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.models import ProPose
from propose_prob.training.configs import TrainConfig, read_config
from propose_prob.weights import available, load, store


@pytest.fixture(scope="module")
def model() -> ProPose:
    return load("propose-cmu17")


@pytest.fixture(scope="module")
def poses() -> tuple[torch.Tensor, torch.Tensor]:
    data = load_cmu17("test_seen")
    chosen = torch.randperm(4 * len(data), generator=torch.Generator().manual_seed(0))[:256]
    return data.p2d().flatten(0, 1)[chosen], data.p3d().flatten(0, 1)[chosen]


@pytest.fixture(scope="module")
def distribution(
    model: ProPose, poses: tuple[torch.Tensor, torch.Tensor]
) -> DecodedPoseDistribution:
    return model.conditional(poses[0], focal=FOCAL)


def test_it_is_listed_small_and_frozen(model: ProPose) -> None:
    assert "propose-cmu17" in available()
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    floating = [t for t in model.state_dict().values() if t.is_floating_point()]
    assert all(t.dtype == torch.float32 for t in floating)


def test_error_and_calibration_stay_where_the_card_says(
    distribution: DecodedPoseDistribution, poses: tuple[torch.Tensor, torch.Tensor]
) -> None:
    torch.manual_seed(0)
    samples = distribution.sample((200,))
    curve = CalibrationCurve(17, fixed_joints=(0,))
    curve.update(samples, poses[1])
    assert 1e3 * mpjpe(distribution.point_estimate, poses[1]).mean() < 27
    assert 1e3 * mpjpe(samples, poses[1]).amin(0).mean() < 16.5
    assert curve.compute().error < 0.10


def test_known_intrinsics_help(
    model: ProPose, distribution: DecodedPoseDistribution, poses: tuple[torch.Tensor, torch.Tensor]
) -> None:
    blind = model.conditional(poses[0])
    ours, theirs = (mpjpe(d.point_estimate, poses[1]).mean() for d in (distribution, blind))
    assert ours < theirs


def test_hidden_joints_widen(model: ProPose, poses: tuple[torch.Tensor, torch.Tensor]) -> None:
    p2d, _ = poses
    order = torch.rand(len(p2d), 16, generator=torch.Generator().manual_seed(1)).argsort(1) + 1
    confidence = torch.ones(len(p2d), 17).scatter(1, order[:, :4], 0.0)
    hidden = confidence == 0
    torch.manual_seed(0)

    def spread(confidence: torch.Tensor | None) -> torch.Tensor:
        samples = model.conditional(p2d, confidence, focal=FOCAL).sample((100,))
        return samples.std(0).norm(dim=-1)[hidden].mean()

    assert spread(confidence) > 1.5 * spread(None)


def test_log_prob_knows_left_from_right(
    model: ProPose, poses: tuple[torch.Tensor, torch.Tensor]
) -> None:
    p2d, p3d = (t[:48] for t in poses)
    distribution = model.conditional(p2d, focal=FOCAL)
    true = distribution.estimate_log_prob(p3d, num_particles=256)
    again = distribution.estimate_log_prob(p3d, num_particles=256, noise_seed=1)
    swapped = distribution.estimate_log_prob(p3d[:, list(H36M_17.mirror)], num_particles=256)
    assert (true.log_prob > swapped.log_prob).float().mean() >= 0.98
    assert (true.log_prob - again.log_prob).abs().median() < 0.3
    assert (true.effective_sample_size / 256).median() >= 0.1


def test_stages_that_made_it_are_readable_configurations(model: ProPose) -> None:
    folder = Path(store.__file__).parent
    for stage in (1, 2, 3):
        config = read_config(folder / f"propose-cmu17-stage{stage}.json", default=TrainConfig())
        # Dropout was lowered for the last stage; it leaves the weights' shapes alone.
        assert dataclasses.replace(config.model, dropout=model.config.dropout) == model.config
