"""One model trained by two processes, as `torchrun` starts them."""

import csv
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from propose_prob.cli.train import train_command
from propose_prob.datasets.cmu17 import load_cmu17
from propose_prob.errors import InputError
from propose_prob.models import LiftingFlow
from propose_prob.training.checkpoint import read_checkpoint
from propose_prob.training.configs import LiftingTrainConfig
from propose_prob.training.parallel import Processes, _rows, launched, process_group
from propose_prob.training.simulation import Simulator
from propose_prob.training.trainers import LiftingTrainer, Pairs
from propose_prob.weights import load

#: Without dropout and without drawn noise, processes change nothing but the order of sums.
CONFIG = {
    "steps": 8,
    "batch_size": 8,
    "validate": 4,
    "model": {
        "width": 16, "blocks": 1, "flow_width": 8, "couplings": 2, "context": 8, "dropout": 0.0,
    },
    "loss": {"nll": 0.0, "mode": 1.0, "energy": 0.0},
}  # fmt: skip


def _command(folder, out, **more):
    world = folder / "world.npz"
    return train_command("lifting")(
        folder / out, data=str(world), validation=world, config=folder / "config.json", **more
    )


def _train_in_two(folder, out):
    """As a user starts it; the launcher's own workers die with it."""
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    argv += ["-m", "propose_prob", "train", "lifting", "--out", str(folder / out)]
    argv += ["--data", str(folder / "world.npz"), "--validation", str(folder / "world.npz")]
    argv += ["--config", str(folder / "config.json")]
    done = subprocess.run(
        argv,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode()


def _log(folder):
    with (folder / "log.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_two_processes_train_as_one_does_and_go_on_from_each_others_checkpoints(tmp_path):
    np.savez(tmp_path / "world.npz", world=load_cmu17("val").world[::200].numpy())
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    _command(tmp_path, "one").run()
    _train_in_two(tmp_path, "two")
    one, two = _log(tmp_path / "one"), _log(tmp_path / "two")
    assert [row["step"] for row in one] == [row["step"] for row in two] == [4, 8]
    for ours, theirs in zip(one, two, strict=True):
        for name in ("mode", "val_point_mm"):
            assert theirs[name] == pytest.approx(ours[name], rel=1e-4), name
    ours, theirs = (read_checkpoint(tmp_path / x / "checkpoint.pt") for x in ("one", "two"))
    assert ours.keys() == theirs.keys()
    for name, value in ours["parts"]["model"].items():
        torch.testing.assert_close(theirs["parts"]["model"][name], value, rtol=1e-3, atol=1e-5)
    # What two processes wrote, one reads.
    _command(tmp_path, "two", resume=True).run()
    load(tmp_path / "two" / "model.safetensors")


#: Each kind of trainer, every loss in use: some move a part of the parameters, and some are random.
TRAINERS = """
import torch
from propose_prob.configuration import from_dict
from propose_prob.datasets import load_cmu17, load_cmu_body
from propose_prob.models.registry import REGISTRY
from propose_prob.training.parallel import process_group
from propose_prob.training.simulation import BodySimulator, Simulator

SMALL = {"width": 16, "blocks": 1, "flow_width": 8, "couplings": 2}
CASES = {
    "propose": [
        {"schedule": schedule, "phase1": 2, "phase2": 2, "loss": {"adversarial": 0.1, "gate": 0.0},
         "model": {**SMALL, "decoder_width": 8, "code": 8, "latent": 6}}
        for schedule in ("alternate", "end_to_end")
    ],
    "cvae": [{"model": {"width": 16, "blocks": 1, "decoder_width": 8, "context": 8, "latent": 4}}],
    "prohmr": [{"loss": {"adversarial": 0.1}, "only_2d": 0.5, "model": {**SMALL, "context": 8}}],
}
theta = load_cmu_body("val").theta[::400]
SOURCES = {
    "joints": lambda: Simulator(load_cmu17("val").world[::400]),
    "bodies": lambda: BodySimulator(theta, torch.zeros(len(theta), 10)),
}
with process_group("cpu"):
    for name, cases in CASES.items():
        for case in cases:
            entry = REGISTRY[name]
            config = from_dict({"batch_size": 8, **case}, default=entry.run())
            # Models that begin apart, until they are aligned.
            torch.manual_seed(torch.distributed.get_rank())
            trainer = entry.trainer(entry.model(config.model), config, SOURCES[entry.data]())
            modules = [p for p in trainer.parts().values() if isinstance(p, torch.nn.Module)]
            begun = [p.clone() for module in modules for p in module.parameters()]
            trainer.processes.align(*modules)
            with trainer.shared():
                for _ in range(2):
                    for update in trainer.updates():
                        losses = update()
            whole = torch.cat([p.detach().flatten() for m in modules for p in m.parameters()])
            other = whole.clone()
            torch.distributed.broadcast(other, 0)
            assert torch.equal(whole, other), (name, case)
            numbers = torch.tensor(list(losses.values()))
            first = numbers.clone()
            torch.distributed.broadcast(first, 0)
            rank = torch.distributed.get_rank()
            assert rank == 0 or not torch.equal(numbers, first), (name, case)
            moved = [not torch.equal(a, p) for a, p in zip(
                begun, (p for m in modules for p in m.parameters()), strict=True)]
            assert sum(moved) > 0.9 * len(moved), (name, case)
            del trainer, modules, update
print("done")
"""


def test_processes_stay_together_whatever_is_trained(tmp_path):
    (tmp_path / "trainers.py").write_text(TRAINERS)
    argv = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*argv, str(tmp_path / "trainers.py")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.count("done") == 2, done.stdout


#: An optimizer imports modules that would keep the group, and its threads, to the very end.
GROUP = """
import os, sys, torch
from propose_prob.training.parallel import process_group
with process_group("cpu"):
    layer = torch.nn.Linear(2, 1)
    torch.optim.AdamW(layer.parameters())
    torch.distributed.all_reduce(layer.weight.detach())
for thread in os.listdir("/proc/self/task"):
    print(open(f"/proc/self/task/{thread}/comm").read().strip())
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads threads' names from /proc")
def test_no_thread_of_the_group_outlives_it():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", GROUP],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in running:
        names = process.communicate(timeout=200)[0]
        assert process.returncode == 0
        assert "gloo" not in names and "tcpstore" not in names, names


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_numbers(tmp_path):
    np.savez(tmp_path / "world.npz", world=load_cmu17("val").world[::200].numpy())
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"steps": 400, "validate": 50}))
    _command(tmp_path, "whole").run()
    argv = [sys.executable, "-m", "propose_prob", "train", "lifting"]
    argv += ["--out", str(tmp_path / "killed"), "--checkpoint-minutes", "0"]
    for option, name in (("data", "world.npz"), ("validation", "world.npz")):
        argv += [f"--{option}", str(tmp_path / name)]
    argv += ["--config", str(tmp_path / "config.json")]
    killed = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    while not (tmp_path / "killed" / "checkpoint.pt").exists() and killed.poll() is None:
        time.sleep(0.01)
    time.sleep(1)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "killed" / "fitted.json").exists(), "it was through already"
    _command(tmp_path, "killed", resume=True).run()
    one, two = (read_checkpoint(tmp_path / x / "checkpoint.pt") for x in ("whole", "killed"))
    for name, value in one["parts"]["model"].items():
        assert torch.equal(two["parts"]["model"][name], value), name
    assert [r["mode"] for r in _log(tmp_path / "whole")] == [
        r["mode"] for r in _log(tmp_path / "killed")
    ]


def test_each_process_trains_on_its_rows_of_the_same_batch(monkeypatch):
    simulator = Simulator(load_cmu17("val").world[::200])
    config = LiftingTrainConfig(batch_size=6)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(Processes, "current", classmethod(lambda cls, r=rank: cls(r, 2)))
        torch.manual_seed(0)
        parts.append(LiftingTrainer(LiftingFlow(), config, simulator)._batch())
    monkeypatch.undo()
    whole = LiftingTrainer(LiftingFlow(), config, simulator)._batch()
    for name in ("features", "joints", "visible"):
        rows = [getattr(part, name) for part in parts]
        together = torch.stack(rows, 1).flatten(0, 1)
        torch.testing.assert_close(together, getattr(whole, name))


def test_rows_are_taken_of_every_tensor_that_has_the_batch():
    pairs = Pairs(torch.arange(8.0)[:, None], torch.arange(8), torch.ones(()))
    mine = _rows(pairs, slice(1, 8, 2), 8)
    assert mine.features[:, 0].tolist() == [1, 3, 5, 7] and mine.joints.tolist() == [1, 3, 5, 7]
    assert mine.visible.shape == ()


def test_one_process_needs_no_group():
    assert not launched()
    with process_group("cpu") as device:
        assert device == "cpu"
    alone = Processes.current()
    assert alone == Processes(0, 1) and alone.writes
    assert alone.mean({"a": 1.0}) == {"a": 1.0}
    alone.wait()


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(InputError, match="batch_size 9 cannot be shared out evenly to 2"):
        Processes(0, 2).check(9)
