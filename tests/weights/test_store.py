import copy
import json
import math
import pickle
import resource
import stat
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import save_file

from propose_prob.errors import InputError
from propose_prob.weights import available, average, load, save, store
from tests.zoo import PROPOSE_VARIANTS, small_propose


@pytest.fixture
def model():
    return small_propose().float()


@pytest.mark.parametrize("name", PROPOSE_VARIANTS)
def test_round_trip(name, tmp_path):
    model = small_propose(**PROPOSE_VARIANTS[name]).float()
    path = tmp_path / "model.safetensors"
    save(model, path)
    other = load(path)
    assert other.config == model.config
    assert other.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    p2d = torch.randn(3, 4, 2)
    assert torch.equal(other.conditional(p2d).point_estimate, model.conditional(p2d).point_estimate)


def test_a_loaded_model_is_ready_to_use(model, tmp_path):
    save(model.train(), tmp_path / "m.safetensors")
    other = load(str(tmp_path / "m.safetensors"))
    assert not other.training
    assert not any(p.requires_grad for p in other.parameters())
    other.requires_grad_(True)
    assert all(p.requires_grad for p in other.parameters())


def test_half_halves_the_file_and_is_float32_again(model, tmp_path):
    save(model, tmp_path / "full.safetensors")
    save(model, tmp_path / "half.safetensors", half=True)
    full, half = ((tmp_path / f"{n}.safetensors").stat().st_size for n in ("full", "half"))
    assert half < 0.75 * full
    other = load(tmp_path / "half.safetensors")
    for key, value in model.state_dict().items():
        stored = other.state_dict()[key]
        assert stored.dtype == value.dtype
        torch.testing.assert_close(stored, value, rtol=1e-3, atol=1e-4)


def test_saving_leaves_the_model_alone(model, tmp_path):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save(model, tmp_path / "m.safetensors", half=True)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(value.dtype == before[key].dtype for key, value in model.state_dict().items())


def test_the_file_is_whole_or_the_old_one(model, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    save(model, path)
    old = path.read_bytes()

    def torn(tensors, name, metadata):
        with open(name, "wb") as file:
            file.write(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "save_file", torn)
    with pytest.raises(KeyboardInterrupt):
        save(model, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_others_may_read_it(model, tmp_path):
    path = tmp_path / "m.safetensors"
    save(model, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_saving_into_a_missing_folder_fails(model, tmp_path):
    with pytest.raises(FileNotFoundError):
        save(model, tmp_path / "nowhere" / "m.safetensors")


def test_the_folders_own_models_are_listed():
    names = available()
    assert names == sorted(names)
    assert all(not name.endswith(".safetensors") for name in names)


def write_pickle(path, model):
    path.write_bytes(pickle.dumps({"weights": [1.0, 2.0]}))


def write_torch(path, model):
    torch.save(model.state_dict(), path)


def write_truncated(path, model):
    save(model, path)
    path.write_bytes(path.read_bytes()[:-100])


def write_header_only(path, model):
    save(model, path)
    path.write_bytes(path.read_bytes()[:20])


def write_empty(path, model):
    path.write_bytes(b"")


def write_foreign(path, model):
    save_file({"x": torch.zeros(3)}, path)


def write_other_model(path, model):
    save_file(
        {"x": torch.zeros(3)}, path, metadata={"format": "propose_prob/1", "model": "SomethingElse"}
    )


def write_other_format(path, model):
    save_file(
        {"x": torch.zeros(3)}, path, metadata={"format": "propose_prob/9", "model": "ProPose"}
    )


def resave(path, model, *, config=None, drop=None):
    save(model, path)
    tensors = {k: v.clone() for k, v in model.state_dict().items() if k != drop}
    metadata = {"format": "propose_prob/1", "model": "ProPose"}
    if config is not None:
        metadata["config"] = config
    save_file(tensors, path, metadata=metadata)


def config_of(model, **changes):
    return json.dumps({**vars(model.config), **changes})


def write_without_config(path, model):
    resave(path, model)


def write_bad_json(path, model):
    resave(path, model, config="{")


def write_unknown_field(path, model):
    resave(path, model, config=config_of(model, flavour=3))


def write_other_size(path, model):
    resave(path, model, config=config_of(model, width=99))


def write_missing_tensor(path, model):
    resave(path, model, config=config_of(model), drop="pose_mean")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_pickle, "expected a safetensors file, got a truncated or foreign one"),
        (write_torch, "expected a safetensors file, got a truncated or foreign one"),
        (write_truncated, "expected a safetensors file, got a truncated or foreign one"),
        (write_header_only, "expected a safetensors file, got a truncated or foreign one"),
        (write_empty, "expected a safetensors file, got a truncated or foreign one"),
        (write_foreign, r"expected a model of this library \(ProPose, .*\), got no format"),
        (write_other_model, "expected a model of this library .* SomethingElse"),
        (write_other_format, "got propose_prob/9 ProPose"),
        (write_without_config, "do not fit the stored configuration"),
        (write_bad_json, "do not fit the stored configuration"),
        (write_unknown_field, "do not fit the stored configuration .*flavour"),
        (write_other_size, "do not fit the stored configuration"),
        (write_missing_tensor, "do not fit the stored configuration"),
    ],
)
def test_bad_files_get_one_clear_line(write, message, model, tmp_path):
    path = tmp_path / "bad.safetensors"
    write(path, model)
    with pytest.raises(InputError, match=message) as caught:
        load(path)
    text = str(caught.value)
    assert text.startswith("bad.safetensors: ") and "\n" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code": 10**9}, "code must be 1 to 65536"),
        ({"code": 60_000}, "code is above 4096, the largest size that is stored"),
        ({"code": 4000, "flow_width": 4000}, "no tensor of shape"),
        ({"couplings": 4000}, "no tensor of shape"),
        ({"blocks": 4000, "couplings": 4000}, "no tensor of shape"),
        ({"width": 10**400}, "width must be 1 to 65536"),
        ({"width": "wide"}, "do not fit"),
        ({"width": None}, "do not fit"),
        ({"width": -1}, "do not fit"),
        ({"latent": 2.5}, "do not fit"),
        ({"flow_clamp": math.nan}, "flow_clamp must be above 0 to"),
    ],
    ids=str,
)
def test_sizes_are_checked_before_anything_is_built(changes, message, model, tmp_path):
    path = tmp_path / "bad.safetensors"
    resave(path, model, config=config_of(model, **changes))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(InputError, match=message):
        load(path)
    assert time.monotonic() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(number, model, tmp_path):
    changed = copy.deepcopy(model)
    name, parameter = list(changed.named_parameters())[3]
    with torch.no_grad():
        parameter.view(-1)[-1] = number
    save(changed, tmp_path / "bad.safetensors")
    with pytest.raises(InputError, match=f"expected finite weights, got others in {name}"):
        load(tmp_path / "bad.safetensors")


def test_models_built_by_other_threads_meanwhile_are_not_checked(model, tmp_path):
    with store._as_stored({}), ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.nn.Linear, 3, 4).result().weight.shape == (4, 3)
        with pytest.raises(ValueError, match="no tensor of shape"):
            torch.nn.Linear(3, 4)
    torch.nn.Linear(3, 4)


@pytest.mark.parametrize("name", ["nothing", "../store.py", "a/b.safetensors", ""])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(InputError, match=r"no model named .* expected one of") as caught:
        load(name)
    assert all(known in str(caught.value) for known in available())


def test_a_folder_is_not_a_model(tmp_path):
    with pytest.raises(InputError, match="no model named"):
        load(tmp_path)


@pytest.mark.gpu
def test_load_to_a_device(model, tmp_path):
    save(model.cuda(), tmp_path / "m.safetensors")
    other = load(tmp_path / "m.safetensors", device="cuda")
    assert all(p.device.type == "cuda" for p in other.parameters())


def test_average_is_the_mean_of_the_parameters(model):
    other = small_propose().float()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(3.0)
    mean = average([model, other])
    ours, theirs = dict(model.named_parameters()), dict(other.named_parameters())
    for name, value in mean.named_parameters():
        assert torch.allclose(value, 0.5 * (ours[name] + theirs[name]), atol=1e-6), name
    with pytest.raises(ValueError, match="same configuration"):
        average([model, small_propose(base="standard").float()])
    with pytest.raises(ValueError, match="at least one model"):
        average([])


def test_what_would_not_be_read_is_not_written(tmp_path):
    model = small_propose(flow_clamp=2e6)
    with pytest.raises(InputError, match=r"flow_clamp must be above 0 to 1e\+06"):
        save(model, tmp_path / "wide.safetensors")
    assert not list(tmp_path.iterdir())
