"""Linear blend skinning against the formula written out, vertex by vertex."""

import pytest
import torch
from torch.func import jacfwd, jacrev, vmap

from propose_prob.bodies import MeshBody
from propose_prob.bodies.smpl import SMPLH_52
from propose_prob.errors import InputError
from propose_prob.geometry.rotations import matrix_from_6d
from propose_prob.geometry.skeletons import SMPL_24

V, S = 15, 4


def randn(seed, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def numbers(skeleton=SMPL_24):
    count = skeleton.num_joints
    return {
        "template": randn(0, V, 3),
        "skeleton": skeleton,
        "weights": randn(1, V, count).softmax(-1),
        "joint_regressor": randn(2, count, V).softmax(-1),
        "shape_directions": 0.1 * randn(3, V, 3, S),
        "pose_directions": 0.1 * randn(4, V, 3, 9 * (count - 1)),
        "faces": torch.tensor([[0, 1, 2], [2, 1, 14]]),
        "regressors": {"few": torch.eye(V).double()[:2], "both": randn(5, 3, count + V)},
    }


def build(**changes):
    given = numbers() | changes
    return MeshBody(given.pop("template"), **given)


def by_hand(theta, shape, n):
    """One body; SMPL's equations with homogeneous matrices."""
    points = n["template"] + torch.einsum("vcs,s->vc", n["shape_directions"], shape)
    rest = n["joint_regressor"] @ points
    bend = torch.cat([(theta[k] - torch.eye(3)).reshape(-1) for k in range(1, len(theta))])
    points = points + torch.einsum("vcp,p->vc", n["pose_directions"], bend)
    motions = []
    for k, parent in enumerate(n["skeleton"].parents):
        local = torch.eye(4).double()
        local[:3, :3] = theta[k]
        local[:3, 3] = rest[k] - (rest[parent] if parent >= 0 else 0)
        motions.append(motions[parent] @ local if parent >= 0 else local)
    vertices = []
    for v in range(V):
        total = torch.zeros(3).double()
        for k, motion in enumerate(motions):
            moved = motion[:3, :3] @ (points[v] - rest[k]) + motion[:3, 3]
            total = total + n["weights"][v, k] * moved
        vertices.append(total)
    return torch.stack([m[:3, 3] for m in motions]), torch.stack(vertices)


@pytest.mark.parametrize("skeleton", [SMPL_24, SMPLH_52])
def test_equals_the_formula(skeleton):
    n = numbers(skeleton)
    body = build(**n)
    theta = matrix_from_6d(randn(6, 2, 3, skeleton.num_joints, 6))
    shape, move = randn(7, 3, S), randn(8, 3)
    output = body(theta, shape, move)
    assert output.vertices.shape == (2, 3, V, 3)
    for i in range(2):
        for j in range(3):
            joints, vertices = by_hand(theta[i, j], shape[j], n)
            torch.testing.assert_close(output.joints[i, j], joints + move)
            torch.testing.assert_close(output.vertices[i, j], vertices + move)


def test_the_root_stays_where_the_model_has_it():
    body = build()
    rest = body(torch.eye(3).double().expand(24, 3, 3))
    torch.testing.assert_close(rest.vertices, numbers()["template"])
    turned = matrix_from_6d(randn(0, 24, 6))
    torch.testing.assert_close(body(turned).joints[0], rest.joints[0])


def test_joints_instead_of_a_regressor():
    n = numbers()
    regressor = n["joint_regressor"]
    directions = torch.einsum("kv,vcs->kcs", regressor, n["shape_directions"])
    other = build(
        joint_regressor=None, joints=regressor @ n["template"], joint_directions=directions
    )
    theta, shape = matrix_from_6d(randn(0, 24, 6)), randn(1, S)
    torch.testing.assert_close(other(theta, shape).vertices, build()(theta, shape).vertices)
    plain = build(shape_directions=None, pose_directions=None)
    assert plain.num_shape == 0
    assert plain(theta, torch.zeros(2, 0)).vertices.shape == (2, V, 3)


def test_shape_may_have_the_larger_batch():
    body = build()
    theta, shape, move = matrix_from_6d(randn(0, 24, 6)), randn(1, 5, S), randn(2, 4, 1, 3)
    output = body(theta, shape, move)
    assert output.vertices.shape == (4, 5, V, 3)
    assert output.joints.shape == (4, 5, 24, 3) and output.rotations.shape == (4, 5, 24, 3, 3)
    single = body(theta, shape[2], move[3, 0])
    torch.testing.assert_close(output.vertices[3, 2], single.vertices)


def test_24_joints_pose_a_body_with_more():
    hands = matrix_from_6d(randn(9, 30, 6))
    for rest, expected in ((None, torch.eye(3).double().expand(30, 3, 3)), (hands, hands)):
        body = build(**numbers(SMPLH_52), rest=rest)
        theta = matrix_from_6d(randn(0, 2, 24, 6))
        full = torch.cat([theta[:, :22], expected.expand(2, 30, 3, 3)], dim=1)
        torch.testing.assert_close(body(theta).vertices, body(full).vertices)
    with pytest.raises(InputError, match=r"with 52 or 24 joints \(axis -3\), got \(22, 3, 3\)"):
        body(torch.zeros(22, 3, 3))


def test_regressors():
    body = build()
    output = body(matrix_from_6d(randn(0, 2, 24, 6)))
    torch.testing.assert_close(body.regress(output, "few"), output.vertices[:, :2])
    both = numbers()["regressors"]["both"]
    expected = both @ torch.cat([output.joints, output.vertices], dim=1)
    torch.testing.assert_close(body.regress(output, "both"), expected)
    assert body.regressors == ("few", "both")
    with pytest.raises(InputError, match="no regressor 'h36m_17'; it has few, both"):
        body.regress(output)
    with pytest.raises(InputError, match="'few' needs vertices"):
        body.regress(body(matrix_from_6d(randn(0, 24, 6)), surface=False), "few")
    spine = torch.zeros(1, 24 + V).double()
    spine[0, 3] = 1
    body = build(regressors={"spine": spine})
    output = body(matrix_from_6d(randn(0, 24, 6)), surface=False)
    torch.testing.assert_close(body.regress(output, "spine"), output.joints[3:4])


def test_derivatives():
    body = build()

    def place(x, s, t):
        return body.regress(body(matrix_from_6d(x), s, t), "both")

    inputs = randn(0, 2, 24, 6), randn(1, 2, S), randn(2, 2, 3)
    reverse = vmap(jacrev(place, argnums=(0, 1, 2)))(*inputs)
    forward = vmap(jacfwd(place, argnums=(0, 1, 2)))(*inputs)
    for one, other in zip(reverse, forward, strict=True):
        torch.testing.assert_close(one, other)
    single = tuple(x[0].requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(place, single, fast_mode=True)


def test_dtype_and_state():
    body = build().float()
    theta = matrix_from_6d(randn(0, 24, 6))
    assert body(theta.float()).vertices.dtype == torch.float32
    assert body(theta).vertices.dtype == torch.float64
    # Somebody's licensed numbers must not end up in a checkpoint of a model that holds the body.
    assert not body.state_dict() and not list(body.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"joint_regressor": None}, "either joint_regressor or joints"),
        ({"joints": torch.zeros(24, 3)}, "either joint_regressor or joints"),
        ({"joint_directions": torch.zeros(24, 3, S)}, "joint_directions together with joints"),
        ({"template": torch.zeros(V, 2)}, r"template of shape \(15, 3\), got \(15, 2\)"),
        ({"weights": torch.zeros(V, 23)}, r"weights of shape \(15, 24\), got \(15, 23\)"),
        ({"weights": torch.zeros(V, 24)}, "sum to 1, vertex 0 has 0"),
        ({"pose_directions": torch.zeros(V, 3, 9)}, r"pose_directions of shape \(15, 3, 207\)"),
        ({"template": torch.full((V, 3), torch.inf)}, "finite floating-point template"),
        ({"faces": torch.zeros(2, 4, dtype=torch.int64)}, r"faces of shape \(F, 3\), got \(2, 4\)"),
        ({"faces": torch.tensor([[-1, 3, 2]])}, "faces of vertices 0 to 14, got -1 to 3"),
        ({"regressors": {"a": torch.zeros(17, 3)}}, r"'a' of shape \(J, 15\) or \(J, 39\)"),
        ({"rest": torch.zeros(30, 3, 3)}, r"rest of shape \(2, 3, 3\), got \(30, 3, 3\)"),
    ],
)
def test_wrong_numbers(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)


@pytest.mark.parametrize("names", [("few",), ("both", "few"), ()])
def test_only_what_joint_sets_need_gives_the_same_joint_sets(names):
    body = build(regressors=numbers()["regressors"] | {"last": torch.eye(V).double()[V - 2 :]})
    light = body.only(*names)
    theta, shape = matrix_from_6d(randn(20, 5, 24, 6)), randn(21, 5, S)
    whole, part = body(theta, shape), light(theta, shape)
    torch.testing.assert_close(part.joints, whole.joints)
    assert light.regressors == names
    for name in names:
        torch.testing.assert_close(light.regress(part, name), body.regress(whole, name))
    assert part.vertices.shape[1] == {(): 0, ("few",): 2}.get(names, V)
    # The body that was given is as before.
    assert body(theta).vertices.shape == (5, V, 3)
    assert body.faces is not None
    assert body.only("last")(theta).vertices.shape == (5, 2, 3)
    with pytest.raises(InputError, match="no regressor 'last'"):
        light.regress(part, "last")
    with pytest.raises(InputError, match="no regressor 'hands'"):
        body.only("hands")
