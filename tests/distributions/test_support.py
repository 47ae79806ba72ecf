import pytest
import torch
from torch.distributions import biject_to, transform_to

from propose_prob.distributions.support import InsertRoot, RootRelative
from tests.zoo import randn


@pytest.mark.parametrize("root", [0, 2, 4])
@pytest.mark.parametrize("registry", [biject_to, transform_to])
def test_unconstrained_space_leaves_the_root_out(root, registry):
    t = registry(RootRelative(root))
    x = randn(2, 4, 3)
    pose = t(x)
    assert pose.shape == (2, 5, 3) == t.forward_shape(x.shape)
    assert (pose[:, root] == 0).all()
    assert torch.equal(t.inv(pose), x) and t.inverse_shape(pose.shape) == x.shape
    assert t.codomain.check(pose).all()
    assert torch.equal(t.log_abs_det_jacobian(x, pose), torch.zeros(2, dtype=x.dtype))
    assert t.domain.event_dim == t.codomain.event_dim == 2
    assert t.with_cache() is t


def test_a_pose_with_nan_is_outside():
    pose = torch.zeros(3, 5, 3)
    pose[1, 2, 0] = torch.nan
    assert RootRelative(0).check(pose).tolist() == [True, False, True]


def test_equal_roots_make_equal_transforms():
    assert InsertRoot(1) == InsertRoot(1)
    assert InsertRoot(1) != InsertRoot(2)
