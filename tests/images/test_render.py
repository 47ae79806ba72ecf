"""Renders show the bodies that come with them, the same ones each time."""

import dataclasses

import numpy as np
import pytest
import torch

from propose_prob.bodies import load_open_body
from propose_prob.errors import InputError
from propose_prob.geometry.camera import project
from propose_prob.geometry.skeletons import H36M_17
from propose_prob.images.render_body import Light, Wardrobe, draw_light, paint
from propose_prob.images.render_set import load_renders, render_set
from propose_prob.images.renderer import RenderConfig, Renderer
from propose_prob.images.sources import AugmentConfig, RenderSource, augment
from propose_prob.io.atomic import locked

CONFIG = RenderConfig("val", size=48)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(CONFIG)


@pytest.fixture(scope="module")
def people(renderer):
    return [renderer(index) for index in range(12)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("renders")
    render_set(CONFIG, 6, path)
    return path


def test_an_item_is_the_same_each_time(renderer, people):
    again = Renderer(CONFIG)(5)
    for field in dataclasses.fields(again):
        one, other = getattr(again, field.name), getattr(people[5], field.name)
        assert np.array_equal(np.asarray(one), np.asarray(other)), field.name
    assert not np.array_equal(people[4].image, people[5].image)
    assert not np.array_equal(Renderer(RenderConfig("val", size=48, seed=1))(5).image, again.image)


def test_keypoints_and_joints_are_those_of_the_body(people):
    body = load_open_body()
    for person in people:
        output = body(person.theta, person.shape, person.translation)
        torch.testing.assert_close(body.regress(output), person.joints, atol=1e-4, rtol=0)
        seen = project(person.joints, focal=person.focal, center=24.0)
        torch.testing.assert_close(seen, person.keypoints, atol=1e-3, rtol=0)
        assert not (person.visible & person.occluded).any()
        assert (person.joints[:, 2] > 0.3).all()


def test_people_stand_upright_in_most_images(people):
    head, pelvis = H36M_17.index("Head"), H36M_17.index("Pelvis")
    above = [p.keypoints[head, 1] < p.keypoints[pelvis, 1] for p in people]
    assert sum(map(bool, above)) >= 10


def test_the_silhouette_covers_the_joints(people):
    """Joints lie inside limbs: where they are seen, nearly all of a pixel is the body's."""
    body = load_open_body()
    wardrobe = Wardrobe(body)
    rng = np.random.default_rng(0)
    up = np.array([0.0, -1.0, 0.0])
    for person in people:
        output = body(person.theta, person.shape, person.translation)
        look, light = wardrobe.draw(rng), draw_light(rng, up)
        color, cover, _ = paint(
            output.vertices,
            body.faces,
            wardrobe.rest,
            look,
            light,
            focal=float(person.focal),
            size=48,
        )
        inside = ((person.keypoints > 1) & (person.keypoints < 47)).all(-1)
        pixel = person.keypoints[inside].long().numpy()
        assert cover[pixel[:, 1], pixel[:, 0]].mean() > 0.85
        assert 0.02 < cover.mean() < 0.5
        assert np.isfinite(color).all() and color[cover == 0].max() == 0


def test_light_comes_from_where_the_lamp_is():
    body = load_open_body()
    wardrobe = Wardrobe(body)
    look = wardrobe.draw(np.random.default_rng(1))
    upright = torch.eye(3).repeat(24, 1, 1)
    upright[0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    vertices = body(upright, None, torch.tensor([0.0, 0.0, 4.0])).vertices
    up = np.array([0.0, -1.0, 0.0], np.float32)
    sides = []
    for x in (-1.0, 1.0):
        lamp = np.array([x, 0, 0], np.float32)
        light = Light(lamp, np.ones(3, np.float32), np.zeros((2, 3), np.float32), up, True)
        color, _, shadow = paint(
            vertices, body.faces, wardrobe.rest, look, light, focal=80.0, size=48
        )
        middle = color.sum((0, 2)) @ (np.arange(48) - 23.5) / color.sum()
        sides.append(middle)
        # The far side of the body lies in the shadow of the near one.
        lit = shadow.lit(vertices)
        order = vertices[:, 0] * x
        assert lit[order > order.quantile(0.95)].mean() > lit[order < order.quantile(0.05)].mean()
    assert sides[0] < 0 < sides[1]


def test_a_set_resumes_and_grows_to_the_same_items(folder, people, tmp_path):
    half = tmp_path / "half"
    done = []
    render_set(CONFIG, 2, half)
    before = (half / "val" / "00000.truth.npz").stat().st_mtime_ns
    render_set(CONFIG, 2, half, progress=done.append)
    assert (half / "val" / "00000.truth.npz").stat().st_mtime_ns == before and sum(done) == 2
    render_set(CONFIG, 6, half)
    for name in ("00000.images.npy",):
        assert (half / "val" / name).read_bytes() == (folder / "val" / name).read_bytes()
    renders = load_renders(half, "val")
    assert len(renders) == 6 and renders.config == CONFIG
    assert np.array_equal(renders.images(torch.tensor([5]))[0].numpy(), people[5].image)
    assert torch.equal(renders.theta[3], people[3].theta)


def test_another_configuration_is_not_mixed_in(folder):
    with pytest.raises(InputError, match="seed differ"):
        render_set(RenderConfig("val", size=48, seed=3), 6, folder)


def test_a_set_that_is_being_rendered_is_left_alone(folder):
    before = sorted((folder / "val").iterdir())
    with locked(folder / "val", "another"), pytest.raises(InputError, match="a rendering is going"):
        render_set(CONFIG, 7, folder)
    assert sorted((folder / "val").iterdir()) == before


def test_broken_sets_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="propose-prob render"):
        load_renders(folder, "train")
    with pytest.raises(InputError, match="at least 1"):
        render_set(CONFIG, 0, tmp_path)
    broken = tmp_path / "broken"
    render_set(CONFIG, 1, broken)
    images = broken / "val" / "00000.images.npy"
    content = images.read_bytes()
    images.write_bytes(content[:200])
    with pytest.raises(InputError, match=r"00000.images.npy: expected a complete"):
        load_renders(broken, "val")
    np.save(images, np.zeros((1, 9, 9, 3), np.uint8))
    with pytest.raises(InputError, match=r"\(1, 48, 48, 3\)"):
        load_renders(broken, "val")
    (broken / "val" / "00000.truth.npz").unlink()
    with pytest.raises(InputError, match="no finished shard"):
        load_renders(broken, "val")
    (broken / "val" / "config.json").write_text("[]")
    with pytest.raises(InputError, match=r"config.json"):
        load_renders(broken, "val")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "test"}, "split of train"),
        ({"size": 8}, "size must be 32 to 1024, got 8"),
        ({"occluded": 1.5}, "occluded must be 0 to 1, got 1.5"),
        ({"distance": (5.0, 2.0)}, "distance must be 1 to 1000, the smaller first"),
    ],
)
def test_wrong_configurations_are_named(options, message):
    with pytest.raises(InputError, match=message):
        RenderConfig(**options)


def test_augmented_people_agree_with_their_keypoints(folder):
    """Mirror, roll, scale and shift move image, camera and body together."""
    batch = RenderSource(load_renders(folder, "val"))(torch.arange(6))
    body = load_open_body()
    for mirror in (0.0, 1.0):
        config = AugmentConfig(mirror=mirror, scale=0.2, shift=0.04, roll=20.0)
        varied = augment(batch, config, torch.Generator().manual_seed(0))
        seen = project(varied.joints, focal=varied.focal[:, None, None], center=24.0)
        assert (seen - varied.keypoints).norm(dim=-1).max() < 0.4
        joints = body.regress(body(varied.theta, varied.shape))
        relative = varied.joints - varied.joints[:, :1]
        # The open body is symmetric to a millimeter.
        torch.testing.assert_close(joints - joints[:, :1], relative, atol=2e-3, rtol=0)
        assert varied.images.min() >= 0 and varied.images.max() <= 1


def test_augmentation_moves_pixels_with_keypoints(folder):
    """A white dot drawn at a joint is found where the keypoint goes."""
    batch = RenderSource(load_renders(folder, "val"))(torch.arange(6))
    keypoints = torch.full((6, 17, 2), 20.5)
    keypoints[:, :, 1] = 27.5
    images = torch.zeros(6, 3, 48, 48)
    images[:, :, 26:29, 19:22] = 1
    batch = dataclasses.replace(batch, images=images, keypoints=keypoints)
    config = AugmentConfig(scale=0.15, shift=0.04, roll=20.0, color=0.0, contrast=0.0, gray=0.0)
    varied = augment(batch, config, torch.Generator().manual_seed(1))
    weight = varied.images[:, 0].clamp_min(2e-4) - 2e-4
    grid = torch.arange(48) + 0.5
    total = weight.sum((1, 2))
    found = torch.stack([(weight.sum(1) @ grid) / total, (weight.sum(2) @ grid) / total], -1)
    torch.testing.assert_close(found, varied.keypoints[:, 0], atol=0.1, rtol=0)


def test_no_augmentation_changes_nothing(folder):
    batch = RenderSource(load_renders(folder, "val"))(torch.arange(6))
    config = AugmentConfig(
        mirror=0.0, scale=0.0, shift=0.0, roll=0.0, color=0.0, contrast=0.0, gray=0.0
    )
    same = augment(batch, config, torch.Generator().manual_seed(0))
    for field in dataclasses.fields(batch):
        one, other = getattr(same, field.name), getattr(batch, field.name)
        torch.testing.assert_close(one, other, atol=2e-4, rtol=1e-4)
