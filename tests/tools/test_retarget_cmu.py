from pathlib import Path

import numpy as np
import pytest
import torch

from propose_prob.bodies import SkeletonBody
from propose_prob.geometry.rotations import geodesic_distance, matrix_from_axis_angle
from propose_prob.geometry.skeletons import CMU_31, SMPL_24
from tools.retarget_cmu import (
    Calibration,
    _levers,
    _limit_wrists,
    _locals,
    _rest_constants,
    calibrate,
    map_rotations,
    refine,
)

SOURCE = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.fixture(scope="module")
def body():
    return SkeletonBody().double()


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def mapped_poses(count, seed=0):
    turns = 0.3 * random(seed, count, 22, 3)
    return matrix_from_axis_angle(turns)


def test_rest_pose_maps_to_upright_with_legs_apart():
    mapped = map_rotations(
        torch.zeros(1, 31, 3).double(), list(CMU_31.joint_names), list(CMU_31.parents)
    )
    world = (mapped @ matrix_from_axis_angle(_rest_constants()))[0]
    thigh, arm = SMPL_24.index("L_Hip"), SMPL_24.index("L_Shoulder")
    down, left = torch.tensor([0.0, -1, 0]).double(), torch.tensor([1.0, 0, 0]).double()
    sine, cosine = np.sin(np.deg2rad(20)), np.cos(np.deg2rad(20))
    torch.testing.assert_close(world[thigh] @ down, torch.tensor([sine, 0, -cosine]))
    torch.testing.assert_close(world[arm] @ left, left)


def test_forearms_share_their_twist_and_never_jump():
    degrees = torch.linspace(-179, 59, 60)
    rotations = torch.zeros(60, 31, 3).double()
    rotations[:, CMU_31.index("rwrist"), 0] = degrees.deg2rad()
    mapped = map_rotations(rotations, list(CMU_31.joint_names), list(CMU_31.parents))
    local = _locals(mapped)
    eye = torch.eye(3).double()
    for name in ("R_Elbow", "R_Wrist"):
        angle = geodesic_distance(local[:, SMPL_24.index(name)], eye).rad2deg()
        torch.testing.assert_close(angle, degrees.abs().double() / 2, atol=1e-4, rtol=0)
    # Beyond half a turn the same rotation is stored as a positive angle.
    rotations[:, CMU_31.index("rwrist"), 0] = torch.linspace(170, 190, 60).deg2rad()
    beyond = rotations[:, CMU_31.index("rwrist"), 0]
    beyond[beyond > torch.pi] -= 2 * torch.pi
    local = _locals(map_rotations(rotations, list(CMU_31.joint_names), list(CMU_31.parents)))
    assert geodesic_distance(local[1:], local[:-1]).max() < 0.01


def test_joints_are_linear_in_world_rotations(body):
    shape = random(1, 10)
    levers, place = _levers(body, shape)
    world = mapped_poses(20)
    expected = body.regress(body(_locals(world), shape))
    found = place + torch.einsum("njab,ijb->nia", world, levers)
    torch.testing.assert_close(found, expected)


def test_calibration_finds_proportions_and_constants(body):
    mapped = mapped_poses(20)
    change = torch.zeros(22, 3).double()
    for side in "LR":
        change[SMPL_24.index(f"{side}_Knee"), 0] = 0.1
    shape = torch.tensor([0.5, 0, 0, 0, 0, 1.0, -1.0, 0, 0, 0.8]).double()
    turns = matrix_from_axis_angle(_rest_constants() + change)
    output = body(_locals(mapped @ turns), shape, random(2, 20, 3))
    found = calibrate(body, mapped, body.regress(output))
    theta, translation = refine(body, mapped, body.regress(output), found)
    again = body.regress(body(theta, found.shape, translation))
    assert (again - body.regress(output)).norm(dim=-1).mean() < 0.004
    # Only the product of the two is measured: thigh = size + thigh.
    lengths = found.shape[0] + found.shape[[5, 6, 9]]
    torch.testing.assert_close(lengths, torch.tensor([1.5, -0.5, 1.3]).double(), atol=0.4, rtol=0)


def test_refining_brings_joints_closer_and_leaves_the_unseen(body):
    mapped = mapped_poses(30)
    target = body.regress(body(_locals(mapped))) + 0.01 * random(3, 30, 17, 3)
    calibration = Calibration(torch.zeros(22, 3).double(), torch.zeros(10).double())
    errors = []
    for steps in (0, 1, 4):
        theta, translation = refine(body, mapped, target, calibration, steps=steps)
        joints = body.regress(body(theta, calibration.shape, translation))
        errors.append(float((joints - target).square().sum(-1).mean()))
    assert errors[0] > 1.05 * errors[1] and errors[1] == pytest.approx(errors[2], rel=0.01)
    output = body(theta, calibration.shape)
    constants = matrix_from_axis_angle(calibration.constants)
    for name in ("L_Foot", "R_Wrist"):
        joint = SMPL_24.index(name)
        before = (mapped @ constants)[:, joint]
        assert geodesic_distance(output.rotations[:, joint], before).max() < 1e-6


def test_confused_hands_turn_a_right_angle_at_most():
    turns = torch.zeros(3, 24, 3).double()
    turns[:, SMPL_24.index("R_Wrist"), 1] = torch.tensor([0.0, 1.0, 3.0])
    theta = _limit_wrists(matrix_from_axis_angle(turns))
    turns[2, SMPL_24.index("R_Wrist"), 1] = torch.pi / 2
    torch.testing.assert_close(theta, matrix_from_axis_angle(turns))


@pytest.mark.skipif(not SOURCE.is_dir(), reason="needs the full CMU17 files beside the project")
def test_the_plain_map_is_already_close(body):
    with np.load(SOURCE / "cmu17_rotations.npz", allow_pickle=False) as full:
        rotations = torch.from_numpy(full["test_subject03_rot"][::25]).double()
        names, parents = full["bone_names"].tolist(), full["bone_parents"].tolist()
    with np.load(SOURCE / "cmu17_test_subject03.npz", allow_pickle=False) as full:
        joints = torch.from_numpy(full["world"][::25]).double()
    mapped = map_rotations(rotations, names, parents)
    calibration = calibrate(body, mapped, joints, count=12)
    for steps, limit in ((0, 0.020), (2, 0.008)):
        theta, translation = refine(body, mapped, joints, calibration, steps=steps)
        landed = body.regress(body(theta, calibration.shape, translation))
        assert (landed - joints).norm(dim=-1).mean() < limit
