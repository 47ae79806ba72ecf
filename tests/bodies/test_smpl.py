"""SMPL, SMPL-H and SMPL-X from synthetic files with the official keys, against smplx."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch
from scipy import sparse

from propose_prob.bodies import load_smpl
from propose_prob.bodies.smpl import SMPLH_52, SMPLX_55
from propose_prob.errors import InputError
from propose_prob.geometry.rotations import matrix_from_axis_angle
from propose_prob.geometry.skeletons import COCO_17, H36M_17, SMPL_24

SKELETONS = {"smpl": SMPL_24, "smplh": SMPLH_52, "smplx": SMPLX_55}


def synthetic(kind, *, vertices=40, shapes=None, pose=True, seed=0):
    """The arrays of an official file, random, of a few dozen vertices."""
    rng = np.random.default_rng(seed)
    skeleton = SKELETONS[kind]
    count = skeleton.num_joints
    columns = {"smpl": 10, "smplh": 16, "smplx": 400}[kind] if shapes is None else shapes
    parents = np.array([4294967295, *skeleton.parents[1:]], dtype=np.uint32)
    weights = rng.random((vertices, count)) ** 8
    regressor = rng.random((count, vertices)) * (rng.random((count, vertices)) < 0.3) + 1e-3
    data = {
        "v_template": rng.normal(size=(vertices, 3)),
        "shapedirs": 0.1 * rng.normal(size=(vertices, 3, columns)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "kintree_table": np.stack([parents, np.arange(count, dtype=np.uint32)]),
        "weights": weights / weights.sum(1, keepdims=True),
        "f": rng.integers(0, vertices, (50, 3)).astype(np.uint32),
    }
    if pose:
        data["posedirs"] = 0.02 * rng.normal(size=(vertices, 3, 9 * (count - 1)))
    if kind != "smpl":
        for side in "lr":
            data[f"hands_mean{side}"] = 0.4 * rng.normal(size=45)
            data[f"hands_components{side}"] = rng.normal(size=(45, 45))
    if kind == "smplx":
        data["lmk_faces_idx"] = rng.integers(0, 50, 51)
        data["lmk_bary_coords"] = rng.random((51, 3))
        data["dynamic_lmk_faces_idx"] = rng.integers(0, 50, (79, 17))
        data["dynamic_lmk_bary_coords"] = rng.random((79, 17, 3))
    return data


def save(path, data):
    np.savez(path, bs_style=np.array("lbs"), bs_type=np.array("lrotmin"), **data)
    return path


@pytest.fixture
def smplx(monkeypatch):
    module = pytest.importorskip("smplx", reason="smplx, the reference implementation, is missing")
    # Its further joints are vertices with numbers that these small meshes do not have.
    names = ["nose", "reye", "leye", "rear", "lear"]
    names += [side + part for side in "LR" for part in ("BigToe", "SmallToe", "Heel")]
    names += [s + tip for s in "lr" for tip in ("thumb", "index", "middle", "ring", "pinky")]
    numbers = {name: number for number, name in enumerate(names)}
    for kind in ("smplh", "smplx"):
        monkeypatch.setitem(module.body_models.VERTEX_IDS, kind, numbers)
    return module


def source(kind, path):
    """What smplx reads a model from: of SMPL-X a file, of the others a pickle or this."""
    from smplx.utils import Struct

    if kind == "smplx":
        return {"model_path": str(path)}
    with np.load(path) as file:
        return {"model_path": "", "data_struct": Struct(**file)}


def reference(smplx, kind, path, theta, shape, translation, *, expression=0):
    layer = {"smpl": smplx.SMPLLayer, "smplh": smplx.SMPLHLayer, "smplx": smplx.SMPLXLayer}[kind]
    betas = shape.shape[-1] - expression
    extra = {"num_expression_coeffs": expression} if kind == "smplx" else {}
    model = layer(
        **source(kind, path),
        num_betas=betas,
        dtype=torch.float64,
        **extra,
    )
    arguments = {"global_orient": theta[:, :1], "body_pose": theta[:, 1:22], "transl": translation}
    if kind == "smpl":
        arguments["body_pose"] = theta[:, 1:]
    else:
        arguments["left_hand_pose"] = theta[:, -30:-15]
        arguments["right_hand_pose"] = theta[:, -15:]
    if kind == "smplx":
        faces = ("jaw_pose", "leye_pose", "reye_pose")
        arguments |= {name: theta[:, 22 + j : 23 + j] for j, name in enumerate(faces)}
        arguments["expression"] = shape[:, betas:]
    output = model(betas=shape[:, :betas], **arguments)
    return output.vertices, output.joints[:, : SKELETONS[kind].num_joints]


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Raised inside smplx, by today's numpy and torch.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("kind", "shapes", "expression"),
    [("smpl", 10, 0), ("smpl", 5, 0), ("smplh", 10, 0), ("smplx", 10, 10), ("smplx", 20, 7)],
)
def test_equals_smplx(tmp_path, smplx, kind, shapes, expression):
    path = save(tmp_path / "model.npz", synthetic(kind, shapes=300 if kind == "smpl" else None))
    body = load_smpl(path, num_shape=shapes, num_expression=expression)
    assert body.skeleton == SKELETONS[kind]
    assert body.num_shape == shapes + expression
    theta = matrix_from_axis_angle(randn(6, body.num_joints, 3))
    shape, translation = randn(6, shapes + expression, seed=1), randn(6, 3, seed=2)
    vertices, joints = reference(
        smplx, kind, path, theta, shape, translation, expression=expression
    )
    output = body(
        theta.reshape(2, 3, -1, 3, 3), shape.reshape(2, 3, -1), translation.reshape(2, 3, 3)
    )
    assert output.vertices.shape == (2, 3, 40, 3)
    torch.testing.assert_close(output.vertices.flatten(0, 1), vertices, rtol=0, atol=1e-5)
    torch.testing.assert_close(output.joints.flatten(0, 1), joints, rtol=0, atol=1e-5)
    single = body(theta.float(), shape.float(), translation.float())
    torch.testing.assert_close(single.vertices.double(), vertices, rtol=0, atol=2e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", ["smplh", "smplx"])
@pytest.mark.parametrize("flat", [True, False])
def test_resting_hands_equal_smplx(tmp_path, smplx, kind, flat):
    """smplx adds the mean to the hands of axis-angle, unless `flat_hand_mean`."""
    path = save(tmp_path / "model.npz", synthetic(kind))
    body = load_smpl(path, flat_hands=flat)
    pose = randn(1, 22, 3)
    model = {"smplh": smplx.SMPLH, "smplx": smplx.SMPLX}[kind](
        **source(kind, path),
        dtype=torch.float64,
        flat_hand_mean=flat,
    )
    expected = model(global_orient=pose[:, 0], body_pose=pose[:, 1:].flatten(1))
    theta = torch.cat([matrix_from_axis_angle(pose), torch.eye(3).expand(1, 2, 3, 3)], dim=1)
    output = body(theta)
    torch.testing.assert_close(output.vertices, expected.vertices, rtol=0, atol=1e-5)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_with_scipy_and_chumpy_equal_npz(tmp_path, monkeypatch, protocol):
    data = synthetic("smpl")
    chumpy = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": types.ModuleType("chumpy.ch")}

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    chumpy["chumpy.ch"].Ch = Ch
    with monkeypatch.context() as patch:
        for name, module in chumpy.items():
            patch.setitem(sys.modules, name, module)
        official = data | {
            "shapedirs": Ch(data["shapedirs"]),
            "J_regressor": sparse.csc_matrix(data["J_regressor"]),
            "J_regressor_prior": sparse.csc_matrix(data["J_regressor"]),
            "bs_style": "lbs",
            "bs_type": "lrotmin",
        }
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(official, protocol))
    theta = matrix_from_axis_angle(randn(3, 24, 3))
    first = load_smpl(tmp_path / "model.pkl")(theta, randn(3, 10))
    second = load_smpl(save(tmp_path / "model.npz", data))(theta, randn(3, 10))
    torch.testing.assert_close(first.vertices, second.vertices)


@pytest.mark.parametrize(("kind", "vertices"), [("smpl", 6890), ("smplx", 10475)])
def test_named_regressors(tmp_path, kind, vertices):
    data = synthetic(kind, vertices=vertices, shapes=20, pose=False)
    body = load_smpl(save(tmp_path / "model.npz", data))
    assert body.regressors == ("h36m_17", "coco_17", "body_25", "mpii_16")
    theta = matrix_from_axis_angle(randn(24, 3))
    output = body(theta, randn(2, 10))
    coco = body.regress(output, "coco_17")
    assert coco.shape == (2, 17, 3)
    nose = 332 if kind == "smpl" else 9120
    torch.testing.assert_close(coco[:, COCO_17.index("nose")], output.vertices[:, nose])
    h36m = body.regress(output)
    for name, joint in (("LKnee", "L_Knee"), ("RWrist", "R_Wrist"), ("Thorax", "Neck")):
        torch.testing.assert_close(
            h36m[:, H36M_17.index(name)], output.joints[:, body.joint_names.index(joint)]
        )
    hips = output.joints[:, 1:3].mean(1)
    torch.testing.assert_close(h36m[:, 0], hips)
    joints_only = body(theta, randn(2, 10), surface=False)
    assert joints_only.vertices is None
    torch.testing.assert_close(joints_only.joints, output.joints)
    with pytest.raises(InputError, match="'coco_17' needs vertices"):
        body.regress(joints_only, "coco_17")


@pytest.mark.parametrize("left_first", [False, True])
def test_own_h36m_regressor_in_either_order(tmp_path, left_first):
    data = synthetic("smpl")
    path = save(tmp_path / "model.npz", data)
    template = data["v_template"]
    left, right = template[:, 0].argsort()[::-1][:9], template[:, 0].argsort()[:9]
    weights = np.zeros((17, 40))
    weights[[0, 7, 8, 9, 10], [0, 1, 2, 3, 4]] = 1
    rows = [*right[:3], *left[:3]]
    weights[[1, 2, 3, 4, 5, 6], rows] = 1
    weights[[11, 12, 13, 14, 15, 16], [*left[3:6], *right[3:6]]] = 1
    stored = weights[[0, 4, 5, 6, 1, 2, 3, *range(7, 17)]] if left_first else weights
    np.save(tmp_path / "J_regressor_h36m.npy", stored)
    expected = torch.as_tensor(weights @ template).float()
    for given in (tmp_path / "J_regressor_h36m.npy", torch.as_tensor(stored)):
        body = load_smpl(path, h36m_regressor=given)
        result = body.regress(body(torch.eye(3).expand(24, 3, 3)))
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    swapped = stored[[*range(11), 14, 15, 16, 11, 12, 13]]
    with pytest.raises(InputError, match="11-13 on the left arm"):
        load_smpl(path, h36m_regressor=torch.as_tensor(swapped))
    with pytest.raises(InputError, match=r"\(17, 40\), got \(17, 39\)"):
        load_smpl(path, h36m_regressor=torch.zeros(17, 39))


def test_a_missing_file_says_where_to_get_one(tmp_path):
    with pytest.raises(InputError) as caught:
        load_smpl(tmp_path / "SMPL_NEUTRAL.pkl")
    message = str(caught.value)
    for part in (
        "SMPL_NEUTRAL.pkl",
        "smpl.is.tue.mpg.de",
        "mano.is",
        "smpl-x.is",
        "non-commercial",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": None}, "expected a body model in .*model.npz, it has no weights"),
        ({"bs_style": np.array("dqbs")}, "bs_style lbs.* got 'dqbs'"),
        ({"kintree_table": np.zeros((2, 16), np.int64)}, r"\(2, 24\).* got \(2, 16\)"),
        ({"kintree_table": np.zeros((2, 24), np.int64)}, "the joints of smpl_24"),
        ({"posedirs": np.zeros((40, 3, 9))}, r"posedirs of shape \(40, 3, 207\).*got \(40, 3, 9\)"),
        ({"J_regressor": np.zeros((24, 3))}, r"J_regressor of shape \(24, 40\)"),
        ({"shapedirs": np.zeros((40, 3, 4))}, "0 to 4 shape coefficients for .*, got 10"),
        ({"v_template": np.full((40, 3), np.nan)}, "expected finite numbers in v_template"),
        ({"weights": np.full((40, 24), 1.0)}, "sum to 1, vertex 0 has 24"),
        ({"weights": np.full((40, 24), "a")}, "expected numbers in weights"),
        ({"weights": np.array([None])}, "expected a complete .npz of plain arrays"),
        ({"f": np.full((4, 3), 40)}, "expected faces of vertices 0 to 39, got 40 to 40"),
    ],
)
def test_wrong_files(tmp_path, change, message):
    data = {"bs_style": np.array("lbs")} | synthetic("smpl") | change
    np.savez(tmp_path / "model.npz", **{k: v for k, v in data.items() if v is not None})
    with pytest.raises(InputError, match=message):
        load_smpl(tmp_path / "model.npz")


def test_other_wrong_files(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"a\.npz: expected a complete \.npz of plain arrays"):
        load_smpl(tmp_path / "a.npz")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match=r"expected a dict in .*a\.pkl, got list"):
        load_smpl(tmp_path / "a.pkl")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"in \.npz or \.pkl, got .*a\.txt"):
        load_smpl(tmp_path / "a.txt")
    path = save(tmp_path / "b.npz", synthetic("smplx", shapes=20))
    with pytest.raises(InputError, match=r"0 to 10 expression coefficients for .*, got 11"):
        load_smpl(path, num_expression=11)
    with pytest.raises(InputError, match=r"0 to 10 shape coefficients for .*, got 11"):
        load_smpl(path, num_shape=11)
