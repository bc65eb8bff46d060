"""Sums and maxima that are folded first."""

import numpy as np
import pytest

from robustgen.threats.geometry import peak, total


@pytest.mark.parametrize("length", [1, 5, 32, 33, 100, 784, 3073])
@pytest.mark.parametrize("axis", [-1, 1])
def test_every_entry_counts_once(length, axis):
    shape = (3, length) if axis == -1 else (3, length, 2)
    v = np.random.default_rng(length).integers(-999, 1000, shape).astype(np.float32)  # sums are exact
    np.testing.assert_array_equal(total(v, axis), v.astype(np.float64).sum(axis))
    np.testing.assert_array_equal(peak(v, axis), v.max(axis))
