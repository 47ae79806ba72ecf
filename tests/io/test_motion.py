import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from propose_prob.errors import InputError
from propose_prob.io import Motion
from propose_prob.io.motion import euler_from_matrix, matrix_from_euler

ORDERS = ["XYZ", "XZY", "YXZ", "YZX", "ZXY", "ZYX"]


@given(st.sampled_from(ORDERS), st.integers(0, 2**31))
def test_euler_angles_are_scipys(order, seed):
    angles = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)).double()
    matrix = matrix_from_euler(angles, order)
    expected = Rotation.from_euler(order, angles.numpy()).as_matrix()
    torch.testing.assert_close(matrix, torch.from_numpy(expected))
    torch.testing.assert_close(matrix_from_euler(euler_from_matrix(matrix, order), order), matrix)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("middle", [-math.pi / 2, math.pi / 2])
def test_gimbal_lock_gives_the_matrix_back(order, middle):
    angles = torch.tensor([[0.3, middle, -1.2], [2.0, middle, 0.0]]).double()
    matrix = matrix_from_euler(angles, order)
    again = euler_from_matrix(matrix, order)
    assert (again[:, 2] == 0).all()
    torch.testing.assert_close(matrix_from_euler(again, order), matrix, atol=1e-7, rtol=0)


def motion(**changes):
    """An upper arm along x and a forearm that bends by 90 degrees about z in the second frame."""
    eye = torch.eye(3).double()
    bent = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]).double()
    fields = {
        "bone_names": ("arm", "forearm"),
        "parents": (-1, 0),
        "offsets": torch.tensor([[9.0, 9, 9], [0.3, 0, 0]]).double(),
        "ends": torch.tensor([[math.nan] * 3, [0.2, 0, 0]]).double(),
        "rest_rotations": eye.repeat(2, 1, 1),
        "rotations": torch.stack([eye.repeat(2, 1, 1), torch.stack([eye, bent])]),
        "translation": torch.tensor([[0.0, 1, 0], [0, 2, 0]]).double(),
        "frame_rate": 30.0,
    }
    return Motion(**{**fields, **changes})


def test_forward_kinematics():
    ends = motion().end_joints()
    torch.testing.assert_close(ends[:, 1], torch.tensor([[0.5, 1, 0], [0.3, 2.2, 0]]).double())
    assert ends[:, 0].isnan().all()
    moving = torch.tensor([[[0.0, 0, 0], [0.3, 0, 0]], [[0.0, 0, 0], [0.4, 0, 0]]]).double()
    joints = motion(moving_offsets=moving).joints()
    torch.testing.assert_close(joints[:, 1], torch.tensor([[0.3, 1, 0], [0.4, 2, 0]]).double())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offsets": torch.zeros(3, 3)}, r"offsets of shape \(2, 3\), got \(3, 3\)"),
        ({"translation": torch.zeros(1, 3)}, r"translation of shape \(2, 3\)"),
        ({"moving_offsets": torch.zeros(1, 2, 3)}, r"moving_offsets of shape \(2, 2, 3\)"),
        ({"parents": (-1, 1)}, "earlier bones"),
        ({"parents": (0, -1)}, "earlier bones"),
        ({"frame_rate": 0.0}, "frame rate above 0, got 0"),
        ({"frame_rate": math.nan}, "frame rate above 0, got nan"),
    ],
)
def test_wrong_fields(changes, message):
    with pytest.raises(InputError, match=message):
        motion(**changes)


def test_unknown_bone():
    assert motion().bone("forearm") == 1
    with pytest.raises(InputError, match="no bone 'leg'; the bones are arm, forearm"):
        motion().bone("leg")
