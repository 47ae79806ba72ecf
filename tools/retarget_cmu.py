"""Retargets CMU motion capture to a body with SMPL's 24 joints and packs it to ship.

Run once, by hand: `python -m tools.retarget_cmu SHARED_DATA OUTPUT_FOLDER`.

1. *Map*: each SMPL joint takes the world rotation of the CMU bone that it stands for, times one
   constant rotation of that joint, which carries SMPL's rest direction into CMU's.
2. *Calibrate*, once for each performer: the constants and the body's shape that bring the
   Human3.6M joints closest to the motion capture's over frames spread out by their pose.
3. *Refine*, each frame for itself: Gauss-Newton over the joints' rotations and the translation,
   with a Gaussian prior on the map. What the joints do not show (twist of limbs, hands, feet)
   stays as the performer moved; and since the map is continuous in time, so is the result.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from propose_prob.bodies import Body, SkeletonBody
from propose_prob.datasets.cmu17 import SPLITS
from propose_prob.datasets.cmu_body import PERFORMERS, pack_cmu_body
from propose_prob.geometry.rotations import axis_angle_from_matrix, matrix_from_axis_angle
from propose_prob.geometry.skeletons import SMPL_24

__all__ = ["Calibration", "calibrate", "map_rotations", "refine", "retarget_folder"]

#: The CMU bone that turns each SMPL joint. A bone's rotation acts at its start.
_SOURCE = {
    "Pelvis": "root",
    "L_Hip": "lfemur",
    "R_Hip": "rfemur",
    "Spine1": "lowerback",
    "L_Knee": "ltibia",
    "R_Knee": "rtibia",
    "Spine2": "upperback",
    "L_Ankle": "lfoot",
    "R_Ankle": "rfoot",
    "Spine3": "thorax",
    "L_Foot": "ltoes",
    "R_Foot": "rtoes",
    "Neck": "upperneck",
    "L_Collar": "lclavicle",
    "R_Collar": "rclavicle",
    "Head": "head",
    "L_Shoulder": "lhumerus",
    "R_Shoulder": "rhumerus",
    "L_Elbow": "lradius",
    "R_Elbow": "rradius",
    "L_Wrist": "lhand",
    "R_Wrist": "rhand",
}

_FOREARMS = (("L_Elbow", "lwrist"), ("R_Elbow", "rwrist"))
_TWIST_CUT = 4 * torch.pi / 3
_WRIST_LIMIT = torch.pi / 2

#: CMU's rest pose spreads each leg by 20 degrees; SMPL's legs hang straight down.
_SPREAD = {
    name: sign * 20.0
    for side, sign in (("L", 1.0), ("R", -1.0))
    for name in (f"{side}_Hip", f"{side}_Knee", f"{side}_Ankle", f"{side}_Foot")
}

#: From CMU's axes (y up) to CMU17's (z up).
_Z_UP = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))

_JOINT_SD = 0.010  # meters
_MAP_SD = 0.10  # radians
_CONSTANT_SD = 0.15  # radians
_FREE = 22  # The hands, which carry no joints, stay at rest.


@dataclass(frozen=True)
class Calibration:
    """What one performer's frames share.

    Attributes:
        constants: Rotation of each joint against the CMU bone's, axis-angle `(22, 3)`, radians.
        shape: Shape of the body `(S,)`, standardized.
    """

    constants: Tensor
    shape: Tensor


def map_rotations(rotations: Tensor, names: list[str], parents: list[int]) -> Tensor:
    """Gives each SMPL joint the world rotation of its CMU bone, z up.

    The forearm's twist, which CMU has in a bone of its own, is shared by halves between elbow and
    wrist: a mesh skinned to the joints would otherwise wring at one of them.

    Args:
        rotations: Local rotations of the CMU bones, axis-angle `(N, 31, 3)`.
        names: The bones' names.
        parents: Index of each bone's parent, before the bone itself; -1 for the root.

    Returns:
        World rotations `(N, 22, 3, 3)` of the joints before the hands, which are
        z-up times the identity in CMU's rest pose.
    """
    local = matrix_from_axis_angle(rotations)
    world: list[Tensor] = []
    for index, parent in enumerate(parents):
        turn = local[:, index]
        world.append(local.new_tensor(_Z_UP) @ turn if parent < 0 else world[parent] @ turn)
    mapped = [world[names.index(_SOURCE[joint])] for joint in SMPL_24.joint_names[:_FREE]]
    for elbow, wrist in _FOREARMS:
        twist = rotations[:, names.index(wrist)].clone()  # About x alone.
        # Forearms turn from palm down (0) to palm up (-pi), so the branch is cut far from both.
        twist[:, 0] = torch.remainder(twist[:, 0] + _TWIST_CUT, 2 * torch.pi) - _TWIST_CUT
        joint = SMPL_24.index(elbow)
        mapped[joint] = mapped[joint] @ matrix_from_axis_angle(twist / 2)
    return torch.stack(mapped, dim=1)


def _locals(world: Tensor) -> Tensor:
    """Local rotations `(N, 24, 3, 3)` of the first 22 joints' world rotations; hands at rest."""
    parents = list(SMPL_24.parents[1:_FREE])
    local = world[:, parents].mT @ world[:, 1:]
    hands = torch.eye(3, dtype=world.dtype).expand(len(world), 24 - _FREE, 3, 3)
    return torch.cat([world[:, :1], local, hands], dim=1)


def _rest_constants() -> Tensor:
    angles = [_SPREAD.get(name, 0.0) for name in SMPL_24.joint_names[:_FREE]]
    degrees = torch.tensor([[0.0, 0.0, angle] for angle in angles], dtype=torch.float64)
    return degrees.deg2rad()


def _spread_out(mapped: Tensor, count: int) -> Tensor:
    """Picks frames by farthest-point sampling, so that half an hour of walking counts once."""
    features = _locals(mapped)[:, 1:_FREE].flatten(1)
    picked = [0]
    distance = (features - features[0]).square().sum(-1)
    while len(picked) < min(count, len(features)):
        picked.append(int(distance.argmax()))
        distance = torch.minimum(distance, (features - features[picked[-1]]).square().sum(-1))
    return torch.tensor(picked)


def _symmetric(axis_angle: Tensor) -> Tensor:
    """Makes left and right mirror images; else a bent spine and uneven shoulders may cancel out."""
    other = list(SMPL_24.mirror[:_FREE])
    return (axis_angle + axis_angle[other] * axis_angle.new_tensor([1.0, -1.0, -1.0])) / 2


def calibrate(body: Body, mapped: Tensor, joints: Tensor, *, count: int = 200) -> Calibration:
    """Fits one performer's constant rotations and shape to the motion capture.

    Args:
        body: The body, in float64.
        mapped: World rotations of the joints `(N, 22, 3, 3)` from `map_rotations`.
        joints: The performer's Human3.6M joints `(N, 17, 3)`, meters, z up.
        count: Number of frames to fit.

    Returns:
        The maximum a posteriori under N(0, I) on the shape and a standard deviation of 0.15 rad on
        the constants, left and right alike, around the rest poses' difference.
    """
    chosen = _spread_out(mapped, count)
    mapped, joints = mapped[chosen], joints[chosen]
    rest = _rest_constants()
    change = torch.zeros_like(rest, requires_grad=True)
    shape = torch.zeros(body.num_shape, dtype=rest.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [change, shape], max_iter=200, history_size=30, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        turns = matrix_from_axis_angle(rest + _symmetric(change))
        found = body.regress(body(_locals(mapped @ turns), shape))
        error = found - joints
        error = error - error.mean(dim=1, keepdim=True)
        # All frames count as one: they repeat the same proportions, which no body fits exactly.
        data = (error / _JOINT_SD).square().sum() / len(joints)
        total = data + (change / _CONSTANT_SD).square().sum() + shape.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return Calibration((rest + _symmetric(change)).detach(), shape.detach())


def refine(
    body: Body, mapped: Tensor, joints: Tensor, calibration: Calibration, *, steps: int = 3
) -> tuple[Tensor, Tensor]:
    """Moves each frame's rotations towards the motion capture, tied to the map by a prior.

    Args:
        body: The body, in float64, whose Human3.6M joints are rigid parts of its bones.
        mapped: World rotations of the joints `(N, 22, 3, 3)` from `map_rotations`.
        joints: Human3.6M joints `(N, 17, 3)`, meters, z up.
        calibration: The performer's.
        steps: Gauss-Newton steps.

    Returns:
        Local rotations `(N, 24, 3, 3)` and translation `(N, 3)`, meters.
    """
    levers, place = _levers(body, calibration.shape)
    thetas, translations = [], []
    for some, target in zip(mapped.split(1000), joints.split(1000), strict=True):
        start = some @ matrix_from_axis_angle(calibration.constants)
        world = start
        for _ in range(steps):
            world = _step(world, start, target, levers)
        found = place + torch.einsum("njab,ijb->nia", world, levers)
        thetas.append(_locals(world))
        translations.append((target - found).mean(dim=1))
    return _limit_wrists(torch.cat(thetas)), torch.cat(translations)


def _limit_wrists(theta: Tensor) -> Tensor:
    """Shortens turns of the wrists beyond a right angle: there the hand's markers were confused."""
    wrists = [SMPL_24.index("L_Wrist"), SMPL_24.index("R_Wrist")]
    turn = axis_angle_from_matrix(theta[:, wrists])
    angle = turn.norm(dim=-1, keepdim=True)
    theta = theta.clone()
    theta[:, wrists] = matrix_from_axis_angle(turn * (_WRIST_LIMIT / angle).clamp(max=1))
    return theta


def _levers(body: Body, shape: Tensor) -> tuple[Tensor, Tensor]:
    """Gives `v (17, 22, 3)` and `c (3,)` of `joint_i = c + sum_j G_j v_ij`, G world rotations.

    Any rigid part of a jointed body is such a sum; turning one bone of the T pose shows its lever.
    """

    def turned(turn: Tensor) -> Tensor:
        x, y, z = turn.unbind(-1)
        zero = torch.zeros_like(x)
        skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
        world = torch.eye(3, dtype=turn.dtype) + skew
        return body.regress(body(_locals(world[None])[0], shape))

    rest = torch.zeros(_FREE, 3, dtype=shape.dtype)
    slopes = torch.autograd.functional.jacobian(turned, rest)
    # Column b of a slope is e_b x v.
    levers = torch.stack([slopes[:, 1, :, 2], slopes[:, 2, :, 0], slopes[:, 0, :, 1]], dim=-1)
    return levers, turned(rest)[0] - levers[0].sum(dim=0)


def _step(world: Tensor, start: Tensor, target: Tensor, levers: Tensor) -> Tensor:
    """One Gauss-Newton step of the world rotations `(N, 22, 3, 3)`, each turned in its own axes."""
    count, free = len(world), 3 * _FREE
    found = torch.einsum("njab,ijb->nia", world, levers)
    # The best translation is the mean error: projecting it out leaves the rotations alone.
    error = (target - found) - (target - found).mean(dim=1, keepdim=True)
    x, y, z = levers.unbind(-1)
    zero = torch.zeros_like(x)
    across = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], dim=-1).unflatten(-1, (3, 3))
    slopes = torch.einsum("njab,ijbc->niajc", world, across)
    slopes = slopes - slopes.mean(dim=1, keepdim=True)
    jacobian = slopes.reshape(count, -1, free)
    change = axis_angle_from_matrix(start.mT @ world).flatten(1)
    normal = jacobian.mT @ jacobian / _JOINT_SD**2
    normal.diagonal(dim1=-2, dim2=-1).add_(1 / _MAP_SD**2)
    pull = (jacobian.mT @ error.reshape(count, -1, 1)).squeeze(-1) / _JOINT_SD**2
    update = torch.linalg.solve(normal, pull - change / _MAP_SD**2)
    return world @ matrix_from_axis_angle(update.unflatten(-1, (_FREE, 3)))


def retarget_folder(source: Path, output: Path) -> None:
    """Retargets every split and writes `cmu_body_{split}.npz`; prints the errors.

    Args:
        source: Folder of `cmu17_rotations.npz` and `cmu17_{split}.npz`.
        output: Folder to write to.
    """
    body = SkeletonBody().double()
    with np.load(source / "cmu17_rotations.npz", allow_pickle=False) as full:
        data = {name: full[name] for name in full}
    names, parents = data["bone_names"].tolist(), data["bone_parents"].tolist()
    mapped: dict[str, Tensor] = {}
    joints: dict[str, Tensor] = {}
    performers: dict[str, Tensor] = {}
    for split in SPLITS:
        rotations = torch.from_numpy(data[f"{split}_rot"]).double()
        mapped[split] = map_rotations(rotations, names, parents)
        with np.load(source / f"cmu17_{split}.npz", allow_pickle=False) as full:
            joints[split] = torch.from_numpy(full["world"]).double()
        performers[split] = torch.from_numpy(data[f"{split}_skeleton"]).long()

    calibrations = []
    for performer, name in enumerate(PERFORMERS):
        own = {split: performers[split] == performer for split in SPLITS}
        found = calibrate(
            body,
            torch.cat([mapped[split][own[split]] for split in SPLITS]),
            torch.cat([joints[split][own[split]] for split in SPLITS]),
        )
        calibrations.append(found)
        print(f"performer {name}: shape {[round(s, 2) for s in found.shape.tolist()]}")

    for split in SPLITS:
        count = len(joints[split])
        theta, translation = torch.empty(count, 24, 3, 3).double(), torch.empty(count, 3).double()
        shapes = torch.stack([found.shape for found in calibrations])
        for performer, calibration in enumerate(calibrations):
            rows = performers[split] == performer
            if rows.any():
                theta[rows], translation[rows] = refine(
                    body, mapped[split][rows], joints[split][rows], calibration
                )
        pack_cmu_body(
            output / f"cmu_body_{split}.npz", theta, translation, shapes, performers[split]
        )
        landed = body.regress(body(theta, shapes[performers[split]], translation))
        error = 1000 * (landed - joints[split]).norm(dim=-1)
        worst = error.mean(dim=1).max()
        print(f"{split}: mean {error.mean():.1f} mm, worst frame {worst:.1f} mm; joints", end=" ")
        print(" ".join(f"{e:.0f}" for e in error.mean(dim=0).tolist()))


def main() -> None:
    """Retargets and packs every split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    retarget_folder(arguments.source, arguments.output)


if __name__ == "__main__":
    main()
