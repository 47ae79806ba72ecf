import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propose_prob.evaluation.motion_errors import MotionErrors, acceleration_error, mpjve


def sequences(frames=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, frames, 5, 3, generator=generator, dtype=torch.float64)


def test_errors_equal_numpy():
    pred, target = sequences()
    gap = [np.diff(pred.numpy(), n, axis=0) - np.diff(target.numpy(), n, axis=0) for n in (1, 2)]
    expected = [np.linalg.norm(g, axis=-1).mean(-1) for g in gap]
    np.testing.assert_allclose(mpjve(pred, target), expected[0])
    np.testing.assert_allclose(acceleration_error(pred, target), expected[1])


def test_a_constant_offset_and_a_constant_drift():
    pred, _ = sequences()
    assert mpjve(pred + 1, pred).max() < 1e-12
    drift = torch.arange(9.0).double()[:, None, None] * torch.tensor([0.3, 0.0, 0.4]).double()
    torch.testing.assert_close(
        mpjve(pred + drift, pred), torch.full((8,), 0.5).double(), atol=1e-7, rtol=0
    )
    assert acceleration_error(pred + drift, pred).max() < 1e-7


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(0, 18), max_size=4))
def test_streamed_and_interleaved_equals_each_sequence_alone(seed, cuts):
    a, b = sequences(seed=seed), sequences(seed=seed + 1)
    pred = torch.stack([a[0], b[0]], 1).flatten(0, 1)
    target = torch.stack([a[1], b[1]], 1).flatten(0, 1)
    labels, frame = ["a", "b"] * 9, torch.arange(9).repeat_interleave(2) * 3 + 5
    errors = MotionErrors(step=3)
    bounds = [0, *sorted(cuts), 18]
    for start, stop in itertools.pairwise(bounds):
        part = slice(start, stop)
        errors.update(pred[part], target[part], labels[part], frame[part])
    result = errors.compute()
    velocity = torch.cat([mpjve(*a), mpjve(*b)]).mean()
    acceleration = torch.cat([acceleration_error(*a), acceleration_error(*b)]).mean()
    assert result.velocity == pytest.approx(float(velocity))
    assert result.acceleration == pytest.approx(float(acceleration))
    assert (result.pairs, result.triples) == (16, 14)


def test_a_gap_starts_anew_and_memory_is_bounded():
    pred, target = sequences()
    errors = MotionErrors()
    errors.update(pred, target, ["a"] * 9, torch.tensor([0, 1, 2, 4, 5, 9, 10, 11, 12]))
    assert (errors.compute().pairs, errors.compute().triples) == (2 + 1 + 3, 1 + 2)
    many = [f"s{i}" for i in range(500)]
    errors.update(torch.zeros(500, 2, 3), torch.zeros(500, 2, 3), many, torch.zeros(500).long())
    assert len(errors._last) <= 64


def test_processes_are_merged():
    pred, target = sequences()
    whole, one, two = MotionErrors(), MotionErrors(), MotionErrors()
    for errors, label in ((one, "a"), (two, "b")):
        errors.update(pred, target, [label] * 9, torch.arange(9))
        whole.update(pred, target, [label] * 9, torch.arange(9))
    one.merge(two)
    assert one.compute().velocity == pytest.approx(whole.compute().velocity)
    assert one.compute().triples == whole.compute().triples
    with pytest.raises(ValueError, match="steps of 1, got 2"):
        one.merge(MotionErrors(step=2))


def test_nothing_in_a_row_is_not_a_number():
    assert np.isnan(MotionErrors().compute().velocity)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mpjve(torch.zeros(1, 5, 3), torch.zeros(1, 5, 3)), "at least 2 frames"),
        (lambda: acceleration_error(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3)), "at least 3"),
        (lambda: mpjve(torch.zeros(4, 5, 3), torch.zeros(4, 4, 3)), r"shape \(4, 5, 3\)"),
        (lambda: mpjve(torch.zeros(5, 3), torch.zeros(5, 3)), r"\(T, ..., J, 3\)"),
        (lambda: MotionErrors(step=0), "step >= 1"),
        (
            lambda: MotionErrors().update(
                torch.zeros(2, 5, 3), torch.zeros(2, 5, 3), ["a"], torch.arange(2)
            ),
            "2 sequence labels",
        ),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
