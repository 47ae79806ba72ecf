import pyro.distributions as dist
import pytest
import torch

from propose_prob.distributions import PushforwardDistribution
from propose_prob.errors import InputError
from propose_prob.geometry.rotations import (
    axis_angle_from_matrix,
    matrix_from_axis_angle,
    sixd_from_matrix,
)
from propose_prob.models import LiftingConfig, ProHMR, ProPose, ProPoseConfig
from propose_prob.tasks.smoothing import smooth, typical_acceleration

NOISE = 1e-3
LINEAR = {"kernel": "gaussian", "fps": 1.0, "acceleration": 0.1}


def normal_distributions(count, joints=3, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, joints, 3)
    loc = torch.randn(shape, generator=generator, dtype=torch.float64)
    scale = 0.05 + 0.1 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return loc, scale


def dense_answer(loc, scale, frames, count, sigma):
    """Mean and standard deviation of the linear-Gaussian smoother, one joint coordinate a time."""
    mean = torch.zeros(count, *loc.shape[1:], dtype=loc.dtype)
    spread = torch.zeros_like(mean)
    second = torch.zeros(max(count - 2, 0), count, dtype=loc.dtype)
    for t in range(count - 2):
        second[t, t : t + 3] = torch.tensor([1.0, -2.0, 1.0])
    for joint in range(loc.shape[1]):
        for axis in range(3):
            precision = 1 / (scale[:, joint, axis].square() + NOISE**2)
            matrix = second.mT @ second / sigma**2
            matrix[frames, frames] += precision
            rhs = torch.zeros(count, dtype=loc.dtype)
            rhs[frames] = precision * loc[:, joint, axis]
            mean[:, joint, axis] = torch.linalg.solve(matrix, rhs)
            spread[:, joint, axis] = torch.linalg.inv(matrix).diagonal().sqrt()
    return mean, spread.square().sum(-1).sqrt()


def test_normal_distributions_give_the_dense_answer_with_frames_missing():
    loc, scale = normal_distributions(20)
    frames = torch.tensor(
        [3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 19, 20, 21, 22, 23, 24, 25, 26, 30]
    )
    result = smooth(dist.Normal(loc, scale).to_event(2), frames=frames, **LINEAR)
    mean, spread = dense_answer(loc, scale, frames - 3, 28, 0.1)
    assert result.converged and result.frames.tolist() == list(range(3, 31))
    assert result.seen.sum() == 20 and not result.seen[6]
    torch.testing.assert_close(result.pose, mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(result.spread, spread, rtol=1e-4, atol=0)
    # Nobody knows frames in gaps as well as those around them.
    assert (result.spread[25:26] > result.spread[27]).all()


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_frames_for_a_motion_stay_as_they_are(count):
    loc, scale = normal_distributions(count)
    result = smooth(dist.Normal(loc, scale).to_event(2))
    torch.testing.assert_close(result.pose, loc)
    assert len(result.motion_weights) == 0


def test_constant_velocity_is_left_alone():
    line = torch.arange(12.0, dtype=torch.float64)[:, None, None] * torch.tensor([1.0, -2.0, 3.0])
    line = line.expand(12, 2, 3)
    result = smooth(dist.Normal(line, 0.1).to_event(2), frames=torch.arange(12))
    torch.testing.assert_close(result.pose, line)


def test_a_robust_kernel_lets_a_jump_happen():
    loc = torch.zeros(40, 2, 3, dtype=torch.float64)
    loc[20:, 0] = 1.0
    distribution = dist.Normal(loc, 0.05).to_event(2)
    near = smooth(distribution, fps=1.0, acceleration=0.02, kernel="student_t", dof=1.0)
    far = smooth(distribution, fps=1.0, acceleration=0.02, kernel="gaussian")
    assert near.converged
    assert (near.pose - loc).abs().max() < 0.1 < (far.pose - loc).abs().max()
    weights = near.motion_weights[:, 0]
    assert weights.min() < 0.01 * weights.max() and weights.argmin() in (18, 19)


def models():
    torch.manual_seed(0)
    propose = ProPose(
        ProPoseConfig(latent=6, couplings=2, flow_width=16, code=16, width=16, blocks=1,
                      decoder_width=16, decoder_blocks=1)
    )  # fmt: skip
    lifting = ProHMR.lifting(LiftingConfig(couplings=2, flow_width=16, width=16, context=16))
    return {"decoded": propose.eval(), "flow": lifting.eval()}


@pytest.mark.parametrize("kind", ["decoded", "flow"])
@torch.no_grad()
def test_distributions_of_models_end_at_a_stationary_point(kind):
    model = models()[kind].double()
    generator = torch.Generator().manual_seed(1)
    p2d = torch.randn(12, 17, 2, generator=generator, dtype=torch.float64)
    distribution = model.conditional(p2d)
    # Wide units: these models are not trained.
    options = {"acceleration": 100.0, "tolerance": 1e-7, "max_steps": 200}
    result = smooth(distribution, **options)
    assert result.converged
    assert result.pose.shape == (12, 17, 3) and (result.pose[:, 0].abs() < 1e-6).all()
    before = distribution.point_estimate.diff(n=2, dim=0).norm()
    assert result.pose.diff(n=2, dim=0).norm() < before


@torch.no_grad()
def test_a_single_frame_keeps_the_distribution_s_own_answer():
    for model in models().values():
        distribution = model.conditional(torch.randn(1, 17, 2))
        torch.testing.assert_close(
            smooth(distribution).pose, distribution.point_estimate, rtol=0, atol=1e-5
        )


def test_push_forwards_are_smoothed_where_they_land():
    loc, scale = normal_distributions(15, 2)
    distribution = dist.Normal(loc, scale).to_event(2)
    pushed = PushforwardDistribution(distribution, lambda x: 2 * x + 1, (2, 3))
    result = smooth(pushed, **LINEAR)
    direct = smooth(dist.Normal(2 * loc + 1, 2 * scale).to_event(2), **LINEAR)
    torch.testing.assert_close(result.pose, direct.pose)
    torch.testing.assert_close(2 * result.source + 1, result.pose, rtol=0, atol=1e-3)


def test_typical_acceleration_of_a_student_t_motion():
    generator = torch.Generator().manual_seed(0)
    distribution = torch.distributions.Chi2(4.0)
    torch.manual_seed(0)
    noise = torch.randn(20_000, 1, 3, generator=generator)
    noise = noise / (distribution.sample((20_000, 1, 1)) / 4).sqrt()
    poses = noise.double().cumsum(0).cumsum(0)
    assert typical_acceleration(poses, fps=2.0).item() == pytest.approx(4.0, rel=0.03)
    with pytest.raises(InputError, match="three frames"):
        typical_acceleration(poses[:4], fps=1.0, sequence=torch.tensor([0, 0, 1, 1]))


def test_wrong_input_is_named():
    distribution = dist.Normal(torch.zeros(5, 3, 3), 1.0).to_event(2)
    cases = [
        ({"frames": torch.tensor([0, 2, 1, 3, 4])}, "increase"),
        ({"frames": torch.arange(4)}, "5 whole numbers"),
        ({"frames": torch.arange(5.0)}, "whole numbers"),
        ({"fps": 0.0}, "fps > 0"),
        ({"acceleration": -1.0}, "acceleration > 0"),
        ({"max_steps": 0}, "max_steps >= 1"),
        ({"kernel": "huge"}, "kind"),
    ]
    for options, words in cases:
        with pytest.raises(InputError, match=words):
            smooth(distribution, **options)
    with pytest.raises(InputError, match=r"batch shape \(N,\)"):
        smooth(dist.Normal(torch.zeros(3, 3), 1.0).to_event(2))
    with pytest.raises(InputError, match="image of a normal"):
        smooth(dist.Laplace(torch.zeros(5, 3, 3), 1.0).to_event(2))
    broken = torch.zeros(5, 3, 3)
    broken[2] = torch.nan
    with pytest.raises(InputError, match="frame 12: the distribution is not finite"):
        smooth(dist.Normal(broken, 1.0, validate_args=False).to_event(2),
               frames=torch.arange(10, 15))  # fmt: skip


def test_rotations_of_unseen_frames_turn_evenly_between_neighbors():
    angles = torch.tensor([0.0, 0.1, 0.5, 0.6])[:, None].expand(4, 2)
    turns = matrix_from_axis_angle(angles[..., None] * torch.tensor([0.0, 1.0, 0.0]))
    distribution = dist.Normal(sixd_from_matrix(turns), 1e-3).to_event(2)
    pushed = PushforwardDistribution(distribution, lambda x: x[..., :3], (2, 3))
    motion = smooth(pushed, frames=torch.tensor([0, 1, 5, 6]), acceleration=1e3)
    expected = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])[:, None].expand(7, 2)
    found = axis_angle_from_matrix(motion.rotations)[..., 1]
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)
    direct = smooth(distribution, frames=torch.tensor([0, 1, 5, 6]), acceleration=1e3)
    assert direct.rotations.shape == (7, 2, 3, 3)
    joints = dist.Normal(torch.zeros(4, 2, 3), 1.0).to_event(2)
    with pytest.raises(InputError, match="of joints"):
        _ = smooth(joints).rotations
