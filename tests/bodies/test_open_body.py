"""The open mesh body: against Anny itself, and what a body has to be.

`open_oracle.npz` holds some vertices as Anny poses them. To write it anew, with Anny installed:
`python tests/bodies/test_open.py tests/bodies/open_oracle.npz`.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from propose_prob._shipped import shipped_file
from propose_prob.bodies import MeshBody, SkeletonBody
from propose_prob.bodies.open_body import OpenBody, load_open_body
from propose_prob.errors import InputError
from propose_prob.geometry.rotations import matrix_from_axis_angle
from propose_prob.geometry.skeletons import COCO_17, H36M_17, SMPL_24, get_skeleton
from tools import distill_anny

ORACLE = Path(__file__).with_name("open_oracle.npz")
IDENTITY = torch.eye(3).expand(24, 3, 3)


@pytest.fixture(scope="module")
def body():
    return load_open_body()


@pytest.fixture(scope="module")
def stored():
    return load_file(shipped_file("bodies/open_body.safetensors"))


def random_theta(count, *, spread=0.5, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    angles = torch.randn(count, 24, 3, generator=generator, dtype=torch.float64)
    return matrix_from_axis_angle(spread * angles).to(dtype)


def with_exact_shape(stored, vertices, joints, *, chosen=slice(None)):
    """The shipped skinning on a body whose shape is given, of some of its vertices only."""
    kept = {name: stored[name] for name in ("bind",)}
    return OpenBody(
        {
            **kept,
            "template": vertices,
            "joints": joints,
            "shape_directions": torch.zeros(len(vertices), 3, 1),
            "joint_directions": torch.zeros(24, 3, 1),
            "skin_joints": stored["skin_joints"][chosen],
            "skin_weights": stored["skin_weights"][chosen],
            "faces": torch.zeros(1, 3, dtype=torch.int16),
            "landmarks": torch.zeros(1, dtype=torch.int32),
        }
    )


class Anny:
    """Adults drawn anew, posed at random by Anny itself."""

    def __init__(self, count, *, seed):
        self.model = distill_anny.load_anny()
        self.rig = distill_anny.merge_rig(self.model)
        self.adults = distill_anny.sample_adults(self.model, self.rig, count, seed=seed)
        self.vertices, self.joints = distill_anny.rest_bodies(self.model, self.rig, self.adults)
        self.theta = random_theta(count, seed=seed, dtype=torch.float64)

    def posed(self):
        """Vertices `(N, V, 3)`: every bone turned as the joint that it moves with."""
        axes = torch.tensor(distill_anny._AXES, dtype=torch.float64)
        # Joints by the definition: rotations are local to the T pose.
        rotations, places = [], []
        for joint, parent in enumerate(SMPL_24.parents):
            if parent < 0:
                rotations.append(self.theta[:, joint])
                places.append(self.joints[:, joint])
                continue
            offset = (self.joints[:, joint] - self.joints[:, parent]) @ self.rig.bind[parent].mT
            rotations.append(rotations[parent] @ self.theta[:, joint])
            places.append(places[parent] + (rotations[parent] @ offset[..., None])[..., 0])
        turn = torch.stack(rotations, dim=1) @ self.rig.bind
        rest = self.model(phenotype_kwargs=self.adults)
        pelvis = (self.rig.heads @ rest["rest_bone_heads"])[:, :1] @ axes.mT
        shift = torch.stack(places, 1) - (turn @ (self.joints + pelvis)[..., None])[..., 0]
        motion = torch.eye(4, dtype=torch.float64).repeat(len(turn), 24, 1, 1)
        motion[..., :3, :3] = axes.mT @ turn @ axes
        motion[..., :3, 3] = shift @ axes
        poses = motion[:, self.rig.joint_of] @ rest["rest_bone_poses"]
        output = self.model(
            pose_parameters=poses, phenotype_kwargs=self.adults, pose_parameterization="world"
        )
        return output["vertices"] @ axes.mT

    def coefficients(self, stored):
        """The shipped shape that is nearest, `(N, S)`."""
        template = stored["template"].double()
        root = distill_anny._areas(template, self.model.faces).sqrt()[:, None]
        directions = (stored["shape_directions"].double() * root[..., None]).flatten(end_dim=1)
        wanted = ((self.vertices - template) * root).flatten(start_dim=1).mT
        return torch.linalg.lstsq(directions, wanted).solution.mT


def write_oracle(path):
    anny = Anny(5, seed=11)
    chosen = torch.arange(0, anny.vertices.shape[1], 211)
    arrays = {
        "chosen": chosen,
        "rest": anny.vertices[:, chosen].float(),
        "joints": anny.joints.float(),
        "theta": anny.theta.float(),
        "shape": anny.coefficients(load_file(shipped_file("bodies/open_body.safetensors"))).float(),
        "posed": anny.posed()[:, chosen].float(),
    }
    np.savez_compressed(path, **{name: value.numpy() for name, value in arrays.items()})


def test_skinning_is_annys_on_stored_vertices(stored):
    with np.load(ORACLE) as arrays:
        oracle = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    for rest, joints, theta, posed in zip(
        *(oracle[name] for name in ("rest", "joints", "theta", "posed")), strict=True
    ):
        exact = with_exact_shape(stored, rest, joints, chosen=oracle["chosen"])
        assert (exact(theta).vertices - posed).norm(dim=-1).max() < 1e-5


def test_ten_shape_coefficients_give_stored_adults_to_millimeters(body):
    with np.load(ORACLE) as arrays:
        oracle = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    found = body(oracle["theta"], oracle["shape"])
    error = (found.vertices[:, oracle["chosen"]] - oracle["posed"]).norm(dim=-1)
    average = body(oracle["theta"]).vertices[:, oracle["chosen"]]
    assert error.mean() < 0.003
    assert (average - oracle["posed"]).norm(dim=-1).mean() > 10 * error.mean()


@pytest.mark.slow
def test_skinning_is_annys(stored, body):
    pytest.importorskip("anny", reason="needs Anny: pip install 'propose_prob[body]'")
    anny = Anny(20, seed=3)
    posed = anny.posed()
    for vertices, joints, theta, wanted in zip(
        anny.vertices, anny.joints, anny.theta, posed, strict=True
    ):
        exact = with_exact_shape(stored, vertices.float(), joints.float())
        assert (exact(theta.float()).vertices - wanted).norm(dim=-1).max() < 1e-5
    error = (body(anny.theta, anny.coefficients(stored)).vertices - posed).norm(dim=-1)
    assert error.mean() < 0.003
    assert error.max() < 0.03


def test_loading_is_quick_and_small():
    assert shipped_file("bodies/open_body.safetensors").stat().st_size < 6e6
    start = time.perf_counter()
    body = load_open_body()
    assert time.perf_counter() - start < 1
    assert isinstance(body, MeshBody)
    assert body.skeleton == SMPL_24
    assert body.num_shape == 10
    assert body.regressors == ("body_25", "coco_17", "h36m_17", "mpii_16")
    assert not body.state_dict()


def test_rests_in_the_t_pose(body):
    joints, vertices, rotations = body(IDENTITY)
    at = dict(zip(SMPL_24.joint_names, joints, strict=True))
    assert (rotations - torch.eye(3)).abs().max() < 1e-6
    assert at["Pelvis"].abs().max() < 1e-7
    other = joints[list(SMPL_24.mirror)] * torch.tensor([-1.0, 1.0, 1.0])
    assert (other - joints).abs().max() < 2e-3
    # Arms and legs point where those of the default body do.
    plain = SkeletonBody()(IDENTITY).joints
    for limb in ("Knee", "Ankle", "Elbow", "Wrist", "Hand"):
        for side in "LR":
            end = SMPL_24.index(f"{side}_{limb}")
            start = SMPL_24.parents[end]
            cosine = torch.cosine_similarity(
                joints[end] - joints[start], plain[end] - plain[start], dim=0
            )
            assert cosine > np.cos(np.radians(1.5)), limb
    extent = vertices.amax(dim=0) - vertices.amin(dim=0)
    assert 1.6 < extent[1] < 1.8
    assert 0.9 * extent[1] < extent[0] < 1.1 * extent[1]
    coco = dict(zip(COCO_17.joint_names, body.regress(body(IDENTITY), "coco_17"), strict=True))
    assert coco["nose"][2] > coco["left_eye"][2] > coco["left_ear"][2]
    assert coco["left_eye"][0] > 0 > coco["right_eye"][0]
    assert coco["left_eye"][1] > coco["left_ear"][1]


def test_palms_face_down(body, stored):
    """The hands are flat and their surface that looks down is as large as that which looks up."""
    vertices = body(IDENTITY).vertices
    for side in "LR":
        wrist = SMPL_24.index(f"{side}_Wrist")
        hand = vertices[body.get_buffer("_weights")[:, wrist] > 0.99]
        spread = (hand - hand.mean(dim=0)).std(dim=0)
        assert spread[1] < 0.6 * spread[2]
        # Thumbs point forwards: the hand's foremost part lies close to the wrist.
        foremost = hand[hand[:, 2].argmax()]
        assert foremost[0].abs() < hand[:, 0].abs().quantile(0.75)


def test_rotations_are_smpls(body):
    """Joints follow plain forward kinematics from the T pose."""
    rest = body(IDENTITY.double()).joints
    theta = random_theta(4, dtype=torch.float64)
    output = body(theta)
    rotations, places = [], []
    for joint, parent in enumerate(SMPL_24.parents):
        if parent < 0:
            rotations.append(theta[:, joint])
            places.append(rest[joint].expand(4, 3))
        else:
            rotations.append(rotations[parent] @ theta[:, joint])
            places.append(places[parent] + rotations[parent] @ (rest[joint] - rest[parent]))
    assert (output.rotations - torch.stack(rotations, dim=1)).abs().max() < 1e-6
    assert (output.joints - torch.stack(places, dim=1)).abs().max() < 1e-6


def test_the_root_turns_everything_about_the_pelvis(body):
    theta = random_theta(2, dtype=torch.float64)
    turned = theta.clone()
    turn = random_theta(1, spread=2.0, seed=5, dtype=torch.float64)[0, 0]
    turned[:, 0] = turn @ theta[:, 0]
    shape = torch.randn(2, 10, dtype=torch.float64)
    before, after = body(theta, shape), body(turned, shape)
    assert (before.vertices @ turn.T - after.vertices).abs().max() < 1e-9


def test_hands_move_nothing(body):
    theta = IDENTITY.clone()
    theta[[22, 23]] = random_theta(1)[0, :2]
    assert torch.equal(body(theta).vertices, body(IDENTITY).vertices)


def test_the_first_component_is_stature(body):
    shape = 2 * torch.cat([torch.eye(10), -torch.eye(10)])
    vertices = body(IDENTITY, shape).vertices
    height = vertices[..., 1].amax(dim=-1) - vertices[..., 1].amin(dim=-1)
    change = height[:10] - height[10:]
    assert change[0] > 0.3
    assert change[1:].abs().max() < 0.1 * change[0]


def test_batches_broadcast_and_gradients_are_finite(body):
    theta = random_theta(3).requires_grad_()
    shape = torch.zeros(2, 1, 10, requires_grad=True)
    output = body(theta, shape, torch.ones(3))
    assert output.vertices.shape[:2] == output.joints.shape[:2] == (2, 3)
    body.regress(output).square().sum().backward()
    for leaf in (theta, shape):
        assert leaf.grad.isfinite().all()
        assert leaf.grad.abs().sum() > 0
    alone = body(theta[1], translation=torch.ones(3))
    assert (alone.vertices - output.vertices[0, 1]).abs().max() < 1e-5
    assert body(theta, surface=False).vertices is None


def inside(points, vertices, faces):
    """Winding number of the surface about each point, by the triangles' solid angles.

    A. van Oosterom and J. Strackee, "The solid angle of a plane triangle", IEEE TBME 30(2), 1983.
    """
    a, b, c = (vertices[faces] - points[:, None, None]).unbind(dim=-2)
    la, lb, lc = a.norm(dim=-1), b.norm(dim=-1), c.norm(dim=-1)
    volume = (a * torch.linalg.cross(b, c)).sum(dim=-1)
    base = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return torch.atan2(volume, base).sum(dim=-1) / (2 * torch.pi)


def test_joints_lie_inside_the_surface(body):
    theta = random_theta(2, spread=0.25, dtype=torch.float64)
    theta[0] = torch.eye(3)
    output = body(theta)
    for name in ("h36m_17", "coco_17"):
        face = {"nose", "left_eye", "right_eye", "left_ear", "right_ear"}
        names = get_skeleton(name).joint_names
        rows = [j for j, joint in enumerate(names) if joint not in face]
        found = body.regress(output, name)[:, rows]
        for points, vertices in zip(found, output.vertices, strict=True):
            winding = inside(points, vertices, body.faces)
            assert (winding > 0.6).all(), dict(zip(rows, winding.tolist(), strict=True))
    outside = torch.tensor([[0.0, 0.0, 0.5]], dtype=torch.float64)
    assert inside(outside, output.vertices[0], body.faces).abs() < 0.2


def test_segments_have_the_default_bodys_lengths(body):
    """Within 35 mm of the average skeleton, which is scaled to the same stature."""
    ours = body.regress(body(IDENTITY))
    plain = SkeletonBody()
    theirs = plain.regress(plain(IDENTITY))
    for child, parent in H36M_17.bones:
        difference = (ours[child] - ours[parent]).norm() - (theirs[child] - theirs[parent]).norm()
        assert difference.abs() < 0.035, H36M_17.joint_names[child]


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("bind", lambda value: value * 2, "bind to be 24 rotations"),
        ("faces", lambda value: value + 1, "faces between 0 and"),
        ("skin_joints", lambda value: value + 3, "skin_joints between 0 and 23"),
        ("skin_weights", lambda value: value / 2, "sum to 1"),
        ("landmarks", lambda value: value - 14000, "landmarks between 0 and"),
        ("template", lambda value: value * torch.nan, "finite floating-point template"),
        ("joints", lambda value: value[1:], "joints of shape"),
        ("bind", None, "bind are missing"),
    ],
)
def test_refuses_what_is_no_body(stored, field, change, message):
    wrong = dict(stored)
    if change is None:
        del wrong[field]
    else:
        wrong[field] = change(stored[field])
    with pytest.raises(InputError, match=message):
        OpenBody(wrong)


if __name__ == "__main__":
    write_oracle(sys.argv[1])
