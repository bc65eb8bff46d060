"""Certified accuracy from radii: counted by hand, against simulation, and as drawn."""

import numpy as np
import pytest
from scipy import stats

from robustgen.evaluation import draw
from robustgen.evaluation.radii import (
    at_least,
    average_certified_radius,
    certified_accuracy,
    certified_curves,
    held_radius,
)
from robustgen.knobs import KnobError

PREDICTION, LABEL = np.asarray([1, 2, -1, 0, 3]), np.asarray([1, 0, 2, 0, 3])
RADIUS = np.asarray([0.5, 0.9, 0.0, 0.0, 0.25])


def test_wrong_and_abstained_examples_are_right_at_no_radius():
    held = held_radius(PREDICTION, RADIUS, LABEL)
    np.testing.assert_array_equal(held, [0.5, -1, -1, 0, 0.25])
    found = certified_accuracy(held, [0, 0.25, 0.3, 0.5, 0.51])
    assert [round(5 * e.value) for e in found] == [3, 2, 1, 1, 0] and all(e.n == 5 for e in found)
    assert all(e.lower <= e.value <= e.upper for e in found)


def test_average_certified_radius_counts_them_as_zero():
    found = average_certified_radius(held_radius(PREDICTION, RADIUS, LABEL))
    assert found.value == pytest.approx(0.75 / 5) and found.n == 5
    half = stats.t.ppf(0.975, 4) * np.std([0.5, 0, 0, 0, 0.25], ddof=1) / np.sqrt(5)
    assert found.upper - found.value == pytest.approx(half)


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_what_holds_of_all_certificates_together(alpha):
    """Failures exceed what is taken off at most as often as rho says, and one less would be too few."""
    n, rho = 500, 0.01
    taken = round(500 * (0.9 - at_least(0.9, n, alpha=alpha, rho=rho)))
    assert stats.binom.sf(taken, n, alpha) <= rho < stats.binom.sf(taken - 1, n, alpha)
    assert at_least(0.001, n, alpha=0.05) == 0


def test_the_picture_holds_the_curve_and_its_band():
    held = {"a": np.linspace(0, 1, 100), "b": np.full(50, 0.3)}
    figure = certified_curves(held, num_points=11)
    (ax,) = figure.axes
    assert [line.get_label() for line in ax.lines] == ["a", "b"] and len(ax.collections) == 2
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y, [100 * np.mean(held["a"] >= r) for r in x])
    assert draw.svg(figure, "x") == draw.svg(certified_curves(held, num_points=11), "x")


def test_radii_are_checked():
    with pytest.raises(KnobError, match="radii"):
        certified_accuracy(RADIUS, [0.1, -0.1])
