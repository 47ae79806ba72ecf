"""Image encoders: contexts, and where joints are seen."""

import pytest
import torch
from torch import nn

from propose_prob.errors import InputError
from propose_prob.images.encoder import ImageEncoder
from propose_prob.images.resnet import resnet18
from propose_prob.models import ProHMR, ProHMRConfig


def test_a_narrower_network_has_the_same_names_and_fewer_channels():
    wide, narrow = resnet18(), resnet18(width=16)
    assert wide.state_dict().keys() == narrow.state_dict().keys()
    assert narrow.features == 128 and wide.features == 512
    shapes = [m.shape[1:] for m in narrow.eval().maps(torch.zeros(1, 3, 64, 64))]
    assert shapes == [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)]
    with pytest.raises(ValueError, match="width of at least 1"):
        resnet18(width=0)


def test_without_joints_the_pooled_features_are_the_context():
    same = ImageEncoder("resnet18", 64, width=8).eval()
    assert isinstance(same.project, nn.Identity)
    images = torch.randn(2, 3, 40, 56)
    reading = same.read(images)
    assert reading.places is None and reading.maps is None
    torch.testing.assert_close(reading.context, same.backbone(images))
    assert ImageEncoder("resnet18", 10, width=8).eval()(images).shape == (2, 10)
    with pytest.raises(ValueError, match="resnet18, resnet50"):
        ImageEncoder("vgg", 10)
    with pytest.raises(InputError, match="B, 3, H, W"):
        same(images[0])


def test_places_are_the_centres_of_mass_of_the_maps():
    torch.manual_seed(0)
    encoder = ImageEncoder("resnet18", 16, width=8, joints=5).eval()
    reading = encoder.read(torch.randn(3, 3, 64, 96))
    assert reading.maps.shape == (3, 5, 16, 24) and reading.places.shape == (3, 5, 2)
    share = reading.maps.exp()
    torch.testing.assert_close(share.sum((-2, -1)), torch.ones(3, 5))
    x = (torch.arange(24) + 0.5) / 24 * 2 - 1
    y = (torch.arange(16) + 0.5) / 16 * 2 - 1
    torch.testing.assert_close(reading.places[..., 0], share.sum(-2) @ x, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(reading.places[..., 1], share.sum(-1) @ y, atol=1e-5, rtol=1e-5)


def test_precision_follows_the_weights_and_autocast_ends_in_them():
    torch.manual_seed(0)
    encoder = ImageEncoder("resnet18", 16, width=8, joints=5).eval()
    images = torch.randn(2, 3, 64, 64)
    exact = encoder.double().read(images.double())
    single = encoder.float().read(images)
    assert exact.context.dtype is torch.float64 and exact.places.dtype is torch.float64
    torch.testing.assert_close(single.context.double(), exact.context, atol=1e-4, rtol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder.read(images)
    assert rough.context.dtype is torch.float32 and rough.places.dtype is torch.float32
    assert 0 < (rough.places - single.places).abs().max() < 0.05


def test_items_of_a_batch_do_not_touch_each_other():
    encoder = ImageEncoder("resnet18", 16, width=8, joints=5).eval()
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(encoder(images)[1:2], encoder(images[1:2]), atol=1e-5, rtol=1e-4)


def test_the_papers_size_is_a_configuration():
    config = ProHMRConfig(encoder="image", context=2048, couplings=1, flow_width=8, flow_blocks=1)
    model = ProHMR(config)
    count = sum(p.numel() for p in model.encoder.parameters())
    assert count == 25_557_032 - 1000 * 2049
    with pytest.raises(ValueError, match="'custom'"):
        ProHMR(config, encoder=nn.Identity())
