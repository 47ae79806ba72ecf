"""Distil the open mesh body from Anny: `python -m tools.distill_anny OUT`.

Anny (https://github.com/naver/anny, Apache-2.0) is a rigged body of MakeHuman's CC0 assets. What is
kept of it: the mesh, its first principal components over adults, and its rig merged to SMPL's
joints, bones of a chain moving as one. Anny's rest pose has bent elbows and lowered arms, so the
T pose is stored as one rotation of each joint out of that rest pose (`bind`).

Needs the extra `[body]`. The first run takes minutes, in which Anny fills a cache of hundreds of
megabytes (`ANNY_CACHE_DIR`).
"""

import argparse
import math
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from propose_prob.bodies.skeleton_body import SkeletonBody
from propose_prob.errors import InputError
from propose_prob.geometry.skeletons import DERIVED, H36M_17, SMPL_24, get_skeleton
from propose_prob.io.atomic import write_bytes

__all__ = ["Rig", "distil", "load_anny", "main", "merge_rig", "rest_bodies", "sample_adults"]

REGRESSORS = ("h36m_17", "coco_17", "body_25", "mpii_16")
"""The joint sets that the distilled body gives."""

_AXES = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))
"""Anny has z up and faces -y; here y is up and the body faces +z."""

_MIDLINE = {
    "Pelvis": "root",
    "Spine1": "spine04",
    "Spine2": "spine02",
    "Spine3": "spine01",
    "Neck": "neck01",
    "Head": "head",
}
_LIMBS = {
    "Hip": "upperleg01",
    "Knee": "lowerleg01",
    "Ankle": "foot",
    "Collar": "clavicle",
    "Shoulder": "upperarm01",
    "Elbow": "lowerarm01",
    "Wrist": "wrist",
}
"""The bone at whose start each joint lies; bones below it move with it up to the next joint."""

_TOES = tuple(f"toe{number}-1" for number in range(1, 6))
_KNUCKLES = tuple(f"finger{number}-1" for number in range(2, 6))

_CLAVICLE_RISE = 5.0
"""Degrees by which the collars rise from Anny's lowered arms to the T pose.

Shoulders rise by 10 to 15 degrees when arms do; but poses whose collars do not turn, as in motion
capture without them, show shrugged shoulders on hanging arms if all of it goes into the T pose."""

_STATURE = ((1.76, 1.63), 0.08)
"""Mean stature of men and of women, and its standard deviation, meters."""

_SAMPLES, _BATCH = 2000, 50


class Rig(NamedTuple):
    """Anny's rig merged to the 24 joints of `SMPL_24`.

    Attributes:
        joint_of: The joint that each of Anny's B bones moves with, `(B,)`.
        heads: Joints as means of Anny's bone heads, `(24, B)`.
        weights: Skinning weights, `(V, 24)`.
        bind: Rotation of each joint from Anny's rest pose to the T pose, `(24, 3, 3)`.
    """

    joint_of: Tensor
    heads: Tensor
    weights: Tensor
    bind: Tensor


def load_anny() -> Any:
    """Build Anny's default adult rig on its default mesh, without the tongue.

    Raises:
        InputError: If `anny` is not installed.
    """
    try:
        import anny
    except ImportError as error:
        raise InputError("distilling needs Anny: pip install 'propose_prob[body]'") from error
    return anny.Anny(rig="anny", topology="anny-notongue")


def _bones() -> dict[str, str]:
    """Map the joints that start a chain to Anny's bones."""
    sides = {f"{side}_{joint}": f"{bone}.{side}" for side in "LR" for joint, bone in _LIMBS.items()}
    return {**_MIDLINE, **sides}


def merge_rig(model: Any) -> Rig:
    """Merge Anny's bones to SMPL's joints.

    The toes move as one about the mean of their bases. Fingers are rigid with the wrist, so that
    L_Hand and R_Hand, three quarters of the way to the knuckles, move nothing.
    """
    labels, names = list(model.bone_labels), SMPL_24.joint_names
    starts = {labels.index(bone): names.index(joint) for joint, bone in _bones().items()}
    for side in "LR":
        toes = [labels.index(f"{toe}.{side}") for toe in _TOES]
        starts |= dict.fromkeys(toes, names.index(f"{side}_Foot"))
    joint_of: list[int] = []
    for index, parent in enumerate(model.bone_parents):
        joint_of.append(starts[index] if index in starts else joint_of[parent])

    heads = torch.zeros(len(names), len(labels), dtype=torch.float64)
    for joint, bone in _bones().items():
        heads[names.index(joint), labels.index(bone)] = 1.0
    for side in "LR":
        hand = names.index(f"{side}_Hand")
        heads[hand, labels.index(f"wrist.{side}")] = 0.25
        for knuckle in _KNUCKLES:
            heads[hand, labels.index(f"{knuckle}.{side}")] = 0.75 / len(_KNUCKLES)
        for toe in _TOES:
            heads[names.index(f"{side}_Foot"), labels.index(f"{toe}.{side}")] = 1 / len(_TOES)

    carrier = torch.tensor(joint_of)
    weights = torch.zeros(len(model.template_vertices), len(names), dtype=torch.float64)
    weights.scatter_add_(1, carrier[model.vertex_bone_indices], model.vertex_bone_weights.double())
    weights = weights / weights.sum(dim=-1, keepdim=True)
    rig = Rig(carrier, heads, weights, torch.eye(3, dtype=torch.float64).repeat(len(names), 1, 1))
    _, joints = rest_bodies(model, rig, {"age": torch.tensor([0.8], dtype=torch.float64)})
    return rig._replace(bind=_bind(joints[0]))


def rest_bodies(model: Any, rig: Rig, phenotypes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Give vertices and joints of bodies in Anny's rest pose.

    Args:
        model: What `load_anny` gave.
        rig: What `merge_rig` gave.
        phenotypes: Anny's phenotype parameters, each `(N,)`, between 0 and 1.

    Returns:
        Vertices `(N, V, 3)` and joints `(N, 24, 3)`, meters, y up, facing +z, the pelvis at the
        origin.
    """
    output = model(phenotype_kwargs=phenotypes)
    axes = torch.tensor(_AXES, dtype=torch.float64)
    joints = rig.heads @ output["rest_bone_heads"].double() @ axes.mT
    vertices = output["rest_vertices"].double() @ axes.mT
    return vertices - joints[:, :1], joints - joints[:, :1]


def _frame(along: Tensor, normal: Tensor) -> Tensor:
    """Columns: a unit vector along the limb, one of its plane's normal, and their product."""
    along = along / along.norm()
    normal = normal - (normal @ along) * along
    normal = normal / normal.norm()
    return torch.stack([along, normal, torch.linalg.cross(along, normal)], dim=-1)


def _bind(joints: Tensor) -> Tensor:
    """Rotate an average body's arms and legs so that they point where `SkeletonBody`'s do.

    Upper arm and forearm unbend about the elbow's own hinge, which ends vertical; the palms, which
    lie in the plane of that hinge in Anny's rest pose, end facing down.
    """
    count = SMPL_24.num_joints
    identity = torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)
    target = SkeletonBody()(identity).joints
    up = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    ahead = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    bind = identity.clone()
    for side, sign in (("L", 1.0), ("R", -1.0)):
        hip, knee, ankle, collar, shoulder, elbow, wrist, hand = (
            SMPL_24.index(f"{side}_{joint}") for joint in (*_LIMBS, "Hand")
        )
        angle = math.radians(sign * _CLAVICLE_RISE)
        cos, sin = math.cos(angle), math.sin(angle)
        bind[collar, :2, :2] = bind.new_tensor([[cos, -sin], [sin, cos]])
        forearm, upper_arm = joints[wrist] - joints[elbow], joints[elbow] - joints[shoulder]
        hinge = sign * torch.linalg.cross(forearm, upper_arm)
        for start, end, normal, goal in (
            (hip, knee, ahead, ahead),
            (knee, ankle, ahead, ahead),
            (shoulder, elbow, hinge, up),
            (elbow, wrist, hinge, up),
            (wrist, hand, hinge, up),
        ):
            from_rest = _frame(joints[end] - joints[start], normal)
            bind[start] = _frame(target[end] - target[start], goal) @ from_rest.mT
        bind[hand] = bind[wrist]
    return bind


def sample_adults(model: Any, rig: Rig, count: int, *, seed: int) -> dict[str, Tensor]:
    """Draw phenotypes of adults, broadly.

    Age is uniform from Anny's young (25) to old, gender mostly near its ends, muscle, weight and
    proportions normal about the middle and clipped to Anny's range. The height parameter is solved
    for a normal stature, in which Anny is linear.

    Returns:
        Anny's phenotype parameters, each `(count,)`.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform() -> Tensor:
        return torch.rand(count, generator=generator, dtype=torch.float64)

    def normal() -> Tensor:
        return torch.randn(count, generator=generator, dtype=torch.float64)

    adults = {"age": 2 / 3 + uniform() / 3}
    # The arcsine distribution: two thirds of its mass lie in the outer quarters.
    adults["gender"] = torch.sin(torch.pi / 2 * uniform()) ** 2
    for name in ("muscle", "weight", "proportions"):
        adults[name] = (0.5 + 0.2 * normal()).clamp(0.0, 1.0)
    (tall, small), spread = _STATURE
    stature = tall + (small - tall) * adults["gender"] + spread * normal()
    ends = []
    for value in (0.0, 1.0):
        adults["height"] = torch.full_like(stature, value)
        parts = [
            (vertices[..., 1].amax(-1) - vertices[..., 1].amin(-1))
            for vertices, _ in _batches(model, rig, adults)
        ]
        ends.append(torch.cat(parts))
    adults["height"] = ((stature - ends[0]) / (ends[1] - ends[0])).clamp(0.0, 1.0)
    return adults


def _batches(
    model: Any, rig: Rig, phenotypes: dict[str, Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give `rest_bodies` a few at a time: all at once would take gigabytes."""
    count = len(phenotypes["age"])
    for start in range(0, count, _BATCH):
        part = {name: value[start : start + _BATCH] for name, value in phenotypes.items()}
        yield rest_bodies(model, rig, part)


def _areas(vertices: Tensor, faces: Tensor) -> Tensor:
    """Give each vertex a third of its triangles' areas, `(V,)`."""
    a, b, c = vertices[faces].unbind(dim=-2)
    thirds = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 6
    areas = torch.zeros(len(vertices), dtype=vertices.dtype)
    return areas.index_add(0, faces.flatten(), thirds.repeat_interleave(3))


def _components(model: Any, rig: Rig, count: int) -> dict[str, Tensor]:
    """Give the mean body and its standardized principal components, surface weighted by area.

    A component's sign is such that it makes the body taller.
    """
    adults = sample_adults(model, rig, _SAMPLES, seed=0)
    drawn = list(_batches(model, rig, adults))
    vertices = torch.cat([v.float() for v, _ in drawn])
    joints = torch.cat([j for _, j in drawn])
    template, rest_joints = vertices.double().mean(dim=0), joints.mean(dim=0)
    vertices = vertices - template.float()
    joints = joints - rest_joints
    share = _areas(template, model.faces)
    weighted = (vertices * share.sqrt().float().unsqueeze(-1)).flatten(1).double()
    variances, scores = torch.linalg.eigh(weighted @ weighted.T)
    # Unit-variance scores (samples, count), the largest component first.
    scores = scores[:, -count:].flip(-1) * _SAMPLES**0.5
    directions = torch.einsum("nvd,ns->vds", vertices, scores.float()).double() / _SAMPLES
    joint_directions = torch.einsum("nkd,ns->kds", joints, scores) / _SAMPLES
    top, sole = template[:, 1].argmax(), template[:, 1].argmin()
    signs = torch.sign(directions[top, 1] - directions[sole, 1])
    print(
        "variance explained by each component, %:",
        [round(100 * float(v), 2) for v in variances.flip(0)[:count] / variances.sum()],
    )
    return {
        "template": template,
        "shape_directions": directions * signs,
        "joints": rest_joints,
        "joint_directions": joint_directions * signs,
    }


def _landmarks(model: Any, template: Tensor) -> dict[str, int]:
    """Find the vertex of each meaning that no joint has, on the average body."""
    labels = list(model.bone_labels)
    x, y, z = template.unbind(dim=-1)

    def of(bone: str) -> Tensor:
        share = model.vertex_bone_weights * (model.vertex_bone_indices == labels.index(bone))
        return share.sum(dim=-1) > 0.5

    def most(score: Tensor, among: Tensor) -> int:
        return int(torch.where(among, score, -torch.inf).argmax())

    found = {"head_top": int(y.argmax())}
    for side, name, sign in (("L", "left", 1.0), ("R", "right", -1.0)):
        eye = found[f"{name}_eye"] = most(z, of(f"eye.{side}"))
        level = (y < y[eye] - 0.02) & (y > y[eye] - 0.05) & of("head")
        found[f"{name}_ear"] = most(sign * x, level & (z < z[eye] - 0.05))
        found[f"{name}_heel"] = most(-z, of(f"foot.{side}") & (y < y.min() + 0.04))
        found[f"{name}_big_toe"] = most(z, of(f"toe1-2.{side}"))
        found[f"{name}_small_toe"] = most(z, of(f"toe5-3.{side}"))
        found["nose"] = most(z, level & (x.abs() < 0.01))
    return found


def _regressors(landmarks: Iterable[str], joints: Tensor) -> dict[str, Tensor]:
    """Give each joint set as weights of the 24 joints and the landmarks, `(J, 24 + L)`.

    As in `SkeletonBody`, Human3.6M's Thorax is the base of the neck, and its Spine and Head lie
    where CMU motion capture has them: two fifths of the way from the middle of the hips to the base
    of the neck, and two thirds of the way from the base of the skull to its top.
    """
    names = [*SMPL_24.meanings, *landmarks]
    identity = torch.eye(len(names), dtype=torch.float64)
    rows = {meaning: identity[j] for j, meaning in enumerate(names) if meaning is not None}
    for meaning, parts in DERIVED.items():
        rows[meaning] = torch.stack([rows[part] for part in parts]).mean(dim=0)
    height = dict(zip(SMPL_24.joint_names, joints[:, 1].tolist(), strict=True))
    goal = 0.6 * (height["L_Hip"] + height["R_Hip"]) / 2 + 0.4 * height["Neck"]
    share = (goal - height["Spine1"]) / (height["Spine2"] - height["Spine1"])
    special = {
        "mid_spine": torch.lerp(
            identity[SMPL_24.index("Spine1")], identity[SMPL_24.index("Spine2")], share
        ),
        "thorax": identity[SMPL_24.index("Neck")],
        "head_top": rows["skull_base"] / 3 + 2 * rows["head_top"] / 3,
    }
    sets = {}
    for name in REGRESSORS:
        known = {**rows, **special} if name == H36M_17.name else rows
        meanings = [str(meaning) for meaning in get_skeleton(name).meanings]
        sets[name] = torch.stack([known[meaning] for meaning in meanings])
    return sets


def distil(count: int = 10) -> dict[str, Tensor]:
    """Give the open body's numbers, ready to store.

    Args:
        count: How many principal components of shape to keep, S.

    Returns:
        In Anny's rest pose: `template` `(V, 3)`, `shape_directions` `(V, 3, S)`, `joints` `(24,
        3)`, `joint_directions` `(24, 3, S)`, meters, the pelvis at the origin. `bind` `(24, 3, 3)`
        rotates each joint to the T pose. `skin_joints` and `skin_weights` `(V, M)`; `faces` `(F,
        3)`; `landmarks` `(L,)`, vertices; `regressor.NAME` `(J, 24 + L)`, weights of the joints and
        the landmarks.

    Raises:
        InputError: If `anny` is not installed.
    """
    model = load_anny()
    rig = merge_rig(model)
    shape = _components(model, rig, count)
    weights, order = rig.weights.sort(dim=-1, descending=True, stable=True)
    most = int((weights > 0).sum(dim=-1).max())
    landmarks = _landmarks(model, shape["template"])
    regressors = _regressors(landmarks, shape["joints"])
    return {
        "template": shape["template"].float(),
        "shape_directions": shape["shape_directions"].half(),
        "joints": shape["joints"].float(),
        "joint_directions": shape["joint_directions"].float(),
        "bind": rig.bind.float(),
        "skin_joints": order[:, :most].to(torch.uint8),
        "skin_weights": weights[:, :most].float(),
        "faces": model.faces.to(torch.int16),
        "landmarks": torch.tensor(list(landmarks.values()), dtype=torch.int32),
        **{f"regressor.{name}": matrix.float() for name, matrix in regressors.items()},
    }


def main(out: Path) -> None:
    """Distil the open body and write it to `out`, a safetensors file."""
    from safetensors.torch import save

    tensors = {name: value.contiguous() for name, value in distil().items()}
    metadata = {
        "source": f"anny {version('anny')}",
        "license": "Apache-2.0 (Anny); CC0-1.0 (MakeHuman assets)",
    }
    write_bytes(out, save(tensors, metadata))
    print(f"{out}: {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Distil the open mesh body from Anny.")
    parser.add_argument("out", type=Path, help="safetensors file to write")
    main(parser.parse_args().out)
