"""A disk that fills up: one clear error, and what was there before stays."""

import collections
import errno
import io
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from propose_prob.models import ProHMR, ProHMRConfig
from propose_prob.results import netcdf, open_writer
from propose_prob.weights import save

# A limit on the size of files stands in for a full disk: writes fail in the same place.
LIMITED = """
import resource, signal, sys
from pathlib import Path
import torch
from propose_prob.models import ProPose
from propose_prob.weights import save
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


# HDF5 writes late, and again as it closes: the limit meets it in different places.
STREAMED = """
import os, resource, sys
from pathlib import Path
import numpy as np
from propose_prob.results import open_writer
labels = {"frame": [*range(20)], "person": [0] * 20}

def write(path, limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit,) * 2)
    try:
        with open_writer(path, joint_names=["hip"] * 17) as writer:
            for _ in range(20):
                writer.append({"pose": np.random.rand(20, 10, 17, 3)}, labels)
            writer.finish({"note": "x" * 1000})
    except OSError as error:
        print(error.filename, error.strerror, flush=True)

# A limit cannot be taken back: each has a process of its own.
for path in sys.argv[1:]:
    child = os.fork()
    if not child:
        write(path, int(Path(path).parent.name))
        sys.exit()
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_netcdf_that_cannot_be_written_is_an_exception(tmp_path):
    paths = [tmp_path / str(limit) / "a.nc" for limit in (100, 3_000, 40_960, 300_000)]
    for path in paths:
        path.parent.mkdir()
        path.write_text("older")
    done = subprocess.run(
        [sys.executable, "-c", STREAMED, *map(str, paths)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"{path} File too large" for path in paths]
    for path in paths:
        assert [p.name for p in path.parent.iterdir()] == ["a.nc"] and path.read_text() == "older"


def test_netcdf_survives_an_interruption_within_hdf5(tmp_path, monkeypatch):
    """Signals wait until HDF5 is done: an exception in its write would be a failed write."""
    write = netcdf._Sink.write

    def interrupted(self, data):
        signal.raise_signal(signal.SIGINT)
        return write(self, data)

    with pytest.raises(KeyboardInterrupt):
        with open_writer(tmp_path / "a.nc", joint_names=["hip"]) as writer:
            monkeypatch.setattr(netcdf._Sink, "write", interrupted)
            writer.append(
                {"spread": np.ones((2000, 1))}, {"frame": [0] * 2000, "person": [0] * 2000}
            )
            writer.finish({})
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_the_disk_did_not_take_is_read_back():
    """HDF5 reads what it wrote before: it must not meet holes there."""

    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() + len(data) > 10:
                raise OSError(errno.ENOSPC, "full")
            return super().write(data)

    sink = netcdf._Sink(Full())
    assert sink.write(b"01234567") == 8 and sink.error is None
    assert sink.write(b"abcdefgh") == 8 and sink.error.errno == errno.ENOSPC
    sink.seek(6)
    sink.write(b"XY")
    sink.seek(0)
    assert sink.read() == b"012345XYabcdefgh" and sink.seek(0, 2) == 16
    buffer = bytearray(4)
    sink.seek(14)
    assert sink.readinto(buffer) == 2 and bytes(buffer[:2]) == b"gh"


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
@pytest.mark.parametrize("command", [["lift"], ["smooth", "--fps", "30"], ["fit"]])
def test_a_command_on_a_full_disk_is_one_line(tmp_path, command):
    pytest.importorskip("xarray")
    walk = 100 * np.random.default_rng(0).standard_normal((4, 17, 2)) + 500
    np.save(tmp_path / "walk.npy", walk)
    torch.manual_seed(0)
    body = ProHMRConfig(flow_width=16, width=16, context=16, couplings=1, blocks=1)
    save(ProHMR(body), tmp_path / "model.safetensors")
    before = sorted(path.name for path in tmp_path.iterdir())
    argv = [sys.executable, "-c", LIMITED_COMMAND, *command, "walk.npy", "--skeleton", "h36m_17"]
    argv += ["--model", "model.safetensors", "--out", "a.nc"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert done.stderr == "propose-prob: error: a.nc: File too large\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == before


LIMITED_COMMAND = """
import functools, resource, sys
from propose_prob.cli import main
from propose_prob.tasks import fitting
# What is written, not how well it fits.
fitting.fit = functools.partial(fitting.fit, max_steps=3)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
sys.exit(main())
"""
