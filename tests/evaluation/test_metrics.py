import math
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from propose_prob.evaluation import mpjpe, pa_mpjpe
from propose_prob.evaluation.metrics import auc, best_of, best_of_curve, cps, n_mpjpe, pck, pve

seeds = st.integers(0, 2**32 - 1)


def poses(seed, *shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 3, generator=generator, dtype=dtype)


def procrustes_reference(source, target, scale):
    """Procrustes by scipy, one pose, with mirrors undone."""
    a, b = source - source.mean(0), target - target.mean(0)
    rotation, _ = orthogonal_procrustes(a, b)
    if np.linalg.det(rotation) < 0:
        u, _, vt = np.linalg.svd(a.T @ b)
        u[:, -1] *= -1
        rotation = u @ vt
    factor = np.sum((a @ rotation) * b) / np.sum(a * a) if scale else 1.0
    return factor * a @ rotation + target.mean(0)


def test_mpjpe_equals_numpy():
    pred, target = poses(0, 5, 4, 17), poses(1, 4, 17)
    expected = np.sqrt(((pred.numpy() - target.numpy()) ** 2).sum(-1)).mean(-1)
    np.testing.assert_allclose(mpjpe(pred, target).numpy(), expected)


def test_masked_mpjpe_ignores_what_masked_joints_hold():
    pred, target = poses(0, 5, 4, 17), poses(1, 4, 17)
    mask = torch.rand(4, 17, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[0], mask[1] = True, False
    expected = [
        [np.linalg.norm(pred[s, b][mask[b]] - target[b][mask[b]], axis=-1) for b in range(4)]
        for s in range(5)
    ]
    pred[:, ~mask] = torch.nan
    result = mpjpe(pred, target, mask=mask)
    assert result[:, 1].isnan().all()
    for s in range(5):
        for b in (0, 2, 3):
            assert math.isclose(result[s, b].item(), expected[s][b].mean(), rel_tol=1e-12)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_pa_mpjpe_equals_scipy(scale, masked):
    pred, target = poses(0, 6, 4, 17), poses(1, 4, 17)
    pred[0] = target + 0.1 * pred[0]
    pred[1] = torch.tensor([-1.0, 1, 1]) * target  # a mirror image must stay one
    mask = torch.ones(4, 17, dtype=torch.bool)
    if masked:
        mask[0, :5], mask[1, 7:] = False, False
    result = pa_mpjpe(pred, target, mask=mask if masked else None, scale=scale)
    for s in range(6):
        for b in range(4):
            a, y = pred[s, b][mask[b]].numpy(), target[b][mask[b]].numpy()
            aligned = procrustes_reference(a, y, scale)
            expected = np.linalg.norm(aligned - y, axis=-1).mean()
            assert math.isclose(result[s, b].item(), expected, rel_tol=1e-9)
    assert result[1].min() > 0.1


def test_pa_mpjpe_in_chunks_and_in_float32(monkeypatch):
    pred, target = poses(0, 30, 11, 17), poses(1, 11, 17)
    mask = torch.rand(11, 17, generator=torch.Generator().manual_seed(2)) < 0.8
    whole, masked = pa_mpjpe(pred, target), pa_mpjpe(pred, target, mask=mask)
    monkeypatch.setattr("propose_prob.evaluation.metrics._POSES_PER_CHUNK", 7)
    torch.testing.assert_close(pa_mpjpe(pred, target), whole)
    torch.testing.assert_close(pa_mpjpe(pred, target, mask=mask), masked)
    single = pa_mpjpe(pred.float(), target.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), whole, rtol=1e-4, atol=1e-5)


def test_pa_mpjpe_of_an_empty_batch():
    assert pa_mpjpe(torch.zeros(5, 0, 17, 3), torch.zeros(0, 17, 3)).shape == (5, 0)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, factor=st.floats(0.1, 10))
def test_pa_mpjpe_forgets_similarity_transforms(seed, factor):
    pred, target = poses(seed, 3, 17), poses(seed + 1, 3, 17)
    rotation = torch.from_numpy(Rotation.random(random_state=seed % 2**31).as_matrix())
    moved = factor * pred @ rotation.T + torch.tensor([1.0, -2.0, 3.0])
    torch.testing.assert_close(pa_mpjpe(moved, target), pa_mpjpe(pred, target))
    torch.testing.assert_close(pa_mpjpe(target @ rotation.T, target), torch.zeros(3).double())


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_errors_turn_with_the_pose(seed):
    pred, target = poses(seed, 3, 17), poses(seed + 1, 3, 17)
    rotation = torch.from_numpy(Rotation.random(random_state=seed % 2**31).as_matrix())
    for metric in (mpjpe, n_mpjpe, pa_mpjpe):
        turned = metric(pred @ rotation.T, target @ rotation.T)
        torch.testing.assert_close(turned, metric(pred, target))


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_alignment_never_makes_the_squared_error_larger(seed):
    pred, target = poses(seed, 3, 17), poses(seed + 1, 3, 17)
    pred, target = pred - pred.mean(-2, keepdim=True), target - target.mean(-2, keepdim=True)
    assert (pa_mpjpe(0.5 * target, target) < 1e-9).all()
    assert (pa_mpjpe(0.5 * target, target, scale=False) > 0.1).all()


def test_n_mpjpe_equals_a_numerical_search_for_the_scale():
    from scipy.optimize import minimize_scalar

    pred, target = poses(0, 4, 17), poses(1, 4, 17) + poses(0, 4, 17)
    mask = torch.ones(4, 17, dtype=torch.bool)
    mask[2, :6] = False
    result = n_mpjpe(pred, target, mask=mask)
    for b in range(4):
        a, y = pred[b][mask[b]].numpy(), target[b][mask[b]].numpy()
        scale = minimize_scalar(lambda k, a=a, y=y: np.sum((k * a - y) ** 2)).x
        expected = np.linalg.norm(scale * a - y, axis=-1).mean()
        assert math.isclose(result[b].item(), expected, rel_tol=1e-6)
    assert n_mpjpe(torch.zeros(17, 3), torch.ones(17, 3)).item() == pytest.approx(math.sqrt(3))


def test_pck_counts_joints_below_the_threshold():
    target = torch.zeros(2, 4, 3)
    pred = torch.tensor([0.0, 0.1, 0.15, 0.2])[:, None] * torch.tensor([0.0, 0.0, 1.0])
    pred = pred.expand(2, 4, 3)
    # Strictly below, as the official script of MPI-INF-3DHP counts.
    assert pck(pred, target, threshold=0.15).tolist() == [0.5, 0.5]
    assert pck(pred, target, threshold=0.16).tolist() == [0.75, 0.75]
    mask = torch.tensor([[True, False, False, True], [False] * 4])
    result = pck(pred, target, threshold=0.15, mask=mask)
    assert result[0] == 0.5 and result[1].isnan()


def test_auc_is_the_mean_of_31_pck():
    pred, target = 0.1 * poses(0, 6, 4, 17), torch.zeros(4, 17, 3).double()
    mask = torch.rand(4, 17, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[:, 0] = True
    distance = np.linalg.norm(pred.numpy() - target.numpy(), axis=-1)
    thresholds = np.arange(31) * 5 / 1000
    below = (distance[..., None] < thresholds).mean(-1)
    np.testing.assert_allclose(auc(pred, target), below.mean(-1))
    expected = (below * mask.numpy()).sum(-1) / mask.numpy().sum(-1)
    np.testing.assert_allclose(auc(pred, target, mask=mask), expected)
    spoiled = pred.clone()
    spoiled[0, 0, 3] = torch.nan
    assert auc(spoiled, target)[0, 0].isnan() and auc(spoiled, target)[0, 1:].isfinite().all()


def test_cps_is_the_area_of_the_correct_poses_curve():
    pred, target = 0.1 * poses(0, 50, 17), torch.zeros(17, 3).double()
    pred[0], pred[1, :, :] = 0.0, 0.0
    pred[2] = 1.0
    pred[3] = 0.0
    pred[3, 5, 1] = 0.2995
    mask = torch.ones(50, 17, dtype=torch.bool)
    mask[1, 2:] = False
    worst = 1000 * np.where(mask, np.linalg.norm(pred.numpy(), axis=-1), 0).max(-1)
    thresholds = np.arange(1, 301)
    expected = np.trapezoid((worst[:, None] < thresholds).astype(float), thresholds, axis=-1)
    result = cps(pred, target, mask=mask)
    np.testing.assert_allclose(result, expected)
    assert result[0] == 299 and result[2] == 0
    assert cps(pred[:1], target, mask=torch.zeros(1, 17)).isnan().all()


def test_pve_equals_numpy():
    pred, target = poses(0, 3, 50), poses(1, 3, 50)
    expected = np.linalg.norm(pred - target, axis=-1).mean(-1)
    np.testing.assert_allclose(pve(pred, target), expected)


@pytest.mark.parametrize("m", [1, 2, 3, 6])
def test_best_of_is_the_mean_over_all_subsets(m):
    errors = poses(3, 6, 5)[..., 0].abs()
    subsets = [errors[list(chosen)].amin(0) for chosen in combinations(range(6), m)]
    torch.testing.assert_close(best_of(errors, m), torch.stack(subsets).mean(0))


def test_best_of_curve_is_the_mean_over_all_subsets_for_every_m():
    errors = poses(3, 7, 5)[..., 0].abs()
    counts, curve = best_of_curve(errors, counts=range(1, 8))
    for m, value in zip(counts, curve, strict=True):
        subsets = [errors[list(chosen)].amin(0) for chosen in combinations(range(7), m)]
        torch.testing.assert_close(value, torch.stack(subsets).mean(0))
    assert (curve.diff(dim=0) <= 0).all()


def test_best_of_curve_is_unbiased():
    """Over many sets of 8 samples its mean is the expected minimum of m new ones."""
    errors = torch.rand(8, 40_000, generator=torch.Generator().manual_seed(0))
    counts, curve = best_of_curve(errors)
    assert counts == [1, 2, 5, 8]
    # The smallest of m uniform numbers has mean 1 / (m + 1).
    for m, value in zip(counts, curve.mean(1), strict=True):
        assert float(value) == pytest.approx(1 / (m + 1), abs=4e-3)


def test_best_of_is_stable_for_many_samples():
    errors = poses(3, 5000, 1)[..., 0].abs().float()
    assert best_of(errors, 5000) == errors.min()
    torch.testing.assert_close(best_of(errors, 1), errors.mean(0))
    assert errors.min() < best_of(errors, 2500) < best_of(errors, 10) < errors.mean()


@settings(max_examples=25, deadline=None)
@given(seed=seeds, m=st.integers(1, 12))
def test_best_of_forgets_the_order_and_falls_with_m(seed, m):
    errors = poses(seed, 12, 4)[..., 0].abs()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(best_of(errors[order], m), best_of(errors, m))
    if m > 1:
        assert (best_of(errors, m) <= best_of(errors, m - 1) + 1e-12).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mpjpe(torch.zeros(17, 2), torch.zeros(17, 3)), r"pred of shape \(..., J, 3\)"),
        (lambda: mpjpe(torch.zeros(17, 3), torch.zeros(16, 3)), "17 and 16"),
        (lambda: pa_mpjpe(torch.zeros(3), torch.zeros(17, 3)), "pred of shape"),
        (
            lambda: mpjpe(torch.zeros(17, 3), torch.zeros(17, 3), mask=torch.ones(16)),
            r"mask of shape \(..., 17\), got \(16,\)",
        ),
        (lambda: pck(torch.zeros(17, 3), torch.zeros(17, 3), threshold=-1.0), "threshold >= 0"),
        (lambda: best_of(torch.zeros(5, 2), 6), "between 1 and S = 5"),
        (lambda: best_of(torch.zeros(5, 2), 0), "between 1 and S = 5"),
        (lambda: best_of(torch.tensor(1.0), 1), "got a scalar"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
