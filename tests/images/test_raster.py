"""The z-buffer against areas, depths and a second implementation."""

import pytest
import torch

from propose_prob.errors import InputError
from propose_prob.images.raster import rasterize, vertex_normals

SQUARE = torch.tensor([[0, 1, 2], [0, 2, 3]])


def by_rays(vertices, faces, focal, size):
    """Every pixel's ray against every face (Moeller and Trumbore, 1997): face and depth."""
    grid = torch.arange(size, dtype=vertices.dtype) + 0.5 - size / 2
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    rays = torch.stack([x / focal, y / focal, torch.ones_like(x)], -1).view(-1, 1, 3)
    a, b, c = vertices[faces].unbind(1)
    cross = torch.linalg.cross(rays.expand(-1, len(faces), 3), (c - a).expand(len(rays), -1, 3))
    det = ((b - a) * cross).sum(-1)
    u = (-a * cross).sum(-1) / det
    other = torch.linalg.cross(-a, b - a)
    v = (rays * other).sum(-1) / det
    t = ((c - a) * other).sum(-1) / det
    hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    depth = torch.where(hit, t, torch.inf)
    nearest, face = depth.min(1)
    return torch.where(nearest.isfinite(), face, -1).view(size, size), nearest.view(size, size)


def test_random_faces_are_seen_as_rays_see_them():
    generator = torch.Generator().manual_seed(0)
    middle = torch.randn(60, 1, 3, generator=generator, dtype=torch.float64)
    corners = middle + 0.4 * torch.randn(60, 3, 3, generator=generator, dtype=torch.float64)
    vertices = corners.view(-1, 3) + torch.tensor([0.0, 0.0, 6.0], dtype=torch.float64)
    faces = torch.arange(180).view(60, 3)
    points = vertices[:, :2] / vertices[:, 2:] * 40 + 24
    seen = rasterize(points, vertices[:, 2], faces, size=(48, 48))
    face, depth = by_rays(vertices, faces, 40.0, 48)
    assert 0.1 < (face >= 0).float().mean() < 0.9
    assert torch.equal(seen.face, face)
    torch.testing.assert_close(seen.depth, depth)
    # Weights are those of the place in space, not in the image.
    places = seen.interpolate(vertices, faces)
    torch.testing.assert_close(places[:, 2], depth[face >= 0])


def test_an_image_is_as_high_and_wide_as_asked():
    points = torch.tensor([[1.0, 1.0], [6.0, 1.0], [6.0, 3.0], [1.0, 3.0]])
    seen = rasterize(points, torch.ones(4), SQUARE, size=(4, 9))
    expected = torch.zeros(4, 9, dtype=torch.bool)
    expected[1:3, 1:6] = True
    assert torch.equal(seen.face >= 0, expected)
    assert seen.depth[~expected].isinf().all()


def test_neighbors_leave_no_gap():
    grid = torch.linspace(0, 16, 6)
    points = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).view(-1, 2)
    inner = points[(points > 0).all(-1) & (points < 16).all(-1)]
    points[((points > 0) & (points < 16)).all(-1)] = inner + 0.9 * torch.rand_like(inner)
    rows = torch.arange(30).view(5, 6)[:, :5].reshape(-1, 1)
    faces = torch.cat([rows + torch.tensor([0, 1, 6]), rows + torch.tensor([1, 6, 7])])
    assert (rasterize(points, torch.ones(36), faces, size=(16, 16)).face >= 0).all()


def test_what_is_behind_the_camera_or_beside_the_image_is_not_seen():
    points = torch.tensor([[0.0, 0.0], [9.0, 0.0], [9.0, 9.0], [0.0, 9.0]])
    depth = torch.tensor([1.0, 1.0, -1.0, 1.0])
    assert (rasterize(points, depth, SQUARE, size=(8, 8)).face < 0).all()
    assert (rasterize(points + 100, torch.ones(4), SQUARE, size=(8, 8)).face < 0).all()
    points[0] = torch.nan
    assert (rasterize(points, torch.ones(4), SQUARE, size=(8, 8)).face < 0).all()
    none = rasterize(points, torch.ones(4), SQUARE[:0], size=(8, 8))
    assert (none.face < 0).all()


def test_orthographic_depth_may_be_negative():
    points = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    seen = rasterize(
        points.repeat(2, 1),
        torch.tensor([-1.0] * 4 + [-2.0] * 4),
        torch.cat([SQUARE, SQUARE + 4]),
        size=(4, 4),
        perspective=False,
    )
    assert (seen.face >= 2).all() and (seen.depth == -2).all()


def test_normals_of_a_box_point_outwards():
    corners = torch.tensor([[x, y, z] for x in (0.0, 1) for y in (0.0, 1) for z in (0.0, 1)])
    quads = [[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]]
    faces = torch.tensor([f for a, b, c, d in quads for f in ([a, b, c], [a, c, d])])
    normals = vertex_normals(corners, faces)
    assert ((normals * (corners - 0.5)).sum(-1) > 0.5).all()
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(8))


@pytest.mark.parametrize(
    ("points", "depth", "faces", "size", "message"),
    [
        (torch.zeros(4, 3), torch.ones(4), SQUARE, (4, 4), "points"),
        (torch.zeros(4, 2), torch.ones(3), SQUARE, (4, 4), "depth"),
        (torch.zeros(4, 2), torch.ones(4), SQUARE[:, :2], (4, 4), "faces"),
        (torch.zeros(4, 2), torch.ones(4), SQUARE, (0, 4), "size"),
    ],
)
def test_wrong_input_is_named(points, depth, faces, size, message):
    with pytest.raises(InputError, match=message):
        rasterize(points, depth, faces, size=size)
