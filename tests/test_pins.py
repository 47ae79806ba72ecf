"""What the command line gives for fixed inputs and seeds, against stored numbers.

A change of structure must not change them. `python tests/test_pins.py` writes them anew, for a
change that means to; the numbers agree between processors within the tolerances below.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import propose_prob
from propose_prob.cli import main

STORED = Path(__file__).with_name("pins.json")
KEYPOINTS = Path(propose_prob.__file__).parent / "assets" / "pexels-4793258_keypoints.json"
MODELS = ("propose-cmu17", "prohmr-lifting-cmu17", "prohmr-cmu17", "regression-cmu17")
#: Rounding differs between processors; what iterates until it converges differs by its tolerance.
TOLERANCE = {"lift": 2e-4, "fit": 5e-3, "evaluate": 2e-3, "train": 2e-3, "keys": 0.0}
SMALL = {
    "propose": {
        "schedule": "alternate",
        "phase1": 1,
        "phase2": 1,
        "model": {
            "latent": 8,
            "couplings": 2,
            "flow_width": 16,
            "code": 16,
            "width": 16,
            "blocks": 1,
            "decoder_width": 16,
            "decoder_blocks": 1,
        },
    },
    "lifting": {"model": {"couplings": 2, "flow_width": 16, "context": 16, "width": 16}},
    "prohmr": {"model": {"couplings": 1, "flow_width": 16, "context": 16, "width": 16}},
}


def summary(values):
    """Mean, standard deviation and two entries of an array: enough to notice a change.

    NaN (a person without confidence, an unstated number) is counted instead.
    """
    flat = np.asarray(values, np.float64).ravel()
    missing = np.isnan(flat)
    flat = flat[~missing]
    if not len(flat):
        return [float(missing.sum())]
    return [float(flat.mean()), float(flat.std()), float(flat[0]), float(flat[-1])]


def run(*args):
    threads = torch.get_num_threads()
    try:
        assert main([str(arg) for arg in args]) == 0
    finally:
        torch.set_num_threads(threads)


def lift(folder, model):
    out = folder / f"{model}.npz"
    run("lift", KEYPOINTS, "--model", model, "--samples", 8, "--out", out)
    with np.load(out, allow_pickle=False) as stored:
        return {name: summary(stored[name]) for name in ("pose", "point_estimate", "spread")}


def fit(folder):
    out = folder / "fit.npz"
    run("fit", KEYPOINTS, "--out", out)
    with np.load(out, allow_pickle=False) as stored:
        return {
            name: summary(stored[name])
            for name in stored.files
            if stored[name].dtype.kind == "f" and stored[name].size > 1
        }


def evaluate(folder):
    out = folder / "evaluate.json"
    common = ("--split", "val", "--stride", 500, "--samples", 8, "--json", out)
    run("evaluate", "propose-cmu17", "prohmr-lifting-cmu17", *common)
    found = numbers(json.loads(out.read_text()))
    return {name: value for name, value in found.items() if name.count("/") <= 4}


def numbers(value, name=""):
    """Numbers of a nested structure by their path; a list of numbers is summed up."""
    if isinstance(value, list):
        if value and all(isinstance(part, (int, float)) for part in value):
            return {name: summary(value)}
        value = dict(enumerate(value))
    if isinstance(value, dict):
        return {
            k: v for key, part in value.items() for k, v in numbers(part, f"{name}/{key}").items()
        }
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {name: [float(value)]} if is_number else {}


def train(folder, model):
    config = folder / f"{model}.json"
    config.write_text(json.dumps(SMALL[model] | {"batch_size": 16, "validate": 2}))
    out = folder / model
    run("train", model, "--config", config, "--steps", 2, "--seed", 1, "--out", out)
    with safe_open(out / "model.safetensors", "np") as stored:
        return {
            name: summary(stored.get_tensor(name))
            for name in sorted(stored.keys())
            if stored.get_tensor(name).size and stored.get_tensor(name).dtype.kind == "f"
        }


def keys(name):
    """Names and shapes of a shipped model's tensors, hashed; and how many there are."""
    tensors = propose_prob.load(name).state_dict()
    text = json.dumps([[key, list(tensors[key].shape)] for key in sorted(tensors)])
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"number": [float(len(tensors))], "digest": [float(int(digest[:12], 16))]}


CASES = {
    **{f"lift {model}": (lift, model) for model in MODELS if model != "prohmr-cmu17"},
    "fit": (fit,),
    "evaluate": (evaluate,),
    **{f"train {model}": (train, model) for model in SMALL},
    **{f"keys {model}": (keys, model) for model in propose_prob.available()},
}


def measure(case, folder):
    function, *args = CASES[case]
    return function(*args) if function is keys else function(folder, *args)


@pytest.mark.parametrize(
    "case",
    # Its temperature is fitted on a thousand bodies.
    [pytest.param(c, marks=pytest.mark.slow) if c == "train prohmr" else c for c in CASES],
)
def test_pinned(case, tmp_path):
    stored, found = json.loads(STORED.read_text())[case], measure(case, tmp_path)
    assert set(found) == set(stored)
    tolerance = TOLERANCE[case.split()[0]]
    for name, values in stored.items():
        # Of the array's own size, so that an entry near zero is not held to its own.
        scale = max(abs(value) for value in values[:2])
        assert np.allclose(found[name], values, rtol=tolerance, atol=tolerance * scale), name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        measured = {case: measure(case, Path(place)) for case in CASES}
    rounded = {
        case: {name: [float(f"{v:.7g}") for v in values] for name, values in found.items()}
        if case.split()[0] != "keys"
        else found
        for case, found in measured.items()
    }
    lines = [
        f"{json.dumps(case)}: {json.dumps(found, allow_nan=False)}"
        for case, found in rounded.items()
    ]
    STORED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    sys.exit(0)
