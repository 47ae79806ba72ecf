"""The body of bones, and what every body must do with batches, dtypes and wrong input."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import jacfwd, jacrev, vmap

from propose_prob.bodies import SkeletonBody
from propose_prob.bodies.body import Kinematics
from propose_prob.bodies.skeleton_body import default_body
from propose_prob.errors import InputError
from propose_prob.geometry.rotations import matrix_from_6d, matrix_from_axis_angle
from propose_prob.geometry.skeletons import BODY_25, CMU_31, COCO_17, H36M_17, SMPL_24

SHARED = Path(__file__).parents[2] / "../shared/data/cmu17_rotations.npz"
SEEDS = st.integers(0, 2**31)


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def poses(seed, *batch, joints=24):
    return matrix_from_6d(randn(seed, *batch, joints, 6))


def rest(*batch, joints=24, dtype=torch.float64):
    return torch.eye(3, dtype=dtype).expand(*batch, joints, 3, 3)


def one_by_one(theta, offsets, parents):
    """Forward kinematics as the books have it; joints in any order."""
    joints, rotations = {}, {}

    def visit(j):
        if j in joints:
            return
        parent = parents[j]
        if parent == -1:
            joints[j], rotations[j] = offsets[j], theta[j]
            return
        visit(parent)
        joints[j] = joints[parent] + rotations[parent] @ offsets[j]
        rotations[j] = rotations[parent] @ theta[j]

    for j in range(len(parents)):
        visit(j)
    order = range(len(parents))
    return torch.stack([joints[j] for j in order]), torch.stack([rotations[j] for j in order])


@given(SEEDS, st.integers(1, 12))
def test_kinematics_equal_the_loop_on_any_tree(seed, count):
    rng = np.random.default_rng(seed)
    tree = [-1, *(int(rng.integers(0, j)) for j in range(1, count))]
    order = rng.permutation(count)
    parents = [0] * count
    for j in range(count):
        parents[order[j]] = -1 if tree[j] == -1 else int(order[tree[j]])
    theta, offsets = poses(seed, 2, joints=count), randn(seed + 1, count, 3)
    joints, rotations = Kinematics(tuple(parents))(theta, offsets)
    for b in range(2):
        expected = one_by_one(theta[b], offsets, parents)
        torch.testing.assert_close(joints[b], expected[0])
        torch.testing.assert_close(rotations[b], expected[1])


def test_stands_upright_in_a_t_pose():
    body = default_body()
    output = body(rest())
    x, y, z = (
        {name: float(p[i]) for name, p in zip(body.joint_names, output.joints, strict=True)}
        for i in range(3)
    )
    assert body.skeleton == SMPL_24 and output.vertices is None and body.faces is None
    for name, other in zip(body.joint_names, body.skeleton.mirror, strict=True):
        other = body.joint_names[other]
        assert x[name] == pytest.approx(-x[other]) and y[name] == y[other] and z[name] == z[other]
    assert 0 < x["L_Shoulder"] < x["L_Elbow"] < x["L_Wrist"] < x["L_Hand"]
    assert y["L_Shoulder"] == y["L_Elbow"] == y["L_Wrist"]
    assert y["L_Ankle"] < y["L_Knee"] < y["L_Hip"] < y["Pelvis"] < y["Spine1"] < y["Neck"]
    assert z["L_Foot"] > z["L_Ankle"] + 0.1
    coco = body.regress(output, "coco_17")
    assert coco[COCO_17.index("nose"), 2] > 0.1 > coco[COCO_17.index("left_ear"), 2]
    assert coco[COCO_17.index("left_eye"), 0] > 0
    feet = body.regress(output, "body_25")[BODY_25.index("LHeel")]
    top = body.regress(output, "mpii_16")[9]
    assert 1.6 < float(top[1] - feet[1]) < 1.8
    assert body.shape_names[0] == "size" and len(body.shape_names) == body.num_shape == 10


@pytest.mark.parametrize("column", range(10))
def test_one_standard_deviation_is_five_percent(column):
    body = SkeletonBody()
    bones = {
        "size": ["L_Hip", "Neck", "L_Wrist", "Head"],
        "torso": ["Spine1", "Spine2", "Neck"],
        "head": ["Head"],
        "hips": ["L_Hip", "R_Hip"],
        "shoulders": ["L_Shoulder", "R_Collar"],
        "thigh": ["L_Knee", "R_Knee"],
        "shank": ["R_Ankle"],
        "foot": ["L_Foot"],
        "upper_arm": ["L_Elbow", "R_Elbow"],
        "forearm": ["L_Wrist", "R_Wrist", "L_Hand"],
    }[body.shape_names[column]]
    shape = torch.zeros(10, dtype=torch.float64)
    shape[column] = 2
    before, after = (body(poses(0), s).joints for s in (None, shape))

    def lengths(joints):
        return {body.joint_names[j]: (joints[j] - joints[p]).norm() for j, p in SMPL_24.bones}

    for name, length in lengths(after).items():
        grown = column == 0 or name in bones
        if grown:
            assert length / lengths(before)[name] == pytest.approx(np.exp(0.1))
    others = [n for n in lengths(after) if torch.isclose(lengths(after)[n], lengths(before)[n])]
    assert not set(others) & set(bones)
    assert (len(others) == 0) == (column == 0)


def test_landmarks_grow_with_their_segment():
    body = SkeletonBody()
    for name, point, anchor, joint_set in (
        ("head", "nose", "Head", COCO_17),
        ("foot", "LBigToe", "L_Foot", BODY_25),
        ("size", "nose", "Head", COCO_17),
    ):
        shape = torch.zeros(10, dtype=torch.float64)
        shape[body.shape_names.index(name)] = 1
        distances = []
        for s in (None, shape):
            output = body(poses(1), s)
            place = body.regress(output, joint_set.name)[joint_set.index(point)]
            distances.append((place - output.joints[body.joint_names.index(anchor)]).norm())
        assert distances[1] / distances[0] == pytest.approx(np.exp(0.05))


def test_landmarks_follow_their_joint():
    body = SkeletonBody()
    theta = rest().clone()
    theta[15] = matrix_from_axis_angle(torch.tensor([0.0, torch.pi / 2, 0.0]).double())
    straight, turned = (body.regress(body(t), "coco_17") for t in (rest(), theta))
    head = body(theta).joints[15]
    # The head turned to the person's left: the nose goes where +x is.
    expected = (straight[0] - head)[[2, 1, 0]] * torch.tensor([1.0, 1, -1]).double()
    torch.testing.assert_close(turned[0] - head, expected)
    torch.testing.assert_close(turned[5:], straight[5:])


@pytest.mark.parametrize("theta_batch", [(), (1,), (2, 3)])
@pytest.mark.parametrize("shape_batch", [None, (), (3,), (4, 2, 1)])
@pytest.mark.parametrize("translation_batch", [None, (), (2, 1), (5, 1, 2, 3)])
def test_batches_broadcast_and_equal_the_loop(theta_batch, shape_batch, translation_batch):
    body = SkeletonBody()
    theta = poses(0, *theta_batch)
    shape = None if shape_batch is None else randn(1, *shape_batch, 10)
    move = None if translation_batch is None else randn(2, *translation_batch, 3)
    batch = torch.broadcast_shapes(theta_batch, shape_batch or (), translation_batch or ())
    output = body(theta, shape, move)
    assert output.joints.shape == (*batch, 24, 3)
    assert output.rotations.shape == (*batch, 24, 3, 3)
    h36m = body.regress(output)
    assert h36m.shape == (*batch, 17, 3)
    theta = theta.expand(*batch, 24, 3, 3).reshape(-1, 24, 3, 3)
    shape = torch.zeros(10).double() if shape is None else shape
    shape = shape.expand(*batch, 10).reshape(-1, 10)
    move = torch.zeros(3).double() if move is None else move
    move = move.expand(*batch, 3).reshape(-1, 3)
    for i in range(0, len(theta), 7):
        single = body(theta[i], shape[i], move[i])
        torch.testing.assert_close(output.joints.reshape(-1, 24, 3)[i], single.joints)
        torch.testing.assert_close(output.rotations.reshape(-1, 24, 3, 3)[i], single.rotations)
        torch.testing.assert_close(h36m.reshape(-1, 17, 3)[i], body.regress(single))


def test_an_empty_batch():
    body = SkeletonBody()
    assert body.regress(body(poses(0, 0))).shape == (0, 17, 3)


@given(SEEDS)
def test_moves_rigidly_with_the_root(seed):
    body = SkeletonBody()
    theta, move = poses(seed), randn(seed, 3)
    turn = poses(seed + 1, joints=1)[0]
    turned = torch.cat([turn @ theta[:1], theta[1:]])
    for name in body.regressors:
        before = body.regress(body(theta), name)
        after = body.regress(body(turned, translation=move), name)
        torch.testing.assert_close(after, before @ turn.T + move)


def test_dtypes():
    body = SkeletonBody()
    theta, shape = poses(0, 2), randn(1, 10)
    double = body(theta, shape)
    single = body(theta.float(), shape)
    assert single.joints.dtype == single.rotations.dtype == torch.float32
    assert body.regress(single, "coco_17").dtype == torch.float32
    torch.testing.assert_close(single.joints.double(), double.joints, atol=1e-5, rtol=0)


def test_derivatives():
    body = SkeletonBody()
    sixd, shape, move = randn(0, 3, 24, 6), randn(1, 3, 10), randn(2, 3, 3)

    def place(x, s, t):
        return body.regress(body(matrix_from_6d(x), s, t), "coco_17")

    reverse = vmap(jacrev(place, argnums=(0, 1, 2)))(sixd, shape, move)
    forward = vmap(jacfwd(place, argnums=(0, 1, 2)))(sixd, shape, move)
    for one, other in zip(reverse, forward, strict=True):
        torch.testing.assert_close(one, other)
    inputs = tuple(x[0].requires_grad_() for x in (sixd, shape, move))
    assert torch.autograd.gradcheck(place, inputs, fast_mode=True)
    looped = [jacrev(place)(sixd[i], shape[i], move[i]) for i in range(3)]
    torch.testing.assert_close(reverse[0], torch.stack(looped))


def test_is_a_module_without_state():
    body = SkeletonBody()
    assert not list(body.parameters()) and not body.state_dict()
    for copied in (copy.deepcopy(body), pickle.loads(pickle.dumps(body))):
        torch.testing.assert_close(copied(poses(0)).joints, body(poses(0)).joints)
    assert body.double()(rest(dtype=torch.float32)).joints.dtype == torch.float32


@pytest.mark.skipif(not SHARED.exists(), reason="needs shared/data/cmu17_rotations.npz")
def test_reproduces_motion_capture():
    """CMU's own skeleton and rotations give the benchmark's joints."""
    folder = SHARED.parent
    with np.load(SHARED) as file, np.load(folder / "cmu17_val.npz") as poses_file:
        offsets = torch.from_numpy(file["bone_offsets"])
        vectors = torch.from_numpy(file["val_rot"][::40]).double()
        root = torch.from_numpy(file["val_root_pos"][::40]).double()
        which = file["val_skeleton"][::40]
        world = torch.from_numpy(poses_file["world"][::40]).double()
    up = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]).double()
    theta = matrix_from_axis_angle(vectors)
    theta = torch.cat([up @ theta[:, :1], theta[:, 1:]], dim=1)
    for skeleton in np.unique(which):
        body = SkeletonBody.from_offsets(CMU_31, offsets[skeleton], rotates="bone")
        mine = torch.from_numpy(which == skeleton)
        output = body(theta[mine], translation=root[mine] @ up.T)
        torch.testing.assert_close(body.regress(output), world[mine], atol=1e-5, rtol=0)


def test_from_offsets():
    offsets = randn(0, 31, 3)
    body = SkeletonBody.from_offsets(CMU_31, offsets)
    assert body.shape_names == ("size",)
    assert body.regressors == ("h36m_17", "mpii_16")
    theta = poses(1, joints=31)
    joints, _ = one_by_one(theta, offsets, CMU_31.parents)
    torch.testing.assert_close(body(theta).joints, joints)
    grown = body(theta, torch.tensor([2.0]).double()).joints
    torch.testing.assert_close(grown, joints * np.exp(0.1))
    index = CMU_31.index("rhipjoint"), CMU_31.index("lhipjoint")
    torch.testing.assert_close(body.regress(body(theta))[0], joints[list(index)].mean(0))
    assert "coco_17" not in SkeletonBody.from_offsets(H36M_17, torch.zeros(17, 3)).regressors


@pytest.mark.parametrize(
    ("theta", "shape", "translation", "message"),
    [
        (torch.zeros(24, 6), None, None, r"theta of shape \(\.\.\., 24, 3, 3\), got \(24, 6\)"),
        (torch.zeros(3, 3), None, None, r"theta of shape .* got \(3, 3\)"),
        (torch.zeros(22, 3, 3), None, None, r"24 joints \(axis -3\), got \(22, 3, 3\)"),
        (torch.zeros(24, 3, 3, dtype=torch.int64), None, None, "floating-point theta"),
        (rest(), torch.zeros(9), None, r"shape of shape \(\.\.\., 10\), got \(9,\)"),
        (rest(), None, torch.zeros(()), r"translation of shape \(\.\.\., 3\), got \(\)"),
        (rest(4), torch.zeros(3, 10), None, r"shape to broadcast with theta's batch \(4,\)"),
        (rest(4), None, torch.zeros(3, 3), r"translation to broadcast .* got \(3,\)"),
    ],
)
def test_wrong_input(theta, shape, translation, message):
    with pytest.raises(InputError, match=message):
        SkeletonBody()(theta, shape, translation)


def test_wrong_names_and_offsets():
    body = SkeletonBody()
    with pytest.raises(InputError, match="no regressor 'smpl'; it has h36m_17, coco_17"):
        body.regress(body(rest()), "smpl")
    with pytest.raises(InputError, match=r"offsets of shape \(31, 3\) for cmu_31, got \(24, 3\)"):
        SkeletonBody.from_offsets(CMU_31, torch.zeros(24, 3))
    with pytest.raises(InputError, match="finite floating-point offsets for cmu_31"):
        SkeletonBody.from_offsets(CMU_31, torch.full((31, 3), torch.nan))
    with pytest.raises(InputError, match="rotates='children' or 'bone', got 'joint'"):
        SkeletonBody.from_offsets(CMU_31, torch.zeros(31, 3), rotates="joint")
    with pytest.raises(InputError, match=r"with 31 joints \(axis -3\), got \(24, 3, 3\)"):
        SkeletonBody.from_offsets(CMU_31, torch.zeros(31, 3))(rest())
