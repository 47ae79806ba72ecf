"""Files of `torch.save`: read as torch reads them, and no further than their bytes go."""

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from propose_prob.errors import InputError
from propose_prob.io.torch_files import load_torch

BASE = torch.arange(12.0)
SAVED = {
    "whole": BASE,
    "part": BASE[2:8],
    "turned": BASE.view(3, 4).t(),
    "empty": torch.zeros(0, 3),
    "single": torch.tensor(3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    **{
        str(dtype): torch.tensor([0, 1, 1], dtype=dtype)
        for dtype in (
            *(torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8),
            *(torch.int16, torch.int32, torch.complex64, torch.complex128),
        )
    },
}
PLAIN = {
    "size": torch.Size([2, 3]),
    "steps": OrderedDict([(1, [1, 2.5, True, None]), ("a", (10**30, "ü", b"\0"))]),
    "betas": (0.9, 0.999),
}


def saved(value, older):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=not older)
    return file


def read(content):
    return load_torch(io.BytesIO(content), Path("a.pt"))


older = pytest.mark.parametrize("older", [False, True], ids=["archive", "sequence"])


@older
def test_tensors_come_as_torch_reads_them(older):
    file = saved(SAVED, older)
    found = load_torch(file, Path("a.pt"))
    file.seek(0)
    wanted = torch.load(file, weights_only=True)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name
        assert found[name].stride() == tensor.stride() and not found[name].requires_grad, name
    # Over one storage, as they were.
    found["whole"][3] = 99
    assert found["part"][1] == 99


@older
def test_plain_values_come_as_they_are(older):
    assert load_torch(saved(PLAIN, older), Path("a.pt")) == PLAIN


@older
def test_states_go_back_into_what_they_are_of(older):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    found = load_torch(saved(state | {"rng": torch.get_rng_state()}, older), Path("a.pt"))
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    again = torch.optim.AdamW(other.parameters())
    other.load_state_dict(found["model"])
    again.load_state_dict(found["optimizer"])
    torch.set_rng_state(found["rng"])
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert torch.equal(optimizer.state[mine]["exp_avg"], again.state[theirs]["exp_avg"])


class Asks:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


LARGE = 10**10
HOSTILE = {
    "code": (Asks(os.mkdir, "run"), r"asks for (posix|nt)\.mkdir"),
    "zeros": (Asks(bytearray, LARGE), "expected text of Latin-1|expected Latin-1"),
    "storage": (Asks(torch.UntypedStorage, LARGE), "asks for torch"),
    "tensor": (Asks(torch.Tensor, 10**5, 10**5), "asks for torch"),
    "keys": ({n * (2**61 - 1): None for n in range(1, 5000)}, "as keys"),
    "a function": (torch._utils._rebuild_tensor_v2, "is no data"),
    "a class": (torch.FloatStorage, "is no data"),
}


@older
@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_else_is_made(tmp_path, monkeypatch, older, name):
    monkeypatch.chdir(tmp_path)
    value, words = HOSTILE[name]
    with pytest.raises(InputError, match=f"^a.pt: expected tensors saved by torch .*({words})"):
        load_torch(saved(value, older), Path("a.pt"))
    assert not list(tmp_path.iterdir())


def rebuilt(offset, size, stride):
    """A tensor over a storage of 12 numbers, of whatever shape."""

    class Shaped:
        def __reduce__(self):
            storage = BASE.untyped_storage()
            typed = torch.storage.TypedStorage(
                wrap_storage=storage, dtype=torch.float32, _internal=True
            )
            function = torch._utils._rebuild_tensor_v2
            return function, (typed, offset, size, stride, False, OrderedDict())

    return Shaped()


@older
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((0, (13,), (1,)), "larger than its storage"),
        ((1, (12,), (1,)), "larger than its storage"),
        ((0, (2, 2), (1, 11)), "larger than its storage"),
        ((-1, (2,), (1,)), "whose shape is none"),
        ((0, (2,), (-1,)), "whose shape is none"),
        ((0, (-2,), (1,)), "whose shape is none"),
        ((0, (2,), (1, 1)), "whose shape is none"),
        ((0, (True,), (1,)), "whose shape is none"),
        ((0, (2.0,), (1,)), "whose shape is none"),
        ((0, (2**63,), (0,)), "whose shape is none"),
        ((0, (10**9, 10**9), (0, 0)), "far more bytes"),
        ((0, (0, 10**9, 10**9), (0, 0, 0)), None),
    ],
    ids=str,
)
def test_tensors_lie_within_their_storage(older, shape, words):
    file = saved(rebuilt(*shape), older)
    if words is None:
        assert load_torch(file, Path("a.pt")).numel() == 0
        return
    with pytest.raises(InputError, match=words):
        load_torch(file, Path("a.pt"))


def test_storages_lie_within_the_file():
    """The size that a file announces is no room that is taken."""
    content = saved(torch.arange(300.0), True).getvalue()
    number = b"M\x2c\x01"
    assert content.count(number) == 2
    for announced in (b"J\xff\xff\xff\x7f", b"M\x2d\x01", b"K\x0a"):
        with pytest.raises(InputError):
            read(content.replace(number, announced))
    with pytest.raises(InputError, match="storages of more bytes than there are"):
        read(content.replace(number, b"J\xff\xff\xff\x7f", 1))
    size = struct.pack("<q", 300)
    with pytest.raises(InputError, match="a storage of another size"):
        read(content.replace(size, struct.pack("<q", 2**40)))
    for end in (5, 60, 300, len(content) - 1):
        with pytest.raises(InputError, match="expected tensors saved by torch"):
            read(content[:end])


def repacked(change, **more):
    """An archive of torch with other members."""
    file, changed = saved(torch.ones(3), False), io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            key = name.partition("/")[2]
            if (data := change.get(key, old.read(name))) is not None:
                new.writestr(name, data)
        for name, data in more.items():
            new.writestr(name, data)
    return changed.getvalue()


def test_archives_are_checked():
    assert torch.equal(read(repacked({})), torch.ones(3))
    for content, words in (
        (repacked({"byteorder": b"big"}), "bytes are in another order"),
        (repacked({"data/0": b""}), "0 bytes for 3 numbers"),
        (repacked({"data/0": None}), "data/0"),
        (repacked({"data.pkl": None}), "0 members data.pkl"),
        (
            repacked({"data.pkl": pickle.dumps(Asks(os.mkdir, "run"), 2)}),
            r"asks for (posix|nt)\.mkdir",
        ),
        (repacked({"data/0": bytes(2**28)}), "such a file is not read"),
        (b"PK\x05\x06" + bytes(18), "0 members data.pkl"),
        (b"", "expected tensors saved by torch"),
    ):
        with pytest.raises(InputError, match=words):
            read(content)
