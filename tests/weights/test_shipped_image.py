"""The shipped model of images keeps its promises on renders that it was never trained on."""

import pytest
import torch

from propose_prob.bodies import load_open_body
from propose_prob.evaluation import pa_mpjpe
from propose_prob.geometry.rotations import matrix_from_6d
from propose_prob.images.crops import normalize_image
from propose_prob.images.renderer import RenderConfig, Renderer
from propose_prob.models import ProHMR
from propose_prob.weights import available, load


@pytest.fixture(scope="module")
def model() -> ProHMR:
    return load("prohmr-image-cmu17")


@pytest.fixture(scope="module")
def people():
    renderer = Renderer(RenderConfig("test_seen", occluded=0.0))
    return [renderer(index) for index in range(40)]


@pytest.fixture(scope="module")
def images(people):
    stacked = torch.stack([torch.from_numpy(person.image) for person in people])
    return stacked.permute(0, 3, 1, 2).float() / 255


def test_it_is_listed_frozen_and_reads_images(model):
    assert "prohmr-image-cmu17" in available()
    assert model.config.encoder == "image" and model.config.image == 128
    assert not model.training and not any(p.requires_grad for p in model.parameters())


@torch.no_grad()
def test_mode_and_draws_stay_where_the_card_says(model, people, images):
    estimate = model.estimate_images(normalize_image(images))
    body = load_open_body().only("h36m_17")

    def joints(sixd):
        x = body.regress(body(matrix_from_6d(sixd), estimate.shape))
        return x - x[..., :1, :]

    truth = torch.stack([person.joints - person.joints[:1] for person in people])
    torch.manual_seed(0)
    assert 1e3 * pa_mpjpe(joints(estimate.distribution.mode), truth).mean() < 65
    best = pa_mpjpe(joints(estimate.distribution.sample((25,))), truth).amin(0)
    assert 1e3 * best.mean() < 55
    # The estimated camera sees the pelvis where it is.
    pelvis = torch.stack([person.keypoints[0] for person in people])
    assert (estimate.camera[:, 1:] - pelvis).norm(dim=-1).median() < 6


@torch.no_grad()
def test_something_in_front_of_an_arm_widens_the_distribution(model, people, images):
    body = load_open_body().only("h36m_17")
    hidden = images.clone()
    for row, person in enumerate(people):
        x, y = person.keypoints[16].round().long().clamp(10, 117).tolist()
        hidden[row, :, y - 10 : y + 11, x - 10 : x + 11] = 0.4
    spread = []
    for pictures in (images, hidden):
        estimate = model.estimate_images(normalize_image(pictures))
        torch.manual_seed(0)
        theta = matrix_from_6d(estimate.distribution.sample((60,)))
        joints = body.regress(body(theta, estimate.shape))
        spread.append((joints - joints[:, :, :1]).std(0).norm(dim=-1)[:, 16])
    assert (spread[1] / spread[0]).log().mean() > 0.05


@torch.no_grad()
def test_hidden_legs_widen_more_than_what_is_in_view(model, people, images):
    body = load_open_body().only("h36m_17")
    keypoints = torch.stack([person.keypoints for person in people])
    hips, height = keypoints[:, [1, 4], 1].amax(1), keypoints[..., 1]
    below = (height[:, [3, 6]].amin(1) > hips + 15) & (height[:, [13, 16]].amax(1) < hips)
    rows = torch.arange(images.shape[-1]) + 0.5 > hips[:, None] + 4
    hidden = torch.where(rows[:, None, :, None], 0.4, images)
    spread = []
    for pictures in (images[below], hidden[below]):
        estimate = model.estimate_images(normalize_image(pictures))
        torch.manual_seed(0)
        theta = matrix_from_6d(estimate.distribution.sample((60,)))
        # In the pelvis' own axes: the whole body's turn is nobody's limb.
        theta[..., 0, :, :] = torch.eye(3)
        joints = body.regress(body(theta, estimate.shape))
        spread.append((joints - joints[:, :, :1]).std(0).norm(dim=-1))
    ratio = (spread[1][:, 1:] / spread[0][:, 1:]).log().mean(0).exp()
    legs, arms = ratio[[1, 2, 4, 5]].mean(), ratio[[11, 12, 14, 15]].mean()
    assert legs > 1.4 and legs > 1.15 * arms
