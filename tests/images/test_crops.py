"""Crops: what they show, where, and the way back."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propose_prob.errors import InputError
from propose_prob.geometry.camera import project
from propose_prob.images.crops import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    crop_boxes,
    crop_keypoints,
    normalize_image,
)

coordinate = st.floats(-300, 300)
extent = st.floats(2, 400)


def ramp(height, width):
    """An image whose red is x and whose green is y of each pixel's middle, over 1000."""
    x = (torch.arange(width) + 0.5).expand(height, width)
    y = (torch.arange(height) + 0.5)[:, None].expand(height, width)
    return torch.stack([x, y, torch.zeros(height, width)]) / 1000


@settings(max_examples=40, deadline=None)
@given(coordinate, coordinate, extent, extent, st.integers(8, 80), st.floats(0.5, 2))
def test_keypoints_go_into_the_crop_and_back(left, top, width, height, size, margin):
    box = torch.tensor([[left, top, left + width, top + height]])
    crops = crop_boxes(torch.zeros(3, 50, 70), box, size=size, margin=margin)
    points = torch.tensor([[[left, top], [left + width, top + height], [7.0, -3.0]]])
    inside = crops.to_crop(points)
    torch.testing.assert_close(crops.to_image(inside), points, atol=1e-3, rtol=1e-4)
    # The box's middle is the crop's, and its longer side fills 1 / margin of it.
    torch.testing.assert_close(
        inside[:, :2].mean(1), torch.full((1, 2), size / 2), atol=1e-2, rtol=0
    )
    longer = (inside[0, 1] - inside[0, 0]).max()
    assert float(longer) == pytest.approx(size / margin, rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.floats(60, 140), st.floats(50, 100), st.floats(9, 90), st.integers(4, 90))
def test_each_pixel_shows_the_place_that_the_map_says(x, y, side, size):
    """A ramp stays a ramp, whether pixels are merged or multiplied."""
    half = side / 2
    image = ramp(160, 200)
    crop = crop_boxes(
        image, torch.tensor([[x - half, y - half, x + half, y + half]]), size=size, margin=1.0
    )
    middles = torch.stack(torch.meshgrid(*[torch.arange(size) + 0.5] * 2, indexing="xy"), -1)
    places = crop.to_image(middles.view(1, -1, 2))[0].T.reshape(2, size, size) / 1000
    torch.testing.assert_close(crop.images[0, :2], places, atol=2e-5, rtol=0)


def test_a_crop_of_the_whole_image_is_the_image():
    image = torch.rand(3, 40, 40)
    crop = crop_boxes(image, torch.tensor([[0.0, 0, 40, 40]]), size=40, margin=1.0)
    torch.testing.assert_close(crop.images[0], image, atol=1e-5, rtol=0)
    whole = (255 * image).round().to(torch.uint8)
    crop = crop_boxes(whole, torch.tensor([[0.0, 0, 40, 40]]), size=40, margin=1.0)
    torch.testing.assert_close(crop.images[0], whole / 255, atol=1e-5, rtol=0)


def test_beyond_the_border_is_black():
    image = torch.ones(3, 20, 20)
    crop = crop_boxes(image, torch.tensor([[10.0, 0, 30, 20]]), size=20, margin=1.0).images[0]
    torch.testing.assert_close(crop[:, :, :9], torch.ones(3, 20, 9))
    assert crop[:, :, 11:].abs().max() == 0
    outside = crop_boxes(image, torch.tensor([[100.0, 100, 120, 120]]), size=8)
    assert outside.images.abs().max() == 0


def test_small_crops_of_fine_patterns_are_gray():
    """Without an average, every eighth pixel of a chequerboard would be black or white."""
    board = (torch.arange(160)[:, None] + torch.arange(160)) % 2
    image = board.float().expand(3, 160, 160)
    crop = crop_boxes(image, torch.tensor([[3.0, 5, 151, 153]]), size=20, margin=1.0).images
    assert (crop[..., 1:-1, 1:-1] - 0.5).abs().max() < 0.1


def test_crops_of_keypoints_hold_the_seen_ones():
    p2d = torch.rand(4, 17, 2) * 100 + 50
    p2d[0, 3] = torch.nan
    confidence = torch.ones(4, 17)
    confidence[:, 5], p2d[:, 5] = 0, 1e6
    crops = crop_keypoints(torch.zeros(3, 200, 200), p2d, confidence, size=32)
    inside = crops.to_crop(p2d)
    seen = (confidence > 0) & p2d.isfinite().all(-1)
    assert ((inside[seen] > 0) & (inside[seen] < 32)).all()


def test_one_column_of_joints_is_cropped():
    p2d = torch.tensor([[[5.0, 1.0], [5.0, 9.0]]])
    crops = crop_keypoints(torch.zeros(3, 20, 20), p2d, size=16, margin=1.5)
    assert float(crops.side[0]) == pytest.approx(12, rel=0.05)


def test_the_crops_camera_sees_the_crop():
    """Points near the axis of the crop's camera land where the affine crop has them."""
    focal, center = 1000.0, (500.0, 400.0)
    crops = crop_boxes(torch.zeros(3, 8, 8), torch.tensor([[880.0, 100, 920, 180]]), size=64)
    turn = crops.aim(focal, center)[0]
    torch.testing.assert_close(turn @ turn.T, torch.eye(3), atol=1e-6, rtol=0)
    ray = torch.tensor([(900 - 500) / focal, (140 - 400) / focal, 1.0])
    assert (turn @ ray)[:2].abs().max() < 1e-6
    # The focal length of the turned camera: further from the image's plane.
    longer = focal * float(ray.norm())
    points = torch.tensor([[1.60, -1.04, 4.0], [1.62, -1.0, 4.0], [1.6, -1.04, 4.2]])
    seen = crops.to_crop(project(points, focal=focal, center=torch.tensor(center))[None])[0]
    scale = 64 / float(crops.side)
    there = project(points @ turn.T, focal=scale * longer, center=32.0)
    assert (seen - there).norm(dim=-1).max() < 0.1 * (seen - 32).norm(dim=-1).max() + 0.5


def test_normalized_images_have_imagenets_mean():
    gray = torch.tensor(IMAGENET_MEAN)[:, None, None].expand(3, 2, 2)
    spread = torch.tensor(IMAGENET_STD)[:, None, None]
    torch.testing.assert_close(normalize_image(gray + spread), torch.ones(3, 2, 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i, b: crop_boxes(i[0], b, size=8), "image of shape"),
        (lambda i, b: crop_boxes(i.long(), b, size=8), "uint8 or floating"),
        (lambda i, b: crop_boxes(i, b[:, :3], size=8), r"\(B, 4\)"),
        (lambda i, b: crop_boxes(i, b[:, [2, 3, 0, 1]], size=8), "box 0"),
        (lambda i, b: crop_boxes(i, b * math.nan, size=8), "box 0"),
        (lambda i, b: crop_boxes(i, b, size=0), "size >= 1"),
        (lambda i, b: crop_boxes(i, b, size=8, margin=0.0), "margin > 0"),
        (lambda i, b: crop_keypoints(i, torch.zeros(2, 17), size=8), r"\(B, J, 2\)"),
        (lambda i, b: crop_keypoints(i, torch.full((1, 3, 2), math.nan), size=8), "person 0"),
        (lambda i, b: normalize_image(i[:1]), "3, H, W"),
        (lambda i, b: normalize_image(i.to(torch.uint8)), "floating-point"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(3, 20, 20), torch.tensor([[1.0, 1.0, 5.0, 9.0]]))


def test_no_people_give_no_crops():
    assert crop_boxes(torch.zeros(3, 9, 9), torch.zeros(0, 4), size=8).images.shape == (0, 3, 8, 8)
