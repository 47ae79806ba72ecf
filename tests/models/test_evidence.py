import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from propose_prob.errors import InputError
from propose_prob.models.evidence import keypoint_evidence


def keypoints(seed: int = 0, batch: tuple[int, ...] = (4,)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, 17, 2, generator=generator, dtype=torch.float64)


@given(st.floats(0.01, 1000.0), st.floats(-1000, 1000), st.floats(-1000, 1000))
def test_any_pixel_unit_gives_the_same_evidence(scale: float, dx: float, dy: float) -> None:
    p2d = keypoints()
    moved = scale * (p2d + torch.tensor([dx, dy], dtype=torch.float64))
    a, b = keypoint_evidence(p2d), keypoint_evidence(moved)
    assert torch.allclose(a.features, b.features, atol=1e-6)
    assert a.rotation is None


@given(st.floats(0.1, 1000.0), st.floats(-100, 100))
def test_known_intrinsics_may_be_in_any_unit(scale: float, shift: float) -> None:
    p2d = 0.1 * keypoints()
    a = keypoint_evidence(p2d, focal=1.0)
    b = keypoint_evidence(scale * p2d + shift, focal=scale, center=(shift, shift))
    assert torch.allclose(a.features, b.features, atol=1e-8)
    assert a.rotation is not None
    assert b.rotation is not None
    assert torch.allclose(a.rotation, b.rotation, atol=1e-8)


def test_nan_and_zero_confidence_say_the_same() -> None:
    p2d, confidence = keypoints(), torch.ones(4, 17, dtype=torch.float64)
    confidence[1, 5] = 0
    missing = p2d.clone()
    missing[1, 5] = float("nan")
    for focal in (None, 2.0):
        a = keypoint_evidence(p2d, confidence, focal=focal)
        b = keypoint_evidence(missing, focal=focal)
        assert torch.equal(a.features, b.features)
        assert b.features.isfinite().all()


def test_batch_equals_loop_and_focal_may_differ_by_item() -> None:
    p2d = 0.1 * keypoints()
    focal = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    whole = keypoint_evidence(p2d, focal=focal)
    assert whole.rotation is not None
    for i in range(4):
        one = keypoint_evidence(p2d[i], focal=float(focal[i]))
        assert one.rotation is not None
        assert torch.allclose(whole.features[i], one.features)
        assert torch.allclose(whole.rotation[i], one.rotation)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 16, 2), r"shape \(\.\.\., 17, 2\), got \(4, 16, 2\)"),
        ((17, 3), r"shape \(\.\.\., 17, 2\), got \(17, 3\)"),
        ((2,), r"shape \(\.\.\., 17, 2\), got \(2,\)"),
    ],
)
def test_wrong_shapes_name_the_expected_one(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        keypoint_evidence(torch.zeros(shape))


def test_unusable_values_raise() -> None:
    with pytest.raises(InputError, match="focal length > 0"):
        keypoint_evidence(keypoints(), focal=0.0)
    hidden = keypoints()
    hidden[2] = float("nan")
    with pytest.raises(InputError, match="2"):
        keypoint_evidence(hidden)
    with pytest.raises(InputError, match="2"):
        keypoint_evidence(hidden, focal=1.0)
