"""Packs the CMU17 benchmark files into the small arrays that ship with the package.

Run once, by hand: `python -m tools.pack_cmu17 SOURCE_FOLDER OUTPUT_FOLDER`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from propose_prob.datasets.cmu17 import _METER, _PARENTS, _PIXEL, FOCAL, SPLITS, _split_planes
from propose_prob.io.atomic import atomic_file


def pack_split(source: Path, output: Path, split: str) -> None:
    """Writes `cmu17_{split}.npz`: joint offsets to 0.1 mm and 2D noise to 0.25 px.

    Args:
        source: Folder of the full files `cmu17_{split}.npz` and `cmu17_sequences.npz`.
        output: Folder to write to.
        split: One of `SPLITS`.
    """
    with np.load(source / f"cmu17_{split}.npz", allow_pickle=False) as full:
        data = {name: full[name] for name in full}
    with np.load(source / "cmu17_sequences.npz", allow_pickle=False) as full:
        actions = np.array(
            [a or f"{a}#{c}" for a, c in zip(full["action"], full["clip"], strict=True)]
        )
    world = np.rint(data["world"].astype(np.float64) / _METER).astype(np.int64)
    offsets = world.copy()
    offsets[:, 1:] -= world[:, list(_PARENTS[1:])]
    arrays = {
        "offsets": _split_planes(offsets.reshape(len(offsets), -1).T.astype(np.int16)),
        "cam_R": data["cam_R"],
        "cam_t": data["cam_t"],
        "rig_id": data["rig_id"].astype(np.int16),
        "seq_id": data["seq_id"].astype(np.int16),
        "source_frame": data["source_frame"].astype(np.int16),
        "actions": actions,
    }
    if split != "train":
        joints = np.einsum("nvij,nkj->nvki", data["cam_R"][data["rig_id"]], data["world"])
        joints = joints + data["cam_t"][data["rig_id"]][:, :, None]
        exact = joints[..., :2] / joints[..., 2:] * FOCAL
        noise = np.rint((data["uv_noisy"] - exact) * 500 / _PIXEL).astype(np.int16)
        arrays["noise"] = _split_planes(noise)
    with atomic_file(output / f"cmu17_{split}.npz") as file:
        np.savez_compressed(file, **arrays)


def main() -> None:
    """Packs every split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    for split in SPLITS:
        pack_split(arguments.source, arguments.output, split)


if __name__ == "__main__":
    main()
