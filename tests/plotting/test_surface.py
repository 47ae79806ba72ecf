"""What a drawn surface shows: the near side, lit from the viewer."""

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
from matplotlib.figure import Figure

from propose_prob.errors import InputError
from propose_prob.plotting.surface import draw_surface

#: A tetrahedron, corners counter-clockwise from outside.
VERTICES = np.array([[0.0, 0, 3], [1, 0, 4], [0, 1, 4], [-1, -1, 4]])
FACES = np.array([[0, 2, 1], [0, 3, 2], [0, 1, 3], [1, 2, 3]])


def drawn(**options):
    axis = Figure().add_subplot()
    draw_surface(axis, VERTICES, FACES, **options)
    return axis.collections[0]


def outward():
    triangles = VERTICES[FACES]
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    return (normal * (triangles.mean(1) - VERTICES.mean(0))).sum(-1) > 0


def test_the_test_body_is_oriented_like_a_body():
    assert outward().all()


def test_only_triangles_that_face_the_viewer_are_drawn():
    assert len(drawn().get_paths()) == 3
    assert len(drawn(view="side").get_paths()) in (1, 2, 3)
    # The far side alone is seen from nowhere in front.
    axis = Figure().add_subplot()
    draw_surface(axis, VERTICES, FACES[3:])
    assert not axis.collections[0].get_paths()


def test_over_a_photo_the_image_places_count():
    image = 100 * VERTICES[:, :2] / VERTICES[:, 2:] + 50
    corners = np.concatenate([path.vertices[:3] for path in drawn(image=image).get_paths()])
    assert {tuple(p) for p in corners.round(6)} <= {tuple(p) for p in image.round(6)}


def test_near_triangles_cover_far_ones():
    near = 0.25 * VERTICES
    axis = Figure().add_subplot()
    draw_surface(axis, np.concatenate([near, VERTICES]), np.concatenate([FACES, FACES + 4]))
    sizes = [np.ptp(path.vertices[:3], axis=0).max() for path in axis.collections[0].get_paths()]
    assert min(sizes[:3]) >= 2 * max(sizes[3:])


def test_shapes_are_checked():
    with pytest.raises(InputError, match="vertices of shape"):
        draw_surface(Figure().add_subplot(), VERTICES[:, :2], FACES)
    with pytest.raises(InputError, match="image of 4 vertices"):
        draw_surface(Figure().add_subplot(), VERTICES, FACES, image=np.zeros((3, 2)))
