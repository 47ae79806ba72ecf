import torch
from hypothesis import given
from hypothesis import strategies as st

from propose_prob.geometry.camera import rectify

ANGLES = st.floats(-0.6, 0.6)


def person(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.4 * torch.randn(17, 3, generator=generator, dtype=torch.float64)


def view(points: torch.Tensor) -> torch.Tensor:
    return points[..., :2] / points[..., 2:]


@given(ANGLES, ANGLES, st.integers(0, 100))
def test_virtual_view_is_the_projection_after_the_rotation(x: float, y: float, seed: int) -> None:
    joints = person(seed) + 5 * torch.tensor([x, y, 1.0], dtype=torch.float64)
    visible = torch.ones(17, dtype=torch.bool)
    focal, center = torch.tensor(1145.0).double(), torch.tensor([500.0, 400.0]).double()
    pixels = focal * view(joints) + center
    p2d, rotation = rectify(pixels, visible, focal=focal, center=center)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).to(rotation), rtol=0, atol=1e-9)
    assert torch.linalg.det(rotation) > 0
    assert torch.allclose(p2d, view(joints @ rotation.mT), atol=1e-9)
    rays = torch.nn.functional.normalize(
        torch.cat([p2d, torch.ones(17, 1, dtype=torch.float64)], -1), dim=-1
    )
    assert rays.mean(0)[:2].abs().max() < 1e-9


def test_a_person_on_the_axis_is_left_alone() -> None:
    points = torch.tensor([[-0.1, 0.0], [0.1, 0.0], [0.0, 0.2], [0.0, -0.2]], dtype=torch.float64)
    visible = torch.ones(4, dtype=torch.bool)
    p2d, rotation = rectify(
        points, visible, focal=torch.tensor(1.0), center=torch.zeros(2, dtype=torch.float64)
    )
    assert torch.allclose(p2d, points)
    assert torch.allclose(rotation, torch.eye(3, dtype=torch.float64))


def test_invisible_joints_do_not_matter() -> None:
    points = view(person(0) + torch.tensor([1.0, 0.0, 5.0]))
    visible = torch.ones(17, dtype=torch.bool)
    visible[3] = False
    far = points.clone()
    far[3] = 1e6
    one = torch.tensor(1.0).double()
    zero = torch.zeros(2, dtype=torch.float64)
    a, ra = rectify(points, visible, focal=one, center=zero)
    b, rb = rectify(far, visible, focal=one, center=zero)
    assert torch.equal(ra, rb)
    assert torch.equal(a[visible], b[visible])
    assert b.isfinite().all()
