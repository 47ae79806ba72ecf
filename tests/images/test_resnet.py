"""The published architecture, layer by layer, and checkpoints as users have them."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from propose_prob.errors import InputError
from propose_prob.images.resnet import ResNet, load_backbone, resnet18, resnet50


def count(network):
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_are_the_published_ones():
    assert count(resnet50(classes=1000)) == 25_557_032
    assert count(resnet18(classes=1000)) == 11_689_512


@pytest.mark.parametrize(
    ("make", "channels"), [(resnet18, (64, 128, 256, 512)), (resnet50, (256, 512, 1024, 2048))]
)
def test_stages_have_the_published_sizes(make, channels):
    network = make().eval()
    with torch.no_grad():
        maps = network.maps(torch.randn(1, 3, 64, 96))
        assert network(torch.randn(2, 3, 64, 64)).shape == (2, network.features)
    assert [m.shape[1] for m in maps] == list(channels)
    assert [tuple(m.shape[2:]) for m in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


def test_names_are_torchvisions():
    names = resnet50(classes=1000).state_dict()
    assert len(names) == 320
    assert len(resnet18(classes=1000).state_dict()) == 122
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.num_batches_tracked": (),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.bias": (1024,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
        "fc.weight": (1000, 2048),
    }
    assert {name: tuple(names[name].shape) for name in shapes} == shapes
    assert "layer1.1.downsample.0.weight" not in names


def test_blocks_are_as_published():
    torch.manual_seed(0)
    network = resnet18().eval()
    x = torch.randn(1, 64, 8, 8)
    block = network.get_submodule("layer2.0")
    y = torch.relu(block.bn1(block.conv1(x)))
    expected = torch.relu(block.bn2(block.conv2(y)) + block.downsample(x))
    torch.testing.assert_close(block(x), expected)
    assert block(x).shape == (1, 128, 4, 4)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
@pytest.mark.parametrize("under", [None, "model", "state_dict"])
def test_checkpoints_load_whatever_is_around_them(tmp_path, prefix, under):
    torch.manual_seed(0)
    trained = resnet18(classes=10)
    state = {prefix + name: value for name, value in trained.state_dict().items()}
    # As HMR and SPIN have it: a regressor beside the network, and batches that are not counted.
    state[prefix + "decpose.weight"] = torch.zeros(144, 1024)
    state = {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}
    path = tmp_path / "checkpoint.pt"
    torch.save(state if under is None else {under: state, "epoch": 3}, path)
    network = resnet18()
    left = load_backbone(network, path)
    assert left == sorted(prefix + n for n in ("decpose.weight", "fc.bias", "fc.weight"))
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, trained.state_dict()[name]), name


def test_safetensors_load(tmp_path):
    trained = resnet18()
    save_file(trained.state_dict(), tmp_path / "a.safetensors")
    network = resnet18()
    assert load_backbone(network, tmp_path / "a.safetensors") == []
    assert torch.equal(network.conv1.weight, trained.conv1.weight)


def test_wrong_files_are_named(tmp_path):
    network = resnet18()
    path = tmp_path / "a.pt"
    with pytest.raises(InputError, match=r"a\.pt: cannot be read"):
        load_backbone(network, path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="expected tensors saved by torch"):
        load_backbone(network, path)
    torch.save(torch.zeros(3), path)
    with pytest.raises(InputError, match="expected a state dict, got Tensor"):
        load_backbone(network, path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"found no layer1\.0\.conv1"):
        load_backbone(network, path)
    torch.save(resnet50().state_dict(), path)
    with pytest.raises(InputError, match=r"layer1\.0\.conv1\.weight of shape \(64, 64, 3, 3\)"):
        load_backbone(network, path)
    state = resnet18().state_dict()
    del state["layer4.1.bn2.bias"]
    torch.save(state, path)
    with pytest.raises(InputError, match=r"expected a weight layer4\.1\.bn2\.bias"):
        load_backbone(network, path)


def test_a_checkpoint_is_never_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (type(tmp_path).touch, (tmp_path / "run",))

    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps({"model": Evil()}))
    with pytest.raises(InputError, match="expected tensors"):
        load_backbone(resnet18(), path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 16, 64)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(InputError, match="expected"):
        resnet18()(torch.zeros(shape))
    with pytest.raises(InputError, match="uint8"):
        resnet18()(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))


def test_unknown_variants_are_refused():
    with pytest.raises(ValueError, match="4 stages"):
        ResNet("basic", (2, 2))
    with pytest.raises(ValueError, match="basic, bottleneck"):
        ResNet("other")
