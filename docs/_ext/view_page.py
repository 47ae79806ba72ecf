"""The interactive page of the documentation, made in the build as a user would make it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sphinx.application import Sphinx

import propose_prob
from propose_prob.geometry import H36M_17
from propose_prob.plotting import write_viewer
from propose_prob.results import open_writer, read_result

#: Every so many frames of one real sequence, and how many of them.
STEP, FRAMES, DRAWS = 3, 40, 40


def _write(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "_build" / "extra"
    page = folder / "view-example.html"
    if page.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    data = propose_prob.datasets.load_cmu17("test_seen")
    rows = (data.seq_id == data.seq_id[0]).nonzero()[:, 0][: STEP * FRAMES : STEP]
    p2d, truth = data.p2d("noisy")[rows, 0], data.p3d()[rows, 0]
    torch.manual_seed(0)
    with torch.no_grad():
        distribution = propose_prob.load("prohmr-lifting-cmu17").conditional(p2d)
        draws = distribution.sample((DRAWS,))
        log_prob = distribution.log_prob(draws)
    result = folder.parent / "view-example.npz"
    with open_writer(result, joint_names=H36M_17.joint_names) as writer:
        writer.append(
            {
                "pose": draws.movedim(0, 1).numpy(),
                "lp": log_prob.T.numpy(),
                "point_estimate": distribution.point_estimate.numpy(),
                "spread": (draws - draws.mean(0)).square().sum(-1).mean(0).sqrt().numpy(),
                "keypoints": p2d.numpy(),
            },
            {"frame": data.source_frame[rows].tolist(), "person": ["0"] * len(rows)},
        )
        writer.finish({"model": "prohmr-lifting-cmu17", "protocol": "noisy 2D of CMU17 test_seen"})
    write_viewer(
        page,
        read_result(result),
        H36M_17,
        title="Jumps on a playground from noisy keypoints: hypotheses and the truth",
        samples=DRAWS,
        truth=truth.numpy().astype(np.float64),
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Writes the page before anything is read."""
    app.connect("builder-inited", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
