import numpy as np
import torch
from scipy.spatial.transform import Rotation

from propose_prob.evaluation.bones import bone_lengths, bone_pairs, bone_symmetry, bone_variation
from propose_prob.geometry.skeletons import COCO_17, H36M_17


def test_lengths_equal_numpy():
    pose = torch.randn(5, 17, 3, dtype=torch.float64)
    expected = [np.linalg.norm(pose[:, c] - pose[:, p], axis=-1) for c, p in H36M_17.bones]
    np.testing.assert_allclose(bone_lengths(pose, H36M_17.bones), np.stack(expected, -1))


def test_pairs_are_mirror_images_once_each():
    for skeleton in (H36M_17, COCO_17):
        pairs = bone_pairs(skeleton)
        bones = set(skeleton.bones)
        assert all(a in bones and b in bones and a != b for a, b in pairs)
        assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    names = H36M_17.joint_names
    assert ("RKnee", "LKnee") in {(names[a[0]], names[b[0]]) for a, b in bone_pairs(H36M_17)}


def test_symmetry_and_variation():
    pose = torch.randn(17, 3, dtype=torch.float64)
    mirrored = pose[list(H36M_17.mirror)] * torch.tensor([-1.0, 1.0, 1.0])
    # Middle joints on the plane: the average of a pose and its mirror image is symmetric.
    both = (pose + mirrored) / 2
    pairs = bone_pairs(H36M_17)
    assert bone_symmetry(both, pairs) < 1e-12 < bone_symmetry(pose, pairs)
    longer = both.clone()
    wrist = H36M_17.index("LWrist")
    bone = longer[wrist] - longer[H36M_17.index("LElbow")]
    longer[wrist] += 0.6 * bone / bone.norm()
    torch.testing.assert_close(bone_symmetry(longer, pairs), torch.tensor(0.1).double())

    turns = torch.from_numpy(Rotation.random(20, random_state=0).as_matrix())
    samples = torch.einsum("sij,kj->ski", turns, pose)
    assert bone_variation(samples, H36M_17.bones) < 1e-12
    sizes = torch.tensor([0.9, 1.1]).double()[:, None, None] * pose
    expected = 0.1 * bone_lengths(pose, H36M_17.bones).mean()
    torch.testing.assert_close(bone_variation(sizes, H36M_17.bones), expected)
