"""A disk that fills up: one clear error, and what was there before stays."""

import collections
import errno
import shutil
import subprocess
import sys

import numpy as np
import pytest

from propose_prob.inference import open_writer

# A limit on the size of files stands in for a full disk: writes fail in the same place.
LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from propose_prob import ProPose, save
from propose_prob.training.checkpoint import read_checkpoint, write_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder = Path(sys.argv[1])
small = {"format": "propose_prob.checkpoint/1", "x": torch.ones(2)}
write_checkpoint(small, folder / "checkpoint.pt")
(folder / "model").write_text("older")
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for write in (
    lambda: write_checkpoint(small | {"x": torch.ones(100_000)}, folder / "checkpoint.pt"),
    lambda: save(ProPose(), folder / "model"),
):
    try:
        write()
    except OSError as error:
        print(error.filename, error.strerror)
print(read_checkpoint(folder / "checkpoint.pt")["x"].tolist(), (folder / "model").read_text())
print(sorted(path.name for path in folder.iterdir()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_checkpoints_and_weights(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], check=True, capture_output=True, text=True
    )
    checkpoint, model, kept, left = done.stdout.splitlines()
    assert "checkpoint.pt cannot be written whole" in checkpoint and "is kept" in checkpoint
    assert "model cannot be written whole" in model
    assert kept == "[1.0, 1.0] older"
    assert left == "['checkpoint.pt', 'model']"


@pytest.mark.parametrize("name", ["a.nc", "a.npz"])
def test_results(tmp_path, monkeypatch, name):
    (tmp_path / name).write_text("older")
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2, 1, 1))
    with pytest.raises(OSError, match="No space left") as caught:
        with open_writer(tmp_path / name, joint_names=["hip"]) as writer:
            writer.append({"spread": np.ones((1, 1))}, {"frame": [0], "person": [0]})
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "older"
