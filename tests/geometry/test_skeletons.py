import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import (
    BODY_25,
    CMU_31,
    COCO_17,
    COCO_WHOLEBODY_133,
    DERIVED,
    H36M_17,
    HALPE_26,
    HALPE_136,
    MEDIAPIPE_33,
    MPI_INF_3DHP_17,
    MPII_16,
    SKELETONS,
    SMPL_24,
    Skeleton,
    convert_skeleton,
    get_skeleton,
    mirror_pose,
)

ALL = list(SKELETONS.values())
PAIRS = list(itertools.product(ALL, ALL))


def named(skeleton, pose, confidence):
    return {
        name: (None if c == 0 else pose[j].tolist())
        for j, (name, c) in enumerate(zip(skeleton.joint_names, confidence, strict=True))
    }


@pytest.mark.parametrize("skeleton", ALL, ids=lambda s: s.name)
def test_tree_and_mirror(skeleton):
    assert skeleton.num_joints == int(skeleton.name.rsplit("_", 1)[1])
    assert len(skeleton.bones) == skeleton.num_joints - 1
    assert skeleton.parents[skeleton.root] == -1
    sides = {"left": "right", "right": "left"}
    for joint, meaning in enumerate(skeleton.meanings):
        other = skeleton.mirror[joint]
        assert skeleton.mirror[other] == joint
        if meaning is not None:
            side, _, rest = meaning.partition("_")
            mirrored = f"{sides[side]}_{rest}" if side in sides else meaning
            assert skeleton.meanings[other] == mirrored
    known = [meaning for meaning in skeleton.meanings if meaning is not None]
    assert len(set(known)) == len(known)


def test_human36m_matches_the_benchmark():
    assert H36M_17.parents == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
    assert H36M_17.joint_names == tuple(
        "Pelvis RHip RKnee RAnkle LHip LKnee LAnkle Spine Thorax Neck/Nose Head LShoulder LElbow "
        "LWrist RShoulder RElbow RWrist".split()
    )
    assert H36M_17.mirror == (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)


def test_cmu_parents_match_the_motion_files():
    assert CMU_31.parents == (
        *(-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 13, 14),
        *(15, 13, 17, 18, 19, 20, 21, 20, 13, 24, 25, 26, 27, 28, 27),
    )
    assert CMU_31.mirror[CMU_31.index("lradius")] == CMU_31.index("rradius")


def test_3dhp_order_and_parents_match_the_data_sets_own_table():
    order = (
        "head_top neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
        "right_hip right_knee right_ankle left_hip left_knee left_ankle pelvis spine head"
    )
    assert MPI_INF_3DHP_17.joint_names == tuple(order.split())
    # `mpii_get_joint_set.m` counts from 1 and gives the root itself as its parent.
    own = (2, 16, 2, 3, 4, 2, 6, 7, 15, 9, 10, 15, 12, 13, 15, 15, 2)
    expected = [-1 if parent == joint else parent - 1 for joint, parent in enumerate(own, 1)]
    assert MPI_INF_3DHP_17.parents == tuple(expected)


def test_3dhp_to_human36m_values():
    pose = torch.arange(51.0).reshape(17, 3)
    result, _ = convert_skeleton(pose, MPI_INF_3DHP_17, H36M_17)
    order = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]
    assert torch.equal(result, pose[order])


def test_mediapipe_numbers_match_its_guide():
    numbers = dict(nose=0, left_ear=7, left_mouth=9, right_shoulder=12, left_wrist=15)
    numbers |= dict(left_pinky=17, right_thumb=22, left_hip=23, right_ankle=28, left_heel=29)
    numbers |= dict(right_foot_index=32)
    for name, number in numbers.items():
        assert MEDIAPIPE_33.index(name) == number


def test_whole_bodies_begin_with_their_body():
    assert HALPE_26.joint_names[:17] == COCO_17.joint_names
    assert HALPE_136.joint_names[:26] == HALPE_26.joint_names
    assert COCO_WHOLEBODY_133.joint_names[:17] == COCO_17.joint_names
    numbers = dict(left_big_toe=17, right_heel=22, left_hand_root=91, right_hand_root=112)
    numbers |= {"left_thumb1": 92, "left_middle_finger1": 100, "right_pinky_finger4": 132}
    for name, number in numbers.items():
        assert COCO_WHOLEBODY_133.index(name) == number


def test_face_landmarks_mirror_as_mmpose_swaps_them():
    # Some of the `swap` entries of MMPose's `coco_wholebody.py`.
    swaps = {0: 16, 8: 8, 17: 26, 27: 27, 31: 35, 36: 45, 39: 42, 40: 47, 41: 46, 48: 54, 51: 51}
    swaps |= {55: 59, 57: 57, 60: 64, 61: 63, 62: 62, 65: 67, 66: 66}
    for skeleton, start in ((COCO_WHOLEBODY_133, 23), (HALPE_136, 26)):
        for joint, other in swaps.items():
            assert skeleton.mirror[start + joint] == start + other
            assert skeleton.mirror[start + other] == start + joint


@pytest.mark.parametrize(
    ("source", "target", "missing"),
    [
        (COCO_17, H36M_17, {"Spine", "Neck/Nose", "Head"}),
        (BODY_25, H36M_17, {"Spine", "Neck/Nose", "Head"}),
        (MPII_16, H36M_17, {"Spine"}),
        (SMPL_24, H36M_17, {"Spine", "Head"}),
        (CMU_31, H36M_17, set()),
        (H36M_17, COCO_17, {"nose", "left_eye", "right_eye", "left_ear", "right_ear"}),
        (H36M_17, MPII_16, set()),
        (
            COCO_17,
            BODY_25,
            {"LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"},
        ),
        (BODY_25, COCO_17, set()),
        (MPI_INF_3DHP_17, H36M_17, set()),
        (H36M_17, MPI_INF_3DHP_17, set()),
        (MEDIAPIPE_33, COCO_17, set()),
        (MEDIAPIPE_33, BODY_25, {"LSmallToe", "RSmallToe"}),
        (MEDIAPIPE_33, H36M_17, {"Spine", "Neck/Nose", "Head"}),
        (HALPE_26, BODY_25, set()),
        (HALPE_26, H36M_17, {"Spine", "Neck/Nose"}),
        (HALPE_136, HALPE_26, set()),
        (COCO_WHOLEBODY_133, HALPE_26, {"head"}),
        (COCO_WHOLEBODY_133, H36M_17, {"Spine", "Neck/Nose", "Head"}),
    ],
    ids=lambda value: value.name if isinstance(value, Skeleton) else None,
)
def test_what_cannot_be_derived_is_missing(source, target, missing):
    pose, confidence = convert_skeleton(torch.randn(source.num_joints, 3), source, target)
    gone = {name for name, c in zip(target.joint_names, confidence, strict=True) if c == 0}
    assert gone == missing
    assert torch.equal(pose.isnan().all(-1), confidence == 0)
    assert torch.equal(pose.isfinite().all(-1), confidence > 0)


def test_coco_to_human36m_values():
    coco = torch.arange(34.0).reshape(17, 2).square()
    result = named(H36M_17, *convert_skeleton(coco, COCO_17, H36M_17))
    assert result["RAnkle"] == coco[16].tolist()
    assert result["LWrist"] == coco[9].tolist()
    assert result["Pelvis"] == ((coco[11] + coco[12]) / 2).tolist()
    assert result["Thorax"] == ((coco[5] + coco[6]) / 2).tolist()
    assert result["Head"] is None


def test_own_joint_goes_before_the_derived_one():
    body = torch.randn(25, 2)
    result = named(H36M_17, *convert_skeleton(body, BODY_25, H36M_17))
    assert result["Pelvis"] == body[8].tolist()
    assert result["Thorax"] == body[1].tolist()


def test_cmu_joints_are_the_ends_of_bones():
    cmu = torch.randn(31, 3)
    result = named(H36M_17, *convert_skeleton(cmu, CMU_31, H36M_17))
    names = CMU_31.joint_names
    ends = {
        "RHip": "rhipjoint",
        "RKnee": "rfemur",
        "RAnkle": "rtibia",
        "Spine": "lowerback",
        "Thorax": "lowerneck",
        "Neck/Nose": "upperneck",
        "Head": "head",
        "LShoulder": "lclavicle",
        "LElbow": "lhumerus",
        "LWrist": "lwrist",
    }
    for joint, bone in ends.items():
        assert result[joint] == cmu[names.index(bone)].tolist()
    hips = (cmu[names.index("lhipjoint")] + cmu[names.index("rhipjoint")]) / 2
    assert result["Pelvis"] == hips.tolist()


def test_missing_sources_give_missing_results_and_least_confidence():
    coco = torch.randn(2, 17, 2)
    confidence = torch.full((2, 17), 0.9)
    confidence[0, 11] = 0.0  # left hip
    coco[1, 6, 1] = torch.nan  # right shoulder
    confidence[:, 12] = 0.4
    pose, out = convert_skeleton(coco, COCO_17, H36M_17, confidence=confidence)
    pelvis, left_hip, right_hip = (H36M_17.index(n) for n in ("Pelvis", "LHip", "RHip"))
    thorax, right_shoulder = H36M_17.index("Thorax"), H36M_17.index("RShoulder")
    assert out[0, [pelvis, left_hip]].tolist() == [0, 0]
    assert out[0, right_hip] == confidence[0, 12]
    assert out[1, pelvis] == confidence[1, 12]
    assert out[1, [thorax, right_shoulder]].tolist() == [0, 0]
    assert pose[1, thorax].isnan().all()


@pytest.mark.parametrize("skeleton", ALL, ids=lambda s: s.name)
def test_identity(skeleton):
    pose = torch.randn(4, skeleton.num_joints, 3)
    confidence = torch.rand(4, skeleton.num_joints)
    same, out = convert_skeleton(pose, skeleton, skeleton, confidence=confidence)
    assert torch.equal(same, pose)
    assert torch.equal(out, confidence)


@given(pair=st.sampled_from([(a, b) for a, b in PAIRS if a is not b]), seed=st.integers(0, 2**31))
def test_there_and_back_keeps_what_both_sets_share(pair, seed):
    source, target = pair
    generator = torch.Generator().manual_seed(seed)
    pose = torch.randn(3, source.num_joints, 2, generator=generator)
    confidence = torch.rand(3, source.num_joints, generator=generator) - 0.2
    there, seen = convert_skeleton(pose, source, target, confidence=confidence)
    back, back_seen = convert_skeleton(there, target, source, confidence=seen)
    for joint, meaning in enumerate(source.meanings):
        shared = meaning is not None and meaning in target.meanings
        if shared and (seen_here := confidence[:, joint] > 0).any():
            assert torch.equal(back[seen_here, joint], pose[seen_here, joint])
            assert torch.equal(back_seen[seen_here, joint], confidence[seen_here, joint])
        elif meaning not in DERIVED:
            assert (back_seen[:, joint] == 0).all()
    again, again_seen = convert_skeleton(back, source, target, confidence=back_seen)
    both = (again_seen > 0) & (seen > 0)
    assert torch.equal(again_seen > 0, both)
    assert torch.equal(again[both], there[both])


@given(pair=st.sampled_from(PAIRS), seed=st.integers(0, 2**31))
def test_conversion_commutes_with_mirroring(pair, seed):
    source, target = pair
    pose = torch.randn(source.num_joints, 3, generator=torch.Generator().manual_seed(seed))
    mirrored, _ = convert_skeleton(mirror_pose(pose, source), source, target)
    expected = mirror_pose(convert_skeleton(pose, source, target)[0], target)
    assert torch.equal(mirrored.nan_to_num(7.0), expected.nan_to_num(7.0))


@given(skeleton=st.sampled_from(ALL), seed=st.integers(0, 2**31))
def test_mirror_is_an_involution(skeleton, seed):
    pose = torch.randn(2, skeleton.num_joints, 3, generator=torch.Generator().manual_seed(seed))
    once = mirror_pose(pose, skeleton)
    assert torch.equal(mirror_pose(once, skeleton), pose)
    assert not torch.equal(once, pose)


def test_gradient_ignores_missing_joints():
    pose = torch.randn(17, 2)
    pose[11] = torch.nan
    pose.requires_grad_()
    out, confidence = convert_skeleton(pose, COCO_17, H36M_17)
    out[confidence > 0].sum().backward()
    assert pose.grad is not None
    assert pose.grad.isfinite().all()
    assert pose.grad[11].eq(0).all()
    assert pose.grad[16].eq(1).all()
    assert pose.grad[12].eq(1).all()  # the right hip itself; the pelvis is missing with the left


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    pose, confidence = convert_skeleton(torch.zeros(17, 2, dtype=dtype), COCO_17, H36M_17)
    assert pose.dtype == confidence.dtype == dtype


def test_get_skeleton_by_loose_name():
    assert get_skeleton("Body25") is BODY_25
    assert get_skeleton("SMPL-24") is SMPL_24
    with pytest.raises(InputError, match=r"no joint set is called 'h37m'; known are h36m_17, "):
        get_skeleton("h37m")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: convert_skeleton(torch.zeros(16, 2), COCO_17, H36M_17),
            r"\(\.\.\., 17, D\), got \(16, 2\)",
        ),
        (
            lambda: convert_skeleton(torch.zeros(17, 2).long(), COCO_17, H36M_17),
            "floating-point poses",
        ),
        (
            lambda: convert_skeleton(
                torch.zeros(17, 2), COCO_17, H36M_17, confidence=torch.ones(16)
            ),
            r"confidence of shape \(17,\), got \(16,\)",
        ),
        (
            lambda: convert_skeleton(
                torch.zeros(17, 2), COCO_17, H36M_17, confidence=torch.full((17,), torch.nan)
            ),
            "got NaN",
        ),
        (lambda: mirror_pose(torch.zeros(3), H36M_17), r"got \(3,\)"),
        (lambda: H36M_17.index("Nose"), "h36m_17 has no joint 'Nose'; its joints are Pelvis, "),
    ],
)
def test_wrong_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(parents=(-1, 0)), "expected 3 parents, got 2"),
        (dict(parents=(-1, -1, 0)), "expected one root"),
        (dict(parents=(-1, 2, 1)), "form a cycle"),
        (dict(mirror=(0, 1, 1)), "not a permutation"),
        (dict(mirror=(1, 2, 0)), "twice does not return"),
        (dict(mirror=(1, 0, 2)), "changes the parent"),
        (dict(joint_names=("a", "a", "b")), "must differ"),
    ],
)
def test_impossible_sets_are_refused(fields, message):
    good = dict(
        name="toy",
        joint_names=("a", "b", "c"),
        parents=(-1, 0, 0),
        mirror=(0, 2, 1),
        meanings=(None, None, None),
    )
    Skeleton(**good)
    with pytest.raises(ValueError, match=message):
        Skeleton(**{**good, **fields})
