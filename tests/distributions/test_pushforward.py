import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats

from propose_prob.distributions import PushforwardDistribution
from propose_prob.models import ProHMR, ProHMRConfig, ProHMRJoints


def lengths(batch=()):
    distribution = dist.Normal(torch.zeros(*batch, 3).double(), 1.0).to_event(1)
    return PushforwardDistribution(distribution, lambda x: x.norm(dim=-1, keepdim=True), (1,))


def test_samples_follow_the_distribution_of_the_function():
    torch.manual_seed(0)
    x = lengths().sample((4000,))
    assert x.shape == (4000, 1)
    # The length of a standard normal vector in three dimensions.
    assert stats.kstest(x[:, 0].numpy(), "chi", args=(3,)).pvalue > 1e-3


def test_shapes_and_expand_and_plates():
    distribution = lengths((2, 3))
    assert distribution.batch_shape == (2, 3) and distribution.event_shape == (1,)
    assert distribution.rsample((5,)).shape == (5, 2, 3, 1)
    assert distribution.expand((4, 2, 3)).sample().shape == (4, 2, 3, 1)
    with pyro.plate("rows", 3), pyro.plate("columns", 2, dim=-2):
        assert pyro.sample("x", distribution).shape == (2, 3, 1)


def test_gradients_pass_through_samples():
    loc = torch.zeros(3, requires_grad=True)
    distribution = PushforwardDistribution(dist.Normal(loc, 1.0).to_event(1), lambda x: 2 * x, (3,))
    distribution.rsample((10,)).sum().backward()
    assert torch.allclose(loc.grad, torch.full((3,), 20.0))


def test_it_claims_no_density():
    distribution = lengths()
    assert distribution.log_prob_kind == "none"
    with pytest.raises(NotImplementedError, match=r"\.distribution\.log_prob"):
        distribution.log_prob(distribution.sample())


def test_prohmr_as_a_lifter_gives_root_relative_joints():
    torch.manual_seed(0)
    model = ProHMR(ProHMRConfig(flow_width=16, width=16, context=16)).eval()
    distribution = ProHMRJoints(model).conditional(100 * torch.randn(4, 17, 2), focal=500.0)
    x = distribution.hypotheses((6,))
    assert x.shape == (6, 4, 17, 3) and not x.requires_grad
    assert (x[..., 0, :] == 0).all() and x.isfinite().all()
    assert distribution.point_estimate.shape == (4, 17, 3)
    # Bones of a body keep their length, whatever the pose.
    thigh = (x[..., 2, :] - x[..., 1, :]).norm(dim=-1)
    assert torch.allclose(thigh, thigh[:1].expand_as(thigh), rtol=1e-4)
    coco = ProHMRJoints(model, joint_set="coco_17").conditional(torch.randn(2, 17, 2))
    assert coco.sample().shape == (2, 17, 3)
