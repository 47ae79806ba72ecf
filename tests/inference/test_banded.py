import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from propose_prob.errors import InputError
from propose_prob.inference.banded import factor_banded, multiply_banded


def chain(count, size, *, width=2, batch=(), diagonal=(), seed=0):
    """Bands of a positive definite matrix; those of `diagonal` have diagonal blocks."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    bands = []
    for k in range(1, width + 1):
        rows = max(count - k, 0)
        bands.append(draw(rows, *batch, *([size] if k in diagonal else [size, size])))
    main = draw(count, *batch, size, size)
    # Heavier on the diagonal than whatever stands beside it.
    return [main @ main.mT + 4 * width * size * torch.eye(size, dtype=torch.float64), *bands]


def dense(bands):
    count, size = bands[0].shape[0], bands[0].shape[-1]
    matrix = torch.zeros(count, size, count, size, dtype=bands[0].dtype)
    for k, band in enumerate(bands):
        for t in range(count - k):
            block = band[t] if band.ndim == 3 else band[t].diag()
            matrix[t + k, :, t] = block
            matrix[t, :, t + k] = block.mT
    return matrix.reshape(count * size, count * size)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 3), st.sets(st.sampled_from([1, 2, 3])),
    st.integers(0, 99),
)  # fmt: skip
def test_equals_the_dense_matrix(count, size, width, diagonal, seed):
    bands = chain(count, size, width=width, diagonal=diagonal, seed=seed)
    matrix = dense(bands)
    rhs = torch.randn(count, size, dtype=torch.float64)
    factor = factor_banded(bands)
    torch.testing.assert_close(multiply_banded(bands, rhs).flatten(), matrix @ rhs.flatten())
    torch.testing.assert_close(
        factor.solve(rhs).flatten(), torch.linalg.solve(matrix, rhs.flatten())
    )
    torch.testing.assert_close(
        factor.variances().flatten(), torch.linalg.inv(matrix).diagonal().contiguous()
    )


def test_more_groups_than_are_put_together_at_once():
    bands = chain(1203, 2, diagonal={1, 2})
    rhs = torch.randn(1203, 2, dtype=torch.float64)
    torch.testing.assert_close(multiply_banded(bands, factor_banded(bands).solve(rhs)), rhs)


def test_batches_are_solved_each_on_its_own():
    bands = chain(6, 3, batch=(4,))
    rhs = torch.randn(6, 4, 3, dtype=torch.float64)
    together = factor_banded(bands)
    for row in range(4):
        alone = factor_banded([band[:, row] for band in bands])
        torch.testing.assert_close(together.solve(rhs)[:, row], alone.solve(rhs[:, row]))
        torch.testing.assert_close(together.variances()[:, row], alone.variances())


def test_wrong_input_is_named():
    eye = torch.eye(2).expand(5, 2, 2)
    with pytest.raises(InputError, match=r"band 1 of shape \(4, 2, 2\)"):
        factor_banded([eye, torch.zeros(3, 2)])
    with pytest.raises(InputError, match="diagonal blocks"):
        factor_banded([torch.zeros(5, 2)])
    with pytest.raises(InputError, match="at least one block"):
        factor_banded([eye[:0]])
    broken = eye.clone()
    broken[3, 0, 0] = -1
    with pytest.raises(InputError, match="positive definite"):
        factor_banded([broken, torch.zeros(4, 2)])
    with pytest.raises(InputError, match=r"right-hand side of shape \(5, \.\.\., 2\)"):
        factor_banded([eye]).solve(torch.zeros(4, 2))
